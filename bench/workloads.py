"""What contenders have to do: the table of workloads whose load runs for a while, and how each is offered.

Must not know how CPU is counted. Every workload checks content: the checking client all of it, wrk none, so that the
checking client asks beside wrk for a sample.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from bench import load, surge
from bench.arena import UPLOAD_PATH, Stand
from bench.checking_client import Tally, fetch, paced, upload
from bench.figures import percentile

SAMPLED_PER_S: Final = 5.0
SAMPLED: Final = ("/1k.html", "/1k.jpg")
"""One for each rule."""
SITE_PATH: Final = "/surge"
SPREAD_PATH: Final = "/spread"
SITE_SEED: Final = 1998
SITE_DOCUMENTS: Final = 500
SITE_PAGES: Final = 1500


@dataclass(frozen=True, slots=True)
class Offered:
    """What came of the load of one window."""

    seconds: float
    requests: int
    checked: int
    payload_octets: int
    latencies_ms: dict[str, float]
    errors: int
    wrong: tuple[str, ...]


class Offer(Protocol):
    """One kind of load."""

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Put it on a contender for so long, and wait for the end."""
        ...


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    key: str
    title: str
    offer: Offer
    is_essential: bool = False
    """Whether ratios or costs with a floor come of it."""


@dataclass(frozen=True, slots=True)
class SmallRequests:
    """wrk asks for 1 KB again and again."""

    connections: int
    closes: bool
    """Whether each request has a connection of its own."""

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        script = _script(stand, "one", load.script_for_one_document())
        document = stand.document("/1k.html")
        with _Sample(stand, seconds) as sample:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                document.path,
                script,
                connections=self.connections,
                closes=self.closes,
                seconds=seconds,
            )
        octets = report.requests * len(document.content)
        short = [f"{report.octets} octets for {report.requests} answers"] if report.octets < octets else []
        return _by_wrk(report, sample.tally, octets, short)


@dataclass(frozen=True, slots=True)
class OneAfterTheOther:
    """wrk asks for documents of 1 KB in turn, each on a new connection: `SPREAD_PATH`/1, /2, ..."""

    connections: int
    documents: int

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        numbers = range(1, self.documents + 1)
        script = _script(stand, "spread", load.script_for_pages([(number,) for number in numbers], SPREAD_PATH, 1))
        octets_each = min(len(stand.document(f"{SPREAD_PATH}/{number}").content) for number in numbers)
        with _Sample(stand, seconds) as sample:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                f"{SPREAD_PATH}/1",
                script,
                connections=self.connections,
                seconds=seconds,
            )
        octets = report.requests * octets_each
        short = [f"{report.octets} octets for {report.requests} answers"] if report.octets < octets else []
        return _by_wrk(report, sample.tally, octets, short)


@dataclass(frozen=True, slots=True)
class Pages:
    """wrk asks for the pages of a SURGE site, each page on a connection of its own, without pauses."""

    connections: int

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        text = load.script_for_pages(the_site().pages, SITE_PATH, self.connections)
        script = _script(stand, "pages", text)
        with _Sample(stand, seconds) as sample:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                f"{SITE_PATH}/0",
                script,
                connections=self.connections,
                threads=self.connections,
                seconds=seconds,
            )
        return _by_wrk(report, sample.tally, report.octets, [])


@dataclass(frozen=True, slots=True)
class Downloads:
    """The checking client fetches a document, each time on a new connection."""

    path: str
    concurrency: int

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by the checking client."""
        document = stand.document(self.path)
        return _by_checking(fetch(stand.lab.client.enter, stand.target, document, self.concurrency, seconds))


@dataclass(frozen=True, slots=True)
class Uploads:
    """The checking client sends a document, each time on a new connection, and gets its digest back."""

    path: str
    concurrency: int

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by the checking client."""
        body = stand.document(self.path).content
        node = stand.contender.node_for(UPLOAD_PATH)
        enter, target = stand.lab.client.enter, stand.target
        return _by_checking(upload(enter, target, UPLOAD_PATH, body, node, self.concurrency, seconds))


@dataclass(frozen=True, slots=True)
class LowRate:
    """The checking client fetches 1 KB, each time on a new connection, at a rate that nobody finds hard."""

    per_s: float

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by the checking client."""
        documents = [stand.document("/1k.html")]
        return _by_checking(paced(stand.lab.client.enter, stand.target, documents, self.per_s, seconds))


CLOSE: Final = Workload("close", "new connection per 1 KB request", SmallRequests(32, closes=True), is_essential=True)
KEEPALIVE: Final = Workload("keepalive", "1 KB, keep-alive", SmallRequests(32, closes=False), is_essential=True)
DOWNLOAD: Final = Workload("download", "10 MB download", Downloads("/10m.html", 4), is_essential=True)
WORKLOADS: Final = (
    CLOSE,
    KEEPALIVE,
    DOWNLOAD,
    Workload("download_large", "100 MB download", Downloads("/100m.html", 2)),
    Workload("upload", "10 MB upload", Uploads("/10m.html", 2)),
    Workload("latency", "1 KB at 100 requests/s", LowRate(100.0)),
    Workload("mixed", "SURGE pages", Pages(16)),
)
"""In the order in which each round takes them."""


def the_site() -> surge.Site:
    """The site that `Pages` asks for."""
    return surge.site(SITE_SEED, SITE_DOCUMENTS, SITE_PAGES)


class _Sample:
    """The checking client beside a load, in a thread of its own."""

    def __init__(self, stand: Stand, seconds: float) -> None:
        self.tally = Tally()
        documents = [stand.document(path) for path in SAMPLED]

        def run() -> None:
            self.tally = paced(stand.lab.client.enter, stand.target, documents, SAMPLED_PER_S, seconds)

        self._thread = threading.Thread(target=run, name="sample", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._thread.join()


def _script(stand: Stand, name: str, text: str) -> Path:
    file = stand.lab.client.directory / f"{name}.lua"
    file.write_text(text)
    return file


def _by_wrk(report: load.WrkReport, sample: Tally, payload_octets: int, wrong: list[str]) -> Offered:
    refused = [f"{report.refused} answers with an error status"] if report.refused else []
    return Offered(
        report.seconds,
        report.requests,
        sample.answers,
        payload_octets,
        report.latencies_ms,
        report.failed + sample.errors,
        (*sample.wrong, *refused, *wrong),
    )


def _by_checking(tally: Tally) -> Offered:
    milliseconds = [latency_s * 1e3 for latency_s in tally.latencies_s]
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99} if milliseconds else {}
    latencies = {name: percentile(milliseconds, share) for name, share in shares.items()}
    return Offered(tally.seconds, tally.answers, 0, tally.octets, latencies, tally.errors, tuple(tally.wrong))
