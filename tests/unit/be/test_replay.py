from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.be.flows import Flow
from tcpha.be.replay import Answer, first_segment, is_cookie, keeps_timestamps, read_answer, syn, translation_of
from tcpha.be.translator import Translation
from tcpha.config import Endpoint
from tcpha.proto.cookie import Agreement
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import Segment, decode_segment

CLIENTS = {4: ip_address("198.18.0.10"), 6: ip_address("2001:db8::a")}
VIPS = {4: ip_address("198.18.0.36"), 6: ip_address("2001:db8::24")}
IRS, ISS = 0xFFFFFFFF, 5
both_families = pytest.mark.parametrize("family", [4, 6])


def handoff(family: int = 4, **changes: Any) -> Handoff:
    key = connection_key(CLIENTS[family], 40000, VIPS[family], 80)
    usual = Handoff(
        Identity(key, SeqNum(IRS), SeqNum(ISS)),
        Agreement(1440, 9, True),
        promised_window_scale=7,
        window=100,
        period=1,
        tsval_sent=1000,
        tsval_client=77,
        confirm=True,
        octets=b"GET / HTTP/1.1\r\n\r\n",
    )
    return replace(usual, **changes)


def answer(family: int, flags: str, ack: int, seq: int = 0xFFFFFFF0, **tcp: Any) -> Segment:
    ip = IP if family == 4 else IPv6
    header = TCP(sport=80, dport=40000, seq=seq, ack=ack & 0xFFFFFFFF, flags=flags, **tcp)
    return decode_segment(bytes(ip(src=str(VIPS[family]), dst=str(CLIENTS[family])) / header))


@both_families
@pytest.mark.parametrize(
    ("flags", "ack", "verdict"),
    [
        ("SA", IRS + 1, Answer.EXPECTED),
        ("SAE", IRS + 1, Answer.EXPECTED),
        ("RA", IRS + 1, Answer.NO_LISTENER),
        ("SA", IRS + 2, Answer.STALE),
        ("RA", IRS + 2, Answer.STALE),
        ("A", IRS + 1, Answer.STALE),
        ("A", 12345, Answer.STALE),
        ("R", 0, Answer.STALE),
        ("R", IRS + 1, Answer.STALE),
        ("S", IRS + 1, Answer.STALE),
        ("FA", IRS + 1, Answer.STALE),
    ],
)
def test_answer_to_the_syn_read(family: int, flags: str, ack: int, verdict: Answer) -> None:
    assert read_answer(handoff(family), answer(family, flags, ack)) is verdict


@both_families
@pytest.mark.parametrize(("ticks_before", "tsval"), [(4, 73), (1, 76), (0, 77)])
def test_syn_is_the_clients(family: int, ticks_before: int, tsval: int) -> None:
    packet = syn(handoff(family), ticks_before)
    ip = IP(packet) if family == 4 else IPv6(packet)
    tcp = ip[TCP]
    assert (ip.src, ip.dst, tcp.sport, tcp.dport) == (str(CLIENTS[family]), str(VIPS[family]), 40000, 80)
    assert (str(tcp.flags), tcp.seq, tcp.ack, tcp.window) == ("S", IRS, 0, 100 << 9)
    assert dict(tcp.options) == {"MSS": 1440, "SAckOK": b"", "Timestamp": (tsval, 0), "NOP": None, "WScale": 9}


STAMPS: tuple[str, Any] = ("Timestamp", (400, 77))


@both_families
@pytest.mark.parametrize(
    ("options", "changes", "expected"),
    [
        ([STAMPS, ("WScale", 7)], {}, Translation(21, 600, 0, 0, 1440)),
        ([STAMPS, ("WScale", 10)], {}, Translation(21, 600, 3, 0, 1440)),
        ([STAMPS, ("WScale", 0)], {}, Translation(21, 600, -7, 0, 1440)),
        ([STAMPS], {}, Translation(21, 600, -7, 9, 1440)),
        ([("MSS", 1)], {"tsval_sent": None}, Translation(21, None, -7, 9, 1440)),
        ([STAMPS], {"agreement": Agreement(536, None, False), "promised_window_scale": None},
         Translation(21, 600, 0, 0, 1220)),
        ([("WScale", 7)], {}, None),
        ([STAMPS], {"tsval_sent": None}, None),
        ([STAMPS, ("WScale", 7)], {"tsval_sent": 300}, Translation(21, 0xFFFFFF9C, 0, 0, 1440)),
    ],
)  # fmt: skip
def test_syn_ack_compared_with_the_promise(
    family: int, options: list[Any], changes: dict[str, Any], expected: Translation | None
) -> None:
    message, syn_ack = handoff(family, **changes), answer(family, "SA", 0, options=options)
    assert keeps_timestamps(message, syn_ack.options) is (expected is not None)
    if expected is not None:
        assert translation_of(message, syn_ack.seg_seq, syn_ack.options) == expected


@both_families
@pytest.mark.parametrize(
    ("options", "cookie"), [([("Timestamp", (400, 76))], False), ([("Timestamp", (400, 77))], True), ([], False)]
)
def test_answer_to_the_syn_again_is_a_cookie_if_it_echoes_that(family: int, options: list[Any], cookie: bool) -> None:
    assert is_cookie(handoff(family), answer(family, "SA", IRS + 1, options=options).options) is cookie


@both_families
@pytest.mark.parametrize(("shift", "window"), [(0, 100), (9, 51200), (14, 65535)])
def test_first_segment_acknowledges_and_carries_the_octets(family: int, shift: int, window: int) -> None:
    message = handoff(family)
    flow = Flow(message, Endpoint(CLIENTS[4], 666), 1, 0.0, 0.0)
    flow.server_iss = SeqNum(0xFFFFFFFF)
    flow.translation = Translation(0, 0, 0, shift, 1440)
    flow.tsecr = 400
    packet = first_segment(flow, message)
    tcp = (IP(packet) if family == 4 else IPv6(packet))[TCP]
    assert (str(tcp.flags), tcp.seq, tcp.ack, tcp.window) == ("PA", 0, 0, window)
    assert dict(tcp.options)["Timestamp"] == (77, 400)
    assert bytes(tcp.payload) == message.octets
