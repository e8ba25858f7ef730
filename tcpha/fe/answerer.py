"""ANSWERED: where no back end can answer, the front end does, briefly and in the client's protocol, and closes.

A miniature of a server's side of RFC 9293, 3.6: the answer and a FIN are sent together and repeated until the client
has acknowledged them; what the client still sends is acknowledged and thrown away.

Deviation: the window of its answers is 65535 in whatever unit was agreed on: octets that are thrown away need no room.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.fe.actions import Action, Reply
from tcpha.fe.arrivals import Arrivals
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import PROOF_OCTETS, Flow, FlowState, Pending, newer_tsval
from tcpha.fe.refusals import Refusals
from tcpha.flowtable import FlowTable
from tcpha.proto.inspect import Cause, Inspected, Protocol
from tcpha.proto.inspect.first import answer
from tcpha.proto.options import MAX_OPTIONS_OCTETS, encode_sack, encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_lt
from tcpha.proto.tcp import ACK, FIN, PSH, RST, Segment, encode_segment

FIRST_REPEAT_S = 0.25
MAX_REPEATS = 6
"""The last repeat comes 16 s after the answer."""
WINDOW = 0xFFFF
FIN_WAIT_S = 16.0
"""How long a client may keep its side open once it has the answer."""
PROOF_TICKS = PROOF_OCTETS

TICKS_PER_S = 1000
CLOCKS_APART_S = 0.2
"""A server's clock may be ahead of ours by so much: nothing is proven by less."""

_NOTHING: tuple[Action, ...] = ()


class Answerer:
    """Flows that the front end closes itself."""

    def __init__(self, table: FlowTable[Flow], counters: FrontEndCounters, promised_scale: int | None) -> None:
        self._promised_scale = promised_scale or 0
        self._table = table
        self._counters = counters
        self.refusals = Refusals()

    def refuse(self, flow: Flow, cause: Cause, now: float) -> Sequence[Action]:
        """Answer a request that was read, in its own protocol, and close."""
        asked = None if flow.pending is None else flow.pending.request
        protocol = Protocol.OCTETS if asked is None else asked.protocol
        return self._answer(flow, protocol, asked, answer(protocol, cause, asked), cause.value, now)

    def refuse_unread(
        self, flow: Flow, protocol: Protocol, cause: Cause, now: float, code: int | None = None, reason: str = ""
    ) -> Sequence[Action]:
        """Answer what is no complete request, and close; `code` is that of a refusal, `reason` is for the log."""
        return self._answer(flow, protocol, None, answer(protocol, cause, None, code), reason or cause.value, now)

    def close(self, flow: Flow, now: float) -> Sequence[Action]:
        """Close without a word: the client did so inside its request head."""
        return self._answer(flow, Protocol.OCTETS, None, b"", "the client closed inside its request head", now)

    def on_segment(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """A segment of a flow that we answered. Raises: ChecksumError, OptionError."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        segment.check_checksum()
        if segment.flags & RST:
            return self._on_reset(flow, pending, segment, now)
        if not segment.flags & ACK:
            return _NOTHING
        if echoes_server(pending, segment):
            return self._give_up(flow, segment, now)
        if not 0 <= seq_diff(segment.seg_ack, seq_add(flow.identity.iss, 1)) <= len(pending.answer) + 1:
            return (self._acknowledgement(flow, pending),)  # of something never sent, or of another connection
        _renew_timestamp(pending, segment)
        if not pending.delivered and segment.seg_ack == self._end(flow, pending):
            pending.delivered = True
            flow.last_ack = segment.seg_ack
            self._table.deadlines.set(flow, now + FIN_WAIT_S)
        if segment.payload_octets or segment.flags & FIN:
            return self._on_octets(flow, pending, segment, now)
        if pending.delivered and pending.arrivals.fin:
            self._table.finish(flow, now)
        if seq_lt(segment.seg_seq, pending.acknowledged):  # a keep-alive probe
            return (self._acknowledgement(flow, pending),)
        return _NOTHING

    def on_late_segment(self, flow: Flow, segment: Segment) -> Sequence[Action]:
        """A segment behind the close (TIME-WAIT, RFC 9293, 3.10.7.4). Raises: ChecksumError, OptionError.

        A FIN that the client repeats, because our acknowledgement of it was lost, is acknowledged again; octets that
        nobody takes any more are reset.
        """
        if segment.flags & (ACK | RST) != ACK or segment.seg_ack != flow.last_ack or not segment.seg_len:
            return _NOTHING
        segment.check_checksum()
        if not segment.flags & FIN:
            return (Reply(encode_segment(flow.leaving_key, segment.seg_ack, SeqNum(0), RST, 0)),)
        stamps = segment.timestamps
        options = b"" if stamps is None else encode_timestamps(stamps[1], stamps[0])
        ack = seq_add(segment.seg_seq, segment.seg_len)
        return (Reply(encode_segment(flow.leaving_key, segment.seg_ack, ack, ACK, WINDOW, options)),)

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """The client has not acknowledged the answer yet, or does not close its side."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if pending.delivered or pending.repeats >= MAX_REPEATS:
            self._table.finish(flow, now)
            return _NOTHING
        pending.repeats += 1
        self._table.deadlines.set(flow, now + FIRST_REPEAT_S * (1 << pending.repeats))
        return self._packets(flow, pending)

    def _answer(
        self, flow: Flow, protocol: Protocol, asked: Inspected | None, octets: bytes, reason: str, now: float
    ) -> Sequence[Action]:
        pending = flow.pending
        if pending is None:
            return _NOTHING
        kind = _kind(protocol, asked, octets)
        self._counters.answer(kind)
        self.refusals.add(f"{_IN_WORDS.get(kind, kind)} ({reason})", flow.key)
        flow.state = FlowState.ANSWERED
        self._table.mark_changed(flow)
        flow.backend, flow.pass_on = None, ()
        pending.answer = octets
        pending.repeats = 0
        pending.acknowledged = pending.assembly.rcv_nxt
        pending.arrivals = Arrivals(pending.acknowledged, pending.assembly.fin)
        pending.assembly.discard()  # only their number mattered
        self._table.deadlines.set(flow, now + FIRST_REPEAT_S)
        return self._packets(flow, pending)

    def _on_reset(self, flow: Flow, pending: Pending, segment: Segment, now: float) -> Sequence[Action]:
        """RFC 5961, 3.2: only the exact next number resets; one inside the window is challenged."""
        distance = seq_diff(segment.seg_seq, pending.acknowledged)
        if distance == 0:
            self._table.finish(flow, now)
            return _NOTHING
        return (self._acknowledgement(flow, pending),) if 0 < distance < WINDOW else _NOTHING

    def _give_up(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """The back end that was silent did adopt, and the client's TCP will never take an answer of ours."""
        self._counters.orphaned += 1
        self._table.finish(flow, now)
        return (Reply(encode_segment(flow.leaving_key, segment.seg_ack, SeqNum(0), RST, 0)),)

    def _on_octets(self, flow: Flow, pending: Pending, segment: Segment, now: float) -> Sequence[Action]:
        """Octets behind the request are thrown away; a repetition means that our answer was lost."""
        repeated = seq_lt(segment.seg_seq, pending.acknowledged)
        scale = self._promised_scale if pending.cookie.agreement.window_scale is not None else 0
        if seq_diff(segment.seg_seq, pending.acknowledged) < WINDOW << scale:
            end = seq_add(segment.seg_seq, segment.seg_len)
            pending.arrivals.add(segment.seg_seq, end, bool(segment.flags & FIN))
            pending.acknowledged = pending.arrivals.rcv_nxt
        if repeated and not pending.delivered:
            return self._packets(flow, pending)
        reply = self._acknowledgement(flow, pending)
        if pending.delivered and pending.arrivals.fin:
            self._table.finish(flow, now)
        return (reply,)

    @staticmethod
    def _end(flow: Flow, pending: Pending) -> SeqNum:
        """SND.NXT: behind the answer and our FIN."""
        return seq_add(flow.identity.iss, 2 + len(pending.answer))

    def _packets(self, flow: Flow, pending: Pending) -> list[Action]:
        """The whole answer and FIN, cut to the client's MSS."""
        options = self._timestamps(pending)
        size = max(pending.cookie.agreement.mss - len(options), 1)
        first = seq_add(flow.identity.iss, 1)
        cuts = range(0, max(len(pending.answer), 1), size)
        packets: list[Action] = []
        for offset in cuts:
            piece = pending.answer[offset : offset + size]
            flags = ACK | (PSH if piece else 0) | FIN if offset + size >= len(pending.answer) else ACK
            packets.append(self._reply(flow, pending, seq_add(first, offset), flags, options, piece))
        return packets

    def _acknowledgement(self, flow: Flow, pending: Pending) -> Action:
        options = self._timestamps(pending)
        if pending.cookie.agreement.sack:
            options += encode_sack(pending.arrivals.blocks(), MAX_OPTIONS_OCTETS - len(options))
        return self._reply(flow, pending, self._end(flow, pending), ACK, options)

    @staticmethod
    def _timestamps(pending: Pending) -> bytes:
        tsval = pending.cookie.tsval
        return b"" if tsval is None else encode_timestamps(tsval, pending.tsval_recent)

    @staticmethod
    def _reply(flow: Flow, pending: Pending, seq: SeqNum, flags: int, options: bytes, payload: bytes = b"") -> Action:
        return Reply(encode_segment(flow.leaving_key, seq, pending.acknowledged, flags, WINDOW, options, payload))


def _renew_timestamp(pending: Pending, segment: Segment) -> None:
    """Renew TS.Recent (RFC 7323, 4.3). Raises: OptionError.

    A client measures its round trip by what is echoed: with an old one it waits longer for each of its repetitions.
    """
    tsval = newer_tsval(pending, segment)
    if tsval is not None and 0 <= seq_diff(pending.acknowledged, segment.seg_seq) < PROOF_OCTETS:
        pending.tsval_recent = tsval


def echoes_server(pending: Pending, segment: Segment) -> bool:
    """Does the client echo a later TSval than the only one that we sent? It has heard the server. Raises: OptionError.

    From then on it refuses what bears ours (RFC 7323, 5.3).
    """
    stamps, sent = segment.timestamps, pending.cookie.tsval
    if stamps is None or sent is None or not 0 < seq_diff(SeqNum(stamps[1]), SeqNum(sent)) < PROOF_TICKS:
        return False
    return 0 <= seq_diff(segment.seg_seq, pending.assembly.start) < PROOF_OCTETS


def echoes_earlier_server(pending: Pending, segment: Segment, now: float) -> bool:
    """Does what `echoes_server` speak of a back end that was given up, not of the one that has the flow now?

    From its adoption on a server's clock goes on from the TSval that we sent: that of the present one has not run for
    so long. Deviation: ticks are milliseconds, as Linux's; RFC 7323 (5.4) allows up to a second.
    """
    stamps, sent = segment.timestamps, pending.cookie.tsval
    if stamps is None or sent is None:
        return False
    ticks = int((now - pending.turned_at + CLOCKS_APART_S) * TICKS_PER_S)
    return ticks < seq_diff(SeqNum(stamps[1]), SeqNum(sent)) < PROOF_TICKS


_IN_WORDS = {"alert": "TLS alert", "goaway": "GOAWAY", "silently": "closed silently"}
"""Kinds of answers that are no status code."""


def _kind(protocol: Protocol, asked: Inspected | None, octets: bytes) -> str:
    """Return what an answer is counted as: an HTTP status, or how else the connection ends."""
    match protocol:
        case Protocol.HTTP1:
            return octets[9:12].decode()  # of the status line (RFC 9112, 4)
        case Protocol.HTTP2:
            return "goaway" if asked is None else "503"
        case Protocol.TLS if octets:
            return "alert"
        case _:
            return "silently"
