"""Octets that one request puts on each link of a cluster, by packet arithmetic. Pure.

Must not know what a link carries in a second, or what a processor does. Full Ethernet frames with preamble, check
sequence and gap (IEEE 802.3), IPv4, TCP with timestamps (RFC 7323), an ACK for every second segment of an answer
(RFC 9293, 3.8.6.3), nothing lost. FIN and its ACK travel alone; the answers' links differ only in who sends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_FRAME_OCTETS: Final = 38
_PACKET_OCTETS: Final = _FRAME_OCTETS + 20 + 32
"""A segment without payload; its payload comes on top."""
_SYN_OCTETS: Final = _FRAME_OCTETS + 20 + 40
SEGMENT_OCTETS: Final = 1448
"""Payload of a full segment: MTU 1500."""
REQUEST_HEAD_OCTETS: Final = 400
"""A browser's request; wrk's has fewer."""
ANSWER_HEAD_OCTETS: Final = 250
_MESSAGE_OCTETS: Final = _FRAME_OCTETS + 20 + 8 + 68
"""A handoff message over IPv4 without TLVs (docs/wire.md)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask for."""

    object_octets: float
    """Of an answer's body."""
    requests_per_connection: float = 1.0
    """At least 1; the connection's opening and end are shared by so many."""


@dataclass(frozen=True, slots=True)
class Octets:
    """Through an interface, per request."""

    received: float
    sent: float

    @property
    def fuller(self) -> float:
        """Those of the direction that fills up first: links are full-duplex."""
        return max(self.received, self.sent)


def front_end(load: Load) -> Octets:
    """The link of tcpha's FE: all that clients send comes in; what is behind the handoff leaves again."""
    shared = load.requests_per_connection
    opening = _SYN_OCTETS + _PACKET_OCTETS
    answered_here = (opening + _PACKET_OCTETS + REQUEST_HEAD_OCTETS) / shared
    received = _by_client(load) + 2 * _MESSAGE_OCTETS / shared
    sent = _by_client(load) - answered_here + (_SYN_OCTETS + _handoff_octets()) / shared
    return Octets(received, sent)


def back_end(load: Load) -> Octets:
    """The link of one of tcpha's BEs, for the requests that it serves."""
    shared = load.requests_per_connection
    answered_by_fe = (_SYN_OCTETS + 2 * _PACKET_OCTETS + REQUEST_HEAD_OCTETS) / shared
    received = _by_client(load) - answered_by_fe + _handoff_octets() / shared
    sent = _by_server(load) - _SYN_OCTETS / shared + 2 * _MESSAGE_OCTETS / shared
    return Octets(received, sent)


def proxy(load: Load) -> Octets:
    """The link of a proxy: everything twice, once in and once out, on a connection each."""
    both = _by_client(load) + _by_server(load)
    return Octets(both, both)


def server(load: Load) -> Octets:
    """The link of a server behind a proxy, or of one that clients reach themselves."""
    return Octets(_by_client(load), _by_server(load))


def _by_client(load: Load) -> float:
    """SYN, ACK, FIN, ACK of the FIN; each request; ACKs of its answer."""
    connection = _SYN_OCTETS + 3 * _PACKET_OCTETS
    acknowledgements = math.ceil(_segments(load) / 2)
    return connection / load.requests_per_connection + _PACKET_OCTETS * (1 + acknowledgements) + REQUEST_HEAD_OCTETS


def _by_server(load: Load) -> float:
    """SYN-ACK, FIN, ACK of the FIN; each answer, whose first segment acknowledges the request."""
    connection = _SYN_OCTETS + 2 * _PACKET_OCTETS
    answer = _PACKET_OCTETS * _segments(load) + ANSWER_HEAD_OCTETS + load.object_octets
    return connection / load.requests_per_connection + answer


def _segments(load: Load) -> int:
    return math.ceil((ANSWER_HEAD_OCTETS + load.object_octets) / SEGMENT_OCTETS)


def _handoff_octets() -> int:
    return _MESSAGE_OCTETS + REQUEST_HEAD_OCTETS
