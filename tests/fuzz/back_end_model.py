"""What must hold after every event of a back end's life.

- packets: what is injected and what is delivered has right checksums, and the numbers that its receiver knows
- servers: what a server reads is what the client sent, in order; a request runs once; a connection that was refused, or
  that the front end sent away, never runs; nothing reaches a server around a flow
- words: ADOPTED only for what the server's TCP has acknowledged; every message can be written
- memory: every table is within its limit, every replay ends
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from tcpha.be.agent import Agent
from tcpha.be.flows import FlowState
from tcpha.be.holding import PACKETS_A_FLOW
from tcpha.be.translator import Translation, translate_arriving, translate_leaving
from tcpha.config import BackEndConfig
from tcpha.errors import WireError
from tcpha.proto.handoff import Envelope
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Adopted, Identity, Message, Refused
from tcpha.proto.seqnum import MASK, seq_add, seq_diff
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment
from tests.fuzz.clients import is_of_stream
from tests.fuzz.host import Host, Socket
from tests.fuzz.messages import CODEC
from tests.fuzz.packets import checked

REMEMBERED_S = 30.0
"""So long at least a connection that is over is known for what it is."""


class BackEndModel:
    """Sees everything that goes in and comes out. `honest`: the host's TCP is a real one, and nobody lies about it."""

    def __init__(self, agent: Agent, config: BackEndConfig, host: Host, *, honest: bool) -> None:
        self._agent = agent
        self._config = config
        self._host = host
        self.honest = honest
        self._is_over: dict[Identity, float] = {}
        """Connections that must not run (any more), and since when that is so."""
        self._ran: dict[Identity, tuple[Socket, float]] = {}
        self._runs = 0

    # --- packets

    def injects(self, packet: bytes) -> Segment:
        return checked(packet)

    def delivers_arriving(self, translation: Translation, segment: Segment) -> bytes | None:
        flow = self._agent.table.by_key[segment.key]
        assert flow.translation is translation
        assert flow.state in (FlowState.ACK_SENT, FlowState.ADOPTED, FlowState.FINISHED)
        try:
            return translate_arriving(translation, segment)
        except WireError:
            return None

    def delivers_leaving(self, translation: Translation, segment: Segment) -> Segment | None:
        flow = self._agent.table.by_leaving_key[segment.key]
        assert flow.translation is translation
        assert flow.state in (FlowState.ADOPTED, FlowState.FINISHED)
        try:
            translated = checked(translate_leaving(translation, segment))
        except WireError:
            return None
        assert not translated.flags & SYN
        socket = self._host.sockets.get(flow.key)
        if self.honest and socket is not None and socket.identity == flow.identity and segment.flags & ACK:
            there = seq_diff(segment.seg_seq, socket.iss)
            assert seq_diff(translated.seg_seq, flow.identity.iss) == there, "the client sees other numbers"
        return translated

    # --- messages

    def says(self, message: Message, now: float) -> None:
        written = CODEC.encode(Envelope(1, 1, 1), message)
        assert CODEC.decode(written)[1] == message
        if not self.honest:
            return
        self._check_servers(now)
        if isinstance(message, Adopted):
            assert seq_diff(message.rcv_nxt, seq_add(message.identity.irs, 1)) >= 0
            got = self._host.acknowledged.get(message.identity)
            assert got is not None
            assert seq_diff(message.rcv_nxt, got) <= 0, "the server has not acknowledged that"
        if isinstance(message, Refused) and not self._forgot():
            ran = self._ran.get(message.identity)
            has_run = ran is not None and now - ran[1] <= REMEMBERED_S
            assert not has_run or message.identity in self._host.aborted, "refused what a server has read"
            self._is_over.setdefault(message.identity, now)

    def is_sent_away(self, identity: Identity, now: float) -> None:
        """The front end does not want this connection any more."""
        self._is_over.setdefault(identity, now)

    def is_restarted(self) -> None:
        """Periods of cookies moved: what was remembered by them may be forgotten."""
        self._is_over.clear()
        self._ran.clear()

    # --- the whole

    def check(self, now: float) -> None:
        self._check_servers(now)
        self._check_tables()

    def _check_servers(self, now: float) -> None:
        new, self._runs = self._host.ran[self._runs :], len(self._host.ran)
        for socket in new:
            identity = socket.identity
            if not self.honest or identity is None:
                continue
            before = self._ran.get(identity)
            if not self._forgot():
                assert before is None or now - before[1] > REMEMBERED_S, "a request runs twice"
                over = self._is_over.get(identity)
                assert over is None or now - over > REMEMBERED_S, "a connection runs that must not"
            self._ran[identity] = (socket, now)
        for socket in self._sockets():
            assert is_of_stream(socket.irs, 0, bytes(socket.received)), "the server reads what the client has not sent"

    def _sockets(self) -> Iterable[Socket]:
        return self._host.sockets.values()

    def _forgot(self) -> bool:
        """Had identities to be forgotten early? Then older cookies are refused, and no more is promised."""
        finished = self._agent.table.finished, self._agent._adoption._refused
        return any(each.forgotten_early for each in finished)

    def _check_tables(self) -> None:
        agent, config, table = self._agent, self._config, self._agent.table
        assert {flow.leaving_key for flow in table.by_key.values()} == set(table.by_leaving_key)
        for key, flow in table.by_key.items():
            assert flow.key == key
            assert table.by_leaving_key[reverse_key(key)] is flow
            assert (flow.replay is not None) == (flow.state in (FlowState.SYN_SENT, FlowState.ACK_SENT))
            assert (flow.handoff is not None) == (flow.replay is not None)
            assert flow.translation is not None or flow.state in (FlowState.SYN_SENT, FlowState.FINISHED)
            assert flow.deadline < inf or flow.replay is None, "a replay that nobody ends"
            assert flow.replay is None or len(flow.replay.held) <= PACKETS_A_FLOW
        assert 0 <= table.live <= config.max_flows
        assert len(table) - table.live <= config.max_finished
        assert len(table.finished) <= config.max_finished
        assert len(agent._adoption._refused) <= config.max_finished
        holding = agent._holding
        assert len(holding) <= config.hold_packets
        assert sum(len(held) for _, held in holding._entries.values()) == len(holding)
        assert len(agent._probe._waiting) <= len(config.vaddr) * len(config.vport)

    def check_empty(self) -> None:
        agent = self._agent
        assert not agent.table.by_key
        assert not agent.table.by_leaving_key
        assert not agent.table.finished
        assert not agent.table._lingering
        assert not agent._adoption._refused
        assert not agent._holding._entries
        assert not agent._answers
        assert not agent._farewells._identities
        assert agent.table.deadlines.next() == inf


def numbers_of(key: ConnectionKey, segment: Segment) -> tuple[int, int, int]:
    """For a person: flags, number, acknowledgement."""
    return segment.flags & (FIN | SYN | RST | ACK), segment.seg_seq & MASK, segment.seg_ack & MASK
