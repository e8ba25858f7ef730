"""What the back end's core wants done, as values. A packet at hand that no action delivers is dropped."""

from __future__ import annotations

from dataclasses import dataclass

from tcpha.be.translator import Translation
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Message
from tcpha.rules import Endpoint


@dataclass(frozen=True, slots=True)
class DeliverArriving:
    """Translate the packet at hand (a segment, or an ICMP error about one) and let it go on to the server.

    One value per flow serves all packets.
    """

    translation: Translation


@dataclass(frozen=True, slots=True)
class DeliverLeaving:
    """Translate the packet at hand and let it go on to the client. One value per flow serves all packets."""

    translation: Translation


@dataclass(frozen=True, slots=True)
class LeaveToHost:
    """Let the host itself have the packet at hand, as it is."""


@dataclass(frozen=True, slots=True)
class Inject:
    """Give this packet to the host's own TCP as if it had arrived."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class ClearTuple:
    """Destroy whatever socket of the host holds this four-tuple (never a listener), then call `on_cleared`."""

    key: ConnectionKey
    """The client's direction."""
    embryonic: bool
    """Also a socket that is still in SYN-RECEIVED."""


@dataclass(frozen=True, slots=True)
class Examine:
    """Find out whether a socket of the host holds this four-tuple, then call `on_examined`."""

    key: ConnectionKey


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message to a front end."""

    frontend: Endpoint
    message: Message


@dataclass(frozen=True, slots=True)
class Announce:
    """Our STATUS changed: tell all front ends at once."""


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the operator something that happens seldom."""

    text: str


Action = DeliverArriving | DeliverLeaving | LeaveToHost | Inject | ClearTuple | Examine | Send | Announce | Note
