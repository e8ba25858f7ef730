"""What needs a decision comes up by the program's ring: whole, right, with its cookie; else by the host's own ways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpha.fe.actions import Send
from tcpha.kernel.be_maps import encode_number
from tcpha.kernel.fe_maps import NS, encode_times
from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until
from tcpha.net.bpf_forwarder import LEASE_S
from tcpha.proto.cookie import PERIOD_S, Cookie
from tcpha.proto.tcp import decode_segment
from tests.kernel.conftest import unique_name
from tests.kernel.fe_rehearsal import PASSED_UP, Stage, Twins, frame_of
from tests.kernel.three_hosts import IFACE, Hosts, forwarder_of, three_hosts
from tests.packet.fe_client import GET, LINUX_SYN, PLAIN_SYN, Client
from tests.packet.fe_playbook import UTC

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("family", [4, 6])
LARGEST = 2048


def greeted(stage: Stage, family: int = 4, offers: list[object] = LINUX_SYN) -> tuple[Twins, Client]:
    """A client whose handshake is over."""
    twins, client = Twins(stage), Client(family, offers=offers)
    twins.shake(client)
    return twins, client


def told(cookie: Cookie | None) -> Cookie:
    assert cookie is not None
    return cookie


# --- what comes by it


@BOTH
@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
@pytest.mark.parametrize("octets", [1, 2, 3, 4, 507, 508, 509, 512, 1400])
def test_first_octets_come_by_the_ring_with_their_cookie(
    fe_stage: Stage, family: int, offers: list[object], octets: int
) -> None:
    twins, client = greeted(fe_stage, family, offers)
    packet = client.sends((GET * 40)[:octets])
    outcome = fe_stage.run(frame_of(packet))
    assert (outcome.count, outcome.is_raised, outcome.packet) == ("up_unknown", True, packet)
    assert outcome.cookie == twins.core._cookie_of(decode_segment(packet))
    assert outcome.cookie is not None
    assert (outcome.cookie.tsval is None) == (offers is PLAIN_SYN)


@BOTH
def test_first_octets_are_decided_with_the_cookie_that_was_told_as_without(fe_stage: Stage, family: int) -> None:
    alone, client = greeted(fe_stage, family)
    packet = client.sends(GET)
    cookie = told(fe_stage.run(frame_of(packet)).cookie)
    by_itself = alone.core.on_segment(decode_segment(packet), alone.now)
    trusting = Twins(fe_stage)
    assert trusting.core.on_verified(decode_segment(packet, is_checked=True), cookie, alone.now) == by_itself
    assert any(isinstance(action, Send) for action in by_itself)


def test_fin_without_octets_comes_with_its_cookie_and_is_answered_alike(fe_stage: Stage) -> None:
    twins, client = greeted(fe_stage)
    cookie = told(fe_stage.run(frame_of(client.fin())).cookie)
    segment = decode_segment(client.fin())
    assert twins.core.on_verified(segment, cookie, twins.now) == twins.core.on_segment(segment, twins.now)


@BOTH
def test_first_octets_of_a_port_used_again_come_with_their_cookie(fe_stage: Stage, family: int) -> None:
    twins, old = Twins(fe_stage), Client(family)
    twins.forward(old, GET)
    new = Client(family, irs=5_000_000)
    twins.shake(new)
    packet = new.sends(GET)
    outcome = fe_stage.run(frame_of(packet))
    assert (outcome.count, outcome.is_raised) == ("up_reused", True)
    assert outcome.cookie == twins.core._cookie_of(decode_segment(packet))
    twins.close(old)
    before = twins.core.counters.ports_reused
    actions = twins.core.on_verified(decode_segment(packet), told(outcome.cookie), twins.now)
    assert any(isinstance(action, Send) for action in actions)
    assert twins.core.counters.ports_reused == before + 1


@BOTH
def test_port_is_used_for_a_third_time_while_the_second_is_undecided_its_first_octets_come_with_their_cookie(
    fe_stage: Stage, family: int
) -> None:
    twins = Twins(fe_stage)
    twins.forward(Client(family), GET)
    second, third = Client(family, irs=5_000_000), Client(family, irs=6_000_000)
    twins.shake(second)
    assert fe_stage.run(frame_of(second.sends(GET))).count == "up_reused"
    twins.shake(third)
    outcome = fe_stage.run(frame_of(third.sends(GET)))
    assert (outcome.count, outcome.is_raised) == ("up_reused", True)
    assert told(outcome.cookie) == twins.core._cookie_of(decode_segment(third.sends(GET)))
    assert fe_stage.run(frame_of(third.ack())).cookie is None
    assert fe_stage.run(frame_of(second.sends(GET, at=len(GET)))).cookie is None


def test_cookie_is_wrong_or_of_a_refused_period_none_is_told(fe_stage: Stage) -> None:
    twins, client = greeted(fe_stage)
    assert fe_stage.run(frame_of(client.sends(GET, acks=1 << 20))).cookie is None
    assert fe_stage.run(frame_of(client.sends(GET, at=1))).cookie is None
    cookie = told(fe_stage.run(frame_of(client.sends(GET))).cookie)
    twins.core.table.finished.period_floor = UTC // PERIOD_S
    twins.core.on_verified(decode_segment(client.sends(GET)), cookie, twins.now)
    assert twins.core.counters.requests == 0, "what the program was told too late, the core knows"
    twins.tell(UTC)
    assert fe_stage.run(frame_of(client.sends(GET))).cookie is None


def test_octets_behind_the_packet_are_left_out(fe_stage: Stage) -> None:
    _, client = greeted(fe_stage)
    packet = client.sends(b"GET")
    outcome = fe_stage.run(frame_of(packet + b"padding"))
    assert (outcome.is_raised, outcome.packet) == (True, packet)


# --- what does not


@BOTH
def test_packet_is_larger_than_a_record_may_be_or_several_in_one_it_goes_up_as_it_is(
    fe_stage: Stage, family: int
) -> None:
    _, client = greeted(fe_stage, family)
    bare = len(client.sends(b""))
    fits = client.sends(b"z" * (LARGEST - bare))
    assert fe_stage.run(frame_of(fits)).is_raised
    for frame, gso in ((frame_of(client.sends(b"z" * (LARGEST - bare + 1))), 0), (frame_of(fits), 1400)):
        outcome = fe_stage.run(frame, gso, 2 if gso else 0)
        assert (outcome.verdict, outcome.is_raised, outcome.frame) == (PASSED_UP, False, frame)


@BOTH
@pytest.mark.parametrize("at", [-1, 20, 60])
def test_packet_is_damaged_it_goes_up_as_it_is(fe_stage: Stage, family: int, at: int) -> None:
    twins, client = greeted(fe_stage, family)
    packet = bytearray(client.sends(GET))
    packet[at if at < 0 else len(packet) - len(GET) - 1 - at % 20] ^= 4
    outcome, decision = twins.see(bytes(packet))
    assert (outcome.verdict, outcome.is_raised) == (PASSED_UP, False)
    assert decision.fault is not None or decision.counted


def test_nobody_reads_packets_go_up_as_they_are_while_cookies_are_made_still(fe_stage: Stage) -> None:
    """A process that ended, or hangs: what comes must not vanish, and a successor may be there already."""
    _, client = greeted(fe_stage)
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    times = encode_times(int(UTC * NS) - boot_ns, boot_ns + LEASE_S * NS, -1, boot_ns)
    fe_stage.forwarder._maps["times"].update(encode_number(0), times)
    outcome = fe_stage.run(frame_of(client.sends(GET)))
    assert (outcome.verdict, outcome.is_raised, outcome.count) == (PASSED_UP, False, "up_unknown")
    assert fe_stage.run(frame_of(Client().syn())).count == "syns"


def test_process_leaves_packets_go_up_as_they_are_at_once_while_cookies_are_made_still(fe_stage: Stage) -> None:
    _, client = greeted(fe_stage)
    assert fe_stage.run(frame_of(client.sends(GET))).is_raised
    fe_stage.forwarder.leave(UTC, -1)
    outcome = fe_stage.run(frame_of(client.sends(GET)))
    assert (outcome.verdict, outcome.is_raised, outcome.count) == (PASSED_UP, False, "up_unknown")
    assert fe_stage.run(frame_of(Client().syn())).count == "syns"


def test_ring_is_full_packets_go_up_as_they_are_until_it_is_read(fe_stage: Stage) -> None:
    _, client = greeted(fe_stage)
    frame = frame_of(client.sends(b"z" * 1400))
    ran = fe_stage.forwarder._loaded.programs["fe_ingress"].run(frame, bytes(192), repeat=5000)
    assert (ran.returned, ran.octets) == (PASSED_UP, frame)
    kept = 0
    while some := fe_stage.forwarder.read():
        assert {packet for packet, _ in some} == {frame[14:]}
        kept += len(some)
    assert 2000 < kept < 5000
    assert fe_stage.run(frame).is_raised


# --- between kernels


@pytest.fixture
def cable(fe_bpf: None) -> Iterator[Hosts]:
    with three_hosts(unique_name()) as standing:
        yield standing


@BOTH
@pytest.mark.parametrize("offload", ["on", "off"])
def test_client_of_linux_sends_a_request_its_checksum_is_complete_in_the_ring(
    cable: Hosts, family: int, offload: str
) -> None:
    """With the offload nobody has computed one: both kernels know that the packet never left the machine."""
    cable.run(cable.client, "ethtool", "-K", IFACE, "tx", offload)
    came: list[tuple[bytes, Cookie | None]] = []

    def comes() -> bool:
        came.extend(program.read())
        return bool(came)

    with namespaces.inside(cable.front_end), closing(forwarder_of()) as program:
        program.attach()
        with cable.connect(family) as client:
            client.sendall(GET)
            assert wait_until(comes, limit_s=2.0)
    segment = decode_segment(came[0][0])
    segment.check_checksum()
    assert segment.payload == GET
    assert told(came[0][1]).tsval is not None
