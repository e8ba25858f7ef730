"""Repeated HANDOFFs, late ones, and the next connection on the same ports."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from tcpha.be.flows import FlowState
from tcpha.config import Endpoint
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Adopted, Closed, Handoff, Identity, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.packet.be_playbook import (
    IRS,
    NEXT,
    PERIOD,
    QUIET,
    REQUEST,
    Event,
    Playbook,
    both_families,
    clear,
    inject,
    send,
    to_client,
)


def closed(book: Playbook, identity: Identity | None = None, to: Endpoint | None = None) -> Event:
    return send(Closed((identity or book.identity(),)), to=to or book.fe)


def newer(book: Playbook, **changes: Any) -> Handoff:
    """The next connection on the same ports."""
    return book.handoff(identity=book.identity(irs=IRS + 500_000, iss=12345), **changes)


def adopted(book: Playbook, rcv_nxt: int = NEXT, **fields: object) -> Event:
    return send(Adopted(book.identity(), seq_add(SeqNum(IRS), rcv_nxt)), **fields)


# --- the same identity again


@both_families
def test_syn_sent_handoff_again_nothing(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    assert book.hands_off() == []
    assert book.agent.counters.repeats == 1


@both_families
def test_ack_sent_handoff_again_nothing(family: int) -> None:
    """The replay repeats the request by itself, and whole."""
    book = Playbook(family).until_ack_sent()
    assert book.hands_off() == []
    assert book.agent.counters.repeats == 1


@both_families
def test_adopted_handoff_again_octets_and_adopted_again(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.hands_off() == [inject(flags="PA", seq=5, ack=1, payload=REQUEST[4:]), adopted(book, to=book.fe)]
    assert book.hands_off(confirm=False) == [inject(payload=REQUEST[4:])]
    assert book.hands_off(octets=b"") == [adopted(book)]
    assert book.agent.counters.adopted == 1


@both_families
def test_adopted_handoff_of_another_front_end_answered_there(family: int) -> None:
    """Any front end continues a connection, and what is owed is owed to the one that asks."""
    book = Playbook(family).until_adopted()
    owed = book.handoff(acknowledged=seq_add(SeqNum(IRS), NEXT + 10))
    assert book.says(owed, frontend=book.other_fe) == [inject(payload=REQUEST[4:]), adopted(book, to=book.other_fe)]
    assert book.leaves(ack=NEXT + 10) == [to_client(), adopted(book, NEXT + 10, to=book.other_fe)]


@both_families
def test_adopted_handoff_again_with_more_owed_adopted_until_covered(family: int) -> None:
    book = Playbook(family).until_adopted()
    book.hands_off(acknowledged=seq_add(SeqNum(IRS), NEXT + 10))
    assert book.leaves(ack=NEXT) == [to_client()]
    assert book.leaves(ack=NEXT + 4) == [to_client(), adopted(book, NEXT + 4)]
    assert book.leaves(ack=NEXT + 10) == [to_client(), adopted(book, NEXT + 10)]
    assert book.leaves(ack=NEXT + 11) == [to_client()]


@both_families
def test_finished_handoff_again_closed_and_nothing_injected(family: int) -> None:
    book = Playbook(family).until_finished()
    assert book.hands_off() == [closed(book)]
    assert book.says(book.handoff(), frontend=book.other_fe) == [closed(book, to=book.other_fe)]
    assert book.agent.counters.late_duplicates == 2


@both_families
def test_forgotten_flow_handoff_again_closed_while_the_cookie_is_valid(family: int) -> None:
    """The flow is forgotten after a minute, its identity when no front end takes its cookie any more."""
    book = Playbook(family).until_finished()
    book.passes(62.0)
    assert not book.agent.table.by_key
    assert book.hands_off() == [closed(book)]
    book.passes(30.0)
    assert book.hands_off() == [closed(book)]
    book.passes(40.0)
    assert len(book.agent.table.finished) == 0


@both_families
def test_destroyed_flow_handoff_again_closed(family: int) -> None:
    book = Playbook(family).until_adopted()
    book.says(Closed((book.identity(),)))
    assert book.hands_off() == [closed(book)]


# --- another identity on the same ports


@both_families
@pytest.mark.parametrize("state", [FlowState.SYN_SENT, FlowState.ACK_SENT, FlowState.ADOPTED])
@pytest.mark.parametrize("later", [0, 1, 7])
def test_live_flow_next_connection_replaces_it(family: int, state: FlowState, later: int) -> None:
    book = Playbook(family)
    if state is FlowState.SYN_SENT:
        book.hands_off()
    else:
        book = book.until_ack_sent() if state is FlowState.ACK_SENT else book.until_adopted()
    book.holder = "established"
    following = newer(book, period=(PERIOD + later) & 0xFFFF)
    assert book.hands_off(following) == [clear(embryonic=True), inject(flags="S", seq=500_000)]
    flow = book.agent.table.by_key[book.key()]
    assert (flow.identity, flow.state) == (following.identity, FlowState.SYN_SENT)
    assert book.hands_off() == [closed(book)], "what was replaced is finished"
    assert book.agent.counters.replaced == 1


@both_families
def test_live_flow_connection_of_an_older_period_refused(family: int) -> None:
    book = Playbook(family).until_adopted()
    older = newer(book, period=(PERIOD - 1) & 0xFFFF)
    assert book.hands_off(older) == [send(Refused(older.identity, Reason.OLDER_GENERATION), to=book.fe)]
    assert book.agent.table.by_key[book.key()].identity == book.identity()
    assert book.hands_off(newer(book, period=(PERIOD - 1) & 0xFFFF, confirm=False)) == []


@both_families
def test_finished_flow_next_connection_takes_its_place(family: int) -> None:
    book = Playbook(family).until_finished()
    following = newer(book)
    assert book.hands_off(following) == [inject(flags="S", seq=500_000)]
    assert book.hands_off() == [closed(book)]
    assert book.agent.table.live == len(book.agent.table) == 1


@both_families
@pytest.mark.parametrize(("low", "replaces"), [(0xFFFF, False), (0x0000, True), (0x0001, True), (0xFFFE, False)])
def test_live_flow_of_period_zero_periods_compare_across_the_wrap(family: int, low: int, replaces: bool) -> None:
    """A HANDOFF carries 16 bits of the period: UTC says which turn is meant."""
    book = Playbook(family)
    book.agent.on_utc(float(((PERIOD | 0xFFFF) + 1) << 5), book.now)
    book.hands_off(period=0)
    outcome = book.hands_off(newer(book, period=low))
    assert [event.what for event in outcome] == (["clear", "inject"] if replaces else ["send"])
    assert book.agent.counters.replaced == replaces


@both_families
def test_nothing_handoff_at_the_period_floor_refused(family: int) -> None:
    """An identity had to be forgotten early: nobody may bring it back, nor anything as old."""
    book = Playbook(family, QUIET + "max_finished = 1\n")
    for port in (1, 2):
        book.hands_off(identity=book.identity(port), confirm=False)
        book.says(Closed((book.identity(port),)))
    forgotten = book.identity(1)
    assert book.hands_off(identity=forgotten) == [send(Refused(forgotten, Reason.OLDER_GENERATION))]
    other = book.identity(3)
    assert book.hands_off(identity=other) == [send(Refused(other, Reason.OLDER_GENERATION))]
    newer_one = book.identity(4)
    assert book.hands_off(identity=newer_one, period=(PERIOD + 1) & 0xFFFF) == [inject(flags="S")]


# --- not ours


@both_families
@pytest.mark.parametrize(("age_s", "taken"), [(0.0, True), (0.25, True), (0.251, False), (9.0, False)])
def test_nothing_handoff_that_lay_in_the_socket_dropped(family: int, age_s: float, taken: bool) -> None:
    book = Playbook(family)
    assert book.hands_off(age_s=age_s) == ([inject(flags="S")] if taken else [])
    assert book.agent.counters.stale == (not taken)


@both_families
@pytest.mark.parametrize("age_s", [0.0, 60.0])
def test_adopted_closed_that_lay_in_the_socket_still_counts(family: int, age_s: float) -> None:
    book = Playbook(family).until_adopted()
    assert book.says(Closed((book.identity(),)), age_s=age_s) == [clear(embryonic=True)]


@pytest.mark.parametrize(("address", "port"), [("192.168.1.37", 80), ("192.168.1.36", 81), ("192.168.1.33", 80)])
def test_nothing_handoff_for_another_address_refused(address: str, port: int) -> None:
    book = Playbook(4)
    key = connection_key(IPv4Address("198.18.0.10"), 40000, IPv4Address(address), port)
    identity = Identity(key, SeqNum(1), SeqNum(2))
    assert book.hands_off(identity=identity) == [send(Refused(identity, Reason.NOT_MY_ADDRESS), to=book.fe)]
    assert not book.agent.table.by_key


@both_families
def test_nothing_handoff_into_a_full_table_refused(family: int) -> None:
    book = Playbook(family, QUIET + "max_flows = 2\n")
    for port in (1, 2):
        assert book.hands_off(identity=book.identity(port)) == [inject(flags="S")]
    third = book.identity(3)
    assert book.hands_off(identity=third) == [send(Refused(third, Reason.TABLE_FULL))]
    assert book.agent.counters.table_full == 1
    book.says(Closed((book.identity(1),)))
    assert book.hands_off(identity=third) == [send(Refused(third, Reason.REFUSED_BEFORE))]
    assert book.hands_off(identity=book.identity(4)) == [inject(flags="S")]


@both_families
def test_nothing_closed_overtakes_its_handoff_which_then_runs_nothing(family: int) -> None:
    book = Playbook(family)
    book.says(Closed((book.identity(1),)))
    assert book.hands_off(identity=book.identity(1)) == [send(Closed((book.identity(1),)))]


@both_families
def test_full_table_next_connection_on_the_same_ports_replaces(family: int) -> None:
    """A flow that takes another's place needs no room."""
    book = Playbook(family, QUIET + "max_flows = 1\n").until_adopted()
    assert book.hands_off(newer(book)) == [clear(), inject(flags="S")]


@both_families
def test_full_table_of_finished_flows_has_room(family: int) -> None:
    book = Playbook(family, QUIET + "max_flows = 1\n").until_finished()
    other = book.identity(2)
    assert book.hands_off(identity=other) == [inject(flags="S")]
