"""What the dispatcher wants done, as values. How packets move is the business of `service` and tcpha/net."""

from __future__ import annotations

from dataclasses import dataclass

from tcpha.proto.messages import Message
from tcpha.rules import Endpoint


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this packet to the client, from the virtual address."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class PassOn:
    """Hand the packet at hand to a back end, unchanged. One value per back end serves all packets."""

    backend: Endpoint


@dataclass(frozen=True, slots=True)
class Forward:
    """Hand this packet to a back end."""

    backend: Endpoint
    packet: bytes


@dataclass(frozen=True, slots=True)
class LeaveToHost:
    """Let the host itself have the packet at hand."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message to a back end."""

    backend: Endpoint
    message: Message


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the operator something that happens seldom."""

    text: str
    needs_care: bool = False
    """Somebody has to mend it: it does not pass by itself."""


Action = Reply | PassOn | Forward | LeaveToHost | Send | Note
