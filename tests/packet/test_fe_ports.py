"""Ports used again though the new connection's SYN is unknown here, and flows whose age is unknown: no wrong mixture.

The front end notes the last two SYNs of a live flow. A stranger can forge more than two, another front end may have
answered the SYN, or this one did before it was restarted. Then only the acknowledgement number tells the new
connection from the old one: it lies far from everything that the old one's client acknowledged.
"""

from __future__ import annotations

import pytest

from tcpha.fe.actions import PassOn, Send
from tcpha.fe.flows import STRANGE_OCTETS, FlowState
from tcpha.proto.cookie import PERIOD_S, Agreement, Cookie
from tcpha.proto.messages import Closed, Flows
from tcpha.proto.tcp import Segment, decode_segment
from tests.packet.fe_client import GET, GET_JPG, MASK, PLAIN_SYN, Client
from tests.packet.fe_playbook import BE1, BE2, UTC, After, Playbook, Says, anything, gets, gets_rst, handoff, nothing
from tests.packet.fe_states import BRING_TO

HOLDING = (FlowState.HANDING, FlowState.FORWARDED)


def answered_elsewhere(family: int, irs: int, utc_s: float = UTC) -> Client:
    """A client whose SYN another front end with the same secret has answered."""
    other = Playbook()
    other.dispatcher.on_utc(utc_s, other.now)
    client = other.client(family, irs=irs)
    _ = other >> client.syn() << anything
    return client


@pytest.mark.parametrize("state", FlowState)
def test_any_state_syn_hidden_by_forged_ones_port_reused_begins_anew(state: FlowState, family: int) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    new = book.client(family, irs=3_000_000_000)
    book >> new.syn() << anything >> new.ack() << nothing
    for irs in (7, 8, 9, 10):
        book >> new.syn(seq=irs) << anything
    assert new.irs + 1 not in book.flow(old).noted
    farewell = [Send(BE1, Closed((old.identity,)))] if state in HOLDING else []
    book >> new.sends(GET_JPG) << [*farewell, Send(BE2, handoff(new, GET_JPG))]
    assert book.flow(new).identity == new.identity
    assert old.identity in book.dispatcher.table.finished


@pytest.mark.parametrize("state", FlowState)
def test_any_state_syn_answered_elsewhere_port_reused_begins_anew(state: FlowState, family: int) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    new = answered_elsewhere(family, 3_000_000_000)
    book >> new.sends(GET_JPG) << anything
    assert book.flow(new).identity == new.identity
    assert book.flow(new).backend == BE2


def near(old: Client, iss_away: int) -> Client:
    """A client on the same ports whose SYN was not seen here; its numbers are near those of the old one by chance."""
    return Client(old.family, irs=old.irs + 5_000, iss=(old.iss + iss_away) & MASK)


@pytest.mark.parametrize("away", [-STRANGE_OCTETS, -1 << 8])
@pytest.mark.parametrize("state", [state for state in FlowState if state is not FlowState.FINISHED])
def test_any_state_segment_acknowledges_what_was_before_the_connection_its_cookie_is_looked_at(
    state: FlowState, away: int, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    new = near(old, away)
    asked: list[Segment] = []
    monkeypatch.setattr(book.dispatcher, "_cookie_of", asked.append)
    book.dispatcher.on_segment(decode_segment(new.sends(GET_JPG)), book.now)
    assert [segment.seg_ack for segment in asked] == [new.iss + 1]


@pytest.mark.parametrize("away", [-STRANGE_OCTETS, -1 << 8, 1 << 8, STRANGE_OCTETS])
@pytest.mark.parametrize("state", FlowState)
def test_any_state_first_octets_come_with_their_cookie_however_near_their_numbers_are_port_begins_anew(
    state: FlowState, away: int, family: int
) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    new = near(old, away)
    cookie = Cookie(Agreement(1460, 7, True), UTC // PERIOD_S, None)
    book.dispatcher.on_verified(decode_segment(new.sends(GET_JPG)), cookie, book.now)
    assert book.flow(new).identity == new.identity
    assert book.flow(new).backend == BE2


@pytest.mark.parametrize("state", FlowState)
def test_any_state_syn_answered_elsewhere_and_closed_before_a_request_is_answered(
    state: FlowState, family: int
) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    new = answered_elsewhere(family, 3_000_000_000)
    book._clients[family, new.port] = new
    book >> new.ack() << anything
    if state is not FlowState.FINISHED:
        assert list(book.actions) == []
        book >> new.fin() << gets(new, "FA", 0, 1)
    assert book.flow(old).identity == old.identity


@pytest.mark.parametrize("jump", [1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, MASK])
def test_forwarded_acknowledgement_that_jumps_is_passed_on_all_the_same(jump: int, family: int) -> None:
    """After losses, or a restart of the front end, a client of the old connection may have acknowledged much more."""
    book = Playbook()
    client = book.connected(family)
    book.adopted(client)
    for packet in (client.ack(len(GET), jump), client.sends(GET, len(GET), 2 * jump), client.fin(len(GET), 3 * jump)):
        book >> packet << PassOn(BE1)
    assert book.dispatcher.counters.ports_reused == 0


# --- flows that the back ends told us of


def learned(book: Playbook, family: int, irs: int = 500_000) -> Client:
    """A client in the middle of a connection that was handed over before this front end started."""
    client = book.client(family, irs=irs, iss=900_000)
    _ = book >> Says(BE2, Flows((client.identity,))) << nothing
    return client


def test_learned_flow_late_duplicate_of_an_older_connection_does_not_replace_it(family: int) -> None:
    """A request of the connection before, on the same ports, still has a valid cookie."""
    older = answered_elsewhere(family, 5)
    book = Playbook()
    book >> After(PERIOD_S) << nothing
    live = learned(book, family)
    book >> older.sends(GET) << gets_rst(older)
    assert book.flow(live).identity == live.identity
    assert book.dispatcher.counters.older_generations == 1
    book >> live.sends(GET, 99, 77) << PassOn(BE2)


def test_learned_flow_its_own_request_again_goes_to_its_holder(family: int) -> None:
    book = Playbook()
    client = answered_elsewhere(family, 5)
    book >> Says(BE2, Flows((client.identity,))) << nothing
    book >> client.sends(GET) << PassOn(BE2) >> client.sends(GET, 0, 5000) << PassOn(BE2)
    assert book.dispatcher.counters.handoffs == 0


def test_learned_flow_over_its_request_never_runs_again(family: int) -> None:
    """Its cookie may still be valid: how old the connection is was not told."""
    book = Playbook("finished_time = 2s")
    client = answered_elsewhere(family, 5)
    book >> Says(BE2, Flows((client.identity,))) << nothing
    book >> Says(BE2, Closed((client.identity,))) << nothing >> After(5) << nothing
    assert not book.knows(client)
    book >> client.sends(GET) << gets_rst(client)
    assert book.dispatcher.counters.handoffs == 0


@pytest.mark.parametrize("later_s", [0, PERIOD_S, 2 * PERIOD_S])
def test_learned_flow_port_reused_later_begins_anew(later_s: float, family: int) -> None:
    book = Playbook()
    old = learned(book, family)
    book >> After(later_s) << anything
    new = book.client(family, irs=7, offers=PLAIN_SYN)
    book >> new.syn() << anything >> new.sends(GET) << anything
    assert next(action for action in book.actions if isinstance(action, Send)) == Send(BE2, Closed((old.identity,)))
    assert book.flow(new).backend == BE1


def test_forwarded_port_reused_hundreds_of_times_only_the_last_lives(family: int) -> None:
    book = Playbook()
    previous: Client | None = None
    for number in range(300):
        client = book.client(family, irs=(number * 2_654_435_761) & MASK)
        book >> client.syn() << anything >> client.sends((GET, GET_JPG)[number % 2]) << anything
        farewells = [action.message for action in book.actions if isinstance(action, Send)][:-1]
        assert farewells == ([Closed((previous.identity,))] if previous else [])
        assert book.flow(client).identity == client.identity
        previous = client
    assert len(book.dispatcher.table) == 1
    assert book.dispatcher.counters.ports_reused == 299
