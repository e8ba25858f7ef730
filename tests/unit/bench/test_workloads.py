"""What is asked for beside each load, and what makes an answer wrong."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import surge, workloads
from bench.arena import Stand
from bench.checking_client import Document, Tally, Target
from bench.contenders import spread_over
from bench.load import WrkReport
from bench.workloads import (
    MIXED,
    SAMPLED,
    SITE_PATH,
    WORKLOADS,
    Downloads,
    OneAfterTheOther,
    Pages,
    SmallRequests,
    Workload,
    documents_to_check,
    the_site,
)

CONTENT = bytes(1000)
REPORT = WrkReport(2.0, 100, 130_000, 1, 0, 1.0, 2.0, 3.0)
BY_WRK = (SmallRequests(32, closes=True), OneAfterTheOther(32, 3), Pages(4))


class Checking:
    """Stands in for the checking client: says what was asked for."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.asked: list[str] = []

    def __call__(
        self, _enter: object, _target: Target, documents: Sequence[Document], _per_s: float, _seconds: float
    ) -> Tally:
        self.asked = [each.path for each in documents]
        return self.tally


def stand(directory: Path) -> Stand:
    client = SimpleNamespace(directory=directory, enter=nullcontext)
    return cast(
        Stand,
        SimpleNamespace(
            lab=SimpleNamespace(client=client),
            target=Target("198.18.0.36", 80),
            document=lambda path: Document(path, CONTENT, "be1"),
        ),
    )


def checking(monkeypatch: pytest.MonkeyPatch, tally: Tally, report: WrkReport = REPORT) -> Checking:
    found = Checking(tally)
    monkeypatch.setattr(workloads, "paced", found)
    monkeypatch.setattr("bench.workloads.load.run_wrk", lambda *_arguments, **_options: report)
    return found


def test_wrk_gets_as_many_threads_as_the_load_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checking(monkeypatch, Tally())
    asked: list[int] = []

    def run_wrk(*_arguments: object, threads: int, **_options: object) -> WrkReport:
        asked.append(threads)
        return REPORT

    monkeypatch.setattr("bench.workloads.load.run_wrk", run_wrk)
    for offer in (SmallRequests(32, closes=True), SmallRequests(32, closes=True, threads=2)):
        offer(stand(tmp_path), 1)
    assert asked == [1, 2]


@pytest.mark.parametrize("backends", [1, 2, 4, 9])
def test_documents_of_a_spread_load_are_on_every_node(backends: int) -> None:
    contender = spread_over(backends)
    nodes = {contender.node_for(path) for path in OneAfterTheOther(32, backends).paths}
    assert nodes == {f"be{number}" for number in range(1, backends + 1)}


def test_pages_are_looked_at_by_rank_and_by_size() -> None:
    site = the_site()
    assert Pages(16).paths[: len(SAMPLED)] == SAMPLED
    numbers = [int(path.removeprefix(f"{SITE_PATH}/")) for path in Pages(16).paths[len(SAMPLED) :]]
    assert numbers[:6] == list(range(6))
    others = sorted(octets for octets in site.sizes_octets[6:] if octets < 1_000_000)
    assert [site.sizes_octets[number] for number in numbers[6:]] == others[-2:]


def test_small_site_is_looked_at_whole() -> None:
    assert sorted(documents_to_check(surge.Site((10, 2_000_000, 30), ((0, 1),)))) == [0, 1, 2]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_every_load_has_documents_of_every_rule(workload: Workload) -> None:
    assert set(SAMPLED) <= set(workload.offer.paths)


@pytest.mark.parametrize("offer", BY_WRK, ids=lambda offer: type(offer).__name__)
def test_all_its_documents_are_asked_for_beside_wrk(
    offer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = checking(monkeypatch, Tally(latencies_s=[0.1] * 5, errors=1))
    offered = offer(stand(tmp_path), 1)
    assert client.asked == list(offer.paths)
    assert (offered.checked, offered.check_errors, offered.errors, offered.wrong) == (5, 1, 1, ())


@pytest.mark.parametrize("offer", BY_WRK, ids=lambda offer: type(offer).__name__)
def test_sample_ends_by_an_error_so_does_the_load(offer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object) -> Tally:
        raise RuntimeError("no thread")

    checking(monkeypatch, Tally())
    monkeypatch.setattr(workloads, "paced", die)
    with pytest.raises(RuntimeError, match="no thread"):
        offer(stand(tmp_path), 1)


@pytest.mark.parametrize("offer", BY_WRK[:2], ids=lambda offer: type(offer).__name__)
def test_fewer_octets_than_answers_have_is_wrong(offer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checking(monkeypatch, Tally(), WrkReport(2.0, 100, 99_999, 0, 0, 1.0, 2.0, 3.0))
    assert offer(stand(tmp_path), 1).wrong == ("99999 octets for 100 answers",)


def test_error_status_and_a_wrong_sample_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checking(monkeypatch, Tally(wrong=["other octets"]), WrkReport(2.0, 100, 130_000, 0, 7, 1.0, 2.0, 3.0))
    offered = BY_WRK[0](stand(tmp_path), 1)
    assert offered.wrong == ("other octets", "7 answers with an error status")


def test_payload_of_pages_is_that_of_their_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checking(monkeypatch, Tally())
    assert MIXED.offer(stand(tmp_path), 1).payload_octets == round(100 * the_site().mean_octets)


def test_load_that_looks_at_every_octet_has_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(latencies_s=[0.5, 0.25], octets=2000, errors=1, seconds=2.0)
    monkeypatch.setattr(workloads, "fetch", lambda *_arguments: tally)
    offered = Downloads("/10m.html", 4)(stand(tmp_path), 1)
    assert (offered.requests, offered.payload_octets, offered.errors, offered.sample) == (2, 2000, 1, None)
    assert offered.latencies_ms["p99_ms"] == pytest.approx(500)
