"""Back ends beyond a router: the program puts a packet into IP in IP as tcpha.proto.tunnel does, or passes it up."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import pairwise

import pytest

from tcpha.proto.tunnel import Tunnel, overhead_octets
from tests.kernel.fe_rehearsal import MTU, PASSED_UP, REDIRECTED, Stage, Twins, frame_of, unnumbered
from tests.packet.fe_client import GET, Client
from tests.packet.fe_playbook import BE1

pytestmark = pytest.mark.kernel

ENDS = {4: ("198.18.0.23", "198.18.0.33"), 6: ("2001:db8:1::23", "2001:db8:1::33")}
EVERY = [pytest.param(outer, inner, id=f"{inner} in {outer}") for outer in (4, 6) for inner in (4, 6)]


class Beyond(Twins):
    """A front end whose back end is reached through a tunnel, whose own packets are of the family `outer`."""

    def __init__(self, stage: Stage, outer: int) -> None:
        super().__init__(stage, "forward = tunnel")
        source, destination = (ip_address(each) for each in ENDS[outer])
        self.tunnels[BE1] = Tunnel(source, destination)
        self.carried = MTU - overhead_octets(outer)
        self.core.carried_octets = self.carried
        backend = (BE1.addr.packed, BE1.port)
        stage.forwarder.set_tunnel(backend, source.packed, destination.packed, self.carried)


@pytest.mark.parametrize(("outer", "inner"), EVERY)
def test_forwarded_segments_are_wrapped(fe_stage: Stage, outer: int, inner: int) -> None:
    twins, client = Beyond(fe_stage, outer), Client(inner)
    twins.forward(client, GET)
    at = len(GET)
    for packet in (
        client.ack(at, 1), client.sends(b"x", at, 1), client.sends(b"z" * 1300, at + 1, 1), client.rst(at, 1),
        client.fin(at, 9),
    ):  # fmt: skip
        outcome, _ = twins.see(packet)
        assert (outcome.verdict, outcome.count) == (REDIRECTED, "tunnelled")
        assert outcome.frame[12:14] == (b"\x08\x00" if outer == 4 else b"\x86\xdd")


@pytest.mark.parametrize(("outer", "inner"), EVERY)
def test_forwarded_packet_of_the_largest_size_is_wrapped_and_a_larger_one_passed_up(
    fe_stage: Stage, outer: int, inner: int
) -> None:
    twins, client = Beyond(fe_stage, outer), Client(inner)
    twins.forward(client, GET)
    bare = len(client.sends(b"", len(GET), 1))
    fits = twins.see(client.sends(b"z" * (twins.carried - bare), len(GET), 1))[0]
    assert (fits.count, len(fits.packet)) == ("tunnelled", MTU)
    larger = fe_stage.run(frame_of(client.sends(b"z" * (twins.carried - bare + 1), len(GET), 1)))
    assert (larger.verdict, larger.count) == (PASSED_UP, "up_too_big")


def test_forwarded_padded_frame_its_padding_is_not_wrapped(fe_stage: Stage) -> None:
    twins, client = Beyond(fe_stage, 4), Client(offers=[])
    twins.forward(client, GET)
    packet = client.ack(len(GET), 1)
    outcome = fe_stage.run(frame_of(packet) + bytes(6))
    assert unnumbered(outcome.packet) == twins.tunnels[BE1].wrap(packet)


def test_outer_packets_may_be_fragmented_so_each_has_a_number(fe_stage: Stage) -> None:
    twins, client = Beyond(fe_stage, 4), Client()
    twins.forward(client, GET)
    runs = [fe_stage.run(frame_of(client.ack(len(GET), 1))).packet for _ in range(3)]
    source, destination = (ip_address(each).packed for each in ENDS[4])
    fe_stage.forwarder.set_tunnel((BE1.addr.packed, BE1.port), source, destination, 1480)
    runs.append(fe_stage.run(frame_of(client.ack(len(GET), 1))).packet)
    numbers = [struct.unpack_from("!4xHH", packet) for packet in runs]
    assert [fragment for _, fragment in numbers] == [0] * 4
    assert {(after - before) & 0xFFFF for (before, _), (after, _) in pairwise(numbers)} == {1}


@pytest.mark.parametrize(("outer", "inner"), EVERY)
def test_merged_packets_of_which_each_fits_are_not_too_big(fe_stage: Stage, outer: int, inner: int) -> None:
    """The kernel wraps merged TCP only, and takes a rehearsed packet for none: test_fe_cable.py has real ones."""
    twins, client = Beyond(fe_stage, outer), Client(inner)
    twins.forward(client, GET)
    size = twins.carried - len(client.sends(b"", len(GET), 1))
    merged = frame_of(client.sends(b"z" * (2 * size), len(GET), 1))
    fits, larger = fe_stage.run(merged, size, 2), fe_stage.run(merged, size + 1, 2)
    assert [fits.count, larger.count] == ["up_kernel", "up_too_big"]
    assert fits.frame == larger.frame == merged


@pytest.mark.parametrize("inner", [4, 6])
def test_merged_packets_go_to_a_neighbour_as_they_are(fe_stage: Stage, inner: int) -> None:
    twins, client = Twins(fe_stage), Client(inner)
    twins.forward(client, GET)
    merged = client.sends(b"z" * 2800, len(GET), 1)
    outcome = fe_stage.run(frame_of(merged), 1400, 2)
    assert (outcome.verdict, outcome.count, outcome.packet) == (REDIRECTED, "forwarded", merged)
