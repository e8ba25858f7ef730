"""Nodes that talk over a network that loses, repeats and reorders, and an attacker who has recorded everything.

Time is virtual. Whatever a node accepts is checked at once against what must hold in every case: `Network.deliver`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tcpha.peers import Address, OwnStatus, Peer, Peers, Received
from tcpha.proto.handoff import HandoffCodec
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Closed, Identity, NodeState
from tcpha.proto.seqnum import SeqNum

STATUS_TIME_S = 0.25
DEAD_TIME_S = 1.1
KEYRING = Keyring((Key(1, bytes(range(32))),))
DIGEST = bytes(16)
_STEP_S = 0.01


def closed(number: int) -> Closed:
    """A message that no other is equal to."""
    return Closed((Identity(ConnectionKey(bytes(12)), SeqNum(number), SeqNum(0)),))


@dataclass(eq=False, slots=True)
class Host:
    """A place where one process after the other runs."""

    name: str
    address: Address
    sender_id: int
    neighbours: tuple[Address, ...] = ()
    keyring: Keyring = KEYRING
    incarnation: int = 0
    peers: Peers = field(init=False)

    def peer(self, other: Host) -> Peer:
        return self.peers.by_address[other.address]


@dataclass(frozen=True, eq=False, slots=True)
class Sent:
    """A datagram, as the attacker has recorded it."""

    octets: bytes
    source: Host
    target: Host
    incarnation: int
    """Of the source."""


class Network:
    """Hosts, what is under way between them, and all that ever was."""

    def __init__(self, seed: int, links: tuple[tuple[str, str], ...] = (("a", "b"),)) -> None:
        self.now = 100.0
        self.under_way: list[Sent] = []
        self.recorded: list[Sent] = []
        self.messages = 0
        self._random = random.Random(seed)
        self._accepted_by: dict[int, tuple[str, int]] = {}
        self._newest: dict[tuple[str, int, str], int] = {}
        names = sorted({name for link in links for name in link})
        self.hosts = {name: Host(name, (name, 666), at) for at, name in enumerate(names, start=1)}
        for name, host in self.hosts.items():
            ends = [other for link in links if name in link for other in link if other != name]
            host.neighbours = tuple(self.hosts[other].address for other in ends)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    # --- the life of processes

    def start(self, host: Host, state: NodeState = NodeState.UP) -> None:
        """Start a process, whatever ran there before is gone without a word."""
        host.incarnation += 1
        host.peers = Peers(
            host.neighbours,
            HandoffCodec(host.keyring),
            OwnStatus(state, 0, DIGEST),
            sender_id=host.sender_id,
            nonce=self._random.getrandbits(64),
            draw_epoch=lambda: self._random.randrange(1, 1 << 32),
            status_time_s=STATUS_TIME_S,
            dead_time_s=DEAD_TIME_S,
        )

    def start_all(self) -> None:
        for host in self.hosts.values():
            self.start(host)

    def tick(self, elapsed_s: float = 0.0) -> None:
        """Let time pass, and every process do what is due."""
        self.now += elapsed_s
        for host in self.running():
            host.peers.on_timer(self.now)
            self.collect(host)

    def running(self) -> Iterator[Host]:
        return (host for host in self.hosts.values() if host.incarnation)

    def send(self, source: Host, target: Host) -> Sent | None:
        """Seal a message that no other is equal to and put it under way; None if the source may not send yet."""
        self.messages += 1
        octets = source.peers.seal(source.peer(target), closed(self.messages))
        if octets is None:
            return None
        self._put_under_way(Sent(octets, source, target, source.incarnation))
        return self.under_way[-1]

    def collect(self, host: Host) -> None:
        for octets, address in host.peers.outbox:
            target = next(other for other in self.hosts.values() if other.address == address)
            self._put_under_way(Sent(octets, host, target, host.incarnation))
        host.peers.outbox.clear()

    def _put_under_way(self, sent: Sent) -> None:
        self.under_way.append(sent)
        self.recorded.append(sent)

    # --- what the network and the attacker do

    def take(self, index: int = 0) -> Sent:
        return self.under_way.pop(index)

    def deliver(self, sent: Sent, target: Host | None = None) -> Received | None:
        """Hand a datagram, new or old, to its target or another host. Checks that

        - no datagram is accepted twice, by whatever process;
        - nothing of an earlier process is accepted after something of a later one;
        - what is not accepted teaches nothing.
        """
        receiver = target or sent.target
        if not receiver.incarnation:
            return None
        before = believed(receiver)
        received = receiver.peers.on_datagram(sent.octets, sent.source.address, self.now)
        self.collect(receiver)
        if received is None:
            assert believed(receiver) == before, "a datagram that was not accepted taught something"
            return None
        assert receiver is sent.target, "a datagram for another node was accepted"
        assert id(sent) not in self._accepted_by, "a datagram was accepted twice"
        self._accepted_by[id(sent)] = (receiver.name, receiver.incarnation)
        direction = (receiver.name, receiver.incarnation, sent.source.name)
        assert sent.incarnation >= self._newest.get(direction, 0), "a dead process was believed after its successor"
        self._newest[direction] = sent.incarnation
        return received

    def deliver_all(self) -> None:
        """Deliver in order what is under way and what answers it, until there is silence."""
        rounds = 0
        while self.under_way:
            self.deliver(self.take())
            rounds += 1
            assert rounds < 10_000, "the nodes never stop answering each other"

    def lose_all(self) -> None:
        self.under_way.clear()

    def run(self, duration_s: float) -> None:
        """Let time pass over a network without fault."""
        end = self.now + duration_s
        while self.now < end:
            self.tick(_STEP_S)
            self.deliver_all()

    # --- what is expected of it

    def has_converged(self) -> bool:
        """Does every node believe every neighbour, under the epoch that the neighbour knows, and hear its messages?"""
        return all(self.hears(host, other) for host in self.running() for other in self._neighbours(host))

    def hears(self, host: Host, other: Host) -> bool:
        """Does a host believe what the process that runs at the other one says now?"""
        peer = host.peer(other)
        if not peer.up or other.peer(host).out_epoch != peer.freshness.epoch:
            return False
        sent = self.send(other, host)
        return sent is not None and self.deliver(self.take(-1)) is not None

    def _neighbours(self, host: Host) -> Iterator[Host]:
        return (other for other in self.running() if other.address in host.neighbours)


def believed(host: Host) -> list[object]:
    """Everything that a host has learned of its peers."""
    learned = ("status", "sender_id", "up", "last_heard", "out_epoch")
    return [
        [*(getattr(peer, name) for name in learned), peer.freshness.epoch, peer.freshness.nonce]
        for peer in host.peers.by_address.values()
    ]


def trio() -> Network:
    """A front end `a` and back ends `b`, `c` that know each other."""
    network = Network(1, (("a", "b"), ("a", "c")))
    network.start_all()
    network.run(1.0)
    return network


def sealed(network: Network, source: Host, target: Host) -> Sent:
    """A message under way, taken off the way."""
    sent = network.send(source, target)
    assert sent is not None, "the source has not learned its epoch"
    return network.take(-1)


def status_of(network: Network, source: Host, target: Host) -> Sent:
    """The STATUS that a source announces to a target, taken off the way."""
    source.peers.announce(network.now)
    network.collect(source)
    return next(network.take(at) for at, sent in enumerate(network.under_way) if sent.target is target)
