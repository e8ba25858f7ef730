from __future__ import annotations

from ipaddress import ip_address
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.be.closing import FAREWELL_DELAY_S, LATE_OCTETS, Farewells, has_ended, is_late, watch_arriving, watch_leaving
from tcpha.be.flows import Flow
from tcpha.be.translator import Translation
from tcpha.config import Endpoint
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import FLOWS_A_MESSAGE
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Closed, Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, FIN, RST, Segment, decode_segment, encode_segment

KEY = ConnectionKey(bytes((10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 80)))
MASK = 0xFFFFFFFF
FRONTENDS = (Endpoint(ip_address("10.0.0.3"), 666), Endpoint(ip_address("10.0.0.4"), 666))
DELTA = 0x80001234


def identity(number: int = 1) -> Identity:
    return Identity(KEY, SeqNum(number), SeqNum(9))


def flow(rcv_nxt: int) -> Flow:
    agreement = Agreement(1460, None, False)
    handoff = Handoff(identity(), agreement, None, 1000, 0, None, 0, confirm=True)
    made = Flow(handoff, FRONTENDS[0], 0, 0.0, 0.0)
    made.rcv_nxt = SeqNum(rcv_nxt & MASK)
    made.translation = Translation(DELTA, None, 0, 0, 1460)
    return made


def client(seq: int, ack: int, flags: int = ACK, payload: bytes = b"") -> Segment:
    return decode_segment(encode_segment(KEY, SeqNum(seq & MASK), SeqNum(ack & MASK), flags, 9, b"", payload))


def server(seq: int, ack: int, flags: int = ACK, payload: bytes = b"") -> Segment:
    octets = encode_segment(reverse_key(KEY), SeqNum(seq & MASK), SeqNum(ack & MASK), flags, 9, b"", payload)
    return decode_segment(octets)


@given(st.integers(0, MASK), st.integers(0, MASK), st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=4))
def test_any_legal_order_of_a_close_ends_it_once_all_four_are_seen(
    rcv_nxt: int, snd_nxt: int, order: list[int], repeats: list[int]
) -> None:
    """Each side's FIN and the other's acknowledgement of it, which comes later; repeats change nothing."""
    steps = [number for number in order if number < 2]
    for acknowledgement in (number for number in order if number >= 2):
        steps.insert(max(steps.index(acknowledgement - 2) + 1, order.index(acknowledgement)), acknowledgement)
    watched = flow(rcv_nxt)
    shown = snd_nxt + DELTA
    for position, step in enumerate([*steps, *repeats]):
        assert has_ended(watched) == (position >= 4)
        if step == 0:
            watch_arriving(watched, client(rcv_nxt, shown, FIN | ACK))
        elif step == 1:
            watch_leaving(watched, server(snd_nxt, watched.rcv_nxt, FIN | ACK))
        elif step == 2:
            watched.rcv_nxt = SeqNum((rcv_nxt + 1) & MASK)
            watch_leaving(watched, server(snd_nxt + (1 in steps[:position]), rcv_nxt + 1))
        else:
            watch_arriving(watched, client(rcv_nxt, shown + 1))
    assert has_ended(watched)


def test_fin_already_acknowledged_is_no_news() -> None:
    watched = flow(101)
    watch_arriving(watched, client(100, 5, FIN | ACK))
    assert watched.fin_arriving is None
    assert not watched.busy


def test_fin_that_octets_overtook_is_forgotten() -> None:
    watched = flow(100)
    watch_arriving(watched, client(100, 5, FIN | ACK))
    watch_leaving(watched, server(1, 101))
    assert watched.fin_arriving_acked
    watch_leaving(watched, server(1, 150))
    assert not watched.fin_arriving_acked
    assert watched.fin_arriving is None


def test_fin_with_octets_ends_behind_them() -> None:
    watched = flow(MASK - 3)
    watch_arriving(watched, client(MASK - 3, 5, FIN | ACK, b"octets"))
    assert watched.fin_arriving == 3
    watch_leaving(watched, server(MASK, 3, FIN | ACK, b"octets"))
    assert watched.fin_leaving == (MASK + 7 + DELTA) & MASK


def test_rst_is_remembered() -> None:
    watched = flow(100)
    assert not watched.rst_arriving
    watch_arriving(watched, client(100, 0, RST))
    assert watched.rst_arriving


@pytest.mark.parametrize(
    ("distance", "late"),
    [(0, True), (-1, True), (1 - LATE_OCTETS, True), (-LATE_OCTETS, False), (1, False), (9999, False)],
)
@pytest.mark.parametrize("rcv_nxt", [5, MASK, 0x80000000])
def test_finished_packet_is_late_if_it_begins_where_the_connection_was(rcv_nxt: int, distance: int, late: bool) -> None:
    assert is_late(flow(rcv_nxt), client(rcv_nxt + distance, DELTA)) is late


@pytest.mark.parametrize(
    ("distance", "late"),
    [(0, True), (LATE_OCTETS - 1, True), (1 - LATE_OCTETS, True), (LATE_OCTETS, False), (-LATE_OCTETS, False)],
)
@pytest.mark.parametrize("server_seq", [5, MASK, 0x80000000])
def test_finished_packet_is_late_if_it_acknowledges_what_the_server_sent(
    server_seq: int, distance: int, late: bool
) -> None:
    finished = flow(77)
    finished.server_seq = SeqNum(server_seq)
    assert is_late(finished, client(77, server_seq + DELTA + distance)) is late
    assert is_late(finished, client(77, server_seq + DELTA + distance, RST)), "a RST acknowledges nothing"


# --- telling the front ends


def test_farewells_nothing_to_say() -> None:
    farewells = Farewells(FRONTENDS)
    assert farewells.next_deadline() == inf
    assert farewells.on_timer(1e9) == []


def test_farewells_collected_for_a_moment_told_to_all_once() -> None:
    farewells = Farewells(FRONTENDS)
    farewells.add(identity(1), 1.0)
    farewells.add(identity(2), 1.0 + FAREWELL_DELAY_S / 2)
    assert farewells.next_deadline() == 1.0 + FAREWELL_DELAY_S
    assert farewells.on_timer(1.0 + FAREWELL_DELAY_S * 0.9) == []
    sent = farewells.on_timer(1.0 + FAREWELL_DELAY_S)
    assert [each.frontend for each in sent] == list(FRONTENDS)
    assert {each.message for each in sent} == {Closed((identity(1), identity(2)))}
    assert farewells.on_timer(9.0) == []
    assert farewells.next_deadline() == inf


def test_farewells_a_full_message_is_due_at_once() -> None:
    farewells = Farewells(FRONTENDS)
    for number in range(FLOWS_A_MESSAGE):
        farewells.add(identity(number), 5.0)
    assert farewells.next_deadline() == 5.0
    assert len(farewells.on_timer(5.0)) == 2


def test_farewells_many_split_into_messages() -> None:
    farewells = Farewells(FRONTENDS[:1])
    for number in range(2 * FLOWS_A_MESSAGE + 1):
        farewells.add(identity(number), 5.0)
    told = [each.message for each in farewells.on_timer(5.0)]
    assert [len(each.identities) for each in told if isinstance(each, Closed)] == [FLOWS_A_MESSAGE, FLOWS_A_MESSAGE, 1]
