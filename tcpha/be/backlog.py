"""Connections that front ends take back, one behind the other: to end one takes system calls, and packets wait.

So many are ended at any one time, the others soon after, when what came meanwhile has been served. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf

from tcpha.proto.messages import Identity

AT_ONCE = 64
PAUSE_S = 0.002
WAITING = 1 << 16
"""So many wait, at most: where there are more packets wait."""


class Backlog:
    """They are ended in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Identity] = deque()
        self._taken_at = -inf
        self._left = 0

    def add(self, identities: Iterable[Identity]) -> None:
        """These are taken back."""
        self._waiting.extend(identities)

    def take(self, now: float) -> Iterator[Identity]:
        """Those that are to be ended now: as many as are left of `AT_ONCE`, and what is too much to wait."""
        if now >= self._taken_at + PAUSE_S:
            self._taken_at, self._left = now, AT_ONCE
        while self._waiting and (self._left > 0 or len(self._waiting) > WAITING):
            self._left -= 1
            yield self._waiting.popleft()

    def take_all(self) -> Iterator[Identity]:
        """There is no later."""
        while self._waiting:
            yield self._waiting.popleft()

    def next_deadline(self) -> float:
        """Return when some are to be taken, `math.inf` if none waits."""
        return self._taken_at + PAUSE_S if self._waiting else inf
