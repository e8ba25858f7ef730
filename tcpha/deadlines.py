"""Deadlines of many flows in one heap: cheap to ask for the next, cheap to move one; stale entries are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, Protocol, TypeVar

_SMALL = 64
"""So few entries are not worth a look."""


class HasDeadline(Protocol):
    """What can wait: `deadline` is the moment at which it wants to be woken, `math.inf` for never."""

    deadline: float


WaiterT = TypeVar("WaiterT", bound=HasDeadline)


class Deadlines(Generic[WaiterT]):
    """The waiters of one core. All times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WaiterT]] = []
        self._count = 0
        self._compact_at = _SMALL

    def set(self, waiter: WaiterT, deadline: float) -> None:
        """Wake `waiter` at `deadline` and not before; replaces its earlier deadline."""
        if waiter.deadline == deadline:
            return
        waiter.deadline = deadline
        if deadline < inf:
            self._count += 1
            heappush(self._heap, (deadline, self._count, waiter))
            if len(self._heap) > self._compact_at:
                self._compact()

    def clear(self, waiter: WaiterT) -> None:
        """Wake `waiter` no more."""
        waiter.deadline = inf

    def next(self) -> float:
        """Return the earliest moment at which somebody may want to be woken, `math.inf` for none."""
        self._discard_stale()
        return self._heap[0][0] if self._heap else inf

    def due(self, now: float) -> Iterator[WaiterT]:
        """Take out those whose deadline has come, in the order of their deadlines."""
        while self._heap and self._heap[0][0] <= now:
            deadline, _, waiter = heappop(self._heap)
            if waiter.deadline == deadline:
                waiter.deadline = inf
                yield waiter

    def _discard_stale(self) -> None:
        while self._heap and self._heap[0][2].deadline != self._heap[0][0]:
            heappop(self._heap)

    def _compact(self) -> None:
        """Throw stale entries away, so that who moves a deadline often does not fill the heap."""
        current = {(id(waiter), deadline): (deadline, count, waiter) for deadline, count, waiter in self._heap}
        self._heap = [entry for (_, deadline), entry in current.items() if entry[2].deadline == deadline]
        heapify(self._heap)
        self._compact_at = max(2 * len(self._heap), _SMALL)
