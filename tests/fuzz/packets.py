"""Connections and packets that the targets have in common."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from tcpha.proto.checksum import internet_checksum
from tcpha.proto.ip import IPV4_HEADER_OCTETS, ConnectionKey, IpAddress, connection_key
from tcpha.proto.tcp import Segment, decode_segment

ADDRESSES: dict[int, tuple[IpAddress, IpAddress]] = {
    4: (IPv4Address("192.0.2.10"), IPv4Address("198.18.0.36")),
    6: (IPv6Address("2001:db8:c::a"), IPv6Address("2001:db8:0:1::24")),
}
"""A client and a virtual address."""
PORT = 40000


def key_of(family: int, port: int = PORT, vip_port: int = 80) -> ConnectionKey:
    """The client's direction."""
    client, virtual = ADDRESSES[family]
    return connection_key(client, port, virtual, vip_port)


KEYS = {family: key_of(family) for family in (4, 6)}


def checked(packet: bytes) -> Segment:
    """A packet that was made here: its lengths and all its checksums must be right."""
    segment = decode_segment(packet)
    segment.check_checksum()
    assert segment.end == len(packet)
    assert packet[0] != 0x45 or internet_checksum(packet[:IPV4_HEADER_OCTETS]) == 0
    return segment
