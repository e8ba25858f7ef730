"""Octets that begin like HTTP or TLS, and are what a rule on octets is for: before and at the end of the waiting."""

from __future__ import annotations

import pytest

from tcpha.fe.actions import Note
from tcpha.fe.flows import FlowState
from tcpha.rules import Rule, parse_rule
from tests.packet.fe_client import GET, GET_JPG
from tests.packet.fe_playbook import BE1, BE2, After, Playbook, anything, gets, nothing


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(parse_rule(text) for text in texts)


SSH_FIRST = rules(f"{BE2.addr} octets=^SSH-", f"{BE1.addr} .*")
SSH_LAST = rules(f"{BE1.addr} .*", f"{BE2.addr} octets=^SSH-")
MULTIPLEXED = rules(f"{BE2.addr} port=80 octets=^SSH-", f"{BE1.addr} port=80")
SSH = b"SSH-2.0-OpenSSH"


def test_none_octets_are_an_earlier_rules_decided_at_once(family: int) -> None:
    book = Playbook(rules=SSH_FIRST)
    assert book.handing(book.connected(family), SSH).backend == BE2


def test_none_octets_are_an_earlier_rules_though_they_are_bad_http_however_they_are_cut(family: int) -> None:
    book = Playbook(rules=rules(f"{BE2.addr} octets=^GET\\x20/", f"{BE1.addr} .*"))
    assert book.handing(book.connected(family), GET[:5]).backend == BE2
    bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    assert book.handing(book.connected(family, port=41000), bad).backend == BE2


def test_reading_earlier_rule_may_still_match_waits(family: int) -> None:
    book = Playbook(rules=SSH_FIRST)
    client = book.connected(family)
    book >> client.sends(SSH[:3]) << nothing
    book >> client.sends(SSH, 0) << anything
    assert book.flow(client).backend == BE2


def test_reading_octets_are_a_later_rules_decided_when_the_time_is_over(family: int) -> None:
    book = Playbook("inspect_time = 1s", rules=SSH_LAST)
    client = book.connected(family)
    book >> client.sends(SSH) << nothing >> After(0.01) << gets(client, "A", 0, len(SSH))
    book >> After(1) << anything
    assert (book.flow(client).state, book.flow(client).backend) == (FlowState.HANDING, BE2)


def test_reading_octets_are_a_later_rules_decided_at_fin(family: int) -> None:
    book = Playbook(rules=SSH_LAST)
    client = book.connected(family)
    book >> client.sends(SSH, flags="FPA") << anything
    assert (book.flow(client).state, book.flow(client).backend) == (FlowState.HANDING, BE2)


def test_reading_octets_are_a_later_rules_decided_at_the_limit(family: int) -> None:
    book = Playbook("inspect_octets = 256", rules=SSH_LAST)
    client = book.connected(family)
    book >> client.sends(SSH.ljust(255, b"x")) << nothing
    book >> client.sends(b"x", 255) << anything
    assert (book.flow(client).state, book.flow(client).backend) == (FlowState.HANDING, BE2)


def test_reading_too_many_octets_are_a_later_rules_decided_when_evicted(family: int) -> None:
    book = Playbook("max_reading = 1", rules=SSH_LAST)
    client, other = book.connected(family), book.connected(family, port=41000)
    book >> client.sends(SSH) << nothing
    book >> other.sends(GET[:4]) << anything
    assert book.flow(client).backend == BE2


@pytest.mark.parametrize("octets", [GET[:9], b"\x16\x03\x01"])
def test_reading_octets_are_no_rules_answered_as_ever(family: int, octets: bytes) -> None:
    book = Playbook("inspect_time = 1s", rules=SSH_LAST)
    client = book.connected(family)
    book >> client.sends(octets) << nothing >> After(1.1) << anything
    assert book.flow(client).state is FlowState.ANSWERED
    assert (b"408" in client.octets) == (octets == GET[:9])


def test_none_ssh_and_http_share_a_port_each_is_read_as_what_it_is(family: int) -> None:
    book = Playbook(rules=MULTIPLEXED)
    assert book.handing(book.connected(family), SSH).backend == BE2
    other = book.connected(family, port=41000)
    book >> other.sends(GET_JPG[:7]) << nothing
    book >> other.sends(GET_JPG[7:], 7) << anything
    assert book.flow(other).backend == BE1
    bad = book.connected(family, port=42000)
    book >> bad.sends(b"GET / HTTP/1.1\r\n\r\n") << anything
    assert bytes(bad.octets).startswith(b"HTTP/1.1 400 ")


def test_slow_pattern_is_told_with_its_line_and_not_again_soon() -> None:
    slow = parse_rule(f"{BE2.addr} (a|aa)+$", 7)
    book = Playbook("match_time = 1ms", rules=(slow, *rules(f"{BE1.addr} .*")))
    notes: list[Note] = []
    for port in (41000, 42000):
        client = book.connected(4, port=port)
        request = b"GET /" + b"a" * 100 + b"c HTTP/1.1\r\nHost: a\r\n\r\n"
        assert book.handing(client, request).backend == BE1
        notes += [each for each in book.dispatcher.on_timer(book.now + 1) if isinstance(each, Note)]
    assert [(note.needs_care, note.text.partition(",")[0]) for note in notes if "match_time" in note.text] == [
        (True, "line 7")
    ]


LATE = rules(f"{BE2.addr} octets=late", f"{BE1.addr} octets=^")


def test_reading_unknown_octets_at_the_limit_are_decided_at_once(family: int) -> None:
    book = Playbook("inspect_octets = 256", rules=LATE)
    client = book.connected(family)
    book >> client.sends(bytes(255)) << nothing
    book >> client.sends(b"\0", 255) << anything
    assert (book.flow(client).state, book.flow(client).backend) == (FlowState.HANDING, BE1)


def test_reading_unknown_octets_with_fin_are_decided_at_once(family: int) -> None:
    book = Playbook(rules=LATE)
    client = book.connected(family)
    book >> client.sends(bytes(9)) << nothing
    book >> client.sends(b"\0", 9, flags="FPA") << anything
    assert (book.flow(client).state, book.flow(client).backend) == (FlowState.HANDING, BE1)
