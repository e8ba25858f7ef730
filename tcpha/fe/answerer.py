"""ANSWERED: where no back end can answer, the front end does, briefly and in the client's protocol, and closes.

A miniature of a server's side of RFC 9293, 3.6: the answer and a FIN are sent together and repeated until the client
has acknowledged them; what the client still sends is acknowledged and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.fe.actions import Action, Reply
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import Flow, FlowState, Pending
from tcpha.flowtable import FlowTable
from tcpha.proto.inspect.http1 import answer
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_le, seq_lt
from tcpha.proto.tcp import ACK, FIN, PSH, RST, Segment, encode_segment

FIRST_REPEAT_S = 0.25
MAX_REPEATS = 6
"""The last repeat comes 16 s after the answer."""
WINDOW = 0xFFFF
TIMESTAMPS_OCTETS = 12

_NOTHING: tuple[Action, ...] = ()


class Answerer:
    """Flows that the front end closes itself."""

    def __init__(self, table: FlowTable[Flow], counters: FrontEndCounters) -> None:
        self._table = table
        self._counters = counters

    def refuse(self, flow: Flow, status: int, now: float) -> Sequence[Action]:
        """Answer with an HTTP status code and close."""
        pending = flow.pending
        method = pending.request.method if pending is not None and pending.request is not None else b""
        return self._answer(flow, answer(status, method), now)

    def close(self, flow: Flow, now: float) -> Sequence[Action]:
        """Close without a word: the client did so inside its request head."""
        return self._answer(flow, b"", now)

    def on_segment(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """A segment of a flow that we answered."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if segment.flags & RST:
            if segment.seg_seq == pending.acknowledged:  # RFC 5961, 3.2
                self._table.finish(flow, now)
            return _NOTHING
        if not segment.flags & ACK:
            return _NOTHING
        if segment.payload_octets or segment.flags & FIN:
            return self._on_octets(flow, pending, segment, now)
        if self._is_acknowledged(flow, pending, segment) and pending.assembly.fin:
            self._table.finish(flow, now)
        return _NOTHING

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """The client has not acknowledged the answer yet."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if pending.repeats >= MAX_REPEATS:
            self._table.finish(flow, now)
            return _NOTHING
        pending.repeats += 1
        self._table.deadlines.set(flow, now + FIRST_REPEAT_S * (1 << pending.repeats))
        return self._packets(flow, pending)

    def _answer(self, flow: Flow, octets: bytes, now: float) -> Sequence[Action]:
        pending = flow.pending
        if pending is None:
            return _NOTHING
        self._counters.answered += 1
        flow.state = FlowState.ANSWERED
        flow.backend, flow.pass_on = None, ()
        pending.answer = octets
        pending.repeats = 0
        pending.acknowledged = pending.assembly.rcv_nxt
        pending.assembly.octets = b""  # only their number mattered; `acknowledged` holds it
        self._table.deadlines.set(flow, now + FIRST_REPEAT_S)
        return self._packets(flow, pending)

    def _on_octets(self, flow: Flow, pending: Pending, segment: Segment, now: float) -> Sequence[Action]:
        """Octets behind the request are thrown away; a repetition means that our answer was lost."""
        repeated = seq_lt(segment.seg_seq, pending.acknowledged)
        end = seq_add(segment.seg_seq, segment.seg_len)
        if not repeated and seq_diff(segment.seg_seq, pending.acknowledged) > 0:
            return (self._acknowledgement(flow, pending),)
        if seq_lt(pending.acknowledged, end):
            pending.acknowledged = end
            pending.assembly.fin = pending.assembly.fin or bool(segment.flags & FIN)
        if self._is_acknowledged(flow, pending, segment):
            if pending.assembly.fin:
                reply = self._acknowledgement(flow, pending)
                self._table.finish(flow, now)
                return (reply,)
            return (self._acknowledgement(flow, pending),)
        return self._packets(flow, pending) if repeated else (self._acknowledgement(flow, pending),)

    @staticmethod
    def _is_acknowledged(flow: Flow, pending: Pending, segment: Segment) -> bool:
        end = seq_add(flow.identity.iss, 2 + len(pending.answer))
        return seq_le(end, segment.seg_ack) and seq_diff(segment.seg_ack, end) <= 0

    def _packets(self, flow: Flow, pending: Pending) -> list[Action]:
        """The whole answer and FIN, cut to the client's MSS."""
        options = self._timestamps(pending)
        size = max(pending.cookie.agreement.mss - len(options), 1)
        first = seq_add(flow.identity.iss, 1)
        cuts = range(0, max(len(pending.answer), 1), size)
        packets: list[Action] = []
        for offset in cuts:
            piece = pending.answer[offset : offset + size]
            flags = PSH | FIN | ACK if offset + size >= len(pending.answer) else ACK
            packets.append(self._reply(flow, pending, seq_add(first, offset), flags, options, piece))
        return packets

    def _acknowledgement(self, flow: Flow, pending: Pending) -> Action:
        seq = seq_add(flow.identity.iss, 2 + len(pending.answer))
        return self._reply(flow, pending, seq, ACK, self._timestamps(pending))

    @staticmethod
    def _timestamps(pending: Pending) -> bytes:
        tsval = pending.cookie.tsval
        return b"" if tsval is None else encode_timestamps(tsval, pending.tsval_recent)

    @staticmethod
    def _reply(flow: Flow, pending: Pending, seq: SeqNum, flags: int, options: bytes, payload: bytes = b"") -> Action:
        return Reply(encode_segment(flow.leaving_key, seq, pending.acknowledged, flags, WINDOW, options, payload))
