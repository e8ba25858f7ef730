"""Whose a four-tuple is, where programs and agent act on it in every order: never the one on the other's connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import pytest
from msgspec.structs import replace

from tcpha.be.accelerated import Course, course
from tcpha.kernel.be_maps import (
    ADOPTED_AND_UNMADE_AT,
    GENERATIONS,
    LIVING,
    STARTED_AND_ENDED_AT,
    Act,
    Carried,
    Ran,
    Rank,
    Whose,
    encode_number,
    encode_tuple,
    seen_at,
)  # fmt: skip
from tcpha.net.bpf import BpfMap, MapShape
from tcpha.proto.flow_fields import encode_field
from tcpha.proto.messages import Handoff
from tcpha.proto.seqnum import SeqNum
from tests.kernel.conftest import unique_name
from tests.kernel.frames import MARK, PERIOD, SENDER, handoff
from tests.kernel.rehearsal import Rehearsal, rehearsal
from tests.kernel.test_be_handoff import arriving, leaving

pytestmark = pytest.mark.kernel


def first(programs: Rehearsal) -> Handoff:
    return handoff(programs.family)


def second(programs: Rehearsal) -> Handoff:
    """Of another connection on the same ports."""
    return handoff(programs.family, irs=1, iss=0x100)


def two_pieces(message: Handoff) -> Handoff:
    """Its head came in two pieces, of which the client was told: the agent runs it."""
    return replace(message, acknowledged=SeqNum(message.identity.irs + 9))


def rank(programs: Rehearsal, sequence: int) -> Rank:
    return Rank(SENDER, programs.epoch, sequence, PERIOD & 0xFFFF)


def arrive(programs: Rehearsal, message: Handoff, sequence: int) -> str:
    """What became of it; that something else was over by then is not told here."""
    counts = programs.arrive(programs.datagram(message=message, sequence=sequence).frame()).counts
    (name,) = counts.keys() - {"ended"}
    return name


def known(programs: Rehearsal) -> Carried:
    carried = programs.adopter.look_up(encode_tuple(first(programs).identity.key))
    assert carried is not None
    return carried


# --- the agent's connection first


def test_head_in_two_pieces_goes_up_the_next_on_its_ports_waits_behind_it(programs: Rehearsal) -> None:
    """Else the agent, when it reads the end of the first, would end the second."""
    assert arrive(programs, two_pieces(first(programs)), 1) == "up_form"
    assert (known(programs).identity, programs.whose(first(programs))) == (first(programs).identity, Whose.AGENT)
    assert arrive(programs, second(programs), 2) == "up_owned"
    assert known(programs).identity == second(programs).identity


def test_agent_has_let_go_of_its_ports_programs_adopt_there_again(programs: Rehearsal) -> None:
    arrive(programs, two_pieces(first(programs)), 1)
    assert programs.adopter.order(Act.TAKE, first(programs).identity, rank(programs, 1))
    assert programs.adopter.order(Act.RELEASE, first(programs).identity)
    assert programs.whose(first(programs)) is None
    assert arrive(programs, second(programs), 2) == "adopted"


def test_agent_lets_go_of_what_is_another_ones_by_now_that_one_stays(programs: Rehearsal) -> None:
    arrive(programs, two_pieces(first(programs)), 1)
    arrive(programs, second(programs), 2)
    assert not programs.adopter.order(Act.RELEASE, first(programs).identity)
    assert known(programs).identity == second(programs).identity


def test_agent_reads_the_earlier_of_two_it_leaves_the_note_of_the_later(programs: Rehearsal) -> None:
    arrive(programs, two_pieces(first(programs)), 1)
    arrive(programs, second(programs), 2)
    carried = known(programs)
    assert course(first(programs).identity, rank(programs, 1), carried, Ran.AGENT, False) is Course.OLDER
    assert programs.adopter.order(Act.TAKE, first(programs).identity, rank(programs, 1))
    assert known(programs) == carried


def test_segments_of_the_agents_connection_bear_no_mark(programs: Rehearsal) -> None:
    arrive(programs, two_pieces(first(programs)), 1)
    outcome = programs.arrive(arriving(programs.family))
    assert (outcome.mark, outcome.counts) == (0, {})


def test_agent_says_that_it_runs_one_before_any_came_up_programs_leave_its_ports(programs: Rehearsal) -> None:
    assert programs.adopter.order(Act.TAKE, first(programs).identity, rank(programs, 1))
    assert arrive(programs, second(programs), 2) == "up_owned"


def test_agent_takes_ports_of_a_connection_that_is_over_nothing_of_that_one_stays(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert known(programs).cookie != bytes(8)
    programs.leave(leaving(programs.family, 1, flags="RA"))
    assert programs.adopter.order(Act.TAKE, second(programs).identity, rank(programs, 2))
    assert known(programs) == Carried(second(programs).identity, rank(programs, 2), Whose.AGENT, bytes(8))


# --- the programs' connection first


def test_earlier_handoff_comes_after_the_later_connection_it_changes_nothing(programs: Rehearsal) -> None:
    assert arrive(programs, second(programs), 5) == "adopted"
    assert arrive(programs, first(programs), 4) == "up_older"
    assert known(programs).identity == second(programs).identity
    assert course(first(programs).identity, rank(programs, 4), known(programs), Ran.AGENT, False) is Course.OLDER


def test_agent_may_not_have_the_ports_of_a_connection_that_lives(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert not programs.adopter.order(Act.TAKE, second(programs).identity, rank(programs, 2))
    assert known(programs).identity == first(programs).identity


def test_agent_ends_the_first_when_the_second_has_its_ports_the_second_lives(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    arrive(programs, second(programs), 2)
    for act in (Act.SILENCE, Act.END, Act.FORGET, Act.ASK, Act.RELEASE):
        assert not programs.adopter.order(act, first(programs).identity)
    assert programs.leave(leaving(programs.family, 2, seq=0x101)).counts == {"started": 1}


def test_agent_ends_one_what_comes_for_its_ports_meanwhile_goes_to_the_agent(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert programs.adopter.order(Act.SILENCE, first(programs).identity)
    assert programs.leave(leaving(programs.family, 1, flags="R")).counts == {"silenced": 1}
    assert arrive(programs, second(programs), 2) == "up_owned"
    assert known(programs).identity == first(programs).identity
    assert programs.adopter.order(Act.END, first(programs).identity)
    assert programs.whose(first(programs)) is None
    assert programs.adopter.live == 0
    assert programs.closed() == [], "a front end that wanted it, or has another connection there, knows"


def test_never_spoke_agent_takes_it_over_and_the_programs_leave_it_alone(programs: Rehearsal) -> None:
    message = first(programs)
    arrive(programs, message, 1)
    assert arrive(programs, message, 2) == "up_ran"
    assert course(message.identity, rank(programs, 2), known(programs), Ran.ADOPTING, False) is Course.TAKE_OVER
    assert programs.adopter.order(Act.TAKE, message.identity, rank(programs, 2))
    assert programs.adopter.take_over(message.identity, PERIOD)
    assert programs.leave(leaving(programs.family, 1)).counts == {"silenced": 1}
    assert arrive(programs, message, 3) == "up_owned"


def test_never_spoke_it_is_forgotten_and_was_never_counted(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    assert programs.adopter.order(Act.FORGET, first(programs).identity)
    assert programs.whose(first(programs)) is None
    assert programs.adopter.live == 0


def test_lives_it_is_not_forgotten(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert not programs.adopter.order(Act.FORGET, first(programs).identity)
    assert programs.adopter.live == 1


def test_no_room_for_what_ran_connection_is_the_agents_and_no_programs(programs: Rehearsal) -> None:
    adopter = programs.adopter
    small = MapShape(**{**asdict(adopter._generation), "max_entries": 1})
    place = encode_number(PERIOD % GENERATIONS)
    with BpfMap.create("small", small) as full:
        before, adopter._generations[PERIOD] = adopter._generations[PERIOD], full
        adopter._maps["ran"].update(place, encode_number(full.fd))
        try:
            assert adopter.claim_identity(handoff(programs.family, client_port=1).identity, PERIOD) is Ran.AGENT
            assert adopter.claim_identity(first(programs).identity, PERIOD) is Ran.AGENT
            adopter.remember(first(programs).identity)
            assert arrive(programs, first(programs), 1) == "up_full"
            assert programs.whose(first(programs)) is Whose.AGENT
        finally:
            adopter._generations[PERIOD] = before
            adopter._maps["ran"].update(place, encode_number(before.fd))


# --- room


def other(programs: Rehearsal, port: int) -> Handoff:
    return handoff(programs.family, client_port=port)


def test_sockets_of_as_many_as_there_is_room_for_are_on_their_way_the_next_goes_to_the_agent(
    programs: Rehearsal,
) -> None:
    programs.adopter.renew(PERIOD, room=2)
    assert [arrive(programs, other(programs, port), port) for port in (1, 2, 3)] == ["adopted", "adopted", "up_full"]
    assert programs.adopter.live == 0


def is_forgotten(programs: Rehearsal) -> None:
    assert programs.adopter.order(Act.FORGET, first(programs).identity)


def is_ended(programs: Rehearsal) -> None:
    assert programs.adopter.order(Act.END, first(programs).identity)


def is_taken(programs: Rehearsal) -> None:
    assert programs.adopter.order(Act.TAKE, first(programs).identity, rank(programs, 2))


def is_followed(programs: Rehearsal) -> None:
    """By another connection on its ports, whose own end makes room again."""
    programs.adopter.renew(PERIOD, room=2)
    assert arrive(programs, second(programs), 2) == "adopted"
    programs.leave(leaving(programs.family, 2, seq=0x101))
    programs.leave(leaving(programs.family, 2, flags="RA", seq=0x102))
    programs.adopter.renew(PERIOD, room=1)


@pytest.mark.parametrize("becomes", [is_forgotten, is_ended, is_taken, is_followed])
def test_never_had_a_socket_there_is_room_for_another(
    programs: Rehearsal, becomes: Callable[[Rehearsal], None]
) -> None:
    programs.adopter.renew(PERIOD, room=1)
    assert arrive(programs, first(programs), 1) == "adopted"
    assert arrive(programs, other(programs, 7), 7) == "up_full"
    becomes(programs)
    assert arrive(programs, other(programs, 8), 8) == "adopted"
    assert arrive(programs, other(programs, 9), 9) == "up_full"


def test_kernel_refuses_a_socket_there_is_room_for_another(refusing: Rehearsal) -> None:
    refusing.adopter.renew(PERIOD, room=1)
    assert [arrive(refusing, other(refusing, port), port) for port in (1, 2)] == ["up_kernel"] * 2


def test_as_many_live_as_the_programs_may_have_the_next_goes_to_the_agent_whatever_its_room(
    programs: Rehearsal,
) -> None:
    memory, at = programs.adopter._progress.memory, ADOPTED_AND_UNMADE_AT
    memory[at : at + 8] = (LIVING - 1).to_bytes(8, "little")
    assert [arrive(programs, other(programs, port), port) for port in (1, 2)] == ["adopted", "up_full"]


def test_ends_of_more_than_began_were_counted_programs_go_on(programs: Rehearsal) -> None:
    memory, at = programs.adopter._progress.memory, STARTED_AND_ENDED_AT + 8
    memory[at : at + 8] = (1).to_bytes(8, "little")
    assert arrive(programs, first(programs), 1) == "adopted"


def test_map_of_flows_is_full_handoff_goes_to_the_agent_without_a_note(bpf: None) -> None:
    with rehearsal(unique_name(), 4, entries={"flows": 1}) as small:
        counts = [arrive(small, other(small, port), port) for port in (1, 2)]
        assert counts == ["adopted", "up_full"]
        assert small.whose(other(small, 2)) is None


# --- the end


def test_socket_resets_its_connection_it_is_told_that_it_is_over_once(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    frame = leaving(programs.family, 1, flags="RA")
    assert programs.leave(frame).counts == {"started": 1, "ended": 1}
    assert programs.leave(frame).counts == {}
    assert programs.closed() == [first(programs).identity]
    assert programs.whose(first(programs)) is Whose.OVER


@pytest.mark.parametrize(
    ("seq", "ack", "is_passed"),
    [
        (0, 0, True),
        (-1000, 1000, True),
        (1, 0, False),
        (-(1 << 24), 0, False),
        (0, 1 << 24, False),
        (0, -(1 << 24), False),
    ],
)
def test_over_and_the_client_goes_on_the_host_may_tell_it_unless_it_may_be_the_next_one(
    programs: Rehearsal, seq: int, ack: int, is_passed: bool
) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 0x22000000))  # one octet
    programs.leave(leaving(programs.family, 0x22000000, flags="RA", seq=0xBA514C38))
    segment = arriving(programs.family, seq=0x22000000 + seq & 0xFFFFFFFF, ack=0xBA514C38 + ack & 0xFFFFFFFF)
    outcome = programs.arrive(segment)
    assert (outcome.mark, outcome.count) == ((MARK, "segments") if is_passed else (0, "guarded"))


def test_over_before_it_was_told_that_it_is_held_it_is_told_to_be_over_only(programs: Rehearsal) -> None:
    message = replace(first(programs), confirm=True)
    arrive(programs, message, 1)
    programs.leave(leaving(programs.family, 1))
    other = handoff(programs.family, client_port=4711)
    arrive(programs, replace(other, confirm=True), 2)
    programs.leave(leaving(programs.family, 1, port=4711))
    programs.leave(leaving(programs.family, 1, flags="RA"))
    closed, held = programs.adopter.news()
    assert b"".join(each.octets for each in closed).count(b"\0\4") >= 1
    assert [sender for sender, _ in held] == [SENDER]
    assert [key for _, fields in held for key in fields.connections()] == [other.identity.key]


def test_over_before_it_was_told_that_it_is_held_entry_loses_its_type_and_nothing_else(programs: Rehearsal) -> None:
    """The agent may be copying it at this moment."""
    message = replace(first(programs), confirm=True)
    journal = programs.adopter._held[0 if programs.family == 4 else 1]
    arrive(programs, message, 1)
    programs.leave(leaving(programs.family, 1))
    entry = encode_field(message.identity)
    (place,) = (at for at in range(journal._size) if journal.read_at(at, 1) == entry)
    programs.leave(leaving(programs.family, 1, flags="RA"))
    assert journal.read_at(place, 1) == bytes(2) + entry[2:]


def test_over_when_its_entry_is_another_ones_by_now_that_one_is_told(programs: Rehearsal) -> None:
    """The agent was busy while as many connections began as a journal has entries."""
    family = programs.family
    arrive(programs, replace(first(programs), confirm=True), 1)
    programs.leave(leaving(family, 1))
    memory, at = programs.adopter._progress.memory, (2 if family == 4 else 3) * 24
    size = programs.adopter._held[0 if family == 4 else 1]._size
    place = int.from_bytes(memory[at : at + 8], "little") - 1
    memory[at : at + 16] = (place + size).to_bytes(8, "little") * 2
    other = replace(handoff(family, client_port=4712), confirm=True)
    arrive(programs, other, 2)
    programs.leave(leaving(family, 1, port=4712))
    programs.leave(leaving(family, 1, flags="RA"))
    assert (SENDER, other.identity) in programs.held()


def test_another_connection_gets_the_ports_end_of_the_first_is_told(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert arrive(programs, second(programs), 2) == "adopted"
    assert programs.closed() == [first(programs).identity]
    assert programs.adopter.live == 0
    programs.leave(leaving(programs.family, 2, seq=0x101))
    assert programs.adopter.live == 1


def test_agent_found_no_socket_end_is_told_and_counted_once(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert [programs.adopter.order(Act.END, first(programs).identity) for _ in range(2)] == [True, False]
    assert programs.closed() == [first(programs).identity]
    assert programs.adopter.live == 0


def test_over_the_agent_forgets_it_nothing_more_is_told_or_counted(programs: Rehearsal) -> None:
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert programs.adopter.order(Act.END, first(programs).identity)
    assert programs.closed() == [first(programs).identity]
    assert programs.adopter.order(Act.FORGET, first(programs).identity)
    assert (programs.whose(first(programs)), programs.adopter.live, programs.closed()) == (None, 0, [])


def test_packet_passes_the_entry_says_when(programs: Rehearsal) -> None:
    never, before = 0, seen_at(time.monotonic() - 2.0)
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    now = seen_at(time.monotonic())
    assert before < known(programs).seen <= now
    (living,) = programs.adopter.walk()
    assert [living.quiet_since(*each) for each in ((before, now), (now, never))] == [([], []), ([living.keys], [])]
    programs.leave(leaving(programs.family, 1, flags="RA"))
    now = seen_at(time.monotonic())
    (over,) = programs.adopter.walk()
    assert [over.quiet_since(*each) for each in ((now, before), (never, now))] == [([], []), ([], [over.keys])]


def test_many_are_over_the_oldest_is_forgotten_and_the_map_does_not_grow(programs: Rehearsal) -> None:
    size = programs.adopter._maps["closed_ipv4" if programs.family == 4 else "closed_ipv6"].shape.max_entries
    family = programs.family

    def one(number: int) -> Handoff:
        return handoff(family, client_port=1024 + number)

    def run(number: int, sequence: int) -> None:
        arrive(programs, one(number), sequence)
        programs.leave(leaving(family, 1, flags="RA", port=1024 + number))

    run(0, 1)
    run(1, 2)
    journal = 0 if family == 4 else 1
    # As if so many others had ended meanwhile.
    memory, at = programs.adopter._progress.memory, journal * 24
    taken = int.from_bytes(memory[at : at + 8], "little")
    programs.closed()
    moved = (taken + size - 2).to_bytes(8, "little")
    memory[at : at + 24] = moved * 3
    run(2, 3)
    assert programs.whose(one(0)) is None
    assert programs.whose(one(1)) is Whose.OVER
    assert programs.closed() == [one(2).identity]


def test_journal_wraps_entries_are_read_in_order(programs: Rehearsal) -> None:
    family, journal = programs.family, 2 if programs.family == 4 else 3
    size = programs.adopter._maps["held_ipv4" if family == 4 else "held_ipv6"].shape.max_entries
    memory, at = programs.adopter._progress.memory, journal * 24
    memory[at : at + 24] = (size - 1).to_bytes(8, "little") * 3
    wanted = []
    for number in range(3):
        message = replace(handoff(family, client_port=2000 + number), confirm=True)
        arrive(programs, message, 1 + number)
        programs.leave(leaving(family, 1, port=2000 + number))
        wanted.append((SENDER, message.identity))
    assert programs.held() == wanted


def test_entry_is_being_written_nothing_is_read_until_it_is_done(programs: Rehearsal) -> None:
    message = replace(first(programs), confirm=True)
    memory, at = programs.adopter._progress.memory, (2 if programs.family == 4 else 3) * 24
    arrive(programs, message, 1)
    programs.leave(leaving(programs.family, 1))
    taken = memory[at : at + 8]
    memory[at : at + 8] = (int.from_bytes(taken, "little") + 1).to_bytes(8, "little")
    assert programs.held() == []
    memory[at : at + 8] = taken
    assert programs.held() == [(SENDER, message.identity)]
