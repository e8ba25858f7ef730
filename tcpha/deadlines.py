"""Deadlines of many flows: cheap to ask for the next, cheap to move one; stale entries are skipped.

They stand in a heap; those who all wait equally long, and so come in the order of their time, in a queue.
"""

from __future__ import annotations

from collections import deque
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
        self._queue: deque[tuple[float, WaiterT]] = deque()
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

    def set_in_turn(self, waiter: WaiterT, deadline: float) -> None:
        """As `set`, cheaper where no deadline was set so that is later: for those who all wait equally long."""
        if self._queue and deadline < self._queue[-1][0]:
            self.set(waiter, deadline)
        else:
            waiter.deadline = deadline
            self._queue.append((deadline, waiter))

    def clear(self, waiter: WaiterT) -> None:
        """Wake `waiter` no more."""
        waiter.deadline = inf

    def next(self) -> float:
        """Return the earliest moment at which somebody may want to be woken, `math.inf` for none."""
        self._discard_stale()
        queued = self._queue[0][0] if self._queue else inf
        return min(queued, self._heap[0][0]) if self._heap else queued

    def due(self, now: float) -> Iterator[WaiterT]:
        """Take out those whose deadline has come, in the order of their deadlines."""
        while self.next() <= now:
            if self._queue and not (self._heap and self._heap[0][0] < self._queue[0][0]):
                _, waiter = self._queue.popleft()
            else:
                _, _, waiter = heappop(self._heap)
            waiter.deadline = inf
            yield waiter

    def _discard_stale(self) -> None:
        queue, heap = self._queue, self._heap
        while queue:
            deadline, waiter = queue[0]
            if waiter.deadline == deadline:
                break
            queue.popleft()
        while heap and heap[0][2].deadline != heap[0][0]:
            heappop(heap)

    def _compact(self) -> None:
        """Throw stale entries away, so that who moves a deadline often does not fill the heap."""
        current = {(id(waiter), deadline): (deadline, count, waiter) for deadline, count, waiter in self._heap}
        self._heap = [entry for (_, deadline), entry in current.items() if entry[2].deadline == deadline]
        heapify(self._heap)
        self._compact_at = max(2 * len(self._heap), _SMALL)
