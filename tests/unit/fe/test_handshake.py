from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.fe.handshake import EXPIRED_PERIODS, Handshake, is_first, reset
from tcpha.proto.cookie import PERIOD_S, SynCookies
from tcpha.proto.ip import connection_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, FIN, PSH, RST, SYN, Segment, decode_segment, encode_segment

UTC = 1_600_000_000.0
CLIENT, VIP = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "198.18.0.36", 6: "2001:db8::24"}


def handshake(window_octets: int = 65535, **promise: Any) -> Handshake:
    values: dict[str, Any] = {"mss": 1460, "window_scale": 7, "sack": True, "timestamps": True} | promise
    made = Handshake(SynCookies(Keyring((Key(1, bytes(32)),))), Promise(**values), window_octets)
    made.utc_s = UTC
    return made


def segment(family: int, flags: int = ACK, seq: int = 1, ack: int = 0, payload: bytes = b"") -> Segment:
    key = connection_key(ip_address(CLIENT[family]), 1024, ip_address(VIP[family]), 80)
    return decode_segment(encode_segment(key, SeqNum(seq), SeqNum(ack), flags, 100, b"", payload))


def tcp_of(packet: bytes, family: int) -> Any:
    read = (IP if family == 4 else IPv6)(packet)
    assert (read.src, read.dst, read[TCP].sport, read[TCP].dport) == (VIP[family], CLIENT[family], 80, 1024)
    return read[TCP]


def acknowledging(made: Handshake, family: int) -> Segment:
    syn_ack = tcp_of(made.syn_ack(segment(family, SYN, 100)), family)
    return segment(family, seq=101, ack=(syn_ack.seq + 1) & 0xFFFFFFFF)


both_families = pytest.mark.parametrize("family", [4, 6])


@both_families
@pytest.mark.parametrize(("window", "whole"), [(536, (536, 536)), (65535, (44 * 1460, 45 * 1440))])
def test_syn_ack_window_is_whole_segments_and_never_scaled(window: int, whole: tuple[int, int], family: int) -> None:
    syn_ack = tcp_of(handshake(window).syn_ack(segment(family, SYN, 100)), family)
    assert (syn_ack.window, syn_ack.ack, str(syn_ack.flags)) == (whole[family == 6], 101, "SA")


@both_families
@pytest.mark.parametrize(("seconds", "valid"), [(0, True), (63.9, True), (64, False)])
def test_cookie_is_valid_for_two_periods(seconds: float, valid: bool, family: int) -> None:
    made = handshake()
    segment_ = acknowledging(made, family)
    made.utc_s += seconds
    assert (made.cookie_of(segment_) is not None) == valid
    assert made.is_expired(segment_) == (not valid)


def test_is_expired_looks_back_a_limited_time() -> None:
    made = handshake()
    segment_ = acknowledging(made, 4)
    made.utc_s += (EXPIRED_PERIODS + 1) * PERIOD_S
    assert made.is_expired(segment_)
    made.utc_s += PERIOD_S
    assert not made.is_expired(segment_)


@both_families
def test_probe_and_close_are_told_from_each_other(family: int) -> None:
    made = handshake()
    first = acknowledging(made, family)
    probe = segment(family, seq=100, ack=first.seg_ack)
    last = segment(family, seq=102, ack=(first.seg_ack + 1) & 0xFFFFFFFF)
    assert [made.cookie_of(each) is not None for each in (first, probe, last)] == [True, False, False]
    assert [made.cookie_of_probe(each) is not None for each in (first, probe, last)] == [False, True, False]
    assert [made.is_last_of_close(each) for each in (first, probe, last)] == [False, False, True]


@both_families
def test_acknowledge_says_where_the_client_is(family: int) -> None:
    made = handshake()
    segment_ = acknowledging(made, family)
    cookie = made.cookie_of(segment_)
    assert cookie is not None
    answer = tcp_of(made.acknowledge(segment_, cookie, SeqNum(102), FIN | ACK), family)
    window = 44 * 1460 if family == 4 else 45 * 1440
    assert (answer.seq, answer.ack, str(answer.flags), answer.window) == (segment_.seg_ack, 102, "FA", window)


def test_syn_ack_in_a_refused_period_is_made_for_the_next() -> None:
    made = handshake()
    now = int(UTC) // PERIOD_S
    made._cookies.period_floor = now
    cookie = made.cookie_of(acknowledging(made, 4))
    assert cookie is not None
    assert cookie.period == now + 1


@both_families
def test_reset_answers_an_acknowledgement_with_its_number(family: int) -> None:
    answer = tcp_of(reset(segment(family, ACK | PSH, 5, 77, b"abc")), family)
    assert (str(answer.flags), answer.seq, answer.ack) == ("R", 77, 0)


@both_families
def test_reset_of_a_segment_without_ack_acknowledges_it(family: int) -> None:
    answer = tcp_of(reset(segment(family, SYN | FIN, 5, 0, b"abc")), family)
    assert (str(answer.flags), answer.seq, answer.ack) == ("RA", 0, 10)


@pytest.mark.parametrize(
    ("flags", "payload", "expected"), [(ACK, b"", False), (ACK, b"x", True), (ACK | FIN, b"", True), (RST, b"", False)]
)
def test_first_is_what_carries_something(flags: int, payload: bytes, expected: bool) -> None:
    assert is_first(segment(4, flags, payload=payload)) is expected
