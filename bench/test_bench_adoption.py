"""What a back end spends on a connection: from the HANDOFF to the last acknowledgement, everything but the kernel.

make bench-micro
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.be.actions import Action, DeliverArriving, DeliverLeaving, Send
from tcpha.be.agent import Agent
from tcpha.be.translator import translate_arriving, translate_leaving
from tcpha.config import load_back_end
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import connection_key, reverse_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, FIN, PSH, SYN, decode_segment, encode_segment

CONFIGURATION = """
raddr = 198.18.0.33
vaddr = 198.18.0.36
fe = 198.18.0.23 666
server = 198.18.0.33 666
rule = 198.18.0.33 .*
probe_time = 600
"""
REQUEST = b"GET /1k.html HTTP/1.1\r\nHost: 198.18.0.36\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
UTC_S = 1_700_000_000.0
CONNECTIONS_A_ROUND = 10
ROUNDS = 2_000
IRS, ISS, SERVER_ISS = SeqNum(1_000_000), SeqNum(2_000_000), SeqNum(3_000_000)
BODY = bytes(1200)


class Connection:
    """What comes in of one connection, in order: the sealed HANDOFF, then packets of both directions."""

    def __init__(self, number: int, codec: HandoffCodec) -> None:
        client = ip_address(int(ip_address("198.19.0.0")) + (number >> 14))
        key = connection_key(client, 1024 + (number & 0x3FFF), ip_address("198.18.0.36"), 80)
        back = reverse_key(key)
        agreement = Agreement(1460, 7, sack=True)
        handoff = Handoff(
            Identity(key, IRS, ISS), agreement, 7, 502, int(UTC_S) >> 5, 500, 400, confirm=True, octets=REQUEST
        )
        self.datagram = codec.encode(Envelope(23, 1, number + 1), handoff)
        granted = encode_options(Options(1460, 7, sack_permitted=True, timestamps=(900, 0)))
        stamps, answer = encode_timestamps(501, 600), encode_timestamps(901, 501)
        nxt, end = seq_add(IRS, 1 + len(REQUEST)), len(BODY)
        mine, theirs = seq_add(SERVER_ISS, 1), seq_add(ISS, 1)
        self.synacks = [encode_segment(back, SERVER_ISS, seq_add(IRS, 1), SYN | ACK, 65160, granted)] * 2
        self.leaving = [
            encode_segment(back, mine, nxt, ACK, 509, answer),
            encode_segment(back, mine, nxt, ACK | PSH, 509, answer, BODY),
            encode_segment(back, seq_add(mine, end), nxt, ACK | FIN, 509, answer),
        ]
        self.arriving = [
            encode_segment(key, nxt, seq_add(theirs, end), ACK, 501, stamps),
            encode_segment(key, nxt, seq_add(theirs, end + 1), ACK | FIN, 501, stamps),
        ]
        self.last = encode_segment(back, seq_add(mine, end + 1), seq_add(nxt, 1), ACK, 509, answer)


class Bench:
    """An agent whose kernel is this file."""

    def __init__(self, directory: Path) -> None:
        file = directory / "tcphabe.conf"
        file.write_text(CONFIGURATION)
        config = load_back_end(file)
        self.agent = Agent(config)
        self.agent.on_utc(UTC_S, 0.0)
        self.codec = HandoffCodec(Keyring((Key(0, bytes(32)),)))
        (self.frontend,) = config.fe

    def leaves(self, packet: bytes) -> Sequence[Action]:
        segment = decode_segment(packet)
        actions = self.agent.on_leaving(segment, 0.0)
        for action in actions:
            if type(action) is DeliverLeaving:
                translate_leaving(action.translation, segment)
        return actions

    def arrives(self, packet: bytes) -> None:
        segment = decode_segment(packet)
        for action in self.agent.on_arriving(segment, 0.0):
            if type(action) is DeliverArriving:
                translate_arriving(action.translation, segment)

    def carry(self, connection: Connection) -> None:
        """The whole life of one connection."""
        _, message = self.codec.decode(connection.datagram)
        self.agent.on_message(self.frontend, message, 0.0, 0.0)
        for packet in connection.synacks:
            self.leaves(packet)
        first, *rest = connection.leaving
        for action in self.leaves(first):
            if type(action) is Send:
                self.codec.encode(Envelope(33, 1, 1), action.message)
        for packet in rest:
            self.leaves(packet)
        for packet in connection.arriving:
            self.arrives(packet)
        self.leaves(connection.last)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_connection_from_handoff_to_the_end(benchmark: BenchmarkFixture, bench: Bench) -> None:
    """Decode, replay, adopt, translate six packets, close; new connections each round, figures for one round."""
    carried = ROUNDS * CONNECTIONS_A_ROUND
    connections = iter([Connection(number, bench.codec) for number in range(carried)])

    def carry_some() -> None:
        for _ in range(CONNECTIONS_A_ROUND):
            bench.carry(next(connections))

    benchmark.pedantic(carry_some, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
    counters = bench.agent.counters
    assert counters.adopted == counters.closed == carried
