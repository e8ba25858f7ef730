"""What the front end spends on a connection: SYN, request, and a packet of a flow that is handed over.

make bench-micro
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.config import load_front_end
from tcpha.fe.dispatcher import Dispatcher
from tcpha.proto.cookie import SynCookies
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey, connection_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Adopted, Capabilities, Handoff, Identity, NodeState, Status
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, PSH, SYN, decode_segment, encode_segment
from tcpha.rules import RuleSet

CONFIGURATION = """
raddr = 198.18.0.23
vaddr = 198.18.0.36
server = 198.18.0.33 666
server = 198.18.0.38 666
rule = 198.18.0.38 jpg$
rule = 198.18.0.33 .*
"""
REQUEST = b"GET /1k.html HTTP/1.1\r\nHost: 198.18.0.36\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
UTC_S = 1_700_000_000.0
ROUNDS = 20_000
IRS = SeqNum(1_000_000)


class Bench:
    """A dispatcher with two back ends that are up, and a client's packets."""

    def __init__(self, directory: Path) -> None:
        file = directory / "tcphafe.conf"
        file.write_text(CONFIGURATION)
        config = load_front_end(file)
        keyring = Keyring((Key(0, bytes(32)),))
        rules = RuleSet(config.rule, config.server, config.match_time)
        self.codec = HandoffCodec(keyring)
        self.dispatcher = Dispatcher(config, SynCookies(keyring), rules, 1500)
        self.dispatcher.on_utc(UTC_S, 0.0)
        stack = Capabilities(7, sack=True, timestamps=True, mss=1460)
        for backend in config.server:
            status = Status(1, 1, NodeState.UP, 0, config.digest(), stack)
            self.dispatcher.on_status(backend, status, restarted=False, now=0.0)

    def key(self, number: int) -> ConnectionKey:
        client = ip_address(int(ip_address("198.19.0.0")) + (number >> 14))
        return connection_key(client, 1024 + (number & 0x3FFF), ip_address("198.18.0.36"), 80)

    def syn(self, key: ConnectionKey) -> bytes:
        options = Options(1460, 7, sack_permitted=True, timestamps=(1, 0))
        return encode_segment(key, IRS, SeqNum(0), SYN, 64240, encode_options(options))

    def request(self, key: ConnectionKey) -> bytes:
        (reply,) = self.dispatcher.on_segment(decode_segment(self.syn(key)), 0.0)
        answer = decode_segment(reply.packet)  # type: ignore[union-attr]
        stamps = answer.timestamps
        assert stamps is not None
        options = encode_timestamps(2, stamps[0])
        return encode_segment(key, seq_add(IRS, 1), seq_add(answer.seg_seq, 1), ACK | PSH, 502, options, REQUEST)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_syn_with_cookie(benchmark: BenchmarkFixture, bench: Bench) -> None:
    packet = bench.syn(bench.key(0))
    benchmark(lambda: bench.dispatcher.on_segment(decode_segment(packet), 0.0))


def test_request_to_sealed_handoff(benchmark: BenchmarkFixture, bench: Bench) -> None:
    """Parse, cookie, inspection, match, message and its seal; a new connection each round."""
    packets = iter([bench.request(bench.key(number)) for number in range(ROUNDS)])

    def dispatch() -> bytes:
        actions = bench.dispatcher.on_segment(decode_segment(next(packets)), 0.0)
        message = actions[0].message  # type: ignore[union-attr]
        assert isinstance(message, Handoff)
        return bench.codec.encode(Envelope(23, 1, 1), message)

    benchmark.pedantic(dispatch, rounds=ROUNDS - 1, iterations=1)  # type: ignore[no-untyped-call]


def test_packet_of_a_forwarded_flow(benchmark: BenchmarkFixture, bench: Bench) -> None:
    key = bench.key(0)
    packet = bench.request(key)
    segment = decode_segment(packet)
    bench.dispatcher.on_segment(segment, 0.0)
    identity = Identity(key, IRS, seq_add(segment.seg_ack, -1))
    backend = bench.dispatcher.table.by_key[key].backend
    assert backend is not None
    bench.dispatcher.on_message(backend, Adopted(identity, seq_add(IRS, 1 + len(REQUEST))), 0.0)
    ack = encode_segment(key, seq_add(IRS, 1 + len(REQUEST)), segment.seg_ack, ACK, 502, encode_timestamps(3, 4))
    benchmark(lambda: bench.dispatcher.on_segment(decode_segment(ack), 0.0))
