from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_le, seq_lt
from tests.unit.proto.conftest import seqnums

LAST = SeqNum(0xFFFFFFFF)
ZERO = SeqNum(0)
HALF = SeqNum(0x80000000)

near = st.integers(-(2**31) + 1, 2**31 - 1)
"""Distances for which the comparison is defined."""


@pytest.mark.parametrize(
    ("seq", "octets", "after"),
    [(ZERO, 1, 1), (LAST, 1, 0), (ZERO, -1, 0xFFFFFFFF), (SeqNum(0xFFFFFFF0), 0x20, 0x10), (HALF, 2**31, 0)],
)
def test_number_octets_added_wraps_at_two_to_the_32(seq: SeqNum, octets: int, after: int) -> None:
    assert seq_add(seq, octets) == after


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [(ZERO, LAST, 1), (LAST, ZERO, -1), (SeqNum(5), SeqNum(5), 0), (SeqNum(0x7FFFFFFF), ZERO, 2**31 - 1)],
)
def test_two_numbers_difference_is_signed_across_the_wrap(a: SeqNum, b: SeqNum, distance: int) -> None:
    assert seq_diff(a, b) == distance


def test_numbers_half_the_space_apart_are_before_each_other() -> None:
    """Undefined by RFC 9293; as Linux's before() has it, and `seq_le` stays the negation of the reversed `seq_lt`."""
    assert seq_lt(ZERO, HALF)
    assert seq_lt(HALF, ZERO)
    assert not seq_le(ZERO, HALF)
    assert not seq_le(HALF, ZERO)
    assert seq_diff(ZERO, HALF) == seq_diff(HALF, ZERO) == -(2**31)


@given(seqnums, near)
def test_any_number_distance_added_comparisons_agree_with_it(a: SeqNum, distance: int) -> None:
    b = seq_add(a, distance)
    assert 0 <= b <= 0xFFFFFFFF
    assert seq_diff(b, a) == distance
    assert seq_diff(a, b) == -distance
    assert seq_lt(a, b) is (distance > 0)
    assert seq_le(a, b) is (distance >= 0)


@given(seqnums, near, seqnums)
def test_two_numbers_both_moved_order_stays(a: SeqNum, distance: int, shift: SeqNum) -> None:
    b = seq_add(a, distance)
    assert seq_lt(seq_add(a, shift), seq_add(b, shift)) is seq_lt(a, b)
    assert seq_le(seq_add(a, shift), seq_add(b, shift)) is seq_le(a, b)
    assert seq_diff(seq_add(b, shift), seq_add(a, shift)) == distance


@given(seqnums, seqnums)
def test_any_two_numbers_le_is_not_lt_reversed(a: SeqNum, b: SeqNum) -> None:
    assert seq_le(a, b) is not seq_lt(b, a)
