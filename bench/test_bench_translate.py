"""What a back end spends on one packet: decoding, deciding, translating.

`python -m pytest bench/test_bench_translate.py`; on a busy machine compare the column Min of several runs.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.be.translator import Translation, translate_arriving, translate_leaving
from tcpha.proto.ip import reverse_key
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, PSH, Segment, decode_segment, encode_segment
from tests.packet.be_playbook import IRS, ISS, NEXT, SERVER_ISS, Playbook

SIZES = {"bare ACK": 0, "100 octets": 100, "1448 octets": 1448, "64 KB": 65_160}
TRANSLATION = Translation(0x89ABCDEF, 0x12345678, 0, 0, 1460)
SACK = b"\x01\x01\x05\x12" + bytes(range(16))

both_families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
all_sizes = pytest.mark.parametrize("octets", SIZES.values(), ids=SIZES)


def packet(family: int, octets: int, leaving: bool, options: bytes = b"") -> bytes:
    key = Playbook(family).key()
    key = reverse_key(key) if leaving else key
    seq = SERVER_ISS + 1 if leaving else (IRS + NEXT) & 0xFFFFFFFF
    ack = (IRS + NEXT if leaving else ISS + 1) & 0xFFFFFFFF
    stamps = encode_timestamps(7, 9)
    return encode_segment(key, SeqNum(seq), SeqNum(ack), ACK | PSH, 500, stamps + options, bytes(octets))


@both_families
@all_sizes
def test_translate_leaving(benchmark: BenchmarkFixture, family: int, octets: int) -> None:
    segment = decode_segment(packet(family, octets, leaving=True))
    assert len(benchmark(translate_leaving, TRANSLATION, segment)) == len(segment.packet)


@both_families
@all_sizes
def test_translate_arriving(benchmark: BenchmarkFixture, family: int, octets: int) -> None:
    segment = decode_segment(packet(family, octets, leaving=False))
    assert len(benchmark(translate_arriving, TRANSLATION, segment)) == len(segment.packet)


def test_translate_arriving_sack(benchmark: BenchmarkFixture) -> None:
    segment = decode_segment(packet(4, 0, leaving=False, options=SACK))
    assert benchmark(translate_arriving, TRANSLATION, segment) != segment.packet


def test_translate_leaving_rescaled(benchmark: BenchmarkFixture) -> None:
    segment = decode_segment(packet(4, 1448, leaving=True))
    assert benchmark(translate_leaving, replace(TRANSLATION, leaving_shift=3), segment) != segment.packet


def test_decode(benchmark: BenchmarkFixture) -> None:
    octets = packet(4, 1448, leaving=True)
    assert isinstance(benchmark(decode_segment, octets), Segment)


@both_families
def test_agent_on_arriving(benchmark: BenchmarkFixture, family: int) -> None:
    book = Playbook(family).until_adopted()
    segment = decode_segment(packet(family, 0, leaving=False))
    assert len(benchmark(book.agent.on_arriving, segment, book.now)) == 1


@both_families
def test_agent_on_leaving(benchmark: BenchmarkFixture, family: int) -> None:
    book = Playbook(family).until_adopted()
    segment = decode_segment(packet(family, 1448, leaving=True))
    assert len(benchmark(book.agent.on_leaving, segment, book.now)) == 1


@both_families
def test_agent_on_leaving_of_a_closing_flow(benchmark: BenchmarkFixture, family: int) -> None:
    """The client has half-closed: every packet is looked at."""
    book = Playbook(family).until_adopted()
    book.arrives("FA")
    segment = decode_segment(packet(family, 1448, leaving=True))
    assert len(benchmark(book.agent.on_leaving, segment, book.now)) == 1


@both_families
def test_arriving_in_all(benchmark: BenchmarkFixture, family: int) -> None:
    """From the octets out of the queue to the octets for the verdict."""
    book = Playbook(family).until_adopted()
    octets = packet(family, 0, leaving=False)
    flow = book.agent.table.by_key[book.key()]

    def carry() -> bytes:
        segment = decode_segment(octets)
        book.agent.on_arriving(segment, book.now)
        return translate_arriving(flow.translation or TRANSLATION, segment)

    assert benchmark(carry) != octets
