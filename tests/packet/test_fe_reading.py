"""READING: limits of time and number, resets, closes and strays while a head is incomplete."""

from __future__ import annotations

from typing import Any

import pytest

from tcpha.errors import ChecksumError
from tcpha.fe.actions import Send
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import NodeState
from tcpha.proto.seqnum import SeqNum
from tcpha.rules import parse_rule
from tests.packet.fe_client import GET, LINUX_SYN, MASK, PLAIN_SYN, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    After,
    Lost,
    Playbook,
    Says,
    anything,
    gets,
    gets_rst,
    handoff,
    lives,
    nothing,
)

PART = GET[:9]
LATER = len(PART)


def reading(family: int = 4, settings: str = "", **more: Any) -> tuple[Playbook, Client]:
    book = Playbook(settings)
    client = book.connected(family, **more)
    book >> client.sends(PART) << nothing
    return book, client


def status_line(client: Client) -> bytes:
    return bytes(client.octets).partition(b"\r\n")[0]


# --- limits


def test_reading_head_that_takes_too_long_is_answered_408(family: int) -> None:
    book, client = reading(family)
    book >> After(9.99) << gets(client, "A", 0, LATER)
    book >> After(0.02) << anything
    assert status_line(client) == b"HTTP/1.1 408 Request Timeout"
    assert book.flow(client).state is FlowState.ANSWERED
    assert book.dispatcher.counters.timed_out == 1


def test_reading_octets_do_not_prolong_the_time(family: int) -> None:
    book, client = reading(family, "inspect_time = 1s")
    for at in range(LATER, LATER + 9):
        book >> client.sends(GET[at : at + 1], at) << nothing >> After(0.1) << gets(client, "A", 0, at + 1)
    book >> client.sends(GET[LATER + 9 : LATER + 10], LATER + 9) << nothing >> After(0.2) << anything
    assert status_line(client) == b"HTTP/1.1 408 Request Timeout"


def test_reading_one_head_too_many_evicts_the_oldest(family: int) -> None:
    book = Playbook("max_reading = 2")
    clients = [book.connected(family, port=41000 + number) for number in range(3)]
    book >> clients[0].sends(PART) << nothing >> clients[1].sends(PART) << nothing
    book >> clients[2].sends(PART) << anything
    assert [book.flow(each).state for each in clients] == [FlowState.ANSWERED, FlowState.READING, FlowState.READING]
    assert status_line(clients[0]) == b"HTTP/1.1 408 Request Timeout"
    assert book.dispatcher.counters.evicted == 1


def test_reading_octets_of_an_unknown_protocol_evicted_what_there_is_decides(family: int) -> None:
    """They have no end that anybody waits for, so they are no request that came too late."""
    rules = tuple(map(parse_rule, (f"{BE2.addr} octets=^SSH-", f"{BE1.addr} octets=^")))
    book = Playbook("max_reading = 1", rules=rules)
    oldest, other = (book.connected(family, port=41000 + number) for number in range(2))
    book >> oldest.sends(b"SS") << nothing
    book >> other.sends(b"SS") << Send(BE1, handoff(oldest, b"SS"))
    assert (book.flow(oldest).state, book.flow(other).state) == (FlowState.HANDING, FlowState.READING)
    assert (book.dispatcher.counters.evicted, book.dispatcher.counters.requests) == (1, 1)
    book >> other.sends(b"H-2", 2) << Send(BE2, handoff(other, b"SSH-2"))


def test_reading_complete_heads_leave_room_for_others() -> None:
    book = Playbook("max_reading = 1")
    for number in range(5):
        client = book.connected(port=41000 + number)
        book >> client.sends(PART) << nothing >> client.sends(GET[LATER:], LATER) << anything
    assert book.dispatcher.counters.evicted == 0


def test_none_head_closed_inside_takes_no_room_among_the_unfinished(family: int) -> None:
    book = Playbook("max_reading = 1")
    closing = book.connected(family)
    book >> closing.fin(payload=PART) << gets(closing, "FA", 0, LATER + 1)
    other = book.connected(family, port=41000)
    book >> other.sends(PART) << nothing
    another = book.connected(family, port=41002)
    book >> another.sends(PART) << anything
    assert book.flow(other).state is FlowState.ANSWERED
    assert closing.octets == b""


@pytest.mark.parametrize("window", [536, 1000, 65535])
def test_reading_head_longer_than_the_window_is_read(window: int, family: int) -> None:
    book = Playbook(f"window = {window}")
    client = book.connected(family, offers=PLAIN_SYN)
    head = b"GET / HTTP/1.1\r\nHost: www\r\nCookie: " + b"c" * 5000 + b"\r\n\r\n"
    at = 0
    while at + window < len(head):
        book >> client.sends(head[at : at + window], at) << nothing
        at += window
        book >> After(0.01) << gets(client, "A", 0, at, window=min(window, max(window, 16384) - at))
    book >> client.sends(head[at:], at) << anything
    assert book.flow(client).state is FlowState.HANDING


def test_reading_octets_behind_all_room_are_not_kept() -> None:
    book, client = reading(4, "window = 1000\ninspect_octets = 1000")
    book >> client.sends(b"x" * 100, at=2000) << gets(client, "A")
    pending = book.flow(client).pending
    assert pending is not None
    assert pending.assembly.early_pieces() == []


# --- resets (RFC 5961, 3.2)


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_reading_rst_with_the_next_number_ends_it(flags: str, family: int) -> None:
    book, client = reading(family)
    book >> client.rst(LATER, flags=flags) << nothing
    assert not book.knows(client)
    book >> client.sends(GET) << gets_rst(client)
    assert book.dispatcher.counters.late_duplicates == 1


@pytest.mark.parametrize("at", [LATER + 1, LATER + 65534])
def test_reading_rst_inside_the_window_is_challenged(at: int, family: int) -> None:
    book, client = reading(family)
    book >> client.rst(at) << gets(client, "A")
    assert book.flow(client).state is FlowState.READING


@pytest.mark.parametrize("at", [LATER - 1, 0, -1, LATER + 65535, 1 << 31])
def test_reading_rst_outside_the_window_is_ignored(at: int, family: int) -> None:
    book, client = reading(family)
    book >> client.rst(at) << nothing
    assert book.flow(client).state is FlowState.READING


def test_reading_rst_with_bad_checksum_is_dropped(family: int) -> None:
    book, client = reading(family)
    with pytest.raises(ChecksumError):
        book >> client.sends(b"", LATER, flags="R", chksum=1)
    assert book.flow(client).state is FlowState.READING


# --- closes


@pytest.mark.parametrize("payload", [b"", b"abc"])
def test_reading_fin_inside_the_head_is_answered_with_fin(payload: bytes, family: int) -> None:
    book, client = reading(family)
    book >> client.fin(LATER, payload=payload) << gets(client, "FA", 0, LATER + len(payload) + 1)
    assert book.flow(client).state is FlowState.ANSWERED
    book >> client.ack(LATER + len(payload) + 1, 1) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_reading_fin_that_overtook_the_rest_waits_for_it(family: int) -> None:
    book, client = reading(family)
    book >> client.fin(len(GET)) << gets(client, "A", 0, LATER)
    book >> client.sends(GET[LATER:], LATER) << anything
    assert book.flow(client).state is FlowState.HANDING
    first, second = book.actions
    assert first == Send(BE1, handoff(client, GET, acknowledged=SeqNum(client.irs + 1 + len(GET) + 1)))
    assert len(getattr(second, "packet", b"")) > 0


# --- strays


def test_reading_zero_length_segments_change_nothing(family: int) -> None:
    book, client = reading(family)
    book >> client.ack(LATER) << nothing
    book >> client.ack(LATER - 1) << gets(client, "A")
    book >> client.ack(LATER + 5) << gets(client, "A")
    book >> client.sends(GET[LATER:], LATER) << Send(BE1, handoff(client, GET))


def test_reading_window_update_is_handed_over(family: int) -> None:
    book, client = reading(family)
    client.window = 1
    book >> client.ack(LATER) << nothing
    book >> client.sends(GET[LATER:], LATER, window=777) << Send(BE1, handoff(client, GET, window=777))


def test_reading_first_segment_again_is_not_acknowledged_further(family: int) -> None:
    book, client = reading(family)
    book >> client.sends(PART) << gets(client, "A", 0, 0)


@pytest.mark.parametrize("acks", [1, -1, 1 << 30])
def test_reading_octets_that_acknowledge_nonsense_are_refused(acks: int, family: int) -> None:
    book, client = reading(family)
    book >> client.sends(GET[LATER:], LATER, acks) << gets(client, "A")
    assert book.flow(client).state is FlowState.READING


def test_reading_segment_without_ack_is_dropped(family: int) -> None:
    book, client = reading(family)
    book >> client.sends(GET[LATER:], LATER, flags="P") << nothing
    assert book.flow(client).state is FlowState.READING


def test_reading_bad_checksum_is_dropped(family: int) -> None:
    book, client = reading(family)
    with pytest.raises(ChecksumError):
        book >> client.sends(GET[LATER:], LATER, chksum=7)
    assert book.flow(client).state is FlowState.READING


@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_reading_acknowledgement_echoes_the_earliest_unacknowledged_timestamp(offers: list[Any], family: int) -> None:
    """So that a client measures what it waited, the delay included (RFC 7323, 4.3)."""
    book, client = reading(family, offers=offers, tsval=MASK)

    def stamps(tsval: int) -> dict[str, Any]:
        return {"Timestamp": (client.tsecr, tsval)} if client.stamps else {}

    client.tsval = 3  # wrapped
    book >> client.sends(GET[LATER:12], LATER) << nothing
    book >> After(0.01) << gets(client, "A", 0, 12, options=stamps(MASK))
    book >> client.sends(GET[12:14], 12) << nothing
    client.tsval = MASK
    book >> client.sends(GET[12:13], 12) << gets(client, "A", 0, 12)  # older: reordered on the way
    book >> After(0.01) << gets(client, "A", 0, 14, options=stamps(3))


# --- losses (RFC 2018, RFC 2883)


def sack(client: Client, *edges: int) -> dict[str, Any]:
    """The options of an acknowledgement; `edges` count the client's octets from 0."""
    stamps = {"Timestamp": (client.tsecr, client.tsval)} if client.stamps else {}
    return stamps | ({"SAck": tuple((client.irs + 1 + edge) & MASK for edge in edges)} if edges else {})


def test_reading_octets_behind_a_gap_are_acknowledged_selectively_the_latest_first(family: int) -> None:
    book, client = reading(family)
    for at, edges in [(14, (14, 16)), (20, (20, 22, 14, 16)), (16, (14, 18, 20, 22)), (30, (30, 32, 14, 18, 20, 22))]:
        book >> client.sends(GET[at : at + 2], at) << gets(client, "A", 0, LATER, options=sack(client, *edges))
    book >> client.sends(GET[26:28], 26) << gets(client, "A", 0, LATER, options=sack(client, 26, 28, 14, 18, 20, 22))


def test_reading_octets_come_twice_that_is_told(family: int) -> None:
    book, client = reading(family)
    book >> client.sends(PART) << gets(client, "A", 0, 0, options=sack(client))
    book >> After(0.01) << gets(client, "A", 0, LATER)
    book >> client.sends(PART[2:], 2) << gets(client, "A", 0, LATER, options=sack(client, 2, LATER))
    book >> client.sends(GET[14:16], 14) << gets(client, "A", 0, LATER, options=sack(client, 14, 16))
    book >> client.sends(PART) << gets(client, "A", 0, LATER, options=sack(client, 0, LATER, 14, 16))


@pytest.mark.parametrize("offers", [[("MSS", 1460)], [*LINUX_SYN[:1], *LINUX_SYN[2:]]], ids=["plain", "timestamps"])
def test_reading_without_sack_a_gap_is_acknowledged_as_ever(offers: list[Any], family: int) -> None:
    book, client = reading(family, offers=offers)
    book >> client.sends(GET[14:16], 14) << gets(client, "A", 0, LATER, options=sack(client))


def test_reading_octets_beyond_all_room_are_acknowledged_neither_way() -> None:
    book, client = reading(4, "window = 1000\ninspect_octets = 1000")
    book >> client.sends(b"x" * 100, at=2000) << gets(client, "A", 0, 0, options=sack(client))


def test_reading_octets_behind_a_gap_their_timestamp_is_not_echoed(family: int) -> None:
    book, client = reading(family)
    first = client.tsval
    client.tsval += 7
    late = {"Timestamp": (client.tsecr, first), "SAck": (client.irs + 1 + 14, client.irs + 1 + 16)}
    book >> client.sends(GET[14:16], 14) << gets(client, "A", 0, LATER, options=late)
    told = SeqNum(client.irs + 1 + 16)
    expected = handoff(client, GET, acknowledged=told, tsval_client=first + 7)
    book >> client.sends(GET[LATER:], LATER) << Send(BE1, expected)


# --- no choice


@pytest.mark.parametrize("why", ["silent", "draining", "unheard", "stack"])
def test_none_request_without_a_usable_back_end_is_answered_503(why: str, family: int) -> None:
    book = Playbook(up=() if why == "unheard" else (BE1,))
    stimuli: dict[str, Lost | Says] = {
        "silent": Lost(BE1),
        "draining": lives(BE1, state=NodeState.DRAINING),
        "stack": lives(BE1, stack=None),
    }
    if why in stimuli:
        book >> stimuli[why] << anything
    client = book.connected(family)
    book >> client.sends(GET) << anything
    assert status_line(client) == b"HTTP/1.1 503 Service Unavailable"
    assert book.dispatcher.counters.no_choice == 1
