"""READING: a request head is brought together (RFC 9293, 3.10.7.4, for a receiver that has sent nothing).

Octets are not acknowledged while that can be avoided: what the client was not told arrived, it repeats by itself. Only
when a head stays incomplete for `ack_delay` is it acknowledged, and from then on the front end owns those octets.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Reply
from tcpha.fe.answerer import Answerer
from tcpha.fe.assembly import Assembly
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import Flow, FlowState, Pending
from tcpha.fe.handover import Handover
from tcpha.flowtable import FlowTable
from tcpha.proto.cookie import Cookie
from tcpha.proto.inspect import NEED_MORE, Cause, Refusal
from tcpha.proto.inspect.http1 import inspect
from tcpha.proto.options import encode_timestamps
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff
from tcpha.proto.tcp import ACK, FIN, RST, Segment, encode_segment

_NOTHING: tuple[Action, ...] = ()


class Reader:
    """Flows whose request head is not complete."""

    def __init__(
        self,
        config: FrontEndConfig,
        promise: Promise,
        table: FlowTable[Flow],
        handover: Handover,
        answerer: Answerer,
        counters: FrontEndCounters,
    ) -> None:
        self._config = config
        self._promise = promise
        self._table = table
        self._handover = handover
        self._answerer = answerer
        self._counters = counters
        # A head may be longer than the window; then the window moves on while octets are kept.
        self._room_octets = max(config.window, config.inspect_octets)
        self._reading: dict[Flow, None] = {}  # in the order in which they began

    def begin(self, flow: Flow, cookie: Cookie, segment: Segment, now: float) -> Sequence[Action]:
        """Take in the first octets of a new flow."""
        stamps = segment.timestamps
        start = seq_add(flow.identity.irs, 1)
        assembly = Assembly(start, self._room_octets)
        flow.pending = pending = Pending(cookie, assembly, stamps[0] if stamps else 0, segment.seg_wnd)
        pending.give_up_at = now + self._config.inspect_time
        assembly.add(start, segment.payload, bool(segment.flags & FIN))
        actions = list(self._inspect(flow, pending, now))
        if flow.state is FlowState.READING:
            self._reading[flow] = None
            actions += self._evict(now)
        return actions

    def on_segment(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """A segment of a flow whose head is incomplete. Raises: ChecksumError, OptionError."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        segment.check_checksum()
        expected = pending.assembly.rcv_nxt
        if segment.flags & RST:
            return self._on_reset(flow, pending, segment, now)
        if not segment.flags & ACK:
            self._counters.dropped_flags += 1
            return _NOTHING
        if segment.seg_ack != seq_add(flow.identity.iss, 1):
            return (self._acknowledgement(flow, pending),)  # of something never sent, or of another connection
        if (stamps := segment.timestamps) is not None and seq_diff(SeqNum(stamps[0]), SeqNum(pending.tsval_recent)) > 0:
            pending.tsval_recent = stamps[0]
        pending.window = segment.seg_wnd
        if not segment.seg_len and segment.seg_seq == expected:
            return _NOTHING
        if not pending.assembly.add(segment.seg_seq, segment.payload, bool(segment.flags & FIN)):
            return (self._acknowledgement(flow, pending),)
        return self._inspect(flow, pending, now)

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """Time to acknowledge, or to give the head up."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if now >= pending.give_up_at:
            self._counters.timed_out += 1
            self.forget(flow)
            return self._answerer.refuse(flow, Cause.TIMED_OUT, now)
        pending.ack_at = inf
        pending.acknowledged = pending.assembly.rcv_nxt
        self._table.deadlines.set(flow, pending.give_up_at)
        return (self._acknowledgement(flow, pending),)

    def forget(self, flow: Flow) -> None:
        """The flow is no longer being read."""
        self._reading.pop(flow, None)

    def _inspect(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        found = inspect(pending.assembly.octets, self._config.inspect_octets)
        if found is NEED_MORE:
            if pending.assembly.fin:
                self.forget(flow)
                return self._answerer.close(flow, now)
            if pending.ack_at == inf:
                pending.ack_at = now + self._config.ack_delay
            self._table.deadlines.set(flow, min(pending.ack_at, pending.give_up_at))
            return _NOTHING
        self.forget(flow)
        if isinstance(found, Refusal):
            return self._answerer.refuse(flow, found.cause, now)
        self._counters.requests += 1
        pending.request = found
        return self._handover.begin(flow, pending, now)

    def _on_reset(self, flow: Flow, pending: Pending, segment: Segment, now: float) -> Sequence[Action]:
        """RFC 5961, 3.2: only the exact next number resets; one inside the window is challenged."""
        distance = seq_diff(segment.seg_seq, pending.assembly.rcv_nxt)
        if distance == 0:
            self.forget(flow)
            self._table.remember(flow, now)
            self._table.remove(flow)
            return _NOTHING
        if 0 < distance < self._config.window:
            return (self._acknowledgement(flow, pending),)
        return _NOTHING

    def _acknowledgement(self, flow: Flow, pending: Pending) -> Reply:
        """Say again how far the client's octets are acknowledged (this acknowledges nothing new)."""
        options = b""
        if pending.cookie.tsval is not None:
            options = encode_timestamps(pending.cookie.tsval, pending.tsval_recent)
        room = self._room_octets - seq_diff(pending.acknowledged, pending.assembly.start)
        window = self._promise.window_field(
            min(room, self._config.window), pending.cookie.agreement.window_scale is not None
        )
        seq = seq_add(flow.identity.iss, 1)
        return Reply(encode_segment(flow.leaving_key, seq, pending.acknowledged, ACK, window, options))

    def _evict(self, now: float) -> Sequence[Action]:
        """Too many unfinished heads: the oldest goes, so that slow clients cannot shut out the others."""
        if len(self._reading) <= self._config.max_reading:
            return _NOTHING
        oldest = next(iter(self._reading))
        self._counters.evicted += 1
        self.forget(oldest)
        return self._answerer.refuse(oldest, Cause.TIMED_OUT, now)
