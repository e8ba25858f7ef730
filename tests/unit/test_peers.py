"""Freshness one step at a time: the start, restarts, replays, the order of arrival, the renewal of epochs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from msgspec import structs

from tcpha.peers import ANSWER_INTERVAL_S, MAX_OFFERS, Peer, Peers
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import HandoffCodec
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Adopted, Handoff, Identity, Message, NodeState
from tcpha.proto.seqnum import SeqNum
from tests.unit.channel_simulation import (
    DEAD_TIME_S,
    STATUS_TIME_S,
    Network,
    Sent,
    closed,
    sealed,
    status_of,
    trio,
)

_RENEWAL = 1 << 31
HANDOFF = Handoff(
    Identity(ConnectionKey(bytes(12)), SeqNum(1), SeqNum(2)), Agreement(1460, None, False), None, 502, 0, None, 0, False
)


@pytest.fixture
def network() -> Network:
    known = trio()
    assert known.has_converged()
    return known


# The start


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_unknown_peers_one_announces_three_status_make_them_known(order: str) -> None:
    network = Network(1)
    first = network[order[0]]
    network.start_all()
    first.peers.announce(network.now)
    network.collect(first)
    said = [network.deliver(network.take()) for _ in range(3)]
    assert [received is not None for received in said] == [False, True, True]
    assert network.has_converged()


def test_unknown_peers_announcements_cross_both_are_known_at_once() -> None:
    network = Network(1)
    network.start_all()
    network.tick()
    network.deliver_all()
    assert network.has_converged()


def test_unknown_peers_message_to_send_is_counted_and_not_sealed() -> None:
    network = Network(1)
    network.start_all()
    a = network["a"]
    assert a.peers.seal(a.peer(network["b"]), closed(1)) is None
    assert a.peers.counters.not_ready == 1


@pytest.mark.parametrize("message", [structs.replace(HANDOFF, window=65536), Adopted(HANDOFF.identity, SeqNum(-1))])
def test_known_peers_message_that_does_not_fit_is_a_value_error(message: Message) -> None:
    network = Network(1)
    network.start_all()
    network.run(DEAD_TIME_S)
    a = network["a"]
    with pytest.raises(ValueError, match=r"."):
        a.peers.seal(a.peer(network["b"]), message)


def test_known_peers_nothing_is_news_nobody_answers(network: Network) -> None:
    a, b = network["a"], network["b"]
    received = network.deliver(status_of(network, a, b))
    assert received is not None
    assert not received.restarted
    assert not [sent for sent in network.under_way if sent.source is b]


# Restarts


@pytest.mark.parametrize("names", ["a", "b", "ab", "abc"])
def test_known_peers_processes_replaced_converge_within_one_announcement(network: Network, names: str) -> None:
    for name in names:
        network.start(network[name])
    network.tick(STATUS_TIME_S)
    network.deliver_all()
    assert network.has_converged()


def test_unknown_peer_first_status_is_no_restart() -> None:
    network = Network(1)
    network.start_all()
    network.tick()
    told = []
    while network.under_way:
        told.append(network.deliver(network.take()))
    assert [received.restarted for received in told if received is not None] == [False] * 4


def test_known_peer_replaced_first_status_tells_so_once(network: Network) -> None:
    a, b = network["a"], network["b"]
    network.start(a)
    told = []
    for _ in range(4):
        network.tick(STATUS_TIME_S)
        while network.under_way:
            sent = network.take()
            received = network.deliver(sent)
            if received is not None and sent.target is b:
                told.append(received.restarted)
    assert told[0]
    assert not any(told[1:])
    assert len(told) >= 4


def test_known_peer_replaced_answers_under_the_old_epoch_is_told_a_new_one(network: Network) -> None:
    """Its sequence begins again: under the old epoch its messages could be taken for replays for hours."""
    a, b = network["a"], network["b"]
    network.run(5.0)
    network.start(a)
    epoch = b.peer(a).freshness.epoch
    question = status_of(network, b, a)
    network.lose_all()
    network.deliver(question)
    assert network.deliver(network.take()) is None
    network.deliver_all()
    assert b.peer(a).freshness.epoch != epoch
    assert network.hears(b, a)


def test_known_peer_replaced_answers_into_a_gap_of_its_predecessor_its_words_are_void(network: Network) -> None:
    """A lost message of the old process leaves a free slot, into which one of the new process would fit."""
    a, b = network["a"], network["b"]
    old = sealed(network, a, b)
    network.start(a)
    while True:  # the new process counts up to the number of the message that never arrived
        question = status_of(network, b, a)
        network.lose_all()
        network.now += ANSWER_INTERVAL_S
        network.deliver(question)
        answer = network.take()
        if sequence_of(answer) == sequence_of(old):
            break
        network.lose_all()
    assert network.deliver(answer) is None
    network.deliver_all()
    assert network.hears(b, a)
    assert network.deliver(old) is None


def test_two_processes_follow_each_other_unseen_words_of_the_first_are_void(network: Network) -> None:
    a, b = network["a"], network["b"]
    network.start(a)
    network.deliver(status_of(network, a, b))
    network.lose_all()
    offered = b.peer(a).freshness.offer(a.peers._nonce)
    a.peer(b).learn_epoch(offered)
    kept = [sealed(network, a, b), status_of(network, a, b)]
    network.lose_all()
    network.start(a)
    network.run(2 * STATUS_TIME_S)
    assert network.hears(b, a)
    assert b.peer(a).freshness.epoch != offered
    assert [network.deliver(sent) for sent in kept] == [None, None]


def test_offered_epoch_message_before_status_is_not_accepted_yet(network: Network) -> None:
    a, b = network["a"], network["b"]
    network.start(a)
    network.deliver(status_of(network, a, b))
    network.deliver(next(network.take(at) for at, sent in enumerate(network.under_way) if sent.source is b))
    early = sealed(network, a, b)
    assert network.deliver(early) is None
    assert b.peers.counters.stale_epochs == 2 + 1  # and one at the start
    network.deliver_all()
    assert network.hears(b, a)


# Replays and order


def test_replayed_message_is_counted_and_not_answered(network: Network) -> None:
    a, b = network["a"], network["b"]
    for sent in (sealed(network, a, b), status_of(network, a, b)):
        network.lose_all()
        assert network.deliver(sent) is not None
        assert network.deliver(sent) is None
        assert not network.under_way
    assert b.peers.counters.replays == 2


def test_handoff_that_was_run_elsewhere_is_not_accepted_and_nothing_else_is_asked_about(network: Network) -> None:
    a, b = network["a"], network["b"]
    asked: list[tuple[int, int]] = []
    answers = [True, False]

    def claim(peer: Peer, epoch: int, sequence: int) -> bool:
        asked.append((epoch, sequence))
        return answers.pop(0)

    b.peers.claim = claim
    first, second = (a.peers.seal(a.peer(b), HANDOFF) for _ in range(2))
    assert first is not None
    assert second is not None
    source = b.peer(a).address
    assert b.peers.on_datagram(first, source, network.now) is not None
    assert b.peers.on_datagram(second, source, network.now) is None
    assert b.peers.on_datagram(second, source, network.now) is None, "a replay is none of the other's business"
    assert network.deliver(sealed(network, a, b)) is not None
    assert b.peers.counters.replays == 2
    assert [sequence for _, sequence in asked] == [a.peer(b).out_sequence - 2, a.peer(b).out_sequence - 1]
    assert {epoch for epoch, _ in asked} == {b.peer(a).freshness.epoch}


def test_message_overtaken_by_one_of_its_slot_is_not_accepted(network: Network) -> None:
    a, b = network["a"], network["b"]
    early = sealed(network, a, b)
    a.peer(b).out_sequence += 4095
    assert network.deliver(sealed(network, a, b)) is not None
    assert network.deliver(early) is None
    assert b.peers.counters.replays == 1


def test_status_overtaken_by_a_later_one_teaches_nothing(network: Network) -> None:
    a, b = network["a"], network["b"]
    a.peers.own = replace(a.peers.own, state=NodeState.UP)
    early = status_of(network, a, b)
    a.peers.own = replace(a.peers.own, state=NodeState.DRAINING)
    network.deliver(status_of(network, a, b))
    assert network.deliver(early) is None
    assert b.peers.counters.overtaken == 1
    status = b.peer(a).status
    assert status is not None
    assert status.state is NodeState.DRAINING


def test_old_status_replayed_often_is_answered_once_in_the_interval(network: Network) -> None:
    a, b = network["a"], network["b"]
    old = status_of(network, a, b)
    network.start(b)
    network.lose_all()
    begun = network.now
    answers = []
    while network.now < begun + 1.0:
        network.deliver(old)
        answers += [network.now for sent in network.under_way if sent.source is b]
        network.lose_all()
        network.now += 0.001
    assert 9 <= len(answers) <= 10
    assert all(later - earlier >= ANSWER_INTERVAL_S for earlier, later in itertools.pairwise(answers))


def test_answer_under_the_epoch_offered_to_a_dead_process_is_answered_at_once_and_once(network: Network) -> None:
    a, b = network["a"], network["b"]
    network.start(a)
    dead = status_of(network, a, b)
    network.start(a)
    network.lose_all()
    network.deliver(dead)
    network.deliver(network.take())  # offers an epoch to the dead process; the living one answers under it
    living = network.take()
    assert network.deliver(living) is None
    assert len(network.under_way) == 1
    network.deliver_all()
    assert network.hears(b, a)
    network.lose_all()
    assert network.deliver(living) is None
    assert not network.under_way


def test_status_of_many_dead_processes_offers_stay_few(network: Network) -> None:
    a, b = network["a"], network["b"]
    freshness = b.peer(a).freshness
    offers = {freshness.offer(nonce) for nonce in range(1, 100)}
    assert len(offers) == 99
    assert len({freshness.offer(nonce) for nonce in range(100 - MAX_OFFERS, 100)} & offers) == MAX_OFFERS
    assert freshness.offer(1) not in offers


# Epochs


def test_sequence_passes_two_to_the_31_a_further_epoch_is_used_and_numbers_are_low_again(network: Network) -> None:
    a, b = network["a"], network["b"]
    before = b.peer(a).freshness.epoch
    a.peer(b).out_sequence = _RENEWAL - 2
    late = sealed(network, a, b)
    for _ in range(3):
        assert network.deliver(sealed(network, a, b)) is not None
    network.run(2 * STATUS_TIME_S)
    assert b.peer(a).freshness.epoch not in (None, before)
    assert a.peer(b).out_sequence < 100
    assert network.deliver(sealed(network, a, b)) is not None
    assert network.deliver(late) is None


def test_renewal_status_of_the_old_epoch_arrives_late_the_new_one_stays(network: Network) -> None:
    a, b = network["a"], network["b"]
    late = status_of(network, b, a)
    a.peer(b).out_sequence = _RENEWAL
    network.deliver(sealed(network, a, b))
    network.run(2 * STATUS_TIME_S)
    renewed = a.peer(b).out_epoch
    assert network.deliver(late) is None
    assert a.peer(b).out_epoch == renewed
    assert network.hears(b, a)


def test_sequence_at_its_end_process_goes_on(network: Network) -> None:
    a, b = network["a"], network["b"]
    a.peer(b).out_sequence = (1 << 32) - 2
    received = [network.deliver(sealed(network, a, b)) for _ in range(3)]
    assert [each is not None for each in received] == [True, False, False]
    network.run(2 * STATUS_TIME_S)
    assert network.has_converged()


def test_highest_epoch_is_followed_by_one_not_by_zero() -> None:
    network = Network(1)
    a, b = network["a"], network["b"]
    network.start_all()
    for host, other in ((a, b), (b, a)):
        address = other.address
        host.peers = Peers(
            [address], HandoffCodec(host.keyring), host.peers.own, sender_id=host.sender_id, nonce=host.sender_id,
            draw_epoch=lambda: 0xFFFFFFFF, status_time_s=STATUS_TIME_S, dead_time_s=DEAD_TIME_S,
        )  # fmt: skip
    network.run(1.0)
    assert network.has_converged()
    network.start(a)
    network.run(1.0)
    assert b.peer(a).freshness.epoch == 1
    assert network.has_converged()


def sequence_of(sent: Sent) -> int:
    return HandoffCodec(sent.source.keyring).decode(sent.octets)[0].sequence
