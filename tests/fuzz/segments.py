"""Targets: IP packets, TCP segments and their options, ICMP errors, tunnels, and the translation of what passes.

Each function takes any octets and raises whatever it finds wrong; WireError is an answer, not a fault.
"""

from __future__ import annotations

from tcpha.be.translator import Translation, translate_arriving, translate_icmp_error, translate_leaving
from tcpha.errors import ChecksumError, WireError
from tcpha.proto.checksum import finish, internet_checksum, ones_sum
from tcpha.proto.icmp import decode_icmp_error, encode_too_big, is_icmp
from tcpha.proto.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, PROTOCOL_TCP, ConnectionKey, encode_ip_header
from tcpha.proto.options import (
    TIMESTAMPS,
    decode_options,
    decode_timestamps,
    encode_options,
    find_options,
)
from tcpha.proto.seqnum import MASK, SeqNum
from tcpha.proto.tcp import ACK, CHECKSUM_OFFSET, TCP_HEADER_OCTETS, Segment, decode_segment, encode_segment
from tcpha.proto.tunnel import Tunnel, with_checksum
from tests.fuzz.packets import ADDRESSES, KEYS, checked
from tests.fuzz.records import Octets

ICMP_CHECKSUM_AT = {4: IPV4_HEADER_OCTETS + 2, 6: IPV6_HEADER_OCTETS + 2}
LARGEST_PACKET_OCTETS = 65535


def segment(octets: bytes) -> None:
    """A packet as it comes, and one whose lengths and protocol were put right, so that the segment is reached."""
    _read(octets)
    _read(_with_ip_header(octets))


def options(octets: bytes) -> None:
    """Any octets as the options of a segment, and as options between other octets."""
    end = len(octets) & ~3
    try:
        found = find_options(octets, 0, end)
        read = decode_options(octets, 0, end)
        stamps = decode_timestamps(octets, 0, end)
    except WireError:
        return
    assert all(offset >= 0 and offset + length <= end and length >= 2 for _, offset, length in found)
    if sum(kind == TIMESTAMPS for kind, _, _ in found) < 2:  # of two, the quick reader takes the first
        assert stamps == read.timestamps
    written = encode_options(read)
    assert len(written) % 4 == 0
    assert decode_options(written, 0, len(written)) == read
    assert decode_options(b"\xff" + octets + b"\xff", 1, 1 + end) == read


def translator(octets: bytes) -> None:
    """Translated there and back a segment is what it was, and its checksum stays as right, or as wrong, as it was."""
    numbers = Octets(octets)
    translation = Translation(
        seq_delta=numbers.number(4),
        tsval_delta=numbers.number(4) if numbers.flag() else None,
        leaving_shift=numbers.number() % 29 - 14,
        arriving_shift=numbers.number() % 15,
        mss=numbers.choose((1460, 88, 65535)),
    )
    packet = _with_ip_header(numbers.rest())
    for each in (packet, _with_right_checksum(packet)):
        try:
            found = decode_segment(each)
            found.options
        except WireError:
            continue
        _leave(translation, found)
        _arrive(translation, found)


def icmp(octets: bytes) -> None:
    """Any packet as an ICMP error; one that is read is translated there and back."""
    is_icmp(octets)
    try:
        error = decode_icmp_error(octets)
    except WireError:
        return
    assert is_icmp(octets)
    version = octets[0] >> 4
    assert len(error.key) == len(KEYS[version])
    assert octets[error.seq_offset : error.seq_offset + 4] == error.seg_seq.to_bytes(4, "big")
    there = Translation(0x89ABCDEF, None, 0, 0, 1460)
    back = Translation(-0x89ABCDEF & MASK, None, 0, 0, 1460)
    translated = translate_icmp_error(there, error)
    assert _icmp_sum(octets, version) == _icmp_sum(translated, version)
    again = translate_icmp_error(back, decode_icmp_error(translated))
    at = ICMP_CHECKSUM_AT[version]
    assert _without(again, at) == _without(octets, at)


def tunnel(octets: bytes) -> None:
    """What comes out of a tunnel: any octets; a segment without its checksum gets it, any other stays as it is."""
    is_icmp(octets)
    try:
        found = decode_segment(octets)
    except WireError:
        return
    repaired = with_checksum(found)
    if repaired != octets:
        decode_segment(repaired).check_checksum()
        at = found.tcp_offset + CHECKSUM_OFFSET
        assert _without(repaired, at) == _without(octets, at)
    for version in (4, 6):
        if len(octets) + IPV6_HEADER_OCTETS <= LARGEST_PACKET_OCTETS:
            outer = Tunnel(*ADDRESSES[version]).wrap(octets)
            assert outer.endswith(octets)
            assert version == 6 or internet_checksum(outer[:IPV4_HEADER_OCTETS]) == 0
    told = decode_icmp_error(encode_too_big(octets, 1280))
    assert (told.key, told.seg_seq) == (found.key, found.seg_seq)
    assert _icmp_sum(told.packet, told.packet[0] >> 4) == 0


# --- one packet


def _read(packet: bytes) -> None:
    try:
        found = decode_segment(packet)
    except WireError:
        return
    assert found.tcp_offset + TCP_HEADER_OCTETS <= found.payload_offset <= found.end <= len(packet)
    assert len(found.key) in (12, 36)
    assert found.payload_octets <= found.seg_len <= found.payload_octets + 2
    try:
        found.options
        found.timestamps
    except WireError as error:
        assert found.tcp_offset <= error.offset < found.payload_offset
    is_right = _is_right(found)
    written = encode_segment(
        found.key, found.seg_seq, found.seg_ack, found.flags, found.seg_wnd,
        packet[found.tcp_offset + TCP_HEADER_OCTETS : found.payload_offset], found.payload,
    )  # fmt: skip
    again = checked(written)
    names = ("key", "seg_seq", "seg_ack", "flags", "seg_wnd", "payload")
    assert [getattr(again, name) for name in names] == [getattr(found, name) for name in names]
    if is_right and _has_no_urgent_or_reserved(found):
        assert _sum_of(again) == _sum_of(found)


def _is_right(found: Segment) -> bool:
    try:
        found.check_checksum()
    except ChecksumError:
        return False
    return True


def _has_no_urgent_or_reserved(found: Segment) -> bool:
    at = found.tcp_offset
    return found.packet[at + 18 : at + 20] == b"\0\0" and not found.packet[at + 12] & 15


def _sum_of(found: Segment) -> int:
    octets = found.end - found.tcp_offset
    return (ones_sum(found.key[:-4]) + PROTOCOL_TCP + octets + ones_sum(found.packet[found.tcp_offset : found.end])) % 0xFFFF  # fmt: skip  # noqa: E501


# --- packets made from octets


def _with_ip_header(octets: bytes) -> bytes:
    """A segment of one of our connections, from the sequence number on; the first octet chooses the family."""
    numbers = Octets(octets)
    key = KEYS[numbers.choose((4, 6))]
    tcp = key[-4:] + numbers.rest()[: LARGEST_PACKET_OCTETS - IPV6_HEADER_OCTETS]
    return encode_ip_header(ConnectionKey(key), len(tcp)) + tcp


def _with_right_checksum(packet: bytes) -> bytes:
    try:
        found = decode_segment(packet)
    except WireError:
        return packet
    changed = bytearray(packet)
    at = found.tcp_offset + CHECKSUM_OFFSET
    changed[at : at + 2] = b"\0\0"
    changed[at : at + 2] = finish(_sum_of(decode_segment(bytes(changed)))).to_bytes(2, "big")
    return bytes(changed)


def _icmp_sum(packet: bytes, version: int) -> int:
    """What an ICMP message sums up to: 0 if its checksum is right."""
    if version == 4:
        return ones_sum(packet[IPV4_HEADER_OCTETS:])
    octets = len(packet) - IPV6_HEADER_OCTETS
    return (ones_sum(packet[8:40]) + octets + 58 + ones_sum(packet[IPV6_HEADER_OCTETS:])) % 0xFFFF


def _without(packet: bytes, at: int) -> bytes:
    """The packet with a field of two octets at `at` left out."""
    return packet[:at] + packet[at + 2 :]


# --- translation


def _leave(translation: Translation, found: Segment) -> None:
    translated = decode_segment(translate_leaving(translation, found))
    shifted = SeqNum((found.seg_seq + translation.seq_delta) & MASK)
    assert (translated.seg_seq, translated.seg_ack, translated.flags) == (shifted, found.seg_ack, found.flags)
    assert translated.payload == found.payload
    assert (translated.seg_wnd == 0) == (found.seg_wnd == 0)
    if found.payload_octets <= translation.mss:
        translated.check_checksum()
    back = Translation(
        -translation.seq_delta & MASK,
        None if translation.tsval_delta is None else -translation.tsval_delta & MASK,
        0, 0, LARGEST_PACKET_OCTETS,
    )  # fmt: skip
    again = decode_segment(translate_leaving(back, translated))
    _same_but_window_and_checksum(again, found, translation.leaving_shift == 0)


def _arrive(translation: Translation, found: Segment) -> None:
    translated = decode_segment(translate_arriving(translation, found))
    moved = -translation.seq_delta if found.flags & ACK else 0
    assert translated.seg_ack == (found.seg_ack + moved) & MASK
    assert (translated.seg_seq, translated.flags, translated.payload) == (found.seg_seq, found.flags, found.payload)
    assert _sum_of(translated) == _sum_of(found), "what was right is wrong now, or the other way round"
    back = Translation(
        -translation.seq_delta & MASK,
        None if translation.tsval_delta is None else -translation.tsval_delta & MASK,
        0, 0, LARGEST_PACKET_OCTETS,
    )  # fmt: skip
    again = decode_segment(translate_arriving(back, translated))
    _same_but_window_and_checksum(again, found, translation.arriving_shift == 0)


def _same_but_window_and_checksum(again: Segment, found: Segment, with_window: bool) -> None:
    tcp = found.tcp_offset
    keep = slice(tcp, tcp + 14), slice(tcp + 18, found.end)
    assert all(again.packet[part] == found.packet[part] for part in keep)
    assert not with_window or again.seg_wnd == found.seg_wnd
