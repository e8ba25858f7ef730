"""The frames of a flood, as scapy reads them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from bench.flood import SOURCES, enough, frames
from tcpha.errors import StartError

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


def test_sender_could_not_keep_up_it_is_told() -> None:
    assert enough(28_500, 10_000, 3) == 28_500
    for sent in (28_499, 0):
        with pytest.raises(StartError, match=f"only {sent / 3:,.0f} SYNs a second could be sent, not 10,000"):
            enough(sent, 10_000, 3)
