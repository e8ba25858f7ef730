from __future__ import annotations

from math import inf

import pytest

from tcpha.finished import MEMORY_S
from tcpha.flowtable import BothWaysTable
from tcpha.proto.cookie import PERIOD_S
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import SeqNum

UTC = 1_600_000_000.0
PERIOD = int(UTC) // PERIOD_S
NOW = 100.0
LINGER_S = 60.0


class Flow:
    """The least a flow must have."""

    def __init__(self, number: int, irs: int = 1, period: int = PERIOD) -> None:
        self.key = ConnectionKey(number.to_bytes(4, "big") + bytes(4) + b"\x04\x00\x00\x50")
        self.leaving_key = reverse_key(self.key)
        self.identity = Identity(self.key, SeqNum(irs), SeqNum(2))
        self.period = period
        self.deadline = inf
        self.ends = 0

    @property
    def is_over(self) -> bool:
        return self.ends > 0

    def end(self) -> None:
        self.ends += 1


def table(max_flows: int = 4, max_finished: int = 4) -> BothWaysTable[Flow]:
    made: BothWaysTable[Flow] = BothWaysTable(max_flows, max_finished, LINGER_S)
    made.utc_s = UTC
    return made


def filled(count: int, **limits: int) -> tuple[BothWaysTable[Flow], list[Flow]]:
    made, flows = table(**limits), [Flow(number) for number in range(count)]
    for flow in flows:
        made.insert(flow, NOW)
    return made, flows


def test_inserted_is_found_in_both_directions() -> None:
    made, (flow,) = filled(1)
    assert made.by_key[flow.key] is made.by_leaving_key[flow.leaving_key] is flow
    assert (len(made), made.live) == (1, 1)


def test_inserted_replaces_and_remembers_the_older() -> None:
    made, (old,) = filled(1)
    made.deadlines.set(old, NOW + 1)
    new = Flow(0, irs=9)
    assert made.insert(new, NOW) is old
    assert made.by_key[new.key] is made.by_leaving_key[new.leaving_key] is new
    assert (len(made), made.live, old.is_over) == (1, 1, True)
    assert old.identity in made.finished
    assert list(made.deadlines.due(NOW + 2)) == []


def test_inserted_replaces_one_that_lingers() -> None:
    made, (old,) = filled(1)
    made.finish(old, NOW)
    new = Flow(0, irs=9)
    made.insert(new, NOW)
    assert (len(made), made.live) == (1, 1)
    made.on_timer(NOW + LINGER_S)
    assert made.by_key[new.key] is new


@pytest.mark.parametrize("is_over", [False, True])
def test_inserted_replaces_one_that_leaves_otherwise_nothing_is_left_of_that(is_over: bool) -> None:
    made, (old,) = filled(1)
    if is_over:
        made.finish(old, NOW)
    new = Flow(0, irs=5)
    new.leaving_key = ConnectionKey(b"\7" + new.leaving_key[1:])
    made.insert(new, NOW)
    assert made.by_leaving_key == {new.leaving_key: new}


def test_lingering_is_replaced_and_that_one_lingers_each_is_counted_once() -> None:
    made, (old,) = filled(1)
    made.finish(old, NOW)
    new = Flow(0, irs=9)
    made.insert(new, NOW + 1)
    made.finish(new, NOW + 2)
    assert (len(made), made.live, made.sizes()["flows_lingering"]) == (1, 0, 1)
    made.on_timer(NOW + LINGER_S)
    assert made.by_key[new.key] is new
    made.on_timer(NOW + 2 + LINGER_S)
    assert (len(made), made.live, made.sizes()["flows_lingering"]) == (0, 0, 0)


def test_full_counts_live_flows_only() -> None:
    made, flows = filled(2, max_flows=2)
    assert made.is_full()
    made.finish(flows[0], NOW)
    assert not made.is_full()


def test_finished_lingers_then_is_dropped_then_forgotten() -> None:
    made, (flow,) = filled(1)
    made.deadlines.set(flow, NOW + 1)
    made.finish(flow, NOW)
    assert (flow.ends, made.live, len(made)) == (1, 0, 1)
    assert list(made.deadlines.due(NOW + 2)) == []
    made.on_timer(NOW + LINGER_S - 0.001)
    assert made.by_key[flow.key] is flow
    made.on_timer(NOW + LINGER_S)
    assert (len(made), len(made.by_leaving_key)) == (0, 0)
    assert flow.identity in made.finished
    made.on_timer(NOW + MEMORY_S)
    assert flow.identity not in made.finished


def test_finished_twice_is_finished_once() -> None:
    made, (flow,) = filled(1)
    made.finish(flow, NOW)
    made.finish(flow, NOW + 30)
    assert flow.ends == 1
    made.on_timer(NOW + LINGER_S)
    assert len(made) == 0


def test_finished_together_each_is_finished_once() -> None:
    made, flows = filled(3)
    made.finish(flows[1], NOW)
    made.finish_all([flows[0], flows[1], flows[0]], NOW + 1)
    assert [flow.ends for flow in flows] == [1, 1, 0]
    assert (len(made), made.live, len(made.finished)) == (3, 1, 2)
    made.on_timer(NOW + LINGER_S)
    assert [flow.key in made.by_key for flow in flows] == [True, False, True]


def test_finished_together_too_many_drops_the_oldest() -> None:
    made, flows = filled(4, max_finished=2)
    made.finish_all(flows, NOW)
    assert [flow.key in made.by_key for flow in flows] == [False, False, True, True]
    assert (made.live, made.finished.forgotten_early) == (0, 2)


def test_finished_too_many_drops_the_oldest() -> None:
    made, flows = filled(4, max_finished=2)
    for flow in flows:
        made.finish(flow, NOW)
    assert list(made.by_key.values()) == flows[2:]
    assert made.finished.period_floor == PERIOD


def test_removed_is_not_remembered() -> None:
    made, (flow,) = filled(1)
    made.remove(flow)
    assert (len(made), made.live, flow.identity in made.finished) == (0, 0, False)
    made.remove(flow)
    assert len(made) == 0


def test_removed_lingering_is_gone() -> None:
    made, (flow,) = filled(1)
    made.finish(flow, NOW)
    made.remove(flow)
    assert (len(made), made.live) == (0, 0)
    made.on_timer(NOW + LINGER_S)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_sweep_sees_every_flow_in_a_round(step: int) -> None:
    made, flows = filled(7, max_flows=7)
    assert made.sweep(step) == []  # a round begins
    for _ in range(3):
        seen: list[Flow] = []
        while part := made.sweep(step):
            seen += part
        assert seen == flows


def test_sweep_leaves_out_what_is_gone() -> None:
    made, flows = filled(3)
    assert made.sweep(1) == []
    made.remove(flows[1])
    made.insert(Flow(2, irs=9), NOW)
    assert made.sweep(9) == [flows[0]]


def test_standing_changes_it_is_collected_once_each_for_who_follows() -> None:
    made = table()
    flows = [Flow(number) for number in range(3)]
    made.insert(flows[0], NOW)
    assert list(made.take_changed()) == [], "nobody follows yet"
    asked: list[Flow] = []
    made.follow(asked.append)
    for flow in flows[1:]:
        made.insert(flow, NOW)
    made.finish(flows[1], NOW)
    made.remove(flows[0])
    made.mark_changed(flows[2])
    assert list(made.take_changed()) == [flows[1].key, flows[2].key, flows[0].key]
    assert list(made.take_changed()) == []
    made.refresh(flows[2])
    assert asked == [flows[2]]
    made.follow(None)
    made.finish(flows[2], NOW)
    made.refresh(flows[2])
    assert (list(made.take_changed()), asked) == ([], [flows[2]])
