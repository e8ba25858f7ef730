"""From counts to figures, from rounds to verdicts."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Counted, Spread, Verdict, derive, differences, percentile, quotients, spread, verdict

ENGINE = Counted(
    seconds=2.0,
    requests=900,
    checked=100,
    payload_octets=4_000_000,
    cpu_s={"fe": 0.1, "be": 0.3},
    lab_s=1.5,
    softirq_threads_s=0.0,
    machine_s=1.6,
    capacity_s=4.0,
    front_octets=1_000_000,
    latencies_ms={"p99_ms": 7.5},
)
WITH_PROGRAMS = replace(ENGINE, cpu_s={"fe": 0.15, "be": 0.3}, programs_s={"fe": 0.05, "be": 0.02})
VALUES = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=20)


def test_engine_of_two_roles_is_told_apart_and_together() -> None:
    figures = derive(ENGINE)
    assert figures["requests_per_s"] == 450
    assert figures["mb_per_s"] == pytest.approx(2.0)
    # Also what the checking client asked cost CPU.
    assert figures["cpu_us_per_request_fe"] == pytest.approx(100)
    assert figures["cpu_us_per_request_be"] == pytest.approx(300)
    assert figures["cpu_us_per_request"] == pytest.approx(400)
    assert figures["lab_us_per_request"] == pytest.approx(1500)
    assert figures["cpu_s_per_gb_fe"] == pytest.approx(25)
    assert figures["cpu_s_per_gb"] == pytest.approx(100)
    assert figures["front_octets_per_octet"] == pytest.approx(0.25)
    assert figures["p99_ms"] == 7.5
    assert figures["foreign_share"] == pytest.approx(0.1 / 4)


def test_contender_without_processes_has_no_cost() -> None:
    figures = derive(Counted(1.0, 10, 0, 10, {}, 0.1, 0.0, 0.1, 2.0, 0))
    assert not [name for name in figures if name.startswith("cpu_")]


def test_window_without_payload_has_no_figures_per_octet() -> None:
    figures = derive(Counted(1.0, 0, 0, 0, {"proxy": 0.1}, 0.1, 0.0, 0.1, 2.0, 0))
    assert "front_octets_per_octet" not in figures
    assert not [name for name in figures if "_per_gb" in name or "per_request" in name]
    assert figures["cpu_s_proxy"] == 0.1


def test_programs_of_the_kernel_are_part_of_a_roles_cpu_and_told_apart_from_its_processes() -> None:
    figures = derive(WITH_PROGRAMS)
    assert figures["cpu_us_per_request_fe"] == pytest.approx(150)
    assert figures["processes_us_per_request_fe"] == pytest.approx(100)
    assert figures["programs_us_per_request_be"] == pytest.approx(20)
    for part in ("", "_fe", "_be"):
        for unit in ("s", "us_per_request", "s_per_gb"):
            both = figures[f"processes_{unit}{part}"] + figures[f"programs_{unit}{part}"]
            assert figures[f"cpu_{unit}{part}"] == pytest.approx(both)


def test_there_are_no_programs_all_cpu_is_the_processes() -> None:
    figures = derive(ENGINE)
    assert figures["processes_s_per_gb_be"] == figures["cpu_s_per_gb_be"]
    assert not [name for name in figures if name.startswith("programs_")]


def test_cpu_of_the_lab_is_told_by_octets_too() -> None:
    assert derive(ENGINE)["lab_s_per_gb"] == pytest.approx(1.5 * 1e9 / 4_000_000)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([3.0], 0.99) == 3.0


@given(VALUES, st.floats(0, 1))
def test_percentile_leaves_the_share_below_it(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_no_values_there_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_few_rounds_all_of_them_are_the_spread() -> None:
    assert spread([4.0, 1.0, 3.0]) == Spread(3.0, 1.0, 4.0)


def test_five_rounds_one_outlier_at_either_end_is_not_the_spread() -> None:
    assert spread([100.0, 10.0, 12.0, 11.0, 0.5]) == Spread(11.0, 10.0, 12.0)


@given(VALUES)
def test_spread_holds_the_median(values: list[float]) -> None:
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert found.median == median(values)


def test_spread_is_relative_to_the_median() -> None:
    assert spread([8.0, 10.0, 13.0]).relative == pytest.approx(0.5)
    assert spread([0.0, 0.0]).relative == 0.0
    assert spread([-1.0, 0.0, 1.0]).relative == math.inf


def test_only_rounds_of_both_are_compared() -> None:
    assert quotients({1: 4.0, 2: 9.0, 3: 1.0}, {1: 2.0, 2: 3.0, 4: 1.0}) == {1: 2.0, 2: 3.0}
    assert differences({1: 4.0, 3: 1.0}, {1: 2.5, 4: 1.0}) == {1: 1.5}


def test_round_in_which_the_other_did_nothing_says_nothing() -> None:
    assert quotients({1: 4.0, 2: 4.0}, {1: 0.0, 2: 2.0}) == {2: 2.0}


@pytest.mark.parametrize(
    ("low", "high", "at_least", "expected"),
    [
        (0.6, 0.9, True, Verdict.HOLDS),
        (0.5, 0.5, True, Verdict.HOLDS),
        (0.3, 0.4, True, Verdict.FAILS),
        (0.4, 0.6, True, Verdict.UNCLEAR),
        (0.3, 0.4, False, Verdict.HOLDS),
        (0.5, 0.5, False, Verdict.HOLDS),
        (0.6, 0.9, False, Verdict.FAILS),
        (0.4, 0.6, False, Verdict.UNCLEAR),
    ],
)
def test_floor_inside_the_spread_is_too_noisy_to_tell(
    low: float, high: float, at_least: bool, expected: Verdict
) -> None:
    assert verdict(Spread((low + high) / 2, low, high), 0.5, at_least=at_least) is expected
