"""What the agent remembers of connections that the kernel carries, and what it says of them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from tcpha.be.accelerated import LINGERING, Accelerated, first_segment, is_older, period_of
from tcpha.be.actions import Send
from tcpha.config import Endpoint
from tcpha.kernel.be_maps import Adoption, Carried, encode_tuple
from tcpha.proto.cookie import Agreement
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Adopted, Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, PSH, decode_segment

FRONT_END = Endpoint(ip_address("192.0.2.1"), 666)
COOKIE = b"socket 1"


def identity(port: int = 40000, irs: int = 100, iss: int = 200) -> Identity:
    key = connection_key(ip_address("198.51.100.7"), port, ip_address("192.0.2.36"), 80)
    return Identity(key, SeqNum(irs), SeqNum(iss))


def carried(of: Identity, *, period: int = 7, has_started: bool = True) -> Carried:
    return Carried(of, period, has_started, COOKIE)


def handoff(**changes: object) -> Handoff:
    usual = Handoff(identity(), Agreement(1460, 9, True), 7, 502, 7, 5000, 6000, True, None, b"GET / HTTP/1.0\r\n\r\n")
    return replace(usual, **changes)


def test_connection_ends_front_ends_are_told_once_and_it_counts_once() -> None:
    known = Accelerated(60.0)
    one = identity()
    four_tuple = encode_tuple(one.key)
    assert known.live(started=3) == 3
    assert known.on_ended(four_tuple, carried(one), 0.0) == one
    assert known.on_ended(four_tuple, carried(one), 1.0) is None
    assert known.on_replaced(four_tuple, one) is None
    assert (known.live(started=3), known.closed) == (2, 1)
    assert not known.lives(four_tuple, carried(one))


def test_four_tuple_is_another_connections_by_now_that_one_lives() -> None:
    known = Accelerated(60.0)
    old, new = identity(), identity(irs=9999)
    four_tuple = encode_tuple(old.key)
    known.on_ended(four_tuple, carried(old), 0.0)
    assert known.lives(four_tuple, carried(new))
    assert known.on_ended(four_tuple, carried(new), 1.0) == new
    assert len(known) == 1


def test_end_went_unnoticed_before_the_four_tuple_was_anothers_it_is_told() -> None:
    known = Accelerated(60.0)
    one = identity()
    assert known.on_replaced(encode_tuple(one.key), one) == one
    assert (known.live(started=2), known.closed) == (1, 1)


def test_no_packet_has_left_nobody_knows_whether_it_lives_and_it_never_counted() -> None:
    known = Accelerated(60.0)
    one = identity()
    silent = carried(one, has_started=False)
    assert not known.lives(encode_tuple(one.key), silent)
    known.on_destroyed(silent)
    assert known.live(started=1) == 1


def test_compared_with_what_there_is_the_count_begins_anew() -> None:
    known = Accelerated(60.0)
    known.on_compared(live=5, started=100)
    assert (known.live(started=100), known.live(started=103)) == (5, 8)


def test_over_for_long_enough_it_may_be_forgotten() -> None:
    known = Accelerated(60.0)
    first, second = identity(1), identity(2)
    for number, each in enumerate((first, second)):
        known.on_ended(encode_tuple(each.key), carried(each), float(number))
    assert known.take_forgotten(59.9) == []
    assert known.take_forgotten(60.0) == [(encode_tuple(first.key), first)]
    assert len(known) == 1


def test_too_many_are_over_the_oldest_may_be_forgotten() -> None:
    known = Accelerated(60.0)
    for number in range(LINGERING + 3):
        one = identity(iss=number)
        known.on_ended(number.to_bytes(36, "big"), carried(one), 0.0)
    assert [each.iss for _, each in known.take_forgotten(0.0)] == [0, 1, 2]
    assert len(known) == LINGERING


@pytest.mark.parametrize(("confirm", "sender", "answered"), [(True, 1, True), (False, 1, False), (True, 2, False)])
def test_adoption_is_answered_if_a_front_end_that_is_known_asked(confirm: bool, sender: int, answered: bool) -> None:
    adoption = Adoption(identity(), SeqNum(118), 7, sender, confirm, False)
    expected = [Send(FRONT_END, Adopted(identity(), SeqNum(118)))] if answered else []
    assert list(Accelerated.answers([adoption], {1: FRONT_END})) == expected


@pytest.mark.parametrize(
    ("of_handoff", "of_carried", "older"), [(7, 7, False), (6, 7, True), (8, 7, False), (0xFFFF, 2, True)]
)
def test_generations_are_ordered_by_their_periods(of_handoff: int, of_carried: int, older: bool) -> None:
    assert is_older(handoff(period=of_handoff), carried(identity(), period=of_carried)) is older


def test_period_is_the_nearest_to_now() -> None:
    assert period_of(handoff(period=0xFFFF), 0x20001 << 5) == 0x1FFFF


def test_first_segment_is_what_the_client_would_repeat() -> None:
    segment = decode_segment(first_segment(handoff()))
    segment.check_checksum()
    assert (segment.key, segment.seg_seq, segment.seg_ack) == (identity().key, 101, 201)
    assert (segment.flags, segment.timestamps, bytes(segment.payload)) == (ACK | PSH, (6000, 0), handoff().octets)
    bare = decode_segment(first_segment(handoff(octets=b"", tsval_sent=None)))
    assert (bare.flags, bare.timestamps) == (ACK, None)
