"""When a window counts, and when the whole run fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from bench import cpu, measuring
from bench.arena import Stand
from bench.checking_client import Document, Tally
from bench.measuring import MeasuringError, await_answers, settle_s, work
from bench.workloads import SAMPLED, WORKLOADS, Offered, Workload

STAND = cast(Stand, SimpleNamespace(contender=SimpleNamespace(title="tcpha")))


class Counts:
    """Stands in for the counters: each reading shows a second more of everything."""

    readings = 0

    def __init__(self, _stand: Stand) -> None:
        Counts.readings += 1
        now_s = float(Counts.readings)
        self.cpu_s = {"fe": now_s / 10, "be": now_s / 5}
        self.programs_s = {"fe": now_s / 100, "be": 0.0}
        self.machine = cpu.Machine(now_s, 2 * now_s, now_s)
        self.softirq_threads_s = 0.0
        self.lab = cpu.Lab(now_s / 2, {})
        self.servers_s = now_s / 100
        self.front_octets = 0


@dataclass(frozen=True, slots=True)
class Said:
    """A load of which it is known what came."""

    offered: Offered
    paths: tuple[str, ...] = ("/1",)
    asked: list[int] = field(default_factory=list)

    def __call__(self, stand: Stand, seconds: int) -> Offered:
        self.asked.append(seconds)
        return self.offered


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(measuring, "_Counts", Counts)
    monkeypatch.setattr(measuring, "await_answers", lambda _stand, _paths: None)
    monkeypatch.setattr("bench.measuring.time.sleep", found.append)
    return found


def offered(
    requests: int = 10_000, errors: int = 0, wrong: tuple[str, ...] = (), sample: Tally | None = None
) -> Offered:
    return Offered(1.0, requests, 1000 * requests, {}, errors, wrong, sample)


def sample(answers: int, errors: int = 0) -> Tally:
    return Tally(latencies_s=[0.1] * answers, errors=errors)


def test_window_is_what_came_between_the_counters() -> None:
    load = Said(offered(900, sample=sample(100)))
    measured = work(STAND, Workload("close", "1 KB", load), 4)
    assert load.asked == [measuring.WARM_UP_S, 4]
    assert measured.figures["cpu_us_per_request_fe"] == pytest.approx(110)
    assert measured.figures["processes_us_per_request_fe"] == pytest.approx(100)
    assert measured.figures["programs_us_per_request_fe"] == pytest.approx(10)
    assert measured.figures["foreign_share"] == pytest.approx(0.5 / 4)
    assert measured.figures["steal_share"] == pytest.approx(1 / 4)
    assert (measured.errors, measured.wrong) == (0, ())


@pytest.mark.parametrize(("leaves", "behind_s"), [(False, measuring.SETTLE_S), (True, measuring.FORGET_S)])
def test_window_waits_until_connections_are_forgotten(leaves: bool, behind_s: float, slept: list[float]) -> None:
    work(STAND, Workload("close", "1 KB", Said(offered()), leaves_connections=leaves), 4)
    assert slept == [measuring.SETTLE_S, behind_s]


def test_new_connections_of_small_documents_leave_connections() -> None:
    assert [each.key for each in WORKLOADS if settle_s(each) == measuring.FORGET_S] == ["close", "latency", "mixed"]


@pytest.mark.parametrize("found", [offered(errors=11), offered(sample=sample(20, errors=1)), offered(1, errors=1)])
def test_some_requests_fail_the_window_counts_and_has_them(found: Offered) -> None:
    assert work(STAND, Workload("close", "1 KB", Said(found)), 4).errors == found.errors + found.check_errors


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (offered(errors=12), "12 requests failed, 10000 were answered"),
        (offered(requests=0), "0 requests failed, 0 were answered"),
        (offered(sample=sample(18, errors=2)), "2 requests of the checking client failed, 18 were answered"),
        (offered(sample=sample(0)), "no answer was looked at"),
        (offered(sample=sample(0, errors=1)), "no answer was looked at"),
    ],
)
def test_window_is_none_it_is_told(found: Offered, reason: str) -> None:
    with pytest.raises(MeasuringError, match=f"tcpha, 1 KB: {reason}"):
        work(STAND, Workload("close", "1 KB", Said(found)), 4)


def test_wrong_answers_stay_with_the_window() -> None:
    found = offered(wrong=("other octets",), sample=sample(0))
    assert work(STAND, Workload("close", "1 KB", Said(found)), 4).wrong == ("other octets",)


def listening(answers: list[Tally], monkeypatch: pytest.MonkeyPatch) -> tuple[Stand, list[list[str]]]:
    asked: list[list[str]] = []

    def paced(_enter: object, _target: object, documents: list[Document], *_arguments: float) -> Tally:
        asked.append([each.path for each in documents])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(measuring, "paced", paced)
    node = SimpleNamespace(enter=None)
    found = SimpleNamespace(
        lab=SimpleNamespace(client=node),
        target=None,
        contender=SimpleNamespace(title="tcpha"),
        document=lambda path: Document(path, b"", "be1"),
    )
    return cast(Stand, found), asked


def test_one_of_the_documents_is_not_right_yet_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stand, asked = listening([sample(1, errors=1), sample(2)], monkeypatch)
    await_answers(stand)
    assert asked == [list(SAMPLED)] * 2


def test_answers_stay_wrong_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_ANSWERS_LIMIT_S", 0.0)
    stand, asked = listening([Tally(wrong=["answered by be2"])], monkeypatch)
    with pytest.raises(MeasuringError, match="tcpha does not answer right: answered by be2"):
        await_answers(stand, ("/spread/1",))
    assert asked[0] == ["/spread/1"]
