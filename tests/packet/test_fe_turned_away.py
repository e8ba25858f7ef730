"""HANDING, given to a second back end behind a silent one; then the client has heard a server. Whose?

The silent one may have adopted before it fell asleep, and both servers speak in the same numbers. So what proves an
adoption elsewhere is none here: the present back end must say itself that it has the connection.
"""

from __future__ import annotations

from dataclasses import replace as altered

import pytest

from tcpha.fe.actions import PassOn, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.packet.fe_client import GET, MASK, POST, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    EITHER,
    After,
    Packet,
    Playbook,
    Says,
    Told,
    anything,
    gets_rst,
    handoff,
    lives,
    nothing,
)

SIGNS = pytest.mark.parametrize(("how", "acks"), [("acknowledgement", 100), ("echo", 0)])


@pytest.fixture
def book() -> Playbook:
    return Playbook(rules=EITHER)


def turned(book: Playbook, family: int) -> Client:
    """A client whose request was given to a silent back end, then to another one."""
    client = book.connected(family)
    book.handing(client)
    book >> After(0.801) << anything
    assert book.flow(client).backend == BE2
    return client


def adopted(client: Client, octets: int = len(GET)) -> Adopted:
    return Adopted(client.identity, seq_add(SeqNum(client.irs), 1 + octets))


def sign(client: Client, how: str) -> bytes:
    """What the client says once it has heard a server: it acknowledges octets, or echoes a later clock than ours."""
    if how == "acknowledgement":
        return client.ack(len(GET), 100)
    return echo(client, 3)


def echo(client: Client, ticks: int, acks: int = 0) -> bytes:
    """It echoes a clock that has gone on so far from the only TSval that the front end sent."""
    return altered(client, tsecr=(client.tsecr + ticks) & MASK).ack(len(GET), acks)


def parted(client: Client, acks: int) -> list[Told | Packet | Send]:
    """The client is reset where it stands, and all that were given its connection are told that it is over."""
    over = Closed((client.identity,))
    return [gets_rst(client, acks), Send(BE1, over), Send(BE2, over)]


@SIGNS
def test_turned_away_client_has_heard_a_server_the_handoff_is_repeated_all_the_same(
    book: Playbook, how: str, acks: int, family: int
) -> None:
    client = turned(book, family)
    book >> sign(client, how) << PassOn(BE2) >> After(0.05) << Send(BE2, handoff(client, GET))
    assert book.flow(client).state is FlowState.HANDING


@SIGNS
@pytest.mark.parametrize("in_bulk", [True, False])
def test_turned_away_client_has_heard_a_server_and_the_present_one_confirms_it_goes_on(
    book: Playbook, how: str, acks: int, in_bulk: bool, family: int
) -> None:
    """Its server is often faster than its word."""
    client = turned(book, family)
    book >> sign(client, how) << PassOn(BE2)
    book >> Says(BE2, Flows((client.identity,)) if in_bulk else adopted(client)) << nothing >> After(60) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


@SIGNS
def test_turned_away_client_has_heard_a_server_and_the_present_one_refuses_it_is_reset(
    book: Playbook, how: str, acks: int, family: int
) -> None:
    client = turned(book, family)
    book >> sign(client, how) << PassOn(BE2)
    book >> Says(BE2, Refused(client.identity, Reason.BACKLOG_FULL)) << parted(client, acks)
    assert not book.knows(client)
    book >> client.sends(GET) << gets_rst(client)


@SIGNS
def test_turned_away_client_has_heard_a_server_and_the_present_one_is_silent_too_it_is_reset(
    book: Playbook, how: str, acks: int, family: int
) -> None:
    client = turned(book, family)
    book >> sign(client, how) << PassOn(BE2) >> After(0.798) << [Send(BE2, handoff(client, GET))] * 3
    book >> After(0.01) << parted(client, acks)
    assert not book.knows(client)


def test_turned_away_client_has_heard_a_server_and_the_present_one_restarts_it_is_handed_over_again_or_reset(
    book: Playbook, family: int
) -> None:
    client = turned(book, family)
    told: list[Told | Packet | Send] = [Told("restarted"), Send(BE2, FlowsQuery(()))]
    book >> client.ack(len(GET), 100) << PassOn(BE2)
    book >> lives(BE2, restarted=True) << [Send(BE2, handoff(client, GET)), *told]
    book >> client.sends(POST, len(GET), 100) << PassOn(BE2)  # which may have run
    book >> lives(BE2, restarted=True) << [*parted(client, 100), *told]


@pytest.mark.parametrize("acks", [0, 100])
def test_turned_away_client_echoes_a_clock_that_began_before_the_present_handoff_it_is_reset_at_once(
    book: Playbook, acks: int, family: int
) -> None:
    client = turned(book, family)
    book >> echo(client, 199, acks) << PassOn(BE2)
    book >> echo(client, 810, acks) << parted(client, acks)
    assert not book.knows(client)
    assert book.dispatcher.counters.orphaned == 1


def test_turned_away_present_one_has_adopted_but_not_all_is_delivered_signs_change_nothing(
    book: Playbook, family: int
) -> None:
    client = book.connected(family)
    book >> client.sends(GET[:9]) << nothing >> After(0.01) << anything >> client.sends(GET[9:], 9) << anything
    book >> After(0.801) << anything >> Says(BE2, adopted(client, 5)) << nothing
    book >> client.ack(len(GET), 100) << PassOn(BE2) >> echo(client, 900, 100) << PassOn(BE2)
    book >> Says(BE2, adopted(client)) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
