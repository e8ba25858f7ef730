"""ANSWERED: the front end speaks itself, is heard, and closes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.errors import ChecksumError
from tcpha.fe.actions import Reply
from tcpha.fe.flows import FlowState
from tcpha.proto.inspect import Cause
from tcpha.proto.inspect.http1 import answer
from tests.packet.fe_client import LINUX_SYN, MASK, PLAIN_SYN, Client, dissect
from tests.packet.fe_playbook import After, Playbook, anything, gets, gets_rst, nothing

BAD = b"\r\r\r\r"
BODY_400 = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n"
    b"400 Bad Request\n"
)
END = len(BODY_400) + 1
"""What the client acknowledges when it has the answer and our FIN."""
LONG_TARGET = b"GET /" + b"x" * 300 + b" HTTP/1.1\r\n"
LONG_FIELDS = b"GET / HTTP/1.1\r\nCookie: " + b"x" * 300


def answered(family: int = 4, octets: bytes = BAD, **more: Any) -> tuple[Playbook, Client]:
    book = Playbook()
    client = book.connected(family, **more)
    book >> client.sends(octets) << anything
    assert book.flow(client).state is FlowState.ANSWERED
    return book, client


# --- what is said


@pytest.mark.parametrize(
    ("octets", "cause", "status"),
    [
        (BAD, Cause.MALFORMED, 400),
        (b"GET / HTTP/1.1\r\n\r\n", Cause.MALFORMED, 400),
        (LONG_TARGET, Cause.TARGET_TOO_LONG, 414),
        (LONG_FIELDS, Cause.HEAD_TOO_LONG, 431),
        (b"GET / HTTP/2.0\r\n", Cause.VERSION, 505),
    ],
)
@pytest.mark.parametrize("irs", [1000, MASK - 2])
def test_none_what_is_not_served_is_answered(octets: bytes, cause: Cause, status: int, irs: int, family: int) -> None:
    book = Playbook("inspect_octets = 256")
    client = book.connected(family, irs=irs)
    stamps = {"Timestamp": (client.tsecr, client.tsval)}
    book >> client.sends(octets) << gets(client, "FPA", 0, len(octets), answer(cause), window=65535, options=stamps)
    assert client.octets.startswith(f"HTTP/1.1 {status} ".encode())
    assert book.dispatcher.counters.answered == 1


def test_none_bad_request_gets_exactly_these_octets(family: int) -> None:
    _, client = answered(family)
    assert bytes(client.octets) == BODY_400


@pytest.mark.parametrize(("method", "has_content"), [(b"HEAD", False), (b"GET", True)])
def test_none_head_is_answered_without_content(method: bytes, has_content: bool, family: int) -> None:
    book = Playbook(up=())
    client = book.connected(family)
    book >> client.sends(method + b" / HTTP/1.1\r\nHost: www\r\n\r\n") << anything
    assert client.octets.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert client.octets.endswith(b"503 Service Unavailable\n") is has_content


@pytest.mark.parametrize("offers", [[("MSS", 88)], [("MSS", 88), ("Timestamp", (1, 0))]], ids=["plain", "timestamps"])
def test_none_small_mss_gets_small_segments(offers: list[Any], family: int) -> None:
    book, client = answered(family, offers=offers)
    assert len(book.actions) == 2 if not client.stamps else 3
    got = [dissect(action.packet)[TCP] for action in book.actions if isinstance(action, Reply)]
    assert all(4 * tcp.dataofs - 20 + len(tcp.payload) <= 88 for tcp in got)
    assert [str(tcp.flags) for tcp in got] == ["A"] * (len(got) - 1) + ["FPA"]
    assert bytes(client.octets) == BODY_400


# --- until it is heard


def test_answered_silence_repeats_the_answer(family: int) -> None:
    book, client = answered(family)
    book >> After(15.75) << [gets(client, "FPA", 0, 4, BODY_400)] * 6
    assert book.at == pytest.approx([0.25, 0.75, 1.75, 3.75, 7.75, 15.75])
    book >> After(15.9) << nothing
    assert book.flow(client).state is FlowState.ANSWERED
    book >> After(0.2) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_answered_request_again_repeats_the_identical_answer(family: int) -> None:
    book, client = answered(family)
    first = book.actions
    book >> client.sends(BAD) << anything
    assert book.actions == first


def test_answered_acknowledged_answer_is_not_repeated(family: int) -> None:
    book, client = answered(family)
    book >> client.ack(4, END) << nothing >> After(15.9) << nothing
    assert book.flow(client).state is FlowState.ANSWERED
    book >> After(0.2) << nothing
    assert book.flow(client).state is FlowState.FINISHED


@pytest.mark.parametrize("acks", [0, END - 1])
def test_answered_partly_acknowledged_answer_is_repeated(acks: int, family: int) -> None:
    book, client = answered(family)
    book >> client.ack(4, acks) << nothing >> After(0.25) << gets(client, "FPA", 0, 4, BODY_400)


@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_answered_ack_then_fin_finishes(offers: list[Any], family: int) -> None:
    book, client = answered(family, offers=offers)
    book >> client.ack(4, END) << nothing >> client.fin(4, END) << gets(client, "A", END, 5)
    assert book.flow(client).state is FlowState.FINISHED
    book >> After(20) << nothing


def test_answered_fin_before_its_ack_finishes_with_the_ack(family: int) -> None:
    book, client = answered(family)
    book >> client.fin(4, 0) << gets(client, "A", END, 5)
    assert book.flow(client).state is FlowState.ANSWERED
    book >> client.ack(5, END) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_answered_fin_that_came_with_the_request_finishes_with_the_ack(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.fin(payload=BAD) << gets(client, "FPA", 0, 5, BODY_400)
    book >> client.ack(5, END) << nothing
    assert book.flow(client).state is FlowState.FINISHED


# --- what the client still sends


def test_answered_remaining_octets_are_acknowledged_and_discarded(family: int) -> None:
    book, client = answered(family)
    at = len(BAD)
    for _ in range(20):
        book >> client.sends(b"x" * 1000, at) << gets(client, "A", END, at + 1000)
        at += 1000
    pending = book.flow(client).pending
    assert pending is not None
    assert pending.assembly.octets == b""
    book >> client.fin(at, END) << gets(client, "A", END, at + 1)
    assert book.flow(client).state is FlowState.FINISHED


def test_answered_octets_behind_a_gap_are_not_acknowledged(family: int) -> None:
    book, client = answered(family)
    book >> client.sends(b"x", 99) << gets(client, "A", END, 4)


def test_answered_early_pieces_are_let_go(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(b"GET") << nothing >> client.sends(b"late", 50) << anything
    book >> client.sends(b"\n", 3) << anything
    pending = book.flow(client).pending
    assert pending is not None
    assert pending.assembly.early_pieces() == []


def test_answered_overlapping_octets_are_acknowledged_to_their_end(family: int) -> None:
    book, client = answered(family)
    book >> client.ack(4, END) << nothing >> client.sends(BAD + b"more", 0, END) << gets(client, "A", END, 8)


def test_answered_keep_alive_probe_is_acknowledged(family: int) -> None:
    book, client = answered(family)
    book >> client.ack(4, END) << nothing >> client.ack(3, END) << gets(client, "A", END, 4)


def test_answered_segment_without_ack_is_dropped(family: int) -> None:
    book, client = answered(family)
    book >> client.sends(b"x", 4, flags="P") << nothing


def test_answered_bad_checksum_is_dropped(family: int) -> None:
    book, client = answered(family)
    with pytest.raises(ChecksumError):
        book >> client.ack(4, END, chksum=1)
    book >> After(0.25) << gets(client, "FPA", 0, 4, BODY_400)


@pytest.mark.parametrize("acks", [END + 1, -1, 70_000])
def test_answered_acknowledgement_of_what_was_never_sent_is_answered_with_an_ack(acks: int, family: int) -> None:
    """RFC 9293, 3.10.7.4, fifth; the octets that come with it are not taken (RFC 5961, 5)."""
    book, client = answered(family)
    for packet in (client.ack(4, acks), client.sends(b"more", 4, acks), client.fin(4, acks)):
        book >> packet << gets(client, "A", END, 4)
    book >> After(0.25) << gets(client, "FPA", 0, 4, BODY_400)


# --- resets


def test_answered_rst_with_the_next_number_finishes(family: int) -> None:
    book, client = answered(family)
    book >> client.rst(4) << nothing >> After(20) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_answered_rst_inside_the_window_is_challenged(family: int) -> None:
    book, client = answered(family)
    book >> client.rst(5) << gets(client, "A", END, 4)
    assert book.flow(client).state is FlowState.ANSWERED


@pytest.mark.parametrize("at", [0, 3, 4 + 65535, 1 << 31])
def test_answered_rst_outside_the_window_is_ignored(at: int, family: int) -> None:
    book, client = answered(family)
    book >> client.rst(at) << nothing
    assert book.flow(client).state is FlowState.ANSWERED


# --- octets behind the request that are lost or overtaken on their way


def acked(client: Client, upto: int, *runs: int) -> Any:
    """The acknowledgement that a client gets; `runs` count its octets from 0."""
    stamps = {"Timestamp": (client.tsecr, client.tsval)} if client.stamps else {}
    sack = {"SAck": tuple((client.irs + 1 + edge) & MASK for edge in runs)} if runs else {}
    return gets(client, "A", END, upto, options=stamps | sack)


@pytest.mark.parametrize("irs", [1000, MASK - 50])
def test_answered_octets_behind_a_gap_are_acknowledged_selectively_until_it_is_filled(irs: int, family: int) -> None:
    book, client = answered(family, irs=irs)
    book >> client.sends(b"x" * 10, 14) << acked(client, 4, 14, 24)
    book >> client.sends(b"x" * 10, 34) << acked(client, 4, 34, 44, 14, 24)
    book >> client.sends(b"x" * 10, 24) << acked(client, 4, 14, 44)
    book >> client.sends(b"x" * 10, 4) << acked(client, 44)
    book >> client.sends(b"x" * 10, 44) << acked(client, 54)


def test_answered_without_sack_gap_is_filled_all_behind_it_is_acknowledged(family: int) -> None:
    book, client = answered(family, offers=PLAIN_SYN)
    book >> client.sends(b"x" * 10, 14) << acked(client, 4) >> client.sends(b"x" * 10, 4) << acked(client, 24)


def test_answered_fin_overtakes_the_octets_before_it_counts_when_they_are_there(family: int) -> None:
    book, client = answered(family)
    book >> client.ack(4, END) << nothing
    book >> client.fin(14) << acked(client, 4, 14, 15)
    assert book.flow(client).state is FlowState.ANSWERED
    book >> client.sends(b"x" * 10, 4, END) << acked(client, 15)
    assert book.flow(client).state is FlowState.FINISHED


@pytest.mark.parametrize(("offers", "window"), [(LINUX_SYN, 65535 << 7), (PLAIN_SYN, 65535)])
def test_answered_octets_beyond_the_window_are_not_taken(offers: list[Any], window: int, family: int) -> None:
    book, client = answered(family, offers=offers)
    book >> client.sends(b"x", 4 + window) << acked(client, 4)
    sack = (4 + window - 1, 4 + window) if client.stamps else ()
    book >> client.sends(b"x", 4 + window - 1) << acked(client, 4, *sack)


# --- its clock


def test_answered_client_goes_on_its_latest_timestamp_is_echoed_but_none_from_behind_a_gap(family: int) -> None:
    """What it measures by an old one is no round trip, and it would wait as long for each of its repetitions."""
    book, client = answered(family)
    later, last = replace(client, tsval=client.tsval + 900), replace(client, tsval=client.tsval + 1800)
    book >> last.sends(b"x" * 10, 24) << acked(client, 4, 24, 34)
    book >> later.sends(b"x" * 10, 4) << acked(later, 14, 24, 34)
    book >> client.sends(b"x" * 10, 14) << acked(later, 34)
    book >> last.sends(b"x" * 10, 34) << acked(last, 44)


def test_answered_request_again_its_answer_echoes_the_repetition(family: int) -> None:
    book, client = answered(family)
    later = replace(client, tsval=client.tsval + 200)
    stamps = {"Timestamp": (client.tsecr, later.tsval)}
    book >> later.sends(BAD) << gets(client, "FPA", 0, 4, BODY_400, options=stamps)
    book >> After(0.25) << gets(client, "FPA", 0, 4, BODY_400, options=stamps)


@pytest.mark.parametrize("at", [-(1 << 20), 1 << 20])
def test_answered_stranger_has_a_later_timestamp_it_is_not_echoed(at: int, family: int) -> None:
    book, client = answered(family)
    stranger = replace(client, tsval=client.tsval + 900)
    book >> stranger.ack(4 + at) << anything
    book >> client.sends(b"x" * 10, 4) << acked(client, 14)


# --- a back end that was silent adopted all the same


def test_answered_client_echoes_a_servers_clock_it_is_reset(family: int) -> None:
    """It has heard the server, whose TSval is later than ours: its TCP takes no answer of ours any more."""
    book, client = answered(family)
    heard = replace(client, tsecr=(client.tsecr + 40) & MASK)
    book >> heard.ack(len(BAD), 7) << gets_rst(client, 7)
    assert book.flow(client).state is FlowState.FINISHED
    assert book.dispatcher.counters.orphaned == 1


def test_answered_stranger_echoes_anything_nothing_is_reset(family: int) -> None:
    book, client = answered(family)
    for ticks, at in ((1 << 20, len(BAD)), (40, 1 << 20), (40, -5)):
        stranger = replace(client, tsecr=(client.tsecr + ticks) & MASK)
        book >> stranger.ack(at, 0) << anything
    assert book.flow(client).state is FlowState.ANSWERED
