"""Segments of flows that this front end does not know: asked about once, then forwarded, reset, or left alone."""

from __future__ import annotations

import pytest

from tcpha.fe.actions import Action, Forward, PassOn, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Closed, Flows, FlowsQuery
from tcpha.rules import Endpoint
from tests.packet.fe_client import GET, PLAIN_SYN, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    After,
    Lost,
    Playbook,
    Says,
    anything,
    gets_rst,
    handoff,
    nothing,
)


def stranger(book: Playbook, family: int, port: int = 40000) -> Client:
    """A client in the middle of a connection that this front end never saw."""
    return book.client(family, port=port, irs=500_000, iss=900_000)


def question(client: Client, *backends: Endpoint) -> list[Action]:
    return [Send(backend, FlowsQuery((client.key,))) for backend in backends or (BE1, BE2)]


def absent(backend: Endpoint, client: Client) -> Says:
    return Says(backend, Flows((), (client.key,)))


def held(backend: Endpoint, client: Client) -> Says:
    return Says(backend, Flows((client.identity,)))


def test_unknown_segment_is_asked_about_once(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> client.ack(99, 99) << question(client)
    book >> client.ack(99, 99) << nothing >> client.sends(GET, 99, 99) << nothing
    assert book.dispatcher.counters.enquiries == 1


def test_unknown_segment_that_is_held_is_forwarded(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    packet = client.sends(b"more", 99, 77)
    book >> packet << question(client)
    book >> absent(BE1, client) << nothing >> held(BE2, client) << Forward(BE2, packet)
    assert book.flow(client).state is FlowState.FORWARDED
    book >> client.ack(103, 77) << PassOn(BE2)
    book >> Says(BE2, Closed((client.identity,))) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_none_flows_told_unasked_are_forwarded(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> held(BE2, client) << nothing >> client.ack(103, 77) << PassOn(BE2)
    book >> held(BE1, client) << Send(BE1, Closed((client.identity,))) >> client.ack(103, 77) << PassOn(BE2)
    assert book.dispatcher.counters.learned == 1


def test_none_flows_told_beyond_the_table_are_not_learned(family: int) -> None:
    book = Playbook("max_flows = 1")
    book >> held(BE1, stranger(book, family, 41000)) << nothing
    other = stranger(book, family, 41002)
    book >> held(BE1, other) << nothing
    assert not book.knows(other)


def test_unknown_bare_ack_nobody_holds_is_reset_when_its_time_is_up(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> client.ack(99, 55) << question(client)
    book >> absent(BE2, client) << nothing >> absent(BE1, client) << nothing >> After(2.9) << nothing
    book >> After(1.2) << gets_rst(client, 55) >> After(10) << nothing
    assert (book.dispatcher.counters.resets, len(book.dispatcher._enquiries)) == (1, 0)


def test_unknown_bare_ack_a_back_end_did_not_answer_about_is_not_reset(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> client.ack(99, 55) << question(client) >> absent(BE2, client) << nothing >> After(13) << nothing


def test_unknown_bare_ack_that_overtook_the_request_is_not_reset(family: int) -> None:
    """A SYN-ACK that comes twice is answered so by a client that has sent its request meanwhile."""
    book = Playbook()
    client = book.connected(family)
    book >> client.ack(len(GET)) << question(client)
    book >> absent(BE1, client) << nothing >> absent(BE2, client) << nothing >> After(1) << nothing
    book >> client.sends(GET) << Send(BE1, handoff(client, GET))
    assert (book.dispatcher.counters.resets, len(book.dispatcher._enquiries)) == (0, 0)


@pytest.mark.parametrize("flags", ["PA", "FA"])
def test_unknown_data_nobody_holds_is_reset_with_patience(flags: str, family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    packet = client.sends(b"x", 99, 55, flags)
    for _ in range(3):
        book >> packet << question(client)
        book >> absent(BE1, client) << nothing >> absent(BE2, client) << nothing >> After(1) << nothing
    book >> packet << question(client)
    book >> absent(BE1, client) << nothing >> absent(BE2, client) << gets_rst(client, 55)


def test_unknown_second_segment_that_overtook_the_first_is_not_reset(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[9:], 9) << question(client)
    book >> absent(BE1, client) << nothing
    book >> client.sends(GET[:9]) << nothing
    book >> absent(BE2, client) << nothing
    book >> client.sends(GET[9:], 9) << Send(BE1, handoff(client, GET))
    assert len(book.dispatcher._enquiries) == 0


def test_unknown_late_answer_does_not_reset_a_flow_that_began_since(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[9:], 9) << question(client) >> After(3.5) << nothing
    book >> client.sends(GET[:9]) << nothing
    book >> absent(BE1, client) << nothing >> absent(BE2, client) << nothing
    assert book.flow(client).state is FlowState.READING


@pytest.mark.parametrize("seconds", [96, 600, 64 * 32])
def test_unknown_expired_handshake_is_reset_at_once(seconds: float, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> After(seconds) << nothing >> client.sends(GET) << question(client)
    book >> absent(BE1, client) << nothing >> absent(BE2, client) << gets_rst(client)


def test_unknown_reset_where_only_some_were_asked_takes_patience(family: int) -> None:
    book = Playbook()
    book >> Lost(BE2) << anything
    client = stranger(book, family)
    book >> client.ack(99, 55) << question(client, BE1)
    book >> absent(BE1, client) << nothing >> After(3) << nothing
    book >> client.ack(99, 55) << question(client, BE1)
    book >> absent(BE1, client) << gets_rst(client, 55)


def test_unknown_silent_back_ends_are_asked_again(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> client.ack(99, 55) << question(client) >> After(0.29) << nothing
    book >> client.ack(99, 55) << nothing >> After(0.02) << nothing
    book >> client.ack(99, 55) << question(client)


def test_unknown_without_a_back_end_up_is_dropped(family: int) -> None:
    book = Playbook(up=())
    book >> stranger(book, family).ack(99, 55) << nothing
    assert book.dispatcher.counters.unknown_dropped == 1


def test_unknown_questions_are_limited_in_rate(family: int) -> None:
    book = Playbook("query_rate = 2")
    clients = [stranger(book, family, 41000 + number) for number in range(4)]
    for client in clients[:2]:
        book >> client.ack(99, 55) << question(client)
    book >> clients[2].ack(99, 55) << nothing
    assert book.dispatcher.counters.unknown_dropped == 1
    book >> After(0.5) << nothing >> clients[2].ack(99, 55) << question(clients[2])
    book >> clients[3].ack(99, 55) << nothing


def test_unknown_questions_are_limited_in_number(family: int) -> None:
    book = Playbook("max_queries = 2")
    clients = [stranger(book, family, 41000 + number) for number in range(3)]
    for client in clients[:2]:
        book >> client.ack(99, 55) << question(client)
    book >> clients[2].ack(99, 55) << question(clients[2])  # in the place of the oldest
    book >> clients[1].ack(99, 55) << nothing  # asked already
    book >> clients[0].ack(99, 55) << question(clients[0])  # forgotten, so asked again


def test_unknown_known_question_is_renewed_though_the_table_is_full(family: int) -> None:
    book = Playbook("max_queries = 1")
    client = stranger(book, family)
    book >> client.ack(99, 55) << question(client) >> After(1) << nothing >> client.ack(99, 55) << question(client)


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_unknown_rst_is_dropped(flags: str, family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> client.rst(99, 5, flags=flags) << nothing
    assert book.dispatcher.counters.enquiries == 0


def test_unknown_flow_taken_over_with_a_valid_cookie_repeats_only_to_its_holder(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> held(BE2, client) << nothing
    book >> client.sends(GET) << PassOn(BE2)
    assert book.dispatcher.counters.handoffs == 0


def test_learned_flow_port_reused_begins_anew(family: int) -> None:
    book = Playbook()
    old = stranger(book, family)
    book >> held(BE2, old) << nothing
    new = book.client(family, irs=7, offers=PLAIN_SYN)
    book >> new.syn() << anything >> new.sends(GET) << anything
    assert book.actions[0] == Send(BE2, Closed((old.identity,)))
    assert book.flow(new).backend == BE1
    assert old.identity in book.dispatcher.table.finished


def test_unknown_answers_of_nobody_asked_are_ignored(family: int) -> None:
    book = Playbook()
    client = stranger(book, family)
    book >> absent(BE1, client) << nothing
    assert len(book.dispatcher._enquiries) == 0
