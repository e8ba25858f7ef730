"""What a stranger, or a duplicate that comes late, can do at a back end: nothing that the server's TCP does not allow.

The server's TCP judges what it is given (RFC 5961). What is tested here is what the back end makes of it: no flow ends,
leaks or is mixed up with the next one because of it, and no request runs a second time.
"""

from __future__ import annotations

import pytest

from tcpha.be.flows import FlowState
from tcpha.proto.messages import Closed
from tests.packet.be_playbook import (
    NEXT,
    QUIET,
    REQUEST,
    Event,
    Playbook,
    both_families,
    examine,
    inject,
    send,
    to_client,
    to_server,
)

FINISHED_S = 60.0


def state(book: Playbook) -> FlowState:
    return book.agent.table.by_key[book.key()].state


def farewell(book: Playbook) -> list[Event]:
    closed = Closed((book.identity(),))
    return [send(closed, to=book.fe), send(closed, to=book.other_fe)]


def probe(ack: int = 1) -> Event:
    """What the host's TCP is asked with: one octet before the first, and none in it."""
    return inject(flags="A", seq=0, ack=ack, payload=b"")


# --- the request of a connection that is over


@both_families
@pytest.mark.parametrize("flags", ["PA", "A", "FPA"])
@pytest.mark.parametrize("payload", [REQUEST, REQUEST[:1], REQUEST + b"more", b""])
def test_finished_first_segment_again_never_reaches_the_server(family: int, flags: str, payload: bytes) -> None:
    """A host that answered the SYN with a SYN cookie of its own would take it for a handshake's end, and run it."""
    book = Playbook(family).until_finished()
    for number in range(3):
        assert book.arrives(flags, seq=1, payload=payload) == [probe()]
        assert book.agent.counters.late_duplicates == number + 1
    assert book.agent.counters.handoffs == 1


@both_families
def test_finished_first_segment_again_host_answers_as_it_would(family: int) -> None:
    """A client that missed the end of its connection is told: with the RST of a host that knows it no more."""
    book = Playbook(family).until_finished()
    book.arrives("PA", seq=1, payload=REQUEST)
    assert book.leaves("R", seq=1, options=[]) == [to_client(flags="R", seq=1)]
    assert book.leaves("A", seq=2, ack=NEXT + 1) == [to_client(flags="A", seq=2, ack=NEXT + 1)]


@both_families
def test_finished_first_segment_again_until_the_flow_is_forgotten(family: int) -> None:
    book = Playbook(family).until_finished()
    for _ in range(11):
        assert book.arrives("PA", seq=1, payload=REQUEST) == [probe()]
        book.passes(5.0)
    book.passes(FINISHED_S - 54.0)
    assert book.arrives("PA", seq=1, payload=REQUEST) == [], "held for a HANDOFF that never comes"
    assert [event for event in book.passes(0.2) if event.what == "inject"] == []


@both_families
def test_adopted_first_segment_again_is_the_servers_to_judge(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.arrives("PA", seq=1, payload=REQUEST) == [to_server(seq=1, payload=REQUEST)]


@both_families
def test_adopted_first_segment_behind_a_rst_never_reaches_the_server_until_it_is_known_to_live(family: int) -> None:
    """The RST may have ended the host's socket, and the back end learns of it only a moment later."""
    book = Playbook(family).until_adopted()
    book.arrives("R", seq=NEXT + 5)
    assert book.arrives("PA", seq=1, payload=REQUEST) == [probe()]
    assert book.arrives("PA", seq=NEXT, payload=b"x") == [to_server(seq=NEXT, payload=b"x")]
    assert book.passes(1.0) == [examine]
    assert book.arrives("PA", seq=1, payload=REQUEST) == [to_server(seq=1, payload=REQUEST)]


# --- the next connection on the same ports


@both_families
@pytest.mark.parametrize("distance", [0, 1, 70_000, (1 << 24) - 1])
def test_finished_early_packet_of_the_next_connection_behind_the_old_numbers_held(family: int, distance: int) -> None:
    """A client that sent much in a short time: its next ISN lies where the old connection's octets were."""
    book = Playbook(family).until_finished()
    assert book.arrives("PA", seq=NEXT + 1 - distance, ack=500_000_000, payload=b"early") == []
    assert book.agent.counters.held == 1


@both_families
@pytest.mark.parametrize("ack", [2, 1, 2 - 70_000])
def test_finished_late_packet_of_the_old_connection_translated(family: int, ack: int) -> None:
    book = Playbook(family).until_finished()
    assert book.arrives("FA", seq=NEXT, ack=ack) == [to_server(flags="FA", seq=NEXT, ack=ack)]
    assert book.arrives("R", seq=NEXT + 1, options=[]) == [to_server(flags="R", seq=NEXT + 1)]


@both_families
def test_finished_far_into_a_download_its_late_packets_are_translated(family: int) -> None:
    """What the client acknowledges then lies far behind the server's ISS."""
    far = 900_000_000
    book = Playbook(family).until_adopted()
    book.leaves("A", seq=far, payload=bytes(1000))
    book.leaves("FA", seq=far + 1000)
    book.arrives("FA", seq=NEXT, ack=far + 1001)
    book.leaves("A", seq=far + 1001, ack=NEXT + 1)
    assert state(book) is FlowState.FINISHED
    assert book.arrives("FA", seq=NEXT, ack=far + 1001) == [to_server(flags="FA", ack=far + 1001)]
    assert book.arrives("PA", seq=NEXT, ack=1, payload=b"x") == [], "of another connection"


# --- forged ends


@both_families
@pytest.mark.parametrize("distance", [1, 5, 1000, 1 << 20])
def test_adopted_forged_fin_behind_the_clients_own_hides_no_close(family: int, distance: int) -> None:
    book = Playbook(family).until_adopted()
    book.arrives("FA")
    book.leaves("A", ack=NEXT + 1)
    book.arrives("FA", seq=NEXT + distance)
    book.leaves("FA", ack=NEXT + 1)
    assert state(book) is FlowState.ADOPTED
    book.arrives(seq=NEXT + 1, ack=2)
    assert state(book) is FlowState.FINISHED
    assert book.passes(1.0) == farewell(book)


@both_families
@pytest.mark.parametrize("begin", ["until_ack_sent", "until_adopted"])
@pytest.mark.parametrize("flags", ["S", "SA", "SPA", "R", "RA", "PA", "FA", "A", ""])
def test_live_flow_forged_segments_change_nothing(family: int, begin: str, flags: str) -> None:
    """Numbers of nobody: whatever is delivered, is delivered translated, and the flow stays."""
    book: Playbook = getattr(Playbook(family, QUIET + "idle_time = 5\n"), begin)()
    book.holder = "established"
    before = state(book)
    for seq in (1 << 30, 3 << 30, 70_000):
        for ack in (1 << 30, 70_000):
            events = book.arrives(flags, seq=seq, ack=ack, payload=b"forged")
            assert [event.what for event in events] == ([] if "S" in flags else ["to server"])
    assert state(book) is before
    if before is FlowState.ACK_SENT:
        book.leaves()
    assert [event for event in book.passes(20.0) if event != examine] == []
    assert state(book) is FlowState.ADOPTED
    assert book.arrives("PA", payload=b"own") == [to_server(seq=NEXT, payload=b"own")]


@both_families
def test_syn_sent_forged_segments_are_held_and_the_replay_goes_on(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    for flags in ("R", "RA", "FA", "PA"):
        assert book.arrives(flags, seq=70_000, ack=9) == []
    assert [event.what for event in book.syn_ack()] == ["inject"] * 5
    book.holder = "established"
    book.leaves()
    assert state(book) is FlowState.ADOPTED
    assert book.passes(1.0) == [examine], "because of the RST"
    assert state(book) is FlowState.ADOPTED
