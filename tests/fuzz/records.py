"""Octets as a program: records of eight octets, each an event, so that a mutator can move whole events about.

A core is fuzzed with a program: the first record says what is configured, each further one is something that happens.
Any octets are a program; what is cut off at the end reads as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

RECORD_OCTETS = 8

ValueT = TypeVar("ValueT")


class Octets:
    """Reads values off the front of some octets; beyond their end there are zeros."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def left(self) -> int:
        return max(len(self._octets) - self._at, 0)

    def number(self, octets: int = 1) -> int:
        """An unsigned number, network byte order."""
        return int.from_bytes(self.piece(octets).ljust(octets, b"\0"), "big")

    def piece(self, octets: int) -> bytes:
        """At most so many octets."""
        found = self._octets[self._at : self._at + octets]
        self._at += octets
        return found

    def rest(self) -> bytes:
        return self.piece(self.left)

    def choose(self, values: Sequence[ValueT]) -> ValueT:
        """One of the values, by one octet; earlier ones are as likely as later ones."""
        return values[self.number() % len(values)]

    def flag(self) -> bool:
        return bool(self.number() & 1)


class Life(Protocol):
    """What a program drives."""

    def step(self, record: Octets) -> None:
        """One event."""

    def end(self) -> None:
        """Nothing happens any more."""


def methods(life: type, events: Sequence[tuple[str, int]]) -> tuple[Callable[[Any, Octets], None], ...]:
    """What each first octet of a record means: a method of `life`. `events`: names, and how many octets mean them.

    The last name has what is left over: a new event takes its octets from there, and old programs mean what they meant.
    """
    found = tuple(getattr(life, name) for name, octets in events for _ in range(octets))
    assert len(found) == 256
    return found


def records(program: bytes) -> Iterator[Octets]:
    """The records of a program, the last one filled up."""
    for start in range(0, len(program), RECORD_OCTETS):
        yield Octets(program[start : start + RECORD_OCTETS])


def live(program: bytes, begin: Callable[[Octets], Life]) -> None:
    """Live as the program says, then be left alone until nothing is left. The first record is where a life begins."""
    found = records(program)
    life = begin(next(found, Octets(b"")))
    for record in found:
        life.step(record)
    life.end()


def mutate(program: bytes, max_octets: int, seed: int, mutate_octets: Callable[[bytes, int], bytes]) -> bytes:
    """Change a program: mostly by whole records, else as the fuzzer itself changes octets (`mutate_octets`)."""
    random = Random(seed)
    if not program or random.random() < 0.4:
        return mutate_octets(program, max_octets)
    found = [program[start : start + RECORD_OCTETS] for start in range(0, len(program), RECORD_OCTETS)]
    for _ in range(random.choice((1, 1, 2, 4))):
        _change(found, random)
    return b"".join(found)[:max_octets]


def _change(found: list[bytes], random: Random) -> None:
    """One change of a list of records, which stays as long as one at least."""
    at = random.randrange(len(found))
    match random.randrange(6):
        case 0:
            found.insert(random.randrange(len(found) + 1), found[at])
        case 1:
            found.insert(random.randrange(len(found) + 1), random.randbytes(RECORD_OCTETS))
        case 2 if len(found) > 1:
            start = random.randrange(len(found))
            del found[start : start + random.choice((1, 1, 1, 2, 8))]
            found[:] = found or [bytes(RECORD_OCTETS)]
        case 3:
            other = random.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        case 4:
            some = found[at : at + random.choice((2, 4, 8))]
            found[random.randrange(len(found)) :][:0] = some
        case _:
            record = bytearray(found[at].ljust(RECORD_OCTETS, b"\0"))
            record[random.randrange(RECORD_OCTETS)] = random.choice((random.randrange(256), random.randrange(8)))
            found[at] = bytes(record)
