"""IP in IP (RFC 2003, RFC 2473, RFC 4213): a client's packet, whole, as the payload of one between two nodes.

    outer header   from the front end to the back end: 20 octets (IPv4) or 40 (IPv6), no options
    inner packet   as the client sent it

Deviation: an outer IPv4 packet may be fragmented on its way (RFC 2003, 3.1 would copy the inner packet's flag): the
back end's host puts it together again, and a narrow place between the nodes needs no path MTU discovery of its own. The
outer hop limit is a new one, as for any packet that the front end sends.
"""

from __future__ import annotations

import struct

from tcpha.proto.checksum import finish, ones_sum
from tcpha.proto.ip import (
    IPV4_HEADER_OCTETS,
    IPV6_HEADER_OCTETS,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_TCP,
    IpAddress,
    encode_header,
)
from tcpha.proto.tcp import CHECKSUM_OFFSET, Segment

_U16 = struct.Struct("!H")


def overhead_octets(outer_version: int) -> int:
    """Return how much longer a packet becomes; `outer_version`: 4 or 6."""
    return IPV4_HEADER_OCTETS if outer_version == 4 else IPV6_HEADER_OCTETS


class Tunnel:
    """The way from one node to another. `wrap` makes the packets; nothing is agreed on beforehand."""

    def __init__(self, source: IpAddress, destination: IpAddress) -> None:
        """Both addresses are of one family. Raises: ValueError if they are not."""
        if source.version != destination.version:
            raise ValueError("addresses of two families")
        self._source = source.packed
        self._destination = destination.packed

    def wrap(self, packet: bytes) -> bytes:
        """Return `packet`, of either family, inside one from source to destination."""
        protocol = PROTOCOL_IPV4 if packet[0] >> 4 == 4 else PROTOCOL_IPV6
        return encode_header(self._source, self._destination, protocol, len(packet), whole=False) + packet


def with_checksum(segment: Segment) -> bytes:
    """Return the packet with the TCP checksum that a merged one lacks.

    A host that merges arriving packets of a tunnel (GRO) has verified their checksums, and leaves only the sum of the
    pseudo-header in the field. Anything else in the field is left alone: whoever gets the packet verifies it.
    """
    octets = segment.end - segment.tcp_offset
    pseudo = ones_sum(segment.key[:-4]) + PROTOCOL_TCP + octets
    at = segment.tcp_offset + CHECKSUM_OFFSET
    field = _U16.unpack_from(segment.packet, at)[0]
    if (field - pseudo) % 0xFFFF:
        return segment.packet
    total = pseudo + ones_sum(segment.packet[segment.tcp_offset : segment.end]) - field
    packet = bytearray(segment.packet)
    _U16.pack_into(packet, at, finish(total))
    return bytes(packet)
