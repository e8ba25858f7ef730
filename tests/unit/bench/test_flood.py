"""The frames of a flood, as scapy reads them."""

from __future__ import annotations

from ipaddress import ip_address

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from bench.flood import SOURCES, frames

HARDWARE = ("02:00:00:00:00:0a", "02:00:00:00:00:17")
COUNT = 300


def test_every_frame_is_a_right_syn_from_another_address() -> None:
    made = frames(*HARDWARE, "198.18.0.36", 80, COUNT)
    sources = set()
    for octets in made:
        frame = Ether(octets)
        assert (frame.src, frame.dst, frame[IP].dst, frame[TCP].dport) == (*HARDWARE, "198.18.0.36", 80)
        assert str(frame[TCP].flags) == "S"
        assert ip_address(frame[IP].src) in SOURCES
        sources.add(frame[IP].src)
        again = Ether(octets)
        del again[IP].chksum, again[TCP].chksum
        assert bytes(again) == octets
    assert len(sources) == len({Ether(octets)[TCP].seq for octets in made}) == COUNT
