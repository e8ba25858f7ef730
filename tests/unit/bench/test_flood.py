"""The frames of a flood, as scapy reads them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from bench.checking_client import Tally
from bench.flood import SOURCES, _figures, _Spell, enough, frames
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


def test_flood_costs_what_the_same_seconds_without_it_did_not() -> None:
    quiet = _Spell(0, {"fe": 0.25, "be": 0.125}, 1.0, Tally(latencies_s=[9.0]))
    flooded = _Spell(20_000, {"fe": 0.5, "be": 0.125}, 2.0, Tally(latencies_s=[0.001] * 98 + [0.002] * 2, errors=25))
    figures = _figures(quiet, flooded, 2)
    assert figures["lab_us_per_syn"] == 50
    assert (figures["process_us_per_syn_fe"], figures["process_us_per_syn_be"]) == (12.5, 0)
    assert figures["process_us_per_syn"] == 12.5
    assert (figures["syns_per_s"], figures["answered_share"], figures["p99_ms"]) == (10_000, 0.8, 2.0)


def test_nobody_was_answered_during_a_flood_there_is_no_latency() -> None:
    figures = _figures(_Spell(0, {}, 0.0, Tally()), _Spell(10, {}, 1.0, Tally(errors=3)), 1)
    assert "p99_ms" not in figures
    assert not [name for name in figures if name.startswith("process_")]
