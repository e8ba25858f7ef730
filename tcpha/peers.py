"""The nodes at the other end of the handoff channel: who they are, which of their messages are fresh, who lives.

Pure: datagrams and times are arguments, random numbers are drawn outside. The protocol (docs/wire.md, "Replays"):

- The receiver keeps an epoch per sender. A message is accepted if it carries that epoch and a sequence number greater
  than what slot (sequence mod 4096) saw before: no clock, no lock, reordering up to 4096 messages.
- An epoch is offered to one process, which the start nonce of its STATUS names; another process is offered another
  one. The first STATUS under an offered epoch and with that nonce makes it the current one. From then on everything
  sealed under earlier epochs is void, for good: epochs are numbered upwards from a random start.
- STATUS offers the epoch that its sender keeps for the receiver. One under another epoch than the receiver's, or from
  another process than the epoch belongs to, teaches nothing; it is answered, at most once in 100 ms, under the epoch
  it offered. So a process learns its epoch only from an answer to itself, and what it seals cannot be taken for the
  words of the process that comes after it.
- A process whose sequence passed 2**31 is offered a further epoch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Final

from msgspec import Struct

from tcpha.errors import HandoffAuthError, WireError
from tcpha.proto.handoff import SERVERS_A_MESSAGE, Envelope, HandoffCodec, Type
from tcpha.proto.messages import Capabilities, Handoff, Message, NodeState, Server, ServerState, Status

ANSWER_INTERVAL_S = 0.1
SLOTS = 4096
MAX_OFFERS = 8
"""Processes of one peer to which an epoch is offered at a time; the oldest offer goes first."""
_SEQUENCE_RENEWAL = 1 << 31
_U32_MAX = 0xFFFFFFFF

Address = tuple[str, int]
Datagram = tuple[bytes, Address]


@dataclass(slots=True)
class PeerCounters:
    """What happened to datagrams that were not accepted, and how many were."""

    accepted: int = 0
    strangers: int = 0
    """From an address, or with a sender id, that is no peer's."""
    duplicate_ids: int = 0
    """STATUS with the sender id of this node or of another peer that lives."""
    malformed: int = 0
    unauthentic: int = 0
    stale_epochs: int = 0
    replays: int = 0
    overtaken: int = 0
    """STATUS that arrived after a later one: authentic, but old news."""
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


class Verdict(Enum):
    """What `Freshness` says of an authentic message."""

    FRESH = auto()
    OVERTAKEN = auto()
    """A STATUS that is older than one already seen."""
    REPLAY = auto()
    STALE = auto()
    """Under another epoch than the current one, or a STATUS of another process."""


# To fetch a member from its class costs as much as a call.
_FRESH: Final = Verdict.FRESH
_STALE: Final = Verdict.STALE
_REPLAY: Final = Verdict.REPLAY
_OVERTAKEN: Final = Verdict.OVERTAKEN


class Freshness:
    """The epochs that we keep for one peer, and what was seen under the current one."""

    __slots__ = ("_issued", "_newest_status", "_offers", "_seen", "_worn", "epoch", "nonce")

    def __init__(self, epoch: int) -> None:
        """`epoch`: 1 .. 2**32 - 1, random; the first to be offered."""
        self.epoch: int | None = None
        """The current one; None until a first STATUS opened it."""
        self.nonce: int | None = None
        """Start nonce of the process that the current epoch belongs to."""
        self._issued = epoch
        # By the nonce of the process they are offered to; None: to whoever takes it first.
        self._offers: dict[int | None, int] = {None: epoch}
        self._seen = array("I")
        self._newest_status = 0
        self._worn = False

    def judge(self, epoch: int, sequence: int, nonce: int | None) -> Verdict:
        """Judge a message by its envelope; `nonce` is that of a STATUS, None for any other message."""
        if nonce is not None:
            if epoch in (self._offers.get(nonce), self._offers.get(None)):
                self._open(epoch, nonce)
            elif nonce != self.nonce:
                return _STALE
        if epoch != self.epoch:
            return _STALE
        slot = sequence % SLOTS
        if sequence <= self._seen[slot]:
            return _REPLAY
        self._seen[slot] = sequence
        if sequence >= _SEQUENCE_RENEWAL:
            self._worn = True
        if nonce is not None:
            if sequence < self._newest_status:
                return _OVERTAKEN
            self._newest_status = sequence
        return _FRESH

    def offer(self, nonce: int | None) -> int:
        """Return the epoch to offer to the process with this start nonce; None: to whoever is there."""
        if nonce is None:
            return self._offers.get(None) or next(reversed(self._offers.values()))
        if nonce == self.nonce and self.epoch is not None and not self._worn:
            return self.epoch
        if nonce not in self._offers:
            unbound = self._offers.pop(None, 0)
            self._offers[nonce] = unbound or self._issue()
            if len(self._offers) > MAX_OFFERS:
                del self._offers[next(iter(self._offers))]
        return self._offers[nonce]

    def withdraw(self, epoch: int) -> bool:
        """Withdraw an offer that another process than the one it was made to has taken up; was there such an offer?

        That process has spoken after the offer was made, so it lives, and the one that the offer was made to does not.
        """
        for nonce, offered in self._offers.items():
            if offered == epoch:
                del self._offers[nonce]
                return True
        return False

    def _open(self, epoch: int, nonce: int) -> None:
        self.epoch = epoch
        self.nonce = nonce
        self._offers.clear()
        self._seen = array("I", bytes(4 * SLOTS))
        self._newest_status = 0
        self._worn = False

    def _issue(self) -> int:
        self._issued = self._issued + 1 if self._issued < _U32_MAX else 1
        return self._issued


class Peer:
    """One node we exchange messages with."""

    __slots__ = (
        "_answer_sequence", "address", "answered_at", "duplicate_id_at", "freshness", "last_heard", "out_epoch",
        "out_sequence", "sender_id", "status", "unauthentic_at", "up",
    )  # fmt: skip

    def __init__(self, address: Address, epoch: int) -> None:
        self.address = address
        self.freshness = Freshness(epoch)
        """Of its messages."""
        self.out_epoch = 0
        """The epoch it keeps for us; 0 until it told."""
        self.out_sequence = 0
        """Of the last message under that epoch."""
        self._answer_sequence = 0
        self.sender_id: int | None = None
        self.status: Status | None = None
        self.up = False
        self.last_heard = -inf
        self.answered_at = -inf
        self.unauthentic_at = -inf
        self.duplicate_id_at = -inf

    def offer(self) -> int:
        """Return the epoch to offer to the process we know, or to whoever is there."""
        return self.freshness.offer(self.freshness.nonce)

    def learn_epoch(self, epoch: int) -> bool:
        """Take over the epoch it keeps for us; return whether it is news."""
        if epoch == self.out_epoch:
            return False
        self.out_epoch = epoch
        self.out_sequence = self._answer_sequence
        return True

    def next_sequence(self, epoch: int) -> int:
        """Return the sequence number for a message under this epoch.

        What goes out under an epoch that was not learned, or not yet, has numbers of its own. Once the epoch is
        learned, counting goes on above them: whoever opened the epoch on an answer of ours saw no higher one.
        """
        # At the end of all numbers, which only a peer that offers no new epoch lets us reach, messages become replays.
        if epoch and epoch == self.out_epoch:
            self.out_sequence = min(self.out_sequence + 1, _U32_MAX)
            return self.out_sequence
        self._answer_sequence = min(self._answer_sequence + 1, _U32_MAX)
        return self._answer_sequence


class Received(Struct, frozen=True, gc=False):
    """A message that was accepted."""

    peer: Peer
    message: Message
    restarted: bool = False
    """The peer's process is another one than before (only with a STATUS)."""


Claim = Callable[[Peer, int, int], bool]
"""May a fresh HANDOFF of a peer, by its epoch and sequence, be run here? Not if the kernel has run it, or it is its."""


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
        self.claim: Claim | None = None
        """Asked about each HANDOFF that is fresh, where the kernel runs some as well; its answer is the last word."""
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
        self._next_death = inf
        """No peer is silent for too long before this."""

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
        if not self._is_sender(envelope.sender, peer, status is not None, now):
            return None
        nonce_before = peer.freshness.nonce
        verdict = peer.freshness.judge(envelope.epoch, envelope.sequence, status.nonce if status else None)
        if verdict is not _FRESH:
            self._reject(peer, verdict, envelope.epoch, status, now)
            return None
        is_asked = self.claim is not None and isinstance(message, Handoff)
        if self.claim is not None and is_asked and not self.claim(peer, envelope.epoch, envelope.sequence):
            self.counters.replays += 1
            return None
        self.counters.accepted += 1
        if status is None:
            if peer.up:
                peer.last_heard = now
            return Received(peer, message)
        self._believe(peer, envelope.sender, status, now)
        return Received(peer, message, nonce_before not in (None, status.nonce))

    def seal(self, peer: Peer, message: Message) -> bytes | None:
        """Return the datagram for a peer, None while it has not told its epoch. Every repeat is sealed anew.

        Raises: ValueError for a message with a value that does not fit its field.
        """
        if not peer.out_epoch:
            self.counters.not_ready += 1
            return None
        if peer.out_sequence < _U32_MAX:  # as `Peer.next_sequence` counts
            peer.out_sequence += 1
        if type(message) is Handoff:
            return self._codec.encode_handoff(self._sender_id, peer.out_epoch, peer.out_sequence, message)
        return self._codec.encode(Envelope(self._sender_id, peer.out_epoch, peer.out_sequence), message)

    def seal_flows(self, peer: Peer, kind: Type, fields: bytes) -> bytes | None:
        """The same for a CLOSED or FLOWS whose fields are there already."""
        if not peer.out_epoch:
            self.counters.not_ready += 1
            return None
        envelope = Envelope(self._sender_id, peer.out_epoch, peer.next_sequence(peer.out_epoch))
        return self._codec.encode_flows(envelope, kind, fields)

    def announce(self, now: float) -> None:
        """Tell every peer our status now."""
        self._next_status = now + self._status_time_s
        for peer in self.by_address.values():
            self._tell(peer, peer.out_epoch, peer.offer())

    def on_timer(self, now: float) -> list[Peer]:
        """Send STATUS where it is time; return the peers that have just been given up."""
        if now >= self._next_status:
            self.announce(now)
        if now < self._next_death:
            return []
        lost = [peer for peer in self.by_address.values() if peer.up and now >= peer.last_heard + self._dead_time_s]
        for peer in lost:
            peer.up = False
        living = (peer.last_heard for peer in self.by_address.values() if peer.up)
        self._next_death = min(living, default=inf) + self._dead_time_s
        return lost

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called next."""
        return min(self._next_status, self._next_death)

    def _is_sender(self, sender_id: int, peer: Peer, is_status: bool, now: float) -> bool:
        """May a message with this sender id come from there? Only STATUS introduces one; duplicates are refused."""
        if not is_status:
            if sender_id == peer.sender_id:
                return True
            self.counters.strangers += 1
            return False
        # An id is free again when its holder is silent: else two nodes that exchange theirs would never be heard.
        others = (each.sender_id for each in self.by_address.values() if each.up and each is not peer)
        if sender_id in (0, self._sender_id, *others):
            self.counters.duplicate_ids += 1
            peer.duplicate_id_at = now
            return False
        return True

    def _reject(self, peer: Peer, verdict: Verdict, epoch: int, status: Status | None, now: float) -> None:
        if verdict is _REPLAY:
            self.counters.replays += 1
        elif verdict is _OVERTAKEN:
            self.counters.overtaken += 1
        else:
            self.counters.stale_epochs += 1
            if status is not None:
                self._answer(peer, epoch, status, now)

    def _answer(self, peer: Peer, epoch: int, status: Status, now: float) -> None:
        """Answer a stale STATUS under the epoch it offers, seldom: it may be a replay.

        One under an epoch that was offered to another process cannot be an old one. It is answered at once, or a flood
        of replays, which use up the seldom answers, could keep a restarted peer out.
        """
        if not peer.freshness.withdraw(epoch):
            if now < peer.answered_at + ANSWER_INTERVAL_S:
                return
            peer.answered_at = now
        self._tell(peer, status.epoch, peer.freshness.offer(status.nonce))

    def _believe(self, peer: Peer, sender_id: int, status: Status, now: float) -> None:
        peer.sender_id = sender_id
        peer.status = status
        peer.last_heard = now
        peer.up = True
        self._next_death = min(self._next_death, now + self._dead_time_s)
        if peer.learn_epoch(status.epoch):
            self._tell(peer, peer.out_epoch, peer.offer())

    def _tell(self, peer: Peer, epoch: int, offered: int) -> None:
        own = self.own
        servers = _most_important(own.servers)
        status = Status(self._nonce, offered, own.state, own.flows, own.digest, own.capabilities, servers)
        self.outbox.append((self._encode(peer, epoch, status), peer.address))

    def _encode(self, peer: Peer, epoch: int, message: Message) -> bytes:
        return self._codec.encode(Envelope(self._sender_id, epoch, peer.next_sequence(epoch)), message)


def _most_important(servers: tuple[Server, ...]) -> tuple[Server, ...]:
    """Return as many as fit into one message, first those that do not answer: what is not named is taken to serve."""
    if len(servers) <= SERVERS_A_MESSAGE:
        return servers
    return tuple(sorted(servers, key=lambda each: each.state is ServerState.ANSWERS)[:SERVERS_A_MESSAGE])
