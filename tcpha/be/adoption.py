"""From a HANDOFF to an adopted connection, with every answer the host's TCP may give in between.

The order of steps: an identity that is over is not run again; a live one gets its octets again; a new one replays its
SYN, and once more when it is answered; the second SYN-ACK fixes the translation and lets the request in; the server's
first acknowledgement proves the adoption. Before a REFUSED, what the replay made is reset.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.be.actions import UNKNOWN, Action, ClearTuple, DeliverArriving, DeliverLeaving, Examine, Inject, Send
from tcpha.be.closing import watch_arriving
from tcpha.be.confirmations import Confirmations
from tcpha.be.counters import BackEndCounters
from tcpha.be.flows import ACK_SENT, ADOPTED, SYN_SENT, Flow
from tcpha.be.holding import PACKETS_A_FLOW, Holding
from tcpha.be.repetition import has_first_octet, is_repetition, shortened, without_first_octets
from tcpha.be.replay import (
    FIRST_SYNS,
    REQUEST_RETRY_AFTER_S,
    RETRY_AFTER_S,
    Answer,
    first_segment,
    is_cookie,
    keeps_timestamps,
    read_answer,
    syn,
    translation_of,
)
from tcpha.be.translator import translate_arriving
from tcpha.config import BackEndConfig
from tcpha.errors import WireError
from tcpha.finished import FinishedIdentities, full_period
from tcpha.flowtable import FlowTable
from tcpha.proto.messages import Adopted, Closed, Handoff, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_le
from tcpha.proto.tcp import ACK, RST, SYN, Segment, encode_segment
from tcpha.rules import Endpoint

PLAUSIBLE_OCTETS = 1 << 20
"""How far the server's first acknowledgement may lie from what was injected; a packet of another connection lies
anywhere."""

LATE_S = 0.05
"""So much later than a replay's time is up its connection may still be found to be taken: packets and timers wait for
each other. Later the agent itself was away, and the front end may have turned elsewhere."""

_NOTHING: tuple[Action, ...] = ()


class Adoption:
    """Flows that are being rebuilt."""

    def __init__(
        self,
        config: BackEndConfig,
        table: FlowTable[Flow],
        holding: Holding,
        confirmations: Confirmations,
        counters: BackEndCounters,
    ) -> None:
        self._targets = {address.packed + port.to_bytes(2, "big") for address in config.vaddr for port in config.vport}
        """As they stand in a key: the virtual address, and at its end the port."""
        self._replay_time_s = config.replay_time
        self.draining = False
        """Whether new connections are refused."""
        self.elsewhere = 0
        """Live connections of this node that are not in the table."""
        self._max_flows = config.max_flows
        self._table = table
        self._refused = FinishedIdentities(config.max_finished)
        self._holding = holding
        self._confirmations = confirmations
        self._counters = counters

    def begin(self, frontend: Endpoint, handoff: Handoff, now: float) -> Sequence[Action]:
        """A HANDOFF: adopt, repeat, or say why not."""
        identity = handoff.identity
        flow = self._table.by_key.get(identity.key)
        if flow is not None and flow.identity == identity and not flow.is_over:
            flow.frontend = frontend
            return self._repeat(flow, handoff)
        if identity in self._table.finished or (flow is not None and flow.identity == identity):
            self._counters.late_duplicates += 1
            return (Send(frontend, Closed((identity,))),)
        period = full_period(handoff.period, self._table.utc_s)
        reason = self._objection(flow, handoff, period)
        if reason is not None:
            return self._refusal(frontend, handoff, period, reason, now)
        actions: list[Action] = []
        if flow is not None and not flow.is_over:
            self._counters.replaced += 1
            actions.append(ClearTuple(flow.key, embryonic=True))
        self._counters.handoffs += 1
        adopted = Flow(handoff, frontend, period, now + self._replay_time_s, now)
        self._table.insert(adopted, now)
        if adopted.replay is not None:
            adopted.replay.held = self._holding.take(identity.key)
        self._table.deadlines.set(adopted, now + min(RETRY_AFTER_S[0], self._replay_time_s))
        # Where the old connection's socket must go first, `on_cleared` plays the SYN.
        return actions or self._play_syn(adopted, handoff)

    def hold(self, flow: Flow, segment: Segment) -> None:
        """Keep a client's packet until the replay is complete."""
        if flow.replay is not None and len(flow.replay.held) < PACKETS_A_FLOW:
            flow.replay.held.append(segment)
            self._counters.held += 1
        else:
            self._counters.hold_full += 1

    def on_leaving(self, flow: Flow, segment: Segment, now: float) -> Sequence[Action]:
        """What the host's TCP answers. Raises: OptionError."""
        if flow.handoff is None or flow.replay is None:
            return _NOTHING
        if flow.state is ACK_SENT:
            return self._on_first_acknowledgement(flow, flow.handoff, segment, now)
        answer = read_answer(flow.handoff, segment)
        if answer is Answer.EXPECTED:
            return self._on_syn_ack(flow, flow.handoff, segment, now)
        if answer is Answer.NO_LISTENER:
            return self._give_up(flow, flow.handoff, Reason.NO_LISTENER, reset=False, now=now)
        if flow.replay.clearing or not segment.flags & ACK:
            return _NOTHING
        flow.replay.clearing = True
        if segment.flags & RST:
            # Whoever sent it is gone. What our SYN has made since then must stay, and answers the SYN again.
            return (ClearTuple(flow.key, embryonic=False),)
        # Its own acknowledgement number is the one RST it must believe (RFC 5961, 3.2); what that does not end, socket
        # diagnostics does. A socket in SYN-RECEIVED is spared: it may be ours, and this packet one of the connection
        # before, which was still on its way out when the SYN was played.
        reset = encode_segment(flow.key, segment.seg_ack, SeqNum(0), RST, 0)
        return (Inject(reset), ClearTuple(flow.key, embryonic=False))

    def on_cleared(self, flow: Flow, destroyed: bool, now: float) -> Sequence[Action]:
        """The four-tuple is free: play the SYN (again); `destroyed`: a socket was in the way.

        In ACK-SENT the time was up, and no server's socket had the request: say no.
        """
        handoff, replay = flow.handoff, flow.replay
        if handoff is None or replay is None:
            return _NOTHING
        if flow.state is ACK_SENT:
            return self._give_up(flow, handoff, self._reason(), reset=True, now=now)
        replay.clearing |= destroyed
        if destroyed:
            replay.answered = None
        return self._play_syn(flow, handoff)

    def on_superseded(self, flow: Flow, now: float) -> Sequence[Action]:
        """A later connection has the four-tuple: nothing of this one has reached the server."""
        if flow.handoff is None:
            return _NOTHING
        return self._give_up(flow, flow.handoff, Reason.OLDER_GENERATION, reset=False, now=now)

    def on_deadline(self, flow: Flow, now: float) -> Sequence[Action]:
        """The server is silent: play again what it has not answered, and say no when the time is up."""
        handoff, replay = flow.handoff, flow.replay
        if handoff is None or replay is None:
            return _NOTHING
        if now >= replay.give_up_at:
            if flow.state is ACK_SENT and now < replay.give_up_at + LATE_S:
                return (Examine(flow.key),)  # the server's acknowledgement may wait in the queue behind this timer
            return self.abandon(flow, now)
        replay.attempts += 1
        replay.clearing = False
        self._counters.retries += 1
        if flow.state is ACK_SENT:
            self._table.deadlines.set(flow, min(now + REQUEST_RETRY_AFTER_S, replay.give_up_at))
            return (Inject(first_segment(flow, handoff)),)
        wait = RETRY_AFTER_S[min(replay.attempts, len(RETRY_AFTER_S) - 1)]
        self._table.deadlines.set(flow, min(now + wait, replay.give_up_at))
        # Hosts answer strange SYNs at a limited rate: silence, too, may mean that another socket is in the way; after
        # the second silence even one that is in SYN-RECEIVED, from a replay nobody remembers.
        return (ClearTuple(flow.key, embryonic=replay.attempts > 1),)

    def on_examined(self, flow: Flow, received: int | None, now: float) -> Sequence[Action]:
        """The time is up: a request that has just reached the server's TCP is adopted, one that has not is refused.

        What completes a handshake may be a later segment of the client's: then there is a socket without a request.
        """
        if flow.handoff is None or flow.replay is None or now < flow.replay.give_up_at:
            return _NOTHING
        if received == UNKNOWN or (received is None and flow.rst_arriving):
            return self.abandon(flow, now)
        if not received:
            return self._give_up(flow, flow.handoff, self._reason(), reset=True, now=now)
        rcv_nxt = seq_add(flow.first, received)
        actions = self._adopt(flow, flow.handoff, rcv_nxt, now)
        flow.rcv_nxt = rcv_nxt  # as any packet of its server's would tell
        return actions

    def abandon(self, flow: Flow, now: float) -> Sequence[Action]:
        """End a replay: undo it and say no, unless the server's TCP may have taken the request.

        A connection that is established has the request, whatever became of its acknowledgement. It is reset instead:
        a request that may have run must not run elsewhere.
        """
        if flow.handoff is None:
            return _NOTHING
        if flow.state is ACK_SENT:
            return (ClearTuple(flow.key, embryonic=False),)
        return self._give_up(flow, flow.handoff, self._reason(), reset=True, now=now)

    def on_timer(self, now: float) -> None:
        """Forget refusals that are old enough."""
        self._refused.expire(now)

    @property
    def period_floor(self) -> int:
        """Refusals of connections whose cookie is of this period or an earlier one were forgotten."""
        return self._refused.period_floor

    def _reason(self) -> Reason:
        return Reason.DRAINING if self.draining else Reason.BACKLOG_FULL

    def _objection(self, flow: Flow | None, handoff: Handoff, period: int) -> Reason | None:
        key = handoff.identity.key
        if self.draining:
            return Reason.DRAINING
        half = (len(key) - 4) >> 1
        if key[half : 2 * half] + key[-2:] not in self._targets:
            return Reason.NOT_MY_ADDRESS
        if handoff.identity in self._refused:
            return Reason.REFUSED_BEFORE
        if period <= max(self._table.finished.period_floor, self._refused.period_floor):
            return Reason.OLDER_GENERATION
        replaces = flow is not None and not flow.is_over
        if flow is not None and replaces and period < flow.period:
            return Reason.OLDER_GENERATION
        if self._table.live + self.elsewhere >= self._max_flows and not replaces:
            self._counters.table_full += 1
            return Reason.TABLE_FULL
        return None

    def _repeat(self, flow: Flow, handoff: Handoff) -> Sequence[Action]:
        """The connection lives here: its octets go to the server's TCP once more, which knows what to do with them."""
        self._counters.repeats += 1
        if flow.state is SYN_SENT:
            return _NOTHING
        actions: list[Action] = []
        is_known = has_first_octet(flow)
        if handoff.octets and not (is_known and flow.state is ACK_SENT):  # there the replay repeats its own
            packet = first_segment(flow, handoff)
            actions.append(Inject(shortened(packet) if is_known else packet))
        if flow.state is ADOPTED and handoff.confirm:
            actions.append(Send(flow.frontend, Adopted(flow.identity, flow.rcv_nxt)))
        if handoff.acknowledged is not None and not seq_le(handoff.acknowledged, flow.rcv_nxt):
            flow.owed, flow.busy = handoff.acknowledged, True
        return actions

    @staticmethod
    def _play_syn(flow: Flow, handoff: Handoff) -> Sequence[Action]:
        if flow.replay is None:
            return _NOTHING
        if flow.replay.answered is not None:
            return (Inject(syn(handoff)),)
        flow.replay.first_syns += 1
        return (Inject(syn(handoff, max(FIRST_SYNS + 1 - flow.replay.first_syns, 1))),)

    def _on_syn_ack(self, flow: Flow, handoff: Handoff, segment: Segment, now: float) -> Sequence[Action]:
        granted, replay = segment.options, flow.replay
        if replay is None or not keeps_timestamps(handoff, granted):
            return self._give_up(flow, handoff, Reason.OPTIONS, reset=True, now=now)
        if now >= replay.give_up_at:  # a sleep of ours: nothing has reached the server, and nothing shall
            return self._give_up(flow, handoff, self._reason(), reset=True, now=now)
        self._table.deadlines.set(flow, min(now + REQUEST_RETRY_AFTER_S, replay.give_up_at))
        stamps = granted.timestamps
        echo = None if stamps is None else stamps[1]
        if replay.answered != segment.seg_seq:
            replay.answered, replay.echo = segment.seg_seq, echo
            return self._play_syn(flow, handoff)
        if echo not in (replay.echo, handoff.tsval_client):
            return _NOTHING  # a SYN cookie for one of the first SYNs, of which several were played
        is_surely_none = not is_cookie(handoff, granted) and replay.first_syns <= FIRST_SYNS
        flow.server_iss = flow.server_seq = segment.seg_seq
        flow.tsecr = 0 if stamps is None or is_surely_none else stamps[0]
        translation = translation_of(handoff, segment.seg_seq, granted)
        flow.translation = translation
        flow.arriving = (DeliverArriving(translation),)
        flow.leaving = (DeliverLeaving(translation),)
        flow.state = ACK_SENT
        held, replay.held = replay.held, []
        actions: list[Action] = [Inject(first_segment(flow, handoff))]
        for each in held:
            try:
                if is_repetition(flow, each):
                    packet = without_first_octets(flow, translation, each)
                else:
                    packet = translate_arriving(translation, each)
                actions.append(Inject(packet))
            except WireError:
                self._counters.malformed += 1
                continue
            self._counters.arriving += 1
            watch_arriving(flow, each)
        return actions

    def _on_first_acknowledgement(
        self, flow: Flow, handoff: Handoff, segment: Segment, now: float
    ) -> Sequence[Action]:  # fmt: skip
        """The server's TCP speaks from an established connection, if the packet fits to what was injected."""
        if segment.flags & SYN:
            known = segment.seg_seq == flow.server_iss  # its SYN-ACK again: the injected ACK was not taken yet
            return _NOTHING if known else self._play_again(flow)
        wanted = seq_add(flow.identity.irs, 1 + bool(handoff.octets))
        fits = (
            segment.flags & ACK
            and 0 <= seq_diff(segment.seg_seq, seq_add(flow.server_iss, 1)) < PLAUSIBLE_OCTETS
            and 0 <= seq_diff(segment.seg_ack, wanted) < PLAUSIBLE_OCTETS
        )
        if not fits:
            refuted = segment.flags & RST and segment.seg_seq == seq_add(flow.server_iss, 1)
            if refuted and flow.rst_arriving:  # the client's own RST ended the socket, which may have read the request
                return (ClearTuple(flow.key, embryonic=False),)
            return self._play_again(flow) if refuted else _NOTHING
        # A RST has been provoked or sent on purpose; the closing rules read it like any other.
        return self._adopt(flow, handoff, None if segment.flags & RST else segment.seg_ack, now)

    def _adopt(self, flow: Flow, handoff: Handoff, rcv_nxt: SeqNum | None, now: float) -> Sequence[Action]:
        """The server's TCP has the connection, and the client's octets before `rcv_nxt`; None: it is about to end."""
        self._counters.adopted += 1
        flow.state = ADOPTED
        flow.handoff = flow.replay = None
        flow.busy = True
        self._table.deadlines.clear(flow)
        if not handoff.confirm or rcv_nxt is None:
            return _NOTHING
        flow.rcv_nxt = rcv_nxt
        if flow.owed is None:
            self._confirmations.add(flow, now)
            return _NOTHING
        if seq_le(flow.owed, flow.rcv_nxt):
            flow.owed = None
        return (Send(flow.frontend, Adopted(flow.identity, flow.rcv_nxt)),)

    def _play_again(self, flow: Flow) -> Sequence[Action]:
        """The SYN-ACK that was answered is of no socket any more: start over. The replay's time limit still holds."""
        flow.state = SYN_SENT
        if flow.replay is not None:
            flow.replay.answered = None
        flow.translation, flow.arriving, flow.leaving = None, (), ()
        return (ClearTuple(flow.key, embryonic=True),)

    def _refusal(
        self, frontend: Endpoint, handoff: Handoff, period: int, reason: Reason, now: float
    ) -> Sequence[Action]:
        """Say no, and stay with it: the front end turns elsewhere, so a repeat that comes later must not run."""
        self._counters.refused += 1
        if not handoff.confirm:
            return _NOTHING
        self._refused.add(handoff.identity, period, self._table.utc_s, now)
        return (Send(frontend, Refused(handoff.identity, reason)),)

    def _give_up(self, flow: Flow, handoff: Handoff, reason: Reason, reset: bool, now: float) -> Sequence[Action]:
        """Nothing reached the server: undo the replay, then say no."""
        self._table.remove(flow)
        undone = [ClearTuple(flow.key, embryonic=True)] if reset else []
        return [*undone, *self._refusal(flow.frontend, handoff, flow.period, reason, now)]
