"""The flows of a node: bounded, at most one per four-tuple, and forgetful of what is over.

A finished flow stays for a while, so that the last segments of its close still find their way; its identity is
remembered for as long as its cookie is valid, so that a late duplicate of its request is known for what it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from tcpha.deadlines import Deadlines
from tcpha.finished import FinishedIdentities
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity


class Tracked(Protocol):
    """What a flow of either node has."""

    key: ConnectionKey
    """The client's direction."""
    identity: Identity
    period: int
    """The period of its cookie."""
    deadline: float

    @property
    def is_over(self) -> bool:
        """Is the connection finished?"""

    def end(self) -> None:
        """Become finished and let go of what only a living connection needs."""


class TrackedBothWays(Tracked, Protocol):
    """What a flow has whose packets are met in either direction."""

    leaving_key: ConnectionKey
    """The server's direction."""


FlowT = TypeVar("FlowT", bound=Tracked)
BothWaysT = TypeVar("BothWaysT", bound=TrackedBothWays)
ActionT = TypeVar("ActionT")


class FlowTable(Generic[FlowT]):
    """Flows by the client's direction (`by_key`)."""

    def __init__(self, max_flows: int, max_finished: int, finished_time_s: float) -> None:
        self.by_key: dict[ConnectionKey, FlowT] = {}
        self.deadlines: Deadlines[FlowT] = Deadlines()
        self.finished = FinishedIdentities(max_finished)
        self.utc_s = 0.0
        """UTC, which the lives of cookies are measured by."""
        self.timer_faults = 0
        """Flows forgotten because what was due for them failed."""
        self._fault: Exception | None = None
        self._changed: dict[ConnectionKey, None] | None = None
        self._refresh: Callable[[FlowT], None] | None = None
        self._max_flows = max_flows
        self._max_finished = max_finished
        self._finished_time_s = finished_time_s
        # All linger equally long, so the order is that of expiry. What was replaced meanwhile is in it still. It is no
        # ordered dictionary: that is another table of all, and whoever looks into it finds it cold.
        self._lingering: deque[tuple[float, FlowT]] = deque()
        self._lingerers = 0
        """How many of them were not replaced."""
        self._sweep: Iterator[FlowT] = iter(())

    def __len__(self) -> int:
        return len(self.by_key)

    @property
    def live(self) -> int:
        """How many flows are not finished."""
        return len(self.by_key) - self._lingerers

    def sizes(self) -> dict[str, int]:
        """Return how much is in the table, by the names that metrics show."""
        return {
            "flows": self.live,
            "flows_lingering": self._lingerers,
            "finished": len(self.finished),
            "finished_forgotten_early": self.finished.forgotten_early,
            "timer_faults": self.timer_faults,
        }

    def is_full(self) -> bool:
        """Is there no room for one more live flow?"""
        return len(self.by_key) - self._lingerers >= self._max_flows

    def follow(self, refresh: Callable[[FlowT], None] | None) -> None:
        """From now on collect for `take_changed` whose standing changes, and ask `refresh` for what others saw.

        For who carries packets of flows past this process; None: there is nobody (any more).
        """
        self._refresh = refresh
        self._changed = None if refresh is None else {}

    def refresh(self, flow: FlowT) -> None:
        """Bring up to date what a flow knows of packets that others carried."""
        if self._refresh is not None:
            self._refresh(flow)

    def mark_changed(self, flow: FlowT) -> None:
        """The standing of a flow is another one: whoever carries its packets has to know."""
        if self._changed is not None:
            self._changed[flow.key] = None

    def take_changed(self) -> Iterable[ConnectionKey]:
        """Return whose standing changed since this was asked before, each once: flows entered, moved on, gone.

        There are no more of them than flows that were in the table since then.
        """
        changed = self._changed
        if not changed:
            return ()
        self._changed = {}
        return changed

    def insert(self, flow: FlowT, now: float) -> FlowT | None:
        """Enter a flow; return the one it replaces, whose identity is remembered."""
        key = flow.key
        if self._changed is not None:
            self._changed[key] = None
        old = self.by_key.get(key)
        if old is not None:
            if old.is_over:  # all that `finish` does is done
                self._lingerers -= 1
                del self.by_key[key]  # or the old key would stay, and keep the memory around it in use
            else:
                self.remember(old, now)
                self.remove(old)
        self.by_key[key] = flow
        return old

    def finish(self, flow: FlowT, now: float) -> None:
        """The connection is over: remember its identity, keep the flow for its last segments."""
        self.finish_all((flow,), now)

    def finish_all(self, flows: Iterable[FlowT], now: float) -> int:
        """The same of many; return of how many that were not over yet."""
        changed, clear, lingering = self._changed, self.deadlines.clear, self._lingering
        until = now + self._finished_time_s
        over = []
        for flow in flows:
            if flow.is_over:
                continue
            identity = flow.identity
            over.append((identity, flow.period))
            flow.end()
            clear(flow)
            lingering.append((until, flow))
            if changed is not None:
                changed[identity.key] = None
        self.finished.add_all(over, self.utc_s, now)
        self._lingerers += len(over)
        while len(lingering) > self._max_finished:
            self._drop_oldest()
        return len(over)

    def wake(
        self,
        now: float,
        on_deadline: Callable[[FlowT, float], Sequence[ActionT]],
        on_fault: Callable[[FlowT, float], Sequence[ActionT]],
    ) -> list[ActionT]:
        """Ask each flow whose deadline has come what is to be done.

        A defect costs the flow that it meets, no other: that one is forgotten (`on_fault` says what else that takes),
        counted, and kept for whoever can log it. Its identity is remembered, so its request does not run twice.
        """
        actions: list[ActionT] = []
        for flow in self.deadlines.due(now):
            try:
                actions += on_deadline(flow, now)
            except Exception as fault:
                self.timer_faults += 1
                self._fault = fault
                self.remember(flow, now)
                self.remove(flow)
                actions += on_fault(flow, now)
        return actions

    def take_fault(self) -> Exception | None:
        """Return the last defect that `wake` met since it was asked before."""
        fault, self._fault = self._fault, None
        return fault

    def remember(self, flow: FlowT, now: float) -> None:
        """Keep the identity of a flow for as long as its cookie is valid."""
        self.finished.add(flow.identity, flow.period, self.utc_s, now)

    def remove(self, flow: FlowT) -> None:
        """Forget a flow at once; whether its identity is to be remembered is the caller's business."""
        if flow.is_over and self.by_key.get(flow.key) is flow:
            self._lingerers -= 1
        flow.end()
        self.mark_changed(flow)
        self.deadlines.clear(flow)
        self._drop(flow)

    def sweep(self, count: int) -> list[FlowT]:
        """Return the next `count` flows of an endless round through the table."""
        flows = list(islice(self._sweep, count))
        if not flows:
            self._sweep = iter(list(self.by_key.values()))
        return [flow for flow in flows if self.by_key.get(flow.key) is flow]

    def on_timer(self, now: float) -> None:
        """Forget what has been over for long enough."""
        while self._lingering and self._lingering[0][0] <= now:
            self._drop_oldest()
        self.finished.expire(now)

    def _drop_oldest(self) -> None:
        _, flow = self._lingering.popleft()
        if self.by_key.get(flow.key) is flow:
            self._lingerers -= 1
            self._drop(flow)

    def _drop(self, flow: FlowT) -> None:
        if self.by_key.get(flow.key) is flow:
            del self.by_key[flow.key]


class BothWaysTable(FlowTable[BothWaysT]):
    """The same flows by the server's direction as well (`by_leaving_key`)."""

    def __init__(self, max_flows: int, max_finished: int, finished_time_s: float) -> None:
        super().__init__(max_flows, max_finished, finished_time_s)
        self.by_leaving_key: dict[ConnectionKey, BothWaysT] = {}

    def insert(self, flow: BothWaysT, now: float) -> BothWaysT | None:
        """As `FlowTable.insert`."""
        old = super().insert(flow, now)
        if old is not None:
            self.by_leaving_key.pop(old.leaving_key, None)
        self.by_leaving_key[flow.leaving_key] = flow
        return old

    def _drop(self, flow: BothWaysT) -> None:
        if self.by_key.get(flow.key) is flow:
            del self.by_key[flow.key]
            del self.by_leaving_key[flow.leaving_key]
