"""A script for the back end's core: a stimulus goes in, the list of what it wants done comes out.

    book = Playbook(family)
    assert book.hands_off() == [inject(flags="S", seq=0)]
    assert book.syn_ack() == [inject(flags="PA", seq=1, ack=1, payload=REQUEST)]

Packets are built and dissected by scapy, which shares no code with the package; every packet that comes out must have
the right addresses and checksums. Numbers are relative, as in a textbook: SEG.SEQ and SEG.ACK count from the initial
sequence numbers that the receiver of the packet knows, timestamps from the clocks that it knows. So a translation is
right exactly if the numbers that leave are those that came. Time stands still unless the script moves it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tcpha.be.actions import (
    Action,
    Announce,
    ClearTuple,
    DeliverArriving,
    DeliverLeaving,
    Examine,
    Inject,
    LeaveToHost,
    Note,
    Send,
)
from tcpha.be.agent import Agent
from tcpha.be.confirmations import CONFIRM_DELAY_S
from tcpha.be.translator import translate_arriving, translate_icmp_error, translate_leaving
from tcpha.config import BackEndConfig, Endpoint, load_back_end
from tcpha.errors import WireError
from tcpha.proto.cookie import Agreement
from tcpha.proto.icmp import IcmpError, decode_icmp_error
from tcpha.proto.ip import ConnectionKey, IpAddress, connection_key
from tcpha.proto.messages import Flows, Handoff, Identity, Message
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, Segment, decode_segment

CONFIG = """\
raddr = 192.168.1.33
uaddr = 192.168.1.39
uaddr = 2001:db8::39
vaddr = 192.168.1.36
vaddr = 2001:db8::24
fe = 192.168.1.23 666
fe = 192.168.1.24 666
server = 192.168.1.33 666
rule = 192.168.1.33 .*
"""
QUIET = "probe_time = 600\n"
"""The probe asks once before the script begins, and not again."""

VIPS = {4: "192.168.1.36", 6: "2001:db8::24"}
CLIENTS = {4: "198.18.0.10", 6: "2001:db8:c::a"}
ROUTERS = {4: "198.18.0.1", 6: "2001:db8:c::1"}
PORT = 40000
MASK = 0xFFFFFFFF
# Everything wraps within the first segments.
IRS, ISS, SERVER_ISS = 0xFFFFFFF8, 0xFFFFFFFE, 0x7FFFFFF0
TSVAL_SENT, TSVAL_CLIENT, SERVER_TSVAL = 0xFFFFFFFF, 0xFFFFFFF0, 4242
NO_ROUND_TRIP = (0, -SERVER_TSVAL)
"""TSval and TSecr of a segment that echoes 0: nothing can be measured from that."""
UTC_S = 1_800_000_000.0
PERIOD = int(UTC_S) >> 5
REQUEST = b"GET /a.jpg HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = 1 + len(REQUEST)
"""The relative number behind the request."""

both_families = pytest.mark.parametrize("family", [4, 6])


@dataclass(frozen=True, eq=False)
class Event:
    """Something that happened, or, as expectation, the part of it that matters."""

    what: str
    fields: dict[str, object]

    def __eq__(self, expected: object) -> bool:
        missing = object()
        return (
            isinstance(expected, Event)
            and self.what == expected.what
            and all(self.fields.get(name, missing) == value for name, value in expected.fields.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self.fields.items() if name not in {"packet", "key"})
        return f"{self.what}({', '.join(shown)})"


def inject(**fields: object) -> Event:
    return Event("inject", fields)


def to_server(**fields: object) -> Event:
    return Event("to server", fields)


def to_client(**fields: object) -> Event:
    return Event("to client", fields)


def send(message: Message, **fields: object) -> Event:
    return Event("send", {"message": message, **fields})


def confirmed(*identities: Identity, **fields: object) -> Event:
    """A front end is told that connections are adopted."""
    return send(Flows(identities), **fields)


def clear(**fields: object) -> Event:
    return Event("clear", fields)


examine = Event("examine", {})
announce = Event("announce", {})


@lru_cache
def be_config(lines: str) -> BackEndConfig:
    """The configuration as the program loads it: CONFIG and further lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tcphabe.conf"
        path.write_text(CONFIG + lines)
        return load_back_end(path)


def ip_layer(family: int, source: str, destination: str) -> Any:
    return IP(src=source, dst=destination, flags="DF") if family == 4 else IPv6(src=source, dst=destination)


def stamps_option(tsval: int, tsecr: int) -> list[Any]:
    return [("NOP", None), ("NOP", None), ("Timestamp", (tsval & MASK, tsecr & MASK))]


def dissect(packet: bytes) -> Any:
    """Dissect a whole packet and verify its checksums: scapy builds it anew without them, and must get the same."""
    dissected = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    again = dissected.copy()
    del again[TCP].chksum
    if packet[0] >> 4 == 4:
        del again.chksum
    assert bytes(again) == packet, "checksums or lengths are wrong"
    return dissected


def relative(number: int, base: int) -> int:
    return ((number - base + 0x80000000) & MASK) - 0x80000000


class Playbook:
    """One agent, its clock, and what the host's diagnostics would answer (`holder`)."""

    def __init__(self, family: int = 4, lines: str = QUIET, stamps: bool = True) -> None:
        self.family = family
        self.stamps = stamps
        self.config = be_config(lines)
        self.agent = Agent(self.config)
        self.fe, self.other_fe = self.config.fe
        self.start = self.now = 1000.0
        self.server_iss = SERVER_ISS
        self.holder: str | None = None
        self.received_octets = 0
        """Which socket of the host holds the four-tuple: None, "embryonic" or "established"."""
        if lines.startswith(QUIET):
            self.tick()
            self.passes(0.5)
        self.start = self.now

    # --- values

    def key(self, port: int = PORT) -> ConnectionKey:
        client: IpAddress = ip_address(CLIENTS[self.family])
        return connection_key(client, port, ip_address(VIPS[self.family]), 80)

    def identity(self, port: int = PORT, irs: int = IRS, iss: int = ISS) -> Identity:
        return Identity(self.key(port), SeqNum(irs & MASK), SeqNum(iss & MASK))

    def handoff(self, **changes: Any) -> Handoff:
        """A HANDOFF as the front end would send it; `changes` says what differs."""
        usual = Handoff(
            self.identity(),
            Agreement(1460, 9, True),
            promised_window_scale=7,
            window=502,
            period=PERIOD & 0xFFFF,
            tsval_sent=TSVAL_SENT if self.stamps else None,
            tsval_client=TSVAL_CLIENT if self.stamps else 0,
            confirm=True,
            octets=REQUEST,
        )
        return replace(usual, **changes)

    # --- stimuli

    def hands_off(self, message: Handoff | None = None, age_s: float = 0.0, **changes: Any) -> list[Event]:
        return self.says(message or self.handoff(**changes), age_s=age_s)

    def says(self, message: Message, frontend: Endpoint | None = None, age_s: float = 0.0) -> list[Event]:
        """A message from a front end."""
        return self.perform(self.agent.on_message(frontend or self.fe, message, age_s, self.now))

    def arrives(self, flags: str = "A", **fields: Any) -> list[Event]:
        """A packet from the client; relative to what the client knows."""
        return self.receives(self.client_packet(flags, **fields))

    def leaves(self, flags: str = "A", **fields: Any) -> list[Event]:
        """A packet of the server's TCP; relative to what the server knows."""
        return self.emits(self.server_packet(flags, **fields))

    def receives(self, packet: bytes) -> list[Event]:
        segment = decode_segment(packet)
        return self.perform(self.agent.on_arriving(segment, self.now), segment)

    def errs(self, seq: int = 1, mtu_octets: int = 1400, port: int = PORT) -> list[Event]:
        """An ICMP error about a packet to the client that began at the server's octet `seq`, as the client counts."""
        error = decode_icmp_error(self.icmp_error(ISS + seq, mtu_octets, port))
        return self.perform(self.agent.on_icmp_error(error, self.now), error=error)

    def icmp_error(self, seq: int, mtu_octets: int = 1400, port: int = PORT) -> bytes:
        """What a router says; `seq` is absolute."""
        vip, client, router = VIPS[self.family], CLIENTS[self.family], ROUTERS[self.family]
        quoted = TCP(sport=80, dport=port, seq=seq & MASK, flags="A", chksum=0x1234)
        if self.family == 4:
            icmp = ICMP(type=3, code=4, nexthopmtu=mtu_octets)
            return bytes(IP(src=router, dst=vip) / icmp / bytes(IP(src=vip, dst=client) / quoted))
        too_big = ICMPv6PacketTooBig(mtu=mtu_octets)
        return bytes(IPv6(src=router, dst=vip) / too_big / bytes(IPv6(src=vip, dst=client) / quoted))

    def emits(self, packet: bytes) -> list[Event]:
        segment = decode_segment(packet)
        return self.perform(self.agent.on_leaving(segment, self.now), segment)

    def client_packet(
        self,
        flags: str,
        seq: int = NEXT,
        ack: int = 1,
        payload: bytes = b"",
        stamps: tuple[int, int] = (5, 3),
        port: int = PORT,
        **tcp: Any,
    ) -> bytes:
        if self.stamps:
            tcp.setdefault("options", stamps_option(TSVAL_CLIENT + stamps[0], TSVAL_SENT + stamps[1]))
        header = TCP(
            sport=port, dport=80, seq=(IRS + seq) & MASK, ack=(ISS + ack) & MASK if "A" in flags else 0, flags=flags,
            **{"window": 502, **tcp},
        )  # fmt: skip
        return bytes(ip_layer(self.family, CLIENTS[self.family], VIPS[self.family]) / header / payload)

    def server_packet(
        self,
        flags: str,
        seq: int = 1,
        ack: int = NEXT,
        payload: bytes = b"",
        stamps: tuple[int, int] = (3, 5),
        port: int = PORT,
        **tcp: Any,
    ) -> bytes:
        if self.stamps:
            tcp.setdefault("options", stamps_option(SERVER_TSVAL + stamps[0], TSVAL_CLIENT + stamps[1]))
        header = TCP(
            sport=80, dport=port, seq=(self.server_iss + seq) & MASK, ack=(IRS + ack) & MASK if "A" in flags else 0,
            flags=flags, **{"window": 509, **tcp},
        )  # fmt: skip
        return bytes(ip_layer(self.family, VIPS[self.family], CLIENTS[self.family]) / header / payload)

    def syn_ack_options(self, scale: int | None = 7, sack: bool = True) -> list[Any]:
        options: list[Any] = [("MSS", 1460)]
        options += [("SAckOK", b"")] if sack else []
        options += [("Timestamp", (SERVER_TSVAL, (TSVAL_CLIENT - 4) & MASK))] if self.stamps else []
        return options + ([] if scale is None else [("NOP", None), ("WScale", scale)])

    def one_syn_ack(self, **fields: Any) -> list[Event]:
        """A SYN-ACK of the server, relative to its ISS, with the usual options."""
        return self.leaves("SA", **{"seq": 0, "ack": 1, "options": self.syn_ack_options(), **fields})

    def syn_ack(self, **fields: Any) -> list[Event]:
        """The same, and once more if the SYN is thereupon played again."""
        events = self.one_syn_ack(**fields)
        return self.one_syn_ack(**fields) if events == [inject(flags="S")] else events

    # --- time

    def tick(self) -> list[Event]:
        return self.perform(self.agent.on_timer(self.now))

    def passes(self, seconds: float) -> list[Event]:
        """Time passes, and the core is woken whenever it wants to be."""
        end = self.now + seconds
        events: list[Event] = []
        for _ in range(10_000):
            if self.agent.next_deadline() > end:
                self.now = end
                self.agent.on_utc(self.utc(), self.now)
                return events
            self.now = max(self.now, self.agent.next_deadline())
            self.agent.on_utc(self.utc(), self.now)
            events += self.tick()
        raise AssertionError("the core wants to be woken for ever")

    def utc(self) -> float:
        return UTC_S + self.now - self.start

    # --- the way to a state

    def until_ack_sent(self, message: Handoff | None = None, **fields: Any) -> Playbook:
        self.hands_off(message)
        self.holder = "embryonic"
        self.syn_ack(**fields)
        return self

    def until_adopted(self, message: Handoff | None = None, **fields: Any) -> Playbook:
        """Adopted, and the front end knows."""
        self.until_ack_sent(message, **fields)
        self.holder = "established"
        self.leaves(ack=1 + len((message or self.handoff()).octets))
        self.passes(CONFIRM_DELAY_S)
        return self

    def until_finished(self) -> Playbook:
        """Both have closed: the client's FIN is NEXT, the server's 1."""
        self.until_adopted()
        self.arrives("FA")
        self.leaves("FA", ack=NEXT + 1)
        self.arrives(seq=NEXT + 1, ack=2)
        self.passes(0.1)
        return self

    # --- what comes out

    def perform(
        self, actions: Sequence[Action], segment: Segment | None = None, error: IcmpError | None = None
    ) -> list[Event]:
        """Do what the process would do: the packet's verdict first, then the rest, with what follows from it."""
        events: list[Event] = []
        for action in actions:
            if isinstance(action, DeliverArriving) and error is not None:
                packet = translate_icmp_error(action.translation, error)
                events.append(self._event("icmp error to server", {"packet": packet}))
                continue
            if isinstance(action, LeaveToHost):
                events.append(self._event("left to the host", {}))
            if isinstance(action, DeliverArriving | DeliverLeaving):
                assert segment is not None, "there is no packet to deliver"
                events.append(self._delivered(action, segment))
        for action in actions:
            match action:
                case Inject(packet):
                    events.append(self._event("inject", self.towards_server(packet)))
                    self.injected(packet)
                case Send(frontend, message):
                    events.append(self._event("send", {"to": frontend, "message": message}))
                case ClearTuple(key, embryonic):
                    events.append(self._event("clear", {"key": key, "embryonic": embryonic}))
                    destroyed = self.destroy(key, embryonic)
                    events += self.perform(self.agent.on_cleared(key, destroyed, self.now))
                case Examine(key):
                    events.append(self._event("examine", {"key": key}))
                    events += self.perform(self.agent.on_examined(key, self.received_at(key), self.now))
                case Announce():
                    events.append(self._event("announce", {}))
                case Note(text):
                    events.append(self._event("note", {"text": text}))
        return events

    def injected(self, packet: bytes) -> None:
        """The host's TCP gets a packet."""

    def destroy(self, key: ConnectionKey, embryonic: bool) -> bool:
        destroyed = self.holder == "established" or (self.holder == "embryonic" and embryonic)
        if destroyed:
            self.holder = None
        return destroyed

    def received_at(self, key: ConnectionKey) -> int | None:
        """What the socket has received; an embryo nothing."""
        if self.holder is None:
            return None
        return self.received_octets if self.holder == "established" else 0

    def _delivered(self, action: DeliverArriving | DeliverLeaving, segment: Segment) -> Event:
        try:
            if isinstance(action, DeliverLeaving):
                return self._event("to client", self.towards_client(translate_leaving(action.translation, segment)))
            return self._event("to server", self.towards_server(translate_arriving(action.translation, segment)))
        except WireError:
            return self._event("malformed", {})

    def _event(self, what: str, fields: dict[str, object]) -> Event:
        return Event(what, {"at": round(self.now - self.start, 4), **fields})

    def towards_server(self, packet: bytes) -> dict[str, object]:
        syn = not decode_segment(packet).flags & ACK
        return self._shown(packet, 80, IRS, 0 if syn else self.server_iss, TSVAL_CLIENT, 0 if syn else SERVER_TSVAL)

    def towards_client(self, packet: bytes) -> dict[str, object]:
        return self._shown(packet, None, ISS, IRS, TSVAL_SENT, TSVAL_CLIENT)

    def _shown(
        self, packet: bytes, dport: int | None, seq: int, ack: int, tsval: int, tsecr: int
    ) -> dict[str, object]:  # fmt: skip
        ip = dissect(packet)
        ends = (CLIENTS[self.family], VIPS[self.family]) if dport else (VIPS[self.family], CLIENTS[self.family])
        if ip.src not in (str(each) for each in self.config.uaddr):
            assert (ip.src, ip.dst) == ends
        tcp = ip[TCP]
        named = dict(tcp.options)
        stamps = named.get("Timestamp")
        return {
            "packet": packet,
            "port": tcp.sport if dport else tcp.dport,
            "flags": str(tcp.flags),
            "seq": relative(tcp.seq, seq),
            "ack": relative(tcp.ack, ack) if tcp.flags.A else tcp.ack,
            "window": tcp.window,
            "payload": bytes(tcp.payload),
            "stamps": None if stamps is None else (relative(stamps[0], tsval), relative(stamps[1], tsecr)),
            "mss": named.get("MSS"),
            "scale": named.get("WScale"),
            "sack": "SAckOK" in named,
            "options": [name for name, _ in tcp.options],
        }
