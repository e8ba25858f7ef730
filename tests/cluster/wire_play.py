"""Plays scripts: many connections of one client at once, each to a server of its own choice.

Whoever plays a script for the first time finds out where its server falls silent. A later performance waits for as many
replies and then for the same silence, so that a slower server is not cut short. What a server repeats by itself is
heard once: when it does so is a matter of its estimate of the round trip. Afterwards the client resets what is left.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import IP, TCP, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tcpha.lab.node import Node
from tests.cluster.conversation import Family
from tests.cluster.wire_client import ADDRESSES, Heard, WireClient
from tests.cluster.wire_script import QUIET_S, STAMP, Listens, Number, Point, Script, Sends
from tests.cluster.wire_transcript import MASK, NEAR, Numbering, Reply, acknowledged_by, describe, distance, settled

IRS = 0xFFFFFFF0
"""The client's initial sequence number: it wraps inside the first request."""
STRANGER_ISS = 0x5000_0000
"""Takes the place of the server's number while it has told none."""
TSVAL, TSVAL_STEP = 0xFFFF_FFD0, 10
"""The client's clock, and how it moves from one segment to the next: it wraps as well."""
PATIENCE_S = 0.6
"""How long a reply that is expected may take."""
REPLIES_LIMIT_S = 8.0
PORT = 80
_ports = itertools.count(random.randrange(20_000, 30_000))
"""Another start each time: what an earlier run left half open does not answer this one."""


@dataclass(frozen=True, slots=True)
class Server:
    """Whom a script is played to: an address, and the node that takes its packets."""

    address: str
    node: Node


class Stream:
    """The numbers of one direction: what is behind everything that came without a gap."""

    def __init__(self, start: int) -> None:
        self.following = start
        self._octets: dict[int, bytes] = {}
        """Pieces by their number, the same octets perhaps in several."""

    def add(self, start: int, octets: bytes) -> bool | None:
        """Take in a piece; None if all of it is new or in part, else whether it repeats what was there.

        SYN and FIN count as octets of any value.
        """
        end = (start + len(octets)) & MASK
        repeated = distance(end, self.following) <= 0
        if repeated:
            return all(_agree(start, octets, *piece) for piece in self._octets.items())
        self._octets[start] = octets
        while grown := [self._end(each) for each in self._octets if self._continues(each)]:
            self.following = grown[0]
        return None

    def _end(self, start: int) -> int:
        return (start + len(self._octets[start])) & MASK

    def _continues(self, start: int) -> bool:
        return distance(start, self.following) <= 0 < distance(self._end(start), self.following)


def _agree(start: int, octets: bytes, known_start: int, known: bytes) -> bool:
    """Whether two pieces hold the same octets where they overlap."""
    offset = distance(start, known_start)
    left, right = octets[max(0, -offset) :], known[max(0, offset) :]
    length = min(len(left), len(right))
    return left[:length] == right[:length]


class Performance:
    """One script, played once."""

    def __init__(
        self,
        client: WireClient,
        script: Script,
        family: Family,
        server: Server,
        model: Performance | None = None,
        slowness: float = 1.0,
    ) -> None:
        """`model`: the first performance of the script, None if this is it; `slowness` prolongs pauses."""
        self.script = script
        self.family = family
        self.server = server
        self.port = next(_ports)
        self.transcript: list[list[Reply]] = []
        """What was heard, settled, by listening."""
        self.counts: list[int] = []
        """How many replies that were, by listening."""
        self.repetitions: list[Reply] = []
        """What the server repeated by itself."""
        self._acknowledged = 1
        self._client = client
        self._model = model
        self._slowness = slowness
        self._steps = iter(script.steps)
        self._numbering = Numbering(IRS, STRANGER_ISS)
        self._sent, self._received = Stream(IRS), Stream(STRANGER_ISS)
        self._awaits_iss, self._is_connected, self._stamps = True, False, False
        self._listening: Listens | None = None
        self._heard: list[Reply] = []
        self._since = self._last = 0.0

    @property
    def is_over(self) -> bool:
        return self._listening is None

    def begin(self) -> None:
        """Send what comes before the first LISTEN."""
        self._go_on(time.monotonic())

    def on_time(self, now: float) -> float:
        """Go on if it is time; return when to ask again."""
        while self._listening is not None and now >= self._due(self._listening):
            self.transcript.append(settled(self._heard, self._acknowledged))
            self.counts.append(len(self._heard))
            self._acknowledged = max(self._acknowledged, acknowledged_by(self._heard))
            self._go_on(now)
        return now if self._listening is None else self._due(self._listening)

    def _due(self, listening: Listens) -> float:
        if listening.replies is not None:
            return self._last if len(self._heard) >= listening.replies else self._since + REPLIES_LIMIT_S
        silent = self._last + (listening.quiet_s or QUIET_S * self._slowness)
        if self._model is None or len(self._heard) >= self._model.counts[len(self.counts)]:
            return silent
        return max(silent, self._since + PATIENCE_S * self._slowness)

    # --- out

    def _go_on(self, now: float) -> None:
        frames: list[bytes] = []
        self._listening = None
        for step in self._steps:
            if isinstance(step, Listens):
                self._listening = step
                break
            frames += self._frames(step)
        if self._listening is None and self._is_connected:
            frames += self._frames(Sends("RA"))
        self._heard = []
        self._since = self._last = now
        self._numbering.tsval_before = self._numbering.tsval_heard
        self._client.send(*frames)

    def _frames(self, step: Sends) -> list[bytes]:
        numbering = self._numbering
        if "S" in step.flags:
            numbering.mss = dict(step.options or ()).get("MSS", numbering.mss)
        if step.isn_offset is not None:
            numbering.irs, numbering.tsval_heard = (IRS + step.isn_offset) & MASK, None
            self._acknowledged = 1
            self._sent, self._awaits_iss = Stream(numbering.irs), True
        tcp = TCP(
            sport=self.port,
            dport=PORT,
            flags=step.flags,
            seq=self._absolute(step.seq, numbering.irs),
            ack=self._absolute(step.ack, numbering.iss) if "A" in step.flags else 0,
            window=step.window,
            options=self._options(step),
            **step.tcp,
        )
        if step.raw_options:
            tcp.dataofs = 5 + len(step.raw_options) // 4
        addresses = {"src": ADDRESSES[self.family], "dst": self.server.address}
        packet: Any = (IP if self.family == "ipv4" else IPv6)(**addresses, **step.ip)
        for layer in (*step.extensions, tcp, Raw(step.raw_options + step.payload)):
            packet /= layer
        if step.counts:
            _add(self._sent, tcp, step.payload)
        packets = [packet] if step.fragment_octets is None else fragment(packet, step.fragment_octets)
        return [self._client.frame(each, self.server.node) for each in packets]

    def _options(self, step: Sends) -> list[tuple[str | int, Any]]:
        chosen = step.options
        if chosen is None:
            chosen = (("NOP", None), ("NOP", None), STAMP) if self._stamps else ()
        tsvals = self._numbering.tsvals
        tsvals.append((TSVAL + TSVAL_STEP * len(tsvals)) & MASK)
        stamp = tsvals[-1], self._numbering.tsval_heard or 0
        options: list[tuple[str | int, Any]] = [(each[0], stamp if each == STAMP else each[1]) for each in chosen]
        if step.sack:
            edges = [self._absolute(edge, self._numbering.iss) for block in step.sack for edge in block]
            options += [("NOP", None), ("NOP", None), ("SAck", tuple(edges))]
        return options

    def _absolute(self, number: Number, base: int) -> int:
        if isinstance(number, Point):
            base = (self._sent if number.side == "sent" else self._received).following
            number = number.offset
        return (base + number) & MASK

    # --- in

    def hear(self, heard: Heard) -> None:
        """Take in a packet for this performance's port."""
        repeats = None
        tcp: Any = heard.packet.getlayer(TCP)
        if tcp is not None and tcp.flags.S and tcp.flags.A:
            self._learn_promise(tcp)
        reply = describe(heard.octets, self._numbering)
        if tcp is not None and not tcp.flags.R and abs(distance(tcp.seq, self._received.following)) < NEAR:
            if "Timestamp" in (options := dict(tcp.options)):
                self._numbering.tsval_heard = options["Timestamp"][0]
            repeats = _add(self._received, tcp, bytes(tcp.payload))
        self._last = heard.at
        if repeats is not None and not tcp.flags.S:
            reply["repeats"] = "the same octets" if repeats else "other octets"
            self.repetitions.append(reply)
            if repeats and not (self._listening is not None and self._listening.replies is not None):
                return
        self._heard.append(reply)

    def _learn_promise(self, syn_ack: Any) -> None:
        numbering = self._numbering
        if self._awaits_iss and syn_ack.ack == (numbering.irs + 1) & MASK:
            self._awaits_iss, self._is_connected = False, True
            numbering.iss = syn_ack.seq
            self._received = Stream(syn_ack.seq)
            options = dict(syn_ack.options)
            numbering.server_scale = options.get("WScale", 0)
            self._stamps = "Timestamp" in options


def _add(stream: Stream, tcp: Any, payload: bytes) -> bool | None:
    """Take a segment's octets into a stream, SYN and FIN counted; None for a segment that has none."""
    octets = b"S" * bool(tcp.flags.S) + payload + b"F" * bool(tcp.flags.F)
    return stream.add(tcp.seq, octets) if octets else None


def play(client: WireClient, performances: Sequence[Performance], at_once: int = 32) -> None:
    """Play all to the end, so many at a time."""
    coming = list(reversed(performances))
    playing: dict[tuple[str, int], Performance] = {}
    due = 0.0
    while coming or playing:
        heard = client.hear(due - time.monotonic())
        now = heard[-1].at if heard else time.monotonic()
        for each in heard:
            performance = playing.get(_concerning(each))
            if performance is not None:
                performance.hear(each)
        # Silence is what was listened to: up to here everything that came has been heard.
        due = min((each.on_time(now) for each in playing.values()), default=now)
        playing = {key: each for key, each in playing.items() if not each.is_over}
        if coming and len(playing) < at_once:
            beginning = coming.pop()
            beginning.begin()
            playing[beginning.server.address, beginning.port] = beginning
            due = now


def _concerning(heard: Heard) -> tuple[str, int]:
    """The server and the client's port that a packet concerns."""
    packet = heard.packet
    if TCP in packet:
        return packet.src, packet[TCP].dport
    complained = bytes(packet.payload)[8:]  # an ICMP error holds the packet it is about (RFC 792, RFC 4443)
    if len(complained) < 60:
        return packet.src, 0
    header = 4 * (complained[0] & 15) if complained[0] >> 4 == 4 else 40
    return packet.src, int.from_bytes(complained[header : header + 2], "big")
