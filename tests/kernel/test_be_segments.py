"""be_segments and be_egress on connections whose sockets live: what ends them, and what a stranger can do about it.

The kernel makes no sockets here (tests/kernel/rehearsal.py). So the host connects to its own virtual address, with the
mark that a socket of ours would bear: the programs find it under the four-tuple of what was handed over.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.kernel.be_maps import Act, Answer, Rank
from tcpha.proto.messages import Handoff
from tcpha.proto.seqnum import seq_add
from tests.kernel.frames import FRONT_END, MARK, PERIOD, PORT, SENDER, TABLE, VIP, VIP_PORT, ether, of_the_host
from tests.kernel.rehearsal import Outcome, Rehearsal, connected

pytestmark = pytest.mark.kernel

_ports = count(43000)
FAR = 1 << 24
SERVED = 41
"""Octets of the request, which the server has acknowledged."""


@dataclass(frozen=True)
class Living:
    """One connection; sequence numbers count from the initial ones."""

    programs: Rehearsal
    message: Handoff
    port: int

    def client_sends(self, flags: str, seq: int, ack: int = 1, octets: bytes = b"", **header: int) -> Outcome:
        identity = self.message.identity
        return self.programs.arrive(
            self._frame(self.port, VIP_PORT, flags, identity.irs + seq, identity.iss + ack, octets, header)
        )

    def server_sends(self, flags: str, seq: int, ack: int, octets: bytes = b"") -> Outcome:
        identity = self.message.identity
        return self.programs.leave(
            self._frame(VIP_PORT, self.port, flags, identity.iss + seq, identity.irs + ack, octets, {})
        )

    def is_over(self) -> bool:
        return self.programs.closed() == [self.message.identity]

    def _frame(
        self, source: int, port: int, flags: str, seq: int, ack: int, octets: bytes, header: dict[str, int]
    ) -> bytes:  # fmt: skip
        family = self.programs.family
        head, address = ether(family), VIP[family]
        network = IP(src=address, dst=address) if family == 4 else IPv6(src=address, dst=address)
        tcp = TCP(sport=source, dport=port, flags=flags, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, **header)
        return bytes(Ether(src=head.src, dst=head.dst) / network / tcp / octets)


@pytest.fixture
def living(programs: Rehearsal) -> Iterator[Living]:
    """It was adopted, its server has acknowledged the request and sent one octet."""
    port = next(_ports)
    message = of_the_host(programs.family, port)
    assert programs.arrive(programs.datagram(message=message).frame()).count == "adopted"
    with connected(programs.family, port, MARK):
        standing = Living(programs, message, port)
        assert standing.server_sends("A", 1, 1 + SERVED, b"y").counts == {"started": 1}
        yield standing


@contextmanager
def no_room_for_answers(programs: Rehearsal) -> Iterator[None]:
    """As if a ring's length lay there and nobody had read it; afterwards all of it is read."""
    ring, position = programs.adopter._ring, struct.Struct("=Q")
    programs.adopter.answers(1 << 20)
    (written,) = position.unpack_from(ring._written)
    position.pack_into(ring._read, 0, (written - programs.adopter._maps["events"].shape.max_entries) % (1 << 64))
    try:
        yield
    finally:
        position.pack_into(ring._read, 0, written)


# --- the client's FIN, and others


def test_both_have_closed_and_know_it_connection_is_over(living: Living) -> None:
    living.client_sends("FA", 1 + SERVED, 2)
    living.server_sends("FA", 2, 2 + SERVED)
    assert not living.is_over()
    living.client_sends("A", 2 + SERVED, 3)
    assert living.is_over()


def test_client_has_half_closed_a_strangers_fin_changes_nothing(living: Living) -> None:
    """The client never repeats a FIN that was acknowledged."""
    living.client_sends("FA", 1 + SERVED, 2)
    living.server_sends("A", 2, 2 + SERVED)
    living.client_sends("FA", 1 + SERVED + 1000, 2)
    living.server_sends("FA", 2, 2 + SERVED)
    living.client_sends("A", 2 + SERVED, 3)
    assert living.is_over()


@pytest.mark.parametrize("seq", [SERVED - 1, -1, -FAR, SERVED + FAR, 1 << 31])
def test_clients_fin_is_on_its_way_to_the_server_one_of_a_strange_number_changes_nothing(
    living: Living, seq: int
) -> None:
    living.client_sends("FA", 1 + SERVED, 2)
    living.client_sends("FA", seq, 2)
    living.server_sends("FA", 2, 2 + SERVED)
    living.client_sends("A", 2 + SERVED, 3)
    assert living.is_over()


@pytest.mark.parametrize("words", [0, 4, 15])
def test_clients_fin_is_on_its_way_one_whose_header_is_of_no_length_changes_nothing(living: Living, words: int) -> None:
    living.client_sends("FA", 1 + SERVED, 2)
    assert living.client_sends("FA", 1 + SERVED, 2, dataofs=words).counts == {"segments": 1}
    living.server_sends("FA", 2, 2 + SERVED)
    living.client_sends("A", 2 + SERVED, 3)
    assert living.is_over()


@pytest.mark.parametrize("ahead", [1, FAR - 2])
def test_clients_fin_overtakes_octets_it_is_known_when_they_are_there(living: Living, ahead: int) -> None:
    living.client_sends("FA", 1 + SERVED + ahead, 2)
    living.server_sends("A", 2, 1 + SERVED + ahead)
    living.server_sends("FA", 2, 2 + SERVED + ahead)
    living.client_sends("A", 2 + SERVED + ahead, 3)
    assert living.is_over()


def test_strangers_fin_comes_first_the_clients_own_takes_its_place(living: Living) -> None:
    living.client_sends("FA", 1 + SERVED + 1000, 2)
    living.client_sends("FA", 1 + SERVED, 2)
    living.server_sends("FA", 2, 2 + SERVED)
    living.client_sends("A", 2 + SERVED, 3)
    assert living.is_over()


# --- what the agent is told


def test_another_front_end_hands_it_over_again_that_one_is_answered(living: Living) -> None:
    programs, message = living.programs, replace(living.message, confirm=True)
    address = ip_address(FRONT_END[programs.family]).packed
    programs.adopter.set_peer(address, PORT + 1, SENDER + 1, programs.epoch, TABLE + 1)
    again = programs.datagram(message=message, sender=SENDER + 1, source_port=PORT + 1)
    assert programs.arrive(again.frame()).counts == {"repeated": 1}
    living.server_sends("A", 2, 1 + SERVED)
    acknowledged = seq_add(message.identity.irs, 1 + SERVED)
    assert programs.adopter.answers() == [Answer(message.identity, SENDER + 1, acknowledged)]


def test_agent_asks_for_a_front_end_that_one_is_answered(living: Living) -> None:
    programs, identity = living.programs, living.message.identity
    assert programs.adopter.order(Act.ASK, identity, Rank(SENDER + 1, programs.epoch, 9, PERIOD & 0xFFFF))
    living.server_sends("A", 2, 1 + SERVED)
    assert [each.sender for each in programs.adopter.answers()] == [SENDER + 1]


def test_nobody_reads_what_is_told_front_end_is_answered_as_soon_as_there_is_room(living: Living) -> None:
    programs = living.programs
    assert programs.adopter.order(Act.ASK, living.message.identity)
    with no_room_for_answers(programs):
        assert living.server_sends("A", 2, 1 + SERVED).counts == {"events_lost": 1}
    assert living.server_sends("A", 2, 1 + SERVED).counts == {}
    assert [each.sender for each in programs.adopter.answers()] == [SENDER]


def test_client_sends_resets_that_nobody_believes_agent_is_told_of_few(living: Living) -> None:
    started = time.monotonic()
    for number in range(200):
        living.client_sends("R", 2 + SERVED + number)
    told = living.programs.adopter.answers()
    assert {each.identity for each in told} == {living.message.identity}
    assert len(told) <= 2 + (time.monotonic() - started) / 0.26


def test_nobody_reads_what_is_told_next_reset_is(living: Living) -> None:
    with no_room_for_answers(living.programs):
        assert living.client_sends("R", 2 + SERVED).counts == {"segments": 1, "events_lost": 1}
    living.client_sends("R", 2 + SERVED)
    assert [each.sender for each in living.programs.adopter.answers()] == [0]
