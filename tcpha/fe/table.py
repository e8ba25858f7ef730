"""The front end's flows: bounded, and forgetful of what is over.

A finished flow stays for a while, so that the last segments of its close still reach its back end; its identity is
remembered for as long as its cookie is valid, so that a late duplicate of its request is known for what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tcpha.deadlines import Deadlines
from tcpha.fe.flows import Flow, FlowState
from tcpha.finished import FinishedIdentities
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity


class FlowTable:
    """Flows by the client's direction, at most one per four-tuple."""

    def __init__(self, max_flows: int, max_finished: int, finished_time_s: float) -> None:
        self.by_key: dict[ConnectionKey, Flow] = {}
        self.deadlines: Deadlines[Flow] = Deadlines()
        self.finished = FinishedIdentities(max_finished)
        self.utc_s = 0.0
        self._max_flows = max_flows
        self._max_finished = max_finished
        self._finished_time_s = finished_time_s
        # Every entry lingers equally long, so the dictionary's insertion order is the order of expiry.
        self._lingering: dict[Flow, float] = {}
        self._sweep: Iterator[Flow] = iter(())

    def __len__(self) -> int:
        return len(self.by_key)

    @property
    def live(self) -> int:
        """How many flows are not finished."""
        return len(self.by_key) - len(self._lingering)

    def is_full(self) -> bool:
        """Is there no room for one more live flow?"""
        return self.live >= self._max_flows

    def insert(self, flow: Flow, now: float) -> Flow | None:
        """Enter a flow; return the one it replaces. Its identity is not forgotten."""
        old = self.by_key.get(flow.key)
        if old is not None:
            self.remove(old, now)
        self.by_key[flow.key] = flow
        return old

    def finish(self, flow: Flow, now: float) -> None:
        """The connection is over: pass its last segments on for a while, then forget it."""
        if flow.state is FlowState.FINISHED:
            return
        flow.state = FlowState.FINISHED
        flow.pending = None
        self.deadlines.clear(flow)
        self.finished.add(flow.identity, flow.period, self.utc_s, now)
        self._lingering[flow] = now + self._finished_time_s
        if len(self._lingering) > self._max_finished:
            self._drop_oldest()

    def remove(self, flow: Flow, now: float) -> None:
        """Forget a flow at once; nothing of it is passed on any more."""
        if flow.state is FlowState.FINISHED:
            self._lingering.pop(flow, None)
        else:
            self.finished.add(flow.identity, flow.period, self.utc_s, now)
        flow.pending = None
        self.deadlines.clear(flow)
        self._drop(flow)

    def knows_as_finished(self, identity: Identity) -> bool:
        """Did a connection with this identity live here and end?"""
        return identity in self.finished

    def sweep(self, count: int) -> list[Flow]:
        """Return the next `count` flows of an endless round through the table."""
        flows = list(islice(self._sweep, count))
        if not flows:
            self._sweep = iter(list(self.by_key.values()))
        return [flow for flow in flows if self.by_key.get(flow.key) is flow]

    def on_timer(self, now: float) -> None:
        """Forget what has been over for long enough."""
        while self._lingering and next(iter(self._lingering.values())) <= now:
            self._drop_oldest()
        self.finished.expire(now)

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._lingering))
        del self._lingering[oldest]
        self._drop(oldest)

    def _drop(self, flow: Flow) -> None:
        if self.by_key.get(flow.key) is flow:
            del self.by_key[flow.key]
