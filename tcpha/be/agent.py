"""The back end's core: packets, messages and times in, actions out.

Pure: no clock, socket, file or randomness. `on_*(value, now)` returns what is to be done; `now` is a monotonic clock
in seconds, UTC comes by `on_utc` and only judges how long a cookie could still be valid.

    HANDOFF -> SYN_SENT -> ACK_SENT -> ADOPTED -> FINISHED

`adoption` plays the client's part until the server has acknowledged; from then on a packet is translated and
delivered, and this file only watches for the end of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf

from tcpha.be.actions import Action, Announce, ClearTuple, Examine, Inject, LeaveToHost, Note, Send
from tcpha.be.adoption import Adoption
from tcpha.be.closing import Farewells, has_ended, is_late, watch_arriving, watch_leaving
from tcpha.be.confirmations import Confirmations
from tcpha.be.counters import BackEndCounters
from tcpha.be.flows import ACK_SENT, ADOPTED, FINISHED, SYN_SENT, Flow
from tcpha.be.holding import Holding
from tcpha.be.probe import Probe
from tcpha.be.repetition import CUT_OCTETS, is_repetition, without_first_octets
from tcpha.config import BackEndConfig
from tcpha.flowtable import BothWaysTable
from tcpha.peers import OwnStatus
from tcpha.proto.cookie import PERIOD_SHIFT
from tcpha.proto.handoff import by_message
from tcpha.proto.icmp import IcmpError
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Handoff, Identity, Message, NodeState
from tcpha.proto.seqnum import MASK, seq_le, seq_lt
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment
from tcpha.rules import Endpoint

SWEEP_INTERVAL_S = 1.0
SWEEP_FLOWS = 2000
"""Flows looked at in one step of the search for idle ones."""
RESET_CHECK_S = 0.05
"""After a client's RST the host is asked at once whether it took effect, and once more so much later; no sooner again,
however many come."""
ANSWERS_AT_ONCE = 64
ANSWER_INTERVAL_S = 0.01
"""A list of all flows goes out in pieces of so many messages."""

_NOTHING: tuple[Action, ...] = ()
_LEAVE_TO_HOST: tuple[Action, ...] = (LeaveToHost(),)


class Agent:
    """One back end's decisions."""

    def __init__(self, config: BackEndConfig) -> None:
        self.counters = BackEndCounters()
        self.table: BothWaysTable[Flow] = BothWaysTable(config.max_flows, config.max_finished, config.finished_time)
        # Without an address of its own the probe borrows the front end's: it never leaves the host.
        sources = (*config.uaddr, *(endpoint.addr for endpoint in config.fe))
        self._probe = Probe(sources, config.vaddr, config.vport, config.probe_time)
        self._holding = Holding(config.hold_packets, config.hold_time)
        self._confirmations = Confirmations()
        self._adoption = Adoption(config, self.table, self._holding, self._confirmations, self.counters)
        self._farewells = Farewells(config.fe)
        self._digest = config.digest()
        self._state = NodeState.UP
        self._stale_time_s = config.stale_time
        self._idle_time_s = config.idle_time
        self._next_sweep = 0.0
        self._max_flows = config.max_flows
        self._answers: deque[Send] = deque()
        self._next_answer = inf

    def status(self) -> OwnStatus:
        """Return what the front ends are to know."""
        probe = self._probe
        live = self.table.live + self._adoption.elsewhere
        state = NodeState.FULL if self._state is NodeState.UP and live >= self._max_flows else self._state
        return OwnStatus(state, live, self._digest, probe.capabilities, probe.servers)

    @property
    def elsewhere(self) -> int:
        """Live connections of this node that are not in the table: the kernel carries them."""
        return self._adoption.elsewhere

    @elsewhere.setter
    def elsewhere(self, count: int) -> None:
        self._adoption.elsewhere = count

    @property
    def room(self) -> int:
        """How many live connections may be elsewhere."""
        return max(self._max_flows - self.table.live, 0)

    # --- packets

    def on_arriving(self, segment: Segment, now: float) -> Sequence[Action]:
        """A packet for a virtual address. It reaches the server only as part of a flow. Raises: WireError."""
        flow = self.table.by_key.get(segment.key)
        if flow is None or (flow.state is FINISHED and not is_late(flow, segment)):
            return self._hold(segment, now)
        if segment.flags & SYN:
            self.counters.dropped_flags += 1
            return _NOTHING
        if flow.state is SYN_SENT:
            self._adoption.hold(flow, segment)
            return _NOTHING
        self.counters.arriving += 1
        flow.last_seen = now
        if segment.flags & (FIN | RST) or flow.busy:
            watch_arriving(flow, segment)
            self._end_if_closed(flow, now)
            if segment.flags & RST and flow.state is ADOPTED and flow.deadline == inf:
                # Its port may be used again at once. What the next connection sends must not reach the host in this
                # one's numbers: the host would answer it by an RST that the client believes.
                self.table.deadlines.set(flow, now + RESET_CHECK_S)
                return (*flow.arriving, Examine(flow.key))
        if (
            (segment.seg_seq - flow.first) & MASK < CUT_OCTETS
            and flow.translation is not None
            and is_repetition(flow, segment)
        ):
            self.counters.late_duplicates += flow.is_over
            return (Inject(without_first_octets(flow, flow.translation, segment)),)
        return flow.arriving

    def on_icmp_error(self, error: IcmpError, now: float) -> Sequence[Action]:
        """An ICMP error about a packet that left a virtual address. The host's TCP judges it (RFC 5927)."""
        flow = self.table.by_leaving_key.get(error.key)
        if flow is None:
            return _LEAVE_TO_HOST
        self.counters.icmp_errors += bool(flow.arriving)
        return flow.arriving

    def on_leaving(self, segment: Segment, now: float) -> Sequence[Action]:
        """A packet the server sends from a virtual address. Raises: OptionError."""
        flow = self.table.by_leaving_key.get(segment.key)
        if flow is None:
            answer = self._probe.on_leaving(segment)
            if answer is None:
                self.counters.unknown_leaving += 1
                return _NOTHING
            return answer
        if flow.state is ADOPTED and not (segment.flags & (SYN | FIN | RST) or flow.busy):
            self.counters.leaving += 1
            flow.last_seen = now
            flow.rcv_nxt = segment.seg_ack
            flow.server_seq = segment.seg_seq
            return flow.leaving
        if flow.state in (SYN_SENT, ACK_SENT):
            actions = self._adoption.on_leaving(flow, segment, now)
            if not flow.is_adopted:
                return actions
            self._check_reset(flow, now)
            return [*actions, *self._on_leaving_closely(flow, segment, now)]
        return self._on_leaving_closely(flow, segment, now)

    def _on_leaving_closely(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """A leaving packet of a flow that is closing, over, or owes its front end an ADOPTED."""
        if segment.flags & SYN:
            return _NOTHING  # the server repeats its SYN-ACK: the client has the front end's
        self.counters.leaving += 1
        flow.last_seen = now
        actions: list[Action] = list(flow.leaving)
        if segment.flags & RST:
            self._end(flow, now)
            return actions
        flow.server_seq = segment.seg_seq
        if segment.flags & ACK:
            advanced = seq_lt(flow.rcv_nxt, segment.seg_ack)
            flow.rcv_nxt = segment.seg_ack
            if advanced and flow.owed is not None:
                actions.append(Send(flow.frontend, Adopted(flow.identity, flow.rcv_nxt)))
                if seq_le(flow.owed, flow.rcv_nxt):
                    flow.owed = None
        watch_leaving(flow, segment)
        flow.busy = flow.owed is not None or flow.fin_arriving is not None or flow.fin_leaving is not None
        self._end_if_closed(flow, now)
        return actions

    def _check_reset(self, flow: Flow, now: float) -> None:
        """A client's RST that came while the connection was being adopted: soon its socket may be gone."""
        if flow.is_adopted and flow.rst_arriving:
            self.table.deadlines.set(flow, now + RESET_CHECK_S)

    def _hold(self, segment: Segment, now: float) -> Sequence[Action]:
        if segment.flags & (SYN | RST):
            self.counters.dropped_flags += 1
        elif self._holding.add(segment, now):
            self.counters.held += 1
        else:
            self.counters.hold_full += 1
        return _NOTHING

    def _end_if_closed(self, flow: Flow, now: float) -> None:
        if flow.state is ADOPTED and has_ended(flow):
            self._end(flow, now)

    def _end(self, flow: Flow, now: float) -> None:
        """The connection is over: the front ends may forget it."""
        if not flow.is_over:
            self.counters.closed += 1
            self.table.finish(flow, now)
            self._farewells.add(flow.identity, now)

    # --- messages from front ends

    def on_message(self, frontend: Endpoint, message: Message, age_s: float, now: float) -> Sequence[Action]:
        """A message that is authentic and fresh; `age_s` is how long it lay in the socket."""
        match message:
            case Handoff():
                if age_s > self._stale_time_s:
                    self.counters.stale += 1
                    return _NOTHING
                return self._adoption.begin(frontend, message, now)
            case Closed():
                return [action for identity in message.identities for action in self._destroy(identity, now)]
            case FlowsQuery():
                return self._answer_query(frontend, message.keys, now)
            case _:
                self.counters.unexpected_messages += 1
                return _NOTHING

    def _destroy(self, identity: Identity, now: float) -> list[Action]:
        """The front end gave the connection to another back end, or goes: end it without a word to the client.

        Also an identity that is not here: its HANDOFF may have been overtaken, and must find that it is over.
        """
        flow = self.table.by_key.get(identity.key)
        if flow is None or flow.identity != identity:
            self.table.finished.add(identity, int(self.table.utc_s) >> PERIOD_SHIFT, self.table.utc_s, now)
            return []
        if flow.is_over:
            return []
        self.counters.destroyed += 1
        self.table.remember(flow, now)
        self.table.remove(flow)
        return [ClearTuple(flow.key, embryonic=True)]

    def _answer_query(self, frontend: Endpoint, keys: tuple[ConnectionKey, ...], now: float) -> Sequence[Action]:
        if keys:
            flows = {key: self.table.by_key.get(key) for key in keys}
            # Of a replay that still runs nobody knows how it ends: neither held nor absent, it is asked about again.
            held = tuple(flow.identity for flow in flows.values() if flow is not None and flow.is_adopted)
            absent = tuple(key for key, flow in flows.items() if flow is None or flow.is_over)
            return (Send(frontend, Flows(held, absent)),) if held or absent else _NOTHING
        return self._list_flows(frontend, now)

    def _list_flows(self, frontend: Endpoint, now: float) -> Sequence[Action]:
        """Tell a front end of every connection in the table."""
        identities = [flow.identity for flow in self.table.by_key.values() if flow.state is ADOPTED]
        self._answers = deque(answer for answer in self._answers if answer.frontend != frontend)
        self._answers.extend(Send(frontend, Flows(each)) for each in by_message(identities))
        return self._next_answers(now)

    def runs(self, key: ConnectionKey) -> bool:
        """Is there a connection in the table with this four-tuple, and not over?"""
        flow = self.table.by_key.get(key)
        return flow is not None and not flow.is_over

    @property
    def period_floor(self) -> int:
        """Cookies of this period and earlier ones are void: some identities of them were forgotten."""
        return max(self.table.finished.period_floor, self._adoption.period_floor)

    @property
    def is_holding(self) -> bool:
        """Are there packets of connections that nobody knows yet?"""
        return len(self._holding) > 0

    def release(self, key: ConnectionKey) -> list[bytes]:
        """The kernel has adopted a connection: return the packets that came before."""
        return [segment.packet for segment in self._holding.take(key)]

    def _next_answers(self, now: float) -> list[Action]:
        """A piece of a long answer: packets do not wait for all of it, and the receiver's socket can hold it."""
        piece: list[Action] = [self._answers.popleft() for _ in range(min(ANSWERS_AT_ONCE, len(self._answers)))]
        self._next_answer = now + ANSWER_INTERVAL_S if self._answers else inf
        return piece

    # --- what the host's sockets say

    def on_cleared(self, key: ConnectionKey, destroyed: bool, now: float) -> Sequence[Action]:
        """What ClearTuple found is gone; `destroyed`: there was something, or may have been."""
        self.counters.cleared += destroyed
        flow = self.table.by_key.get(key)
        if flow is None or flow.replay is None:
            return _NOTHING
        if flow.state is ACK_SENT and (destroyed or flow.rst_arriving):
            self._end(flow, now)  # the host's RST still leaves translated
            return _NOTHING
        return self._adoption.on_cleared(flow, destroyed, now)

    def on_superseded(self, key: ConnectionKey, now: float) -> Sequence[Action]:
        """What ClearTuple found is a connection of the kernel's: ours has no socket any more, and gets none."""
        flow = self.table.by_key.get(key)
        if flow is None or flow.is_over:
            return _NOTHING
        if flow.state is SYN_SENT:
            return self._adoption.on_superseded(flow, now)
        self._end(flow, now)
        return _NOTHING

    def on_examined(self, key: ConnectionKey, received: int | None, now: float) -> Sequence[Action]:
        """How many octets the socket that holds the four-tuple has received, or `UNKNOWN`; None: there is none."""
        flow = self.table.by_key.get(key)
        if flow is not None and flow.state is ACK_SENT:
            actions = self._adoption.on_examined(flow, received, now)
            self._check_reset(flow, now)
            return actions
        if flow is None or flow.state is not ADOPTED:
            return _NOTHING
        if received is None:
            self._end(flow, now)
        else:
            flow.last_seen = now
        return _NOTHING

    # --- time

    def on_utc(self, utc_s: float, now: float) -> None:
        """UTC in seconds, told at least once a second."""
        self.table.utc_s = utc_s

    def on_timer(self, now: float) -> Sequence[Action]:
        """Do what is due."""
        actions = self.table.wake(now, self._on_deadline, self._on_fault)
        self.counters.hold_expired += self._holding.expire(now)
        if now >= self._probe.next_deadline():
            actions += self._probe.on_timer(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL_S
            self.table.on_timer(now)
            self._adoption.on_timer(now)
            idle = (flow for flow in self.table.sweep(SWEEP_FLOWS) if now - flow.last_seen >= self._idle_time_s)
            actions += [Examine(flow.key) for flow in idle if flow.state is ADOPTED]
        if now >= self._next_answer:
            actions += self._next_answers(now)
        confirmations, some_are_over = self._confirmations.on_timer(now)
        if some_are_over:
            self._farewells.hasten(now)
        return [*actions, *confirmations, *self._farewells.on_timer(now)]

    def _on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        return (Examine(flow.key),) if flow.state is ADOPTED else self._adoption.on_deadline(flow, now)

    @staticmethod
    def _on_fault(flow: Flow, now: float) -> Sequence[Action]:
        """A flow was forgotten because of a defect: nobody translates for its socket any more."""
        return (ClearTuple(flow.key, embryonic=True),)

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called."""
        return min(
            self.table.deadlines.next(),
            self._holding.next_deadline(),
            self._probe.next_deadline(),
            self._confirmations.next_deadline(),
            self._farewells.next_deadline(),
            self._next_answer,
            self._next_sweep,
        )

    def on_stop(self, now: float) -> Sequence[Action]:
        """The back end goes: end its flows. The host resets them, and the resets still leave translated."""
        self._state = NodeState.DRAINING
        self._adoption.draining = True
        flows = [flow for flow in self.table.by_key.values() if not flow.is_over]
        actions: list[Action] = [Announce()]
        for flow in flows:
            if flow.is_adopted:
                actions.append(ClearTuple(flow.key, embryonic=True))
            else:
                actions += self._adoption.abandon(flow, now)
        if flows:
            actions.append(Note(f"connections that are ended: {len(flows)}"))
        return actions
