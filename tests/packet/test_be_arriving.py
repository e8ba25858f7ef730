"""Packets for a virtual address: nobody reaches the server around the front end."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.be.actions import DeliverArriving
from tcpha.be.holding import PACKETS_A_FLOW
from tcpha.be.translator import translate_arriving
from tcpha.proto.messages import Adopted
from tcpha.proto.tcp import decode_segment
from tests.packet.be_playbook import (
    NEXT,
    QUIET,
    REQUEST,
    Event,
    Playbook,
    both_families,
    dissect,
    inject,
    send,
    to_client,
    to_server,
)


def payloads(events: list[Event]) -> list[Any]:
    return [event.fields["payload"] for event in events]


# --- flows nobody has handed over yet


@both_families
@pytest.mark.parametrize("flags", ["A", "PA", "FA"])
def test_nothing_packet_held_for_its_handoff(family: int, flags: str) -> None:
    book = Playbook(family)
    assert book.arrives(flags, payload=b"1") == []
    assert book.arrives(flags, payload=b"2") == []
    book.passes(0.049)
    book.hands_off()
    assert payloads(book.syn_ack()) == [REQUEST, b"1", b"2"]
    assert book.agent.counters.held == 2
    assert book.agent.counters.hold_expired == 0


@both_families
def test_nothing_packet_held_too_long_dropped_and_counted(family: int) -> None:
    book = Playbook(family)
    book.arrives(payload=b"1")
    book.passes(0.03)
    book.arrives(payload=b"2")
    assert book.agent.next_deadline() == pytest.approx(book.start + 0.05)
    assert book.passes(0.02) == []
    assert book.agent.counters.hold_expired == 2
    book.hands_off()
    assert payloads(book.syn_ack()) == [REQUEST]


@both_families
def test_nothing_packets_of_one_flow_held_up_to_its_limit(family: int) -> None:
    book = Playbook(family)
    for number in range(PACKETS_A_FLOW + 3):
        assert book.arrives(payload=b"%d" % number) == []
    assert (book.agent.counters.held, book.agent.counters.hold_full) == (PACKETS_A_FLOW, 3)
    book.hands_off()
    assert payloads(book.syn_ack()) == [REQUEST, *[b"%d" % number for number in range(PACKETS_A_FLOW)]]


@both_families
def test_nothing_packets_of_all_flows_held_up_to_the_limit(family: int) -> None:
    book = Playbook(family, QUIET + "hold_packets = 3\n")
    for port in range(5):
        book.arrives(port=1000 + port)
    assert (book.agent.counters.held, book.agent.counters.hold_full) == (3, 2)
    book.passes(0.05)
    book.arrives(port=2000)
    assert book.agent.counters.held == 4, "there is room again"


@both_families
@pytest.mark.parametrize("flags", ["S", "SA", "R", "RA", "SF", "SR"])
def test_nothing_syn_or_rst_of_a_stranger_dropped(family: int, flags: str) -> None:
    book = Playbook(family)
    assert book.arrives(flags) == []
    assert (book.agent.counters.dropped_flags, book.agent.counters.held) == (1, 0)


@both_families
def test_nothing_zero_hold_time_holds_nothing(family: int) -> None:
    book = Playbook(family, QUIET + "hold_time = 0\n")
    book.arrives()
    assert book.agent.next_deadline() <= book.now
    book.passes(0.0)
    assert book.agent.counters.hold_expired == 1


# --- while the SYN is played


@both_families
def test_syn_sent_packets_held_up_to_the_limit_of_a_flow(family: int) -> None:
    book = Playbook(family)
    for _ in range(10):
        book.arrives(payload=b"early")
    book.hands_off()
    for _ in range(PACKETS_A_FLOW):
        assert book.arrives(payload=b"later") == []
    assert (book.agent.counters.held, book.agent.counters.hold_full) == (PACKETS_A_FLOW, 10)
    assert payloads(book.syn_ack()) == [REQUEST, *[b"early"] * 10, *[b"later"] * (PACKETS_A_FLOW - 10)]


@both_families
@pytest.mark.parametrize("flags", ["S", "SA", "SF"])
def test_syn_sent_syn_of_a_stranger_dropped(family: int, flags: str) -> None:
    """It would kill the embryo that the replay made."""
    book = Playbook(family)
    book.hands_off()
    assert book.arrives(flags, seq=70) == []
    assert payloads(book.syn_ack()) == [REQUEST]
    assert book.agent.counters.dropped_flags == 1


@both_families
def test_syn_sent_malformed_packet_costs_only_itself(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    book.arrives(payload=b"1")
    book.receives(with_broken_options(book, b"2"))
    book.arrives(payload=b"3")
    assert payloads(book.syn_ack()) == [REQUEST, b"1", b"3"]
    assert book.agent.counters.malformed == 1


def with_broken_options(book: Playbook, payload: bytes) -> bytes:
    """A segment with an option that is longer than the header."""
    return book.client_packet("PA", payload=b"\x01\x01\x05\x26" + bytes(8) + payload, options=[], dataofs=8)


@both_families
def test_syn_sent_fin_held_the_close_is_seen(family: int) -> None:
    """A client that closes right behind its request: its FIN is injected with what was held."""
    book = Playbook(family)
    book.hands_off()
    book.arrives("FA")
    assert book.syn_ack() == [inject(payload=REQUEST), inject(flags="FA", seq=NEXT)]
    book.leaves(ack=NEXT + 1)
    book.leaves("FA", ack=NEXT + 1)
    book.arrives(seq=NEXT + 1, ack=2)
    assert book.agent.counters.closed == 1


@both_families
def test_syn_sent_rst_held_the_socket_is_examined(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    book.arrives("R", options=[])
    assert book.syn_ack() == [inject(payload=REQUEST), inject(flags="R", seq=NEXT)]
    book.leaves()
    assert [event.what for event in book.passes(0.2)] == ["send", "examine", "send", "send"]


# --- flows


@both_families
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_adopted_syn_of_a_stranger_dropped(family: int, flags: str) -> None:
    book = Playbook(family).until_adopted()
    assert book.arrives(flags, seq=70_000) == []
    assert book.agent.counters.dropped_flags == 1
    assert book.arrives() == [to_server(seq=NEXT)]


@both_families
def test_adopted_corrupted_packet_stays_wrong(family: int) -> None:
    """The checksum is updated and not repaired: the server's TCP must still see that octets are broken."""
    book = Playbook(family).until_adopted()
    packet = book.client_packet("PA", payload=b"octets that are broken on the way")
    segment = decode_segment(packet.replace(b"broken", b"brokem"))
    (action,) = book.agent.on_arriving(segment, book.now)
    assert isinstance(action, DeliverArriving)
    delivered = translate_arriving(action.translation, segment)
    with pytest.raises(AssertionError, match="checksums"):
        dissect(delivered)
    assert dissect(delivered.replace(b"brokem", b"broken"))[TCP].dport == 80


@both_families
def test_adopted_malformed_packet_not_delivered(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.receives(with_broken_options(book, b"x")) == [Event("malformed", {})]
    assert book.arrives() == [to_server(seq=NEXT)]


@both_families
def test_nothing_packet_of_the_server_dropped_and_counted(family: int) -> None:
    book = Playbook(family)
    for flags in ("SA", "A", "RA", "FA"):
        assert book.leaves(flags) == []
    assert book.agent.counters.unknown_leaving == 4


# --- the ports after a close


@both_families
@pytest.mark.parametrize("flags", ["A", "PA", "FA"])
def test_finished_early_packet_of_the_next_connection_held(family: int, flags: str) -> None:
    """Carried by the old translation it would draw an RST that the client believes."""
    book = Playbook(family).until_finished()
    assert book.arrives(flags, seq=500_001, ack=70_000, payload=b"x") == []
    following = book.handoff(identity=book.identity(irs=0xFFFFFFF8 + 500_000, iss=1234), octets=b"")
    book.hands_off(following)
    book.server_iss = 99
    assert payloads(book.syn_ack(ack=500_001)) == [b"", b"x"]


@both_families
def test_finished_last_segments_still_translated(family: int) -> None:
    book = Playbook(family).until_finished()
    book.passes(50.0)
    assert book.arrives("FA", seq=NEXT, ack=2) == [to_server(flags="FA", seq=NEXT, ack=2)]
    assert book.arrives("PA", seq=6, ack=2, payload=REQUEST[5:]) == [to_server(seq=6)]
    assert book.arrives("A", seq=NEXT + 1, ack=2) == [to_server(seq=NEXT + 1)]
    assert book.leaves("FA", ack=NEXT + 1) == [to_client(flags="FA", seq=1, ack=NEXT + 1)]
    assert book.leaves("RA", ack=NEXT + 1) == [to_client(flags="RA")]


@both_families
def test_finished_time_over_packets_of_nobody(family: int) -> None:
    book = Playbook(family).until_finished()
    book.passes(61.5)
    assert book.arrives("FA", seq=NEXT, ack=2) == []
    assert book.leaves("FA", ack=NEXT + 1) == []
    assert not book.agent.table.by_key
    assert not book.agent.table.by_leaving_key


@both_families
def test_finished_server_repeats_its_syn_ack_dropped(family: int) -> None:
    assert Playbook(family).until_finished().syn_ack() == []


@both_families
def test_adopted_message_of_a_kind_that_only_back_ends_send_counted(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.says(Adopted(book.identity(), book.identity().irs)) == []
    assert book.agent.counters.unexpected_messages == 1
    assert send(Adopted(book.identity(), book.identity().irs)) not in book.passes(1.0)
