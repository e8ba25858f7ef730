"""How often something may happen: a bucket of tokens that fills up steadily (RFC 4443, 2.4 f describes one).

Pure: time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf


class Budget:
    """So many a second on the long run, and no more than `at_once` without a pause."""

    __slots__ = ("_at_once", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, at_once: float) -> None:
        """`rate` is a second's; both are 1 or more."""
        self._rate = rate
        self._at_once = at_once
        self._tokens = at_once
        self._filled_at = -inf

    def take(self, now: float) -> bool:
        """Take one out if there is one."""
        self._tokens = min(self._at_once, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
