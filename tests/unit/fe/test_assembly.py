from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.fe.assembly import MAX_EARLY_PIECES, Assembly
from tcpha.proto.seqnum import SeqNum, seq_add

STARTS = (1000, 0, 0xFFFFFFFF, 0xFFFFFFF8, 0x7FFFFFFC)
OCTETS = bytes(range(64))


def assembly(start: int = 1000, window_octets: int = 65535) -> Assembly:
    return Assembly(SeqNum(start), window_octets)


def at(each: Assembly, offset: int) -> SeqNum:
    return seq_add(each.start, offset)


@pytest.mark.parametrize("start", STARTS)
def test_empty_piece_in_order_advances(start: int) -> None:
    each = assembly(start)
    assert each.add(at(each, 0), b"abc", False)
    assert (each.octets, each.rcv_nxt) == (b"abc", at(each, 3))


@pytest.mark.parametrize("start", STARTS)
def test_gap_filled_takes_what_was_early(start: int) -> None:
    each = assembly(start)
    assert not each.add(at(each, 3), b"def", True)
    assert each.early_pieces() == [(at(each, 3), b"def", True)]
    assert each.add(at(each, 0), b"abc", False)
    assert (each.octets, each.fin, each.rcv_nxt) == (b"abcdef", True, at(each, 7))
    assert each.early_pieces() == []


def test_octets_repetition_does_not_advance() -> None:
    each = assembly()
    each.add(at(each, 0), b"abcdef", False)
    assert not each.add(at(each, 2), b"cd", False)
    assert not each.add(at(each, 0), b"abcdef", False)
    assert each.octets == b"abcdef"


def test_octets_overlap_keeps_the_first_and_takes_the_rest() -> None:
    each = assembly()
    each.add(at(each, 0), b"abc", False)
    assert each.add(at(each, 1), b"XXdef", False)
    assert each.octets == b"abcdef"


def test_empty_piece_before_the_start_is_cut() -> None:
    each = assembly()
    assert each.add(at(each, -2), b"??abc", True)
    assert (each.octets, each.fin) == (b"abc", True)


@pytest.mark.parametrize("payload", [b"", b"?"])
def test_empty_fin_before_the_start_is_ignored(payload: bytes) -> None:
    each = assembly()
    assert not each.add(at(each, -2), payload, True)
    assert (each.fin, each.rcv_nxt) == (False, each.start)


def test_octets_fin_in_order_counts_one() -> None:
    each = assembly()
    each.add(at(each, 0), b"abc", False)
    assert each.add(at(each, 3), b"", True)
    assert (each.fin, each.rcv_nxt) == (True, at(each, 4))
    assert not each.add(at(each, 3), b"", True)


def test_octets_fin_inside_them_is_no_end() -> None:
    each = assembly()
    each.add(at(each, 0), b"abcdef", False)
    assert not each.add(at(each, 1), b"bc", True)
    assert not each.fin


def test_fin_nothing_follows_it() -> None:
    each = assembly()
    each.add(at(each, 0), b"abc", True)
    assert not each.add(at(each, 3), b"def", False)
    assert each.octets == b"abc"


def test_early_fin_of_the_same_piece_is_not_lost() -> None:
    each = assembly()
    each.add(at(each, 3), b"def", False)
    each.add(at(each, 3), b"def", True)
    each.add(at(each, 0), b"abc", False)
    assert each.fin


def test_early_longer_piece_replaces_the_shorter() -> None:
    each = assembly()
    each.add(at(each, 3), b"defg", False)
    each.add(at(each, 3), b"de", False)
    assert each.early_pieces() == [(at(each, 3), b"defg", False)]


def test_early_pieces_are_bounded_in_number() -> None:
    each = assembly()
    for offset in range(2, 2 + 2 * MAX_EARLY_PIECES + 20, 2):
        each.add(at(each, offset), b"x", False)
    assert len(each.early_pieces()) == MAX_EARLY_PIECES


def test_blocks_are_runs_of_what_lies_behind_gaps() -> None:
    each = assembly()
    assert each.blocks() == []
    for offset, octets, fin in [
        (20, b"ab", False),
        (4, b"cd", False),
        (6, b"e", False),
        (5, b"d", False),
        (22, b"", True),
    ]:
        each.add(at(each, offset), octets, fin)
    assert each.blocks() == [(at(each, 4), at(each, 7)), (at(each, 20), at(each, 23))]
    each.add(at(each, 0), b"0123", False)
    assert each.blocks() == [(at(each, 20), at(each, 23))]


def test_window_what_lies_behind_it_is_cut() -> None:
    each = assembly(window_octets=4)
    assert each.add(at(each, 0), b"abcdef", True)
    assert (each.octets, each.fin) == (b"abcd", False)
    assert not each.add(at(each, 4), b"e", False)
    assert not each.add(at(each, 9), b"e", False)
    assert each.early_pieces() == []


def test_window_fin_just_inside_is_taken() -> None:
    each = assembly(window_octets=4)
    assert each.add(at(each, 0), b"abcd", True)
    assert each.fin


def test_discard_lets_go_of_octets_and_keeps_the_fin() -> None:
    each = assembly()
    each.add(at(each, 9), b"late", False)
    each.add(at(each, 0), b"abc", True)
    each.discard()
    assert (each.octets, each.early_pieces(), each.fin) == (b"", [], True)


pieces = st.lists(st.tuples(st.integers(0, 63), st.integers(1, 64)), max_size=12)


@given(st.sampled_from(STARTS), pieces, st.permutations(range(8)))
def test_any_order_gives_the_same_octets(start: int, extra: list[tuple[int, int]], order: list[int]) -> None:
    each = assembly(start)
    for offset, size in extra:
        before = each.rcv_nxt
        advanced = each.add(at(each, offset), OCTETS[offset : offset + size], offset + size >= 64)
        assert advanced == (each.rcv_nxt != before)
        assert each.octets == OCTETS[: len(each.octets)]
    for number in order:
        each.add(at(each, number * 8), OCTETS[number * 8 : number * 8 + 8], number == 7)
    assert (each.octets, each.fin) == (OCTETS, True)
    assert each.early_pieces() == []
