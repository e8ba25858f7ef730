"""The ladder against captures that scapy writes: who sent what to whom, once each, in order, within the width."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Padding
from scapy.utils import wrpcap

from tcpha.lab.ladder import Capture, Connection, connections, draw, read_frames, segments_of
from tcpha.proto.dissect import HandoffMessage

MAC = {
    "client": "02:00:00:00:00:01",
    "fe": "02:00:00:00:00:02",
    "be1": "02:00:00:00:00:03",
    "be2": "02:00:00:00:00:04",
}
CLIENT, VIP = "10.0.0.2", "10.0.0.100"
PORT = 40000
IRS, ISS = 0xFFFFFFF0, 5000
REQUEST = b"GET /1k.html HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
SYN_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (111, 0)), ("WScale", 7)]


@dataclass
class Segment:
    """A bridged segment: a frame appears in the capture of its sender and in that of its receiver, 20 us later."""

    folder: Path
    nodes: tuple[str, ...] = ("client", "fe", "be1")
    ipv6: bool = False
    seen: dict[str, list[Any]] = field(default_factory=dict)
    time_s: float = 1_700_000_000.0

    def sends(self, sender: str, receiver: str, above_ethernet: Any) -> None:
        for node, delay_s in ((sender, 0.0), (receiver, 20e-6)):
            frame = Ether(bytes(Ether(src=MAC[sender], dst=MAC.get(receiver, receiver)) / above_ethernet))
            frame.time = self.time_s + delay_s
            self.seen.setdefault(node, []).append(frame)
        self.time_s += 0.001

    def from_client(
        self, hop: tuple[str, str], flags: str, seq: int, ack: int = 0, *, octets: Any = b"", **tcp: Any
    ) -> None:
        segment = TCP(sport=PORT, dport=80, flags=flags, seq=seq % 2**32, ack=ack % 2**32, **tcp)
        self.sends(*hop, self._ip(CLIENT, VIP) / segment / octets)

    def from_vip(self, hop: tuple[str, str], flags: str, seq: int, ack: int, *, octets: Any = b"", **tcp: Any) -> None:
        segment = TCP(sport=80, dport=PORT, flags=flags, seq=seq % 2**32, ack=ack % 2**32, **tcp)
        self.sends(*hop, self._ip(VIP, CLIENT) / segment / octets)

    def message(self, sender: str, receiver: str, payload: Any) -> None:
        self.sends(sender, receiver, IP(src="10.0.0.10", dst="10.0.0.21") / UDP(sport=666, dport=666) / payload)

    def adopt(self, sender: str, receiver: str, port: int = PORT) -> None:
        addresses = {"flags": 0, "client_address": CLIENT, "virtual_address": VIP}
        if self.ipv6:
            addresses = {"flags": 1, "client_address": "fd00::2", "virtual_address": "fd00::100"}
        self.message(
            sender, receiver, HandoffMessage(type=1, client_port=port, vip_port=80, octets=REQUEST, **addresses)
        )

    def captures(self) -> list[Capture]:
        for node in self.nodes:
            wrpcap(str(self.folder / f"{node}.pcap"), self.seen.get(node, []), linktype=1)
        return [Capture(node, MAC[node], self.folder / f"{node}.pcap") for node in self.nodes]

    def _ip(self, source: str, destination: str) -> Any:
        if self.ipv6:
            return IPv6(src=f"fd00::{source.split('.')[-1]}", dst=f"fd00::{destination.split('.')[-1]}")
        return IP(src=source, dst=destination)


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    return Segment(tmp_path)


def hand_off(segment: Segment) -> None:
    """One connection of the design's first figure, from SYN to the acknowledged response."""
    answered = IRS + 1 + len(REQUEST)
    segment.from_client(("client", "fe"), "S", IRS, options=SYN_OPTIONS)
    segment.from_vip(("fe", "client"), "SA", ISS, IRS + 1, options=SYN_OPTIONS)
    segment.from_client(("client", "fe"), "A", IRS + 1, ISS + 1)
    segment.from_client(("client", "fe"), "PA", IRS + 1, ISS + 1, octets=REQUEST)
    segment.adopt("fe", "be1")
    segment.message("be1", "fe", HandoffMessage(type=6))
    segment.message("be1", "fe", b"no message at all")
    segment.from_vip(("be1", "client"), "PA", ISS + 1, answered, octets=RESPONSE)
    segment.from_client(("client", "fe"), "A", answered, ISS + 1 + len(RESPONSE))
    segment.from_client(("fe", "be1"), "A", answered, ISS + 1 + len(RESPONSE))


def row(picture: str, text: str) -> str:
    """The only line that contains `text`."""
    lines = [line for line in picture.splitlines() if text in line]
    assert len(lines) == 1, picture
    return lines[0]


def columns(picture: str) -> dict[str, int]:
    """Where each node's line of life stands, by the foot of the picture, left to right as the head names them."""
    lines = picture.splitlines()
    places = [place for place, mark in enumerate(lines[-1]) if mark == "│"]
    return dict(zip(lines[0].split()[1:], places, strict=True))


def test_handoff_captured_everywhere_draws_each_packet_once_in_order(segment: Segment) -> None:
    hand_off(segment)
    picture = draw(segment.captures())
    labels = ["SYN seq 0 ", "SYN ACK seq 0 ack 1", "─ ACK seq 1 ack 1 ", "PSH ACK seq 1 ack 1 len 34", "HANDOFF"]
    labels += ["PSH ACK seq 1 ack 35 len 42"]
    at = [picture.splitlines().index(row(picture, label)) for label in labels]
    assert at == sorted(at)
    assert picture.count(" ACK seq 35 ack 43") == 2
    assert sum("▶" in line or "◀" in line for line in picture.splitlines()) == 8


def test_handoff_captured_everywhere_draws_arrows_from_sender_to_receiver(segment: Segment) -> None:
    hand_off(segment)
    picture = draw(segment.captures())
    place = columns(picture)
    assert list(place) == ["client", "fe", "be1"]

    syn_ack = row(picture, "SYN ACK")
    assert (syn_ack[place["fe"]], syn_ack[place["client"] + 1], syn_ack[place["be1"]]) == ("┤", "◀", "│")
    message = row(picture, "HANDOFF")
    assert (message[place["fe"]], message[place["be1"] - 1], message[place["client"]]) == ("╞", "▶", "│")
    response = row(picture, "len 42")
    assert (response[place["be1"]], response[place["fe"]], response[place["client"] + 1]) == ("┤", "┼", "◀")
    to_fe, to_be = (line for line in picture.splitlines() if "ACK seq 35 ack 43" in line)
    assert to_fe[place["fe"] - 1] == "▶"
    assert to_be[place["fe"]] == "├"
    assert to_be[place["be1"] - 1] == "▶"


def test_handoff_message_shows_what_it_carries_without_repeating_the_addresses(segment: Segment) -> None:
    hand_off(segment)
    picture = draw(segment.captures())
    assert row(picture, "34 octets")
    assert CLIENT not in picture


def test_handoff_message_of_another_connection_is_not_drawn(segment: Segment) -> None:
    hand_off(segment)
    segment.adopt("fe", "be1", port=PORT + 1)
    assert draw(segment.captures()).count("HANDOFF") == 1


def test_handoff_captured_everywhere_counts_time_from_the_first_packet(segment: Segment) -> None:
    hand_off(segment)
    picture = draw(segment.captures())
    times_ms = [float(row(picture, label).split()[0]) for label in ("SYN seq 0 ", "HANDOFF", "len 42")]
    assert times_ms == pytest.approx([0, 4, 7], abs=0.01)


def test_syn_with_options_lists_them_beneath(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS, options=SYN_OPTIONS)
    assert "mss 1460, wscale 7, sack," in draw(segment.captures())
    assert "TSval 111" in draw(segment.captures())


def test_ack_with_sack_block_lists_it_relative_to_the_other_side(segment: Segment) -> None:
    hand_off(segment)
    segment.from_client(("client", "fe"), "A", IRS + 35, ISS + 1, options=[("SAck", (ISS + 11, ISS + 21))])
    assert "sack 11:21" in draw(segment.captures())


def test_first_segments_of_both_directions_show_their_first_line(segment: Segment) -> None:
    hand_off(segment)
    picture = draw(segment.captures())
    assert picture.count("GET /1k.html HTTP/1.1") == 1
    assert picture.count("HTTP/1.1 200 OK") == 1
    assert "Host:" not in picture


def test_octets_that_are_no_text_show_no_first_line(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS)
    segment.from_client(("client", "fe"), "PA", IRS + 1, ISS + 1, octets=b"\x16\x03\x01\x02")
    assert row(draw(segment.captures()), "len 4")
    assert "\x16" not in draw(segment.captures())


def test_short_segment_padded_by_ethernet_has_no_length(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS)
    segment.from_client(("client", "fe"), "A", IRS + 1, ISS + 1, octets=Padding(bytes(6)))
    assert "len" not in row(draw(segment.captures()), "ACK seq 1")


def test_second_segment_shows_no_first_line(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS)
    segment.from_client(("client", "fe"), "PA", IRS + 1, ISS + 1, octets=REQUEST[:10])
    segment.from_client(("client", "fe"), "PA", IRS + 11, ISS + 1, octets=REQUEST[10:])
    picture = draw(segment.captures())
    assert row(picture, f" {REQUEST[:10].decode()} ")
    assert REQUEST[10:20].decode() not in picture


def test_segment_after_the_handshake_does_not_repeat_its_timestamp(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS)
    segment.from_client(("client", "fe"), "A", IRS + 1, ISS + 1, options=[("Timestamp", (222, 333))])
    assert row(draw(segment.captures()), "ACK seq 1")
    assert "TSval" not in draw(segment.captures())


def test_keep_alive_probe_before_the_first_octet_counts_backwards(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "S", IRS)
    segment.from_client(("client", "fe"), "A", IRS - 1, ISS + 1)
    assert row(draw(segment.captures()), "ACK seq -1")


def test_ipv6_connection_is_drawn_alike(tmp_path: Path) -> None:
    segment = Segment(tmp_path, ipv6=True)
    hand_off(segment)
    picture = draw(segment.captures())
    assert row(picture, "PSH ACK seq 1 ack 35 len 42")
    assert row(picture, "HANDOFF")
    assert connections(read_frames(segment.captures())) == [
        Connection(ip_address("fd00::2"), PORT, ip_address("fd00::100"), 80)
    ]


def test_several_connections_only_the_chosen_one_is_drawn(segment: Segment) -> None:
    hand_off(segment)
    segment.sends("client", "fe", IP(src=CLIENT, dst=VIP) / TCP(sport=50000, dport=80, flags="S", seq=77))
    captures = segment.captures()
    first, second = connections(read_frames(captures))
    assert (first.client_port, second.client_port) == (PORT, 50000)
    assert "GET" in draw(captures)
    assert draw(captures, second).count("▶") == 1
    assert len(segments_of(read_frames(captures), second)) == 1


def test_node_that_took_no_part_has_no_column(tmp_path: Path) -> None:
    segment = Segment(tmp_path, nodes=("client", "fe", "be1", "be2"))
    hand_off(segment)
    assert list(columns(draw(segment.captures()))) == ["client", "fe", "be1"]


def test_run_of_like_segments_is_folded_with_its_octets(segment: Segment) -> None:
    hand_off(segment)
    for number in range(6):
        segment.from_vip(("be1", "client"), "A", ISS + 43 + 1000 * number, IRS + 35, octets=bytes(1000))
    picture = draw(segment.captures())
    assert picture.count("len 1000") == 2
    assert row(picture, "4 more like it, 4000 octets")


def test_run_of_four_is_drawn_whole(segment: Segment) -> None:
    hand_off(segment)
    for number in range(4):
        segment.from_vip(("be1", "client"), "A", ISS + 43 + 1000 * number, IRS + 35, octets=bytes(1000))
    picture = draw(segment.captures())
    assert picture.count("len 1000") == 4
    assert "more like it" not in picture


@pytest.mark.parametrize("width", [70, 100])
def test_four_columns_with_long_labels_stay_within_the_width(tmp_path: Path, width: int) -> None:
    segment = Segment(tmp_path, nodes=("client", "fe", "be1", "be2"))
    hand_off(segment)
    segment.adopt("be1", "be2")
    segment.from_vip(("be2", "client"), "PA", ISS + 10_000_000, IRS + 35, octets=bytes(1400))
    picture = draw(segment.captures(), width=width)
    assert max(len(line) for line in picture.splitlines()) <= width
    place = columns(picture)
    assert list(place) == ["client", "fe", "be1", "be2"]
    # No text lies on a line of life: every row has a stroke at each of the places.
    for line in picture.splitlines()[1:]:
        assert {line[at : at + 1] for at in place.values()} <= set("│├┤┼╞╡╪"), line


def test_frame_to_an_unknown_mac_is_counted_not_drawn(segment: Segment) -> None:
    hand_off(segment)
    segment.from_vip(("be1", "02:99:99:99:99:99"), "A", ISS + 43, IRS + 35)
    picture = draw(segment.captures())
    assert picture.splitlines()[-1].startswith("1 frames to a MAC")
    assert "seq 43" not in picture


def test_capture_without_syn_is_refused(segment: Segment) -> None:
    segment.from_client(("client", "fe"), "A", IRS + 1, ISS + 1)
    with pytest.raises(ValueError, match="no SYN"):
        draw(segment.captures())


def test_absent_connection_is_refused(segment: Segment) -> None:
    hand_off(segment)
    absent = Connection(ip_address(CLIENT), 1, ip_address(VIP), 80)
    with pytest.raises(ValueError, match="nothing of"):
        draw(segment.captures(), absent)
