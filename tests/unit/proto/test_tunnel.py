"""IP in IP against packets that scapy builds and takes apart."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.proto.checksum import ones_sum
from tcpha.proto.ip import IpAddress
from tcpha.proto.tcp import decode_segment
from tcpha.proto.tunnel import Tunnel, overhead_octets, with_checksum
from tests.unit.proto.conftest import CLIENT_IPV4, CLIENT_IPV6, VIP_IPV4, VIP_IPV6

ENDS: dict[int, tuple[IpAddress, IpAddress]] = {4: (CLIENT_IPV4, VIP_IPV4), 6: (CLIENT_IPV6, VIP_IPV6)}
families = pytest.mark.parametrize(("outer", "inner"), [(4, 4), (4, 6), (6, 4), (6, 6)])
both_families = pytest.mark.parametrize("family", [4, 6])


def packet(family: int, octets: bytes = b"abc", **tcp: Any) -> bytes:
    source, destination = map(str, ENDS[family])
    header = IP(src=source, dst=destination) if family == 4 else IPv6(src=source, dst=destination)
    return bytes(header / TCP(sport=40000, dport=80, seq=7, flags="PA", **tcp) / octets)


@families
def test_wrapped_packet_is_what_scapy_writes(outer: int, inner: int) -> None:
    source, destination = ENDS[outer]
    wrapped = Tunnel(source, destination).wrap(packet(inner))
    header = (
        IP(src=str(source), dst=str(destination), id=0, proto=4 if inner == 4 else 41)
        if outer == 4
        else IPv6(src=str(source), dst=str(destination), hlim=64, nh=4 if inner == 4 else 41)
    )
    assert wrapped == bytes(header / packet(inner))
    assert len(wrapped) == len(packet(inner)) + overhead_octets(outer)


def test_wrapped_packet_may_be_fragmented_on_the_way() -> None:
    assert not IP(Tunnel(*ENDS[4]).wrap(packet(4))).flags.DF


def test_ends_of_two_families_refused() -> None:
    with pytest.raises(ValueError, match="two families"):
        Tunnel(CLIENT_IPV4, VIP_IPV6)


# --- packets that the receiving host merged


def _pseudo_sum(octets: bytes) -> int:
    segment = decode_segment(octets)
    return ones_sum(segment.key[:-4] + b"\0\x06" + (segment.end - segment.tcp_offset).to_bytes(2, "big"))


@both_families
@pytest.mark.parametrize("length", [0, 1, 1448, 20_000])
def test_merged_packet_gets_its_checksum(family: int, length: int) -> None:
    octets = random.Random(length).randbytes(length)
    whole = packet(family, octets)
    merged = packet(family, octets, chksum=_pseudo_sum(whole))
    repaired = with_checksum(decode_segment(merged))
    decode_segment(repaired).check_checksum()
    assert repaired == whole


@both_families
def test_packet_with_a_checksum_left_right_or_wrong(family: int) -> None:
    for octets in (packet(family), packet(family, chksum=0x1234), packet(family, chksum=0)):
        segment = decode_segment(octets)
        assert with_checksum(segment) is segment.packet
