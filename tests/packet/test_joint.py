"""Whatever is lost, late, repeated or asleep: no request runs twice, no two servers answer one, and all comes to rest.

Runs of the whole cluster as `joint` models it, one per seed; a failure names the seed, and the run can be repeated.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from random import Random

import pytest

from tcpha.proto.ip import connection_key, reverse_key
from tests.packet.joint import CLIENT, VIP, BackEnd, Luck, Process, World
from tests.packet.joint_host import Client

SEEDS = range(200 if os.environ.get("TCPHA_LONG") == "1" else 12)
REST_S = 200.0
"""Longer than anybody repeats or remembers anything."""
FAIR = Luck()
LOSSY = Luck(packets_lost=0.1, packets_repeated=0.2, messages_lost=0.2)
LATE = Luck(packets_lost=0.02, packets_repeated=0.3, messages_lost=0.05, messages_late=0.4, lateness_s=0.3)
SLEEPY = Luck(packets_repeated=0.1, messages_lost=0.3, naps=0.3)
VERY_LATE = Luck(packets_repeated=0.5, messages_lost=0.05, messages_late=0.3, lateness_s=4.0)


class Run:
    """Clients that come and go on few ports."""

    def __init__(self, seed: int, luck: Luck, *, cookies: bool = False, server_resets: float = 0.0) -> None:
        self.random = Random(seed)
        self.world = World(self.random, luck, cookies=cookies)
        self.clients: list[Client] = []
        self.on_port: dict[int, Client] = {}
        for backend in self.world.backends:
            backend.host.resets_at_once = server_resets
        self.world.run(0.01)

    def client(self, method: str) -> Client:
        """Begin a connection on a port that is free, or whose client dies for it."""
        world, port = self.world, self.random.choice((40001, 40003, 40005))
        before = self.on_port.get(port)
        if before is not None and not before.outcome:
            self.random.choice((before.resets, before.vanishes))()
        irs = self.random.getrandbits(32) if before is None else before.irs + 70_000 + self.random.randrange(1 << 20)
        key = connection_key(CLIENT, port, VIP, 80)
        made = Client(key, irs, f"{method} /{len(self.clients)}", world.from_client, world.after)
        world.clients[reverse_key(key)] = made.hears
        self.clients.append(made)
        self.on_port[port] = made
        made.begin()
        return made

    def ran(self) -> Counter[str]:
        return sum((backend.host.ran for backend in self.world.backends), Counter())

    def check(self) -> None:
        """What must hold when all has come to rest."""
        self.world.luck = FAIR
        self.world.run(REST_S)
        for backend in self.world.backends:
            for line, times in backend.host.ran.items():
                may_repeat = backend.restarted and line.startswith("GET")
                assert times == 1 or may_repeat, f"{line} ran {times} times at {backend.host.name}"
            begun = {(client.key, client.irs) for client in self.clients}
            assert backend.host.accepted.keys() <= begun, "a segment of no handshake was taken for one's end"
            assert backend.core.table.live == 0
        for line, times in self.ran().items():
            assert times == 1 or line.startswith("GET"), f"{line} ran at both"
        assert self.world.front_end.core.table.live == 0
        for client in self.clients:
            if client.outcome == "answered" and client.octets and not client.octets.startswith(b"HTTP/1.1 503 "):
                assert client.octets in self.answers(client)

    def answers(self, client: Client) -> list[bytes]:
        """What the servers would answer."""
        return [f"{backend.host.name} ran {client.line}".encode() for backend in self.world.backends]


@pytest.mark.parametrize("cookies", [False, True])
def test_nothing_goes_wrong_every_request_runs_and_is_answered(cookies: bool) -> None:
    run = Run(1, FAIR, cookies=cookies)
    for number in range(30):
        client = run.client(("GET", "POST")[number % 2])
        run.world.run(1.0)
        assert client.outcome == "answered"
        assert client.octets in run.answers(client)
    run.check()
    assert sum(run.ran().values()) == 30


@pytest.mark.parametrize("luck", [LOSSY, LATE, VERY_LATE, SLEEPY], ids=["lossy", "late", "very late", "sleepy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_packets_and_messages_are_lost_and_late_no_request_runs_twice(seed: int, luck: Luck) -> None:
    run = Run(seed, luck, cookies=seed % 2 == 1, server_resets=0.2 if seed % 3 == 0 else 0.0)
    for _ in range(12):
        run.client(run.random.choice(("GET", "POST")))
        run.world.run(run.random.choice((0.001, 0.01, 0.1, 1.0, 5.0)))
    run.check()


@pytest.mark.parametrize("luck", [FAIR, LOSSY, LATE], ids=["fair", "lossy", "late"])
@pytest.mark.parametrize("seed", SEEDS)
def test_processes_sleep_no_request_runs_twice(seed: int, luck: Luck) -> None:
    run = Run(seed, luck, cookies=seed % 2 == 1, server_resets=0.2 if seed % 3 == 0 else 0.0)
    for _ in range(12):
        world, random = run.world, run.random
        process: Process = random.choice((world.front_end, *world.backends))
        seconds = random.choice((0.05, 0.2, 0.3, 0.5, 0.9, 1.5, 4.0))
        world.after(random.choice((0.0, 0.0003, 0.0005, 0.001, 0.01)), partial(world.sleeps, process, seconds))
        run.client(random.choice(("GET", "POST", "POST")))
        world.run(random.choice((0.002, 0.1, 1.0, 5.0)))
    run.check()


@pytest.mark.parametrize("luck", [FAIR, LOSSY, LATE], ids=["fair", "lossy", "late"])
@pytest.mark.parametrize("seed", SEEDS)
def test_backlogs_are_full_now_and_then_no_request_runs_twice(seed: int, luck: Luck) -> None:
    run = Run(seed, luck, cookies=False, server_resets=0.1)
    for _ in range(12):
        for backend in run.world.backends:
            backend.host.is_full = run.random.choice((0.0, 0.5, 0.9, 1.0))
        run.client(run.random.choice(("GET", "POST")))
        run.world.run(run.random.choice((0.01, 0.3, 1.0, 5.0)))
    run.check()


@pytest.mark.parametrize("luck", [FAIR, LOSSY, LATE], ids=["fair", "lossy", "late"])
@pytest.mark.parametrize("seed", SEEDS)
def test_front_end_is_restarted_no_request_runs_twice(seed: int, luck: Luck) -> None:
    run = Run(seed, luck, cookies=seed % 2 == 1)
    for number in range(12):
        if number % 3 == 2:
            run.world.after(run.random.choice((0.0005, 0.001, 0.002, 0.2)), run.world.front_end.start)
        run.client(run.random.choice(("GET", "POST")))
        run.world.run(run.random.choice((0.002, 0.1, 1.0, 5.0)))
    run.check()


@pytest.mark.parametrize("luck", [FAIR, LOSSY, LATE], ids=["fair", "lossy", "late"])
@pytest.mark.parametrize("seed", SEEDS)
def test_back_ends_are_restarted_no_request_runs_twice(seed: int, luck: Luck) -> None:
    run = Run(seed, luck, cookies=seed % 2 == 1)
    for number in range(12):
        if number % 3 == 2:
            backend = run.random.choice(run.world.backends)
            run.world.after(run.random.choice((0.0005, 0.001, 0.002, 0.2)), partial(restart, run.world, backend))
        run.client(run.random.choice(("GET", "POST")))
        run.world.run(run.random.choice((0.002, 0.1, 1.0, 5.0)))
    run.check()


def restart(world: World, backend: BackEnd) -> None:
    """Another process, which knows nothing; the host and its sockets live on."""
    backend.restarted = True
    backend.start()
    world.front_end.hears(backend.number, restarted=True)
