"""Translation against packets that scapy builds from scratch with the numbers that are expected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tcpha.be.translator import (
    Translation,
    _translate_any_leaving,
    shift_window,
    translate_arriving,
    translate_icmp_error,
    translate_leaving,
)
from tcpha.errors import ChecksumError, OptionError
from tcpha.proto.icmp import decode_icmp_error
from tcpha.proto.tcp import decode_segment

MASK = 0xFFFFFFFF
SEQ, TSVAL = 0x89ABCDEF, 0xFEDCBA98
PLAIN = Translation(SEQ, TSVAL, 0, 0, 1460)

both_families = pytest.mark.parametrize("family", [4, 6])
no_deadline = settings(deadline=None, max_examples=150)
u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))


def packet(family: int, payload: bytes = b"", **tcp: Any) -> bytes:
    ip = IP(src="198.18.0.10", dst="198.18.0.36") if family == 4 else IPv6(src="2001:db8::a", dst="2001:db8::24")
    usual = {"sport": 40000, "dport": 80, "seq": 1, "ack": 2, "flags": "PA", "window": 502}
    return bytes(ip / TCP(**(usual | tcp)) / payload)


def leaving(octets: bytes, translation: Translation = PLAIN) -> bytes:
    return translate_leaving(translation, decode_segment(octets))


def arriving(octets: bytes, translation: Translation = PLAIN) -> bytes:
    return translate_arriving(translation, decode_segment(octets))


def stamps(tsval: int, tsecr: int) -> list[Any]:
    return [("NOP", None), ("NOP", None), ("Timestamp", (tsval & MASK, tsecr & MASK))]


def sack(*edges: int) -> list[Any]:
    return [("NOP", None), ("NOP", None), ("SAck", tuple(edge & MASK for edge in edges))]


def same(ours: bytes, expected: bytes) -> bool:
    """Equal octets; the checksum may be written as 0 or as 65535, which are the same number (RFC 1071)."""
    at = (20 if ours[0] >> 4 == 4 else 40) + 16
    field, wanted = (int.from_bytes(each[at : at + 2], "big") for each in (ours, expected))
    return (
        ours[:at] == expected[:at] and ours[at + 2 :] == expected[at + 2 :] and (field - wanted) % 0xFFFF == 0
    )  # fmt: skip


# --- what routers say of it


@both_families
@pytest.mark.parametrize("seq", [0, 1, SEQ - 1, SEQ, MASK])
@pytest.mark.parametrize("quote_octets", [8, 20, 400])
def test_icmp_error_quoted_seq_translated_back_checksum_right(family: int, seq: int, quote_octets: int) -> None:
    def error(number: int) -> bytes:
        """About a segment from the virtual address to the client."""
        tcp = TCP(sport=80, dport=40000, seq=number & MASK, flags="A", chksum=0x1234)
        if family == 4:
            inner = bytes(IP(src="198.18.0.36", dst="198.18.0.10") / tcp / bytes(500))
            icmp = ICMP(type=3, code=4, nexthopmtu=1400)
            return bytes(IP(src="198.18.0.1", dst="198.18.0.36") / icmp / inner[: 20 + quote_octets])
        inner = bytes(IPv6(src="2001:db8::24", dst="2001:db8::a") / tcp / bytes(500))
        too_big = ICMPv6PacketTooBig(mtu=1400)
        return bytes(IPv6(src="2001:db8::1", dst="2001:db8::24") / too_big / inner[: 40 + quote_octets])

    assert translate_icmp_error(PLAIN, decode_icmp_error(error(seq))) == error(seq - SEQ)


# --- what the server sends


@both_families
@pytest.mark.parametrize("payload", [b"", b"x", bytes(1448), bytes(range(256)) * 5])
@pytest.mark.parametrize("seq", [0, 1, 0x76543210, MASK])
def test_leaving_segment_seq_and_tsval_translated(family: int, payload: bytes, seq: int) -> None:
    before = packet(family, payload, seq=seq, ack=77, options=stamps(seq, 55))
    after = packet(family, payload, seq=(seq + SEQ) & MASK, ack=77, options=stamps(seq + TSVAL, 55))
    assert same(leaving(before), after)


@both_families
@pytest.mark.parametrize("lead", range(4))
def test_leaving_timestamps_at_any_offset_translated(family: int, lead: int) -> None:
    nops: list[Any] = [("NOP", None)] * lead
    before = packet(family, b"abc", options=[*nops, ("Timestamp", (10, 20)), ("SAck", (1, 2))])
    after = packet(family, b"abc", seq=1 + SEQ, options=[*nops, ("Timestamp", (10 + TSVAL, 20)), ("SAck", (1, 2))])
    assert same(leaving(before), after), "the server's own SACK names the client's numbers"


@both_families
def test_leaving_segment_without_timestamps_agreed_options_left(family: int) -> None:
    before = packet(family, b"abc", options=stamps(1, 2))
    after = packet(family, b"abc", seq=1 + SEQ, options=stamps(1, 2))
    assert same(leaving(before, Translation(SEQ, None, 0, 0, 1460)), after)


@both_families
@pytest.mark.parametrize("flags", ["R", "RA", "FA", "FPA", "A", "PAU", "PAEC"])
def test_leaving_any_flags_and_urgent_pointer_left(family: int, flags: str) -> None:
    before = packet(family, b"abc", flags=flags, urgptr=3)
    assert same(leaving(before), packet(family, b"abc", seq=1 + SEQ, flags=flags, urgptr=3))


@both_families
@pytest.mark.parametrize(("shift", "window", "shown"), [(3, 5, 40), (3, 60000, 65535), (-3, 80, 10), (-3, 7, 1)])
def test_leaving_window_rescaled(family: int, shift: int, window: int, shown: int) -> None:
    translation = Translation(SEQ, TSVAL, shift, 9, 1460)
    after = packet(family, b"abc", seq=1 + SEQ, window=shown)
    assert same(leaving(packet(family, b"abc", window=window), translation), after)


@both_families
@pytest.mark.parametrize("octets", [1461, 2896, 60_000])
def test_leaving_several_segments_in_one_packet_checksum_left(family: int, octets: int) -> None:
    """The kernel cuts them up and writes a checksum into each; the field holds what it needs for that."""
    before = packet(family, bytes(octets), options=stamps(1, 2), chksum=0xABCD)
    after = packet(family, bytes(octets), seq=1 + SEQ, options=stamps(1 + TSVAL, 2), chksum=0xABCD)
    assert leaving(before) == after


@both_families
@pytest.mark.parametrize("chksum", [0, 0x1234, 0xFFFF])
def test_leaving_unfinished_checksum_written_in_full(family: int, chksum: int) -> None:
    """The host leaves the pseudo-header's sum in the field."""
    assert same(leaving(packet(family, b"abc", chksum=chksum)), packet(family, b"abc", seq=1 + SEQ))


@both_families
def test_leaving_padding_behind_the_packet_cut(family: int) -> None:
    assert same(leaving(packet(family, b"abc") + bytes(5)), packet(family, b"abc", seq=1 + SEQ))


# --- what the client sends


@both_families
@pytest.mark.parametrize("payload", [b"", b"x", bytes(1448)])
@pytest.mark.parametrize("ack", [0, 1, SEQ, SEQ - 1, MASK])
def test_arriving_segment_ack_and_tsecr_translated(family: int, payload: bytes, ack: int) -> None:
    before = packet(family, payload, seq=77, ack=ack, options=stamps(55, ack))
    after = packet(family, payload, seq=77, ack=(ack - SEQ) & MASK, options=stamps(55, ack - TSVAL))
    assert same(arriving(before), after)


@both_families
@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("lead", range(4))
def test_arriving_sack_blocks_at_any_offset_translated(family: int, blocks: int, lead: int) -> None:
    edges = [(SEQ - 3 + 70_000 * number) & MASK for number in range(2 * blocks)]
    nops: list[Any] = [("NOP", None)] * lead
    before = packet(family, b"abc", options=[*nops, ("SAck", tuple(edges))])
    shown = tuple((edge - SEQ) & MASK for edge in edges)
    after = packet(family, b"abc", ack=(2 - SEQ) & MASK, options=[*nops, ("SAck", shown)])
    assert same(arriving(before), after)


@both_families
@pytest.mark.parametrize("sack_first", [True, False])
@pytest.mark.parametrize("lead", range(3))
def test_arriving_timestamps_and_sack_in_any_order_translated(family: int, sack_first: bool, lead: int) -> None:
    def options(tsecr: int, *edges: int) -> list[Any]:
        both: list[Any] = [("Timestamp", (9, tsecr & MASK)), ("SAck", tuple(edge & MASK for edge in edges))]
        return [("NOP", None)] * lead + (both[::-1] if sack_first else both)

    # A D-SACK: its first block lies below the acknowledgement (RFC 2883).
    before = packet(family, options=options(20, 1, 2, 500, 600))
    after = packet(family, ack=(2 - SEQ) & MASK, options=options(20 - TSVAL, 1 - SEQ, 2 - SEQ, 500 - SEQ, 600 - SEQ))
    assert same(arriving(before), after)


@both_families
def test_arriving_unknown_options_left(family: int) -> None:
    others: list[Any] = [(34, b"cookie12"), (253, b"\x12\x34\x56"), ("AltChkSum", (1, 2))]
    after = packet(family, ack=(2 - SEQ) & MASK, options=[*others, ("Timestamp", (1, (2 - TSVAL) & MASK))])
    assert same(arriving(packet(family, options=[*others, ("Timestamp", (1, 2))])), after)


@both_families
def test_arriving_options_behind_the_end_of_list_left(family: int) -> None:
    hidden = b"\x00" + b"\x08\x0a" + bytes(8) + b"\x01"
    before = packet(family, hidden + b"abc", dataofs=8)
    assert same(arriving(before), packet(family, hidden + b"abc", dataofs=8, ack=(2 - SEQ) & MASK))


@both_families
@pytest.mark.parametrize("flags", ["RA", "FA", "A", "PAU", "PAEC"])
def test_arriving_any_flags_and_urgent_pointer_left(family: int, flags: str) -> None:
    before = packet(family, b"abc", flags=flags, urgptr=3)
    assert same(arriving(before), packet(family, b"abc", ack=(2 - SEQ) & MASK, flags=flags, urgptr=3))


@both_families
def test_arriving_rst_without_ack_unchanged(family: int) -> None:
    """SEG.ACK means nothing in it."""
    before = packet(family, flags="R", ack=5, options=stamps(1, 2))
    assert arriving(before) == before


@both_families
@pytest.mark.parametrize(("shift", "window", "shown"), [(3, 5, 40), (3, 60000, 65535), (14, 4, 65535), (0, 9, 9)])
def test_arriving_window_rescaled(family: int, shift: int, window: int, shown: int) -> None:
    translation = Translation(SEQ, TSVAL, -7, shift, 1460)
    after = packet(family, b"abc", ack=(2 - SEQ) & MASK, window=shown)
    assert same(arriving(packet(family, b"abc", window=window), translation), after)


MALFORMED = [
    b"\x05\x0aabcdefgh\x05\x00",  # length 0
    b"\x05\x0aabcdefgh\x05\x01",  # length 1
    b"\x08\x0aabcdefgh\x01\x05",  # no length
    b"\x01\x01\x08\x0b" + bytes(8),  # timestamps of 11 octets
    b"\x01\x01\x05\x0b" + bytes(8),  # beyond the header
    b"\x03\x04" + bytes(10),  # window scale of 4 octets
]


@both_families
@pytest.mark.parametrize("options", MALFORMED)
def test_malformed_options_refused(family: int, options: bytes) -> None:
    before = packet(family, options + b"abc", dataofs=8)
    with pytest.raises(OptionError):
        arriving(before)


# --- properties


@given(u16, st.integers(-14, 14))
def test_any_window_rescaled_is_a_window(window: int, shift: int) -> None:
    shown = shift_window(window, shift)
    assert 0 <= shown <= 0xFFFF
    assert (shown == 0) == (window == 0)
    exact = window * 2.0**shift
    assert shown <= max(exact, 1), "never promises more than there is, but for the one that keeps a window open"


@st.composite
def options_and_images(draw: st.DrawFn, seq_delta: int, tsval_delta: int | None) -> tuple[list[Any], list[Any]]:
    """Options of a client, and what the server must see of them."""
    before: list[Any] = []
    after: list[Any] = []
    kinds = draw(st.lists(st.sampled_from(["nop", "stamps", "sack", "other"]), max_size=5, unique_by=lambda kind: kind))
    for kind in kinds:
        if kind == "nop":
            count = draw(st.integers(1, 5))
            before += [("NOP", None)] * count
            after += [("NOP", None)] * count
        elif kind == "stamps":
            tsval, tsecr = draw(u32), draw(u32)
            before.append(("Timestamp", (tsval, tsecr)))
            after.append(("Timestamp", (tsval, (tsecr - (tsval_delta or 0)) & MASK)))
        elif kind == "sack":
            edges = draw(st.lists(u32, min_size=2, max_size=4).filter(lambda found: len(found) % 2 == 0))
            before.append(("SAck", tuple(edges)))
            after.append(("SAck", tuple((edge - seq_delta) & MASK for edge in edges)))
        else:
            value = draw(st.binary(max_size=5))
            before.append((254, value))
            after.append((254, value))
    return before, after


@no_deadline
@given(st.data(), st.sampled_from([4, 6]), u32, st.none() | u32, u32, u32, st.binary(max_size=40))
@example(data=None, family=4, seq_delta=0, tsval_delta=None, seq=0, ack=0, payload=b"")
def test_any_arriving_packet_is_what_scapy_builds(
    data: Any, family: int, seq_delta: int, tsval_delta: int | None, seq: int, ack: int, payload: bytes
) -> None:
    before, after = data.draw(options_and_images(seq_delta, tsval_delta)) if data else ([], [])
    octets = packet(family, payload, seq=seq, ack=ack, options=before)
    expected = packet(family, payload, seq=seq, ack=(ack - seq_delta) & MASK, options=after)
    assert same(arriving(octets, Translation(seq_delta, tsval_delta, 0, 0, 1460)), expected)


translations = st.builds(Translation, u32, st.none() | u32, st.integers(-14, 14), st.integers(0, 14), st.just(1460))


@no_deadline
@given(translations, st.sampled_from([4, 6]), u32, u32, u16, u32, u32, st.binary(max_size=60))
def test_any_translated_packet_has_a_right_checksum(
    translation: Translation, family: int, seq: int, ack: int, window: int, tsval: int, tsecr: int, payload: bytes
) -> None:
    octets = packet(family, payload, seq=seq, ack=ack, window=window, options=stamps(tsval, tsecr))
    decode_segment(arriving(octets, translation)).check_checksum()
    decode_segment(leaving(octets, translation)).check_checksum()


@no_deadline
@given(translations, st.sampled_from([4, 6]), u32, u32, u32, st.binary(min_size=8, max_size=8), st.binary(max_size=60))
@example(Translation(1, 2, 0, 0, 10), 4, 3, 4, 5, bytes(8), bytes(60))
@example(Translation(1, 2, 0, 0, 1460), 6, 3, 4, 5, bytes(8), b"")
def test_any_leaving_packet_with_timestamps_alone_is_translated_as_any_other(
    translation: Translation, family: int, seq: int, ack: int, tsval: int, rest: bytes, payload: bytes
) -> None:
    """Whatever else its header holds: reserved bits, flags, window, checksum, urgent pointer."""
    octets = bytearray(packet(family, payload, seq=seq, ack=ack, options=stamps(tsval, ~tsval)))
    tcp = 20 if family == 4 else 40
    octets[tcp + 12 : tcp + 20] = bytes((0x80 | rest[0] & 15,)) + rest[1:]
    segment = decode_segment(bytes(octets))
    assert translate_leaving(translation, segment) == _translate_any_leaving(translation, segment)


@no_deadline
@given(translations, u32, u32, st.binary(max_size=20))
def test_any_number_translated_and_echoed_is_the_same(
    translation: Translation, seq: int, tsval: int, payload: bytes
) -> None:
    """What the server sends, the client acknowledges and echoes: the server must get its own numbers."""
    shown = decode_segment(leaving(packet(4, payload, seq=seq, options=stamps(tsval, 0)), translation))
    echo = packet(4, payload, ack=shown.seg_seq, options=stamps(0, (shown.timestamps or (0, 0))[0]))
    back = decode_segment(arriving(echo, translation))
    assert back.seg_ack == seq
    assert back.timestamps == (0, tsval)


@no_deadline
@given(translations, st.integers(1, 0xFFFE), st.binary(max_size=20))
def test_any_wrong_checksum_stays_wrong(translation: Translation, error: int, payload: bytes) -> None:
    octets = bytearray(packet(4, payload, options=sack(1, 2, 3, 4)))
    field = int.from_bytes(octets[36:38], "big")
    octets[36:38] = ((field + error) % 0xFFFF).to_bytes(2, "big")
    with pytest.raises(ChecksumError):
        decode_segment(arriving(bytes(octets), translation)).check_checksum()
