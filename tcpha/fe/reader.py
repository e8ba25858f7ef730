"""READING: a request head is brought together (RFC 9293, 3.10.7.4, for a receiver that has sent nothing).

Octets are not acknowledged while that can be avoided: what the client was not told arrived, it repeats by itself. Only
when a head stays incomplete for `ack_delay`, or something was lost, is it acknowledged, and from then on the front end
owns those octets.

Deviation: the server gets a head that came in several segments as one, with the earliest timestamp that was not
acknowledged, and echoes that; a host that acknowledged each segment would echo the last. RFC 7323, 4.3 allows both.

Deviation: while a head is read the window's right edge stays where it was. When the server has the head, at once and
in fewer pieces, the window is the server's own, and larger than one that opened bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, TypeAlias

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Reply
from tcpha.fe.answerer import Answerer
from tcpha.fe.assembly import Assembly
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import READING, Flow, Pending, newer_tsval
from tcpha.fe.handover import Handover
from tcpha.flowtable import FlowTable
from tcpha.proto.cookie import Cookie
from tcpha.proto.inspect import NEED_MORE, Cause, FirstOctets, Inspected, NeedMore, Protocol, Refusal
from tcpha.proto.inspect.first import inspect, is_cut_off, suspected
from tcpha.proto.ip import KEY_OCTETS_IPV6
from tcpha.proto.options import ALIGNED_TIMESTAMPS_OCTETS, MAX_OPTIONS_OCTETS, encode_sack, encode_timestamps
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_le, seq_lt
from tcpha.proto.tcp import ACK, FIN, RST, Segment, encode_segment

_NOTHING: tuple[Action, ...] = ()
_OCTETS: Final = Protocol.OCTETS  # to fetch a member from its class costs as much as a call
_TOO_MANY = "more than max_reading were being read"
Found: TypeAlias = Inspected | NeedMore | Refusal
"""What an inspector says of the first octets."""


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
        self._serves_octets = handover.serves_octets
        self._plain_ports = frozenset(port.to_bytes(2, "big") for port in config.vport if handover.takes_octets(port))
        """As they stand at the end of a key."""
        self._promise = promise
        self._table = table
        self._handover = handover
        self._answerer = answerer
        self._counters = counters
        self._inspect_octets = config.inspect_octets
        self._inspect_time_s = config.inspect_time
        self.room_octets = max(config.window, 2 * config.inspect_octets)
        """So many octets of a connection are kept. A head may be longer than the window, which moves on then."""
        self._reading: dict[Flow, None] = {}  # in the order in which they began

    def take_in(self, cookie: Cookie, segment: Segment, now: float) -> Pending:
        """Return what a connection begins with. Raises: OptionError."""
        octets, fin, room = segment.payload, bool(segment.flags & FIN), self.room_octets
        if len(octets) > room:
            octets, fin = octets[:room], False
        stamps, start = segment.timestamps, segment.seg_seq
        tsval = stamps[0] if stamps else 0
        return Pending(
            cookie, Assembly(start, room, octets, fin), acknowledged=start, told=start, covered=start,
            tsval_client=tsval, tsval_recent=tsval, window=segment.seg_wnd, give_up_at=now + self._inspect_time_s,
        )  # fmt: skip

    def begin(self, flow: Flow, pending: Pending, found: Found | None, now: float) -> Sequence[Action]:
        """Read a new flow, which is in the table; `found`: what its octets are, if somebody has looked into them."""
        flow.pending = pending
        actions = self._inspect(flow, pending, now, found)
        if flow.state is READING:
            self._reading[flow] = None
            return [*actions, *self._evict(now)]
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
        _renew_timestamp(pending, segment)
        pending.window = segment.seg_wnd
        if not segment.seg_len and segment.seg_seq == expected:
            return _NOTHING
        if not pending.assembly.add(segment.seg_seq, segment.payload, bool(segment.flags & FIN)):
            if pending.assembly.has_more:  # the client must learn at once what is missing (RFC 5681, 4.2)
                self._own(flow, pending)
                blocks = pending.assembly.blocks()
                if blocks and pending.cookie.agreement.sack:
                    pending.told = _later(pending.told, blocks[-1][1])
            return (self._acknowledgement(flow, pending, self._sack(pending, segment)),)
        return self._inspect(flow, pending, now)

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """Time to acknowledge, or to decide with what there is."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if now >= pending.give_up_at:
            return self._give_up(flow, pending, now)
        self._own(flow, pending)
        return (self._acknowledgement(flow, pending),)

    def forget(self, flow: Flow) -> None:
        """The flow is no longer being read."""
        self._reading.pop(flow, None)

    def _inspect(self, flow: Flow, pending: Pending, now: float, found: Found | None = None) -> Sequence[Action]:
        assembly = pending.assembly
        octets, limit, plain_ports = assembly.octets, self._inspect_octets, self._plain_ports
        if not octets:
            return self._wait(flow, pending, now)  # a FIN alone, or octets behind a gap
        if found is None:
            plain = bool(plain_ports) and flow.key[-2:] in plain_ports
            found = inspect(octets, limit, raw=self._serves_octets, plain=plain)
        if isinstance(found, Inspected):
            pending.request = found
            final = found.protocol is not _OCTETS or assembly.fin or len(octets) >= limit
            if not final and self._handover.is_undecided(flow, pending, found):
                return self._wait(flow, pending, now)
            return self._hand_over(flow, pending, now)
        if self._is_claimed(flow, pending, final=assembly.fin if found is NEED_MORE else is_cut_off(found)):
            return self._hand_over(flow, pending, now)
        if found is NEED_MORE:
            return self._wait(flow, pending, now)
        self.forget(flow)
        return self._answerer.refuse_unread(flow, found.protocol, found.cause, now, found.code, found.reason)

    def _is_claimed(self, flow: Flow, pending: Pending, *, final: bool) -> bool:
        """Do rules want octets as they are, though they look like a protocol that is read? `final`: all have come."""
        octets = pending.assembly.octets
        if not self._serves_octets or not octets:
            return False
        as_they_are = FirstOctets(octets[: self._config.inspect_octets])
        if not self._handover.claims_octets(flow, pending, as_they_are, final=final):
            return False
        pending.request = as_they_are
        return True

    def _wait(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        """Nothing can be decided yet; behind a FIN nothing more comes."""
        if pending.assembly.fin:
            self.forget(flow)
            return self._answerer.close(flow, now)
        if pending.ack_at == inf:
            pending.ack_at = now + self._config.ack_delay
        self._table.deadlines.set(flow, min(pending.ack_at, pending.give_up_at))
        return _NOTHING

    def _hand_over(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        self.forget(flow)
        self._counters.requests += 1
        pending.tsval_client = pending.tsval_recent
        return self._handover.begin(flow, pending, now)

    def _give_up(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        """The time is up. Octets of an unknown protocol have no end to wait for: what there is decides."""
        if pending.request is not None or self._is_claimed(flow, pending, final=True):
            return self._hand_over(flow, pending, now)
        self._counters.timed_out += 1
        self.forget(flow)
        return self._time_out(flow, pending, now)

    def _time_out(self, flow: Flow, pending: Pending, now: float, reason: str = "") -> Sequence[Action]:
        octets = pending.assembly.octets
        protocol = suspected(octets, self._config.inspect_octets) if octets else Protocol.OCTETS
        return self._answerer.refuse_unread(flow, protocol, Cause.TIMED_OUT, now, reason=reason)

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

    def _own(self, flow: Flow, pending: Pending) -> None:
        """What is in order is about to be acknowledged: from now on it is ours to bring to a back end."""
        pending.ack_at = inf
        pending.acknowledged = pending.assembly.rcv_nxt
        pending.told = _later(pending.told, pending.acknowledged)
        self._table.deadlines.set(flow, pending.give_up_at)

    def _acknowledgement(self, flow: Flow, pending: Pending, sack: bytes = b"") -> Reply:
        """Say how far the client's octets are acknowledged (this itself acknowledges nothing new)."""
        cookie = pending.cookie
        stamps = b"" if cookie.tsval is None else encode_timestamps(cookie.tsval, pending.tsval_recent)
        offered = self._promise.offered(self._config.window, len(flow.key) == KEY_OCTETS_IPV6, cookie.tsval is not None)
        room = self.room_octets - seq_diff(pending.acknowledged, pending.assembly.start)
        window = self._promise.window_field(min(room, offered), cookie.agreement.window_scale is not None)
        seq = seq_add(flow.identity.iss, 1)
        return Reply(encode_segment(flow.leaving_key, seq, pending.acknowledged, ACK, window, stamps + sack))

    @staticmethod
    def _sack(pending: Pending, segment: Segment) -> bytes:
        """Return a SACK option: first the segment's own block, or what came twice (RFC 2018, 4; RFC 2883)."""
        if not pending.cookie.agreement.sack:
            return b""
        first, end = segment.seg_seq, seq_add(segment.seg_seq, segment.payload_octets)
        blocks = pending.assembly.blocks()
        own = [block for block in blocks if seq_le(block[0], first) and seq_le(end, block[1])]
        if seq_lt(first, end) and seq_le(end, pending.acknowledged):
            own = [(first, end)]
        blocks = own + [block for block in blocks if block not in own]
        stamps_octets = 0 if pending.cookie.tsval is None else ALIGNED_TIMESTAMPS_OCTETS
        return encode_sack(blocks, MAX_OPTIONS_OCTETS - stamps_octets)

    def _evict(self, now: float) -> Sequence[Action]:
        """Too many unfinished heads: the oldest goes, so that slow clients cannot shut out the others."""
        if len(self._reading) <= self._config.max_reading:
            return _NOTHING
        oldest = next(iter(self._reading))
        self._counters.evicted += 1
        if oldest.pending is not None and (
            oldest.pending.request is not None or self._is_claimed(oldest, oldest.pending, final=True)
        ):
            self._answerer.refusals.add(f"decided early, {_TOO_MANY}", oldest.key)
            return self._hand_over(oldest, oldest.pending, now)
        self.forget(oldest)
        return _NOTHING if oldest.pending is None else self._time_out(oldest, oldest.pending, now, _TOO_MANY)


def _later(one: SeqNum, other: SeqNum) -> SeqNum:
    return other if seq_lt(one, other) else one


def _renew_timestamp(pending: Pending, segment: Segment) -> None:
    """Renew TS.Recent, never by an old segment nor by one behind a gap (RFC 7323, 4.3 and 5.3). Raises: OptionError."""
    tsval = newer_tsval(pending, segment)
    first, expected = segment.seg_seq, pending.acknowledged
    is_next = seq_le(first, expected) and seq_le(expected, seq_add(first, segment.seg_len))
    if tsval is not None and is_next:
        pending.tsval_recent = tsval
