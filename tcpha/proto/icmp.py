"""ICMP errors about TCP segments (RFC 792, RFC 4443): read where they come in, written where a packet is too big.

An error quotes the packet that caused it, so it names a connection by the other end's direction: one about a packet
that went from a virtual address to a client has the virtual address as the source of what it quotes. A router sends
such an error to the virtual address, which is the front end's, while the packet was a back end's.
"""

from __future__ import annotations

import struct

from tcpha.errors import TruncatedError, WireError
from tcpha.proto.checksum import finish, ones_sum
from tcpha.proto.ip import (
    IPV4_HEADER_OCTETS,
    IPV6_HEADER_OCTETS,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    ConnectionKey,
    encode_header,
)
from tcpha.proto.seqnum import SeqNum

ICMP_HEADER_OCTETS = 8
CHECKSUM_OFFSET = 2
ERRORS = {4: frozenset({3, 11, 12}), 6: frozenset({1, 2, 3, 4})}
"""Types of the errors a host's TCP takes note of: unreachable (and too big), time exceeded, parameter problem."""

_PORTS_AND_SEQ_OCTETS = 8
_LARGEST = {4: 576, 6: 1280}
"""Octets of a whole error packet at most (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c)."""
_SEQ = struct.Struct("!I")
_HEADER = struct.Struct("!BBHI")
_TOO_BIG = {4: (3, 4), 6: (2, 0)}
"""Type and code of fragmentation needed (RFC 1191, 4) and of packet too big (RFC 4443, 3.2)."""


class IcmpError:
    """One error about a TCP segment. Never changed after `decode_icmp_error` made it."""

    __slots__ = ("icmp_offset", "key", "packet", "seg_seq", "seq_offset")

    packet: bytes
    """The whole IP packet."""
    icmp_offset: int
    key: ConnectionKey
    """The direction of the segment that is quoted."""
    seq_offset: int
    """Where the quoted sequence number stands."""
    seg_seq: SeqNum
    """SEG.SEQ of the quoted segment."""


def is_icmp(packet: bytes) -> bool:
    """Does an IP packet carry ICMP, whatever it says? Looks at two octets only."""
    return packet[9:10] == b"\x01" if packet[:1] < b"\x50" else packet[6:7] == b"\x3a"


def decode_icmp_error(packet: bytes) -> IcmpError:
    """Decode an IPv4 or IPv6 packet that must be an ICMP error about an unfragmented TCP segment.

    It must be for the host that sent what it quotes (RFC 1122, 3.2.2). The checksum is not verified: whoever acts on
    the error does that. Nor is what is quoted behind the sequence number (RFC 792 promises 8 octets of it).

    Raises: WireError (TruncatedError where octets are missing).
    """
    error = IcmpError()
    error.packet = packet
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        header, protocol, offset = IPV4_HEADER_OCTETS, PROTOCOL_ICMP, 9
    elif version == 6:
        header, protocol, offset = IPV6_HEADER_OCTETS, PROTOCOL_ICMPV6, 6
    else:
        raise WireError(f"IP version {version}", 0)
    quoted = header + ICMP_HEADER_OCTETS
    if len(packet) < quoted + header + _PORTS_AND_SEQ_OCTETS:
        raise TruncatedError("shorter than an error and what it must quote", len(packet))
    if packet[offset] != protocol or packet[header] not in ERRORS[version]:
        raise WireError("no ICMP error", header)
    _check_plain(packet, 0, version)
    _check_plain(packet, quoted, version)
    if packet[quoted + offset] != PROTOCOL_TCP:
        raise WireError("it quotes no TCP segment", quoted + offset)
    ports = quoted + header
    addresses = ports - (8 if version == 4 else 32)
    size = 4 if version == 4 else 16
    if packet[header - size : header] != packet[addresses : addresses + size]:
        raise WireError("it quotes a packet of another host", addresses)
    error.icmp_offset = header
    error.key = ConnectionKey(packet[addresses : ports + 4])
    error.seq_offset = ports + 4
    error.seg_seq = SeqNum(_SEQ.unpack_from(packet, error.seq_offset)[0])
    return error


def encode_too_big(packet: bytes, mtu_octets: int) -> bytes:
    """Return the error that tells the sender of `packet` that no more than `mtu_octets` fit on the way.

    It comes from the packet's destination: that host speaks for the way behind it. `packet` must have a whole IP
    header without options or extensions. RFC 1191, 4; RFC 4443, 3.2.
    """
    version = packet[0] >> 4
    kind, code = _TOO_BIG[version]
    if version == 4:
        source, destination, protocol, header = packet[16:20], packet[12:16], PROTOCOL_ICMP, IPV4_HEADER_OCTETS
    else:
        source, destination, protocol, header = packet[24:40], packet[8:24], PROTOCOL_ICMPV6, IPV6_HEADER_OCTETS
    quote = packet[: _LARGEST[version] - header - ICMP_HEADER_OCTETS]
    octets = ICMP_HEADER_OCTETS + len(quote)
    total = (kind << 8 | code) + mtu_octets + ones_sum(quote)
    if version == 6:  # ICMPv6 alone has a pseudo-header (RFC 4443, 2.3)
        total += ones_sum(source) + ones_sum(destination) + octets + PROTOCOL_ICMPV6
    icmp = _HEADER.pack(kind, code, finish(total), mtu_octets)
    return b"".join((encode_header(source, destination, protocol, octets), icmp, quote))


def _check_plain(packet: bytes, start: int, version: int) -> None:
    """Raises: WireError for an IP header with options, of another version, or of a fragment."""
    if version == 6:
        if packet[start] >> 4 != 6:
            raise WireError("another IP version", start)
    elif packet[start] != 0x45:
        raise WireError("IPv4 options, or another IP version", start)
    elif packet[start + 6] & 0x3F or packet[start + 7]:
        raise WireError("a fragment", start + 6)
