"""Any packets, messages and times in any order: what must hold all the same."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from math import inf
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcpha.be.actions import Action, ClearTuple, DeliverArriving, DeliverLeaving, Examine, Inject, Send
from tcpha.be.agent import Agent
from tcpha.be.flows import FlowState
from tcpha.be.translator import translate_arriving, translate_leaving
from tcpha.errors import WireError
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey, connection_key, reverse_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Adopted, Closed, FlowsQuery, Handoff, Identity, Message
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import Segment, decode_segment, encode_segment
from tests.packet.be_playbook import CLIENTS, PERIOD, UTC_S, VIPS, be_config

LINES = "max_flows = 3\nmax_finished = 2\nhold_packets = 5\nfinished_time = 2\nidle_time = 3\nprobe_time = 0.5\n"
CODEC = HandoffCodec(Keyring((Key(1, bytes(32)),)))

# Few values, so that they meet; some of them are wrong everywhere.
families = st.sampled_from([4, 6])
numbers = st.sampled_from([0, 1, 2, 100, 101, 102, 120, 0x7FFFFFFF, 0xFFFFFFFF]).map(SeqNum)
keys = st.builds(
    lambda family, port, dport: connection_key(
        ip_address(CLIENTS[family]), port, ip_address(VIPS[family]), dport
    ),
    families,
    st.integers(1, 4),
    st.sampled_from([80, 80, 80, 81]),
)  # fmt: skip
identities = st.builds(Identity, keys, st.sampled_from([0, 100]).map(SeqNum), st.sampled_from([7, 8]).map(SeqNum))
handoffs = st.builds(
    Handoff,
    identities,
    st.sampled_from([Agreement(1460, 9, True), Agreement(88, None, False)]),
    promised_window_scale=st.sampled_from([7, None]),
    window=st.integers(0, 0xFFFF),
    period=st.sampled_from([PERIOD - 1, PERIOD, PERIOD + 1, 0]).map(lambda period: period & 0xFFFF),
    tsval_sent=st.sampled_from([None, 0, 0xFFFFFFFF]),
    tsval_client=st.sampled_from([0, 0xFFFFFFFF]),
    confirm=st.booleans(),
    acknowledged=st.none() | numbers,
    octets=st.sampled_from([b"", b"GET / HTTP/1.0\r\n\r\n"]),
)
messages: st.SearchStrategy[Message] = st.one_of(
    handoffs,
    handoffs,
    st.builds(Closed, st.lists(identities, max_size=3).map(tuple)),
    st.builds(FlowsQuery, st.lists(keys, max_size=3).map(tuple)),
    st.builds(Adopted, identities, numbers),
)
options = st.one_of(
    st.just(b""), st.just(encode_timestamps(5, 6)), st.just(b"\x02\x04\x05\xb4\x03\x03\x07\x00"),
    st.just(b"\x02\x04\x05\xb4\x01\x03\x03\x07" + encode_timestamps(9, 0)),
    st.binary(min_size=12, max_size=12),
)  # fmt: skip
flags = st.sampled_from([0x10, 0x12, 0x12, 0x18, 0x11, 0x14, 0x04, 0x02, 0x00, 0xFF]) | st.integers(0, 0xFF)
packets = st.tuples(keys, numbers, numbers, flags, st.integers(0, 0xFFFF), options, st.sampled_from([b"", b"octets"]))
steps = st.one_of(
    st.tuples(st.just("arrives"), packets),
    st.tuples(st.just("leaves"), packets),
    st.tuples(st.just("says"), st.tuples(messages, st.sampled_from([0.0, 0.0, 0.0, 0.3]))),
    st.tuples(st.just("passes"), st.sampled_from([0.0, 0.01, 0.04, 0.1, 0.5, 3.0, 100.0])),
    st.tuples(st.just("replays"), handoffs),
    st.tuples(st.just("stops"), st.none()),
)


class Host:
    """Performs actions; what socket diagnostics say comes from the script, too."""

    def __init__(self, answers: list[bool]) -> None:
        self.config = be_config(LINES)
        self.agent = Agent(self.config)
        self.now = 5.0
        self.agent.on_utc(UTC_S, self.now)
        self._answers = answers

    def perform(self, actions: Sequence[Action], segment: Segment | None = None) -> None:
        for action in actions:
            match action:
                case DeliverArriving(translation):
                    assert segment is not None
                    assert self.agent.table.by_key[segment.key].translation is translation
                    self._translates(lambda packet, use=translation: translate_arriving(use, packet), segment)
                case DeliverLeaving(translation):
                    assert segment is not None
                    assert self.agent.table.by_leaving_key[segment.key].translation is translation
                    self._translates(lambda packet, use=translation: translate_leaving(use, packet), segment)
                case ClearTuple(key, _):
                    self.perform(self.agent.on_cleared(key, self._answer(), self.now))
                case Examine(key):
                    self.perform(self.agent.on_examined(key, 1 if self._answer() else None, self.now))
                case Send(_, message):
                    CODEC.encode(Envelope(1, 1, 1), message)
                case Inject(packet):
                    decode_segment(packet)

    def _answer(self) -> bool:
        return self._answers.pop() if self._answers else False

    @staticmethod
    def _translates(translate: Any, segment: Segment) -> None:
        try:
            decode_segment(translate(segment))
        except WireError:
            return

    def step(self, name: str, value: Any) -> None:
        if name == "passes":
            self.now += value
            self.agent.on_utc(UTC_S + self.now, self.now)
            self.perform(self.agent.on_timer(self.now))
            assert self.agent.next_deadline() > self.now
        elif name == "says":
            message, age_s = value
            self.perform(self.agent.on_message(self.config.fe[0], message, age_s, self.now))
        elif name == "stops":
            self.perform(self.agent.on_stop(self.now))
        elif name == "replays":
            self._replays(value)
        else:
            key, seq, ack, flags, window, options, payload = value
            self._packet(name, key, encode_segment, (seq, ack, flags, window, options, payload))

    def _packet(self, name: str, key: ConnectionKey, encode: Any, fields: tuple[Any, ...]) -> None:
        arrives = name == "arrives"
        segment = decode_segment(encode(key if arrives else reverse_key(key), *fields))
        react = self.agent.on_arriving if arrives else self.agent.on_leaving
        try:
            actions = react(segment, self.now)
        except WireError:
            return
        self.perform(actions, segment)

    def _replays(self, handoff: Handoff) -> None:
        """A HANDOFF and the answers that fit, which chance alone would seldom find."""
        self.step("says", (handoff, 0.0))
        stamps = b"" if handoff.tsval_sent is None else encode_timestamps(9, 0)
        first = SeqNum(handoff.identity.irs + 1)
        behind = SeqNum(first + len(handoff.octets))
        for seq, ack, flags in ((100, first, 0x12), (100, first, 0x12), (101, behind, 0x10)):
            self._packet("leaves", handoff.identity.key, encode_segment, (SeqNum(seq), ack, flags, 500, stamps, b""))

    def check(self) -> None:
        table = self.agent.table
        assert {flow.leaving_key for flow in table.by_key.values()} == set(table.by_leaving_key)
        for key, flow in table.by_key.items():
            assert flow.key == key
            assert table.by_leaving_key[reverse_key(key)] is flow
            assert (flow.replay is not None) == (flow.state in (FlowState.SYN_SENT, FlowState.ACK_SENT))
            assert (flow.translation is None) == (flow.state is FlowState.SYN_SENT)
            assert (flow.deadline < inf) or flow.replay is None, "a replay that nobody ends"
        assert 0 <= table.live <= self.config.max_flows
        assert len(table) - table.live <= self.config.max_finished
        assert len(table.finished) <= self.config.max_finished
        assert len(self.agent._holding) <= self.config.hold_packets


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(steps, max_size=40), st.lists(st.booleans(), max_size=20))
def test_any_script_keeps_the_tables_and_delivers_only_translated(
    script: list[tuple[str, Any]], answers: list[bool]
) -> None:
    host = Host(list(answers))
    for name, value in script:
        host.step(name, value)
        host.check()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(steps, max_size=40))
def test_any_script_then_silence_nothing_is_left(script: list[tuple[str, Any]]) -> None:
    """Where the host has no socket any more, every flow ends, and is forgotten after a while."""
    host = Host([])
    for name, value in script:
        host.step(name, value)
    for _ in range(60):
        host.step("passes", 3.0)
        host.check()
    assert len(host.agent.table) == 0
    assert len(host.agent._holding) == 0
    assert len(host.agent.table.finished) == 0


def test_the_script_reaches_every_state() -> None:
    """The strategies above would be worth little if they never left the first states."""
    host = Host([])
    seen = set()
    handoff = Handoff(
        Identity(connection_key(ip_address(CLIENTS[4]), 1, ip_address(VIPS[4]), 80), SeqNum(100), SeqNum(7)),
        Agreement(1460, 9, True), 7, 100, PERIOD & 0xFFFF, 0, 0, confirm=True,
    )  # fmt: skip
    script: list[tuple[str, Any]] = [("says", (handoff, 0.0)), ("replays", handoff), *[("passes", 1.0)] * 8]
    for name, value in script:
        host.step(name, value)
        seen |= {flow.state for flow in host.agent.table.by_key.values()}
    assert seen >= {FlowState.SYN_SENT, FlowState.ADOPTED, FlowState.FINISHED}
