"""A port whose rules look at octets only: what resembles HTTP or TLS there is handed over like anything else."""

from __future__ import annotations

import pytest

from tcpha.fe.flows import FlowState
from tcpha.rules import Rule, parse_rule
from tests.packet.fe_client import GET, GET_JPG
from tests.packet.fe_playbook import BE1, BE2, After, Playbook, anything, gets, nothing

ODD = {
    "a Redis command in a line": b"GET key\r\n",
    "HTTP that is none": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the beginning of a method": b"GE",
    "the beginning of TLS": b"\x16\x03\x01",
    "a TLS record that begins no connection": b"\x15\x03\x03\0\x02\x01\0",
    "the beginning of HTTP/2": b"PRI * HT",
    "HTTP/2 of a client that waits for SETTINGS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)),
    "anything": b"\r\r\r\r",
}


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(parse_rule(text) for text in texts)


PLAIN = rules(f"{BE2.addr} port=80 octets=^", f"{BE1.addr} .*")
OTHER_PORT = rules(f"{BE2.addr} port=81 octets=^", f"{BE1.addr} .*")


@pytest.mark.parametrize("octets", ODD.values(), ids=ODD)
def test_none_octets_of_a_plain_port_are_handed_over_at_once(octets: bytes, family: int) -> None:
    book = Playbook(rules=PLAIN)
    client = book.connected(family)
    flow = book.handing(client, octets)
    assert (flow.state, flow.backend) == (FlowState.HANDING, BE2)


def test_none_octets_of_another_port_are_read_as_ever(family: int) -> None:
    book = Playbook(rules=OTHER_PORT)
    client = book.connected(family)
    book >> client.sends(ODD["HTTP that is none"]) << anything
    assert bytes(client.octets).startswith(b"HTTP/1.1 400 ")
    other = book.connected(family, port=41000)
    book >> other.sends(b"GE") << nothing
    assert book.flow(other).state is FlowState.READING


def test_reading_plain_port_a_rule_may_still_match_waits_and_then_what_there_is_decides(family: int) -> None:
    book = Playbook("inspect_time = 1s", rules=rules(f"{BE2.addr} octets=^GET\\x20/b", f"{BE1.addr} octets=^"))
    client = book.connected(family)
    book >> client.sends(GET[:5]) << nothing >> After(0.01) << gets(client, "A", 0, 5)
    book >> After(1) << anything
    assert book.flow(client).backend == BE1
    other = book.connected(family, port=41000)
    assert book.handing(other, GET_JPG).backend == BE1, "^GET /b is out of the question"


def test_handing_plain_port_no_back_end_left_is_closed_without_a_word(family: int) -> None:
    book = Playbook(rules=PLAIN, up=(BE1,))
    client = book.connected(family)
    book >> client.sends(GET) << anything
    assert book.flow(client).state is FlowState.ANSWERED
    assert client.octets == b""
