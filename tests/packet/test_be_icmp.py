"""ICMP errors about packets that left: the host's TCP gets them in its own numbers."""

from __future__ import annotations

import pytest

from tests.packet.be_playbook import ISS, SERVER_ISS, Event, Playbook, both_families

LEFT = [Event("left to the host", {})]


@both_families
@pytest.mark.parametrize("begin", [Playbook.until_ack_sent, Playbook.until_adopted, Playbook.until_finished])
def test_rebuilt_icmp_error_translated(family: int, begin: object) -> None:
    book = Playbook(family)
    assert callable(begin)
    begin(book)
    seen = book.agent.table.by_key[book.key()].last_seen
    (event,) = book.errs(seq=1449)
    assert event.what == "icmp error to server"
    assert event.fields["packet"] == book.icmp_error(SERVER_ISS + 1449), "all but the number stays, checksum right"
    assert book.icmp_error(SERVER_ISS + 1449) != book.icmp_error(ISS + 1449)
    assert book.agent.counters.icmp_errors == 1
    assert book.agent.table.by_key[book.key()].last_seen == seen, "anybody may have sent it"


@both_families
def test_syn_sent_icmp_error_dropped(family: int) -> None:
    """Its numbers are the front end's, and there is no translation yet; the router repeats it."""
    book = Playbook(family)
    book.hands_off()
    assert book.errs() == []
    assert book.agent.counters.icmp_errors == 0


@both_families
def test_nothing_icmp_error_left_to_the_host(family: int) -> None:
    assert Playbook(family).errs() == LEFT
    book = Playbook(family).until_adopted()
    assert book.errs(port=40_001) == LEFT
