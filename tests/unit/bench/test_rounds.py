"""The order of a run, and what a command line asks for."""

from __future__ import annotations

from typing import cast

import pytest

from bench import __main__ as command
from bench import measuring, rounds
from bench.arena import Arena, Stand
from bench.contenders import CONTENDERS, DIRECT, HAPROXY, REUSE, judged
from bench.floors import ROUNDS_TO_TELL
from bench.measuring import Measured
from bench.noise import Observation
from bench.results import Sample
from bench.rounds import Outcome, Programme, without_sender
from bench.workloads import WORKLOADS, Workload


class Listed:
    """Stands in for the labs: a stand is its contender."""

    def empty_logs(self) -> None:
        pass

    def stand(self, contender: object) -> object:
        return contender


def parsed(*words: str) -> Programme:
    return command.programme_of(command._parser().parse_args(words))


def test_rounds_take_everybody_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(stand: Stand, workload: Workload, seconds: int, warm_up_s: int) -> Measured:
        return Measured({"seconds": float(seconds + warm_up_s)}, wrong=("lies",) if stand is CONTENDERS[1] else ())  # type: ignore[comparison-overlap]

    monkeypatch.setattr(measuring, "work", work)
    monkeypatch.setattr(rounds, "observe", lambda number, _say: Observation(number, 0.0, 0.0, 0.0))
    programme = Programme(CONTENDERS[:3], WORKLOADS[:2], rounds=2, window_s=3, warm_up_s=1)
    outcome = Outcome()
    rounds.run(cast(Arena, Listed()), programme, outcome, lambda _text: None)
    expected = [
        (number, workload.key, contender.key)
        for number in (1, 2)
        for workload in WORKLOADS[:2]
        for contender in CONTENDERS[:3]
    ]
    assert [(each.round, each.workload, each.contender) for each in outcome.samples] == expected
    assert [each.round for each in outcome.observations] == [1, 2]
    assert outcome.wrong == [f"{CONTENDERS[1].key}, {workload.key}: lies" for workload in WORKLOADS[:2]] * 2


def flood(contender: str, lab_us: float) -> Sample:
    return Sample(round=1, workload="flood", contender=contender, figures={"lab_us_per_syn": lab_us})


def test_sender_of_a_flood_is_taken_off() -> None:
    found = without_sender([flood(DIRECT, 6.0), flood("haproxy", 22.0)])
    assert "host_us_per_syn" not in found[0].figures
    assert found[1].figures["host_us_per_syn"] == pytest.approx(16.0)


def test_nobody_was_flooded_nothing_is_taken_off() -> None:
    samples = [flood("haproxy", 22.0)]
    assert without_sender(samples) == samples


def test_full_run_has_everybody_and_everything() -> None:
    programme = parsed()
    assert programme.contenders == CONTENDERS
    assert programme.workloads == WORKLOADS
    assert programme.rounds >= 5
    assert programme.idle_connections > 0
    assert [each.key for each in programme.named][-2:] == ["idle", "flood"]


def test_quick_run_is_three_rounds_of_what_floors_need() -> None:
    programme = parsed("--quick")
    assert programme.rounds == ROUNDS_TO_TELL
    engines = [each.key for each in judged()]
    assert [each.key for each in programme.contenders] == [DIRECT, HAPROXY, REUSE, *engines]
    assert [each.key for each in programme.workloads] == ["close", "keepalive", "download"]
    assert not programme.idle_connections
    assert not programme.flood_per_s


def test_quick_run_measures_a_variant_only_where_somebody_is_held_against_it() -> None:
    quick, full, named = parsed("--quick"), parsed(), parsed("--quick", "--contenders", "nginx_keepalive")
    assert [each.key for each in quick.takes("close") if each.is_variant] == [REUSE]
    assert [each.key for each in quick.takes("keepalive") if each.is_variant] == []
    assert full.takes("keepalive") == list(CONTENDERS)
    assert [each.key for each in named.takes("keepalive")] == ["nginx_keepalive"]


def test_windows_of_a_quick_run_with_two_engines_take_under_210_seconds() -> None:
    programme = parsed("--quick")
    engines = len(judged())
    each_s = programme.window_s + programme.warm_up_s + measuring.SETTLE_S
    windows_s = sum(
        (len(programme.takes(workload.key)) - engines + 2) * (each_s + measuring.settle_s(workload))
        for workload in programme.workloads
    )
    assert programme.rounds * windows_s < 210


def test_kernel_cannot_carry_whoever_needs_it_is_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.bpf_adopter.obstacle", lambda: "CAP_BPF missing")
    programme = command.without_impossible(parsed("--quick"))
    assert [each.key for each in programme.contenders] == [DIRECT, HAPROXY, REUSE, "tcpha"]
    assert capsys.readouterr().err == "Without tcpha, kernel fast path: CAP_BPF missing\n"
    monkeypatch.setattr("bench.__main__.bpf_adopter.obstacle", lambda: None)
    assert command.without_impossible(parsed("--quick")) == parsed("--quick")


def test_parts_can_be_named() -> None:
    programme = parsed("--workloads", "close", "flood", "--contenders", "direct", "tcpha", "--rounds", "1")
    assert [each.key for each in programme.workloads] == ["close"]
    assert [each.key for each in programme.contenders] == ["direct", "tcpha"]
    assert programme.flood_per_s > 0
    assert programme.idle_connections == 0
    assert programme.rounds == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rounds", "0"], "'0' is no whole number from 1 to 100"),
        (["--rounds", "101"], "'101' is no whole number from 1 to 100"),
        (["--seconds", "9" * 5000], "is no whole number from 1 to 600"),
        (["--seconds", "x"], "'x' is no whole number from 1 to 600"),
        (["--workloads", "nothing"], "nothing"),
        (["--contenders", "nobody"], "nobody"),
    ],
)
def test_command_line_that_is_none_is_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        parsed(*words)
    assert raised.value.code == 2
    assert reason in capsys.readouterr().err


def test_machine_cannot_hold_it_status_2_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.cluster.obstacle", lambda: None)
    monkeypatch.setattr(command, "obstacle", lambda _contenders: "haproxy is not installed")
    assert command.main(["--quick"]) == 2
    assert "haproxy is not installed; tools/bootstrap bench" in capsys.readouterr().err
