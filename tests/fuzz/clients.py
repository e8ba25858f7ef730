"""Clients whose streams are known: what octet stands at a number follows from the initial sequence number alone.

So a connection needs no memory of what it sent, two connections with the same numbers are the same one, and whoever
passes octets on can be checked: they must be those of their place. A client that lies sends others there, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tcpha.errors import OptionError
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import MASK, SeqNum, seq_add, seq_diff
from tcpha.proto.tcp import ACK, FIN, SYN, TCP_HEADER_OCTETS, Segment, encode_segment
from tests.fuzz.packets import key_of

# fmt: off
HEADS = (
    b"GET /index.html HTTP/1.1\r\nHost: www\r\n\r\n",
    b"GET /a.jpg HTTP/1.1\r\nHost: www\r\n\r\n",
    b"POST /form HTTP/1.1\r\nHost: www\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
    b"HEAD /none HTTP/1.1\r\nHost: www\r\n\r\n",
    b"GET /long HTTP/1.1\r\nHost: www\r\nCookie: " + b"c" * 200 + b"\r\n\r\n",
    b"GET /too/long HTTP/1.1\r\nHost: www\r\nCookie: " + b"c" * 3000 + b"\r\n\r\n",
    b"\r\nGET /x HTTP/1.1\r\nHost: www\r\n\r\n",
    b"\x16\x03\x01\x00\x45\x01\x00\x00\x41\x03\x01" + bytes(range(32))
    + b"\x00\x00\x0a\xc0\x14\xc0\x13\x00\x35\x00\x2f\x00\x0a\x01\x00\x00\x0e\x00\x00\x00\x0a\x00\x08\x00\x00\x05a.net",
    b"GET /half HTTP/1.1\r\nHost",
    b"\r\r\r\r",
    b"DELETE /x HTTP/1.1\r\nHost: www\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01a",
    b"SSH-2.0-client\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"PUT /a.jpg HTTP/1.1\r\nHost: www\r\nContent-Length: 9000\r\n\r\n",
)
# fmt: on
IRS_BASES = (0x00001000, 0xFFFFFF00, 0x7FFFFF00, 0xFFFFFA00)
"""The first numbers; some wrap soon."""
_STREAM_OCTETS = 1 << 16
_BODY = bytes((at * 7 + at // 251) & 0xFF for at in range(_STREAM_OCTETS))
# Whatever lies beyond begins anew, on either side: a place is told from its neighbours, not from one 65,536 further on.
_STREAMS = [2 * (head + _BODY)[:_STREAM_OCTETS] for head in HEADS]
LIE = bytes(octet ^ 0x5A for octet in range(256))

LINUX_SYN = encode_options(Options(1460, 7, sack_permitted=True, timestamps=(5000, 0)))
OFFERS = (
    LINUX_SYN,
    encode_options(Options(1460)),
    b"",
    encode_options(Options(88, 14, sack_permitted=False, timestamps=(0xFFFFFFFF, 0))),
    encode_options(Options(9000, 0, sack_permitted=True)),
    encode_options(Options(536, None, sack_permitted=True, timestamps=(0, 0))),
)


def irs_of(head: int, base: int, variant: int) -> SeqNum:
    """An initial sequence number that says what its stream begins with."""
    return SeqNum(IRS_BASES[base % len(IRS_BASES)] | (head % 16) << 4 | variant % 16)


def head_of(irs: int) -> bytes:
    return HEADS[irs >> 4 & 15]


def stream(irs: int, at: int, octets: int) -> bytes:
    """The octets of the connection from place `at` on; the first one, at IRS + 1, has place 0."""
    start = at % _STREAM_OCTETS
    return _STREAMS[irs >> 4 & 15][start : start + octets]


def is_of_stream(irs: int, at: int, octets: bytes) -> bool:
    """Are these the octets of that place, truthful or not?"""
    true = stream(irs, at, len(octets))
    if true == octets:
        return True
    return all(got in (octet, LIE[octet]) for got, octet in zip(octets, true, strict=True))


class Sent:
    """Which places of a stream were ever sent."""

    def __init__(self) -> None:
        self.edge = 0
        """Everything before this place was sent."""
        self.end = 0
        """Something before this place was sent, nothing behind it."""
        self._pieces: list[tuple[int, int]] = []

    def add(self, at: int, end: int) -> None:
        self.end = max(self.end, end)
        if end <= self.edge or at >= end:
            return
        self._pieces.append((at, end))
        for start, stop in sorted(self._pieces):
            if start <= self.edge:
                self.edge = max(self.edge, stop)
        self._pieces = [piece for piece in self._pieces if piece[1] > self.edge]


@dataclass(eq=False)
class Client:
    """One connection."""

    family: int
    port: int
    irs: SeqNum
    offers: bytes = LINUX_SYN
    iss: SeqNum = field(default=SeqNum(0))
    stamps: bool = False
    """Were timestamps agreed on?"""
    tsval: int = 5001
    tsecr: int = 0
    next: int = 0
    """Behind the furthest place that it has sent, FIN included."""
    heard: int = 0
    """How many octets of the server's it has got in order, FIN included."""
    key: ConnectionKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = key_of(self.family, self.port)

    @property
    def identity(self) -> Identity:
        return Identity(self.key, self.irs, self.iss)

    def syn(self, flags: int = SYN, payload: bytes = b"") -> bytes:
        return encode_segment(self.key, self.irs, SeqNum(0), flags, 64240, self.offers, payload)

    def segment(
        self, at: int, octets: int, flags: int, ack: SeqNum, options: bytes, window: int, lies: bool = False
    ) -> bytes:  # fmt: skip
        payload = stream(self.irs, at, octets)
        if lies:
            payload = payload.translate(LIE)
        end = at + octets + bool(flags & FIN)
        if at >= 0 and end < 1 << 20:
            self.next = max(self.next, end)
        seq = seq_add(self.irs, 1 + at)
        return encode_segment(self.key, seq, ack if flags & ACK else SeqNum(0), flags, window, options, payload)

    def timestamps(self, older: int = 0) -> bytes:
        """The option that fits, where it was agreed on."""
        if not self.stamps:
            return b""
        self.tsval = (self.tsval + (0 if older else 1)) & MASK
        return encode_timestamps((self.tsval - older) & MASK, self.tsecr)

    def hears(self, segment: Segment) -> None:
        """A segment from the virtual server."""
        try:
            stamps = segment.timestamps
        except OptionError:
            return
        if segment.flags & SYN:
            if segment.seg_ack != seq_add(self.irs, 1):
                return
            self.iss, self.heard = segment.seg_seq, 0
            self.stamps = stamps is not None
        if stamps is not None:
            self.tsecr = stamps[0]
        at = seq_diff(segment.seg_seq, seq_add(self.iss, 1))
        if 0 <= at <= self.heard:
            self.heard = max(self.heard, at + segment.payload_octets + bool(segment.flags & FIN))


def with_wrong_checksum(packet: bytes) -> bytes:
    """The packet as it is after an octet was damaged on its way."""
    at = (20 if packet[0] >> 4 == 4 else 40) + TCP_HEADER_OCTETS - 4
    return packet[:at] + bytes((packet[at] ^ 0x10,)) + packet[at + 1 :]
