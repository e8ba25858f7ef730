"""Identities of connections that are over, remembered while their cookie could still be accepted.

A late duplicate of a request must never run twice, so a finished identity is known for as long as its SYN cookie is
valid. Memory is bounded and correctness is not: if one must be forgotten early, cookies of its period and older are no
longer accepted (`period_floor`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from tcpha.proto.cookie import LIFE_S, PERIOD_S, PERIOD_SHIFT
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import AGREEMENT_BITS, Identity
from tcpha.proto.seqnum import SeqNum

_Name: TypeAlias = tuple[ConnectionKey, SeqNum, int]

MEMORY_S = LIFE_S + PERIOD_S
"""No cookie is accepted longer after it was made, even where another front end's clock is a period ahead."""


class FinishedIdentities:
    """A bounded set of identities that expire on their own."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[_Name] = set()
        self._ends: deque[tuple[float, int, _Name]] = deque()
        """When a name is forgotten, its period, the name. All live equally long: the order is that of expiry."""
        self.period_floor = -1
        self.forgotten_early = 0
        """Identities forgotten before their time for want of room; the floor rose with them."""

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, identity: Identity) -> bool:
        return _name(identity) in self._names

    def add(self, identity: Identity, period: int, utc_s: float, now: float) -> None:
        """Remember `identity`, whose cookie was made in `period` (unless that cookie is too old to matter)."""
        self.add_all(((identity, period),), utc_s, now)

    def add_all(self, connections: Iterable[tuple[Identity, int]], utc_s: float, now: float) -> None:
        """The same of many, each with the period of its cookie."""
        names, ends, limit = self._names, self._ends, self._limit
        until, oldest = now + MEMORY_S, (int(utc_s) >> PERIOD_SHIFT) - 2
        for identity, period in connections:
            name = _name(identity)
            if period < oldest or name in names:
                continue
            if len(names) >= limit:
                self._make_room(now)
            names.add(name)
            ends.append((until, period, name))

    def expire(self, now: float) -> None:
        """Forget what is old enough."""
        while self._ends and self._ends[0][0] <= now:
            self._forget_oldest()

    def _make_room(self, now: float) -> None:
        self.expire(now)
        if len(self._names) >= self._limit:
            self.forgotten_early += 1
            self.period_floor = max(self.period_floor, self._forget_oldest())

    def _forget_oldest(self) -> int:
        """Forget the oldest name; return its period."""
        _, period, name = self._ends.popleft()
        self._names.remove(name)
        return period


def _name(identity: Identity) -> _Name:
    """Return what the hash of its cookie covers: a repetition that acknowledges a little more has the same name."""
    return (identity.key, identity.irs, identity.iss >> AGREEMENT_BITS)


def full_period(low: int, utc_s: float) -> int:
    """Return the period nearest to now whose low 16 bits are `low` (a HANDOFF carries only those)."""
    now = int(utc_s) >> PERIOD_SHIFT
    return now + ((low - now + 0x8000) & 0xFFFF) - 0x8000
