"""What a stranger, or a duplicate that comes late, can do at a back end: nothing that the server's TCP does not allow.

The server's TCP judges what it is given (RFC 5961). What is tested here is what the back end makes of it: no flow ends,
leaks or is mixed up with the next one because of it, and no request runs a second time.
"""

from __future__ import annotations

import pytest

from tcpha.be.actions import UNKNOWN
from tcpha.be.flows import FlowState
from tcpha.errors import ChecksumError
from tcpha.proto.messages import Closed, Reason, Refused
from tests.packet.be_playbook import (
    NEXT,
    QUIET,
    REQUEST,
    Event,
    Playbook,
    both_families,
    clear,
    confirmed,
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


def without_first(payload: bytes, flags: str = "PA", ack: int = 1) -> Event:
    """What the server's TCP gets of a segment that begins with the first octet; a keep-alive probe for lack of more."""
    rest = payload[4:]
    if rest or (payload and "F" in flags):
        return inject(flags=flags, seq=1 + len(payload) - len(rest), ack=ack, payload=rest, stamps=(5, 3))
    return inject(flags=flags.replace("F", ""), seq=-3, ack=ack, payload=b"", stamps=(5, 3))


# --- the first segment again


PAYLOADS = [REQUEST, REQUEST[:1], REQUEST[:4], REQUEST[:5], REQUEST + b"more", b""]


@both_families
@pytest.mark.parametrize("flags", ["PA", "A", "FPA"])
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("begin", ["until_ack_sent", "until_adopted", "until_finished"])
def test_any_state_first_segment_again_reaches_the_server_without_the_octets_it_has(
    family: int, begin: str, flags: str, payload: bytes
) -> None:
    """A host that answered the SYN with a SYN cookie of its own would take it for a handshake's end, and run it."""
    book: Playbook = getattr(Playbook(family), begin)()
    for number in range(1, 4):
        assert book.arrives(flags, seq=1, payload=payload) == [without_first(payload, flags)]
        assert book.agent.counters.late_duplicates == (number if begin == "until_finished" else 0)
    assert book.agent.counters.handoffs == 1


@both_families
@pytest.mark.parametrize("behind", [1, 2, 3])
@pytest.mark.parametrize("begin", ["until_ack_sent", "until_adopted", "until_finished"])
def test_any_state_segment_that_begins_up_to_three_octets_behind_reaches_the_server_four_behind_or_before(
    family: int, begin: str, behind: int
) -> None:
    """A host's SYN cookie of another size of segments would be valid for it, too."""
    book: Playbook = getattr(Playbook(family), begin)()
    seq = 1 + behind
    late = REQUEST[behind:]
    assert book.arrives("PA", seq=seq, payload=late) == [inject(flags="PA", seq=5, payload=REQUEST[4:], stamps=(5, 3))]
    probe = inject(flags="A", seq=-3, payload=b"", stamps=(5, 3))
    for payload in (b"", late[:1], late[: 4 - behind]):
        assert book.arrives("A", seq=seq, payload=payload) == [probe]
    assert book.arrives("R", seq=seq)[0] == to_server(flags="R", seq=seq)
    assert book.arrives("PA", seq=5, payload=REQUEST[4:]) == [to_server(flags="PA", seq=5, payload=REQUEST[4:])]


@both_families
@pytest.mark.parametrize("acknowledged", [1, 2, 3])
def test_adopted_first_octets_were_so_few_what_follows_them_is_whole(family: int, acknowledged: int) -> None:
    book = Playbook(family)
    book.until_ack_sent(book.handoff(octets=REQUEST[:acknowledged]))
    book.leaves(ack=1 + acknowledged)
    at, rest = 1 + acknowledged, REQUEST[acknowledged:]
    assert book.arrives("PA", seq=at, payload=rest) == [to_server(flags="PA", seq=at, payload=rest)]
    book.leaves(ack=NEXT)
    assert book.arrives("PA", seq=at, payload=rest) == [inject(flags="PA", seq=5, payload=REQUEST[4:], stamps=(5, 3))]


@both_families
@pytest.mark.parametrize("payload", PAYLOADS)
def test_syn_sent_first_segment_held_is_played_without_the_octets_that_the_handoff_has(
    family: int, payload: bytes
) -> None:
    """The client repeats its request while the back end waits for the SYN-ACK."""
    book = Playbook(family)
    book.hands_off()
    book.arrives(seq=1, payload=payload)
    assert book.syn_ack() == [inject(flags="PA", seq=1, payload=REQUEST), without_first(payload, "A")]


@both_families
def test_adopted_handoff_without_octets_first_segment_is_whole(family: int) -> None:
    """The octets come as segments, and the server has none of them yet."""
    book = Playbook(family)
    message = book.handoff(octets=b"")
    book.until_ack_sent(message)
    assert book.arrives("PA", seq=1, payload=REQUEST) == [to_server(flags="PA", seq=1, payload=REQUEST)]
    book.leaves(ack=1)
    assert state(book) is FlowState.ADOPTED
    assert book.arrives("PA", seq=1, payload=REQUEST) == [to_server(flags="PA", seq=1, payload=REQUEST)]
    book.leaves(ack=NEXT)
    assert book.arrives("PA", seq=1, payload=REQUEST) == [without_first(REQUEST)]


@both_families
@pytest.mark.parametrize("played", [b"", REQUEST])
def test_first_octets_came_as_segments_handoff_again_is_whole_until_they_are_acknowledged(
    family: int, played: bytes
) -> None:
    """Another front end may hand over with more octets than the first did."""
    book = Playbook(family)
    book.until_ack_sent(book.handoff(octets=played))
    whole = inject(seq=1, payload=REQUEST)
    assert book.hands_off() == ([] if played else [whole])
    book.leaves(ack=1 + len(played))
    assert (book.hands_off()[0] == whole) is not bool(played)
    book.leaves(ack=NEXT)
    assert book.hands_off()[0] == inject(seq=5, payload=REQUEST[4:])


@both_families
def test_adopted_first_segment_with_more_than_the_handoff_had_gives_the_rest(family: int) -> None:
    """A client's segment may be longer than a HANDOFF, and what followed as another segment may be lost."""
    book = Playbook(family).until_adopted()
    whole = REQUEST + bytes(70)
    assert book.arrives("PA", seq=1, payload=whole) == [without_first(whole)]


@both_families
def test_adopted_first_segment_again_damaged_is_dropped(family: int) -> None:
    """Its checksum is written anew, so it must have been right."""
    book = Playbook(family).until_adopted()
    packet = book.client_packet("PA", seq=1, payload=REQUEST)
    with pytest.raises(ChecksumError):
        book.receives(packet.replace(b"a.jpg", b"b.jpg"))


@both_families
def test_adopted_first_segment_again_with_fin_its_fin_is_seen(family: int) -> None:
    book = Playbook(family).until_adopted()
    book.arrives("FPA", seq=1, payload=REQUEST)
    book.leaves("FA", ack=NEXT + 1)
    book.arrives(seq=NEXT + 1, ack=2)
    assert state(book) is FlowState.FINISHED


@both_families
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_finished_rst_at_the_first_number_is_delivered(family: int, flags: str) -> None:
    book = Playbook(family).until_finished()
    assert book.arrives(flags, seq=1) == [to_server(flags=flags, seq=1)]


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
        assert book.arrives("PA", seq=1, payload=REQUEST) == [without_first(REQUEST)]
        book.passes(5.0)
    book.passes(FINISHED_S - 54.0)
    assert book.arrives("PA", seq=1, payload=REQUEST) == [], "held for a HANDOFF that never comes"
    assert [event for event in book.passes(0.2) if event.what == "inject"] == []


@both_families
def test_destroyed_in_ack_sent_first_segment_again_reaches_the_server_without_its_octets(family: int) -> None:
    """Its time was up: the host's socket was destroyed before the server had acknowledged anything."""
    book = Playbook(family).until_ack_sent()
    book.holder, book.received_octets = "established", UNKNOWN
    book.passes(0.5)
    assert state(book) is FlowState.FINISHED
    assert book.arrives("PA", seq=1, payload=REQUEST) == [without_first(REQUEST)]


# --- a back end that slept


@both_families
def test_syn_sent_syn_ack_read_too_late_undone_and_refused(family: int) -> None:
    """The front end may have turned elsewhere: a request that was not played yet must not be."""
    book = Playbook(family)
    book.hands_off()
    book.holder = "embryonic"
    book.now += 0.31
    assert book.syn_ack() == [clear(embryonic=True), send(Refused(book.identity(), Reason.BACKLOG_FULL), to=book.fe)]
    assert book.holder is None


@both_families
def test_syn_sent_syn_ack_read_late_request_is_given_its_time(family: int) -> None:
    """The wait for the server's acknowledgement begins when it is played, not when the SYN was."""
    book = Playbook(family)
    book.hands_off()
    book.holder = "embryonic"
    book.now += 0.1
    assert book.syn_ack() == [inject(payload=REQUEST)]
    assert book.passes(0.034) == []
    assert book.passes(0.002) == [inject(payload=REQUEST)]


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
            kinds = [event.what for event in events if event != examine]
            assert kinds == ([] if "S" in flags else ["to server"])
    assert state(book) is before
    if before is FlowState.ACK_SENT:
        book.leaves()
    told = [confirmed(book.identity())] if before is FlowState.ACK_SENT else []
    assert [event for event in book.passes(20.0) if event != examine] == told
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
    assert book.passes(1.0) == [confirmed(book.identity()), examine], "because of the RST"
    assert state(book) is FlowState.ADOPTED
