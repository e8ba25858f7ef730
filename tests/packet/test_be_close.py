"""How connections end, and what strangers cannot end."""

from __future__ import annotations

import pytest

from tcpha.be.confirmations import CONFIRM_DELAY_S
from tcpha.be.flows import FlowState
from tcpha.proto.messages import Closed
from tests.packet.be_host import HostedPlaybook
from tests.packet.be_playbook import (
    IRS,
    ISS,
    MASK,
    NEXT,
    QUIET,
    Event,
    Playbook,
    both_families,
    examine,
    send,
    to_client,
    to_server,
)

RESPONSE = b"HTTP/1.1 200 OK\r\n\r\n"
END = 1 + len(RESPONSE)


def farewell(book: Playbook) -> list[Event]:
    closed = Closed((book.identity(),))
    return [send(closed, to=book.fe), send(closed, to=book.other_fe)]


def responded(family: int) -> Playbook:
    book = Playbook(family).until_adopted()
    book.leaves("PA", payload=RESPONSE)
    return book


def state(book: Playbook) -> FlowState:
    return book.agent.table.by_key[book.key()].state


# --- FIN both ways


@both_families
def test_adopted_client_closes_first_closed(family: int) -> None:
    book = responded(family)
    assert book.arrives("FA", ack=END) == [to_server(flags="FA", seq=NEXT, ack=END)]
    assert book.leaves("A", seq=END, ack=NEXT + 1) == [to_client(flags="A", ack=NEXT + 1)]
    assert book.leaves("FA", seq=END, ack=NEXT + 1) == [to_client(flags="FA", seq=END)]
    assert state(book) is FlowState.ADOPTED
    assert book.arrives(seq=NEXT + 1, ack=END + 1) == [to_server(seq=NEXT + 1, ack=END + 1)]
    assert state(book) is FlowState.FINISHED
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_server_closes_first_closed(family: int) -> None:
    book = responded(family)
    assert book.leaves("FA", seq=END) == [to_client(flags="FA", seq=END)]
    assert book.arrives("A", ack=END + 1) == [to_server(ack=END + 1)]
    assert book.arrives("FA", ack=END + 1) == [to_server(flags="FA")]
    assert state(book) is FlowState.ADOPTED
    assert book.leaves("A", seq=END + 1, ack=NEXT + 1) == [to_client(seq=END + 1, ack=NEXT + 1)]
    assert state(book) is FlowState.FINISHED
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_both_close_at_once_closed(family: int) -> None:
    """FINs cross, then each is acknowledged."""
    book = responded(family)
    book.leaves("FA", seq=END, ack=NEXT)
    book.arrives("FA", seq=NEXT, ack=END)
    book.leaves("A", seq=END + 1, ack=NEXT + 1)
    assert state(book) is FlowState.ADOPTED
    book.arrives("A", seq=NEXT + 1, ack=END + 1)
    assert state(book) is FlowState.FINISHED
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_fin_with_the_last_octets_closed(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.leaves("FPA", payload=RESPONSE) == [to_client(flags="FPA", payload=RESPONSE)]
    assert book.arrives("FPA", ack=END + 1, payload=b"bye") == [to_server(flags="FPA", payload=b"bye")]
    book.leaves("A", seq=END + 1, ack=NEXT + 4)
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_fins_retransmitted_closed_once(family: int) -> None:
    book = responded(family)
    for _ in range(3):
        assert book.arrives("FA", ack=END) == [to_server(flags="FA", seq=NEXT)]
    for _ in range(3):
        assert book.leaves("FA", seq=END, ack=NEXT + 1) == [to_client(flags="FA", seq=END)]
    assert book.arrives("FA", ack=END) == [to_server(flags="FA", seq=NEXT)], "after its acknowledgement got lost"
    for _ in range(3):
        book.arrives(seq=NEXT + 1, ack=END + 1)
    assert book.passes(1.0) == farewell(book)
    assert book.agent.counters.closed == 1


@both_families
def test_adopted_fin_in_the_first_acknowledgement_closed(family: int) -> None:
    """HTTP/1.0: response and FIN come with the acknowledgement of the request."""
    book = Playbook(family).until_ack_sent()
    assert [event.what for event in book.leaves("FPA", payload=RESPONSE)] == ["to client"]
    book.arrives("FA", ack=END + 1)
    book.leaves(seq=END + 1, ack=NEXT + 1)
    assert book.passes(1.0) == farewell(book), "which says all there is to say, and soon"


@both_families
def test_adopted_half_closed_client_gets_the_rest(family: int) -> None:
    book = Playbook(family).until_adopted()
    book.arrives("FA")
    book.leaves("A", ack=NEXT + 1)
    for number in range(5):
        data = book.leaves("PA", seq=1 + 100 * number, ack=NEXT + 1, payload=bytes(100))
        assert data == [to_client(seq=1 + 100 * number, ack=NEXT + 1, payload=bytes(100))]
        assert book.arrives(seq=NEXT + 1, ack=101 + 100 * number) == [to_server(seq=NEXT + 1)]
    assert book.passes(10.0) == []
    assert state(book) is FlowState.ADOPTED
    book.leaves("FA", seq=501, ack=NEXT + 1)
    book.arrives(seq=NEXT + 1, ack=502)
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_half_closed_server_gets_the_rest(family: int) -> None:
    book = responded(family)
    book.leaves("FA", seq=END)
    for number in range(5):
        data = book.arrives(seq=NEXT + 10 * number, ack=END + 1, payload=bytes(10))
        assert data == [to_server(seq=NEXT + 10 * number, ack=END + 1, payload=bytes(10))]
        assert book.leaves(seq=END + 1, ack=NEXT + 10 * (number + 1)) == [to_client(ack=NEXT + 10 * (number + 1))]
    assert state(book) is FlowState.ADOPTED
    book.arrives("FA", seq=NEXT + 50, ack=END + 1)
    book.leaves(seq=END + 1, ack=NEXT + 51)
    assert book.passes(1.0) == farewell(book)


# --- strangers


@both_families
@pytest.mark.parametrize("offset", [1, 7, 1000, 1 << 20, (1 << 31) - 1 - 64])
def test_adopted_forged_fin_ends_nothing(family: int, offset: int) -> None:
    """The server's TCP never acknowledges it; octets of the client pass its number later."""
    book = responded(family)
    assert book.arrives("FA", seq=NEXT + offset, ack=END) == [to_server(flags="FA")]
    book.leaves("FA", seq=END)
    book.arrives(ack=END + 1)
    book.arrives(ack=END + 1, payload=bytes(1200))
    book.leaves(seq=END + 1, ack=NEXT + 1200)
    book.arrives(seq=NEXT + 1200, ack=END + 1, payload=bytes(1200))
    book.leaves(seq=END + 1, ack=NEXT + 2400)
    assert state(book) is FlowState.ADOPTED
    book.arrives("FA", seq=NEXT + 2400, ack=END + 1)
    book.leaves(seq=END + 1, ack=NEXT + 2401)
    assert state(book) is FlowState.FINISHED, "the client's own FIN does"


@both_families
@pytest.mark.parametrize("ack", [END, END + 2, END + 70_000, (1 << 31) - 1])
def test_adopted_forged_acknowledgement_of_the_fin_ends_nothing(family: int, ack: int) -> None:
    """The server has closed, the client has half-closed, much of the response is still on its way."""
    book = responded(family)
    book.arrives("FA", ack=1)
    book.leaves("FA", seq=END, ack=NEXT + 1)
    assert book.arrives("A", seq=77, ack=ack) == [to_server(ack=ack)]
    assert state(book) is FlowState.ADOPTED
    assert book.passes(1.0) == []


@both_families
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_adopted_forged_rst_ends_nothing(family: int, flags: str) -> None:
    """The server's TCP drops it or challenges it (RFC 5961): its socket is still there."""
    book = Playbook(family).until_adopted()
    assert book.arrives(flags, seq=NEXT + 10_000) == [to_server(flags=flags, seq=NEXT + 10_000), examine]
    assert book.passes(1.0) == [examine]
    assert state(book) is FlowState.ADOPTED
    assert book.arrives(payload=b"x") == [to_server(payload=b"x")]


@both_families
def test_adopted_many_forged_rsts_one_examination_at_a_time(family: int) -> None:
    book = Playbook(family).until_adopted()
    examined = []
    for _ in range(80):
        events = [*book.arrives("R", seq=5, options=[]), *book.passes(0.001)]
        examined += [event.fields["at"] for event in events if event == examine]
    began = CONFIRM_DELAY_S
    expected = [began, began + 0.05, began + 0.051]
    assert examined == [pytest.approx(at) for at in expected], "neither more often nor put off by the next"


# --- RST


@both_families
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_adopted_client_rst_closed_once_the_socket_is_gone(family: int, flags: str) -> None:
    """At once, or when its owner lets go of it: what came meanwhile has to wait for that."""
    book = Playbook(family).until_adopted()
    assert book.arrives(flags)[-1] == examine
    assert book.passes(0.049) == []
    book.holder = None
    assert book.passes(0.2) == [examine, *farewell(book)]
    assert state(book) is FlowState.FINISHED
    assert book.agent.counters.closed == 1


@both_families
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_client_resets_and_its_next_connection_speaks_before_its_handoff_the_host_hears_nothing_of_it(
    family: int, flags: str
) -> None:
    """It would answer that nobody is there, and the client's new connection would believe it."""
    book = HostedPlaybook(family)
    book.hands_off()
    book.reads()
    book.arrives(flags, seq=NEXT)
    assert state(book) is FlowState.FINISHED
    assert book.arrives("A", seq=70_001, ack=2_000_000) == []
    assert book.reads() == []
    newer = book.handoff(identity=book.identity(irs=IRS + 70_000, iss=(ISS + 1_999_999) & MASK))
    book.hands_off(newer)
    assert not any(event.what == "to client" and "R" in str(event.fields["flags"]) for event in book.reads())
    assert book.agent.table.by_key[book.key()].identity == newer.identity
    assert book.agent.counters.adopted == 2


@both_families
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_adopted_server_rst_delivered_and_closed(family: int, flags: str) -> None:
    book = responded(family)
    assert book.leaves(flags, seq=END) == [to_client(flags=flags, seq=END, ack=NEXT if "A" in flags else 0)]
    assert state(book) is FlowState.FINISHED
    assert book.passes(1.0) == farewell(book)


@both_families
def test_adopted_close_in_the_midst_of_an_examination_closed_once(family: int) -> None:
    book = responded(family)
    book.arrives("R", seq=NEXT)
    book.leaves("R", seq=END)
    book.holder = None
    assert book.passes(1.0) == farewell(book)


# --- telling the front ends


@both_families
def test_adopted_many_close_together_few_messages(family: int) -> None:
    book = Playbook(family)
    ports = range(1000, 1045)
    for port in ports:
        book.hands_off(identity=book.identity(port), confirm=False)
        book.syn_ack(port=port)
        book.leaves(port=port)
    for port in ports:
        book.leaves("R", port=port)
    events = book.passes(0.05)
    assert [event.what for event in events] == ["send"] * 6
    told: dict[object, list[int]] = {}
    for event in events:
        message = event.fields["message"]
        assert isinstance(message, Closed)
        told.setdefault(event.fields["to"], []).append(len(message.identities))
    assert told == {book.fe: [19, 19, 7], book.other_fe: [19, 19, 7]}


@both_families
def test_adopted_a_full_message_is_due_at_once(family: int) -> None:
    book = Playbook(family)
    for port in range(19):
        book.hands_off(identity=book.identity(port))
        book.syn_ack(port=port)
        book.leaves("RA", port=port)
        assert (book.agent.next_deadline() <= book.now) is (port == 18)
    assert len(book.tick()) == 2


# --- silence


@both_families
def test_adopted_idle_and_the_socket_is_gone_closed(family: int) -> None:
    book = Playbook(family, QUIET + "idle_time = 10\n").until_adopted()
    book.passes(8.0)
    book.holder = None
    assert book.passes(5.0) == [examine, *farewell(book)]
    assert book.agent.table.live == 0


@both_families
def test_adopted_idle_and_the_socket_lives_examined_now_and_then(family: int) -> None:
    book = Playbook(family, QUIET + "idle_time = 10\n").until_adopted()
    events = book.passes(60.0)
    assert events == [examine] * len(events)
    assert 3 <= len(events) <= 6
    assert state(book) is FlowState.ADOPTED


@both_families
@pytest.mark.parametrize("direction", ["arriving", "leaving"])
def test_adopted_in_use_never_examined(family: int, direction: str) -> None:
    book = Playbook(family, QUIET + "idle_time = 10\n").until_adopted()
    for _ in range(12):
        assert book.passes(5.0) == []
        book.arrives() if direction == "arriving" else book.leaves()
