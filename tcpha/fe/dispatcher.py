"""The front end's core: segments, messages and times in, actions out (TCP handoff as in TCPHA, Wang 2004).

Pure: no clock, socket, file or randomness. `on_*(value, now)` returns what is to be done; `now` is a monotonic clock
in seconds, UTC comes by `on_utc` and serves the cookies alone.

A connection costs nothing before its request: `Handshake` answers from the cookie. From the request on it is a `Flow`:

    READING -> HANDING -> FORWARDED -> FINISHED        READING | HANDING -> ANSWERED -> FINISHED

`first_segment` decides at once about a request that is whole in one segment. Of any other `reader` brings the request
together, and `handover` gives the connection to a back end; `answerer` speaks where no back end can, `enquirer` asks
whose a connection is. This file decides which of them a segment concerns.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, LeaveToHost, Note, Reply, Send
from tcpha.fe.answerer import Answerer
from tcpha.fe.backends import Backends
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.enquirer import Enquirer
from tcpha.fe.enquiries import Enquiries
from tcpha.fe.first_segment import FirstSegments
from tcpha.fe.flows import ANSWERED, FINISHED, FORWARDED, HANDING, READING, Flow, identity_of, reset_of
from tcpha.fe.handover import Handover
from tcpha.fe.handshake import Handshake, is_first, reset
from tcpha.fe.reader import Found, Reader
from tcpha.flowtable import FlowTable
from tcpha.proto.cookie import Cookie, SynCookies
from tcpha.proto.handoff import by_message
from tcpha.proto.icmp import IcmpError
from tcpha.proto.inspect import Inspected
from tcpha.proto.ip import reverse_key
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Identity, Message, Refused, Status
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment
from tcpha.proto.tunnel import overhead_octets
from tcpha.rules import Endpoint, RuleSet

SWEEP_INTERVAL_S = 1.0

_NOTHING: tuple[Action, ...] = ()
_LEAVE_TO_HOST: tuple[Action, ...] = (LeaveToHost(),)


class Dispatcher:
    """One front end's decisions."""

    def __init__(self, config: FrontEndConfig, cookies: SynCookies, rules: RuleSet, mtu_octets: int) -> None:
        """`mtu_octets`: what fits into one packet on the way to the back ends, a tunnel's own header included."""
        self.counters = FrontEndCounters()
        promise = Promise(config.mss, config.window_scale, config.sack, config.timestamps)
        self.backends = Backends(config.server, promise, config.digest())
        self.table: FlowTable[Flow] = FlowTable(config.max_flows, config.max_finished, config.finished_time)
        self._cookies = cookies
        overhead = overhead_octets(config.raddr.version) if config.forward == "tunnel" else 0
        self.carried_octets = mtu_octets - overhead
        """The largest packet of a client's that fits."""
        self.promise = promise.fitted(self.carried_octets)
        """What SYN-ACKs say."""
        self._handshake = Handshake(cookies, self.promise, config.window)
        self._enquiries = Enquiries(config.max_queries, config.query_rate)
        self._next_sweep = 0.0
        self._stopping = False
        self._answerer = Answerer(self.table, self.counters, config.window_scale)
        self._handover = Handover(
            config, rules, self.table, self.backends, self._answerer, self.counters, mtu_octets, self.carried_octets
        )  # fmt: skip
        self._reader = Reader(
            config, self.promise, self.table, self._handover, self._answerer, self.counters
        )  # fmt: skip
        self._first_segments = FirstSegments(
            config, rules, self.table, self.backends, self._enquiries, self._handover, self.counters,
            self._reader.room_octets,
        )  # fmt: skip
        self._enquirer = Enquirer(
            self._enquiries, self.table, self.backends, self._handshake, self._handover, self.counters, config.idle_time
        )  # fmt: skip
        self._on_segment_in = {
            READING: self._reader.on_segment,
            HANDING: self._handover.on_segment,
            FORWARDED: self._on_segment_forwarded,
            ANSWERED: self._answerer.on_segment,
            FINISHED: self._on_segment_finished,
        }
        self._on_deadline_in = {
            READING: self._reader.on_deadline,
            HANDING: self._handover.on_deadline,
            ANSWERED: self._answerer.on_deadline,
        }

    # --- segments

    def on_segment(self, segment: Segment, now: float) -> Sequence[Action]:
        """A segment from a client. Raises: WireError for octets no host would accept."""
        flow = self.table.by_key.get(segment.key)
        if segment.flags & SYN:
            return self._on_syn(segment, flow)
        if flow is None:
            return self._on_segment_unknown(segment, now)
        if segment.flags & (ACK | RST) == ACK and (segment.seg_seq in flow.noted or flow.is_strange(segment.seg_ack)):
            cookie = self._cookie_of(segment)
            if cookie is not None and not identity_of(segment).resembles(flow.identity):
                return self._on_follower_of_syn(segment, cookie, now)
        return self._on_segment_in[flow.state](flow, segment, now)

    def on_verified(self, segment: Segment, cookie: Cookie, now: float) -> Sequence[Action]:
        """The same of a segment that carries octets or FIN, and whose cookie and checksum somebody has verified.

        Raises: OptionError.
        """
        flow, identity = self.table.by_key.get(segment.key), identity_of(segment)
        is_its_own = flow is not None and identity.resembles(flow.identity)
        if is_its_own or cookie.period <= self.table.finished.period_floor:
            return self.on_segment(segment, now)
        return self._on_first(segment, identity, cookie, flow, now)

    def _on_syn(self, segment: Segment, flow: Flow | None) -> Sequence[Action]:
        if segment.flags & (ACK | RST | FIN):
            self.counters.dropped_flags += 1
            return _NOTHING
        segment.check_checksum()
        if self._stopping:  # whoever serves next answers the repetition
            return _NOTHING
        self.counters.syns += 1
        if flow is not None:
            flow.note_syn(segment.seg_seq)
            self.table.mark_changed(flow)
        self._cookies.period_floor = self.table.finished.period_floor
        return (Reply(self._handshake.syn_ack(segment)),)

    def _on_segment_unknown(self, segment: Segment, now: float) -> Sequence[Action]:
        if segment.flags & (ACK | RST) != ACK:
            self.counters.dropped_flags += 1
            return _NOTHING
        if self._stopping:  # the RST of `on_stop` missed what was still under way to the client: this one is exact
            return (Reply(reset(segment)),)
        cookie = self._cookie_of(segment)
        if cookie is not None:
            return self._on_follower_of_syn(segment, cookie, now)
        if segment.payload_octets <= 1 and not segment.flags & FIN:
            probed = self._handshake.cookie_of_probe(segment)
            if probed is not None:
                self.counters.keepalives += 1
                return (Reply(self._handshake.acknowledge(segment, probed, seq_add(segment.seg_seq, 1))),)
        if not is_first(segment) and self._handshake.is_last_of_close(segment):
            return _NOTHING
        return self._enquirer.on_segment(segment, now)

    def _cookie_of(self, segment: Segment) -> Cookie | None:
        """Verify the cookie of a segment at IRS + 1. Raises: OptionError."""
        self._cookies.period_floor = self.table.finished.period_floor
        return self._handshake.cookie_of(segment)

    def _on_follower_of_syn(self, segment: Segment, cookie: Cookie, now: float) -> Sequence[Action]:
        """A segment at IRS + 1 with a valid cookie: the handshake's ACK, a close, or the first octets."""
        if not is_first(segment):
            self.counters.handshakes += 1
            return _NOTHING
        segment.check_checksum()
        return self._on_first(segment, identity_of(segment), cookie, self.table.by_key.get(segment.key), now)

    def _on_first(
        self, segment: Segment, identity: Identity, cookie: Cookie, known: Flow | None, now: float
    ) -> Sequence[Action]:
        """What a connection begins with; `known`: what is in the table on its ports."""
        if self._stopping:  # nobody would end it
            return (Reply(reset(segment)),)
        found = None
        if known is None or known.state is FINISHED:
            found = self._first_segments.read(segment, identity, cookie)
            if isinstance(found, Inspected) and found.head_octets >= len(found.octets):
                return self._first_segments.hand_over(segment, identity, cookie, found, known, now)
        if identity in self.table.finished:
            self.counters.late_duplicates += 1
            # It never runs again. A client that missed the end is told of it, but not where it has gone on since.
            return (Reply(reset(segment)),) if known is None or known.is_over else _NOTHING
        if segment.end == segment.payload_offset:  # closed before a request: answered from the cookie alone
            self.counters.closed_early += 1
            answer = self._handshake.acknowledge(segment, cookie, seq_add(segment.seg_seq, 1), FIN | ACK)
            return (Reply(answer),)
        flow = Flow.of(identity, cookie.period, READING, now)
        if known is not None and not known.is_over:
            return self._replace(flow, known, cookie, segment, now)
        if self.table.is_full():
            self.counters.table_full += 1
            self._answerer.refusals.add("reset (max_flows connections are held)", segment.key)
            return (Reply(reset(segment)),)
        return self._admit(flow, known, cookie, segment, now, found)

    def _replace(self, flow: Flow, old: Flow, cookie: Cookie, segment: Segment, now: float) -> Sequence[Action]:
        """The first octets of a new flow on the ports of one that lives."""
        if flow.period < old.period:
            self.counters.older_generations += 1
            return (Reply(reset(segment)),)
        actions = self._admit(flow, old, cookie, segment, now)
        return actions if old.backend is None else [Send(old.backend, Closed((old.identity,))), *actions]

    def _admit(
        self, flow: Flow, old: Flow | None, cookie: Cookie, segment: Segment, now: float, found: Found | None = None
    ) -> Sequence[Action]:
        """There is room for it; `old`: which it takes the place of; `found`: what was read of it already."""
        pending = self._reader.take_in(cookie, segment, now)
        if cookie.tsval is None:
            self.counters.short_cookies += 1
        if old is not None:
            self.counters.ports_reused += 1
            self._reader.forget(old)
        self._enquiries.close(flow.key)
        self.table.insert(flow, now)
        return self._reader.begin(flow, pending, found, now)

    def _on_segment_forwarded(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        flow.last_seen = now
        if segment.flags & ACK:
            flow.last_ack = segment.seg_ack
        self.counters.forwarded += 1
        return flow.pass_on

    def _on_segment_finished(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        if segment.end > segment.payload_offset and segment.flags & (ACK | RST) == ACK:
            cookie = self._cookie_of(segment)
            if cookie is not None and not identity_of(segment).resembles(flow.identity):
                return self._on_follower_of_syn(segment, cookie, now)
        if flow.backend is None:
            return self._answerer.on_late_segment(flow, segment)
        self.counters.forwarded += 1
        return flow.pass_on

    def on_icmp_error(self, error: IcmpError, now: float) -> Sequence[Action]:
        """An ICMP error about a packet that left for a client: the back end that sent it must hear of it.

        It moves no deadline and proves nothing: anybody may have sent it. The host's TCP at the back end judges it.
        """
        flow = self.table.by_key.get(reverse_key(error.key))
        if flow is None or not flow.pass_on:
            return _LEAVE_TO_HOST
        self.counters.icmp_errors += 1
        return flow.pass_on

    # --- messages from back ends

    def on_message(self, backend: Endpoint, message: Message, now: float) -> Sequence[Action]:
        """A message from a back end, already known to be authentic and fresh."""
        match message:
            case Adopted():
                return self._handover.on_adopted(backend, message, now)
            case Refused():
                return self._handover.on_refused(backend, message, now)
            case Closed():
                self._on_closed(backend, message, now)
                return _NOTHING
            case Flows():
                # While it stops what has just been ended would be a connection again, from before a restart.
                return self._enquirer.on_flows(backend, message, now, may_learn=not self._stopping)
            case _:
                self.counters.unexpected_messages += 1
                return _NOTHING

    def _on_closed(self, backend: Endpoint, message: Closed, now: float) -> None:
        by_key = self.table.by_key
        ended = [
            flow
            for identity in message.identities
            if (flow := by_key.get(identity.key)) is not None and (flow.identity, flow.backend) == (identity, backend)
        ]
        count = self.table.finish_all(ended, now)  # what is told again counts no more
        self.counters.closed += count
        self.backends.discount(backend, count)

    def on_status(self, backend: Endpoint, status: Status, restarted: bool, now: float) -> Sequence[Action]:
        """A STATUS that is to be believed; `restarted`: from another process than before."""
        actions: list[Action] = []
        first = self.backends.all[backend].status is None
        if restarted:
            for flow in list(self.table.by_key.values()):
                if flow.backend == backend and not flow.is_over:
                    actions += self._handover.on_restarted(flow, now)
            actions.append(Note(f"be {backend.addr} restarted"))
        if first or restarted:
            actions.append(Send(backend, FlowsQuery(())))
        actions += self.backends.on_status(backend, status, now)
        return actions

    def on_lost(self, backend: Endpoint, now: float) -> Sequence[Action]:
        """A back end has been silent for too long."""
        return self.backends.on_lost(backend)

    # --- time

    def on_utc(self, utc_s: float, now: float) -> None:
        """UTC in seconds, told at least once a second; cookies are made and judged by it."""
        self._handshake.utc_s = utc_s
        self.table.utc_s = utc_s

    def on_timer(self, now: float) -> Sequence[Action]:
        """Do what is due."""
        actions = self.table.wake(now, self._on_deadline, self._on_fault)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL_S
            self.table.on_timer(now)
            actions += self.backends.on_timer(now)
            actions += self._answerer.refusals.on_timer(now)
            actions += self._handover.on_timer(now)
            actions += self._enquirer.on_timer(now)
        return actions

    def _on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        return self._on_deadline_in[flow.state](flow, now)

    def _on_fault(self, flow: Flow, now: float) -> Sequence[Action]:
        """A flow was forgotten because of a defect. A back end that has it is found again by its next packet."""
        self._reader.forget(flow)
        if flow.backend is not None:
            return _NOTHING
        return (reset_of(flow),)

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called."""
        return min(self.table.deadlines.next(), self._next_sweep)

    def on_stop(self, now: float) -> Sequence[Action]:
        """The front end goes: end what it carries, so that neither clients nor servers wait for nothing."""
        told = self.end_at_backends()
        return [*self.end_at_clients(), *told]

    def end_at_backends(self) -> Sequence[Action]:
        """Half of it, alone where packets are carried past this process: the back ends are told. Nothing new begins."""
        self._stopping = True
        ended: dict[Endpoint, list[Identity]] = {}
        for flow in self.table.by_key.values():
            if flow.backend is not None and not flow.is_over:
                ended.setdefault(flow.backend, []).append(flow.identity)
        return [Send(backend, Closed(each)) for backend, identities in ended.items() for each in by_message(identities)]

    def end_at_clients(self) -> Sequence[Action]:
        """The other half, once every packet comes here: an RST whose number the client has left behind tells nobody."""
        actions: list[Action] = []
        for flow in list(self.table.by_key.values()):
            if flow.is_over:
                continue
            self.table.refresh(flow)
            actions.append(reset_of(flow))
            self._reader.forget(flow)
            self.table.remove(flow)
        return actions
