"""Who may speak on the handoff channel, with which key and id, when a peer is given up, and what it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpha.proto.handoff import SERVERS_A_MESSAGE, Envelope, HandoffCodec
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Capabilities, NodeState, Server, ServerState, Status
from tests.unit.channel_simulation import (
    DEAD_TIME_S,
    DIGEST,
    STATUS_TIME_S,
    Host,
    Network,
    closed,
    sealed,
    status_of,
    trio,
)

OLD, NEW, OTHER = Key(1, bytes(range(32))), Key(2, bytes(range(50, 82))), Key(1, bytes(range(100, 132)))


@pytest.fixture
def network() -> Network:
    known = trio()
    assert known.has_converged()
    return known


def forged(host: Host, envelope: Envelope, *, nonce: int = 7, epoch: int = 9) -> bytes:
    """A STATUS sealed with the cluster's key, by whom it may be."""
    return HandoffCodec(host.keyring).encode(envelope, Status(nonce, epoch, NodeState.UP, 0, DIGEST))


# Who speaks


def test_datagram_from_an_address_of_no_peer_is_counted_and_not_answered(network: Network) -> None:
    a, b, c = (network[name] for name in "abc")
    sent = sealed(network, a, b)
    assert b.peers.on_datagram(sent.octets, c.address, network.now) is None
    assert b.peers.on_datagram(sent.octets, (a.address[0], 667), network.now) is None
    assert b.peers.counters.strangers == 2
    assert not b.peers.outbox


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(67), bytes(1400)])
def test_garbage_from_a_peer_is_counted_and_not_answered(network: Network, garbage: bytes) -> None:
    a, b = network["a"], network["b"]
    assert b.peers.on_datagram(garbage, a.address, network.now) is None
    assert b.peers.counters.malformed == 1
    assert not b.peers.outbox


def test_datagram_with_any_octet_changed_is_not_believed(network: Network) -> None:
    a, b = network["a"], network["b"]
    octets = status_of(network, a, b).octets
    for at in range(len(octets)):
        changed = octets[:at] + bytes((octets[at] ^ 0x10,)) + octets[at + 1 :]
        assert b.peers.on_datagram(changed, a.address, network.now) is None
    for length in range(len(octets)):
        assert b.peers.on_datagram(octets[:length], a.address, network.now) is None
    counters = b.peers.counters
    assert counters.unauthentic + counters.malformed == 2 * len(octets)
    assert not b.peers.outbox
    assert b.peers.on_datagram(octets, a.address, network.now) is not None


def test_peer_with_another_secret_nobody_is_believed_and_both_know_why() -> None:
    network = Network(1)
    a, b = network["a"], network["b"]
    b.keyring = Keyring((OTHER,))
    network.start_all()
    network.run(1.0)
    for host, other in ((a, b), (b, a)):
        peer = host.peer(other)
        assert not peer.up
        assert host.peers.counters.unauthentic >= 4
        assert network.now - peer.unauthentic_at < STATUS_TIME_S
        assert host.peers.counters.accepted == 0


@pytest.mark.parametrize(
    ("left", "right", "heard"),
    [
        ((OLD,), (OLD,), True),
        ((OLD,), (OLD, NEW), True),
        ((OLD, NEW), (OLD,), True),
        ((OLD, NEW), (NEW, OLD), True),
        ((NEW, OLD), (OLD, NEW), True),
        ((NEW, OLD), (NEW,), True),
        ((OLD,), (NEW,), False),
        ((OLD,), (OTHER,), False),
        ((NEW, OLD), (OLD,), False),  # skipped a step: the second does not know the new key yet
    ],
)
def test_keys_in_rotation_neighbouring_steps_hear_each_other(
    left: tuple[Key, ...], right: tuple[Key, ...], heard: bool
) -> None:
    network = Network(1)
    network["a"].keyring, network["b"].keyring = Keyring(left), Keyring(right)
    network.start_all()
    network.run(1.0)
    assert network.has_converged() is heard


def test_keys_rotated_node_by_node_messages_are_heard_throughout(network: Network) -> None:
    for keys in ((OLD, NEW), (NEW, OLD), (NEW,)):
        for name in "bac":
            network[name].keyring = Keyring(keys)
            network.start(network[name])
            network.run(2 * STATUS_TIME_S)
            assert network.has_converged(), f"{name} with the keys {[key.number for key in keys]}"


# Sender ids


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_status_with_a_taken_sender_id_is_refused(network: Network, taken: int) -> None:
    """Of nobody, of the receiver itself, of another peer."""
    a, b = network["a"], network["b"]
    b.sender_id = taken
    network.start(b)
    network.run(1.5)
    assert a.peers.counters.duplicate_ids >= 4
    assert network.now - a.peer(b).duplicate_id_at < STATUS_TIME_S
    assert not a.peer(b).up
    assert a.peer(network["c"]).up


def test_peers_exchange_their_sender_ids_both_are_heard_again(network: Network) -> None:
    b, c = network["b"], network["c"]
    b.sender_id, c.sender_id = c.sender_id, b.sender_id
    network.start(b)
    network.start(c)
    network.run(DEAD_TIME_S + 2 * STATUS_TIME_S)
    assert network.has_converged()


def test_silent_peer_comes_back_its_sender_id_was_taken_meanwhile_it_is_refused(network: Network) -> None:
    a, b, c = (network[name] for name in "abc")
    kept = status_of(network, b, a)
    network.lose_all()
    b.incarnation = 0
    network.run(DEAD_TIME_S + STATUS_TIME_S)
    c.sender_id = b.sender_id
    network.start(c)
    network.run(1.0)
    assert a.peer(c).up
    assert network.deliver(kept) is None
    assert a.peers.counters.duplicate_ids == 1


def test_message_with_another_sender_id_than_its_status_is_refused(network: Network) -> None:
    a, b = network["a"], network["b"]
    epoch = b.peer(a).freshness.epoch
    assert epoch is not None
    octets = HandoffCodec(a.keyring).encode(Envelope(77, epoch, 1000), closed(1))
    assert b.peers.on_datagram(octets, a.address, network.now) is None
    assert b.peers.counters.strangers == 1


def test_own_datagram_comes_back_from_the_peers_address_is_refused(network: Network) -> None:
    a, b = network["a"], network["b"]
    for sent in (sealed(network, a, b), status_of(network, a, b)):
        assert a.peers.on_datagram(sent.octets, b.address, network.now) is None
    assert not a.peers.outbox


def test_status_of_a_node_with_the_key_but_without_the_epoch_is_not_believed(network: Network) -> None:
    a, b = network["a"], network["b"]
    before = b.peer(a).status
    for epoch in (0, 1, 0xFFFFFFFF):
        assert b.peers.on_datagram(forged(a, Envelope(a.sender_id, epoch, 500)), a.address, network.now) is None
    assert b.peer(a).status is before
    assert network.hears(b, a)


# Life and death


def test_peer_falls_silent_it_is_given_up_once_after_the_dead_time(network: Network) -> None:
    a, b = network["a"], network["b"]
    peer = a.peer(b)
    peers = a.peers
    heard = peer.last_heard
    b.incarnation = 0
    given_up = []
    while network.now < heard + 2 * DEAD_TIME_S:
        network.now = max(peers.next_deadline(), network.now)
        given_up += [(network.now, lost) for lost in peers.on_timer(network.now) if lost is peer]
        network.collect(a)
        network.deliver_all()
    assert given_up == [(heard + DEAD_TIME_S, peer)]
    assert not peer.up


@pytest.mark.parametrize("replaced", [False, True])
def test_silent_peer_speaks_again_it_is_up(network: Network, replaced: bool) -> None:
    a, b = network["a"], network["b"]
    for _ in range(10):
        network.tick(STATUS_TIME_S)
        network.lose_all()
    assert not a.peer(b).up
    if replaced:
        network.start(b)
    network.run(2 * STATUS_TIME_S)
    assert a.peer(b).up
    assert network.has_converged()


def test_peer_whose_status_is_lost_but_not_its_other_messages_is_not_given_up(network: Network) -> None:
    a, b = network["a"], network["b"]
    end = network.now + DEAD_TIME_S + 0.1
    while network.now < end:
        assert network.deliver(sealed(network, b, a)) is not None
        network.tick(0.05)
        network.lose_all()
    assert a.peer(b).up


# What is told


def test_own_state_changes_announce_tells_everybody_now_and_postpones_the_next(network: Network) -> None:
    a, b, c = (network[name] for name in "abc")
    a.peers.own = replace(a.peers.own, state=NodeState.DRAINING, flows=12)
    a.peers.announce(network.now)
    network.collect(a)
    network.deliver_all()
    for host in (b, c):
        status = host.peer(a).status
        assert status is not None
        assert (status.state, status.flows) == (NodeState.DRAINING, 12)
    assert a.peers.next_deadline() <= network.now + STATUS_TIME_S
    a.peers.on_timer(network.now + STATUS_TIME_S / 2)
    assert not a.peers.outbox
    a.peers.on_timer(network.now + STATUS_TIME_S)
    assert len(a.peers.outbox) == 2


def test_node_without_peers_has_nothing_to_do_but_to_wait() -> None:
    network = Network(1)
    a = network["a"]
    a.neighbours = ()
    network.start(a)
    assert a.peers.on_timer(network.now) == []
    assert a.peers.next_deadline() == network.now + STATUS_TIME_S
    assert not a.peers.outbox


def test_more_servers_than_a_status_holds_those_in_trouble_are_told(network: Network) -> None:
    a, b = network["a"], network["b"]
    states = [ServerState.ANSWERS] * 60 + [ServerState.NO_LISTENER, ServerState.SILENT]
    servers = tuple(Server(bytes(15) + bytes((at,)), 80, state) for at, state in enumerate(states))
    b.peers.own = replace(b.peers.own, capabilities=Capabilities(7, True, True, 1460), servers=servers)
    network.run(STATUS_TIME_S)
    status = a.peer(b).status
    assert status is not None
    assert len(status.servers) == SERVERS_A_MESSAGE
    assert set(servers[-2:]) <= set(status.servers)
