"""HANDING: repeats, confirmation, refusal, silence; which back end may have the octets when."""

from __future__ import annotations

from dataclasses import replace as altered
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import TCP

from tcpha.errors import ChecksumError
from tcpha.fe.actions import Forward, PassOn, Send
from tcpha.fe.backends import HEAR_S
from tcpha.fe.flows import Flow, FlowState
from tcpha.fe.handover import LOOK_AGAIN_S
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Handoff, Moved, NodeState, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.packet.fe_client import GET, GET_JPG, MASK, POST, Client, dissect, tcp_options
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    EITHER,
    After,
    Playbook,
    Says,
    Stop,
    Told,
    anything,
    gets,
    gets_rst,
    handoff,
    lives,
    nothing,
)

PUT = b"PUT /x HTTP/1.1\r\nHost: www\r\nContent-Length: 1\r\n\r\nx"
UNKNOWN_METHOD = b"FROB / HTTP/1.1\r\nHost: www\r\n\r\n"


def handing(book: Playbook, family: int = 4, octets: bytes = GET, irs: int = 1000) -> Client:
    client = book.connected(family, irs=irs)
    book.handing(client, octets)
    return client


def adopted(client: Client, octets: int = len(GET)) -> Adopted:
    return Adopted(client.identity, seq_add(SeqNum(client.irs), 1 + octets))


def refused(client: Client, reason: Reason = Reason.BACKLOG_FULL) -> Refused:
    return Refused(client.identity, reason)


def follows_octets(book: Playbook) -> int:
    """How many octets follow the latest HANDOFF as segments."""
    return sum(len(dissect(action.packet)[TCP].payload) for action in book.actions if isinstance(action, Forward))


def status_line(client: Client) -> bytes:
    return bytes(client.octets).partition(b"\r\n")[0]


# --- repeats


@pytest.mark.parametrize("irs", [1000, MASK - 5])
def test_handing_silence_repeats_the_same_message(irs: int, family: int) -> None:
    book = Playbook()
    client = handing(book, family, irs=irs)
    message = Send(BE1, handoff(client, GET))
    for wait in (0.05, 0.1, 0.2):
        book >> After(wait - 0.001) << nothing >> After(0.001) << message
    assert book.dispatcher.counters.repeats == 3
    book >> After(0.449) << nothing
    assert book.flow(client).state is FlowState.HANDING


def test_handing_repeats_follow_the_configuration() -> None:
    book = Playbook("handoff_repeat = 0.1s\nhandoff_repeats = 1\nhandoff_wait = 2s")
    client = handing(book)
    message = Send(BE1, handoff(client, GET))
    book >> After(0.09) << nothing >> After(0.02) << message >> After(1.98) << nothing >> After(0.02) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"


def test_handing_back_end_holds_it_the_repeats_end(family: int) -> None:
    """Confirmations come in bulk: one FLOWS for many connections."""
    book = Playbook()
    client, other = handing(book, family), book.connected(family, port=40_001)
    book.handing(other)
    book >> Says(BE1, Flows((client.identity, other.identity))) << nothing >> After(60) << nothing
    assert book.flow(client).state is book.flow(other).state is FlowState.FORWARDED
    assert book.dispatcher.counters.adopted == 2


@pytest.mark.parametrize("acks", [1, 1 << 19])
def test_handing_client_acknowledged_octets_past_us_it_is_not_repeated(acks: int, family: int) -> None:
    """Whoever carries packets of the flow (`FlowTable.follow`) has seen what proves that the back end has it."""
    book = Playbook()
    client = handing(book, family)

    def tell(flow: Flow) -> None:
        flow.last_ack = seq_add(flow.identity.iss, 1 + acks)

    book.dispatcher.table.follow(tell)
    book >> After(0.05) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> After(60) << nothing


@pytest.mark.parametrize("acks", [0, -1, 1 << 21])
def test_handing_what_was_carried_past_us_proves_nothing_it_is_repeated(acks: int) -> None:
    book = Playbook()
    client = handing(book)

    def tell(flow: Flow) -> None:
        flow.last_ack = seq_add(flow.identity.iss, 1 + acks)

    book.dispatcher.table.follow(tell)
    book >> After(0.05) << Send(BE1, handoff(client, GET))


def test_handing_owned_octets_and_the_client_acknowledged_past_us_they_are_repeated_all_the_same(family: int) -> None:
    book = Playbook()
    client = owning(book, family)

    def tell(flow: Flow) -> None:
        flow.last_ack = seq_add(flow.identity.iss, 5)

    book.dispatcher.table.follow(tell)
    book >> After(0.05) << Send(BE1, handoff(client, GET, acknowledged=seq_add(SeqNum(client.irs), 10)))
    assert book.flow(client).state is FlowState.HANDING


def test_handing_another_back_end_or_connection_is_held_nothing_is_confirmed(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    other = replace(client.identity, iss=seq_add(SeqNum(client.iss), 1))
    book >> Says(BE2, Flows((client.identity,))) << Send(BE2, Closed((client.identity,)))
    book >> Says(BE1, Flows((other,))) << nothing
    assert book.flow(client).state is FlowState.HANDING
    book >> After(0.05) << Send(BE1, handoff(client, GET))


def test_handing_owned_octets_and_the_connection_is_held_they_are_repeated_all_the_same(family: int) -> None:
    """That a back end has the connection does not say how much of the request its server has."""
    book = Playbook()
    client = owning(book, family)
    book >> Says(BE1, Flows((client.identity,))) << nothing
    book >> After(0.05) << Send(BE1, handoff(client, GET, acknowledged=seq_add(SeqNum(client.irs), 10)))
    book >> Says(BE1, refused(client)) << nothing
    book >> Says(BE1, adopted(client, 9)) << nothing >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    assert book.dispatcher.counters.adopted == 2


def test_handing_adopted_ends_the_repeats(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> Says(BE1, adopted(client)) << nothing >> After(30) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    assert book.dispatcher.counters.adopted == 1


def test_handing_adopted_of_another_identity_is_ignored(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    other = replace(client.identity, iss=seq_add(SeqNum(client.iss), 1))
    book >> Says(BE1, Adopted(other, SeqNum(0))) << nothing
    assert book.flow(client).state is FlowState.HANDING


def test_handing_adopted_of_another_back_end_is_sent_away(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> Says(BE2, adopted(client)) << Send(BE2, Closed((client.identity,)))
    assert book.flow(client).state is FlowState.HANDING


def test_none_adopted_of_an_unknown_flow_is_ignored(family: int) -> None:
    book = Playbook()
    book >> Says(BE1, adopted(book.connected(family))) << nothing


def test_handing_message_that_no_front_end_expects_is_counted() -> None:
    book = Playbook()
    client = handing(book)
    book >> Says(BE1, Moved(client.identity, 9)) << nothing >> Says(BE1, handoff(client, GET)) << nothing
    assert book.dispatcher.counters.unexpected_messages == 2


# --- the client meanwhile


def test_handing_segments_are_passed_on(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    for packet in (client.sends(GET), client.sends(b"more", len(GET)), client.ack(len(GET)), client.rst(len(GET))):
        book >> packet << PassOn(BE1)
    book >> client.fin(len(GET)) << PassOn(BE1)
    assert book.flow(client).state is FlowState.HANDING


def test_handing_clients_ack_of_the_response_proves_the_adoption(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> client.ack(len(GET), 100) << PassOn(BE1)
    assert book.flow(client).state is FlowState.FORWARDED
    book >> After(10) << nothing


@pytest.mark.parametrize("at", [-1, 65536, 1 << 31])
def test_handing_strangers_ack_proves_nothing(at: int, family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> client.ack(at, 100) << PassOn(BE1)
    assert book.flow(client).state is FlowState.HANDING
    book >> After(0.05) << Send(BE1, handoff(client, GET))


@pytest.mark.parametrize(("at", "counts"), [(len(GET), True), (-1, False), ((1 << 20) + 1, False), (1 << 31, False)])
def test_handing_what_a_stranger_acknowledges_is_not_where_the_client_stands(
    at: int, counts: bool, family: int
) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> client.ack(at, 1 << 21) << PassOn(BE1)
    acks = 1 << 21 if counts else 0
    assert book.flow(client).last_ack == seq_add(SeqNum(client.iss), 1 + acks)
    book >> Stop() << [gets_rst(client, acks), Send(BE1, Closed((client.identity,)))]


@pytest.mark.parametrize("octets", [b"", b"more of it"])
def test_handing_client_echoes_the_servers_clock_it_is_adopted(octets: bytes, family: int) -> None:
    """The server has acknowledged, and its TSval is later than ours; its back end went to sleep before it said so."""
    book = Playbook()
    client = handing(book, family, POST)
    later = altered(client, tsecr=(client.tsecr + 3) & MASK)
    book >> later.sends(octets, len(POST)) << PassOn(BE1) >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


def test_handing_echo_of_our_own_or_of_nobodys_clock_proves_nothing(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    for ticks, at in ((0, len(GET)), (-3, len(GET)), (1 << 20, len(GET)), (3, -5), (3, 1 << 20)):
        stranger = altered(client, tsecr=(client.tsecr + ticks) & MASK)
        book >> stranger.sends(b"x", at) << PassOn(BE1)
    assert book.flow(client).state is FlowState.HANDING


def test_handing_ack_with_bad_checksum_proves_nothing(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    with pytest.raises(ChecksumError):
        book >> client.ack(len(GET), 100, chksum=1)
    assert book.flow(client).state is FlowState.HANDING


# --- refusal


@pytest.mark.parametrize("octets", [GET, POST])
def test_handing_refused_goes_to_the_next(octets: bytes, family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family, octets)
    book >> Says(BE1, refused(client)) << Send(BE2, handoff(client, octets))
    book >> client.sends(octets) << PassOn(BE2)
    book >> After(0.05) << Send(BE2, handoff(client, octets))
    assert book.flow(client).backend == BE2


def test_handing_refused_by_all_is_answered_503(family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    book >> Says(BE1, refused(client)) << anything >> Says(BE2, refused(client)) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"
    assert book.dispatcher.counters.refused == 2
    book >> client.sends(GET) << anything
    assert all(not isinstance(action, PassOn | Send) for action in book.actions)


@pytest.mark.parametrize("early", [True, False])
def test_handing_silence_with_a_second_request_behind_the_first_is_not_sent_elsewhere(early: bool, family: int) -> None:
    """The second one may have run, and nobody here has read whether it may run twice."""
    book = Playbook(rules=EITHER)
    client = handing(book, family, GET + POST if early else GET)
    if not early:
        book >> client.sends(POST, len(GET)) << PassOn(BE1)
    book >> After(2) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"
    assert not [each for each in book.actions if isinstance(each, Send) and each.backend == BE2]


def test_handing_refused_where_the_rule_names_one_is_answered_503(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> Says(BE1, refused(client)) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize("reason", Reason)
def test_handing_refused_of_another_back_end_is_ignored(reason: Reason) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book)
    book >> Says(BE2, refused(client, reason)) << nothing
    assert book.flow(client).backend == BE1


def test_handing_refused_after_proof_is_ignored() -> None:
    book = Playbook(rules=EITHER)
    client = book.connected()
    book >> client.sends(GET[:9]) >> After(0.01) << anything
    book >> client.sends(GET[9:], 9) << anything >> Says(BE1, adopted(client, 5)) << nothing
    book >> Says(BE1, refused(client)) << nothing
    assert book.flow(client).backend == BE1


def test_handing_refused_next_is_not_one_that_is_down(family: int) -> None:
    book = Playbook(rules=EITHER, up=(BE1,))
    client = handing(book, family)
    book >> Says(BE1, refused(client)) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"


# --- silence


@pytest.mark.parametrize("octets", [GET, PUT, GET_JPG])
def test_handing_silence_sends_an_idempotent_request_elsewhere(octets: bytes, family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family, octets)
    book >> After(0.799) << anything
    assert book.flow(client).backend == BE1
    book >> After(0.002) << [Send(BE1, Closed((client.identity,))), Send(BE2, handoff(client, octets))]
    book >> client.sends(octets) << PassOn(BE2)
    assert book.dispatcher.counters.silent == 1


@pytest.mark.parametrize("octets", [POST, UNKNOWN_METHOD])
def test_handing_silence_answers_other_requests_503(octets: bytes, family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family, octets)
    book >> After(0.799) << anything >> After(0.002) << anything
    assert book.actions[0] == Send(BE1, Closed((client.identity,)))
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"


def test_handing_silence_where_the_rule_names_one_is_answered_503(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> After(0.801) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"
    assert book.flow(client).state is FlowState.ANSWERED


def test_handing_silence_of_all_is_answered_503(family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    book >> After(1.601) << anything
    assert [action for action in book.actions if isinstance(action, Send)][-1] == Send(BE2, Closed((client.identity,)))
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize("octets", [GET, POST], ids=["elsewhere", "answered"])
def test_given_up_late_adopted_is_sent_away(octets: bytes, family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family, octets)
    book >> After(0.801) << anything
    state = book.flow(client).state
    book >> Says(BE1, adopted(client)) << Send(BE1, Closed((client.identity,)))
    assert book.flow(client).state is state


def test_given_up_late_adopted_of_a_finished_flow_is_sent_away(family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    book >> After(0.801) << anything
    book >> Says(BE2, adopted(client)) << nothing >> Says(BE2, Closed((client.identity,))) << nothing
    book >> Says(BE1, adopted(client)) << Send(BE1, Closed((client.identity,)))
    book >> Says(BE2, adopted(client)) << nothing


def test_given_up_late_refused_is_ignored(family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    book >> After(0.801) << anything >> Says(BE1, refused(client)) << nothing
    assert book.flow(client).backend == BE2


def test_handing_silence_of_a_back_end_proven_by_the_client_is_no_fault(family: int) -> None:
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    book >> client.ack(len(GET), 1) << PassOn(BE1) >> After(5) << nothing
    assert book.flow(client).backend == BE1


# --- octets that the client was told had arrived


def owning(book: Playbook, family: int, octets: bytes = GET) -> Client:
    client = book.connected(family)
    book >> client.sends(octets[:9]) >> After(0.01) << gets(client, "A", 0, 9)
    book >> client.sends(octets[9:], 9) << anything
    return client


@pytest.mark.parametrize("octets", [GET, POST])
def test_handing_owned_octets_go_to_the_next_after_refusal(octets: bytes, family: int) -> None:
    book = Playbook(rules=EITHER)
    client = owning(book, family, octets)
    owned = seq_add(SeqNum(client.irs), 10)
    book >> Says(BE1, refused(client)) << Send(BE2, handoff(client, octets, acknowledged=owned))


def test_handing_owned_octets_never_delivered_reset_the_client(family: int) -> None:
    book = Playbook()
    client = owning(book, family)
    book >> Says(BE1, adopted(client, 8)) << nothing
    book >> After(26) << anything
    repeats, ends = book.actions[:-2], book.actions[-2:]
    assert repeats == [Send(BE1, handoff(client, GET, acknowledged=seq_add(SeqNum(client.irs), 10)))] * 8
    assert book.at[:8] == pytest.approx([0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 6.35, 12.75])
    gets(client, "RA", 0, 9).check(ends[0])
    assert ends[1] == Send(BE1, Closed((client.identity,)))
    assert book.flow(client).state is FlowState.FINISHED
    assert book.dispatcher.counters.orphaned == 1


def test_handing_owned_octets_delivered_late_are_settled(family: int) -> None:
    book = Playbook()
    client = owning(book, family)
    book >> Says(BE1, adopted(client, 8)) << nothing >> After(12) << anything
    book >> Says(BE1, adopted(client, 9)) << nothing >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


def told_selectively(book: Playbook, family: int, **client_is: Any) -> Client:
    """A request comes in three parts, the last before the second: of the last one the client is told by SACK."""
    client = book.connected(family, **client_is)
    for start, end in ((0, 4), (9, len(GET)), (4, 9)):
        book >> client.sends(GET[start:end], start) << anything
    return client


def test_handing_octets_sacked_are_repeated_until_they_are_delivered(family: int) -> None:
    book = Playbook()
    client = told_selectively(book, family)
    message = Send(BE1, handoff(client, GET, acknowledged=seq_add(SeqNum(client.irs), 1 + len(GET))))
    assert book.actions == [message]
    book >> Says(BE1, adopted(client, 9)) << nothing >> After(0.05) << message
    book >> client.ack(len(GET), 1) << PassOn(BE1) >> After(0.1) << message
    book >> Says(BE1, adopted(client)) << nothing >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


def test_handing_octets_sacked_but_never_delivered_are_left_to_the_client(family: int) -> None:
    """What it was told by ACK is delivered: nobody has to be reset."""
    book = Playbook()
    client = told_selectively(book, family)
    book >> Says(BE1, adopted(client, 9)) << nothing >> After(26) << anything
    assert [type(action) for action in book.actions] == [Send] * 8
    book >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    assert book.dispatcher.counters.orphaned == 0


def test_handing_octets_behind_a_gap_without_sack_only_what_precedes_it_is_owed(family: int) -> None:
    book = Playbook()
    client = told_selectively(book, family, offers=[("MSS", 1460)])
    (action,) = book.actions
    assert isinstance(action, Send)
    assert isinstance(action.message, Handoff)
    assert action.message.acknowledged == seq_add(SeqNum(client.irs), 5)
    book >> Says(BE1, adopted(client, 4)) << nothing >> After(60) << nothing


LONG = b"GET / HTTP/1.1\r\nHost: www\r\nX: " + b"x" * 2000 + b"\r\n\r\n"


def stamps_that_follow(book: Playbook) -> list[int]:
    """TSval of every segment that was sent to a back end behind a HANDOFF."""
    packets = [action.packet for action in book.actions if isinstance(action, Forward)]
    return [tcp_options(dissect(packet))["Timestamp"][0] for packet in packets]


@pytest.mark.parametrize("tsval", [5001, MASK - 2])
def test_handing_octets_that_follow_are_repeated_as_new_as_the_client(tsval: int, family: int) -> None:
    """The server has seen a later TSval and would refuse an earlier one (RFC 7323, 5.3)."""
    book = Playbook()
    client = book.connected(family, tsval=tsval)
    book >> client.sends(LONG) << anything
    assert stamps_that_follow(book) == [tsval]
    later = altered(client, tsval=(tsval + 12) & MASK)
    book >> later.sends(LONG[-100:], len(LONG) - 100) << PassOn(BE1)
    book >> client.sends(LONG[-50:], len(LONG) - 50) << PassOn(BE1)  # it was overtaken
    book >> After(0.05) << anything
    assert book.actions[0] == Send(BE1, handoff(client, LONG[: len(LONG) - follows_octets(book)]))
    assert stamps_that_follow(book) == [later.tsval]


def test_handing_timestamps_of_strangers_and_of_damaged_segments_are_not_taken(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(LONG) << anything
    stranger = altered(client, tsval=90_000)
    book >> stranger.sends(b"x", at=1 << 20) << PassOn(BE1)
    damaged = bytearray(stranger.sends(b"x", len(LONG)))
    damaged[-1] ^= 1
    with pytest.raises(ChecksumError):
        book >> bytes(damaged)
    book >> After(0.05) << anything
    assert stamps_that_follow(book) == [client.tsval]


def test_handing_adopted_that_was_overtaken_takes_nothing_back(family: int) -> None:
    book = Playbook()
    client = told_selectively(book, family)
    book >> Says(BE1, adopted(client, 9)) << nothing >> Says(BE1, adopted(client, 2)) << nothing
    book >> After(26) << anything >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


# --- the back end meanwhile


def test_handing_closed_ends_it(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> Says(BE1, Closed((client.identity,))) << nothing
    assert book.flow(client).state is FlowState.FINISHED
    book >> After(30) << nothing


def test_handing_closed_of_another_back_end_is_ignored(family: int) -> None:
    book = Playbook()
    client = handing(book, family)
    book >> Says(BE2, Closed((client.identity,))) << nothing
    assert book.flow(client).state is FlowState.HANDING

    book = Playbook()
    client = owning(book, family)
    book >> Says(BE1, adopted(client, 8)) << nothing
    book >> lives(BE1, restarted=True) << anything
    assert not book.knows(client)
    book >> After(0.5) << nothing

    book = Playbook()
    client = handing(book, family)
    (
        book
        >> lives(BE1, restarted=True)
        << [Send(BE1, handoff(client, GET)), Told("restarted"), Send(BE1, FlowsQuery(()))]
    )
    book >> After(0.05) << Send(BE1, handoff(client, GET))


def test_handing_restart_of_its_back_end_a_request_that_may_have_run_is_not_repeated(family: int) -> None:
    book = Playbook()
    client = handing(book, family, POST)
    book >> lives(BE1, restarted=True) << anything
    assert book.flow(client).state is FlowState.ANSWERED
    assert book.actions[0] == Send(BE1, Closed((client.identity,)))
    assert not any(isinstance(each, Send) and isinstance(each.message, Handoff) for each in book.actions)


def test_handing_restart_of_its_back_end_nobody_else_is_asked_while_it_may_live_there(family: int) -> None:
    """Its kernel may carry what the process before adopted; a second answer would mix with the first."""
    book = Playbook(rules=EITHER)
    client = handing(book, family)
    again = Send(BE1, handoff(client, GET))
    book >> lives(BE1, restarted=True) << [again, Told("restarted"), Send(BE1, FlowsQuery(()))]
    book >> After(0.05) << again >> After(0.1) << again >> After(0.2) << again >> After(0.45) << anything
    assert book.actions[0] == Send(BE1, Closed((client.identity,)))
    assert book.actions[1] == Send(BE2, handoff(client, GET))


@pytest.mark.parametrize("octets", [GET, POST])
def test_handing_given_up_back_end_says_that_it_has_it_and_is_told_that_it_is_over(octets: bytes, family: int) -> None:
    """It slept before it confirmed. Meanwhile another one has the request, or the client a 503."""
    book = Playbook(rules=EITHER)
    client = handing(book, family, octets)
    book >> After(0.8) << anything
    assert book.flow(client).backend == (BE2 if octets is GET else None)
    book >> Says(BE1, Flows((client.identity,))) << Send(BE1, Closed((client.identity,)))


# --- the front end has just begun: no back end has been heard of


def waiting(family: int, octets: bytes = GET) -> tuple[Playbook, Client]:
    book = Playbook(up=(), just_begun=True)
    client = book.connected(family)
    book >> client.sends(octets) << nothing
    assert book.flow(client).state is FlowState.HANDING
    return book, client


@pytest.mark.parametrize("octets", [GET, POST])
def test_begun_request_waits_for_the_first_status_and_is_handed_over_once(octets: bytes, family: int) -> None:
    book, client = waiting(family, octets)
    book >> client.sends(octets) << nothing >> After(1.0) << nothing >> lives(BE1) << anything
    book >> After(LOOK_AGAIN_S) << Send(BE1, handoff(client, octets))
    book >> Says(BE1, adopted(client, len(octets))) << nothing >> After(1.0) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    assert book.dispatcher.counters.no_choice == 0


def test_begun_back_ends_only_start_themselves_request_waits_for_them(family: int) -> None:
    book, client = waiting(family)
    book >> lives(BE1, state=NodeState.STARTING) << anything >> After(1.0) << nothing >> lives(BE1) << anything
    book >> After(LOOK_AGAIN_S) << Send(BE1, handoff(client, GET))


def test_begun_nobody_is_heard_of_request_is_answered_503_in_the_end(family: int) -> None:
    book, client = waiting(family)
    book >> After(HEAR_S - LOOK_AGAIN_S) << nothing >> After(2 * LOOK_AGAIN_S) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"
    assert book.dispatcher.counters.no_choice == 1
    late = book.connected(family, port=client.port + 1)
    book >> late.sends(GET) << anything
    assert status_line(late) == b"HTTP/1.1 503 Service Unavailable"


def test_begun_a_back_end_holds_the_waiting_request_already_it_is_not_handed_over_again(family: int) -> None:
    """The front end before had handed it over when it was killed; the client repeats what nobody acknowledged."""
    book, client = waiting(family, POST)
    book >> lives(BE1) << anything >> Says(BE1, Flows((client.identity,), ())) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> After(1.0) << nothing >> client.sends(POST) << PassOn(BE1)


def test_begun_client_acknowledges_what_a_back_end_sent_before_request_waits_on(family: int) -> None:
    """Nobody can say yet which back end has it."""
    book, client = waiting(family, POST)
    book >> client.ack(len(POST), 100) << nothing
    assert book.flow(client).state is FlowState.HANDING


def test_begun_other_back_ends_serve_what_the_silent_one_need_not(family: int) -> None:
    """Only a request that nobody else may serve waits."""
    book = Playbook(up=(BE1,), just_begun=True)
    client = book.connected(family)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET))


def test_begun_front_end_stops_waiting_client_is_reset(family: int) -> None:
    book, client = waiting(family)
    book >> Stop() << gets_rst(client)
    assert not book.knows(client)
