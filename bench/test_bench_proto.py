"""What the codecs cost for one packet or message: `make bench-micro`."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.proto.checksum import internet_checksum, update
from tcpha.proto.cookie import Agreement, SynCookies
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey, connection_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Adopted, Closed, Handoff, Identity, Message, NodeState, Status
from tcpha.proto.options import Options, decode_options, encode_options, encode_timestamps
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, PSH, SYN, Segment, decode_segment, encode_segment

UTC_S = 1_700_000_000.0
IRS = SeqNum(0x11223344)
KEYS = {
    "IPv4": connection_key(ip_address("198.18.0.10"), 40000, ip_address("198.18.0.36"), 80),
    "IPv6": connection_key(ip_address("2001:db8::a"), 40000, ip_address("2001:db8::24"), 80),
}
KEYRING = Keyring((Key(1, bytes(range(32))),))
TWO_KEYS = Keyring((Key(2, bytes(range(32, 64))), Key(1, bytes(range(32)))))
AGREEMENT = Agreement(1460, 7, sack=True)
REQUEST = b"GET /a.jpg HTTP/1.1\r\nHost: www.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
STAMPS = encode_timestamps(1, 2)
ENVELOPE = Envelope(23, 1, 1)

both_families = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


def packet(key: ConnectionKey, payload: bytes) -> bytes:
    return encode_segment(key, IRS, SeqNum(0x55667788), PSH | ACK, 502, STAMPS, payload)


def read(octets: bytes) -> tuple[Segment, tuple[int, int] | None]:
    segment = decode_segment(octets)
    return segment, segment.timestamps


def verify(segment: Segment) -> bool:
    segment.check_checksum()
    return True


@both_families
def test_packet_decoded(benchmark: BenchmarkFixture, key: ConnectionKey) -> None:
    segment = benchmark(decode_segment, packet(key, b""))
    assert segment.key == key


@both_families
def test_packet_decoded_with_timestamps(benchmark: BenchmarkFixture, key: ConnectionKey) -> None:
    assert benchmark(read, packet(key, b""))[1] == (1, 2)


@both_families
@pytest.mark.parametrize("octets", [0, 1448])
def test_packet_encoded(benchmark: BenchmarkFixture, key: ConnectionKey, octets: int) -> None:
    written = benchmark(packet, key, bytes(octets))
    decode_segment(written).check_checksum()


@pytest.mark.parametrize("octets", [0, 1448])
def test_checksum_verified(benchmark: BenchmarkFixture, octets: int) -> None:
    assert benchmark(verify, decode_segment(packet(KEYS["IPv4"], bytes(octets))))


def test_checksum_updated(benchmark: BenchmarkFixture) -> None:
    assert benchmark(update, internet_checksum(bytes(range(20))), 0x12345) >= 0


def test_options_of_a_syn_decoded(benchmark: BenchmarkFixture) -> None:
    options = Options(1460, 7, True, (1, 0))
    octets = encode_options(options)
    assert benchmark(decode_options, octets, 0, len(octets)) == options


def test_options_of_a_syn_encoded(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(encode_options, Options(1460, 7, True, (1, 0)))) == 20


@both_families
def test_syn_answered(benchmark: BenchmarkFixture, key: ConnectionKey) -> None:
    """Decode a SYN, read its options, make the cookie, encode the SYN-ACK."""
    cookies = SynCookies(KEYRING)
    syn = encode_segment(key, IRS, SeqNum(0), SYN, 64240, encode_options(Options(1460, 7, True, (1, 0))))

    def answer() -> bytes:
        segment = decode_segment(syn)
        options = segment.options
        agreement = Agreement(options.mss or 536, options.window_scale, options.sack_permitted)
        iss, tsval = cookies.make(segment.key, segment.seg_seq, agreement, UTC_S)
        promise = encode_options(Options(1460, 7, True, (tsval, 1)))
        return encode_segment(segment.key, iss, SeqNum(IRS + 1), SYN | ACK, 65535, promise)

    assert decode_segment(benchmark(answer)).flags == SYN | ACK


@both_families
def test_cookie_made(benchmark: BenchmarkFixture, key: ConnectionKey) -> None:
    _, tsval = benchmark(SynCookies(KEYRING).make, key, IRS, AGREEMENT, UTC_S)
    assert tsval > 0


@both_families
def test_cookie_checked(benchmark: BenchmarkFixture, key: ConnectionKey) -> None:
    cookies = SynCookies(KEYRING)
    iss, tsval = cookies.make(key, IRS, AGREEMENT, UTC_S)
    assert benchmark(cookies.check, key, IRS, iss, tsval, UTC_S) is not None


def test_cookie_forged_checked_with_two_keys(benchmark: BenchmarkFixture) -> None:
    """The dearest case: three periods under two keys, none fits."""
    assert benchmark(SynCookies(TWO_KEYS).check, KEYS["IPv4"], IRS, SeqNum(1), 1, UTC_S) is None


def handoff(key: ConnectionKey, octets: bytes) -> Handoff:
    return Handoff(Identity(key, IRS, SeqNum(2)), AGREEMENT, 7, 502, 1, 3, 4, confirm=False, octets=octets)


MESSAGES: dict[str, Message] = {
    "HANDOFF-IPv4": handoff(KEYS["IPv4"], REQUEST),
    "HANDOFF-IPv6": handoff(KEYS["IPv6"], REQUEST),
    "HANDOFF-IPv4-1400-octets": handoff(KEYS["IPv4"], bytes(1400)),
    "ADOPTED": Adopted(Identity(KEYS["IPv4"], IRS, SeqNum(2)), IRS),
    "CLOSED-19-flows": Closed((Identity(KEYS["IPv6"], IRS, SeqNum(2)),) * 19),
    "STATUS": Status(1, 2, NodeState.UP, 3, bytes(16)),
}
every_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


@every_message
def test_message_encoded(benchmark: BenchmarkFixture, message: Message) -> None:
    assert len(benchmark(HandoffCodec(KEYRING).encode, ENVELOPE, message)) >= 68


@every_message
def test_message_decoded(benchmark: BenchmarkFixture, message: Message) -> None:
    codec = HandoffCodec(KEYRING)
    assert benchmark(codec.decode, codec.encode(ENVELOPE, message)) == (ENVELOPE, message)


def test_message_forged_refused(benchmark: BenchmarkFixture) -> None:
    codec = HandoffCodec(KEYRING)
    forged = bytes(16) + codec.encode(ENVELOPE, MESSAGES["HANDOFF-IPv4"])[16:]

    def refuse() -> bool:
        try:
            codec.decode(forged)
        except Exception as error:
            return "wrong tag" in str(error)
        return False

    assert benchmark(refuse)
