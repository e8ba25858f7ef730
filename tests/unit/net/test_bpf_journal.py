"""Journals as they are read: on plain memory in the place of the maps, in which the test writes as a program does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tcpha.kernel.be_maps import ADOPTED_AND_UNMADE_AT, PROGRESS
from tcpha.net.bpf import MapShape, MapType
from tcpha.net.bpf_journal import Journal, Piece, Progress

ENTRIES, ENTRY_OCTETS = 4, 16
PROGRESS_OCTETS = ADOPTED_AND_UNMADE_AT + 64
NUMBER = 2
"""Which journal of those in `progress` it is."""


class Memory:
    """In the place of an array that is mapped."""

    def __init__(self, value_octets: int, entries: int) -> None:
        self.name, self.shape = "memory", MapShape(MapType.ARRAY, 4, value_octets, entries)
        self.fd = os.memfd_create(self.name)
        os.truncate(self.fd, value_octets * entries)


def entry(number: int) -> bytes:
    return number.to_bytes(ENTRY_OCTETS, "little")


def entries(first: int, end: int) -> bytes:
    return b"".join(map(entry, range(first, end)))


class Written:
    """A journal, and what a program does with it."""

    def __init__(self) -> None:
        arrays = Memory(ENTRY_OCTETS, ENTRIES), Memory(PROGRESS_OCTETS, 1)
        self.progress = Progress(cast(Any, arrays[1]))
        self.journal = Journal(cast(Any, arrays[0]), self.progress, NUMBER)
        for each in arrays:
            os.close(each.fd)

    def counts(self) -> tuple[int, int, int]:
        """Taken, written, read."""
        taken, written, read = PROGRESS.unpack_from(self.progress.memory, NUMBER * PROGRESS.size)
        return taken, written, read

    def take(self) -> None:
        taken, written, read = self.counts()
        PROGRESS.pack_into(self.progress.memory, NUMBER * PROGRESS.size, taken + 1, written, read)

    def write(self, count: int) -> None:
        for _ in range(count):
            taken, written, read = self.counts()
            at = written % ENTRIES * ENTRY_OCTETS
            self.journal.memory[at : at + ENTRY_OCTETS] = entry(written)
            PROGRESS.pack_into(self.progress.memory, NUMBER * PROGRESS.size, max(taken, written + 1), written + 1, read)


@pytest.fixture
def here() -> Iterator[Written]:
    made = Written()
    yield made
    made.journal.close()
    made.progress.close()


def test_nothing_is_written_nothing_is_read(here: Written) -> None:
    assert (here.journal.has_more(), here.journal.end(), here.journal.read()) == (False, 0, ([], 0))


def test_some_are_written_all_are_read_once(here: Written) -> None:
    here.write(3)
    assert (here.journal.has_more(), here.journal.end()) == (True, 3)
    assert here.journal.read() == ([Piece(entries(0, 3), 0)], 0)
    assert (here.journal.has_more(), here.journal.end(), here.journal.read()) == (False, 3, ([], 0))


@pytest.mark.parametrize(
    ("first", "count", "pieces"),
    [
        (2, 2, [Piece(entries(2, 4), 2)]),
        (2, 3, [Piece(entries(2, 4), 2), Piece(entries(4, 5), 0)]),
        (4, 4, [Piece(entries(4, 8), 0)]),
        (7, 4, [Piece(entries(7, 8), 3), Piece(entries(8, 11), 0)]),
    ],
    ids=["to the end", "around it", "whole", "whole, around it"],
)
def test_end_of_the_memory_is_reached_what_follows_is_a_piece_of_its_own(
    here: Written, first: int, count: int, pieces: list[Piece]
) -> None:
    for _ in range(first):
        here.write(1)
        here.journal.read()
    here.write(count)
    assert here.journal.read() == (pieces, 0)
    assert here.counts() == (first + count,) * 3


def test_more_are_written_than_there_is_room_the_oldest_are_lost_and_counted(here: Written) -> None:
    here.write(ENTRIES + 3)
    assert here.journal.read() == ([Piece(entries(3, 4), 3), Piece(entries(4, 7), 0)], 3)
    assert not here.journal.has_more()


def test_only_those_before_an_end_are_read_the_others_remain(here: Written) -> None:
    here.write(2)
    end = here.journal.end()
    here.write(1)
    assert here.journal.read(end) == ([Piece(entries(0, 2), 0)], 0)
    assert (here.journal.has_more(), here.journal.read(end)) == (True, ([], 0))
    assert here.journal.read() == ([Piece(entries(2, 3), 2)], 0)


def test_end_is_beyond_what_is_written_that_is_all(here: Written) -> None:
    here.write(2)
    assert here.journal.read(9) == ([Piece(entries(0, 2), 0)], 0)
    assert here.counts() == (2, 2, 2)


def test_some_before_the_end_are_overwritten_those_are_lost(here: Written) -> None:
    here.write(3)
    end = here.journal.end()
    here.write(2)
    assert here.journal.read(end) == ([Piece(entries(1, 3), 1)], 1)
    assert here.journal.read() == ([Piece(entries(3, 4), 3), Piece(entries(4, 5), 0)], 0)


@pytest.mark.parametrize("more", [ENTRIES, ENTRIES + 1])
def test_all_before_the_end_are_overwritten_nothing_is_read_and_none_counted_twice(here: Written, more: int) -> None:
    here.write(3)
    end = here.journal.end()
    here.write(more)
    assert here.journal.read(end) == ([], 3)
    assert here.counts() == (3 + more, 3 + more, 3)
    pieces, lost = here.journal.read()
    assert (b"".join(each.octets for each in pieces), lost) == (entries(more - 1, 3 + more), more - ENTRIES)


@pytest.mark.parametrize("end", [None, 2])
def test_entry_is_being_written_nothing_is_read_until_it_is(here: Written, end: int | None) -> None:
    here.write(2)
    here.take()
    assert here.journal.read(end) == ([], 0)
    assert here.counts() == (3, 2, 0)
    here.write(1)
    assert here.journal.read() == ([Piece(entries(0, 3), 0)], 0)
