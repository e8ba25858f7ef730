"""Scripts for a client that is no kernel, as data: what it sends, and where it stops to listen (after packetdrill).

    Script("request with its handshake's ACK", SYN, LISTEN, Sends("PA", payload=GET), LISTEN)

Numbers are relative: SEG.SEQ counts from the client's initial sequence number, SEG.ACK from the server's, so that a SYN
has the number 0 and the first octet of either side the number 1. `SENT` and `HEARD` stand for what is next: behind all
that was sent, or heard, without a gap. Steps between two LISTEN are sent together. Must not know who answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tests.cluster.conversation import FAMILIES, Family

Options = Sequence[tuple[str | int, Any]]
"""TCP options as scapy names them, or by number; the value of a Timestamp is put in when it is sent."""

QUIET_S = 0.15
"""A pause of this length ends what a server says: longer than a delayed acknowledgement, shorter than a repetition."""


@dataclass(frozen=True, slots=True)
class Point:
    """A number that is known only when the script is played."""

    side: Literal["sent", "heard"]
    offset: int = 0

    def __add__(self, offset: int) -> Self:
        return type(self)(self.side, self.offset + offset)

    def __sub__(self, offset: int) -> Self:
        return self + -offset


SENT = Point("sent")
"""Behind everything the client has sent without a gap: SND.NXT."""
HEARD = Point("heard")
"""Behind everything the client has heard without a gap: RCV.NXT."""
Number = int | Point

STAMP: tuple[str | int, Any] = ("Timestamp", None)
"""Timestamps, with the client's clock and the server's last."""
LINUX: Options = (("MSS", 1460), ("SAckOK", b""), STAMP, ("NOP", None), ("WScale", 7))
"""What Linux offers in a SYN."""


@dataclass(frozen=True, slots=True)
class Sends:
    """One segment of the client."""

    flags: str
    """As scapy spells them: "PA". Without an A the acknowledgement number is 0."""
    payload: bytes = b""
    seq: Number = SENT
    ack: Number = HEARD
    window: int = 4096
    """As it stands in the header, unscaled."""
    options: Options | None = None
    """None: timestamps, if both sides offered them."""
    sack: tuple[tuple[Number, Number], ...] = ()
    """Blocks of a SACK option, which follows the other options."""
    raw_options: bytes = b""
    """Octets in place of all options, a multiple of four: such as no library writes."""
    tcp: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of scapy's TCP: `urgptr`, `reserved`, a wrong `chksum`."""
    ip: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of scapy's IP or IPv6."""
    extensions: tuple[Any, ...] = ()
    """Headers of scapy's between IP and TCP."""
    fragment_octets: int | None = None
    """Cut the packet (IPv4) into fragments of at most so many octets."""
    isn_offset: int | None = None
    """For a SYN that begins a further connection on the same port: from the first one's ISN to its own."""

    @property
    def counts(self) -> bool:
        """Whether its octets are the connection's: not if no host takes them (RFC 9293, 3.10.7.4)."""
        return "chksum" not in self.tcp and "R" not in self.flags and ("A" in self.flags or "S" in self.flags)


@dataclass(frozen=True, slots=True)
class Listens:
    """The client hears what is said, until there is a pause."""

    quiet_s: float | None = None
    """Seconds; None: the usual pause, which is longer for a slow machine."""
    replies: int | None = None
    """Instead: until there are so many, repetitions of octets among them."""


LISTEN = Listens()
Step = Sends | Listens


@dataclass(frozen=True)
class Script:
    """What a client does on one connection. Begins with what it sends, ends with a LISTEN."""

    name: str
    steps: tuple[Step, ...]
    families: tuple[Family, ...]

    def __init__(self, name: str, *steps: Step, families: tuple[Family, ...] = ("ipv4",)) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "families", families)


BOTH = FAMILIES
