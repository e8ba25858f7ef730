"""What front ends and back ends say to each other, as values.

`handoff` turns them into datagrams and back; nobody but it knows their octets.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from tcpha.proto.cookie import Agreement
from tcpha.proto.ip import ConnectionKey, key_text
from tcpha.proto.seqnum import SeqNum


class Reason(IntEnum):
    """Why a back end refuses a handoff."""

    DRAINING = 1
    NO_LISTENER = 2
    BACKLOG_FULL = 3
    OPTIONS = 4
    NOT_MY_ADDRESS = 5
    OLDER_GENERATION = 6
    TABLE_FULL = 7
    REFUSED_BEFORE = 8

    @property
    def text(self) -> str:
        """The reason in words, for logs."""
        return self.name.lower().replace("_", " ")


class NodeState(IntEnum):
    """What a node says of itself in STATUS."""

    STARTING = 1
    UP = 2
    DRAINING = 3
    FULL = 4
    """Its table of connections is: what it holds goes on, it takes nothing new."""


class ServerState(IntEnum):
    """What a back end's own probe found at one virtual address and port."""

    UNKNOWN = 0
    ANSWERS = 1
    NO_LISTENER = 2
    SILENT = 3

    @property
    def text(self) -> str:
        """The state in words, for logs."""
        return self.name.lower().replace("_", " ")


AGREEMENT_BITS = 8
"""The lowest bits of an ISS hold what the handshake agreed on (see `cookie`)."""


class Identity(Struct, frozen=True, gc=False):
    """A connection for its whole life: the client's direction and the initial sequence numbers of its handshake."""

    key: ConnectionKey
    """Client address, virtual address, client port, VIP port."""
    irs: SeqNum
    """The client's initial sequence number."""
    iss: SeqNum
    """The initial sequence number the front end chose: the cookie."""

    def __str__(self) -> str:
        return f"{key_text(self.key)} ({self.irs:08x} {self.iss:08x})"

    def resembles(self, other: Identity) -> bool:
        """Is this the other one, or a repetition of it that acknowledges a little more?

        Told from a segment alone, ISS is what precedes its acknowledgement. The lowest bits of a cookie are not covered
        by its hash, so an acknowledgement that is a little off makes a valid cookie of another agreement.
        """
        return self.irs == other.irs and (self.iss ^ other.iss) >> AGREEMENT_BITS == 0 and self.key == other.key


class Handoff(Struct, frozen=True, gc=False):
    """HANDOFF: adopt this connection."""

    identity: Identity
    agreement: Agreement
    promised_window_scale: int | None
    """The shift count of the windows the client expects from the server, None if windows are not scaled."""
    window: int
    """The client's window as its last segment carried it."""
    period: int
    """The cookie's period, low 16 bits: orders the generations of one four-tuple."""
    tsval_sent: int | None
    """The last TSval the client got; None if timestamps were not agreed on."""
    tsval_client: int
    """The client's TSval to be echoed (TS.Recent, RFC 7323, 4.3); 0 without timestamps."""
    confirm: bool
    """An ADOPTED is wanted."""
    acknowledged: SeqNum | None = None
    """The client was told, by ACK or SACK, of octets before this number: they are resent until the server has them."""
    octets: bytes = b""
    """Request octets from irs + 1, as many as fit."""


class Adopted(Struct, frozen=True, gc=False):
    """ADOPTED: the connection is rebuilt; the server's TCP acknowledged everything before `rcv_nxt`."""

    identity: Identity
    rcv_nxt: SeqNum


class Refused(Struct, frozen=True, gc=False):
    """REFUSED: not adopted, nothing reached a server."""

    identity: Identity
    reason: Reason


class Moved(Struct, frozen=True, gc=False):
    """MOVED: the flow lives at another back end now."""

    identity: Identity
    owner: int
    """Sender id of the back end that has it."""


class Closed(Struct, frozen=True, gc=False):
    """CLOSED: these flows are over (from a back end), or are to be destroyed silently (from a front end)."""

    identities: tuple[Identity, ...]


class FlowsQuery(Struct, frozen=True, gc=False):
    """FLOWS?: which of these four-tuples do you hold? None asked: all."""

    keys: tuple[ConnectionKey, ...]


class Flows(Struct, frozen=True, gc=False):
    """FLOWS: the answer. `absent` repeats the asked four-tuples that are not held."""

    held: tuple[Identity, ...]
    absent: tuple[ConnectionKey, ...] = ()


class Capabilities(Struct, frozen=True, gc=False):
    """What a back end's TCP stack does, learned by its own probe."""

    window_scale: int | None
    sack: bool
    timestamps: bool
    mss: int


class Server(Struct, frozen=True, gc=False):
    """The state of the server at one virtual address and port."""

    address: bytes
    """Packed, 4 or 16 octets."""
    port: int
    state: ServerState


class Status(Struct, frozen=True, gc=False):
    """STATUS: I live, this is what I am, and this is the epoch under which I accept your messages."""

    nonce: int
    """Drawn at start, 64 bits: another nonce is another process."""
    epoch: int
    """The epoch the sender keeps for the receiver."""
    state: NodeState
    flows: int
    """Connections the sender holds."""
    digest: bytes
    """16 octets over server and rule lists and promises."""
    capabilities: Capabilities | None = None
    servers: tuple[Server, ...] = ()


Message = Handoff | Adopted | Refused | Moved | Closed | FlowsQuery | Flows | Status
