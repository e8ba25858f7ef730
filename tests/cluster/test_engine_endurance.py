"""Many connections, in a row and at once: every table is empty afterwards, memory stays flat, nothing leaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, unconnected, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, live_flows, resident_octets, sockets_at

pytestmark = [pytest.mark.cluster, pytest.mark.long]

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
CONNECTIONS = 10_000 if AT_LENGTH else 2_000
FINISHED_TIME_S = 1.0
COOKIE_LIFE_S = 130.0
"""So long an identity is remembered: four cookie periods of 32 s, and a sweep."""
IDENTITY_OCTETS = 1_000
"""What one remembered identity may cost."""
SLACK_OCTETS = 1 << 20
"""What the allocator may hold on to beyond that."""


@pytest.fixture(scope="module")
def busy_lab(_machine: None) -> Iterator[Lab]:
    """A lab that forgets ended flows soon."""
    with engine_lab(Settings(both=(f"finished_time = {FINISHED_TIME_S}s",))) as standing:
        yield standing


def visit(lab: Lab, family: Family, number: int) -> None:
    """One connection with one request, closed by whoever's turn it is."""
    line = "Connection: close" if number % 3 else "Connection: keep-alive"
    kind, node = ("jpg", "be2") if number % 2 else ("html", "be1")
    with Conversation.open(lab, family) as client:
        answer = client.ask(get(f"/1k.{kind}", line))
        assert (answer.status, answer.node) == (200, node)
        if number % 3 == 1:
            assert client.rest() == b""
        elif number % 30 == 2:
            client.abort()


def test_connections_one_after_the_other_leave_nothing_behind(busy_lab: Lab) -> None:
    nodes = (busy_lab.fe, *busy_lab.backends)
    for number in range(200):
        visit(busy_lab, FAMILIES[number % 2], number)
    memory = {node.name: resident_octets(node) for node in nodes}
    before = counters(busy_lab.fe)
    for number in range(CONNECTIONS):
        visit(busy_lab, FAMILIES[number // 2 % 2], number)
    after = counters(busy_lab.fe)
    assert after["handoffs"] - before["handoffs"] == CONNECTIONS
    assert after["answered"] == before["answered"]
    await_no_flows(busy_lab)
    assert wait_until(lambda: not any(counters(node)["flows_lingering"] for node in nodes), FINISHED_TIME_S + 3.0, 0.2)
    for node in nodes:
        share = CONNECTIONS if node is busy_lab.fe else CONNECTIONS / 2
        growth = resident_octets(node) - memory[node.name]
        assert growth < share * IDENTITY_OCTETS + SLACK_OCTETS, node.name
        shown = counters(node)
        assert not any(value for name, value in shown.items() if "queue_dropped" in name)
    for node in busy_lab.backends:
        assert sockets_at(node) == []


@pytest.mark.skipif(not AT_LENGTH, reason="waits for the life of a cookie: set TCPHA_LONG=1")
def test_identities_that_are_over_are_forgotten_with_their_cookies_and_memory_is_flat(busy_lab: Lab) -> None:
    nodes = (busy_lab.fe, *busy_lab.backends)
    peaks = []
    for _ in range(2):
        for number in range(CONNECTIONS):
            visit(busy_lab, FAMILIES[number % 2], number)
        assert any(counters(node)["finished"] for node in nodes)
        assert wait_until(lambda: not any(counters(node)["finished"] for node in nodes), COOKIE_LIFE_S, 1.0)
        peaks.append({node.name: resident_octets(node) for node in nodes})
    assert all(peaks[1][name] - peaks[0][name] < SLACK_OCTETS for name in peaks[0]), peaks


def test_waves_of_connections_at_once_leave_nothing_behind(busy_lab: Lab, family: Family) -> None:
    waves, width = (50, 200) if AT_LENGTH else (8, 200)
    wholes = {"100k": digest(busy_lab, "100k"), "1k": digest(busy_lab, "1k")}

    async def visit_at_once(number: int) -> None:
        peer, name = peers[number], "100k" if number % 4 == 0 else "1k"
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, (vip(busy_lab, family), 80))
        reader, writer = await asyncio.open_connection(sock=peer)
        writer.write(get(f"/{name}.{'jpg' if number % 2 else 'html'}", "Connection: close"))
        await reader.readuntil(b"\r\n\r\n")
        assert hashlib.sha256(await reader.read()).hexdigest() == wholes[name]
        writer.close()

    async def wave() -> None:
        await asyncio.wait_for(asyncio.gather(*map(visit_at_once, range(width))), 30.0)

    for _ in range(waves):
        peers = [unconnected(busy_lab, family) for _ in range(width)]
        asyncio.run(wave())
    await_no_flows(busy_lab)
    for node in (busy_lab.fe, *busy_lab.backends):
        shown = counters(node)
        assert not any(value for name, value in shown.items() if "queue_dropped" in name), node.name


def test_half_open_connections_cost_the_front_end_nothing(busy_lab: Lab, family: Family) -> None:
    """Clients that connect and say nothing: there is no flow until a request comes."""
    before = counters(busy_lab.fe)
    clients = [Conversation.open(busy_lab, family) for _ in range(500)]
    try:
        after = counters(busy_lab.fe)
        assert after["handshakes"] - before["handshakes"] == 500
        assert after["flows"] == before["flows"]
        assert clients[499].ask(get("/1k.jpg")).sha256 == digest(busy_lab, "1k")
    finally:
        for client in clients:
            client.socket.close()
    await_no_flows(busy_lab)


@pytest.mark.usefixtures("_machine")
def test_idle_flows_are_asked_about_and_kept_while_they_live(family: Family) -> None:
    settings = Settings(both=("idle_time = 0.5s", f"finished_time = {FINISHED_TIME_S}s"))
    with engine_lab(settings) as lab, Conversation.open(lab, family) as client:
        assert client.ask(get("/1k.jpg")).status == 200
        assert client.is_quiet(4.0)
        assert client.ask(get("/100k.jpg")).sha256 == digest(lab, "100k")
        assert live_flows(lab)[lab.fe.name] == live_flows(lab)["be2"] == 1
