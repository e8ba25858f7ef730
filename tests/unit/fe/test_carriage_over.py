"""A carrier that refuses to forget what is over: it is told again, of so much, and so often."""

from __future__ import annotations

from math import inf

import pytest

from tcpha.fe.carriage import LATER_S, OVER_AT_MOST, OVER_AT_ONCE, _Given
from tcpha.fe.flows import FORWARDED, Flow
from tcpha.proto.seqnum import SeqNum
from tests.unit.fe.test_carriage import NOW, Bound, Entry, handed, identity


@pytest.fixture
def bound() -> Bound:
    return Bound()


def test_carrier_cannot_forget_it_is_told_again_until_it_does(bound: Bound) -> None:
    over, reused = handed(bound, 40_000), handed(bound, 40_001)
    for flow in (over, reused):
        bound.table.finish(flow, NOW)
    bound.carrier.forgets = False
    bound.carriage.settle(NOW)
    assert bound.settled(NOW + LATER_S) == ["forget"]
    bound.carrier.forgets = True
    handed(bound, 40_001)
    assert bound.settled(NOW + 2 * LATER_S - 0.01) == []
    assert bound.carriage.next_deadline() == NOW + 2 * LATER_S
    assert bound.settled(NOW + 2 * LATER_S) == ["forget"]
    assert bound.carrier.entries.keys() == {reused.key}
    assert bound.carriage.next_deadline() == inf


def test_carrier_never_forgets_it_is_told_of_the_last_and_not_with_every_burst(bound: Bound) -> None:
    for number in range(OVER_AT_MOST + 1):
        bound.carriage._given[identity(number).key] = _Given.WHOLLY
        bound.table.mark_changed(Flow.of(identity(number), 50_000_000, FORWARDED, NOW))
    bound.carrier.forgets = False
    assert bound.settled() == ["forget"]
    assert bound.settled() == []
    bound.carrier.forgets = True
    bound.carrier.entries = {
        identity(number).key: Entry(identity(number), None, True, 1, SeqNum(1), NOW, ())
        for number in range(OVER_AT_MOST + 1)
    }
    assert bound.settled(NOW + LATER_S) == ["forget"]
    assert bound.carrier.entries.keys() == {identity(0).key}
    for flow in [handed(bound, 20_000 + number) for number in range(OVER_AT_ONCE)]:
        bound.table.finish(flow, NOW)
    assert bound.settled(NOW + LATER_S) == ["forget"], "as before"
