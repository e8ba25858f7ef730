"""Whom the front end answers itself: counted by what the client gets, and told to the operator with the reason."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tcpha.fe.answerer import _kind
from tcpha.fe.counters import FrontEndCounters
from tcpha.proto.inspect import Cause, Protocol
from tcpha.proto.inspect.first import answer
from tests.packet.fe_client import CLIENT, GET
from tests.packet.fe_playbook import After, Playbook, anything
from tests.unit.proto.inspect.hellos import Hello, sni

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
HTTP2_REQUEST = HTTP2 + b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01a"
HTTP2_FAULT = HTTP2 + b"\0\0\x01\x06\0\0\0\0\0\0"
"""A PING of one octet."""
HELLO = Hello(sni(b"www.example.com")).record


def counted(book: Playbook) -> dict[str, int]:
    """The counters of answers that are not 0."""
    counters = asdict(book.dispatcher.counters)
    return {name: number for name, number in counters.items() if name.startswith("answered") and number}


def told(book: Playbook) -> str:
    """What the operator reads, once."""
    book >> After(1.0) << anything
    (line,) = book.refusals
    return line


@pytest.mark.parametrize(
    ("octets", "kind", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "400", "400 (HTTP/1.1 without Host)"),
        (b"GET /" + b"x" * 300 + b" HTTP/1.1\r\n", "414", "414 (request line exceeds the limit)"),
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * 300, "431", "431 (request head exceeds the limit)"),
        (b"GET / HTTP/2.0\r\n", "505", "505 (HTTP major version other than 1)"),
        (GET, "503", "503 (no usable back end)"),
        (HTTP2_REQUEST, "503", "503 (no usable back end)"),
        (HTTP2_FAULT, "goaway", "GOAWAY ("),
        (HELLO, "alert", "TLS alert (no rule)"),
    ],
)
def test_none_what_is_answered_is_counted_by_kind_and_told_with_the_reason(
    octets: bytes, kind: str, reason: str, family: int
) -> None:
    book = Playbook("inspect_octets = 256", up=())
    client = book.connected(family)
    book >> client.sends(octets) << anything
    assert counted(book) == {"answered": 1, f"answered_{kind}": 1}
    line = told(book)
    assert line.startswith(f"refusals and limits: once {reason}")
    address = f"[{CLIENT[family]}]" if family == 6 else CLIENT[family]
    assert f", last {address}:{client.port} > " in line


def test_reading_head_stays_incomplete_is_counted_and_told(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) << anything >> After(12.0) << anything
    assert counted(book) == {"answered": 1, "answered_408": 1}
    assert book.refusals[0].startswith("refusals and limits: once 408 (timed out), last ")


def test_reading_client_closes_inside_its_head_is_counted_and_told(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) << anything >> client.fin(9) << anything
    assert counted(book) == {"answered": 1, "answered_silently": 1}
    assert "once closed silently (the client closed inside its request head), last " in told(book)


def test_reading_one_head_too_many_is_told_as_the_limit_it_is(family: int) -> None:
    book = Playbook("max_reading = 1")
    oldest, other = (book.connected(family, port=41000 + number) for number in range(2))
    book >> oldest.sends(GET[:9]) << anything >> other.sends(GET[:9]) << anything
    assert counted(book) == {"answered": 1, "answered_408": 1}
    line = told(book)
    assert "once 408 (more than max_reading were being read), last " in line
    assert f":{oldest.port} > " in line


def test_none_request_while_the_table_is_full_is_told(family: int) -> None:
    book = Playbook("max_flows = 1")
    book.handing(book.connected(family))
    for number in range(3):
        book >> book.connected(family, port=41000 + number).sends(GET) << anything
    assert counted(book) == {}
    line = told(book)
    assert "3 times reset (max_flows connections are held), last " in line
    assert ":41002 > " in line


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("cause", Cause)
def test_every_answer_there_is_has_a_counter(protocol: Protocol, cause: Cause) -> None:
    counters = FrontEndCounters()
    counters.answer(_kind(protocol, None, answer(protocol, cause)))
    assert counters.answered == 1
