"""What contenders have to do: the table of workloads whose load runs for a while, and how each is offered.

Must not know how CPU is counted. Every workload checks content: the checking client all of it, wrk none, so that the
checking client asks beside wrk for a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol

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
_POPULAR_CHECKED, _LARGE_CHECKED = 6, 2
_CHECKED_OCTETS_MAX = 1_000_000
"""Of a document that is only looked at beside wrk's load."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What came of the load of one window."""

    seconds: float
    requests: int
    payload_octets: int
    latencies_ms: dict[str, float]
    errors: int
    """Of the load's requests; those of the sample are its own."""
    wrong: tuple[str, ...]
    """Answers that were not right, in words, the sample's included."""
    sample: Tally | None = None
    """What the checking client got beside the load; None: the load itself looks at every octet."""

    @property
    def checked(self) -> int:
        """Right answers beside the load."""
        return self.sample.answers if self.sample else 0

    @property
    def check_errors(self) -> int:
        """Connections of the checking client that failed beside the load."""
        return self.sample.errors if self.sample else 0


class Offer(Protocol):
    """One kind of load."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Documents of which each has to be answered right before the load begins, and beside one that wrk makes."""
        ...

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
    leaves_connections: bool = False
    """Whether so many are over at its end that whoever has to forget them needs processor time for that."""


@dataclass(frozen=True, slots=True)
class SmallRequests:
    """wrk asks for 1 KB again and again."""

    connections: int
    closes: bool
    """Whether each request has a connection of its own."""
    threads: int = 1
    """Of wrk. One that shares a full processor with the server leaves the other to a balancer that then has to wait."""

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each rule."""
        return SAMPLED

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        script = _script(stand, "one", load.script_for_one_document())
        document = stand.document("/1k.html")
        with _sampling(stand, self.paths, seconds) as sampled:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                document.path,
                script,
                connections=self.connections,
                threads=self.threads,
                closes=self.closes,
                seconds=seconds,
            )
        return _by_wrk_of_size(report, sampled.result(), len(document.content))


@dataclass(frozen=True, slots=True)
class OneAfterTheOther:
    """wrk asks for documents of one size in turn, each on a new connection: `SPREAD_PATH`/1, /2, ..."""

    connections: int
    documents: int

    @property
    def paths(self) -> tuple[str, ...]:
        """All that are asked for."""
        return tuple(f"{SPREAD_PATH}/{number}" for number in range(1, self.documents + 1))

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        pages = [(number,) for number in range(1, self.documents + 1)]
        script = _script(stand, "spread", load.script_for_pages(pages, SPREAD_PATH, 1))
        octets_each = min(len(stand.document(path).content) for path in self.paths)
        with _sampling(stand, self.paths, seconds) as sampled:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                self.paths[0],
                script,
                connections=self.connections,
                seconds=seconds,
            )
        return _by_wrk_of_size(report, sampled.result(), octets_each)


@dataclass(frozen=True, slots=True)
class Pages:
    """wrk asks for the pages of a SURGE site, each page on a connection of its own, without pauses."""

    connections: int

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each rule, the most popular documents of the site, and large ones of it."""
        return (*SAMPLED, *(f"{SITE_PATH}/{number}" for number in documents_to_check(the_site())))

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by wrk."""
        site = the_site()
        script = _script(stand, "pages", load.script_for_pages(site.pages, SITE_PATH, self.connections))
        with _sampling(stand, self.paths, seconds) as sampled:
            report = load.run_wrk(
                stand.lab.client,
                stand.target,
                f"{SITE_PATH}/0",
                script,
                connections=self.connections,
                threads=self.connections,
                seconds=seconds,
            )
        # wrk counts octets with their heads, also of answers that did not end: payload is what answers have on average.
        return _by_wrk(report, sampled.result(), round(report.requests * site.mean_octets), [])


@dataclass(frozen=True, slots=True)
class Downloads:
    """The checking client fetches a document, each time on a new connection."""

    path: str
    concurrency: int

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each rule."""
        return SAMPLED

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by the checking client."""
        document = stand.document(self.path)
        return _by_checking(fetch(stand.lab.client.enter, stand.target, document, self.concurrency, seconds))


@dataclass(frozen=True, slots=True)
class Uploads:
    """The checking client sends a document, each time on a new connection, and gets its digest back."""

    path: str
    concurrency: int

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each rule."""
        return SAMPLED

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

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each rule."""
        return SAMPLED

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        """Offer it by the checking client."""
        documents = [stand.document("/1k.html")]
        return _by_checking(paced(stand.lab.client.enter, stand.target, documents, self.per_s, seconds))


CLOSE: Final = Workload(
    "close",
    "new connection per 1 KB request",
    SmallRequests(32, closes=True, threads=2),
    is_essential=True,
    leaves_connections=True,
)
KEEPALIVE: Final = Workload("keepalive", "1 KB, keep-alive", SmallRequests(32, closes=False), is_essential=True)
DOWNLOAD: Final = Workload("download", "10 MB download", Downloads("/10m.html", 4), is_essential=True)
MIXED: Final = Workload("mixed", "SURGE pages", Pages(16), leaves_connections=True)
WORKLOADS: Final = (
    CLOSE,
    KEEPALIVE,
    DOWNLOAD,
    Workload("download_large", "100 MB download", Downloads("/100m.html", 2)),
    Workload("upload", "10 MB upload", Uploads("/10m.html", 2)),
    Workload("latency", "1 KB at 100 requests/s", LowRate(100.0), leaves_connections=True),
    MIXED,
)
"""In the order in which each round takes them."""


@cache
def the_site() -> surge.Site:
    """The site that `Pages` asks for."""
    return surge.site(SITE_SEED, SITE_DOCUMENTS, SITE_PAGES)


def documents_to_check(site: surge.Site) -> tuple[int, ...]:
    """The most popular documents of a site and the largest below `_CHECKED_OCTETS_MAX`, none twice, by number."""
    popular = tuple(range(min(_POPULAR_CHECKED, len(site.sizes_octets))))
    others = [
        number
        for number, octets in enumerate(site.sizes_octets)
        if number not in popular and octets < _CHECKED_OCTETS_MAX
    ]
    others.sort(key=lambda number: site.sizes_octets[number])
    return (*popular, *others[-_LARGE_CHECKED:])


@contextmanager
def _sampling(stand: Stand, paths: tuple[str, ...], seconds: float) -> Iterator[Future[Tally]]:
    """The checking client beside a load, in a thread of its own; `result` raises what ended it, if anything did."""
    documents = [stand.document(path) for path in paths]
    with ThreadPoolExecutor(1, "sample") as thread:
        yield thread.submit(paced, stand.lab.client.enter, stand.target, documents, SAMPLED_PER_S, seconds)


def _script(stand: Stand, name: str, text: str) -> Path:
    file = stand.lab.client.directory / f"{name}.lua"
    file.write_text(text)
    return file


def _by_wrk_of_size(report: load.WrkReport, sample: Tally, octets_each: int) -> Offered:
    """Every answer has a body of so many octets."""
    octets = report.requests * octets_each
    short = [f"{report.octets} octets for {report.requests} answers"] if report.octets < octets else []
    return _by_wrk(report, sample, octets, short)


def _by_wrk(report: load.WrkReport, sample: Tally, payload_octets: int, wrong: list[str]) -> Offered:
    refused = [f"{report.refused} answers with an error status"] if report.refused else []
    return Offered(
        report.seconds,
        report.requests,
        payload_octets,
        report.latencies_ms,
        report.failed,
        (*sample.wrong, *refused, *wrong),
        sample,
    )


def _by_checking(tally: Tally) -> Offered:
    milliseconds = [latency_s * 1e3 for latency_s in tally.latencies_s]
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99} if milliseconds else {}
    latencies = {name: percentile(milliseconds, share) for name, share in shares.items()}
    return Offered(tally.seconds, tally.answers, tally.octets, latencies, tally.errors, tuple(tally.wrong))
