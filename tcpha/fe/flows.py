"""What the front end remembers of a connection from its request on."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Final

from tcpha.fe.actions import PassOn
from tcpha.fe.arrivals import Arrivals
from tcpha.fe.assembly import Assembly
from tcpha.proto.cookie import Cookie
from tcpha.proto.inspect import Inspected
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import MASK, SeqNum, seq_add
from tcpha.rules import Endpoint, Patience

STRANGE_OCTETS = 1 << 23
"""No client acknowledges so much at once, but for the first time after a restart of ours.

Linux's receive buffer holds 6 MB (net.ipv4.tcp_rmem), and one packet may acknowledge all of it when a gap is filled.
"""


class FlowState(Enum):
    """Where a flow stands. What each state does with a segment is a table in `dispatcher`."""

    READING = "reading"
    """The request head is not complete."""
    HANDING = "handing"
    """Handed to a back end that has not confirmed; or to be handed to the first that is heard of."""
    FORWARDED = "forwarded"
    """A back end has it; its packets are passed on."""
    ANSWERED = "answered"
    """The front end answered itself (503, 400...) and closes."""
    FINISHED = "finished"
    """Over; what still comes is passed on for a while (TIME-WAIT at the server)."""

    __hash__ = object.__hash__
    """Tables are asked by state for every packet; that of `Enum` is the name's, and a call."""


# To fetch a member from its class costs as much as a call; every packet asks for some.
READING: Final = FlowState.READING
HANDING: Final = FlowState.HANDING
FORWARDED: Final = FlowState.FORWARDED
ANSWERED: Final = FlowState.ANSWERED
FINISHED: Final = FlowState.FINISHED


class Pending:
    """What a flow needs only until a back end has confirmed it: the client's octets and how to speak to the client."""

    __slots__ = (
        "ack_at", "acknowledged", "answer", "arrivals", "assembly", "cookie", "covered", "delivered", "follows",
        "give_up_at", "has_more", "heard", "patience", "repeats", "request", "silent", "told", "tried", "tsval_client",
        "tsval_recent", "turned_at", "window",
    )  # fmt: skip

    arrivals: Arrivals
    """What of the client's octets has arrived; there is one from the moment at which the front end answers itself."""

    def __init__(self, cookie: Cookie, assembly: Assembly, tsval: int, window: int) -> None:
        self.cookie = cookie
        self.assembly = assembly
        self.acknowledged = assembly.start
        """The client was told that everything before this arrived."""
        self.told = assembly.start
        """It was told, by ACK or SACK, of octets before this: it will not soon repeat those."""
        self.covered = assembly.start
        """The server acknowledged everything before this, as far as its back end has said."""
        self.tsval_client = tsval
        """TS.Recent when the head was complete: what the server echoes, and no later segment is older."""
        self.tsval_recent = tsval
        """The TSval to be echoed (TS.Recent, RFC 7323, 4.3); behind a HANDOFF the latest, which our segments carry."""
        self.window = window
        """SEG.WND of the latest segment, unscaled."""
        self.request: Inspected | None = None
        """What was read; of an unknown protocol, as far as it has come."""
        self.patience: Patience | None = None
        """What matches of rules may still take, once one was tried."""
        self.has_more = False
        """Octets behind what was read were given to a back end, too."""
        self.follows = False
        """Segments of ours follow the HANDOFF, and are repeated with it."""
        self.tried: set[Endpoint] = set()
        """Back ends that have refused, or were silent."""
        self.silent: tuple[Endpoint, ...] = ()
        """Those that were silent: each may have adopted all the same."""
        self.turned_at = inf
        """When the last of them was given up."""
        self.heard: SeqNum | None = None
        """The client has heard a server, nobody knows whose; it acknowledged everything before this."""
        self.repeats = 0
        self.ack_at = inf
        self.give_up_at = inf
        self.answer = b""
        """What the front end answered itself."""
        self.delivered = False
        """The client acknowledged the answer and our FIN."""


class Flow:
    """One connection. `deadline` belongs to `Deadlines`."""

    __slots__ = (
        "backend", "checks", "deadline", "identity", "key", "last_ack", "last_seen", "leaving_key", "noted", "orphaned",
        "pass_on", "pending", "period", "proven", "retained", "state",
    )  # fmt: skip

    def __init__(self, identity: Identity, period: int, state: FlowState, now: float) -> None:
        self.identity = identity
        self.key: ConnectionKey = identity.key
        self.leaving_key = reverse_key(identity.key)
        self.period = period
        self.state = state
        self.deadline = inf
        self.last_seen = now
        self.last_ack = SeqNum((identity.iss + 1) & MASK)
        """SEG.ACK of the last segment passed on, or of our delivered answer: what the client expects next."""
        self.backend: Endpoint | None = None
        self.pass_on: tuple[PassOn, ...] = ()
        """What to do with a packet that goes to the back end: made once, used for each."""
        self.pending: Pending | None = None
        self.noted: tuple[SeqNum, ...] = ()
        """IRS + 1 of the last two SYNs seen: data that begins there may belong to a new connection."""
        self.proven = False
        """The back end has said that it has the connection, or the client that it has heard the server."""
        self.checks = 0
        """FLOWS? asked in vain since the flow was last known to live."""
        self.orphaned = False
        """Its back end's process is another one, and has not said yet whether it has the connection."""
        self.retained = False
        """It outlived the process that knew it, and its back end has not said yet that it lives."""

    @property
    def is_over(self) -> bool:
        """Is the connection finished?"""
        return self.state is FINISHED

    @property
    def is_unsure(self) -> bool:
        """Did it outlive the process that handed it over before anybody said that the back end has got it?"""
        return self.retained and not self.proven

    def end(self) -> None:
        """Become finished; what still comes is passed on, nothing else is remembered."""
        self.state = FINISHED
        self.pending = None

    def note_syn(self, irs: SeqNum) -> None:
        """Remember a SYN. It deletes nothing: a stranger may have forged it."""
        first = seq_add(irs, 1)
        if first not in self.noted:
            self.noted = (first, *self.noted[:1])

    def is_strange(self, seg_ack: SeqNum) -> bool:
        """May an acknowledgement belong to another connection on the same ports?

        Its SYN may be unknown: another front end answered it, we did before a restart, or SYNs that a stranger forged
        took its place in `noted`. So whatever lies far from the last acknowledgement is worth a look at its cookie.
        """
        return (seg_ack - self.last_ack + STRANGE_OCTETS) & MASK > 2 * STRANGE_OCTETS

    def assign(self, backend: Endpoint) -> None:
        """Pass everything on to `backend` from now on."""
        self.backend = backend
        self.pass_on = (PassOn(backend),)
