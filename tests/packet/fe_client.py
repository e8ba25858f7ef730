"""A client as the front end's tests need it: its segments are built by scapy, what it gets is dissected by scapy.

Offsets are what tests think in: `at` counts the client's octets from its first one, `acks` those it acknowledges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import SeqNum

MASK = 0xFFFFFFFF
CLIENT = {4: "192.0.2.10", 6: "2001:db8:c::a"}
ROUTER = {4: "192.0.2.1", 6: "2001:db8:c::1"}
VIP = {4: "198.18.0.36", 6: "2001:db8:0:1::24"}
LINUX_SYN: list[Any] = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5000, 0)), ("NOP", None), ("WScale", 7)]
PLAIN_SYN: list[Any] = [("MSS", 1460)]
GET = b"GET /index.html HTTP/1.1\r\nHost: www\r\n\r\n"
GET_JPG = b"GET /a.jpg HTTP/1.1\r\nHost: www\r\n\r\n"
POST = b"POST /form HTTP/1.1\r\nHost: www\r\nContent-Length: 3\r\n\r\nabc"


def dissect(packet: bytes) -> Any:
    """What scapy reads in a packet; both checksums and the lengths must be those that scapy would write."""
    read = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    again = read.copy()
    if packet[0] >> 4 == 4:
        del again.chksum
        del again.len
    else:
        del again.plen
    del again[TCP].chksum
    del again[TCP].dataofs
    assert bytes(again) == packet, f"scapy writes {read.summary()} otherwise"
    return read


def tcp_options(segment: Any) -> dict[str, Any]:
    return {name: value for name, value in segment[TCP].options if name != "NOP"}


@dataclass
class Client:
    """One connection of a client."""

    family: int = 4
    port: int = 40000
    irs: int = 1000
    offers: list[Any] = field(default_factory=lambda: list(LINUX_SYN))
    window: int = 502
    iss: int = 0
    stamps: bool = False
    """Were timestamps agreed on?"""
    tsval: int = 5001
    tsecr: int = 0
    octets: bytearray = field(default_factory=bytearray)
    """What the virtual server sent, put together."""

    @property
    def key(self) -> ConnectionKey:
        def packed(text: str) -> bytes:
            return (IPv4Address(text) if self.family == 4 else IPv6Address(text)).packed

        ports = self.port.to_bytes(2, "big") + (80).to_bytes(2, "big")
        return ConnectionKey(packed(CLIENT[self.family]) + packed(VIP[self.family]) + ports)

    @property
    def identity(self) -> Identity:
        return Identity(self.key, SeqNum(self.irs), SeqNum(self.iss))

    # --- what it sends

    def packet(self, payload: bytes = b"", **tcp: Any) -> bytes:
        """Any segment on its ports."""
        source, destination = CLIENT[self.family], VIP[self.family]
        ip = IP(src=source, dst=destination) if self.family == 4 else IPv6(src=source, dst=destination)
        fields = {"sport": self.port, "dport": 80, "window": self.window, "seq": 0, "ack": 0, "flags": "A"}
        return bytes(ip / TCP(**(fields | tcp)) / payload)

    def syn(self, payload: bytes = b"", **tcp: Any) -> bytes:
        return self.packet(payload, **({"seq": self.irs, "flags": "S", "options": self.offers} | tcp))

    def sends(self, payload: bytes = b"", at: int = 0, acks: int = 0, flags: str = "PA", **tcp: Any) -> bytes:
        """A segment of the connection; its octets begin `at` octets behind the first."""
        numbers = {"seq": (self.irs + 1 + at) & MASK, "ack": (self.iss + 1 + acks) & MASK, "flags": flags}
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (self.tsval, self.tsecr))]
        return self.packet(payload, **(numbers | ({"options": stamps} if self.stamps else {}) | tcp))

    def ack(self, at: int = 0, acks: int = 0, **tcp: Any) -> bytes:
        return self.sends(b"", at, acks, **({"flags": "A"} | tcp))

    def fin(self, at: int = 0, acks: int = 0, payload: bytes = b"") -> bytes:
        return self.sends(payload, at, acks, "FA")

    def rst(self, at: int = 0, acks: int = 0, flags: str = "R") -> bytes:
        return self.sends(b"", at, acks, flags, options=[], **({"ack": 0} if flags == "R" else {}))

    def probe(self, payload: bytes = b"") -> bytes:
        """A keep-alive probe: one octet before what is expected (RFC 9293, 3.8.4)."""
        return self.ack(-1) if not payload else self.sends(payload, -1, flags="A")

    def icmp_error(self, acks: int = 0, mtu_octets: int = 1400) -> bytes:
        """What a router tells the virtual address of a packet to the client that was too big."""
        source, destination, router = VIP[self.family], CLIENT[self.family], ROUTER[self.family]
        quoted = TCP(sport=80, dport=self.port, seq=(self.iss + 1 + acks) & MASK, flags="A")
        if self.family == 4:
            icmp = ICMP(type=3, code=4, nexthopmtu=mtu_octets)
            return bytes(IP(src=router, dst=source) / icmp / bytes(IP(src=source, dst=destination) / quoted))
        too_big = ICMPv6PacketTooBig(mtu=mtu_octets)
        return bytes(IPv6(src=router, dst=source) / too_big / bytes(IPv6(src=source, dst=destination) / quoted))

    # --- what it gets

    def hears(self, packet: bytes) -> Any:
        """Take in a packet from the virtual server: the handshake's numbers, or octets."""
        got = dissect(packet)
        tcp = got[TCP]
        assert (got.src, got.dst) == (VIP[self.family], CLIENT[self.family])
        assert (tcp.sport, tcp.dport) == (80, self.port)
        options = tcp_options(got)
        if tcp.flags == "SA":
            if tcp.ack != (self.irs + 1) & MASK:
                return got  # the answer to a stranger's SYN
            self.iss, self.octets = tcp.seq, bytearray()
            self.stamps = "Timestamp" in options
        if "Timestamp" in options and not tcp.flags.R:
            self.tsecr = options["Timestamp"][0]
        payload = bytes(tcp.payload)
        offset = (tcp.seq - self.iss - 1) & MASK
        if payload and offset <= len(self.octets):
            self.octets[offset:] = payload
        return got
