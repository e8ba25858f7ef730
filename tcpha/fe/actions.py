"""What the dispatcher wants done, as values. How packets move is the business of `service` and tcpha/net."""

from __future__ import annotations

from msgspec import Struct

from tcpha.proto.messages import Message
from tcpha.rules import Endpoint


class Reply(Struct, frozen=True, gc=False):
    """Send this packet to the client, from the virtual address."""

    packet: bytes


class PassOn(Struct, frozen=True, gc=False):
    """Hand the packet at hand to a back end, unchanged. One value per back end serves all packets."""

    backend: Endpoint


class Forward(Struct, frozen=True, gc=False):
    """Hand this packet to a back end."""

    backend: Endpoint
    packet: bytes


class LeaveToHost(Struct, frozen=True, gc=False):
    """Let the host itself have the packet at hand."""


class Send(Struct, frozen=True, gc=False):
    """Send this message to a back end."""

    backend: Endpoint
    message: Message


class Note(Struct, frozen=True, gc=False):
    """Tell the operator something that happens seldom."""

    text: str
    needs_care: bool = False
    """Somebody has to mend it: it does not pass by itself."""


Action = Reply | PassOn | Forward | LeaveToHost | Send | Note
