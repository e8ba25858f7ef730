"""What is cut, damaged, or none of the program's business arrives: it is left as it is, or the core decides alike."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tcpha.proto.checksum import ones_sum
from tests.kernel.fe_rehearsal import ETHER_OCTETS, PASSED_UP, Stage, Twins, frame_of
from tests.packet.fe_client import CLIENT, GET, LINUX_SYN, VIP, Client

pytestmark = pytest.mark.kernel

ETHER = Ether(src="02:00:00:00:00:10", dst="00:00:00:00:00:00")
IPV4, IPV6 = IP(src=CLIENT[4], dst=VIP[4]), IPv6(src=CLIENT[6], dst=VIP[6])
SEGMENT = TCP(sport=40000, dport=80, seq=1000, flags="S", options=LINUX_SYN)
OTHERS = {
    "another address": ETHER / IP(src=CLIENT[4], dst="198.18.0.99") / SEGMENT,
    "another port": ETHER / IPV4 / TCP(sport=40000, dport=81, seq=1000, flags="S"),
    "another port over IPv6": ETHER / IPV6 / TCP(sport=40000, dport=81, flags="A"),
    "UDP": ETHER / IPV4 / UDP(sport=40000, dport=80),
    "ARP": ETHER / ARP(pdst=VIP[4]),
    "IPv4 options": ETHER / IP(src=CLIENT[4], dst=VIP[4], options=b"\x01\x01\x01\x01") / SEGMENT,
    "first fragment": ETHER / IP(src=CLIENT[4], dst=VIP[4], flags="MF") / SEGMENT,
    "later fragment": ETHER / IP(src=CLIENT[4], dst=VIP[4], frag=5) / SEGMENT,
    "IPv6 fragment": ETHER / IPV6 / IPv6ExtHdrFragment(m=1) / SEGMENT,
    "extension header": ETHER / IPV6 / IPv6ExtHdrDestOpt() / SEGMENT,
    "VLAN tag": ETHER / Dot1Q(vlan=5) / IPV4 / SEGMENT,
    "another host's": Ether(src="02:00:00:00:00:10", dst="02:00:00:00:00:77") / IPV4 / SEGMENT,
    "broadcast": Ether(src="02:00:00:00:00:10", dst="ff:ff:ff:ff:ff:ff") / IPV4 / SEGMENT,
    "version 5": ETHER / IP(src=CLIENT[4], dst=VIP[4], version=5) / SEGMENT,
    "wrong IPv4 checksum": ETHER / IP(src=CLIENT[4], dst=VIP[4], chksum=1) / SEGMENT,
    "longer than the frame": ETHER / IP(src=CLIENT[4], dst=VIP[4], len=100) / SEGMENT,
    "shorter than its headers": ETHER / IP(src=CLIENT[4], dst=VIP[4], len=59) / SEGMENT,
    "data offset beyond the end": ETHER / IPV4 / TCP(sport=40000, dport=80, flags="S", dataofs=6),
    "data offset below the header": ETHER / IPV6 / TCP(sport=40000, dport=80, flags="S", dataofs=4),
}


@pytest.mark.parametrize("frame", [pytest.param(bytes(frame), id=name) for name, frame in OTHERS.items()])
def test_frame_that_is_none_of_the_programs_is_left_alone_and_not_counted(fe_stage: Stage, frame: bytes) -> None:
    Twins(fe_stage)
    outcome = fe_stage.run(frame)
    # A tag is taken off by the kernel before any program runs.
    assert (outcome.verdict, outcome.count) == (PASSED_UP, "")
    assert outcome.frame == frame or Dot1Q in Ether(frame)


def seeds(client: Client) -> list[bytes]:
    at = len(GET)
    return [
        client.syn(), client.syn(b"data"), client.ack(), client.ack(at, 1), client.sends(GET),
        client.sends(b"x", at, 1), client.fin(at, 1), client.rst(at),
    ]  # fmt: skip


SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(
    st.sampled_from((4, 6)), st.integers(0, 7), st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=5), st.sampled_from(("", "forward = tunnel")),
)  # fmt: skip
def test_frame_that_was_cut_or_damaged_program_and_core_agree(
    fe_stage: Stage, family: int, which: int, cut: int, damage: list[tuple[int, int]], settings_text: str
) -> None:
    twins, client = Twins(fe_stage, settings_text), Client(family)
    twins.forward(client, GET)
    packet = bytearray(seeds(client)[which])
    for at, octet in damage:
        packet[at % len(packet)] = octet
    # The kernel rehearses no frame that ends inside its IP header.
    packet = packet[: max(len(packet) - cut, 20 if packet[0] >> 4 == 4 else 40)]
    if packet[0] >> 4 == 4 and ones_sum(packet[:20]):
        # The host refuses it before the core would get it.
        assert fe_stage.run(frame_of(bytes(packet))).count == ""
        return
    twins.see(bytes(packet))


@SLOW
@given(st.integers(ETHER_OCTETS + 20, 70), st.integers(0, 7))
def test_frame_of_any_length_is_left_alone_or_answered(fe_stage: Stage, octets: int, which: int) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    frame = frame_of(seeds(client)[which])
    if octets < len(frame):
        outcome = fe_stage.run(frame[:octets])
        assert (outcome.verdict, outcome.count) == (PASSED_UP, "")


@SLOW
@given(st.binary(min_size=ETHER_OCTETS, max_size=200))
def test_any_octets_are_left_alone(fe_stage: Stage, octets: bytes) -> None:
    outcome = fe_stage.run(octets)
    assert (outcome.verdict, outcome.count, outcome.frame) == (PASSED_UP, "", octets)
