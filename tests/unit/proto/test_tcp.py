from __future__ import annotations

from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting

from tcpha.be.counters import BackEndCounters
from tcpha.errors import ChecksumError, OptionError, TruncatedError, WireError
from tcpha.fe.counters import FrontEndCounters
from tcpha.proto.ip import ConnectionKey, connection_key
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, FIN, PSH, SYN, decode_segment, encode_segment
from tests.unit.proto.conftest import CLIENT_IPV4, CLIENT_IPV6, KEY_IPV4, KEY_IPV6, VIP_IPV4, VIP_IPV6, u8, u16, u32

TEMPLATE: dict[str, Any] = {"sport": 40000, "dport": 80, "seq": 1000, "ack": 2000, "flags": "PA", "window": 502}
STAMPS: list[Any] = [("NOP", None), ("NOP", None), ("Timestamp", (11, 22))]

both_families = pytest.mark.parametrize("family", [4, 6])
addresses = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(
    st.ip_addresses(v=6), st.ip_addresses(v=6)
)


def oracle_ip(source: object, destination: object) -> Any:
    if isinstance(source, IPv4Address):
        return IP(src=str(source), dst=str(destination), id=0, flags="DF", ttl=64)
    return IPv6(src=str(source), dst=str(destination), hlim=64)


def packet(family: int, payload: bytes = b"GET / HTTP/1.1\r\n\r\n", **tcp: Any) -> bytes:
    """A segment built by scapy; `tcp` says what differs from the template."""
    ip = oracle_ip(CLIENT_IPV4, VIP_IPV4) if family == 4 else oracle_ip(CLIENT_IPV6, VIP_IPV6)
    return bytes(ip / TCP(**(TEMPLATE | tcp)) / payload)


def ip_octets(family: int) -> int:
    return 20 if family == 4 else 40


@both_families
def test_segment_of_scapy_decoded_has_its_values(family: int) -> None:
    octets = packet(family, options=STAMPS)
    segment = decode_segment(octets)
    assert segment.key == (KEY_IPV4 if family == 4 else KEY_IPV6)
    assert (segment.seg_seq, segment.seg_ack, segment.seg_wnd) == (1000, 2000, 502)
    assert segment.flags == PSH | ACK
    assert segment.payload == b"GET / HTTP/1.1\r\n\r\n"
    assert segment.payload_octets == segment.seg_len == 18
    assert segment.timestamps == (11, 22)
    assert (segment.tcp_offset, segment.payload_offset) == (ip_octets(family), ip_octets(family) + 32)
    assert segment.end == len(octets)
    segment.check_checksum()


@both_families
def test_syn_of_scapy_decoded_has_its_options(family: int) -> None:
    tcp_options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 9)]
    segment = decode_segment(packet(family, b"", flags="S", options=tcp_options))
    assert segment.options == Options(1440, 9, True, (5, 0))
    assert segment.seg_len == 1


@both_families
@pytest.mark.parametrize(("flags", "seg_len"), [("A", 3), ("S", 4), ("FA", 4), ("SF", 5), ("R", 3)])
def test_syn_and_fin_count_one_each(family: int, flags: str, seg_len: int) -> None:
    assert decode_segment(packet(family, b"abc", flags=flags)).seg_len == seg_len


@given(addresses, st.tuples(u16, u16), u32, u32, u8, u16, st.booleans(), st.binary(max_size=60))
def test_any_values_encoded_are_the_octets_of_scapy(
    ends: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address],
    ports: tuple[int, int],
    seq: int,
    ack: int,
    flags: int,
    window: int,
    has_stamps: bool,
    payload: bytes,
) -> None:
    key = connection_key(ends[0], ports[0], ends[1], ports[1])
    stamps = encode_timestamps(11, 22) if has_stamps else b""
    octets = encode_segment(key, SeqNum(seq), SeqNum(ack), flags, window, stamps, payload)

    tcp = TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, window=window)
    tcp.options = STAMPS if has_stamps else []
    assert octets == bytes(oracle_ip(*ends) / tcp / payload)

    segment = decode_segment(octets)
    segment.check_checksum()
    assert (segment.key, segment.seg_seq, segment.seg_ack, segment.flags, segment.seg_wnd, segment.payload) == (
        (key, seq, ack, flags, window, payload)
    )
    assert segment.timestamps == ((11, 22) if has_stamps else None)


@both_families
def test_every_option_encoded_is_the_octets_of_scapy(family: int) -> None:
    key = KEY_IPV4 if family == 4 else KEY_IPV6
    written = encode_options(Options(1460, 7, True, (1, 2)))
    octets = encode_segment(key, SeqNum(1000), SeqNum(2000), SYN | ACK, 502, written)
    tcp_options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]
    assert octets == packet(family, b"", flags="SA", options=tcp_options)


def test_segment_encoded_pinned_octet_by_octet() -> None:
    octets = encode_segment(KEY_IPV4, SeqNum(0x11223345), SeqNum(0x55667789), PSH | ACK, 502, payload=b"abc")
    assert octets == bytes.fromhex(
        "4500002b 00004000 4006ae7a c612000a c6120024 9c400050 11223345 55667789 501801f6 af360000 616263"
    )


@both_families
@given(bit=st.integers(0, 50 * 8 - 1))
def test_any_bit_flipped_checksum_is_wrong(family: int, bit: int) -> None:
    octets = bytearray(packet(family, options=STAMPS))
    segment = decode_segment(bytes(octets))
    octets[segment.tcp_offset + bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChecksumError):
        replace(segment, packet=bytes(octets)).check_checksum()


@both_families
def test_address_other_than_sent_to_checksum_is_wrong(family: int) -> None:
    octets = bytearray(packet(family))
    octets[ip_octets(family) - 1] ^= 1
    with pytest.raises(ChecksumError):
        decode_segment(bytes(octets)).check_checksum()


@both_families
@pytest.mark.parametrize("payload", [b"", b"a", b"ab", b"abc"])
def test_odd_and_even_payload_checksum_is_right(family: int, payload: bytes) -> None:
    decode_segment(packet(family, payload)).check_checksum()


@both_families
def test_octets_behind_the_packet_are_no_payload(family: int) -> None:
    segment = decode_segment(packet(family, b"abc") + bytes(7))
    assert segment.payload == b"abc"
    assert segment.seg_len == 3
    segment.check_checksum()


@both_families
def test_packet_cut_anywhere_is_truncated(family: int) -> None:
    octets = packet(family, options=STAMPS)
    for octets_left in range(len(octets)):
        with pytest.raises(TruncatedError):
            decode_segment(octets[:octets_left])


@both_families
@pytest.mark.parametrize("data_offset", [0, 1, 4, 15])
def test_data_offset_that_does_not_fit_is_refused(family: int, data_offset: int) -> None:
    with pytest.raises(TruncatedError, match="lengths do not fit") as raised:
        decode_segment(packet(family, b"", dataofs=data_offset))
    assert raised.value.offset == ip_octets(family) + 12


@both_families
@pytest.mark.parametrize("length", [0, 19, 39, 65535])
def test_length_that_does_not_fit_is_refused(family: int, length: int) -> None:
    octets = bytearray(packet(family))
    octets[2:4] = length.to_bytes(2, "big")
    if family == 6:
        octets[4:6] = (19 if length == 39 else length).to_bytes(2, "big")
    with pytest.raises(TruncatedError, match="lengths do not fit"):
        decode_segment(bytes(octets))


@both_families
def test_header_up_to_the_end_of_the_packet_carries_nothing(family: int) -> None:
    segment = decode_segment(packet(family, b""))
    assert segment.payload == b""
    assert segment.payload_offset == segment.end


@pytest.mark.parametrize(("flags", "fragment"), [("MF", 0), (0, 1), ("DF", 8191), ("MF+DF", 100)])
def test_fragment_is_refused(flags: str | int, fragment: int) -> None:
    octets = bytes(IP(src="1.2.3.4", dst="5.6.7.8", flags=flags, frag=fragment) / TCP(**TEMPLATE))
    with pytest.raises(WireError, match="a fragment"):
        decode_segment(octets)


@pytest.mark.parametrize("flags", [0, "DF", "evil"])
def test_whole_packet_with_any_other_flag_is_read(flags: str | int) -> None:
    assert decode_segment(bytes(IP(flags=flags) / TCP(**TEMPLATE))).seg_seq == 1000


def test_ipv4_options_are_refused() -> None:
    octets = bytes(IP(options=[IPOption_NOP()] * 4) / TCP(**TEMPLATE))
    with pytest.raises(WireError, match="IPv4 options"):
        decode_segment(octets)


def test_ipv6_extension_header_is_refused() -> None:
    octets = bytes(IPv6() / IPv6ExtHdrDestOpt() / TCP(**TEMPLATE))
    with pytest.raises(WireError, match="extension header 60"):
        decode_segment(octets)


REFUSED = {
    "IPv4 fragment": (IP(flags="MF") / TCP(**TEMPLATE), "fragments"),
    "last IPv4 fragment, 4 octets": (IP(frag=100, proto=6) / bytes(4), "fragments"),
    "IPv4 fragment with options": (IP(frag=1, options=[IPOption_NOP()] * 4) / TCP(**TEMPLATE), "fragments"),
    "IPv6 fragment": (IPv6() / IPv6ExtHdrFragment(m=1) / TCP(**TEMPLATE), "fragments"),
    "last IPv6 fragment, 4 octets": (IPv6() / IPv6ExtHdrFragment(offset=100, nh=6) / bytes(4), "fragments"),
    "IPv4 options": (IP(options=[IPOption_NOP()] * 4) / TCP(**TEMPLATE), "extra_headers"),
    "IPv6 hop-by-hop options": (IPv6() / IPv6ExtHdrHopByHop() / TCP(**TEMPLATE), "extra_headers"),
    "IPv6 routing header, nothing behind it": (IPv6() / IPv6ExtHdrRouting(), "extra_headers"),
    "UDP over IPv4": (IP() / UDP() / bytes(40), "malformed"),
    "UDP over IPv6": (IPv6() / UDP() / bytes(40), "malformed"),
    "cut IPv4 header": (bytes(IP())[:12], "malformed"),
    "cut TCP header": (bytes(IPv6(nh=6)) + bytes(19), "malformed"),
    "another version": (b"\x70" + bytes(59), "malformed"),
    "nothing": (b"", "malformed"),
}


@pytest.mark.parametrize("counters", [FrontEndCounters, BackEndCounters])
@pytest.mark.parametrize(("refused", "counter"), REFUSED.values(), ids=REFUSED)
def test_refused_packet_is_counted_by_what_it_is(
    refused: Any, counter: str, counters: type[FrontEndCounters | BackEndCounters]
) -> None:
    counted = counters()
    with pytest.raises(WireError) as caught:
        decode_segment(bytes(refused))
    counted.refuse(caught.value)
    assert {name: value for name, value in asdict(counted).items() if value} == {counter: 1}


@pytest.mark.parametrize("ip", [IP(), IPv6()])
def test_another_protocol_is_refused(ip: Any) -> None:
    with pytest.raises(WireError, match="protocol 17, not TCP"):
        decode_segment(bytes(ip / UDP() / bytes(40)))


@pytest.mark.parametrize("version", [0, 3, 5, 7, 15])
def test_another_ip_version_is_refused(version: int) -> None:
    with pytest.raises(WireError, match=f"IP version {version}"):
        decode_segment(bytes([version << 4]) + bytes(59))


@both_families
def test_malformed_options_are_refused_only_when_read(family: int) -> None:
    octets = bytearray(packet(family, options=STAMPS))
    octets[ip_octets(family) + 20 : ip_octets(family) + 24] = b"\x02\x03\x00\x00"
    segment = decode_segment(bytes(octets))
    with pytest.raises(OptionError):
        _ = segment.options
    with pytest.raises(OptionError):
        _ = segment.timestamps


@st.composite
def nearly_packets(draw: st.DrawFn) -> bytes:
    """A packet of which a few octets differ, perhaps cut."""
    octets = bytearray(packet(draw(st.sampled_from((4, 6))), options=STAMPS))
    for _ in range(draw(st.integers(0, 6))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(u8)
    return bytes(octets[: draw(st.integers(0, len(octets)))]) if draw(st.booleans()) else bytes(octets)


@given(st.binary(max_size=120) | nearly_packets())
def test_any_octets_only_wire_error_is_raised(octets: bytes) -> None:
    try:
        segment = decode_segment(octets)
    except WireError:
        return
    assert segment.tcp_offset + 20 <= segment.payload_offset <= segment.end <= len(octets)
    assert segment.payload_octets == len(segment.payload)
    for read in (lambda: segment.options, lambda: segment.timestamps, segment.check_checksum):
        try:
            read()
        except (OptionError, ChecksumError):
            continue


@both_families
def test_fin_with_octets_scapy_sees_the_same(family: int) -> None:
    key: ConnectionKey = KEY_IPV4 if family == 4 else KEY_IPV6
    octets = encode_segment(key, SeqNum(0xFFFFFFFF), SeqNum(0), FIN | ACK, 0xFFFF, payload=b"bye")
    seen = (IP if family == 4 else IPv6)(octets)
    assert (seen[TCP].seq, seen[TCP].ack, str(seen[TCP].flags), bytes(seen[TCP].payload)) == (
        2**32 - 1,
        0,
        "FA",
        b"bye",
    )
