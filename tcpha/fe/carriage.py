"""Which connections somebody else than this process carries: the flow table and a carrier's table, kept alike.

Pure: the carrier is the kernel's program (tcpha.net.bpf_forwarder) or what a test puts in its place. The flow table is
the authority. What changed there is settled with the carrier at once:

    HANDING              carried as far as nothing is decided by it: packets with octets come here. All do once the
                         HANDOFF was repeated, or given to another back end, for then an acknowledgement of the client's
                         may be all that tells who has it; and where segments of ours follow it, for they must be as new
                         as the client's (RFC 7323)
    FORWARDED            carried: packets go to the back end and do not come here
    READING, ANSWERED    held: packets come here, SYNs are answered and noted by the carrier
    finished, gone       forgotten

Calls are saved: what a burst of segments hands over is told by one, that flows are finished is told of many. That a
back end has confirmed is told when the connection has lasted for a while, or when its next octets come. Until then its
packets find their way all the same, and most connections need but a part of one call to begin and of one to end.

What a carrier refuses costs the flow that it refuses, no other: it is tried again a little later, and counted.

A packet that comes here although its flow is carried, or should be, is the sign that the two differ: what the carrier
noted is taken over first, and a flow that it does not have is given to it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from math import inf
from typing import Protocol

from tcpha.errors import EdgeError
from tcpha.fe.flows import FINISHED, FORWARDED, HANDING, Flow, acknowledges_server
from tcpha.flowtable import FlowTable
from tcpha.kernel.fe_maps import BackEnd, Beginning
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import MASK, SeqNum, seq_lt
from tcpha.proto.tcp import Segment
from tcpha.rules import Endpoint

OVER_AT_ONCE = 256
LATER_S = 0.1
"""What has time is done when it is so old; what is over also when it is so much."""
OVER_AT_MOST = 1 << 14
"""So much of what a carrier has refused to forget is told once more, the last that is over: it may refuse for ever."""


class Known(Protocol):
    """What a carrier knows of a connection."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def period(self) -> int:
        """The period of its cookie."""

    @property
    def last_ack(self) -> SeqNum:
        """As `Flow.last_ack`: before the back end has confirmed, of segments alone that are surely the client's."""

    @property
    def last_seen_s(self) -> float:
        """As `Flow.last_seen`."""

    @property
    def noted(self) -> tuple[SeqNum, ...]:
        """As `Flow.noted`."""

    @property
    def is_confirmed(self) -> bool:
        """Are all its packets forwarded?"""

    @property
    def is_doubted(self) -> bool:
        """Do they come here all the same, because a new connection may have begun on its ports?"""


class Carrier(Protocol):
    """Who carries. Every call may raise EdgeError."""

    def carry(
        self, identity: Identity, backend: BackEnd, period: int, last_ack: int, last_seen_s: float,
        noted: Sequence[int] = (), *, confirmed: bool = True,
    ) -> bool:  # fmt: skip
        """Forward the connection's packets; False: there is no room, they come here.

        Before it is `confirmed`, those with octets come here, too.
        """

    def begin_all(self, flows: Sequence[Beginning]) -> int:
        """As `carry` of each, not confirmed, by one call; return for how many, from the first on, that was done."""

    def hold_flow(
        self, identity: Identity, period: int, last_ack: int, last_seen_s: float, noted: Sequence[int] = ()
    ) -> bool:
        """Let the connection's packets come here; False: there is no room."""

    def forget_all(self, keys: Iterable[ConnectionKey]) -> int:
        """Let the packets of these connections come here; return how many were known."""

    def look_up(self, key: ConnectionKey) -> Known | None:
        """What is known of a connection."""

    def retain(self, backends: Collection[BackEnd]) -> Sequence[tuple[BackEnd, Known]]:
        """Return what an earlier process left for these back ends; the rest is forgotten."""


class _Given(Enum):
    """How a carrier has a connection."""

    WHOLLY = "wholly"
    UNCONFIRMED = "unconfirmed"
    HELD = "held"


_WHOLLY, _UNCONFIRMED, _HELD = _Given.WHOLLY, _Given.UNCONFIRMED, _Given.HELD


class Carriage:
    """The binding of one flow table to one carrier."""

    def __init__(self, table: FlowTable[Flow], servers: Iterable[Endpoint], carrier: Carrier) -> None:
        self._table = table
        self._by_key = table.by_key
        self._backend_of = {server: (server.addr.packed, server.port) for server in servers}
        self._carrier = carrier
        self._given: dict[ConnectionKey, _Given] = {}
        self._over: dict[ConnectionKey, None] = {}
        self._over_at_once: float = OVER_AT_ONCE
        self._refused: list[ConnectionKey] = []
        self._later: dict[ConnectionKey, None] = {}
        self._later_at = inf
        self.faults = 0
        """Calls that a carrier refused."""
        self._fault: EdgeError | None = None
        table.follow(self.refresh)

    @property
    def size(self) -> int:
        """How many connections the carrier has, some that are over among them."""
        return len(self._given)

    def take_over(self, now: float) -> int:
        """Enter the flows that an earlier process left with the carrier; return how many.

        Nobody knows whether they live still, so the back ends are asked (`Flow.retained`). Of those that were not yet
        confirmed the HANDOFF may never have left (`Flow.is_unsure`), unless the client has heard the server.
        """
        server_of = {backend: server for server, backend in self._backend_of.items()}
        beyond, to_confirm = [], []
        for backend, known in self._carrier.retain(server_of.keys()):
            key = known.identity.key
            if self._table.is_full():
                beyond.append(key)
                continue
            flow = Flow.of(known.identity, known.period, FORWARDED, known.last_seen_s)
            flow.assign(server_of[backend])
            flow.retained = True
            flow.last_ack, flow.noted = known.last_ack, known.noted
            flow.proven = known.is_confirmed or acknowledges_server(known.identity, known.last_ack)
            self._table.insert(flow, now)
            self._given[key] = _WHOLLY if known.is_confirmed else _UNCONFIRMED
            if flow.proven and not known.is_confirmed:
                to_confirm.append(flow)
        self._carrier.forget_all(beyond)
        self._table.take_changed()
        for flow in to_confirm:
            self._table.mark_changed(flow)
        return len(self._given)

    def on_packet(self, segment: Segment) -> None:
        """A packet of a connection came here; to be called before the dispatcher gets it."""
        key = segment.key
        flow = self._by_key.get(key)
        if flow is None:
            return
        given = self._given.get(key)
        if given is not None:
            known = self._look_up(flow)
            if known is not None and known.is_doubted:
                if _is_doubtful_of(flow, segment):  # it is what the carrier waited for
                    self._given[key] = _HELD
                    self._table.mark_changed(flow)
                return
            given = self._given.get(key)
        if flow.state is FORWARDED and (given is None or given is _UNCONFIRMED):
            self._carry(flow)

    def refresh(self, flow: Flow) -> None:
        """Take over what the carrier saw of a flow."""
        if flow.key in self._given:
            self._look_up(flow)

    def settle(self, now: float) -> None:
        """Bring the carrier up to date; to be called after every burst of segments, and once a round."""
        changed = self._table.take_changed()
        if changed:
            self._tell(self._settle_all(changed, now), self._settle, now)
        if now >= self._later_at or len(self._over) >= self._over_at_once:
            self._catch_up(now)

    def next_deadline(self) -> float:
        """Return when `settle` wants to be called at the latest."""
        return self._later_at

    def take_fault(self) -> EdgeError | None:
        """Return the last refusal of the carrier since it was asked before."""
        fault, self._fault = self._fault, None
        return fault

    def end(self) -> None:
        """From now on every packet comes here."""
        self._table.follow(None)

    def _settle_all(self, keys: Iterable[ConnectionKey], now: float) -> list[ConnectionKey]:
        """Settle at once what nearly all have come to: handed over just now, on ports of none, or over.

        Return the others.
        """
        by_key, given, over, backend_of = self._by_key, self._given, self._over, self._backend_of
        others: list[ConnectionKey] = []
        new: list[ConnectionKey] = []
        beginnings: list[Beginning] = []
        for key in keys:
            flow = by_key.get(key)
            if flow is None or flow.state is FINISHED:
                if given.pop(key, None) is not None:
                    over[key] = None
            elif (
                flow.state is HANDING
                and flow.backend is not None
                and not (key in over or key in given or _is_doubtful(flow))
            ):
                backend = backend_of[flow.backend]
                new.append(key)
                beginnings.append((flow.identity, backend, flow.period, flow.last_ack, flow.last_seen, flow.noted))
            else:
                others.append(key)
        if over:
            self._catch_up_later(now)
        return self._begin_all(new, beginnings) + others if new else others

    def _begin_all(self, keys: list[ConnectionKey], beginnings: list[Beginning]) -> list[ConnectionKey]:
        """Give the carrier by one call what was handed over; return what it does not take so."""
        try:
            done = self._carrier.begin_all(beginnings)
        except EdgeError:  # whose fault it is shows where each is told alone; until then any may be there
            self._given.update(dict.fromkeys(keys, _UNCONFIRMED))
            return keys
        self._given.update(dict.fromkeys(keys[:done], _UNCONFIRMED))
        return keys[done:]

    def _settle(self, key: ConnectionKey, now: float) -> None:
        """Settle one that is not over."""
        flow = self._by_key.get(key)
        if flow is None:
            return
        if flow.state is FORWARDED and self._given.get(key) is _UNCONFIRMED:
            self._put_off(key, now)
            return
        if key in self._over or key in self._given:
            self._take_notes(flow)
        if flow.state is FORWARDED:
            self._carry(flow)
        elif flow.state is HANDING and flow.backend is not None and not _is_doubtful(flow):
            self._carry(flow, confirmed=False)
        else:
            self._hold(flow)

    def _take_notes(self, flow: Flow) -> None:
        """Take over the SYNs that were noted on its ports, whatever had them: the next one's may be among them."""
        known = self._carrier.look_up(flow.key)
        for first in reversed(known.noted if known is not None else ()):
            flow.note_syn(SeqNum(first - 1 & MASK))

    def _put_off(self, key: ConnectionKey, now: float) -> None:
        self._later[key] = None
        self._catch_up_later(now)

    def _catch_up_later(self, now: float) -> None:
        """A while after the first that is put off."""
        if self._later_at == inf:
            self._later_at = now + LATER_S

    def _catch_up(self, now: float) -> None:
        """Tell what has had time. Of those that were to be told of as confirmed most are over by now."""
        over, self._over = self._over, {}
        later, self._later = self._later, {}
        refused, self._refused = self._refused, []
        self._later_at = inf
        # The ports of some may have been used again since.
        self._forget_all([key for key in over if key not in self._given], now)
        self._tell(self._settle_all(refused, now), self._settle, now)
        self._tell(later, self._confirm, now)

    def _forget_all(self, keys: list[ConnectionKey], now: float) -> None:
        """Tell that they are over; what is refused is told again a while later, not with the next burst."""
        self._over_at_once = OVER_AT_ONCE
        try:
            self._carrier.forget_all(keys)
        except EdgeError as error:
            self._note_fault(error)
            self._over = dict.fromkeys(keys[-OVER_AT_MOST:])
            self._over_at_once = inf
            self._catch_up_later(now)

    def _confirm(self, key: ConnectionKey, now: float) -> None:
        flow = self._by_key.get(key)
        if flow is not None and flow.state is FORWARDED and self._given.get(key) is _UNCONFIRMED:
            known = self._look_up(flow)
            if known is not None and known.is_doubted:
                self._put_off(key, now)  # the packet that it doubts about is still under way to here
            else:
                self._carry(flow)

    def _look_up(self, flow: Flow) -> Known | None:
        """Take over what the carrier saw of a flow that it has; None if that is not this flow, or it lost it."""
        known = self._carrier.look_up(flow.key)
        if known is None:
            del self._given[flow.key]
            self._table.mark_changed(flow)
            return None
        if known.identity != flow.identity:
            return None
        flow.noted = known.noted
        flow.last_seen = max(flow.last_seen, known.last_seen_s)
        if seq_lt(flow.last_ack, known.last_ack):
            flow.last_ack = known.last_ack
        return known

    def _tell(self, keys: Iterable[ConnectionKey], tell: Callable[[ConnectionKey, float], None], now: float) -> None:
        for key in keys:
            try:
                tell(key, now)
            except EdgeError as error:
                self._note_fault(error)
                self._refused.append(key)
                self._catch_up_later(now)

    def _note_fault(self, fault: EdgeError) -> None:
        self.faults += 1
        self._fault = fault

    def _carry(self, flow: Flow, *, confirmed: bool = True) -> None:
        if flow.backend is None:
            return
        confirmed = confirmed and not flow.is_unsure
        backend = self._backend_of[flow.backend]
        if self._carrier.carry(
            flow.identity, backend, flow.period, flow.last_ack, flow.last_seen, flow.noted, confirmed=confirmed
        ):
            self._given[flow.key] = _WHOLLY if confirmed else _UNCONFIRMED

    def _hold(self, flow: Flow) -> None:
        if self._carrier.hold_flow(flow.identity, flow.period, flow.last_ack, flow.last_seen, flow.noted):
            self._given[flow.key] = _HELD


def _is_doubtful_of(flow: Flow, segment: Segment) -> bool:
    """May the segment be the first of another connection on the flow's ports?"""
    return segment.seg_seq in flow.noted or flow.is_strange(segment.seg_ack)


def _is_doubtful(flow: Flow) -> bool:
    """Is the HANDOFF repeated, so that this or that back end may have the connection; or are segments of ours, too?"""
    pending = flow.pending
    return pending is not None and (pending.repeats > 0 or pending.follows or pending.silent != ())
