"""FLOWS? and FLOWS: which back end holds a connection?

Asked about connections that nobody here knows, as after a restart (`enquiries` is the table of them, and says when one
is reset), about flows of which no packet was seen for long, and about those that an earlier process handed over. It
knows no requests: what is about to be handed over is `handover`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.fe.actions import Action, Forward, Reply, Send
from tcpha.fe.backends import Backends
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.enquiries import Enquiries
from tcpha.fe.flows import FORWARDED, HANDING, Flow
from tcpha.fe.handover import Handover
from tcpha.fe.handshake import Handshake, is_first, reset
from tcpha.flowtable import FlowTable
from tcpha.proto.cookie import PERIOD_SHIFT
from tcpha.proto.handoff import by_message
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Closed, Flows, FlowsQuery, Identity
from tcpha.proto.tcp import Segment
from tcpha.rules import Endpoint

SWEEP_FLOWS = 2000
"""Flows looked at in one step of the search for idle ones."""
MAX_CHECKS = 3
"""Questions about an idle flow before a silent back end's flow is dropped."""

_NOTHING: tuple[Action, ...] = ()


class Enquirer:
    """Asks back ends what they hold, and believes them."""

    def __init__(
        self,
        enquiries: Enquiries,
        table: FlowTable[Flow],
        backends: Backends,
        handshake: Handshake,
        handover: Handover,
        counters: FrontEndCounters,
        idle_time_s: float,
    ) -> None:
        """`idle_time_s`: a flow whose last packet is so old is asked about."""
        self._enquiries = enquiries
        self._table = table
        self._backends = backends
        self._handshake = handshake
        self._handover = handover
        self._counters = counters
        self._idle_time_s = idle_time_s

    def on_segment(self, segment: Segment, now: float) -> Sequence[Action]:
        """A segment of a connection nobody here knows: ask, unless it has been asked."""
        known = self._enquiries.get(segment.key)
        if known is not None and now < known.ends_at:
            return _NOTHING
        backends = self._backends.up()
        if not backends or not self._enquiries.may_ask(now):
            self._counters.unknown_dropped += 1
            return _NOTHING
        self._enquiries.open(
            segment,
            may_reset_at_once=self._handshake.is_expired(segment),
            bare=not is_first(segment),
            asked=backends,
            everybody_asked=len(backends) == len(self._backends.all),
            now=now,
        )
        self._counters.enquiries += 1
        return [Send(backend, FlowsQuery((segment.key,))) for backend in backends]

    def on_flows(self, backend: Endpoint, message: Flows, now: float, *, may_learn: bool) -> Sequence[Action]:
        """A back end has answered; `may_learn`: what it holds is to be carried from now on."""
        actions: list[Action] = []
        if may_learn:
            for identity in message.held:
                self._on_held(backend, identity, actions, now)
        for key in message.absent:
            enquiry = self._enquiries.on_absent(backend, key, now)
            if enquiry is not None:
                self._counters.resets += 1
                actions.append(Reply(reset(enquiry.segment)))
            flow = self._table.by_key.get(key)
            if flow is None or flow.state is not FORWARDED or flow.backend != backend:
                continue
            if flow.orphaned:
                actions += self._handover.on_orphaned(flow, now)
            elif flow.checks or flow.retained:
                self._counters.idle_dropped += 1
                if flow.is_unsure:  # the client repeats its request, which is handed over then
                    self._table.remove(flow)
                else:
                    self._table.finish(flow, now)
        return actions

    def _on_held(self, backend: Endpoint, identity: Identity, actions: list[Action], now: float) -> None:
        flow = self._table.by_key.get(identity.key)
        if flow is not None and flow.identity == identity and _is_given_up(flow, backend):
            actions.append(Send(backend, Closed((identity,))))  # it woke up too late
            return
        if flow is None and not self._table.is_full():
            # Its cookie's period is not told. It is none to come, so what is older than now is no successor.
            flow = Flow.of(identity, int(self._table.utc_s) >> PERIOD_SHIFT, FORWARDED, now)
            flow.assign(backend)
            self._table.insert(flow, now)
            self._counters.learned += 1
        elif flow is not None and flow.identity == identity and flow.state is HANDING:
            self._handover.on_held(flow, backend, now)
        if flow is not None and flow.identity == identity and flow.backend == backend:
            if flow.is_unsure:
                self._table.mark_changed(flow)
            flow.checks = 0
            flow.proven = True
            flow.retained = flow.orphaned = False
            flow.last_seen = now
            enquiry = self._enquiries.close(identity.key)
            if enquiry is not None:
                flow.last_ack = enquiry.segment.seg_ack
                actions.append(Forward(backend, enquiry.segment.packet))

    def on_timer(self, now: float) -> list[Action]:
        """Give up what was asked in vain; ask about some of the flows that are idle or unsure."""
        actions: list[Action] = []
        for enquiry in self._enquiries.on_timer(now):
            self._counters.resets += 1
            actions.append(Reply(reset(enquiry.segment)))
        unsure: dict[Endpoint, list[ConnectionKey]] = {}
        for flow in self._table.sweep(SWEEP_FLOWS):
            if flow.state is not FORWARDED or flow.backend is None:
                continue
            if self._is_idle(flow, now):
                self._ask_or_drop(flow, flow.backend, actions, now)
            elif flow.retained:
                unsure.setdefault(flow.backend, []).append(flow.key)
        for backend in unsure.keys() & set(self._backends.up()):
            keys = unsure[backend]
            actions += [Send(backend, FlowsQuery(each)) for each in by_message(keys)]
        return actions

    def _is_idle(self, flow: Flow, now: float) -> bool:
        limit_s = self._idle_time_s * (flow.checks + 1)
        if now - flow.last_seen < limit_s:
            return False
        self._table.refresh(flow)
        return now - flow.last_seen >= limit_s

    def _ask_or_drop(self, flow: Flow, backend: Endpoint, actions: list[Action], now: float) -> None:
        if flow.checks >= MAX_CHECKS:
            self._counters.idle_dropped += 1
            self._table.finish(flow, now)
        else:
            flow.checks += 1
            actions.append(Send(backend, FlowsQuery((flow.key,))))


def _is_given_up(flow: Flow, backend: Endpoint) -> bool:
    """Is a connection over, or somebody else's, of which a back end says that it holds it?"""
    waits_for_any = flow.state is HANDING and flow.backend is None
    return flow.is_over or (flow.backend != backend and not waits_for_any)
