"""ICMP errors against packets that scapy builds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)

from tcpha.errors import TruncatedError, WireError
from tcpha.proto.icmp import decode_icmp_error, encode_too_big, is_icmp
from tcpha.proto.ip import IpAddress, connection_key
from tests.unit.proto.conftest import CLIENT_IPV4, CLIENT_IPV6, VIP_IPV4, VIP_IPV6

ROUTER = {4: "198.18.0.1", 6: "2001:db8::1"}
CLIENT: dict[int, IpAddress] = {4: CLIENT_IPV4, 6: CLIENT_IPV6}
VIP: dict[int, IpAddress] = {4: VIP_IPV4, 6: VIP_IPV6}
both_families = pytest.mark.parametrize("family", [4, 6])
ERRORS: list[tuple[int, Any]] = [
    (4, ICMP(type=3, code=4, nexthopmtu=1400)),
    (4, ICMP(type=3, code=1)),
    (4, ICMP(type=11)),
    (4, ICMP(type=12)),
    (6, ICMPv6PacketTooBig(mtu=1400)),
    (6, ICMPv6DestUnreach()),
    (6, ICMPv6TimeExceeded()),
    (6, ICMPv6ParamProblem()),
]


def ip(family: int, source: Any, destination: Any, **more: Any) -> Any:
    kind = IP if family == 4 else IPv6
    return kind(src=str(source), dst=str(destination), **more)


def quoted(family: int, seq: int = 0x89ABCDEF, octets: bytes = b"abc") -> Any:
    """A segment from a virtual address to a client."""
    return ip(family, VIP[family], CLIENT[family]) / TCP(sport=80, dport=40000, seq=seq, flags="PA") / octets


def about(inner: Any, icmp: Any, family: int) -> bytes:
    return bytes(ip(family, ROUTER[family], VIP[family]) / icmp / bytes(inner))


@pytest.mark.parametrize(("family", "icmp"), ERRORS)
def test_error_about_a_segment_names_the_connection_and_the_number(family: int, icmp: Any) -> None:
    packet = about(quoted(family), icmp, family)
    error = decode_icmp_error(packet)
    assert is_icmp(packet)
    assert error.key == connection_key(VIP[family], 80, CLIENT[family], 40000)
    assert error.seg_seq == 0x89ABCDEF
    assert packet[error.seq_offset : error.seq_offset + 4] == bytes.fromhex("89abcdef")
    assert packet[error.icmp_offset] == bytes(icmp)[0]


@both_families
def test_error_that_quotes_no_more_than_eight_octets_of_the_segment_decoded(family: int) -> None:
    header = 20 if family == 4 else 40
    icmp = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig()
    packet = about(bytes(quoted(family))[: header + 8], icmp, family)
    assert decode_icmp_error(packet).seg_seq == 0x89ABCDEF
    for length in range(len(packet)):
        with pytest.raises(TruncatedError if length else WireError):
            decode_icmp_error(packet[:length])


@pytest.mark.parametrize(
    ("family", "icmp"),
    [(4, ICMP(type=8)), (4, ICMP(type=0)), (4, ICMP(type=5)), (6, ICMPv6EchoRequest()), (6, ICMPv6ND_NS())],
)
def test_icmp_that_is_no_error_refused(family: int, icmp: Any) -> None:
    with pytest.raises(WireError, match="no ICMP error"):
        decode_icmp_error(about(bytes(80), icmp, family))


def test_error_about_something_else_refused() -> None:
    icmp = ICMP(type=3, code=4)
    inner = {
        "it quotes no TCP": ip(4, VIP[4], CLIENT[4]) / UDP(sport=80) / bytes(20),
        "IPv4 options": bytes([0x46]) + bytes(quoted(4))[1:],
        "a fragment": ip(4, VIP[4], CLIENT[4], frag=5, proto=6) / bytes(20),
    }
    for reason, each in inner.items():
        with pytest.raises(WireError, match=reason):
            decode_icmp_error(about(each, icmp, 4))
    fragment = ip(6, VIP[6], CLIENT[6]) / IPv6ExtHdrFragment() / TCP(sport=80)
    with pytest.raises(WireError, match="it quotes no TCP"):
        decode_icmp_error(about(fragment, ICMPv6PacketTooBig(), 6))
    with pytest.raises(WireError, match="another IP version"):
        decode_icmp_error(about(bytes(60), ICMPv6PacketTooBig(), 6))


@both_families
def test_error_for_another_host_than_sent_what_it_quotes_refused(family: int) -> None:
    icmp = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig()
    packet = bytes(ip(family, ROUTER[family], CLIENT[family]) / icmp / bytes(quoted(family)))
    with pytest.raises(WireError, match="another host"):
        decode_icmp_error(packet)


@both_families
def test_tcp_segment_is_no_icmp(family: int) -> None:
    assert not is_icmp(bytes(quoted(family)))
    with pytest.raises(WireError, match="no ICMP error"):
        decode_icmp_error(bytes(quoted(family, octets=bytes(100))))


@given(st.binary(min_size=20, max_size=200))
def test_any_octets_raise_only_wire_errors(octets: bytes) -> None:
    is_icmp(octets)
    for start in (b"", bytes(about(quoted(4), ICMP(type=3, code=4), 4))[:30], bytes(40)):
        try:
            decode_icmp_error(start + octets)
        except WireError:
            continue


# --- too big


@both_families
@pytest.mark.parametrize("octets", [0, 1, 100, 1401, 4000])
def test_too_big_is_what_scapy_writes_and_quotes_the_packet(family: int, octets: int) -> None:
    packet = bytes(ip(family, CLIENT[family], VIP[family]) / TCP(sport=40000, dport=80, seq=7) / bytes(octets))
    told = encode_too_big(packet, 1480)
    read = (IP if family == 4 else IPv6)(told)
    assert (read.src, read.dst) == (str(VIP[family]), str(CLIENT[family]))
    again = read.copy()
    if family == 4:
        assert (read[ICMP].type, read[ICMP].code, read[ICMP].nexthopmtu) == (3, 4, 1480)
        assert len(told) <= 576
        del again[IP].chksum
        del again[ICMP].chksum
    else:
        assert read[ICMPv6PacketTooBig].mtu == 1480
        assert len(told) <= 1280
        del again[ICMPv6PacketTooBig].cksum
    assert bytes(again) == told
    quote = told[(20 if family == 4 else 40) + 8 :]
    assert packet.startswith(quote)
    assert len(quote) == min(len(packet), (576 - 28) if family == 4 else (1280 - 48))
    assert decode_icmp_error(told).key == connection_key(CLIENT[family], 40000, VIP[family], 80)
