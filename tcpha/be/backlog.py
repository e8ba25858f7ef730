"""Connections that front ends take back, one behind the other: to end one takes system calls, and packets wait.

So many are ended at any one time, the others soon after, when what came meanwhile has been served. A front end says so
once: where the kernel says no, all wait for a while, and those that were tried are tried again. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from math import inf

from tcpha.proto.messages import Identity

AT_ONCE = 64
PAUSE_S = 0.002
WAITING = 1 << 16
"""So many wait, at most: where there are more packets wait."""
TRIES, RETRY_S = 6, 0.1
"""Of each, and after so long: what may pass has passed by then."""


class Backlog:
    """They are ended in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Identity, int] = OrderedDict()
        """How often each was tried in vain."""
        self._next_at = -inf
        self._left = 0

    def __contains__(self, identity: object) -> bool:
        """Is it taken back, and not ended yet?"""
        return identity in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, identities: Iterable[Identity]) -> None:
        """These are taken back."""
        for each in identities:
            self._waiting.setdefault(each, 0)

    def take(self, now: float) -> Iterator[tuple[Identity, int]]:
        """Those that are to be ended now: as many as are left of `AT_ONCE`, and what is too much to wait.

        With each, how often it was tried in vain. Use up the iterator before anything is put back.
        """
        if now >= self._next_at:
            self._next_at, self._left = now + PAUSE_S, AT_ONCE
        while self._waiting and (self._left > 0 or len(self._waiting) > WAITING):
            self._left -= 1
            yield self._waiting.popitem(last=False)

    def take_all(self) -> Iterator[tuple[Identity, int]]:
        """There is no later."""
        while self._waiting:
            yield self._waiting.popitem(last=False)

    def put_back(self, taken: Iterable[tuple[Identity, int]], now: float) -> int:
        """These were tried in vain: they wait behind the others; return how many are given up instead."""
        given_up = 0
        for identity, tried in taken:
            if tried + 1 >= TRIES:
                given_up += 1
            else:
                self._waiting[identity] = tried + 1
            self._next_at, self._left = now + RETRY_S, 0
        return given_up

    def next_deadline(self) -> float:
        """Return when some are to be taken, `math.inf` if none waits."""
        return self._next_at if self._waiting else inf
