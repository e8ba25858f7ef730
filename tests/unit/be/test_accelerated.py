"""What the agent does with a HANDOFF that the programs have left to it: each case, and each order of two executors."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from tcpha.be.accelerated import Course, course, first_segment, period_of, rank_of
from tcpha.kernel.be_maps import Carried, Ran, Rank, Whose, by_sender
from tcpha.proto.cookie import Agreement
from tcpha.proto.flow_fields import FIELD_OCTETS, encode_field
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, PSH, decode_segment

COOKIE = b"socket 1"
EARLY, LATE = Rank(23, 5, 10, 7), Rank(23, 5, 11, 7)


def identity(port: int = 40000, irs: int = 100, iss: int = 200) -> Identity:
    key = connection_key(ip_address("198.51.100.7"), port, ip_address("192.0.2.36"), 80)
    return Identity(key, SeqNum(irs), SeqNum(iss))


ONE, OTHER = identity(), identity(irs=9999)


def carried(of: Identity, whose: Whose, rank: Rank = EARLY) -> Carried:
    return Carried(of, rank, whose, COOKIE)


def handoff(**changes: object) -> Handoff:
    usual = Handoff(identity(), Agreement(1460, 9, True), 7, 502, 7, 5000, 6000, True, None, b"GET / HTTP/1.0\r\n\r\n")
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("known", "ran", "has_socket", "wanted"),
    [
        (None, Ran.AGENT, False, Course.RUN),
        (None, Ran.RAN, False, Course.OVER),
        (None, Ran.ADOPTING, False, Course.TAKE_OVER),
        (carried(ONE, Whose.AGENT), Ran.AGENT, False, Course.RUN),
        (carried(ONE, Whose.PROGRAMS), Ran.RAN, True, Course.REPEAT),
        (carried(ONE, Whose.UNSEEN), Ran.ADOPTING, True, Course.REPEAT),
        (carried(ONE, Whose.UNSEEN), Ran.ADOPTING, False, Course.TAKE_OVER),
        # Its end has not been told yet, or its note says so while what ran is not remembered any more.
        (carried(ONE, Whose.PROGRAMS), Ran.RAN, False, Course.OVER),
        (carried(ONE, Whose.OVER), Ran.RAN, False, Course.OVER),
        (carried(ONE, Whose.OVER), Ran.AGENT, False, Course.OVER),
        # An earlier connection has the four-tuple, or had it.
        (carried(OTHER, Whose.PROGRAMS), Ran.AGENT, True, Course.MAKE_WAY),
        (carried(OTHER, Whose.UNSEEN), Ran.AGENT, False, Course.MAKE_WAY),
        (carried(OTHER, Whose.OVER), Ran.AGENT, False, Course.RUN),
        (carried(OTHER, Whose.AGENT), Ran.AGENT, False, Course.RUN),
        (carried(OTHER, Whose.OVER), Ran.RAN, False, Course.OVER),
        # A later one has.
        (carried(OTHER, Whose.PROGRAMS, LATE), Ran.AGENT, True, Course.OLDER),
        (carried(OTHER, Whose.UNSEEN, LATE), Ran.AGENT, False, Course.OLDER),
        (carried(OTHER, Whose.OVER, LATE), Ran.AGENT, False, Course.OLDER),
        (carried(OTHER, Whose.AGENT, LATE), Ran.AGENT, False, Course.OLDER),
        (carried(OTHER, Whose.PROGRAMS, LATE), Ran.RAN, True, Course.OLDER),
    ],
)
def test_handoff_is_left_to_the_agent_course_follows_from_whose_the_four_tuple_is(
    known: Carried | None, ran: Ran, has_socket: bool, wanted: Course
) -> None:
    rank = Rank(23, 5, 10, 7) if known is not None and known.rank is LATE else Rank(23, 5, 10 + 1, 7)
    assert course(ONE, rank, known, ran, has_socket) is wanted


@pytest.mark.parametrize(
    ("one", "other", "is_before"),
    [
        (EARLY, LATE, True),
        (LATE, EARLY, False),
        (EARLY, EARLY, False),
        # One front end's numbers decide, whatever the periods: clocks step.
        (Rank(23, 5, 10, 8), Rank(23, 5, 11, 7), True),
        # Two front ends, or two epochs: the periods of the cookies, modulo 2^16.
        (Rank(24, 5, 11, 7), Rank(23, 5, 10, 8), True),
        (Rank(23, 6, 1, 7), Rank(23, 5, 99, 7), False),
        (Rank(23, 6, 1, 0xFFFF), Rank(23, 5, 99, 2), True),
        (Rank(23, 6, 1, 2), Rank(23, 5, 99, 0xFFFF), False),
    ],
)
def test_two_handoffs_for_one_four_tuple_one_is_before_the_other(one: Rank, other: Rank, is_before: bool) -> None:
    assert one.is_before(other) is is_before


def test_rank_is_of_the_envelope_and_the_cookie() -> None:
    assert rank_of(handoff(period=0x12345), 23, 5, 10) == Rank(23, 5, 10, 0x2345)


def test_period_is_the_nearest_to_now() -> None:
    assert period_of(handoff(period=0xFFFF), 0x20001 << 5) == 0x1FFFF


def test_first_segment_is_what_the_client_would_repeat() -> None:
    segment = decode_segment(first_segment(handoff()))
    segment.check_checksum()
    assert (segment.key, segment.seg_seq, segment.seg_ack) == (identity().key, 101, 201)
    assert (segment.flags, segment.timestamps, bytes(segment.payload)) == (ACK | PSH, (6000, 0), handoff().octets)
    bare = decode_segment(first_segment(handoff(octets=b"", tsval_sent=None)))
    assert (bare.flags, bare.timestamps) == (ACK, None)


# --- journals


def senders(*ids: int) -> bytes:
    return b"".join(each.to_bytes(8, "little") for each in ids)


def test_entries_of_one_front_end_those_that_are_over_are_left_out() -> None:
    zero_ended = Identity(connection_key(ip_address("10.0.0.0"), 0, ip_address("10.0.0.0"), 80), SeqNum(1), SeqNum(2))
    fields = [encode_field(identity(port)) for port in (1, 2)] + [encode_field(zero_ended)]
    hole = bytes(FIELD_OCTETS[0])
    entries = b"".join((hole, fields[0], hole, hole, fields[2], hole, fields[1], hole))
    assert by_sender(entries, len(hole), senders(*[23] * 8)) == {23: fields[0] + fields[2] + fields[1]}


def test_entries_of_several_front_ends_each_gets_its_own() -> None:
    fields = [encode_field(identity(port)) for port in (1, 2, 3)]
    entries = b"".join((fields[0], fields[1], bytes(FIELD_OCTETS[0]), fields[2]))
    assert by_sender(entries, FIELD_OCTETS[0], senders(23, 24, 25, 23)) == {23: fields[0] + fields[2], 24: fields[1]}


def test_no_entries_nobody_gets_any() -> None:
    assert by_sender(b"", FIELD_OCTETS[0], b"") == {}


def test_entry_was_struck_out_while_it_was_copied_it_is_left_out() -> None:
    """Octets of it may be there, or not."""
    field = encode_field(ONE)
    for left in (field[2:], bytes(10) + field[12:], bytes(len(field) - 2)):
        assert by_sender(field + bytes(2) + left + field, len(field), senders(23, 23, 23)) == {23: field * 2}


def test_all_entries_were_struck_out_nobody_is_told() -> None:
    field = encode_field(ONE)
    assert by_sender((bytes(2) + field[2:]) * 3, len(field), senders(23, 23, 24)) == {}
