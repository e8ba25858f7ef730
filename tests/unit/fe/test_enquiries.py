from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tcpha.fe.enquiries import ANSWER_TIME_S, MEMORY_S, PATIENCE_S, Enquiries
from tcpha.proto.ip import connection_key
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, Segment, decode_segment, encode_segment
from tcpha.rules import Endpoint

FIRST = Endpoint(IPv4Address("198.18.0.33"), 666)
SECOND = Endpoint(IPv4Address("198.18.0.38"), 666)
NOW = 100.0


def segment(port: int = 1024) -> Segment:
    key = connection_key(IPv4Address("192.0.2.1"), port, IPv4Address("198.18.0.36"), 80)
    return decode_segment(encode_segment(key, SeqNum(1), SeqNum(2), ACK, 3))


def ask(
    enquiries: Enquiries, port: int = 1024, *, asked: list[Endpoint] | None = None, at: float = NOW, **more: bool
) -> None:
    chosen = {"may_reset_at_once": True, "bare": False, "everybody_asked": True} | more
    enquiries.open(segment(port), **chosen, asked=asked or [FIRST], now=at)


def opened(**more: bool) -> Enquiries:
    enquiries = Enquiries(2, 10)
    ask(enquiries, asked=[FIRST, SECOND], **more)
    return enquiries


def test_budget_is_spent_and_refilled_by_time() -> None:
    enquiries = Enquiries(9, 10)
    assert [enquiries.may_ask(NOW) for _ in range(11)] == [True] * 10 + [False]
    assert not enquiries.may_ask(NOW + 0.05)
    assert enquiries.may_ask(NOW + 0.11)
    assert [enquiries.may_ask(NOW + 60) for _ in range(11)] == [True] * 10 + [False]


def test_table_full_renews_known_ones_and_forgets_the_oldest_for_others() -> None:
    enquiries = opened()
    ask(enquiries, 1026)
    ask(enquiries, at=NOW + 1)
    assert len(enquiries) == 2
    ask(enquiries, 1028, at=NOW + 1)
    assert len(enquiries) == 2
    assert enquiries.get(segment(1026).key) is None
    assert enquiries.get(segment().key) is not None


def test_open_again_keeps_when_it_was_first_seen() -> None:
    enquiries = opened()
    ask(enquiries, at=NOW + 1)
    known = enquiries.get(segment().key)
    assert known is not None
    assert (known.since, known.ends_at) == (NOW, NOW + 1 + ANSWER_TIME_S)


def test_absent_everywhere_is_reset_when_it_may_be() -> None:
    enquiries = opened()
    assert enquiries.on_absent(FIRST, segment().key, NOW) is None
    assert enquiries.on_absent(FIRST, segment().key, NOW) is None
    enquiry = enquiries.on_absent(SECOND, segment().key, NOW)
    assert enquiry is not None
    assert enquiry.segment.key == segment().key
    assert len(enquiries) == 0


@pytest.mark.parametrize(("at_once", "everybody"), [(False, True), (True, False), (False, False)])
def test_absent_everywhere_otherwise_takes_patience(at_once: bool, everybody: bool) -> None:
    enquiries = opened(may_reset_at_once=at_once, everybody_asked=everybody)
    enquiries.on_absent(FIRST, segment().key, NOW)
    assert enquiries.on_absent(SECOND, segment().key, NOW + PATIENCE_S - 0.01) is None
    assert len(enquiries) == 1
    assert enquiries.on_absent(SECOND, segment().key, NOW + PATIENCE_S) is not None


def test_absent_of_an_unknown_flow_is_ignored() -> None:
    assert opened().on_absent(FIRST, segment(1026).key, NOW) is None


def test_close_forgets() -> None:
    enquiries = opened()
    assert enquiries.close(segment().key) is not None
    assert enquiries.close(segment().key) is None


def test_timer_forgets_what_is_old() -> None:
    enquiries = opened()
    enquiries.on_timer(NOW + MEMORY_S)
    assert len(enquiries) == 1
    enquiries.on_timer(NOW + MEMORY_S + 0.1)
    assert len(enquiries) == 0


@pytest.mark.parametrize(
    ("bare", "everybody", "answered"),
    [(True, True, True), (False, True, True), (True, False, True), (True, True, False)],
)
def test_timer_gives_what_nobody_holds_and_cannot_have_overtaken_anything(
    bare: bool, everybody: bool, answered: bool
) -> None:
    enquiries = opened(may_reset_at_once=False, bare=bare, everybody_asked=everybody)
    for backend in (FIRST, SECOND) if answered else (FIRST,):
        assert enquiries.on_absent(backend, segment().key, NOW) is None
    assert enquiries.on_timer(NOW + PATIENCE_S - 0.01) == []
    given = [enquiry.segment.key for enquiry in enquiries.on_timer(NOW + PATIENCE_S)]
    assert given == ([segment().key] if bare and everybody and answered else [])
    assert len(enquiries) == 1 - len(given)
