"""What the front end remembers of a connection from its request on."""

from __future__ import annotations

from enum import Enum
from functools import cache
from math import inf
from typing import Final

from msgspec import Struct

from tcpha.fe.actions import PassOn, Reply
from tcpha.fe.arrivals import Arrivals
from tcpha.fe.assembly import Assembly
from tcpha.proto.cookie import Cookie
from tcpha.proto.inspect import Inspected
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import MASK, SeqNum, seq_add, seq_diff, seq_lt
from tcpha.proto.tcp import RST, Segment, encode_segment
from tcpha.rules import Endpoint, Patience

STRANGE_OCTETS = 1 << 23
"""No client acknowledges so much at once, but for the first time after a restart of ours.

Linux's receive buffer holds 6 MB (net.ipv4.tcp_rmem), and one packet may acknowledge all of it when a gap is filled.
"""
PROOF_OCTETS = 1 << 20
"""The first numbers that speak of a server are not beyond this; a stranger's guess hardly ever is not."""


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

_NOT_ANSWERED: Final = Arrivals(SeqNum(0), fin=False)
"""Stands where there is nothing yet; nothing is added to it."""


class Pending(Struct, eq=False, gc=False):
    """What a flow needs only until a back end has confirmed it: the client's octets and how to speak to the client.

    Nothing in it refers back to it or to its flow (docs/adr/0011).
    """

    cookie: Cookie
    assembly: Assembly
    acknowledged: SeqNum
    """The client was told that everything before this arrived."""
    told: SeqNum
    """It was told, by ACK or SACK, of octets before this: it will not soon repeat those."""
    covered: SeqNum
    """The server acknowledged everything before this, as far as its back end has said."""
    tsval_client: int
    """TS.Recent when the head was complete: what the server echoes, and no later segment is older."""
    tsval_recent: int
    """The TSval to be echoed (TS.Recent, RFC 7323, 4.3); behind a HANDOFF the latest, which our segments carry."""
    window: int
    """SEG.WND of the latest segment, unscaled."""
    give_up_at: float
    ack_at: float = inf
    request: Inspected | None = None
    """What was read; of an unknown protocol, as far as it has come."""
    patience: Patience | None = None
    """What matches of rules may still take, once one was tried."""
    has_more: bool = False
    """Octets behind what was read were given to a back end, too."""
    follows: bool = False
    """Segments of ours follow the HANDOFF, and are repeated with it."""
    tried: frozenset[Endpoint] = frozenset()
    """Back ends that have refused, or were silent."""
    silent: tuple[Endpoint, ...] = ()
    """Those that were silent: each may have adopted all the same."""
    turned_at: float = inf
    """When the last of them was given up."""
    heard: SeqNum | None = None
    """The client has heard a server, nobody knows whose; it acknowledged everything before this."""
    repeats: int = 0
    answer: bytes = b""
    """What the front end answered itself."""
    delivered: bool = False
    """The client acknowledged the answer and our FIN."""
    arrivals: Arrivals = _NOT_ANSWERED
    """What of the client's octets has arrived, from the moment on at which the front end answers itself."""


class Flow(Struct, eq=False, gc=False):
    """One connection. `deadline` belongs to `Deadlines`. Nothing in it refers back to it (docs/adr/0011)."""

    identity: Identity
    period: int
    state: FlowState
    last_seen: float
    key: ConnectionKey
    """That of `identity`: every packet asks for it."""
    last_ack: SeqNum
    """SEG.ACK of the last segment passed on, or of our delivered answer: what the client expects next."""
    deadline: float = inf
    backend: Endpoint | None = None
    pass_on: tuple[PassOn, ...] = ()
    """What to do with a packet that goes to the back end."""
    pending: Pending | None = None
    noted: tuple[SeqNum, ...] = ()
    """IRS + 1 of the last two SYNs seen: data that begins there may belong to a new connection."""
    proven: bool = False
    """The back end has said that it has the connection, or the client that it has heard the server."""
    checks: int = 0
    """FLOWS? asked in vain since the flow was last known to live."""
    orphaned: bool = False
    """Its back end's process is another one, and has not said yet whether it has the connection."""
    retained: bool = False
    """It outlived the process that knew it, and its back end has not said yet that it lives."""

    @classmethod
    def of(cls, identity: Identity, period: int, state: FlowState, now: float) -> Flow:
        """Return what is known when a connection is seen for the first time."""
        return cls(identity, period, state, now, identity.key, SeqNum((identity.iss + 1) & MASK))

    @property
    def leaving_key(self) -> ConnectionKey:
        """The server's direction."""
        return reverse_key(self.key)

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
        took its place in `noted`. So whatever lies far from the last acknowledgement is worth a look at its cookie, and
        so is what lies before all that the server of this connection has sent.
        """
        behind = min((self.last_ack - self.identity.iss - 1) & MASK, STRANGE_OCTETS)
        return (seg_ack - self.last_ack + behind) & MASK > behind + STRANGE_OCTETS

    def assign(self, backend: Endpoint) -> None:
        """Pass everything on to `backend` from now on."""
        self.backend = backend
        self.pass_on = _pass_on(backend)


@cache
def _pass_on(backend: Endpoint) -> tuple[PassOn, ...]:
    """Made once for each back end, used for every packet."""
    return (PassOn(backend),)


def acknowledges_server(identity: Identity, ack: SeqNum) -> bool:
    """Does an acknowledgement speak of octets of the server, and not of so many that it can be but a guess?"""
    return 0 < seq_diff(ack, seq_add(identity.iss, 1)) < PROOF_OCTETS


def identity_of(segment: Segment) -> Identity:
    """Return whose first octets a segment has: it follows the SYN, and acknowledges the SYN-ACK."""
    return Identity(segment.key, SeqNum((segment.seg_seq - 1) & MASK), SeqNum((segment.seg_ack - 1) & MASK))


def newer_tsval(pending: Pending, segment: Segment) -> int | None:
    """Return a segment's TSval if it is later than TS.Recent, None otherwise. Raises: OptionError."""
    stamps = segment.timestamps
    if stamps is None or not seq_lt(SeqNum(pending.tsval_recent), SeqNum(stamps[0])):
        return None
    return stamps[0]


def reset_of(flow: Flow) -> Reply:
    """Return the RST that tells the client that its connection is lost: by the number that it expects next."""
    return Reply(encode_segment(flow.leaving_key, flow.last_ack, SeqNum(0), RST, 0))
