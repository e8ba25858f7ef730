from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpha.fe.arrivals import MOST_RUNS, Arrivals
from tcpha.proto.seqnum import MASK, SeqNum, seq_add, seq_diff

starts = st.sampled_from((0, 1000, MASK - 20, MASK)).map(SeqNum)
segments = st.lists(st.tuples(st.integers(-5, 40), st.integers(1, 9)), max_size=30)


@given(starts, segments)
def test_any_segments_in_any_order_are_what_a_set_of_numbers_says(
    start: SeqNum, arriving: list[tuple[int, int]]
) -> None:
    arrivals, there = Arrivals(start, fin=False), set[int]()
    for first, octets in arriving:
        arrivals.add(seq_add(start, first), seq_add(start, first + octets), fin=False)
        there |= set(range(max(first, 0), first + octets))
        expected = next(number for number in range(100) if number not in there)
        assert seq_diff(arrivals.rcv_nxt, start) == expected
        runs = [(seq_diff(begin, start), seq_diff(end, start)) for begin, end in arrivals.blocks()]
        assert sorted(number for run in runs for number in range(*run)) == sorted(n for n in there if n > expected)
        assert all(end < other for _, end in runs for other, _ in runs if other > end - 1), "runs that touch are one"
        if first > expected:
            assert runs[0][0] <= first < first + octets <= runs[0][1], "the latest stands first (RFC 2018, 4)"


def test_gaps_too_many_are_forgotten_what_is_known_still_grows() -> None:
    arrivals = Arrivals(SeqNum(0), fin=False)
    for number in range(MOST_RUNS + 5):
        arrivals.add(SeqNum(10 * number + 5), SeqNum(10 * number + 6), fin=False)
    assert len(arrivals.blocks()) == MOST_RUNS
    arrivals.add(SeqNum(6), SeqNum(9), fin=False)
    assert arrivals.blocks()[0] == (5, 9)
    arrivals.add(SeqNum(0), SeqNum(5), fin=False)
    assert (arrivals.rcv_nxt, len(arrivals.blocks())) == (9, MOST_RUNS - 1)


def test_fin_is_in_order_only_when_all_before_it_is() -> None:
    arrivals = Arrivals(SeqNum(0), fin=False)
    arrivals.add(SeqNum(5), SeqNum(6), fin=True)
    assert not arrivals.fin
    arrivals.add(SeqNum(0), SeqNum(5), fin=False)
    assert arrivals.fin
    assert arrivals.rcv_nxt == 6


def test_fin_that_is_known_already_stays_so() -> None:
    assert Arrivals(SeqNum(7), fin=True).fin
    assert not Arrivals(SeqNum(7), fin=False).fin
