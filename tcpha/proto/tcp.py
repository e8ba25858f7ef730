"""TCP segments (RFC 9293, 3.1) as views over the packet that carries them.

A `Segment` is made once per packet, checked once, and never copied: the octets stay where they are and everything
else in the package reads them through it.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from tcpha.errors import ChecksumError, ExtraHeaderError, FragmentError, TruncatedError, WireError
from tcpha.proto.checksum import finish, ones_sum
from tcpha.proto.ip import (
    DONT_FRAGMENT,
    FIRST_WORD_IPV4,
    FIRST_WORDS_IPV6,
    HOP_LIMIT,
    IPV4_HEADER_OCTETS,
    IPV6_HEADER_OCTETS,
    KEY_OCTETS_IPV4,
    PROTOCOL_TCP,
    ConnectionKey,
)
from tcpha.proto.options import Options, decode_options, decode_timestamps
from tcpha.proto.seqnum import SeqNum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

TCP_HEADER_OCTETS = 20
SEQ_OFFSET, ACK_OFFSET, WINDOW_OFFSET, CHECKSUM_OFFSET = 4, 8, 14, 16

# first octet, total length, fragment field, protocol, addresses and ports, seq, ack, data offset, flags, window
_IPV4_TCP = struct.Struct("!BxHxxHxBxx12sIIBBH")
# first octet, payload length, next header, addresses and ports, seq, ack, data offset, flags, window
_IPV6_TCP = struct.Struct("!BxxxHBx36sIIBBH")
_IPV4_MINIMUM = IPV4_HEADER_OCTETS + TCP_HEADER_OCTETS
_IPV6_MINIMUM = IPV6_HEADER_OCTETS + TCP_HEADER_OCTETS
# Both headers as they are written; a key holds the addresses and the ports, side by side as in a packet.
# first word, length, identification and fragment field, lifetime and protocol, checksum; key; seq, ack, data offset and
# flags, window, checksum, urgent pointer
_IPV4_PACKET = struct.Struct("!HHIHH12sIIHHHH")
# first words, payload length, next header and hop limit; key; the rest as above
_IPV6_PACKET = struct.Struct("!IHH36sIIHHHH")
_LIFETIME_AND_PROTOCOL = HOP_LIMIT << 8 | PROTOCOL_TCP
_PROTOCOL_AND_HOP_LIMIT = PROTOCOL_TCP << 8 | HOP_LIMIT
_IPV4_SUM = FIRST_WORD_IPV4 + DONT_FRAGMENT + _LIFETIME_AND_PROTOCOL
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_FRAGMENT_HEADER = 44
_EXTENSION_HEADERS = frozenset({0, 43, 50, 51, 60, 135, 139, 140})
"""Hop-by-hop, routing, ESP, AH, destination options, mobility, HIP, shim6 (RFC 7045, 4)."""


class Segment(Struct, frozen=True, eq=False, gc=False):
    """One TCP segment inside one IP packet. Never changed after `decode_segment` made it.

    `key` names the direction in which it travels; the RFC's SEG.SEQ, SEG.ACK and SEG.WND (unscaled) are attributes.
    """

    packet: bytes
    """The whole IP packet; may carry link-layer padding behind `end`."""
    key: ConnectionKey
    tcp_offset: int
    payload_offset: int
    end: int
    """Where the packet's payload ends."""
    seg_seq: SeqNum
    seg_ack: SeqNum
    seg_wnd: int
    flags: int
    is_checked: bool
    """The checksum is known to be right."""

    @property
    def payload(self) -> bytes:
        """The segment's octets."""
        return self.packet[self.payload_offset : self.end]

    @property
    def payload_octets(self) -> int:
        """How many octets the segment carries."""
        return self.end - self.payload_offset

    @property
    def seg_len(self) -> int:
        """SEG.LEN: octets plus one each for SYN and FIN."""
        return self.end - self.payload_offset + (self.flags & FIN) + (self.flags >> 1 & 1)

    @property
    def options(self) -> Options:
        """The segment's options. Raises: OptionError."""
        return decode_options(self.packet, self.tcp_offset + TCP_HEADER_OCTETS, self.payload_offset)

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr, None without the option. Raises: OptionError."""
        return decode_timestamps(self.packet, self.tcp_offset + TCP_HEADER_OCTETS, self.payload_offset)

    def check_checksum(self) -> None:
        """Verify the TCP checksum. Raises: ChecksumError."""
        if self.is_checked:
            return
        total = ones_sum(self.key[:-4]) + PROTOCOL_TCP + (self.end - self.tcp_offset)
        if (total + ones_sum(self.packet[self.tcp_offset : self.end])) % 0xFFFF:
            raise ChecksumError("TCP checksum", self.tcp_offset + CHECKSUM_OFFSET)


def decode_segment(packet: bytes, *, is_checked: bool = False) -> Segment:
    """Decode an IPv4 or IPv6 packet that must be an unfragmented TCP segment; `is_checked`: its checksum is right.

    Deviation: IPv4 options and IPv6 extension headers are refused (RFC 7126 and RFC 9288 describe why operators drop
    them).

    Deviation: fragments are refused. A host with connection tracking puts them together before anybody sees them. Of
    another host only the first fragment comes here, for only that has ports; its kernel keeps the others until it has
    waited long enough. TCP avoids fragments by its MSS and path MTU discovery (RFC 9293, 3.7.2).

    Raises: WireError (TruncatedError where octets are missing, FragmentError, ExtraHeaderError).
    """
    if len(packet) >= _IPV4_MINIMUM and packet[0] == 0x45:
        _, length, fragment, protocol, key, seq, ack, data_offset, flags, window = _IPV4_TCP.unpack_from(packet)
        if fragment & _MORE_FRAGMENTS_OR_OFFSET:
            raise FragmentError("a fragment", 6)
        tcp_offset = IPV4_HEADER_OCTETS
    elif len(packet) >= _IPV6_MINIMUM and packet[0] >> 4 == 6:
        _, length, protocol, key, seq, ack, data_offset, flags, window = _IPV6_TCP.unpack_from(packet)
        length += IPV6_HEADER_OCTETS
        tcp_offset = IPV6_HEADER_OCTETS
    else:
        raise _refusal(packet)
    if protocol != PROTOCOL_TCP:
        raise _other_protocol(protocol, ipv6=tcp_offset == IPV6_HEADER_OCTETS)
    header_end = tcp_offset + (data_offset >> 4) * 4
    if data_offset < 0x50 or header_end > length or length > len(packet):
        raise TruncatedError("lengths do not fit", tcp_offset + 12)
    return Segment(packet, key, tcp_offset, header_end, length, seq, ack, window, flags, is_checked)


def _refusal(packet: bytes) -> WireError:
    """Say why `decode_segment` cannot read `packet`."""
    version = packet[0] >> 4 if packet else 0
    if version == 6 and len(packet) >= IPV6_HEADER_OCTETS and packet[6] != PROTOCOL_TCP:
        return _other_protocol(packet[6], ipv6=True)
    if version == 4 and len(packet) >= IPV4_HEADER_OCTETS and (packet[6] & 0x3F or packet[7]):
        return FragmentError("a fragment", 6)
    if len(packet) < _IPV4_MINIMUM or version == 6:
        return TruncatedError("shorter than its headers", len(packet))
    if version == 4:
        return ExtraHeaderError("IPv4 options", 0)
    return WireError(f"IP version {version}", 0)


def _other_protocol(protocol: int, ipv6: bool) -> WireError:
    if ipv6 and protocol == _FRAGMENT_HEADER:
        return FragmentError("a fragment", 6)
    if ipv6 and protocol in _EXTENSION_HEADERS:
        return ExtraHeaderError(f"extension header {protocol}", 6)
    return WireError(f"protocol {protocol}, not TCP", 6 if ipv6 else 9)


def encode_segment(
    key: ConnectionKey,
    seg_seq: SeqNum,
    seg_ack: SeqNum,
    flags: int,
    seg_wnd: int,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """Return a whole IP packet with the segment; `options` must be padded to four octets, all checksums are written."""
    header_octets = TCP_HEADER_OCTETS + len(options)
    octets = header_octets + len(payload)
    offset_and_flags = header_octets << 10 | flags
    numbers = int.from_bytes(key, "big")  # a sum is a residue modulo 65535, so whole fields can be added (`checksum`)
    total = numbers + PROTOCOL_TCP + octets + seg_seq + seg_ack + offset_and_flags + seg_wnd
    if options:
        total += int.from_bytes(options, "big")
    if payload:
        total += ones_sum(payload)
    if len(key) == KEY_OCTETS_IPV4:
        length = IPV4_HEADER_OCTETS + octets
        header = _IPV4_PACKET.pack(
            FIRST_WORD_IPV4, length, DONT_FRAGMENT, _LIFETIME_AND_PROTOCOL,
            finish(_IPV4_SUM + length + (numbers >> 32)), key,
            seg_seq, seg_ack, offset_and_flags, seg_wnd, finish(total), 0,
        )  # fmt: skip
    else:
        header = _IPV6_PACKET.pack(
            FIRST_WORDS_IPV6, octets, _PROTOCOL_AND_HOP_LIMIT, key,
            seg_seq, seg_ack, offset_and_flags, seg_wnd, finish(total), 0,
        )  # fmt: skip
    return header + options + payload
