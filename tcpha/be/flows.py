"""What a back end remembers of a connection that was handed to it."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import Segment
from tcpha.rules import Endpoint

if TYPE_CHECKING:
    from tcpha.be.actions import Action
    from tcpha.be.translator import Translation


class FlowState(Enum):
    """Where a flow stands, seen from the replay: it plays the client towards the server's TCP."""

    SYN_SENT = "syn sent"
    """The client's SYN was replayed."""
    ACK_SENT = "ack sent"
    """The server's SYN-ACK came, the request was injected; its acknowledgement is awaited."""
    ADOPTED = "adopted"
    """The server acknowledged: the connection lives here."""
    FINISHED = "finished"
    """Over; the last segments of the close are still translated for a while."""


# To fetch a member from its class costs as much as a call; every packet asks for some.
SYN_SENT: Final = FlowState.SYN_SENT
ACK_SENT: Final = FlowState.ACK_SENT
ADOPTED: Final = FlowState.ADOPTED
FINISHED: Final = FlowState.FINISHED


class Replay:
    """What a flow needs only until the server has acknowledged."""

    __slots__ = ("answered", "attempts", "clearing", "echo", "first_syns", "give_up_at", "held")

    def __init__(self, give_up_at: float) -> None:
        self.answered: SeqNum | None = None
        """The server's ISS, once it has answered the SYN; the second answer with it counts."""
        self.echo: int | None = None
        """TSecr of that answer."""
        self.first_syns = 0
        """How often the SYN was played without an answer to it."""
        self.attempts = 0
        self.give_up_at = give_up_at
        self.clearing = False
        """What held the four-tuple was just destroyed: answers from it may still come."""
        self.held: list[Segment] = []
        """The client's packets that came too early."""


class Flow:
    """One connection. `deadline` belongs to `Deadlines`."""

    __slots__ = (
        "arriving", "busy", "deadline", "fin_acked", "fin_arriving", "fin_arriving_acked", "fin_leaving",
        "fin_leaving_acked", "first", "frontend", "handoff", "identity", "key", "last_seen", "leaving", "leaving_key",
        "owed", "period", "rcv_nxt", "replay", "rst_arriving", "server_iss", "server_seq", "state", "translation",
        "tsecr",
    )  # fmt: skip

    def __init__(self, handoff: Handoff, frontend: Endpoint, period: int, give_up_at: float, now: float) -> None:
        self.identity: Identity = handoff.identity
        self.key: ConnectionKey = handoff.identity.key
        self.leaving_key = reverse_key(self.key)
        self.first = seq_add(handoff.identity.irs, 1)
        """The number of the client's first octet."""
        self.period = period
        self.frontend = frontend
        self.state = SYN_SENT
        self.deadline = inf
        self.last_seen = now
        self.handoff: Handoff | None = handoff
        self.replay: Replay | None = Replay(give_up_at)
        self.server_iss = SeqNum(0)
        self.server_seq = SeqNum(0)
        """SEG.SEQ of the server's last packet, in its own numbers."""
        self.tsecr = 0
        """TSecr of what is injected: 0, from which no round trip is measured, unless the server answers by cookies."""
        self.translation: Translation | None = None
        self.arriving: tuple[Action, ...] = ()
        """What to do with an ordinary arriving packet: made once, used for each."""
        self.leaving: tuple[Action, ...] = ()
        self.rcv_nxt = self.first
        """The server's RCV.NXT, as its last acknowledgement told."""
        self.owed: SeqNum | None = handoff.acknowledged
        """The front end waits for the server to acknowledge up to here."""
        self.busy = False
        """Ordinary packets need a look, too: the flow is closing, or an ADOPTED is owed."""
        self.fin_arriving: SeqNum | None = None
        """The number behind the client's FIN, or behind one that a stranger forged."""
        self.fin_acked: SeqNum | None = None
        """What the server's TCP acknowledged when it was `fin_arriving`."""
        self.fin_leaving: SeqNum | None = None
        """The number behind the server's FIN, as the client sees it."""
        self.fin_arriving_acked = False
        self.fin_leaving_acked = False
        self.rst_arriving = False
        """The client sent an RST: it may have ended the host's socket."""

    @property
    def is_adopted(self) -> bool:
        """Has the server's TCP taken the connection?"""
        return self.state is ADOPTED

    @property
    def is_over(self) -> bool:
        """Is the connection finished?"""
        return self.state is FINISHED

    def end(self) -> None:
        """Become finished; what still comes is translated, nothing else is remembered."""
        self.state = FINISHED
        self.replay = None
        self.handoff = None
