"""What the scripts have in common: a client's usual segments, and requests of which the answer is known to be short."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.cluster.wire_script import LINUX, LISTEN, Listens, Options, Sends, Step

GET = b"GET /1k HTTP/1.1\r\nHost: lab\r\n\r\n"
GET_ONE_OCTET = b"GET /1 HTTP/1.1\r\nHost: lab\r\n\r\n"
GET_AND_CLOSE = b"GET /1k HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"

ONE_REPLY = Listens(replies=1)
"""However late it comes."""
SYN = Sends("S", options=LINUX)
ACK = Sends("A")
FIN = Sends("FA")
RST = Sends("R")
ASK = Sends("PA", GET)
ASK_AND_CLOSE = Sends("PA", GET_AND_CLOSE)
CONNECTED: tuple[Step, ...] = (SYN, LISTEN, ACK, LISTEN)
"""With a LISTEN of its own, so that what a server says to the ACK alone is heard."""
ASKED: tuple[Step, ...] = (SYN, LISTEN, ACK, ASK, LISTEN)
ANSWERED: tuple[Step, ...] = (*ASKED, ACK, LISTEN)


def syn(options: Options = LINUX, **fields: Any) -> Sends:
    """A SYN."""
    return replace(SYN, options=options, **fields)


def request(syn: Sends, octets: bytes = GET) -> tuple[Step, ...]:
    """A request and its answer after a SYN of one's own."""
    return (syn, LISTEN, ACK, Sends("PA", octets), LISTEN, ACK, LISTEN)


def again(first: Sends) -> Sends:
    """The connection's first octets once more."""
    return replace(first, seq=1)


def piece(begin: int, end: int, octets: bytes = GET) -> Sends:
    """A part of a request, at its place."""
    return Sends("PA" if end == len(octets) else "A", octets[begin:end], seq=1 + begin)


def pieces(octets: bytes, size: int, begin: int = 0) -> tuple[Sends, ...]:
    """A request from `begin` on, in parts of equal size but the last."""
    return tuple(piece(at, min(at + size, len(octets)), octets) for at in range(begin, len(octets), size))
