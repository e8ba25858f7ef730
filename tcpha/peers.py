"""The nodes at the other end of the handoff channel: who they are, which of their messages are fresh, who lives.

Pure: datagrams and times are arguments, random numbers are drawn outside. The protocol (docs/wire.md, "Freshness"):

- The receiver keeps an epoch per sender. A message is accepted if it carries that epoch and a sequence number greater
  than what slot (sequence mod 4096) saw before: no clock, no lock, reordering up to 4096 messages.
- STATUS offers the epoch that its sender keeps for the receiver. A STATUS under another epoch than the receiver's
  teaches nothing; it is answered, at most once in 100 ms, under the epoch it offered.
- A peer whose start nonce changed, or whose sequence passed 2**31, is offered the next epoch; the first message under
  it makes it the current one, and everything recorded under the old one is void.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from tcpha.errors import HandoffAuthError, WireError
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.messages import Capabilities, Message, NodeState, Server, Status

ANSWER_INTERVAL_S = 0.1
SLOTS = 4096
_SEQUENCE_RENEWAL = 1 << 31

Address = tuple[str, int]
Datagram = tuple[bytes, Address]


@dataclass(slots=True)
class PeerCounters:
    """What happened to datagrams that were not accepted, and how many were."""

    accepted: int = 0
    strangers: int = 0
    malformed: int = 0
    unauthentic: int = 0
    stale_epochs: int = 0
    replays: int = 0
    not_ready: int = 0
    """Messages not sent because the peer has not told its epoch yet."""


@dataclass(frozen=True, slots=True)
class OwnStatus:
    """What this node tells all its peers of itself."""

    state: NodeState
    flows: int
    digest: bytes
    capabilities: Capabilities | None = None
    servers: tuple[Server, ...] = ()


class Peer:
    """One node we exchange messages with."""

    __slots__ = (
        "_next_offered", "_seen", "address", "answered_at", "epoch", "last_heard", "nonce", "out_epoch",
        "out_sequence", "sender_id", "status", "unauthentic_at", "up",
    )  # fmt: skip

    def __init__(self, address: Address, epoch: int) -> None:
        self.address = address
        self.epoch = epoch
        """The epoch under which its messages are accepted."""
        self.out_epoch = 0
        """The epoch it keeps for us; 0 until it told."""
        self.out_sequence = 0
        self.sender_id: int | None = None
        self.nonce: int | None = None
        self.status: Status | None = None
        self.up = False
        self.last_heard = -inf
        self.answered_at = -inf
        self.unauthentic_at = -inf
        self._next_offered = False
        self._seen = array("L", bytes(array("L").itemsize * SLOTS))

    def offer(self, nonce: int | None) -> int:
        """Return the epoch to offer to the process with this start nonce."""
        if nonce is not None and self.nonce is not None and nonce != self.nonce:
            self._next_offered = True
            return _successor(self.epoch)
        return _successor(self.epoch) if self._next_offered and self._is_worn() else self.epoch

    def admit(self, epoch: int, sequence: int) -> bool | None:
        """Accept a message's freshness: True; False for a replay; None for another epoch."""
        if self._next_offered and epoch == _successor(self.epoch):
            self.epoch = epoch
            self._next_offered = False
            self._seen = array("L", bytes(self._seen.itemsize * SLOTS))
        elif epoch != self.epoch:
            return None
        slot = sequence % SLOTS
        if sequence <= self._seen[slot]:
            return False
        self._seen[slot] = sequence
        if sequence >= _SEQUENCE_RENEWAL:
            self._next_offered = True
        return True

    def _is_worn(self) -> bool:
        return max(self._seen) >= _SEQUENCE_RENEWAL

    def learn_epoch(self, epoch: int) -> bool:
        """Take over the epoch it keeps for us; return whether it is news."""
        if epoch == self.out_epoch:
            return False
        self.out_epoch = epoch
        if self.out_sequence >= _SEQUENCE_RENEWAL:
            self.out_sequence = 0
        return True


def _successor(epoch: int) -> int:
    return epoch + 1 if epoch < 0xFFFFFFFF else 1


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was accepted."""

    peer: Peer
    message: Message
    restarted: bool = False
    """The peer's process is another one than before (only with a STATUS)."""


class Peers:
    """All peers of one node, by the address they send from. Datagrams to send collect in `outbox`."""

    def __init__(
        self,
        addresses: Iterable[Address],
        codec: HandoffCodec,
        own: OwnStatus,
        *,
        sender_id: int,
        nonce: int,
        draw_epoch: Callable[[], int],
        status_time_s: float,
        dead_time_s: float,
    ) -> None:
        """`draw_epoch` is asked once a peer, here and now, for a random number 1 .. 2**32 - 1."""
        self.by_address = {address: Peer(address, draw_epoch()) for address in addresses}
        self.own = own
        self.counters = PeerCounters()
        self.outbox: list[Datagram] = []
        self._codec = codec
        self._sender_id = sender_id
        self._nonce = nonce
        self._status_time_s = status_time_s
        self._dead_time_s = dead_time_s
        self._next_status = -inf

    def on_datagram(self, datagram: bytes, source: Address, now: float) -> Received | None:
        """Open a datagram; None if it is not to be believed (counted, and answered only as the protocol says)."""
        peer = self.by_address.get(source)
        if peer is None:
            self.counters.strangers += 1
            return None
        try:
            envelope, message = self._codec.decode(datagram)
        except HandoffAuthError:
            self.counters.unauthentic += 1
            peer.unauthentic_at = now
            return None
        except WireError:
            self.counters.malformed += 1
            return None
        status = message if isinstance(message, Status) else None
        if envelope.sender != peer.sender_id and (status is None or self._is_taken(envelope.sender, peer)):
            self.counters.strangers += 1
            return None
        admitted = peer.admit(envelope.epoch, envelope.sequence)
        if not admitted:
            self._reject(peer, admitted, status, now)
            return None
        self.counters.accepted += 1
        if status is None:
            return Received(peer, message)
        return Received(peer, message, self._believe(peer, envelope.sender, status, now))

    def seal(self, peer: Peer, message: Message) -> bytes | None:
        """Return the datagram for a peer, None while it has not told its epoch. Every repeat is sealed anew."""
        if not peer.out_epoch:
            self.counters.not_ready += 1
            return None
        return self._encode(peer, peer.out_epoch, message)

    def announce(self, now: float) -> None:
        """Tell every peer our status now."""
        self._next_status = now + self._status_time_s
        for peer in self.by_address.values():
            self._tell(peer, peer.out_epoch, peer.offer(None))

    def on_timer(self, now: float) -> list[Peer]:
        """Send STATUS where it is time; return the peers that have just been given up."""
        if now >= self._next_status:
            self.announce(now)
        lost = [peer for peer in self.by_address.values() if peer.up and now - peer.last_heard > self._dead_time_s]
        for peer in lost:
            peer.up = False
        return lost

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called next."""
        return self._next_status

    def _is_taken(self, sender_id: int, peer: Peer) -> bool:
        """Does another peer, or this node, go by that id? Duplicates are refused."""
        return sender_id in (0, self._sender_id) or any(
            other.sender_id == sender_id for other in self.by_address.values() if other is not peer
        )

    def _reject(self, peer: Peer, admitted: bool | None, status: Status | None, now: float) -> None:
        if admitted is False:
            self.counters.replays += 1
            return
        self.counters.stale_epochs += 1
        if status is not None and now - peer.answered_at >= ANSWER_INTERVAL_S:
            peer.answered_at = now
            self._tell(peer, status.epoch, peer.offer(status.nonce))

    def _believe(self, peer: Peer, sender_id: int, status: Status, now: float) -> bool:
        restarted = peer.nonce is not None and peer.nonce != status.nonce
        peer.sender_id = sender_id
        peer.nonce = status.nonce
        peer.status = status
        peer.last_heard = now
        peer.up = True
        if peer.learn_epoch(status.epoch):
            self._tell(peer, peer.out_epoch, peer.offer(None))
        return restarted

    def _tell(self, peer: Peer, epoch: int, offered: int) -> None:
        own = self.own
        status = Status(self._nonce, offered, own.state, own.flows, own.digest, own.capabilities, own.servers)
        self.outbox.append((self._encode(peer, epoch, status), peer.address))

    def _encode(self, peer: Peer, epoch: int, message: Message) -> bytes:
        peer.out_sequence += 1
        return self._codec.encode(Envelope(self._sender_id, epoch, peer.out_sequence), message)
