"""Translation between what the client was promised and what the server's TCP chose.

The replay gives the server the client's own initial sequence number, so only the server's numbers differ: leaving
packets get SEG.SEQ, TSval and window changed, arriving ones SEG.ACK, every SACK edge, TSecr and, rarely, the window. An
ICMP error about a packet that left quotes the number the client would have seen. Pure: a packet in, a packet out.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from tcpha.proto.checksum import finish, ones_sum, update
from tcpha.proto.icmp import CHECKSUM_OFFSET as ICMP_CHECKSUM_OFFSET
from tcpha.proto.icmp import IcmpError
from tcpha.proto.ip import PROTOCOL_TCP
from tcpha.proto.options import ALIGNED_TIMESTAMPS, SACK, TIMESTAMPS, find_options
from tcpha.proto.seqnum import MASK
from tcpha.proto.tcp import (
    ACK,
    ACK_OFFSET,
    CHECKSUM_OFFSET,
    SEQ_OFFSET,
    TCP_HEADER_OCTETS,
    WINDOW_OFFSET,
    Segment,
)

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_ALIGNED_OPTIONS_OCTETS = 12
# A header with aligned timestamps and nothing else: data offset and flags, window, checksum, urgent pointer, kinds and
# lengths, TSval, TSecr; and the same behind ports, seq and ack.
_USUAL_TAIL = struct.Struct("!HHHHIII")
_USUAL_HEADER = struct.Struct("!4sIIHHHHIII")
_USUAL_OCTETS = _USUAL_HEADER.size
_TAIL_OFFSET = _USUAL_OCTETS - _USUAL_TAIL.size
_ALIGNED_KINDS = int.from_bytes(ALIGNED_TIMESTAMPS, "big")


class Translation(Struct, frozen=True, gc=False):
    """One connection's differences, fixed when it is rebuilt."""

    seq_delta: int
    """ISS the client was told minus ISS the server's TCP chose, modulo 2**32."""
    tsval_delta: int | None
    """Last TSval the front end sent minus TSval of the server's SYN-ACK, modulo 2**32; None without timestamps."""
    leaving_shift: int
    """Shift of leaving windows: the server's scale minus the promised one."""
    arriving_shift: int
    """Shift of arriving windows: the client's scale if the server's TCP knows of none (its own SYN cookies), else 0."""
    mss: int
    """No leaving segment carries more; what does is several segments in one packet (GSO)."""


def translate_leaving(translation: Translation, segment: Segment) -> bytes:
    """Return the server's packet as the client must see it.

    The checksum is written in full: the host leaves it to the network device, which only sums what the packet then
    holds. A packet of several segments is left without one: the kernel computes theirs when it cuts it up.
    """
    packet, tcp, end = segment.packet, segment.tcp_offset, segment.payload_offset
    stamps = translation.tsval_delta
    if end - tcp != _USUAL_OCTETS or stamps is None:
        return _translate_any_leaving(translation, segment)
    offset_and_flags, window, checksum, urgent, kinds, tsval, tsecr = _USUAL_TAIL.unpack_from(
        packet, tcp + _TAIL_OFFSET
    )
    if kinds != _ALIGNED_KINDS:
        return _translate_any_leaving(translation, segment)
    seq = (segment.seg_seq + translation.seq_delta) & MASK
    tsval = (tsval + stamps) & MASK
    if translation.leaving_shift:
        window = shift_window(window, translation.leaving_shift)
    payload = packet[end : segment.end]
    if len(payload) <= translation.mss:
        total = (
            int.from_bytes(segment.key, "big") + PROTOCOL_TCP + (segment.end - tcp) + seq + segment.seg_ack
            + offset_and_flags + window + urgent + kinds + tsval + tsecr
        )  # fmt: skip
        checksum = finish(total + ones_sum(payload) if payload else total)
    header = _USUAL_HEADER.pack(
        packet[tcp : tcp + 4], seq, segment.seg_ack, offset_and_flags, window, checksum, urgent, kinds, tsval, tsecr
    )
    return b"".join((packet[:tcp], header, payload))


def translate_arriving(translation: Translation, segment: Segment) -> bytes:
    """Return the client's packet as the server's TCP must see it; the checksum is updated (RFC 1624), not repaired."""
    packet = segment.packet
    if not segment.flags & ACK:
        return packet
    tcp, end = segment.tcp_offset, segment.payload_offset
    header = bytearray(packet[:end])
    change = _shift_field(header, tcp + ACK_OFFSET, -translation.seq_delta)
    if translation.arriving_shift:
        window = shift_window(segment.seg_wnd, translation.arriving_shift)
        _U16.pack_into(header, tcp + WINDOW_OFFSET, window)
        change += window - segment.seg_wnd
    if end - tcp > TCP_HEADER_OCTETS:
        change += _translate_options(translation, header, tcp, end)
    checksum = _U16.unpack_from(header, tcp + CHECKSUM_OFFSET)[0]
    _U16.pack_into(header, tcp + CHECKSUM_OFFSET, update(checksum, change))
    return b"".join((header, packet[end : segment.end]))


def translate_icmp_error(translation: Translation, error: IcmpError) -> bytes:
    """Return an ICMP error about a leaving packet as the server's TCP must see it; the checksum is updated.

    The host's TCP compares the quoted sequence number with what it has sent (RFC 5927, 4.1), and looks at nothing
    behind it: the quoted TCP checksum stays that of the packet the client would have seen.
    """
    packet = bytearray(error.packet)
    change = _shift_field(packet, error.seq_offset, -translation.seq_delta)
    at = error.icmp_offset + ICMP_CHECKSUM_OFFSET
    _U16.pack_into(packet, at, update(_U16.unpack_from(packet, at)[0], change))
    return bytes(packet)


def shift_window(window: int, shift: int) -> int:
    """Express a window in another scale: at most 65535, and what is not zero never becomes zero."""
    if shift >= 0:
        return min(window << shift, 0xFFFF)
    return max(window >> -shift, 1) if window else 0


def _translate_any_leaving(translation: Translation, segment: Segment) -> bytes:
    """The same for any header, step by step."""
    packet = segment.packet
    tcp, end = segment.tcp_offset, segment.payload_offset
    header = bytearray(packet[:end])
    _U32.pack_into(header, tcp + SEQ_OFFSET, (segment.seg_seq + translation.seq_delta) & MASK)
    if translation.leaving_shift:
        _U16.pack_into(header, tcp + WINDOW_OFFSET, shift_window(segment.seg_wnd, translation.leaving_shift))
    if translation.tsval_delta is not None:
        offset = _timestamps_offset(packet, tcp + TCP_HEADER_OCTETS, end)
        if offset:
            tsval = _U32.unpack_from(packet, offset)[0]
            _U32.pack_into(header, offset, (tsval + translation.tsval_delta) & MASK)
    payload = packet[end : segment.end]
    if len(payload) <= translation.mss:
        _U16.pack_into(header, tcp + CHECKSUM_OFFSET, 0)
        octets = segment.end - tcp
        total = ones_sum(segment.key[:-4]) + PROTOCOL_TCP + octets + ones_sum(header[tcp:]) + ones_sum(payload)
        _U16.pack_into(header, tcp + CHECKSUM_OFFSET, finish(total))
    return b"".join((header, payload))


def _timestamps_offset(packet: bytes, start: int, end: int) -> int:
    """Return where TSval stands, 0 without timestamps."""
    if packet[start : start + 4] == ALIGNED_TIMESTAMPS and end - start >= _ALIGNED_OPTIONS_OCTETS:
        return start + 4
    if end == start:
        return 0
    return next((offset + 2 for kind, offset, _ in find_options(packet, start, end) if kind == TIMESTAMPS), 0)


def _translate_options(translation: Translation, header: bytearray, tcp: int, end: int) -> int:
    """Translate TSecr and SACK edges in place; return the change for the checksum."""
    start = tcp + TCP_HEADER_OCTETS
    stamps = translation.tsval_delta
    if end - start == _ALIGNED_OPTIONS_OCTETS and header[start : start + 4] == ALIGNED_TIMESTAMPS:
        return 0 if stamps is None else _shift_field(header, start + 8, -stamps)
    change = 0
    for kind, offset, length in find_options(header, start, end):
        if kind == TIMESTAMPS and stamps is not None:
            fields, delta = range(offset + 6, offset + 7), -stamps
        elif kind == SACK:
            fields, delta = range(offset + 2, offset + length - 3, 4), -translation.seq_delta
        else:
            continue
        for field in fields:
            difference = _shift_field(header, field, delta)
            change += difference << 8 if (field - tcp) & 1 else difference
    return change


def _shift_field(header: bytearray, offset: int, delta: int) -> int:
    """Add `delta` to a 32-bit field; return new - old."""
    old: int = _U32.unpack_from(header, offset)[0]
    new = (old + delta) & MASK
    _U32.pack_into(header, offset, new)
    return new - old
