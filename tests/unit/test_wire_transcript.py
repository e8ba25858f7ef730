"""What the scripted client makes of packets: fields, what does not depend on moments, and differences."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6

from tests.cluster.wire_play import Stream
from tests.cluster.wire_script import HEARD, SENT, Point
from tests.cluster.wire_transcript import (
    END,
    MASK,
    Difference,
    Numbering,
    Reply,
    acknowledged_by,
    compare,
    describe,
    settled,
    shown,
)

IRS, ISS = 0xFFFFFFF0, 0xFFFFFFF8


def numbering(**more: Any) -> Numbering:
    return Numbering(IRS, ISS, **more)


def packet(flags: str = "A", payload: bytes = b"", family: int = 4, **tcp: Any) -> bytes:
    numbers = {"seq": (ISS + tcp.pop("seq", 1)) & MASK, "ack": (IRS + tcp.pop("ack", 1)) & MASK}
    ip = IP(src="192.0.2.1", dst="192.0.2.2") if family == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return bytes(ip / TCP(flags=flags, **numbers, **tcp) / payload)


def reply(flags: str = "A", **fields: str) -> Reply:
    usual = {"seq": "1", "ack": "1", "window": "5000", "tsval": "", "payload": ""}
    return {"flags": flags, **usual, **fields}


# --- fields


def test_numbers_are_relative_across_the_wrap() -> None:
    fields = describe(packet(seq=10, ack=32), numbering())
    assert (fields["seq"], fields["ack"]) == ("10", "32")
    assert describe(packet(seq=1 << 30), numbering())["seq"] == "elsewhere"


@pytest.mark.parametrize(("flags", "window"), [("A", 100 << 7), ("SA", 100)])
def test_windows_are_told_in_octets(flags: str, window: int) -> None:
    assert describe(packet(flags, window=100), numbering(server_scale=7))["window"] == str(window)


def test_options_are_told_in_their_order_and_their_values_apart() -> None:
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 40)), ("NOP", None), ("WScale", 7)]
    fields = describe(packet("SA", options=options), numbering(tsvals=[30, 40]))
    assert fields["options"] == "mss sackok timestamp nop wscale"
    assert (fields["mss"], fields["wscale"], fields["tsecr"]) == ("1460", "7", "1")
    blocks = [("NOP", None), ("NOP", None), ("SAck", ((IRS + 20) & MASK, (IRS + 40) & MASK))]
    assert describe(packet(options=blocks), numbering())["sack"] == "20-40"


@pytest.mark.parametrize(
    ("tsval", "direction"), [(99, "earlier"), (100, "stands"), (149, "stands"), (150, "later"), (5000, "later")]
)
def test_clock_is_told_by_its_direction(tsval: int, direction: str) -> None:
    options = [("Timestamp", (tsval, 1))]
    assert describe(packet(options=options), numbering(tsval_heard=100, tsval_before=100))["tsval"] == direction


@pytest.mark.parametrize("family", [4, 6])
def test_a_wrong_checksum_shows(family: int) -> None:
    octets = packet(payload=b"right", family=family)
    assert describe(octets, numbering())["sums"] == ""
    assert describe(octets[:-1] + b"x", numbering())["sums"] == "wrong"


def test_dates_are_not_compared_all_other_octets_are() -> None:
    pages = [
        b"200\r\nDate: " + date + b"\r\nServer: " + server
        for date, server in ((b"1", b"a"), (b"2", b"a"), (b"1", b"b"))
    ]
    first, later, other = (describe(packet("PA", page), numbering())["payload"] for page in pages)
    assert first == later != other


def test_push_counts_where_a_segment_is_not_full() -> None:
    assert [describe(packet("PA", bytes(size)), numbering(mss=100))["flags"] for size in (99, 100)] == ["PA", "A"]


def test_other_packets_are_told_by_their_kind() -> None:
    octets = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / ICMP(type=11, code=1) / bytes(28))
    assert describe(octets, numbering())["flags"] == "ICMP type 11 code 1"


# --- what does not depend on moments


def test_in_order_acknowledgements_count_as_they_stand_at_the_end() -> None:
    often = [reply(ack="11"), reply(ack="21"), reply("PA", ack="21", payload="x"), reply(ack="32", window="4900")]
    seldom = [reply("PA", ack="32", payload="x", window="4900")]
    assert settled(often, 1) == settled(seldom, 1)
    assert settled(often, 1)[-1] == {"flags": END, "ack": "32", "window": "4900", "tsecr": "", "tsval": ""}


def test_acknowledgement_that_says_more_is_kept_before_what_the_server_writes() -> None:
    early = [reply(ack="32", sack="1-11"), reply("PA", payload="x", ack="32")]
    assert [each["flags"] for each in settled(early, 1)] == ["A", "PA", END]
    assert settled(early, 1) == settled([reply("PA", payload="x", ack="32"), reply(ack="32", sack="1-11", seq="2")], 1)
    assert [each["flags"] for each in settled([reply(ack="1")], 1)] == ["A", END], (
        "a second acknowledgement of the same"
    )
    assert [each["flags"] for each in settled([reply(ack="1"), reply(ack="9")], 1)] == [END], "overtaken by progress"


def test_handshakes_and_resets_are_kept_as_they_are() -> None:
    heard = [reply("SA"), reply("R", ack="")]
    assert settled(heard, 1) == heard
    assert acknowledged_by(heard) == 0
    assert acknowledged_by([]) == 1
    assert acknowledged_by([reply("SA", ack="900"), reply(ack="5")]) == 5


# --- differences


def test_equal_transcripts_do_not_differ() -> None:
    heard = [[reply("SA")], [reply("PA", payload="x")], []]
    assert compare(heard, heard) == []


def test_difference_in_a_field_is_told_with_both_values() -> None:
    found = compare([[], [reply(ttl="64")]], [[], [reply(ttl="63", tos="8")]])
    assert found == [Difference(2, "A ttl", "64", "63"), Difference(2, "A tos", "", "8")]
    assert [str(each) for each in found] == ["2 A ttl: 64 -> 63", "2 A tos: none -> 8"]


def test_missing_and_additional_replies_are_told_whole() -> None:
    first, second, third = reply("SA"), reply("PA", payload="x"), reply("R", seq="9")
    assert [str(each) for each in compare([[first, second]], [[second, third]])] == [
        f"1 missing: {shown(first)}",
        f"1 additional: {shown(third)}",
    ]


@pytest.mark.parametrize(("other", "alike"), [("1", True), ("9095", True), ("9096", False), ("0", False)])
def test_windows_at_the_end_are_compared_roughly_but_for_zero(other: str, alike: bool) -> None:
    plain = "5000" if other != "1" else "4000"
    end = {"flags": END, "window": plain}
    assert (compare([[end]], [[{**end, "window": other}]]) == []) == alike
    assert compare([[reply("SA", window="65160")]], [[reply("SA", window="65161")]]) != []


# --- numbers of a direction


def test_stream_follows_what_came_without_a_gap_across_the_wrap() -> None:
    stream = Stream(MASK)
    assert stream.add(1, b"cd") is None
    assert stream.following == MASK
    assert stream.add(MASK, b"ab") is None
    assert stream.following == 3


def test_stream_tells_a_repetition_from_other_octets_in_its_place() -> None:
    stream = Stream(10)
    stream.add(10, b"abcd")
    stream.add(14, b"ef")
    assert [stream.add(10, b"ab"), stream.add(13, b"def"), stream.add(13, b"dxf"), stream.add(12, b"cdefg")] == [
        True, True, False, None,
    ]  # fmt: skip


def test_points_are_moved_by_offsets() -> None:
    assert Point("sent", -1) == SENT - 1
    assert Point("heard", 3) == HEARD + 5 - 2
