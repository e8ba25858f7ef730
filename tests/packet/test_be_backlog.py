"""A host whose backlog is full, or that answers with SYN cookies for that reason: adopted or refused, never stuck."""

from __future__ import annotations

import pytest

from tcpha.be.flows import FlowState
from tcpha.proto.messages import Reason, Refused
from tests.packet.be_host import HostedPlaybook
from tests.packet.be_playbook import NEXT, REQUEST, Event, both_families, clear, inject, send


def is_adopted(book: HostedPlaybook) -> bool:
    flow = book.agent.table.by_key.get(book.key())
    return flow is not None and flow.state is FlowState.ADOPTED


def told_by_rst(events: list[Event]) -> bool:
    return any(event.what == "to client" and "R" in str(event.fields["flags"]) for event in events)


# --- SYN cookies


@both_families
@pytest.mark.parametrize("late_s", [0.0, 0.02, 0.05, 0.1, 0.17])
def test_cookies_are_read_late_adopted_with_all_options(family: int, late_s: float) -> None:
    """Every SYN is answered, also those that were repeated only because the answer had not been read."""
    book = HostedPlaybook(family)
    book.has_cookies = True
    book.hands_off()
    book.passes(late_s)
    book.reads()
    assert is_adopted(book)
    assert book.requests == [REQUEST]
    assert not book.has_forgotten_options


@both_families
@pytest.mark.parametrize("late_s", [0.0, 0.02, 0.05])
def test_cookies_and_no_room_segments_behind_the_request_refused_by_rst_played_again_with_all_options(
    family: int, late_s: float
) -> None:
    """The request is dropped silently, but what follows it is no handshake's end: the host knows nothing of it."""
    book = HostedPlaybook(family)
    book.has_cookies, book.accepts = True, False
    book.hands_off()
    book.arrives("PA", seq=NEXT, payload=b"more")
    queued = len(book.queue)
    book.emits(book.queue.pop(0))
    book.emits(book.queue.pop(0))
    assert (queued, len(book.queue)) == (1, 1), "the RST"
    book.emits(book.queue.pop(0))
    book.accepts = True
    book.passes(late_s)
    events = book.reads()
    assert is_adopted(book)
    assert book.requests == [REQUEST]
    assert not book.has_forgotten_options
    assert not told_by_rst(events)


# --- no room in the accept queue


@both_families
def test_no_room_for_the_handshakes_end_until_the_time_is_up_refused_and_nothing_stays(family: int) -> None:
    """Whatever the client and the front end repeat meanwhile."""
    book = HostedPlaybook(family)
    book.accepts = False
    book.hands_off()
    events = book.reads()
    for _ in range(3):
        events += book.passes(0.05)
        events += [*book.hands_off(), *book.arrives("PA", seq=1, payload=REQUEST), *book.arrives("A"), *book.reads()]
    events += book.passes(0.05)
    assert events[-2:] == [clear(embryonic=True), send(Refused(book.identity(), Reason.BACKLOG_FULL), to=book.fe)]
    assert book.socket is None
    assert not book.agent.table.by_key
    assert not told_by_rst(events)
    book.accepts = True
    book.arrives("PA", seq=1, payload=REQUEST)
    assert book.passes(10.0) == []
    assert book.reads() == []
    assert book.requests == []


@both_families
@pytest.mark.parametrize("room_at_s", [0.01, 0.08, 0.14])
def test_room_for_the_handshakes_end_later_adopted_by_a_repetition_of_the_request(
    family: int, room_at_s: float
) -> None:
    book = HostedPlaybook(family)
    book.accepts = False
    book.hands_off()
    book.reads()
    book.passes(room_at_s)
    book.accepts = True
    book.hands_off()
    book.passes(0.179 - room_at_s)
    book.reads()
    assert is_adopted(book)
    assert book.requests == [REQUEST]


@both_families
@pytest.mark.parametrize("room_at_s", [0.01, 0.08, 0.14])
def test_room_for_the_handshakes_end_later_taken_by_another_segment_the_request_follows(
    family: int, room_at_s: float
) -> None:
    """Any segment of the client makes a connection of the handshake, and its acknowledgement is no adoption."""
    book = HostedPlaybook(family)
    book.accepts = False
    book.hands_off()
    book.reads()
    book.passes(room_at_s)
    book.accepts = True
    book.arrives("PA", seq=NEXT, payload=b"more")
    book.arrives("PA", seq=1, payload=REQUEST)
    book.reads()
    assert not is_adopted(book)
    book.passes(0.179 - room_at_s)
    book.reads()
    assert is_adopted(book)
    assert book.requests == [REQUEST]


@both_families
def test_room_for_the_handshakes_end_too_late_for_the_request_it_is_refused(family: int) -> None:
    """What came behind the request has made a connection, which has received nothing: the request has not run."""
    book = HostedPlaybook(family)
    book.accepts = False
    book.hands_off()
    book.reads()
    book.passes(0.177)
    book.accepts = True
    book.arrives("PA", seq=NEXT, payload=b"more")
    events = [*book.passes(0.05), *book.reads()]
    assert not told_by_rst(events)
    assert send(Refused(book.identity(), Reason.BACKLOG_FULL), to=book.fe) in events
    assert book.socket is None
    assert book.requests == [b""]
    assert inject(seq=1) not in book.hands_off(), "and it stays so"
