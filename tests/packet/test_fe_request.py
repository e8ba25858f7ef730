"""From the first octet to the HANDOFF: which back end, every field of the message, and what follows behind it."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.fe.actions import Action, Forward, PassOn, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.messages import Adopted, Handoff
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.rules import Endpoint
from tests.packet.fe_client import GET, GET_JPG, LINUX_SYN, MASK, PLAIN_SYN, POST, dissect
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    KEYRING,
    PERIOD,
    After,
    Packet,
    Playbook,
    Says,
    anything,
    follows,
    gets,
    handoff,
    nothing,
)

HEAD = b"POST /up HTTP/1.1\r\nHost: www\r\nContent-Length: 9000\r\n\r\n"
BIG = HEAD + bytes(range(256)) * 40
WRAPS = [0, MASK, MASK - 10, MASK - len(GET), 0x7FFFFFF0]


def delivered(actions: list[Action]) -> tuple[Endpoint, bytes]:
    """The back end of a HANDOFF and the octets it gets, the segments behind it included, which must be contiguous."""
    first = actions[0]
    assert isinstance(first, Send)
    assert isinstance(first.message, Handoff)
    octets = first.message.octets
    for action in actions[1:]:
        assert isinstance(action, Forward)
        assert action.backend == first.backend
        got = dissect(action.packet)
        at = (got[TCP].seq - first.message.identity.irs - 1) & MASK
        assert at == len(octets)
        octets += bytes(got[TCP].payload)
    return first.backend, octets


# --- one segment


@pytest.mark.parametrize(("request_head", "backend"), [(GET, BE1), (GET_JPG, BE2), (POST, BE1)])
def test_none_request_goes_to_the_back_end_of_its_rule(request_head: bytes, backend: Endpoint, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(request_head) << Send(backend, handoff(client, request_head))
    assert book.flow(client).state is FlowState.HANDING


def test_none_request_of_a_plain_client_has_every_field(family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=PLAIN_SYN, window=64240)
    expected = Handoff(
        identity=client.identity,
        agreement=Agreement(1460, None, False),
        promised_window_scale=None,
        window=64240,
        period=PERIOD,
        tsval_sent=None,
        tsval_client=0,
        confirm=True,
        acknowledged=None,
        octets=GET,
    )
    book >> client.sends(GET) << Send(BE1, expected)


@pytest.mark.parametrize("irs", WRAPS)
@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_none_request_at_the_wrap_is_handed_over(irs: int, offers: list[Any], family: int) -> None:
    book = Playbook()
    client = book.connected(family, irs=irs, offers=offers)
    plain = {} if client.stamps else {"agreement": Agreement(1460, None, False), "promised_window_scale": None}
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, **plain))


def test_none_request_uses_the_timestamp_of_its_own_segment(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    client.tsval = 0xFFFFFFFF
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, tsval_client=0xFFFFFFFF))


def test_none_request_that_fits_is_not_acknowledged(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET)) >> After(0.04) << nothing


def test_none_request_with_fin_hands_the_fin_on_behind_it(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.fin(payload=GET) << [Send(BE1, handoff(client, GET)), follows(client, BE1, b"", len(GET), "FA")]


def test_none_pipelined_requests_travel_together(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET + GET_JPG) << Send(BE1, handoff(client, GET + GET_JPG))


# --- more than a datagram holds


@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_none_long_request_follows_as_segments(mtu: int, offers: list[Any], family: int) -> None:
    book = Playbook(mtu_octets=mtu)
    client = book.connected(family, offers=offers)
    octets = BIG[: mtu - (52 if client.stamps else 40) - (0 if family == 4 else 20)]
    book >> client.sends(octets) << anything
    assert delivered(book.actions) == (BE1, octets)
    (first, *rest) = book.actions
    assert isinstance(first, Send)
    datagram = HandoffCodec(KEYRING).encode(Envelope(1, 1, 1), first.message)
    assert len(datagram) + 28 == mtu
    (action,) = rest
    assert isinstance(action, Forward)
    Packet(
        BE1, client, "PA", client.irs + 1 + mtu - 28 - (68 if family == 4 else 92), client.iss + 1,
        octets[mtu - 28 - (68 if family == 4 else 92) :], 502,
        {"Timestamp": (client.tsval, client.tsecr)} if client.stamps else {},
    ).check(action)  # fmt: skip


def test_none_request_larger_than_many_packets_arrives_to_the_octet(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(BIG) << anything  # as a stack that coalesces segments would give it
    assert delivered(book.actions) == (BE1, BIG)
    assert all(len(action.packet) <= 1500 for action in book.actions if isinstance(action, Forward))


def test_reading_long_request_behind_a_gap_is_cut_to_the_path(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(HEAD[:20]) << nothing
    book >> client.sends(BIG[100:4000], at=100) << gets(client, "A", 0, 20)
    book >> client.sends(BIG[20:60], at=20) << anything
    assert isinstance(book.actions[0], Send)
    assert isinstance(book.actions[0].message, Handoff)
    assert book.actions[0].message.octets == BIG[:60]
    pieces = [action.packet for action in book.actions[1:] if isinstance(action, Forward)]
    assert b"".join(bytes(dissect(each)[TCP].payload) for each in pieces) == BIG[100:4000]
    assert dissect(pieces[0])[TCP].seq == client.irs + 101
    assert all(len(each) <= 1500 for each in pieces)


@pytest.mark.parametrize("flags", ["PA", "FPA"])
def test_none_request_with_more_octets_than_the_window_is_cut_to_it(flags: str, family: int) -> None:
    book = Playbook("inspect_octets = 256\nwindow = 600")
    client = book.connected(family)
    book >> client.sends(BIG[:1000], flags=flags) << anything
    assert delivered(book.actions) == (BE1, BIG[:600])
    assert len(book.actions) == 1, "a FIN lies behind what was cut off"


def test_none_request_towards_ipv6_back_ends_leaves_room_for_their_header() -> None:
    book = Playbook()
    client = book.connected()
    room = book.dispatcher._handover._room(Endpoint(IPv6Address("2001:db8::1"), 666), False, True)
    assert room == 1500 - 40 - 8 - 68 - 8
    assert not book.knows(client)


# --- a split head


@pytest.mark.parametrize("at", range(1, len(GET)))
def test_reading_head_split_anywhere_is_handed_over(at: int) -> None:
    book = Playbook()
    client = book.connected(irs=MASK - 20)
    book >> client.sends(GET[:at]) << nothing
    assert book.flow(client).state is FlowState.READING
    book >> client.sends(GET[at:], at=at) << Send(BE1, handoff(client, GET))


def test_reading_head_octet_by_octet_is_handed_over_once(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    for at in range(len(GET) - 1):
        book >> client.sends(GET[at : at + 1], at) << nothing
    book >> client.sends(GET[-1:], len(GET) - 1) << Send(BE1, handoff(client, GET))
    assert book.dispatcher.counters.handoffs == 1


def test_reading_rest_in_time_leaves_the_client_unacknowledged(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) << nothing >> After(0.0099) << nothing
    book >> client.sends(GET[9:], 9) << Send(BE1, handoff(client, GET, acknowledged=None))


@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_reading_rest_late_is_acknowledged_and_owned(offers: list[Any], family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=offers)
    book >> client.sends(GET[:9]) << nothing
    stamps = {"Timestamp": (client.tsecr, client.tsval)} if client.stamps else {}
    whole_segments = (
        (45 * 1448 if family == 4 else 45 * 1428) if client.stamps else (44 * 1460 if family == 4 else 45 * 1440)
    )
    window = -(-whole_segments // 128) if client.stamps else whole_segments
    book >> After(0.01) << gets(client, "A", 0, 9, options=stamps, window=window)
    client.tsval += 7
    plain = {} if client.stamps else {"agreement": Agreement(1460, None, False), "promised_window_scale": None}
    owned = seq_add(SeqNum(client.irs), 10)
    expected = handoff(client, GET, acknowledged=owned, **plain)
    book >> client.sends(GET[9:], 9) << Send(BE1, expected)


def test_reading_each_late_part_is_acknowledged(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) >> After(0.01) << gets(client, "A", 0, 9)
    book >> After(1) << nothing
    book >> client.sends(GET[9:12], 9) >> After(0.009) << nothing >> After(0.001) << gets(client, "A", 0, 12)


def test_handing_owned_octets_are_repeated_until_the_server_has_them(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) >> After(0.01) << gets(client, "A", 0, 9)
    expected = Send(BE1, handoff(client, GET, acknowledged=seq_add(SeqNum(client.irs), 10)))
    book >> client.sends(GET[9:], 9) << expected
    book >> Says(BE1, Adopted(client.identity, seq_add(SeqNum(client.irs), 9))) << nothing
    assert book.flow(client).state is FlowState.HANDING
    book >> After(0.05) << expected >> After(0.1) << expected
    book >> Says(BE1, Adopted(client.identity, seq_add(SeqNum(client.irs), 10))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> After(30) << nothing


def test_handing_owned_octets_need_more_than_the_clients_ack(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) >> After(0.01) << anything
    book >> client.sends(GET[9:], 9) << anything
    book >> client.ack(len(GET), 100) << PassOn(BE1)
    assert book.flow(client).state is FlowState.HANDING
    book >> After(0.05) << anything
    assert len(book.actions) == 1


def test_handing_owned_octets_of_a_long_head_are_all_repeated(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    head = b"GET / HTTP/1.1\r\nHost: www\r\nCookie: " + b"c" * 3000 + b"\r\n\r\n"
    book >> client.sends(head[:1400]) >> After(0.01) << gets(client, "A", 0, 1400)
    book >> client.sends(head[1400:2800], 1400) << nothing >> client.sends(head[2800:], 2800) << anything
    first = book.actions
    assert delivered(first) == (BE1, head)
    book >> After(0.05) << anything
    assert book.actions == first


def test_reading_what_precedes_the_first_segment_is_dropped(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[9:], 9) << anything  # FLOWS?: it may be anybody's
    assert not book.knows(client)
    book >> client.sends(GET[:9]) << nothing >> client.sends(GET[9:], 9) << Send(BE1, handoff(client, GET))


def test_reading_segments_in_reverse_order_are_put_together(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:5]) << nothing
    book >> client.sends(GET[25:], 25) << gets(client, "A", 0, 5)
    book >> client.sends(GET[15:25], 15) << gets(client, "A", 0, 5)
    told = seq_add(SeqNum(client.irs), 1 + len(GET))
    book >> client.sends(GET[5:15], 5) << Send(BE1, handoff(client, GET, acknowledged=told))


def test_reading_other_clients_are_independent(family: int) -> None:
    book = Playbook()
    first, second = book.connected(family), book.connected(family, port=40002, irs=1000)
    book >> first.sends(GET[:5]) << nothing >> second.sends(GET_JPG[:5]) << nothing
    book >> second.sends(GET_JPG[5:], 5) << Send(BE2, handoff(second, GET_JPG))
    book >> first.sends(GET[5:], 5) << Send(BE1, handoff(first, GET))


def test_reading_fin_behind_a_gap_is_handed_over_with_what_precedes_it(family: int) -> None:
    """The client was told by SACK that it arrived, and does not soon repeat it."""
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET[:9]) << nothing
    book >> client.fin(len(GET) + 5, payload=b"late") << anything
    book >> client.sends(GET[9:], 9) << anything
    forwarded = [dissect(each.packet)[TCP] for each in book.actions if isinstance(each, Forward)]
    first = client.irs + 1 + len(GET) + 5
    assert [(tcp.seq, bytes(tcp.payload), "F" in tcp.flags) for tcp in forwarded] == [
        (first, b"late", False),
        (first + 4, b"", True),
    ]
