"""Freshness against a network that does anything and an attacker who replays anything, at any time."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tcpha.peers import SLOTS
from tests.unit.channel_simulation import DEAD_TIME_S, STATUS_TIME_S, Network, Sent

INDEX = st.integers(min_value=0, max_value=1 << 16)
NAMES = st.sampled_from("abc")
_RENEWAL = 1 << 31


class Channel(RuleBasedStateMachine):
    """One front end `a`, two back ends; the checks are in `Network.deliver`, convergence is checked at the end."""

    @initialize(seed=st.integers(min_value=0, max_value=1 << 32), order=st.permutations("abc"))
    def begin(self, seed: int, order: list[str]) -> None:
        self.network = Network(seed, (("a", "b"), ("a", "c")))
        for name in order:
            self.network.start(self.network[name])
            self.network.tick()

    @rule(elapsed_s=st.sampled_from([0.001, 0.05, 0.1, STATUS_TIME_S, 2 * DEAD_TIME_S]))
    def time_passes(self, elapsed_s: float) -> None:
        self.network.tick(elapsed_s)

    @rule(name=NAMES)
    def process_is_replaced(self, name: str) -> None:
        self.network.start(self.network[name])

    @rule(name=NAMES)
    def process_announces(self, name: str) -> None:
        self.network[name].peers.announce(self.network.now)
        self.network.collect(self.network[name])

    @rule(name=NAMES, to=NAMES)
    def message_is_sent(self, name: str, to: str) -> None:
        hosts = self.network.hosts
        if hosts[to].address in hosts[name].neighbours:
            self.network.send(hosts[name], hosts[to])

    @rule(name=NAMES, before=st.integers(min_value=1, max_value=3))
    def process_has_sent_two_thousand_million(self, name: str, before: int) -> None:
        for peer in self.network[name].peers.by_address.values():
            peer.out_sequence = max(peer.out_sequence, _RENEWAL - before)

    @precondition(lambda self: self.network.under_way)
    @rule(index=INDEX)
    def datagram_arrives(self, index: int) -> None:
        self.network.deliver(self.network.take(index % len(self.network.under_way)))

    @precondition(lambda self: self.network.under_way)
    @rule(index=INDEX)
    def datagram_is_lost(self, index: int) -> None:
        self.network.take(index % len(self.network.under_way))

    @rule()
    def everything_arrives(self) -> None:
        self.network.deliver_all()

    @precondition(lambda self: self.network.recorded)
    @rule(index=INDEX)
    def old_datagram_is_replayed(self, index: int) -> None:
        self.network.deliver(self.network.recorded[-1 - index % len(self.network.recorded)])

    @precondition(lambda self: self.network.recorded)
    @rule(index=INDEX, name=NAMES)
    def datagram_is_sent_to_another_node(self, index: int, name: str) -> None:
        sent = self.network.recorded[index % len(self.network.recorded)]
        if self.network[name] is not sent.target:
            self.network.deliver(sent, self.network[name])

    def teardown(self) -> None:
        if not hasattr(self, "network"):
            return
        # The attacker plays everything once more, to whoever runs now; then the network is without fault.
        for sent in list(self.network.recorded):
            self.network.deliver(sent)
        self.network.lose_all()
        self.network.run(3 * STATUS_TIME_S)
        assert self.network.has_converged()


TestChannel = Channel.TestCase
TestChannel.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


@settings(deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=1 << 32),
    losses=st.lists(st.booleans(), max_size=40),
    restarts=st.lists(st.tuples(st.sampled_from("ab"), st.integers(min_value=0, max_value=30)), max_size=4),
)
def test_losses_and_restarts_then_a_good_network_converges(
    seed: int, losses: list[bool], restarts: list[tuple[str, int]]
) -> None:
    network = Network(seed)
    network.start_all()
    fates = iter(losses)
    for turn in range(30):
        for name, when in restarts:
            if when == turn:
                network.start(network[name])
        network.tick(STATUS_TIME_S / 2)
        while network.under_way:
            sent = network.take()
            if not next(fates, False):
                network.deliver(sent)
    network.run(3 * STATUS_TIME_S)
    assert network.has_converged()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(min_value=0, max_value=1 << 32),
    displacement=st.integers(min_value=1, max_value=SLOTS - 1),
    first=st.sampled_from([100, SLOTS - 3, 1 << 20, _RENEWAL - 5000]),
)
def test_messages_displaced_by_less_than_the_slots_are_accepted_exactly_once(
    seed: int, displacement: int, first: int
) -> None:
    network = Network(seed)
    network.start_all()
    network.run(1.0)
    a, b = network["a"], network["b"]
    a.peer(b).out_sequence = first
    sealed = [sent for _ in range(SLOTS + 500) if (sent := network.send(a, b)) is not None]
    network.lose_all()
    chance = random.Random(seed)
    # Each is late by up to so many places: none is overtaken by one that belongs into its slot.
    order = sorted(range(len(sealed)), key=lambda at: at + chance.randint(0, displacement))
    assert all(network.deliver(sealed[at]) is not None for at in order)
    assert not any(network.deliver(sent) is not None for sent in chance.sample(sealed, 100))
    assert b.peers.counters.replays == 100


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(min_value=0, max_value=1 << 32),
    lives=st.integers(min_value=1, max_value=12),
    per_step=st.sampled_from([1, 3, 10]),
)
def test_flood_of_old_status_does_not_keep_a_restarted_node_out(seed: int, lives: int, per_step: int) -> None:
    """The seldom answers go to the attacker; still the new process is believed soon."""
    network = Network(seed)
    a, b = network["a"], network["b"]
    network.start_all()
    for _ in range(lives):
        network.run(0.5)
        network.start(a)
    network.run(0.5)
    old = [sent for sent in network.recorded if sent.source is a and sent.incarnation < a.incarnation]
    network.start(a)
    end = network.now + 3 * STATUS_TIME_S
    turn = 0
    while not (network.hears(b, a) and network.hears(a, b)):
        assert network.now < end, "the restarted node is kept out"
        for _ in range(per_step):
            turn += 1
            network.deliver(old[turn % len(old)])
        # The datagrams of good nodes are slower than the attacker's.
        slow: list[Sent] = list(network.under_way)
        network.lose_all()
        network.tick(0.002)
        for sent in slow:
            network.deliver(sent)
    assert len(network.recorded) < 5000
