"""FINISHED: last segments still find their way, late duplicates run nothing twice, memory stays bounded."""

from __future__ import annotations

import pytest

from tcpha.fe.actions import PassOn, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Closed, FlowsQuery
from tests.packet.fe_client import GET, GET_JPG, PLAIN_SYN, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    PERIOD,
    After,
    Playbook,
    Says,
    Stop,
    anything,
    gets,
    gets_rst,
    handoff,
    nothing,
)


def finished(book: Playbook, family: int = 4, port: int = 40000, irs: int = 1000) -> Client:
    client = book.connected(family, port=port, irs=irs)
    book.adopted(client)
    book >> Says(BE1, Closed((client.identity,))) << nothing
    return client


def test_finished_last_segments_are_passed_on(family: int) -> None:
    book = Playbook()
    client = finished(book, family)
    for packet in (client.fin(len(GET), 5000), client.ack(len(GET) + 1, 5001), client.rst(len(GET) + 1)):
        book >> packet << PassOn(BE1)
    assert book.flow(client).state is FlowState.FINISHED


def test_finished_late_duplicate_of_the_request_makes_no_new_flow(family: int) -> None:
    book = Playbook()
    client = finished(book, family)
    book >> client.sends(GET) << PassOn(BE1) >> client.sends(GET) << PassOn(BE1)
    assert book.dispatcher.counters.handoffs == 1


def test_finished_expires_after_finished_time(family: int) -> None:
    book = Playbook("finished_time = 5s")
    client = finished(book, family)
    book >> After(4) << nothing
    assert book.knows(client)
    book >> After(2.1) << nothing
    assert not book.knows(client)
    assert len(book.dispatcher.table) == 0


@pytest.mark.parametrize("seconds", [6, 30, 60])
def test_expired_late_duplicate_of_the_request_is_reset(seconds: float, family: int) -> None:
    book = Playbook("finished_time = 5s")
    client = finished(book, family)
    book >> After(seconds) << nothing >> client.sends(GET) << gets_rst(client)
    assert book.dispatcher.counters.late_duplicates == 1


def test_expired_late_duplicate_is_never_run_again(family: int) -> None:
    book = Playbook("finished_time = 5s")
    client = finished(book, family)
    for _ in range(60):
        book >> After(3) << nothing >> client.sends(GET) << anything
    assert book.dispatcher.counters.handoffs == 1


@pytest.mark.parametrize("acks", [1, 25, 100])
def test_finished_late_duplicate_that_acknowledges_a_little_never_runs(acks: int, family: int) -> None:
    """Without timestamps its cookie is valid, too, of another agreement: the hash does not cover that octet."""
    book = Playbook("finished_time = 5s")
    client = book.connected(family, offers=PLAIN_SYN)
    client_end = acks if (client.iss & 0xFF) + acks < 0x100 else 0
    book.adopted(client)
    book >> client.syn() << anything >> client.sends(GET, 0, client_end) << PassOn(BE1)
    book >> Says(BE1, Closed((client.identity,))) << nothing >> After(6) << nothing
    book >> client.sends(GET, 0, client_end) << anything
    assert book.dispatcher.counters.handoffs == 1


def test_finished_port_reused_without_its_syn_seen_begins_anew(family: int) -> None:
    book = Playbook()
    old = finished(book, family)
    other = Playbook()  # another front end answered the SYN
    new = other.connected(family, irs=old.irs + 100000)
    book >> new.sends(GET_JPG) << Send(BE2, handoff(new, GET_JPG))


def test_finished_port_reused_late_duplicate_of_the_older_never_runs(family: int) -> None:
    """While the newer connection lives nothing is said either: a RST may harm what stands between."""
    book = Playbook()
    first = finished(book, family, irs=1000)
    second = book.client(family, irs=5_000_000)
    book >> second.syn() << anything >> second.sends(GET) << Send(BE1, handoff(second, GET))
    book >> first.sends(GET) << nothing
    book >> Says(BE1, Closed((second.identity,))) << nothing
    book >> first.sends(GET) << gets_rst(first)
    assert book.dispatcher.counters.late_duplicates == 2


def test_finished_data_without_a_cookie_is_passed_on(family: int) -> None:
    book = Playbook()
    client = finished(book, family)
    book >> client.sends(b"junk", 123456, 99) << PassOn(BE1)


# --- bounded memory


def test_finished_too_many_lingering_are_dropped_early(family: int) -> None:
    book = Playbook("max_finished = 3")
    clients = [finished(book, family, 41000 + 2 * number) for number in range(5)]
    assert [book.knows(client) for client in clients] == [False, False, True, True, True]


def test_finished_forgotten_early_is_still_not_run_twice(family: int) -> None:
    book = Playbook("max_finished = 2\nfinished_time = 1s")
    clients = [finished(book, family, 41000 + 2 * number) for number in range(3)]
    assert clients[0].identity not in book.dispatcher.table.finished
    (
        book
        >> After(2)
        << nothing
        >> clients[0].sends(GET)
        << [
            Send(BE1, FlowsQuery((clients[0].key,))),
            Send(BE2, FlowsQuery((clients[0].key,))),
        ]
    )
    assert book.dispatcher.counters.handoffs == 3
    assert book.dispatcher.table.finished.period_floor == PERIOD


def test_finished_period_floor_refuses_handshakes_begun_before_and_no_later_ones(family: int) -> None:
    book = Playbook("max_finished = 2\nfinished_time = 1s")
    before = book.connected(family, port=42000)
    for number in range(3):
        finished(book, family, 41000 + 2 * number)
    book >> before.sends(GET) << anything
    assert not book.knows(before)
    after = book.connected(family, port=42002)
    book >> after.sends(GET) << Send(BE1, handoff(after, GET, period=PERIOD + 1))


def test_reading_reset_identity_is_remembered_without_a_flow(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:5]) << nothing >> client.rst(5) << nothing
    assert len(book.dispatcher.table) == 0
    book >> client.sends(GET) << gets_rst(client)


# --- flows that the front end answered itself


def answered(book: Playbook, family: int) -> Client:
    client = book.connected(family)
    book >> client.sends(b"\r\r\r\r") << anything
    end = len(client.octets) + 1
    book >> client.fin(4, end) << gets(client, "A", end, 5)
    assert book.flow(client).state is FlowState.FINISHED
    return client


def test_answered_and_finished_repeated_fin_is_acknowledged_again(family: int) -> None:
    book = Playbook()
    client = answered(book, family)
    end = len(client.octets) + 1
    stamps = {"Timestamp": (client.tsecr, client.tsval)}
    book >> client.fin(4, end) << gets(client, "A", end, 5, options=stamps)


def test_answered_and_finished_octets_nobody_takes_are_reset(family: int) -> None:
    book = Playbook()
    client = answered(book, family)
    end = len(client.octets) + 1
    book >> client.sends(b"more", 4, end) << gets(client, "R", end, -client.irs - 1, window=0)


def test_answered_and_finished_strays_are_dropped(family: int) -> None:
    book = Playbook()
    client = answered(book, family)
    book >> client.sends(b"\r\r\r\r") << nothing  # the late duplicate of the request
    book >> client.fin(4, 0) << nothing >> client.rst(5) << nothing >> client.ack(5, len(client.octets) + 1) << nothing


def test_finished_port_used_again_while_it_stops_is_reset_and_begins_nothing(family: int) -> None:
    """The back ends have been told already what is over: nobody would end what began now."""
    book = Playbook()
    finished(book, family)
    new = book.client(family, irs=5_000_000)
    book >> new.syn() << anything >> Stop() << nothing
    for octets in (GET, GET[:9]):
        book >> new.sends(octets) << gets_rst(new)
    assert (book.dispatcher.counters.handoffs, book.dispatcher.table.live) == (1, 0)


def test_finished_told_again_is_counted_once(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book.adopted(client)
    given = book.dispatcher.backends.all[BE1].given
    for identities in ((client.identity, client.identity), (client.identity,)):
        book >> Says(BE1, Closed(identities)) << nothing
        assert book.dispatcher.counters.closed == 1
        assert book.dispatcher.backends.all[BE1].given == given - 1
