"""What must hold after every event of a front end's life, beyond the invariants of the packet tests (`fe_invariants`).

- packets: every one that leaves has right lengths and checksums; none is longer than the way allows; a HANDOFF fits
  into one datagram and is read as it was written
- octets: what the front end itself sends to a back end is what the client sent at that place, and never changes; what
  it has acknowledged is all there
- choice: a connection is handed to a back end that can be used
- acknowledgements: nothing is acknowledged that was not sent; while a head is read they never go back
- answers: whatever is sent to a client at a place stays the same, and is not sent while a back end holds the connection
- memory: every table is within its limit, every deadline belongs to a flow that waits
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Forward, LeaveToHost, Note, PassOn, Reply, Send
from tcpha.fe.assembly import MAX_EARLY_PIECES
from tcpha.fe.dispatcher import Dispatcher
from tcpha.fe.flows import Flow, FlowState
from tcpha.proto.handoff import Envelope
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import FlowsQuery, Handoff, Identity, Message, Status
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment, decode_segment
from tcpha.proto.tunnel import overhead_octets
from tcpha.rules import Endpoint
from tests.fuzz.clients import Sent, is_of_stream
from tests.fuzz.messages import CODEC
from tests.fuzz.packets import checked
from tests.packet.fe_invariants import Watch

UDP_AND_IPV4_OCTETS = 28


class FrontEndModel:
    """Sees everything that goes in and comes out."""

    def __init__(self, dispatcher: Dispatcher, config: FrontEndConfig, mtu_octets: int) -> None:
        self._dispatcher = dispatcher
        self._config = config
        self._mtu_octets = mtu_octets
        self._carried_octets = mtu_octets
        if config.forward == "tunnel":
            self._carried_octets -= overhead_octets(config.raddr.version)
        self._watch = Watch(dispatcher, config)
        self._sent: dict[tuple[ConnectionKey, SeqNum], Sent] = {}
        self._said: dict[Identity, dict[int, int]] = {}
        """Octets sent to clients, by place."""
        self._handed: dict[Identity, dict[int, int]] = {}
        """Octets sent to back ends, by place."""
        self._acknowledged: dict[Identity, SeqNum] = {}
        self._chosen: set[tuple[Identity, Endpoint]] = set()

    def sends(self, key: ConnectionKey, irs: SeqNum, segment: Segment) -> None:
        """A client's segment, undamaged, is under way."""
        at = seq_diff(segment.seg_seq, seq_add(irs, 1))
        self._sent.setdefault((key, irs), Sent()).add(at, at + segment.payload_octets + (segment.flags & FIN))

    def restarts(self, backend: Endpoint) -> None:
        """Another process holds nothing of what the one before it held."""
        holders = self._watch._holders
        for identity in [identity for identity, holder in holders.items() if holder == backend]:
            del holders[identity]

    def check(self, actions: Sequence[Action], packet: bytes | None, said: Message | None, by: Endpoint | None) -> None:
        """Look at what one event led to."""
        self._watch.check(actions, packet, None if isinstance(said, Status) else said, by)
        for action in actions:
            match action:
                case Reply(leaving):
                    self._check_reply(checked(leaving))
                case Forward(_, arriving):
                    assert len(arriving) <= self._carried_octets or self._is_clients_own(arriving)
                    self._check_forwarded(arriving)
                case Send(backend, message):
                    self._check_message(backend, message)
                    if isinstance(message, Handoff):
                        self._check_all_is_handed_over(message, actions)
                case PassOn():
                    assert packet is not None
                case LeaveToHost():
                    assert packet is not None
                    assert len(actions) == 1
                case Note(text):
                    assert text.isprintable()
        self._check_memory()

    def check_empty(self) -> None:
        """After a long silence, and after the end, nothing is left."""
        table = self._dispatcher.table
        assert not table.by_key
        assert not table.finished
        assert not table._lingering
        assert not self._dispatcher._enquiries
        assert not self._dispatcher._reader._reading
        assert table.deadlines.next() > 1e9

    # --- packets to clients

    def _check_reply(self, segment: Segment) -> None:
        assert len(segment.packet) <= self._mtu_octets
        segment.options
        flow = self._dispatcher.table.by_key.get(reverse_key(segment.key))
        if segment.flags & (SYN | RST) or flow is None or flow.is_over:
            return
        identity = flow.identity
        at = seq_diff(segment.seg_seq, seq_add(identity.iss, 1))
        if not _is_of_flow(flow, segment, at):
            return  # of another handshake on the same ports, of which nothing is kept
        if segment.payload_octets or segment.flags & FIN:
            assert flow.state is FlowState.ANSWERED
            assert identity not in self._watch._holders, "the front end answers what a back end holds"
            _keep(self._said.setdefault(identity, {}), at, segment.payload)
        if flow.state is FlowState.READING:
            arrived = self._sent.get((identity.key, identity.irs), Sent())
            place = seq_diff(segment.seg_ack, seq_add(identity.irs, 1))
            assert 0 <= place <= arrived.edge, "acknowledged what was never sent"
        before = self._acknowledged.get(identity, segment.seg_ack)
        assert seq_diff(segment.seg_ack, before) >= 0, "an acknowledgement goes back"
        self._acknowledged[identity] = segment.seg_ack

    # --- packets and messages to back ends

    def _check_forwarded(self, packet: bytes) -> None:
        flow = self._dispatcher.table.by_key[decode_segment(packet).key]
        if self._is_clients_own(packet):
            return
        segment = checked(packet)
        assert segment.flags & (SYN | RST) == 0
        assert segment.flags & ACK
        segment.options
        self._check_octets(flow.identity, segment.seg_seq, segment.payload)

    def _is_clients_own(self, packet: bytes) -> bool:
        """A packet that was kept while the back ends were asked goes on as it came."""
        return self._kept is packet

    _kept: bytes | None = None

    def keeps(self, packet: bytes | None) -> None:
        self._kept = packet

    def _check_message(self, backend: Endpoint, message: Message) -> None:
        datagram = CODEC.encode(Envelope(1, 1, 1), message)
        assert CODEC.decode(datagram)[1] == message or isinstance(message, Handoff)
        assert len(datagram) + UDP_AND_IPV4_OCTETS <= self._mtu_octets or isinstance(message, FlowsQuery)
        if isinstance(message, Handoff):
            identity = message.identity
            if (identity, backend) not in self._chosen:
                assert not self._dispatcher.backends.all[backend].complaint, "a back end that cannot be used is chosen"
                self._chosen.add((identity, backend))
            self._check_octets(identity, seq_add(identity.irs, 1), message.octets)
            flow = self._dispatcher.table.by_key[identity.key]
            assert flow.identity == identity
            assert (message.tsval_sent is None) == (flow.pending is None or flow.pending.cookie.tsval is None)

    @staticmethod
    def _check_all_is_handed_over(message: Handoff, actions: Sequence[Action]) -> None:
        """What the client was told arrived, by ACK or SACK, is in the HANDOFF or in the segments that follow it."""
        if message.acknowledged is None:
            return
        handed = Sent()
        handed.add(0, len(message.octets))
        for action in actions:
            if isinstance(action, Forward) and (segment := decode_segment(action.packet)).key == message.identity.key:
                at = seq_diff(segment.seg_seq, seq_add(message.identity.irs, 1))
                handed.add(at, at + segment.payload_octets + (segment.flags & FIN))
        assert handed.end >= seq_diff(message.acknowledged, seq_add(message.identity.irs, 1)), "octets are missing"

    def _check_octets(self, identity: Identity, seq: SeqNum, octets: bytes) -> None:
        at = seq_diff(seq, seq_add(identity.irs, 1))
        assert at >= 0
        assert is_of_stream(identity.irs, at, octets), "octets stand where the client has not sent them"
        _keep(self._handed.setdefault(identity, {}), at, octets)

    # --- memory

    def _check_memory(self) -> None:
        dispatcher, config = self._dispatcher, self._config
        enquiries = dispatcher._enquiries
        assert len(enquiries) <= config.max_queries
        assert all(len(each.waiting) <= len(config.server) for each in enquiries._table.values())
        assert len(dispatcher.backends._excluded) <= len(config.vaddr) * len(config.vport)
        for flow in dispatcher.table.by_key.values():
            if flow.pending is None:
                continue
            assembly = flow.pending.assembly
            assert len(flow.pending.tried) <= len(config.server)
            assert len(assembly._early) <= MAX_EARLY_PIECES
            room = max(config.window, 2 * config.inspect_octets)
            assert len(assembly.octets) <= room
            assert sum(len(piece) for piece, _ in assembly._early.values()) <= room


def _is_of_flow(flow: Flow, segment: Segment, at: int) -> bool:
    """Is this a segment that the flow itself would send: an acknowledgement, or its answer and FIN?"""
    if flow.pending is None:
        return False
    if flow.state is FlowState.READING:
        return at == 0 and not segment.flags & FIN
    end = len(flow.pending.answer) + 1
    return at >= 0 and (segment.payload_octets > 0 or at + bool(segment.flags & FIN) == end)


def _keep(known: dict[int, int], at: int, octets: bytes) -> None:
    """What stands at a place once stands there for ever."""
    for place, octet in enumerate(octets, at):
        assert known.setdefault(place, octet) == octet, "other octets than before"
