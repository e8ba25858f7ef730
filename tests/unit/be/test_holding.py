from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tcpha.be.holding import PACKETS_A_FLOW, Holding
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, Segment, decode_segment, encode_segment


def segment(flow: int, number: int = 0) -> Segment:
    key = ConnectionKey(bytes((10, 0, 0, flow, 10, 0, 0, 0, 0, 1, 0, 80)))
    return decode_segment(encode_segment(key, SeqNum(number), SeqNum(0), ACK, 0))


def numbers(held: list[Segment]) -> list[int]:
    return [each.seg_seq for each in held]


def test_empty_nothing_to_take_or_expire() -> None:
    holding = Holding(10, 0.05)
    assert holding.take(segment(1).key) == []
    assert holding.expire(1e9) == 0
    assert holding.next_deadline() == inf
    assert len(holding) == 0


def test_held_taken_once_in_order_of_arrival() -> None:
    holding = Holding(10, 0.05)
    for number in (5, 3, 4):
        assert holding.add(segment(1, number), 0.0)
    holding.add(segment(2, 9), 0.0)
    assert numbers(holding.take(segment(1).key)) == [5, 3, 4]
    assert holding.take(segment(1).key) == []
    assert len(holding) == 1


def test_held_first_packet_decides_when_all_expire() -> None:
    holding = Holding(10, 0.5)
    holding.add(segment(1, 1), 1.0)
    holding.add(segment(1, 2), 1.25)
    holding.add(segment(2, 3), 1.25)
    assert holding.next_deadline() == 1.5
    assert holding.expire(1.49) == 0
    assert holding.expire(1.5) == 2
    assert holding.next_deadline() == 1.75
    assert numbers(holding.take(segment(2).key)) == [3]


def test_full_refuses_until_something_goes() -> None:
    holding = Holding(2, 0.5)
    assert [holding.add(segment(flow), 0.0) for flow in (1, 2, 3)] == [True, True, False]
    holding.take(segment(1).key)
    assert holding.add(segment(3), 0.0)


def test_one_flow_has_a_limit_of_its_own() -> None:
    holding = Holding(1000, 0.5)
    added = [holding.add(segment(1, number), 0.0) for number in range(PACKETS_A_FLOW + 2)]
    assert added == [True] * PACKETS_A_FLOW + [False] * 2
    assert holding.add(segment(2), 0.0)


steps = st.tuples(st.sampled_from(["add", "take", "expire"]), st.integers(0, 5), st.floats(0, 0.1))


@given(st.lists(steps, max_size=80), st.integers(0, 12))
def test_any_steps_keep_count_and_bound(script: list[tuple[str, int, float]], limit: int) -> None:
    holding, now = Holding(limit, 0.05), 0.0
    expected: dict[int, list[int]] = {}
    for number, (step, flow, later) in enumerate(script):
        now += later
        if step == "add":
            if holding.add(segment(flow, number), now):
                expected.setdefault(flow, []).append(number)
        elif step == "take":
            assert numbers(holding.take(segment(flow).key)) == expected.pop(flow, [])
        else:
            before = len(holding)
            assert holding.expire(now) == before - len(holding)
            assert holding.next_deadline() > now
            expected = {each: found for each in expected if (found := numbers(held_of(holding, each)))}
        assert len(holding) == sum(map(len, expected.values())) <= limit


def held_of(holding: Holding, flow: int) -> list[Segment]:
    return holding._entries.get(segment(flow).key, (0.0, []))[1]
