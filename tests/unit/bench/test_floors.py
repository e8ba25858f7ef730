"""What is judged: every key that the results promise, in its section, by the same round, on the right side."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Verdict
from bench.floors import JUDGED, Figures, Judged, judge
from bench.workloads import WORKLOADS

PAGE = Path(__file__).parents[3] / "docs" / "benchmark.md"
PROMISED = {
    "ratios": {
        "close_vs_haproxy", "keepalive_vs_haproxy", "download_vs_haproxy", "download_cpu_vs_haproxy",
        "close_vs_direct", "download_vs_direct",
    },
    "cost": {"fe_us_per_connection", "be_us_per_connection", "fe_s_per_gb", "be_s_per_gb"},
}  # fmt: skip
PYTHONS_FLOORS = {
    "close_vs_haproxy": ("at least", 0.5),
    "keepalive_vs_haproxy": ("at least", 0.4),
    "download_vs_haproxy": ("at least", 1.0),
    "download_cpu_vs_haproxy": ("at most", 1.0),
    "fe_us_per_connection": ("at most", 110.0),
    "be_us_per_connection": ("at most", 150.0),
    "fe_s_per_gb": ("at most", 0.5),
    "latency_p99_over_direct_ms": ("at most", 2.0),
}
KERNELS_FLOORS = {
    "close_vs_haproxy": ("at least", 1.2),
    "close_vs_reuse": ("at least", 0.9),
    "keepalive_vs_direct": ("at least", 0.9),
    "download_vs_direct": ("at least", 0.95),
    "fe_us_per_connection": ("at most", 45.0),
    "be_us_per_connection": ("at most", 1.0),
    "s_per_gb": ("at most", 0.05),
    "host_us_per_syn": ("at most", 1.5),
    "flood_p99_ms": ("at most", 50.0),
}


def test_every_promised_key_is_judged_in_its_section_by_workloads_of_a_quick_run() -> None:
    quick = {each.key for each in WORKLOADS if each.is_essential}
    for section, names in PROMISED.items():
        found = {each.name for each in JUDGED if each.section == section and each.workload in quick}
        assert names <= found


@pytest.mark.parametrize(("prefix", "floors"), [("", PYTHONS_FLOORS), ("kernel_", KERNELS_FLOORS)])
def test_floors_are_these(prefix: str, floors: dict[str, tuple[str, float]]) -> None:
    assert {each.name: (each.side, each.floors[prefix]) for each in JUDGED if prefix in each.floors} == floors


def test_floor_is_that_of_the_engine() -> None:
    (python,) = [each for each in judge(sampled(), "tcpha", "") if each.judged.name == "close_vs_haproxy"]
    (kernel,) = [each for each in judge(sampled(), "tcpha", "kernel_") if each.judged.name == "close_vs_haproxy"]
    (other,) = [each for each in judge(sampled(), "tcpha", "other_") if each.judged.name == "close_vs_haproxy"]
    assert (python.floor, python.verdict) == (0.5, Verdict.HOLDS)
    assert (kernel.floor, kernel.verdict) == (1.2, Verdict.FAILS)
    assert (other.floor, other.verdict) == (None, None)


def test_names_are_unique() -> None:
    names = [each.name for each in JUDGED]
    assert len(set(names)) == len(names)


def sampled(engine: str = "tcpha") -> Figures:
    rates = {1: (100.0, 50.0), 2: (300.0, 210.0), 3: (100.0, 60.0)}
    return Figures(
        sample
        for number, (theirs, ours) in rates.items()
        for sample in (
            ("close", "haproxy", number, {"requests_per_s": theirs}),
            ("close", engine, number, {"requests_per_s": ours, "cpu_us_per_request_fe": 100.0 + number}),
            ("latency", "direct", number, {"p99_ms": 1.0}),
            ("latency", engine, number, {"p99_ms": 1.0 + min(number, 2)}),
        )
    )


def test_ratio_is_of_the_same_round() -> None:
    found = {each.key: each for each in judge(sampled(), "tcpha", "")}
    assert found["close_vs_haproxy"].rounds == pytest.approx({1: 0.5, 2: 0.7, 3: 0.6})
    assert found["close_vs_haproxy"].spread.median == pytest.approx(0.6)
    assert found["close_vs_haproxy"].verdict is Verdict.HOLDS
    assert found["fe_us_per_connection"].spread.median == 102


def test_difference_is_of_the_same_round() -> None:
    found = {each.key: each for each in judge(sampled(), "tcpha", "")}
    assert found["latency_p99_over_direct_ms"].rounds == {1: 1.0, 2: 2.0, 3: 2.0}
    assert found["latency_p99_over_direct_ms"].verdict is Verdict.HOLDS


def test_two_rounds_no_floor_is_said_to_hold_or_not_to() -> None:
    rates = {"haproxy": 100.0, "tcpha": 60.0}
    two = Figures(("close", who, number, {"requests_per_s": rate}) for who, rate in rates.items() for number in (1, 2))
    (python,) = [each for each in judge(two, "tcpha", "") if each.judged.name == "close_vs_haproxy"]
    assert python.spread.low == pytest.approx(0.6)
    assert python.verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(("prefix", "cost"), [("", Verdict.HOLDS), ("kernel_", Verdict.UNCLEAR)])
def test_noisy_machine_only_a_cost_below_its_floor_is_told(prefix: str, cost: Verdict) -> None:
    said = {each.judged.name: each.verdict for each in judge(sampled(), "tcpha", prefix, is_quiet=False)}
    assert said["close_vs_haproxy"] is Verdict.UNCLEAR
    assert said["latency_p99_over_direct_ms"] is (Verdict.UNCLEAR if prefix == "" else None)
    assert said["fe_us_per_connection"] is cost


def test_quiet_machine_a_cost_above_its_floor_does_not_hold() -> None:
    said = {each.judged.name: each.verdict for each in judge(sampled(), "tcpha", "kernel_")}
    assert said["fe_us_per_connection"] is Verdict.FAILS


def test_what_was_not_measured_is_absent() -> None:
    keys = {each.key for each in judge(sampled(), "tcpha", "")}
    assert keys == {"close_vs_haproxy", "fe_us_per_connection", "latency_p99_over_direct_ms"}


def test_another_engine_has_the_same_keys_behind_its_prefix() -> None:
    keys = {each.key for each in judge(sampled("kernel"), "kernel", "kernel_")}
    assert "kernel_close_vs_haproxy" in keys
    assert all(key.startswith("kernel_") for key in keys)


def in_words(judged: Judged, prefix: str) -> str:
    floor = judged.floors.get(prefix)
    return "" if floor is None else f"{judged.side} {floor:g}"


@pytest.mark.parametrize("judged", JUDGED, ids=lambda judged: judged.name)
def test_page_has_every_key_with_its_floors(judged: Judged) -> None:
    table = PAGE.read_text().partition("\n## Floors\n")[2].partition("\n## ")[0]
    (row,) = [line for line in table.splitlines() if f"`{judged.name}`" in line]
    _, _, _, *floors, _ = (cell.strip() for cell in row.split("|"))
    assert [words.removesuffix(".0") for words in floors] == [in_words(judged, prefix) for prefix in ("", "kernel_")]
