"""One connection as a time/sequence ladder of text, drawn from captures taken at every node on one clock.

Each packet is drawn once, from the capture of the node that sent it: the one whose own address is the frame's source
MAC. So the picture shows what was put on the segment, by whom and where to; a response that goes from a back end
straight to the client is one arrow across the front end's line. Sequence numbers are relative to the SYN of each side,
times to the first packet.

Knows TCP and UDP through scapy and the handoff messages through `tcpha.proto.dissect`. It must not know how captures
are taken, nor anything of the processes it looks at. The figures of RFC 9293, section 3.5, are the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from textwrap import wrap
from typing import Any, TypeAlias

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from tcpha.lab.configuration import HANDOFF_PORT
from tcpha.proto import dissect

Address: TypeAlias = IPv4Address | IPv6Address

_FLAGS = (("S", "SYN"), ("F", "FIN"), ("R", "RST"), ("P", "PSH"), ("A", "ACK"))
# A run of like segments is drawn as its first, its last, and a line that counts the rest.
_LONGEST_RUN = 4
_TIME_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class Capture:
    """What one node saw. `mac` is the node's own address, the way frames write it: six hexadecimal pairs and colons."""

    node: str
    mac: str
    file: Path


@dataclass(frozen=True, slots=True)
class Connection:
    """The two ends of a connection, the client's first."""

    client: Address
    client_port: int
    vip: Address
    vip_port: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame at the node that sent it. `receiver` is None if no node of the captures owns the destination MAC."""

    time_s: float
    sender: str
    receiver: str | None
    packet: Any


@dataclass(frozen=True, slots=True)
class Arrow:
    """One line of the ladder: `label` stands in the arrow, `notes` beneath it; arrows alike in `run` may be folded."""

    time_s: float
    sender: str
    receiver: str
    label: str
    notes: tuple[str, ...] = ()
    is_handoff: bool = False
    run: str = ""
    payload_octets: int = 0


def draw(captures: Sequence[Capture], connection: Connection | None = None, *, width: int = 100) -> str:
    """Draws one connection, by default the first whose SYN was captured; columns stand in the order of `captures`.

    `width` is in characters (60 and more are readable). The result has no trailing newline.
    Raises: ValueError if there is no such connection in the captures.
    """
    frames = read_frames(captures)
    chosen = connection or next(iter(connections(frames)), None)
    if chosen is None:
        raise ValueError("no SYN in these captures")
    arrows = list(_arrows(frames, chosen))
    if not arrows:
        raise ValueError(f"nothing of {chosen.client} port {chosen.client_port} in these captures")
    taking_part = {node for arrow in arrows for node in (arrow.sender, arrow.receiver)}
    nodes = [capture.node for capture in captures if capture.node in taking_part]
    lines = list(_Paper(nodes, width).lines(_with_runs_folded(arrows)))
    astray = sum(frame.receiver is None for frame in segments_of(frames, chosen))
    if astray:
        lines.append(f"{astray} frames to a MAC that is none of these nodes' are not shown")
    return "\n".join(lines)


def read_frames(captures: Sequence[Capture]) -> list[Frame]:
    """Reads and merges captures in the order of time, keeping every frame once, at its sender.

    Raises: OSError for a file that cannot be read.
    """
    node_of = {capture.mac.lower(): capture.node for capture in captures}
    frames = [
        Frame(float(packet.time), capture.node, node_of.get(packet[Ether].dst.lower()), packet)
        for capture in captures
        for packet in rdpcap(str(capture.file))
        if Ether in packet and packet[Ether].src.lower() == capture.mac.lower()
    ]
    return sorted(frames, key=lambda frame: frame.time_s)


def connections(frames: Sequence[Frame]) -> list[Connection]:
    """Every connection whose SYN is among the frames, in the order of their first SYNs."""
    found: dict[Connection, None] = {}
    for frame in frames:
        if TCP in frame.packet and frame.packet[TCP].flags & 0x12 == 0x02:
            found.setdefault(Connection(*_source(frame.packet), *_destination(frame.packet)))
    return list(found)


def segments_of(frames: Sequence[Frame], connection: Connection) -> list[Frame]:
    """The frames that carry segments of a connection, each hop of each segment, in the order of time."""
    return [frame for frame in frames if _is_of(frame.packet, connection)]


def is_from_client(frame: Frame, connection: Connection) -> bool:
    """Direction of a frame of `segments_of`."""
    return _source(frame.packet) == (connection.client, connection.client_port)


def payload_of(frame: Frame) -> bytes:
    """A segment's octets without Ethernet padding: as many as the IP header promises."""
    network, tcp = _network(frame.packet), frame.packet[TCP]
    above_network_octets = network.plen if IPv6 in frame.packet else network.len - 4 * network.ihl
    octets = above_network_octets - 4 * tcp.dataofs
    whole = bytes(tcp.payload)
    # A capture of a segment over 64 KB carries no length: the kernel had not cut it up yet.
    return whole[:octets] if octets >= 0 else whole


def carries_fin(frame: Frame) -> bool:
    """Whether a segment ends its direction."""
    return bool(frame.packet[TCP].flags.F)


def _network(packet: Any) -> Any:
    return packet[IPv6] if IPv6 in packet else packet[IP]


def _source(packet: Any) -> tuple[Address, int]:
    return ip_address(_network(packet).src), packet[TCP].sport


def _destination(packet: Any) -> tuple[Address, int]:
    return ip_address(_network(packet).dst), packet[TCP].dport


def _is_of(packet: Any, connection: Connection) -> bool:
    if TCP not in packet:
        return False
    ends = {_source(packet), _destination(packet)}
    return ends == {(connection.client, connection.client_port), (connection.vip, connection.vip_port)}


def _arrows(frames: Sequence[Frame], connection: Connection) -> Iterator[Arrow]:
    """The connection's segments, and the handoff messages from its first segment on."""
    first_of: dict[bool, int] = {}
    start_s: float | None = None
    for frame in frames:
        if frame.receiver is None:
            continue
        if _is_of(frame.packet, connection):
            start_s = frame.time_s if start_s is None else start_s
            from_client = is_from_client(frame, connection)
            first_of.setdefault(from_client, frame.packet[TCP].seq)
            if frame.packet[TCP].flags.A:
                # A capture that begins in the middle: count the other side from what is acknowledged.
                first_of.setdefault(not from_client, frame.packet[TCP].ack)
            arrow = _segment(frame, frame.receiver, first_of[from_client], first_of.get(not from_client, 0))
            yield replace(arrow, time_s=frame.time_s - start_s)
        elif start_s is not None and (text := _handoff_text(frame.packet, connection)):
            label, _, rest = text.partition(" ")
            notes = (rest,) if rest else ()
            yield Arrow(frame.time_s - start_s, frame.sender, frame.receiver, label, notes, is_handoff=True)


def _handoff_text(packet: Any, connection: Connection) -> str:
    """What a handoff message says of the connection, without its addresses; empty if it does not name it."""
    if UDP not in packet or HANDOFF_PORT not in (packet[UDP].sport, packet[UDP].dport):
        return ""
    words = dissect.summary(bytes(packet[UDP].payload)).split(" ")
    client, vip = _end_text(connection.client, connection.client_port), _end_text(connection.vip, connection.vip_port)
    return " ".join(word for word in words if word not in (client, ">", vip)) if client in words else ""


def _end_text(address: Address, port: int) -> str:
    """An end of a connection the way summaries write it."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _segment(frame: Frame, receiver: str, first_seq: int, first_ack: int) -> Arrow:
    tcp = frame.packet[TCP]
    payload = payload_of(frame)
    flags = " ".join(name for letter, name in _FLAGS if letter in str(tcp.flags)) or "no flags"
    seq = _relative(tcp.seq, first_seq)
    label = f"{flags} seq {seq}"
    if tcp.flags.A:
        label += f" ack {_relative(tcp.ack, first_ack)}"
    if payload:
        label += f" len {len(payload)}"
    run = f"{flags} {bool(payload)}" if flags in ("ACK", "PSH ACK") else ""
    notes = tuple(filter(None, (_options_text(tcp, first_ack), _first_line(payload) if seq == 1 else "")))
    return Arrow(0.0, frame.sender, receiver, label, notes, run=run, payload_octets=len(payload))


def _relative(number: int, first: int) -> int:
    """Distance modulo 2^32 (RFC 9293, 3.4), below zero for what lies before `first`, as a keep-alive probe may."""
    return (number - first + (1 << 31)) % (1 << 32) - (1 << 31)


def _options_text(tcp: Any, first_ack: int) -> str:
    """What a SYN offers, and any SACK blocks; other options would only repeat themselves on every line."""
    options = dict(tcp.options)
    said: list[str] = []
    if tcp.flags.S:
        if "MSS" in options:
            said.append(f"mss {options['MSS']}")
        if "WScale" in options:
            said.append(f"wscale {options['WScale']}")
        if "SAckOK" in options:
            said.append("sack")
        if "Timestamp" in options:
            said.append(f"TSval {options['Timestamp'][0]}")
    edges = [_relative(edge, first_ack) for edge in options.get("SAck", ())]
    said.extend(f"sack {left}:{right}" for left, right in zip(edges[::2], edges[1::2], strict=False))
    return ", ".join(said)


def _first_line(payload: bytes) -> str:
    line = payload.split(b"\r\n", 1)[0][:60].decode("latin-1")
    return line if line.isascii() and line.isprintable() else ""


def _with_runs_folded(arrows: Sequence[Arrow]) -> Iterator[Arrow | str]:
    """Long runs of like segments in one direction become first, a sentence, last."""
    at = 0
    while at < len(arrows):
        end = at + 1
        while end < len(arrows) and arrows[at].run and _likeness(arrows[end]) == _likeness(arrows[at]):
            end += 1
        if end - at <= _LONGEST_RUN:
            yield from arrows[at:end]
        else:
            between = arrows[at + 1 : end - 1]
            octets = sum(arrow.payload_octets for arrow in between)
            yield arrows[at]
            yield f"{len(between)} more like it" + (f", {octets} octets" if octets else "")
            yield arrows[end - 1]
        at = end


def _likeness(arrow: Arrow) -> tuple[str, str, str]:
    return arrow.sender, arrow.receiver, arrow.run


class _Paper:
    """Where lines of life stand, and how arrows between them are written."""

    def __init__(self, nodes: Sequence[str], width: int) -> None:
        left, right = _TIME_COLUMNS + 3, width - 4
        gaps = max(len(nodes) - 1, 1)
        self._width = width
        self._place = {node: left + (right - left) * index // gaps for index, node in enumerate(nodes)}
        self._places = list(self._place.values())

    def lines(self, rows: Iterator[Arrow | str]) -> Iterator[str]:
        """Every line of the picture, head to foot, none wider than the paper."""
        yield self._head()
        for row in rows:
            if isinstance(row, str):
                yield self._beneath("⋮", row, self._places[0], self._places[1])
            else:
                yield from self._arrow(row)
        yield self._finish(" " * _TIME_COLUMNS, self._canvas())

    def _head(self) -> str:
        canvas = [" "] * self._width
        for node, place in self._place.items():
            self._write(canvas, max(_TIME_COLUMNS, min(place - len(node) // 2, self._width - len(node))), node)
        return self._finish(f"{'ms':>{_TIME_COLUMNS - 1}}", canvas)

    def _canvas(self) -> list[str]:
        canvas = [" "] * self._width
        for place in self._places:
            canvas[place] = "│"
        return canvas

    def _arrow(self, arrow: Arrow) -> Iterator[str]:
        start, end = self._place[arrow.sender], self._place[arrow.receiver]
        step = 1 if end > start else -1
        # The text keeps to the gap beside the sender, so that it never covers another node's line.
        near = self._places[self._places.index(start) + step]
        room = abs(near - start) - 6
        first, *others = wrap(arrow.label, room) or [""]
        stroke, tail = ("═", "╞" if step > 0 else "╡") if arrow.is_handoff else ("─", "├" if step > 0 else "┤")
        canvas = self._canvas()
        for place in range(start + step, end, step):
            canvas[place] = ("╪" if stroke == "═" else "┼") if canvas[place] == "│" else stroke
        canvas[start] = tail
        canvas[end - step] = "▶" if step > 0 else "◀"
        if first:
            self._write(canvas, start + 2 if step > 0 else start - 3 - len(first), f" {first} ")
        yield self._finish(f"{arrow.time_s * 1000:{_TIME_COLUMNS - 1}.3f}", canvas)
        for note in (*others, *(piece for text in arrow.notes for piece in wrap(text, room))):
            yield self._beneath("", note, start, near)

    def _beneath(self, mark: str, text: str, start: int, near: int) -> str:
        canvas = self._canvas()
        self._write(canvas, start + 3 if near > start else start - 2 - len(text), text)
        return self._finish(f"{mark:>{_TIME_COLUMNS - 4}}", canvas)

    @staticmethod
    def _write(canvas: list[str], place: int, text: str) -> None:
        canvas[place : place + len(text)] = text

    @staticmethod
    def _finish(margin: str, canvas: list[str]) -> str:
        return (margin + "".join(canvas[len(margin) :])).rstrip()
