"""The answer to a front end that asks for every connection which the programs carry: piece by piece.

Packets do not wait for all of it, and the receiver's socket can hold it. Who asks again is told anew. What begins while
the walk is on may be left out: who handed it over knows. What a piece names lived when that was read, and is named at
once: its CLOSED comes later. What a front end has taken back, and waits for its end, is not named: no CLOSED comes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from math import inf

from tcpha.kernel.be_maps import Entries
from tcpha.net.bpf_adopter import Adopter
from tcpha.proto.handoff import by_message
from tcpha.proto.messages import Flows, Identity, Message
from tcpha.rules import Endpoint

NAMED, ENTRIES = 1024, 8192
"""Connections that are named at a time, and entries that are read for them, at most, but for a piece of the map."""
INTERVAL_S = 0.01


class Listing:
    """One walk for each front end that has asked."""

    def __init__(
        self, adopter: Adopter, send: Callable[[Endpoint, Message], None], taken_back: Container[Identity]
    ) -> None:  # fmt: skip
        self._adopter = adopter
        self._send = send
        self._taken_back = taken_back
        self._walks: dict[Endpoint, Iterator[Entries]] = {}
        self._next_at = -inf

    def begin(self, frontend: Endpoint, now: float) -> None:
        """It has asked. Raises: EdgeError."""
        self._walks[frontend] = self._adopter.walk()
        if now >= self._next_at:
            self.on_timer(now)

    def on_timer(self, now: float) -> None:
        """Name some to the front end whose turn it is. Raises: EdgeError; the rest is left out then."""
        self._next_at = now + INTERVAL_S
        frontend = next(iter(self._walks))
        walk = self._walks.pop(frontend)
        living: list[Identity] = []
        read = 0
        for entries in walk:
            living += [each for each in entries.living() if each not in self._taken_back]
            read += len(entries)
            if len(living) >= NAMED or read >= ENTRIES:
                self._walks[frontend] = walk  # behind the others
                break
        for some in by_message(living):
            self._send(frontend, Flows(some))

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called, `math.inf` if nobody has asked."""
        return self._next_at if self._walks else inf
