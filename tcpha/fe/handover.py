"""HANDING: the connection is given to a back end, repeated until it confirms, or given to the next.

The request octets travel in the HANDOFF as far as they fit into one unfragmented datagram; the rest follows as TCP
segments on the path that the flow's packets take from now on. What the client was told arrived, by ACK or SACK, is
repeated until the server's own acknowledgement covers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Forward, Note, Reply, Send
from tcpha.fe.answerer import Answerer, echoes_earlier_server, echoes_server
from tcpha.fe.backends import Backends
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import FORWARDED, HANDING, PROOF_OCTETS, Flow, Pending, acknowledges_server, newer_tsval, reset_of
from tcpha.flowtable import FlowTable
from tcpha.proto.handoff import ACKNOWLEDGED_TLV_OCTETS, HEADER_OCTETS_IPV4, HEADER_OCTETS_IPV6
from tcpha.proto.inspect import Cause, Inspected
from tcpha.proto.ip import (
    IPV4_HEADER_OCTETS,
    IPV6_HEADER_OCTETS,
    KEY_OCTETS_IPV6,
    ConnectionKey,
)
from tcpha.proto.messages import Adopted, Closed, Handoff, Refused
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_le, seq_lt
from tcpha.proto.tcp import ACK, FIN, PSH, RST, TCP_HEADER_OCTETS, Segment, encode_segment
from tcpha.rules import Choice, Connection, Endpoint, NoChoice, Patience, RuleSet

UDP_HEADER_OCTETS = 8
MAX_REPEATS_PROVEN = 8
"""Repeats for a back end that has adopted, while its server has not acknowledged all that the client was told."""
LOOK_AGAIN_S = 0.05
"""A request for which no back end is heard of yet is tried again after this."""
SLOW_NOTE_INTERVAL_S = 10.0
"""Patterns that take too long are told no more often."""

_NOTHING: tuple[Action, ...] = ()


class Handover:
    """Flows on their way to a back end."""

    def __init__(
        self,
        config: FrontEndConfig,
        rules: RuleSet,
        table: FlowTable[Flow],
        backends: Backends,
        answerer: Answerer,
        counters: FrontEndCounters,
        mtu_octets: int,
        carried_octets: int,
    ) -> None:
        """`mtu_octets`, `carried_octets`: of the largest datagram, and of the largest packet of a client's."""
        self._config = config
        self._rules = rules
        self._table = table
        self._backends = backends
        self._answerer = answerer
        self._counters = counters
        self._mtu_octets = mtu_octets
        self._carried_octets = carried_octets
        self._promised_scale = config.window_scale
        self.first_wait_s = config.handoff_repeat if config.handoff_repeats else config.handoff_wait
        """How long the confirmation of a HANDOFF that was sent once may take."""
        self._tell_slow_at = -inf

    def on_segment(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """The back end already gets everything; it holds what comes too early. Raises: ChecksumError, OptionError."""
        if flow.backend is None:  # the client repeats it
            return _NOTHING
        pending = flow.pending
        if pending is not None:
            if segment.end > segment.payload_offset:
                self._note_octets(pending, segment)
            if pending.follows:
                self._renew_timestamp(pending, segment)
            if self._proves(flow, pending, segment):
                segment.check_checksum()
                if pending.silent and not flow.proven:
                    pending.heard = segment.seg_ack
                    if echoes_earlier_server(pending, segment, now):
                        return self._part(flow, pending, pending.heard, now)
                else:
                    self._on_proof(flow, pending, now)
            if segment.flags & ACK and segment.seg_ack != flow.last_ack and _is_near(pending, segment):
                segment.check_checksum()
                flow.last_ack = segment.seg_ack
        flow.last_seen = now
        self._counters.forwarded += 1
        return flow.pass_on

    def on_adopted(self, backend: Endpoint, message: Adopted, now: float) -> Sequence[Action]:
        """The back end has rebuilt the connection."""
        flow = self._table.by_key.get(message.identity.key)
        if flow is None or flow.identity != message.identity:
            return _NOTHING
        if flow.backend != backend:
            return (Send(backend, Closed((message.identity,))),)  # it woke up after we gave it up
        pending = flow.pending
        if pending is None:
            return _NOTHING
        self._counters.adopted += 1
        if seq_lt(pending.covered, message.rcv_nxt):
            pending.covered = message.rcv_nxt
        self._on_proof(flow, pending, now)
        return _NOTHING

    def on_refused(self, backend: Endpoint, message: Refused, now: float) -> Sequence[Action]:
        """The back end said no; nothing reached its server."""
        flow = self._table.by_key.get(message.identity.key)
        if flow is None or flow.identity != message.identity or flow.backend != backend:
            return _NOTHING
        pending = flow.pending
        if pending is None or flow.state is not HANDING or flow.proven:
            return _NOTHING
        self._counters.refused += 1
        self._backends.discount(backend)
        pending.tried |= {backend}
        if pending.heard is not None:
            return self._part(flow, pending, pending.heard, now)
        return self.begin(flow, pending, now)

    def on_held(self, flow: Flow, backend: Endpoint, now: float) -> None:
        """The back end says that it has the connection.

        That confirms its HANDOFF. A request that waits for any back end is one that a front end before has handed over.
        """
        pending = flow.pending
        if flow.backend is None:
            flow.assign(backend)
            self._settle(flow, now)
        elif pending is not None:
            self._counters.adopted += not flow.proven
            self._on_proof(flow, pending, now)

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """No confirmation yet: repeat, or turn to the next. No back end yet: look again."""
        pending = flow.pending
        if pending is None:
            return _NOTHING
        if flow.backend is None:
            return self.begin(flow, pending, now)
        if not flow.proven and not pending.silent and self._is_proven_past_us(flow):
            self._on_proof(flow, pending, now)
            if flow.state is FORWARDED:
                return _NOTHING
        if pending.repeats < (MAX_REPEATS_PROVEN if flow.proven else self._config.handoff_repeats):
            pending.repeats += 1
            self._counters.repeats += 1
            self._table.mark_changed(flow)
            self._table.deadlines.set(flow, now + self._wait_s(flow, pending))
            return self._packets(flow, pending, flow.backend)
        if flow.proven:
            return self._abandon_proven(flow, pending, now)
        return self._turn_away(flow, pending, flow.backend, now)

    def on_restarted(self, flow: Flow, now: float) -> Sequence[Action]:
        """The back end's process is another one.

        What it had adopted may live on in its kernel: it is asked. What it had not confirmed may have run (RFC 9110,
        9.2.2): nobody else may run it as long as it may live there. Where we owe octets the process before was in
        charge of them.
        """
        pending, backend = flow.pending, flow.backend
        if flow.state is HANDING and not flow.proven and pending is not None and backend is not None:
            if not _may_run_again(pending):
                return self._give_up(flow, pending, backend, now)
            pending.repeats = 0
            self._table.mark_changed(flow)
            self._table.deadlines.set_in_turn(flow, now + self.first_wait_s)
            return self._packets(flow, pending, backend)
        if flow.state is FORWARDED:
            flow.retained = flow.orphaned = True
            return _NOTHING
        return self.on_orphaned(flow, now)

    def on_orphaned(self, flow: Flow, now: float) -> Sequence[Action]:
        """The back end's process is another one, and has not got the connection: it is lost, and the client is told."""
        self._table.refresh(flow)
        self._table.remember(flow, now)
        self._table.remove(flow)
        self._counters.orphaned += 1
        return (reset_of(flow),)

    def begin(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        """Choose a back end for a complete request, none of those already tried, and hand over."""
        request = pending.request
        if request is None:
            return _NOTHING
        key, rules, backends = flow.key, self._rules, self._backends
        excluded = backends.excluded(key)
        if pending.tried:
            excluded |= {each.addr for each in pending.tried}
        connection = connection_of(key) if rules.looks_at_connection else None
        choice = rules.choose(request, connection, excluded, load=backends.load, patience=self._patience(pending))
        if not isinstance(choice, Choice):
            return self.wait_or_refuse(flow, choice, now)
        server, assembly = choice.server, pending.assembly
        backends.count(server)
        if assembly.has_more or _goes_on(request, len(assembly.octets)):
            pending.has_more = True
        self._counters.handoffs += 1
        flow.assign(server)
        flow.state = HANDING
        self._table.mark_changed(flow)
        pending.repeats = 0
        self._table.deadlines.set_in_turn(flow, now + self.first_wait_s)
        return self._packets(flow, pending, server)

    def wait_or_refuse(self, flow: Flow, why: NoChoice, now: float) -> Sequence[Action]:
        """No back end was chosen: one may soon be heard of, or the client is told."""
        if why is NoChoice.UNAVAILABLE and flow.backend is None and self._backends.may_soon_serve(now):
            flow.state = HANDING
            self._table.deadlines.set(flow, now + LOOK_AGAIN_S)
            return _NOTHING
        self._counters.no_choice += 1
        cause = Cause.UNAVAILABLE if why is NoChoice.UNAVAILABLE else Cause.UNROUTED
        return self._answerer.refuse(flow, cause, now)

    @property
    def least_room_octets(self) -> int:
        """So many octets of a request have room in any HANDOFF."""
        return min(self._room(backend, ipv6=True, owned=True) for backend in self._backends.all)

    @property
    def serves_octets(self) -> bool:
        """Is any rule for protocols that nobody here knows?"""
        return self._rules.needs_octets

    def takes_octets(self, port: int) -> bool:
        """Are connections to a virtual port octets, whatever protocol they look like?"""
        return self._rules.takes_octets(port)

    def is_undecided(self, flow: Flow, pending: Pending, found: Inspected) -> bool:
        """May more octets of an unknown protocol still change what the rules choose?"""
        return self._rules.is_undecided(found, connection_of(flow.key), self._patience(pending))

    def claims_octets(self, flow: Flow, pending: Pending, octets: Inspected, *, final: bool) -> bool:
        """Are octets that are no complete request a rule's? `final`: no more of them are waited for."""
        return self._rules.claims_octets(octets, connection_of(flow.key), self._patience(pending), final=final)

    def _patience(self, pending: Pending) -> Patience:
        if pending.patience is None:
            pending.patience = self._rules.patience()
        return pending.patience

    def on_timer(self, now: float) -> Sequence[Action]:
        """Tell, seldom, of a pattern that takes too long."""
        if now < self._tell_slow_at:
            return _NOTHING
        rule = self._rules.take_slow()
        if rule is None:
            return _NOTHING
        self._tell_slow_at = now + SLOW_NOTE_INTERVAL_S
        where = f"line {rule.line}, rule" if rule.line else "rule"
        text = f"{where} '{rule.when[:60]}': a match took longer than match_time and was given up"
        return (Note("".join(each if each.isprintable() else "?" for each in text), needs_care=True),)

    def _note_octets(self, pending: Pending, segment: Segment) -> None:
        """The client goes on behind its first request before the back end has confirmed."""
        end = seq_add(segment.seg_seq, segment.payload_octets)
        if pending.request is not None and _goes_on(pending.request, seq_diff(end, pending.assembly.start)):
            pending.has_more = True

    def _renew_timestamp(self, pending: Pending, segment: Segment) -> None:
        """Note the client's latest TSval: with one from before, the server would refuse what we repeat (RFC 7323, 5.3).

        Unlike TS.Recent it may be that of a segment behind a gap: what echoes it now is at most an answer of ours.
        """
        tsval = newer_tsval(pending, segment)
        if tsval is not None and 0 <= seq_diff(segment.seg_seq, pending.assembly.start) <= self._config.window:
            segment.check_checksum()
            pending.tsval_recent = tsval

    def _wait_s(self, flow: Flow, pending: Pending) -> float:
        """Return how long a confirmation of what was repeated may take."""
        is_last = pending.repeats >= self._config.handoff_repeats and not flow.proven
        return self._config.handoff_wait if is_last else self._config.handoff_repeat * (1 << pending.repeats)

    def _proves(self, flow: Flow, pending: Pending, segment: Segment) -> bool:
        """Does the client acknowledge octets of the server, or echo its clock? Raises: OptionError.

        Its own octets must lie where a stranger's hardly would.
        """
        if not segment.flags & ACK:
            return False
        if acknowledges_server(flow.identity, segment.seg_ack):
            return 0 <= seq_diff(segment.seg_seq, pending.assembly.start) <= self._config.window
        return echoes_server(pending, segment)

    def _is_proven_past_us(self, flow: Flow) -> bool:
        """Did the client acknowledge octets of the server in packets that somebody else carried?

        As here, it counts there only with a number and a checksum that a stranger's hardly has.
        """
        before = flow.last_ack
        self._table.refresh(flow)
        return flow.last_ack != before and acknowledges_server(flow.identity, flow.last_ack)

    def _on_proof(self, flow: Flow, pending: Pending, now: float) -> None:
        """The back end has adopted. That is all, unless we owe it octets."""
        flow.proven = True
        if seq_le(pending.told, pending.covered):
            self._settle(flow, now)

    def _settle(self, flow: Flow, now: float) -> None:
        flow.state = FORWARDED
        flow.pending = None
        flow.last_seen = now
        self._table.mark_changed(flow)
        self._table.deadlines.clear(flow)

    def _turn_away(self, flow: Flow, pending: Pending, backend: Endpoint, now: float) -> Sequence[Action]:
        """A silent back end: it may have given the request to its server, so only RFC 9110's 9.2.2 allows another."""
        self._counters.silent += 1
        self._backends.discount(backend)
        pending.tried |= {backend}
        if pending.heard is not None or not _may_run_again(pending):
            return self._give_up(flow, pending, backend, now)
        pending.silent += (backend,)
        pending.turned_at = now
        return [Send(backend, Closed((flow.identity,))), *self.begin(flow, pending, now)]

    def _give_up(self, flow: Flow, pending: Pending, backend: Endpoint, now: float) -> Sequence[Action]:
        """Nobody else may have the request: the client is told, by an answer if it has heard no server."""
        if pending.heard is not None:
            return self._part(flow, pending, pending.heard, now)
        return [Send(backend, Closed((flow.identity,))), *self._answerer.refuse(flow, Cause.UNAVAILABLE, now)]

    def _part(self, flow: Flow, pending: Pending, heard: SeqNum, now: float) -> Sequence[Action]:
        """The client has heard a server, and not that of the present back end: nothing else may be said to it.

        It is reset. Whoever was given the connection is told (again) that it is over.
        """
        given = pending.silent if flow.backend is None else (*pending.silent, flow.backend)
        self._counters.orphaned += 1
        self._table.remember(flow, now)
        self._table.remove(flow)
        reset = encode_segment(flow.leaving_key, heard, SeqNum(0), RST, 0)
        return [Reply(reset), *[Send(each, Closed((flow.identity,))) for each in given]]

    def _abandon_proven(self, flow: Flow, pending: Pending, now: float) -> Sequence[Action]:
        """The back end has the connection. Octets that we acknowledged but could not deliver make it worthless.

        Of what it was only told by SACK the client repeats what the server does not acknowledge (RFC 2018, 8).
        """
        if seq_le(pending.acknowledged, pending.covered):
            self._settle(flow, now)
            return _NOTHING
        self._counters.orphaned += 1
        actions: list[Action] = [
            Reply(encode_segment(flow.leaving_key, seq_add(flow.identity.iss, 1), pending.acknowledged, RST | ACK, 0))
        ]
        if flow.backend is not None:
            actions.append(Send(flow.backend, Closed((flow.identity,))))
        self._table.finish(flow, now)
        return actions

    def _packets(self, flow: Flow, pending: Pending, backend: Endpoint) -> list[Action]:
        """The HANDOFF and, as segments, what does not fit into it."""
        assembly, cookie, identity, told = pending.assembly, pending.cookie, flow.identity, pending.told
        octets, agreement = assembly.octets, cookie.agreement
        scale = None if agreement.window_scale is None else self._promised_scale
        owned = told != assembly.start
        room = self._room(backend, len(identity.key) == KEY_OCTETS_IPV6, owned)
        message = Handoff(
            identity,
            agreement,
            scale,
            pending.window,
            cookie.period,
            cookie.tsval,
            pending.tsval_client,
            confirm=True,
            acknowledged=told if owned else None,
            octets=octets[:room],
        )
        actions: list[Action] = [Send(backend, message)]
        if len(octets) <= room and not assembly.has_more:
            return actions
        pending.follows = True
        for seq, piece, flags in self._followers(flow, pending, min(room, len(octets))):
            actions.append(Forward(backend, self._client_segment(flow, pending, seq, piece, flags)))
        return actions

    def _followers(self, flow: Flow, pending: Pending, sent: int) -> list[tuple[SeqNum, bytes, int]]:
        assembly = pending.assembly
        overhead = (IPV6_HEADER_OCTETS if len(flow.key) == KEY_OCTETS_IPV6 else IPV4_HEADER_OCTETS) + TCP_HEADER_OCTETS
        size = self._carried_octets - overhead - (0 if pending.cookie.tsval is None else 12)
        pieces = _cut(seq_add(assembly.start, sent), assembly.octets[sent:], size)
        if assembly.fin:
            pieces.append((seq_add(assembly.start, len(assembly.octets)), b"", ACK | FIN))
        for seq, piece, fin in assembly.early_pieces():
            pieces += _cut(seq, piece, size)
            if fin:
                pieces.append((seq_add(seq, len(piece)), b"", ACK | FIN))
        return pieces

    @staticmethod
    def _client_segment(flow: Flow, pending: Pending, seq: SeqNum, piece: bytes, flags: int) -> bytes:
        tsval = pending.cookie.tsval
        options = b"" if tsval is None else encode_timestamps(pending.tsval_recent, tsval)
        return encode_segment(flow.key, seq, seq_add(flow.identity.iss, 1), flags, pending.window, options, piece)

    def _room(self, backend: Endpoint, ipv6: bool, owned: bool) -> int:
        outer = IPV6_HEADER_OCTETS if backend.addr.version == 6 else IPV4_HEADER_OCTETS
        header = HEADER_OCTETS_IPV6 if ipv6 else HEADER_OCTETS_IPV4
        return self._mtu_octets - outer - UDP_HEADER_OCTETS - header - (ACKNOWLEDGED_TLV_OCTETS if owned else 0)


def connection_of(key: ConnectionKey) -> Connection:
    """Return what rules may look at besides octets."""
    return Connection(key[: (len(key) - 4) >> 1], int.from_bytes(key[-2:], "big"))


def _goes_on(request: Inspected, octets: int) -> bool:
    """Do so many octets reach beyond the first request? Most often there is nothing behind its head to look into."""
    return octets > request.head_octets and octets > request.end_octets


def _may_run_again(pending: Pending) -> bool:
    """May what a silent back end was given run elsewhere (RFC 9110, 9.2.2)? What followed it was not even looked at."""
    return pending.request is not None and pending.request.idempotent and not pending.has_more


def _is_near(pending: Pending, segment: Segment) -> bool:
    """Does the segment begin where the client's octets may be? A stranger's hardly does."""
    return 0 <= seq_diff(segment.seg_seq, pending.assembly.start) <= PROOF_OCTETS


def _cut(seq: SeqNum, octets: bytes, size: int) -> list[tuple[SeqNum, bytes, int]]:
    """Cut octets that begin at `seq` into segments of at most `size`: number, octets, flags."""
    last = len(octets) - size
    return [
        (seq_add(seq, offset), octets[offset : offset + size], ACK if offset < last else ACK | PSH)
        for offset in range(0, len(octets), size)
    ]
