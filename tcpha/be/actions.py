"""What the back end's core wants done, as values. A packet at hand that no action delivers is dropped."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tcpha.be.translator import Translation
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Message
from tcpha.rules import Endpoint


class DeliverArriving(Struct, frozen=True, gc=False):
    """Translate the packet at hand (a segment, or an ICMP error about one) and let it go on to the server.

    One value per flow serves all packets.
    """

    translation: Translation


class DeliverLeaving(Struct, frozen=True, gc=False):
    """Translate the packet at hand and let it go on to the client. One value per flow serves all packets."""

    translation: Translation


class LeaveToHost(Struct, frozen=True, gc=False):
    """Let the host itself have the packet at hand, as it is."""


class Inject(Struct, frozen=True, gc=False):
    """Give this packet to the host's own TCP as if it had arrived."""

    packet: bytes


class ClearTuple(Struct, frozen=True, gc=False):
    """Destroy whatever socket of the host holds this four-tuple (never a listener), then call `on_cleared`."""

    key: ConnectionKey
    """The client's direction."""
    embryonic: bool
    """Also a socket that is still in SYN-RECEIVED."""


UNKNOWN: Final = -1
"""How many octets a socket has received, where nobody could say."""


class Examine(Struct, frozen=True, gc=False):
    """Find out what a socket of the host that holds this four-tuple has received, then call `on_examined`."""

    key: ConnectionKey


class Send(Struct, frozen=True, gc=False):
    """Send this message to a front end."""

    frontend: Endpoint
    message: Message


class Announce(Struct, frozen=True, gc=False):
    """Our STATUS changed: tell all front ends at once."""


class Note(Struct, frozen=True, gc=False):
    """Tell the operator something that happens seldom."""

    text: str


Action = DeliverArriving | DeliverLeaving | LeaveToHost | Inject | ClearTuple | Examine | Send | Announce | Note
