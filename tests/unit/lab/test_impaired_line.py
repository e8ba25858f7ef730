"""Statistics and bounds of the line: the draws come from seeded generators, the time from the test."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.lab import impaired_line
from tcpha.lab.impaired_line import REORDER_LIMIT_S, Departure, ImpairedLine
from tcpha.lab.impairment import REORDER_DEPTH_MAX, Impairment

MANY = 100_000
SEED = 20040301
shares = st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0])
impairments = st.builds(
    Impairment,
    loss=shares,
    duplicate=shares,
    reorder=shares,
    reorder_depth=st.integers(1, REORDER_DEPTH_MAX),
    delay_s=st.sampled_from([0.0, 0.001, 0.02]),
)
bursts = st.lists(st.tuples(st.sampled_from([0.0, 0.0001, 0.003, 0.05]), st.integers(1, 60)), max_size=6)
gaps_s = bursts.map(lambda found: [gap_s for gap_s, count in found for _ in range(count)])


def line_of(impairment: Impairment, seed: int = SEED) -> ImpairedLine[int]:
    return ImpairedLine(impairment, Random(seed))


def run(line: ImpairedLine[int], arrivals_s: list[float]) -> list[tuple[float, Departure[int]]]:
    """Packet n arrives at the nth time, and the clock strikes at every deadline: who leaves when."""
    left: list[tuple[float, Departure[int]]] = []
    for number, now_s in enumerate([*arrivals_s, inf]):
        while line.deadline_s <= now_s and line.deadline_s < inf:
            struck_s = line.deadline_s
            left += [(struck_s, departure) for departure in line.on_time(struck_s)]
            assert line.deadline_s > struck_s
        if now_s < inf:
            left += [(now_s, departure) for departure in line.on_packet(number, now_s)]
    return left


def arrivals(gaps: list[float]) -> list[float]:
    now_s, times_s = 1000.0, []
    for gap_s in gaps:
        now_s += gap_s
        times_s.append(now_s)
    return times_s


def overtakers(order: list[int]) -> dict[int, int]:
    """By how many packets that arrived later each was overtaken."""
    return {number: sum(other > number for other in order[:place]) for place, number in enumerate(order)}


@given(impairments, st.integers(0, 2**32), gaps_s)
def test_line_any_impairment_any_arrivals_each_packet_leaves_exactly_once(
    impairment: Impairment, seed: int, gaps: list[float]
) -> None:
    line = line_of(impairment, seed)
    left = run(line, arrivals(gaps))
    assert sorted(number for _, (number, _) in left) == list(range(len(gaps)))
    assert line.held == 0
    assert line.deadline_s == inf
    counters = line.counters
    assert counters.packets == len(gaps)
    assert [times for _, (_, times) in left].count(0) == counters.lost
    assert [times for _, (_, times) in left].count(2) == counters.duplicated


@given(impairments, st.integers(0, 2**32), gaps_s)
def test_line_any_impairment_any_arrivals_nobody_is_overtaken_by_more_than_asked_nor_held_longer(
    impairment: Impairment, seed: int, gaps: list[float]
) -> None:
    line, times_s = line_of(impairment, seed), arrivals(gaps)
    left = [(at_s, number) for at_s, (number, times) in run(line, times_s) if times]
    by = overtakers([number for _, number in left])
    assert all(count <= impairment.reorder_depth for count in by.values())
    assert line.counters.reordered == sum(count > 0 for count in by.values())
    for at_s, number in left:
        waited_s = at_s - times_s[number]
        assert impairment.delay_s - 1e-9 <= waited_s <= impairment.delay_s + REORDER_LIMIT_S + 1e-9


@given(impairments, st.integers(0, 2**32), st.integers(0, 100))
def test_line_drained_all_who_are_held_leave_in_the_order_of_arrival(
    impairment: Impairment, seed: int, count: int
) -> None:
    line = line_of(impairment, seed)
    left = [number for each in range(count) for number, _ in line.on_packet(each, 5.0)]
    held = line.held
    drained = [number for number, _ in line.drain()]
    assert drained == sorted(drained)
    assert len(drained) == held
    assert sorted(left + drained) == list(range(count))
    assert (line.held, line.deadline_s, line.drain(), line.on_time(inf)) == (0, inf, [], [])


@pytest.mark.parametrize("share", [0.005, 0.02, 0.5])
def test_line_loses_its_share(share: float) -> None:
    line = line_of(Impairment(loss=share))
    lost = sum(not times for number in range(MANY) for _, times in line.on_packet(number, 0.0))
    assert lost == line.counters.lost == pytest.approx(share * MANY, rel=0.1)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.5])
def test_line_doubles_its_share(share: float) -> None:
    line = line_of(Impairment(duplicate=share))
    doubled = sum(times == 2 for number in range(MANY) for _, times in line.on_packet(number, 0.0))
    assert doubled == line.counters.duplicated == pytest.approx(share * MANY, rel=0.1)


@pytest.mark.parametrize("depth", [1, 3, 20])
def test_line_reorders_its_share_by_every_number_up_to_the_depth(depth: int) -> None:
    line = line_of(Impairment(reorder=0.05, reorder_depth=depth))
    order = [number for each in range(MANY // 4) for number, _ in line.on_packet(each, 0.0)]
    late = [count for count in overtakers_of_long(order).values() if count]
    assert line.counters.reordered == len(late) == pytest.approx(0.05 * MANY / 4, rel=0.15)
    assert {count for count in late if late.count(count) > 20} == set(range(1, depth + 1))
    assert max(late) == depth
    assert line.counters.held_most <= 20


def overtakers_of_long(order: list[int]) -> dict[int, int]:
    """The same where nobody is moved by more than a few hundred places."""
    return {
        number: sum(other > number for other in order[max(0, place - 300) : place])
        for place, number in enumerate(order)
    }


def test_line_draws_are_independent_a_share_of_the_survivors_is_doubled_and_reordered() -> None:
    line = line_of(Impairment(loss=0.2, duplicate=0.1, reorder=0.1))
    for number in range(MANY):
        line.on_packet(number, 0.0)
    counters = line.counters
    assert counters.lost == pytest.approx(0.2 * MANY, rel=0.05)
    assert counters.duplicated == pytest.approx(0.08 * MANY, rel=0.05)
    assert counters.reordered == pytest.approx(0.08 * MANY, rel=0.05)


def test_line_delays_each_packet_by_the_same_and_keeps_the_order() -> None:
    times_s = [1.0, 1.001, 1.001, 1.5]
    left = run(line_of(Impairment(delay_s=0.02)), times_s)
    assert [departure for _, departure in left] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert [at_s for at_s, _ in left] == pytest.approx([1.02, 1.021, 1.021, 1.52])


def test_line_chosen_packet_nobody_follows_leaves_after_the_limit() -> None:
    line = line_of(Impairment(reorder=1.0))
    assert line.on_packet(0, 7.0) == []
    assert line.deadline_s == 7.0 + REORDER_LIMIT_S
    assert line.on_time(line.deadline_s - 1e-6) == []
    assert line.on_time(line.deadline_s) == [(0, 1)]
    assert line.counters.reordered == 0


def test_line_impairs_nothing_each_packet_leaves_at_once() -> None:
    line = line_of(Impairment())
    assert [line.on_packet(number, 0.0) for number in range(3)] == [[(0, 1)], [(1, 1)], [(2, 1)]]


@pytest.mark.parametrize("impairment", [Impairment(delay_s=1.0), Impairment(reorder=1.0)])
def test_line_holds_as_many_as_it_may_further_ones_are_lost(
    impairment: Impairment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impaired_line, "HELD_MAX", 5)
    line = line_of(impairment)
    fates = [line.on_packet(number, 0.0) for number in range(7)]
    assert fates == [[], [], [], [], [], [(5, 0)], [(6, 0)]]
    assert (line.held, line.counters.held_most, line.counters.overflowed, line.counters.lost) == (5, 5, 2, 0)


def test_line_same_seed_same_arrivals_same_fates() -> None:
    impairment = Impairment(loss=0.1, duplicate=0.1, reorder=0.1, delay_s=0.001)
    times_s = arrivals([0.0002] * 500)
    first, same = (run(line_of(impairment, 1), times_s) for _ in range(2))
    assert first == same
    assert first != run(line_of(impairment, 2), times_s)
    assert first != run(line_of(replace(impairment, loss=0.2), 1), times_s)
