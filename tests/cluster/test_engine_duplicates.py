"""Requests that come twice, messages that are lost, processes that sleep: no request runs a second time.

Each test counts at the server. `POST` is not idempotent (RFC 9110, 9.2.2): it may run once or not at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from tcpha.lab.capture import capturing
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tcpha.proto.handoff import Type
from tests.cluster import forgery, odd_server
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest_line, packets_seen
from tests.cluster.engines import needs_python
from tests.cluster.mishaps import kernel, losing, stopped
from tests.cluster.odd_server import Odd

pytestmark = pytest.mark.cluster

FINISHED_TIME_S = 1.0
PATIENCE_S = 10.0
TIMES = 50


@pytest.fixture(scope="module")
def odd_lab(_machine: None) -> Iterator[Lab]:
    """A lab that forgets ended flows soon. Requests go to the first back end; some may go to the second, too.

    The weight has the first chosen as long as it can be used.
    """
    settings = Settings(
        both=(
            f"finished_time = {FINISHED_TIME_S}s",
            "idle_time = 1s",
            "server = 198.18.0.33 666 weight=256",
            "server = 198.18.0.38 666",
            "rule = 198.18.0.33,198.18.0.38 balance=least either",
            "rule = 198.18.0.33 .*",
        )
    )
    with engine_lab(settings, server=odd_server.COMMAND) as standing:
        yield standing


@pytest.fixture
def servers(odd_lab: Lab) -> list[Odd]:
    return [Odd(odd_lab.client, node) for node in odd_lab.backends]


def ran(servers: list[Odd]) -> int:
    """How many requests were run, at all servers together."""
    return sum(server.seen().requests for server in servers)


class Recording:
    """What the client has sent to the virtual address, to be sent again."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self._lab = lab
        self._layer = IP if family == "ipv4" else IPv6
        self._packets: list[Any] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Record meanwhile."""
        with capturing([self._lab.client], "tcp dst port 80") as captures:
            yield
        for frame in rdpcap(str(captures[0].file)):
            packet = frame[self._layer]
            for layer in (packet, packet[TCP]):
                if "chksum" in layer.fields:  # the link's hardware would have filled it in
                    del layer.chksum
            self._packets.append(self._layer(bytes(packet)))

    @property
    def requests(self) -> list[Any]:
        """Segments with octets."""
        return [packet for packet in self._packets if bytes(packet[TCP].payload)]

    @property
    def all(self) -> list[Any]:
        return self._packets

    def play(self, packets: list[Any], times: int = 1) -> None:
        """Send recorded packets again, from the client's host; wait until the front end has had them all."""
        before = packets_seen(self._lab.fe)
        forgery.send(self._lab, packets * times, self._lab.fe)
        wanted = before + len(packets) * times
        assert wait_until(lambda: packets_seen(self._lab.fe) >= wanted, PATIENCE_S)


# The request again, when all is over


def _client_closes(client: Conversation) -> None:
    client.half_close()
    assert client.rest() == b""


def _client_resets(client: Conversation) -> None:
    client.abort()


def _server_closes(client: Conversation) -> None:
    assert client.rest() == b""


def _server_resets(client: Conversation) -> None:
    with suppress(ConnectionResetError):
        client.rest()


ENDS: dict[str, tuple[str, Callable[[Conversation], None]]] = {
    "client closes": ("stay", _client_closes),
    "client resets": ("stay", _client_resets),
    "server closes": ("close", _server_closes),
    "server resets": ("reset", _server_resets),
}


@pytest.mark.parametrize("cookies", [0, 2])
@pytest.mark.parametrize("end", ENDS)
def test_request_again_when_all_is_over_never_runs(
    odd_lab: Lab, family: Family, servers: list[Odd], end: str, cookies: int
) -> None:
    """At once, while the flow lingers, and when it is forgotten.

    A server's kernel that answers with SYN cookies (tcp_syncookies = 2) would take the request for the end of a
    handshake, and hand a new connection to its server.
    """
    then, finish = ENDS[end]
    server = odd_lab.backends[0]
    before, recording = ran(servers), Recording(odd_lab, family)
    with kernel(server, tcp_syncookies=cookies):
        with recording.running(), Conversation.open(odd_lab, family) as client:
            assert client.ask(post(b"once", path=f"/?then={then}")).status == 200
            finish(client)
        recording.play(recording.requests, TIMES)
        recording.play(recording.all, 2)
        await_no_flows(odd_lab)
        recording.play(recording.requests, TIMES)
        nodes = (odd_lab.fe, server)
        assert wait_until(lambda: not any(counters(node)["flows_lingering"] for node in nodes), PATIENCE_S)
        recording.play(recording.requests, TIMES)
        recording.play(recording.all, 2)
        with Conversation.open(odd_lab, family) as client:
            assert client.ask(get("/")).status == 200
    assert ran(servers) == before + 2
    assert counters(odd_lab.fe)["late_duplicates"] > 0


def test_request_again_while_its_connection_lives_never_runs(odd_lab: Lab, family: Family, servers: list[Odd]) -> None:
    before, recording = ran(servers), Recording(odd_lab, family)
    with Conversation.open(odd_lab, family) as client:
        with recording.running():
            assert client.ask(post(b"once", path="/")).status == 200
        recording.play(recording.requests, TIMES)
        assert client.ask(post(b"twice", path="/")).body == digest_line(b"twice")
        recording.play(recording.requests, TIMES)
        assert client.ask(post(b"thrice", path="/")).body == digest_line(b"thrice")
    assert ran(servers) == before + 3
    await_no_flows(odd_lab)


def test_request_again_while_the_next_connection_on_its_port_lives_never_runs(
    odd_lab: Lab, family: Family, servers: list[Odd]
) -> None:
    before, recording = ran(servers), Recording(odd_lab, family)
    with recording.running(), Conversation.open(odd_lab, family) as client:
        port = client.port
        assert client.ask(post(b"old", path="/")).status == 200
        client.abort()
    with Conversation.open(odd_lab, family, port=port) as client:
        assert client.ask(post(b"new", path="/")).body == digest_line(b"new")
        recording.play(recording.all, TIMES)
        assert client.ask(post(b"newer", path="/")).body == digest_line(b"newer")
    assert ran(servers) == before + 3
    await_no_flows(odd_lab)


def test_request_again_after_a_restart_of_the_front_end_never_runs(
    odd_lab: Lab, family: Family, servers: list[Odd]
) -> None:
    """The front end remembers nothing; the back end that has run it does."""
    before, recording = ran(servers), Recording(odd_lab, family)
    with recording.running(), Conversation.open(odd_lab, family) as client:
        assert client.ask(post(b"once", path="/")).status == 200
    await_no_flows(odd_lab)
    odd_lab.fe.engine.kill()
    odd_lab.fe.engine.start()
    recording.play(recording.requests, TIMES)
    await_no_flows(odd_lab)
    assert ran(servers) == before + 1


# Messages that are lost


@pytest.mark.parametrize("kind", [Type.ADOPTED, Type.CLOSED, Type.FLOWS, Type.STATUS])
def test_messages_to_the_front_end_are_lost_request_runs_once(
    odd_lab: Lab, family: Family, servers: list[Odd], kind: Type
) -> None:
    """The client's own acknowledgement stands in for ADOPTED; an idle flow is asked about for want of CLOSED."""
    before = ran(servers)
    with losing(odd_lab.fe, kind):
        for number in range(3):
            with Conversation.open(odd_lab, family) as client:
                body = b"%d" % number
                assert client.ask(post(body, path="/either?wait=0.12")).body == digest_line(body)
                client.half_close()
                assert client.rest() == b""
        if kind is Type.CLOSED:
            await_no_flows(odd_lab)
    assert ran(servers) == before + 3
    await_no_flows(odd_lab)


@pytest.mark.parametrize("kind", [Type.HANDOFF, Type.CLOSED, Type.FLOWS_QUERY, Type.STATUS])
def test_messages_to_the_back_end_are_lost_for_a_moment_request_runs_once(
    odd_lab: Lab, family: Family, servers: list[Odd], kind: Type
) -> None:
    before = ran(servers)
    for number in range(3):
        with Conversation.open(odd_lab, family) as client:
            body = b"%d" % number
            with losing(odd_lab.backends[0], kind):
                client.send(post(body, path="/?wait=0.05"))
                if kind is Type.HANDOFF:
                    assert wait_until(lambda: counters(odd_lab.fe)["repeats"] > 0, PATIENCE_S)
                else:
                    assert client.answer().body == digest_line(body)
            if kind is Type.HANDOFF:
                answer = client.answer()
                assert answer.body == digest_line(body) or answer.status == 503
    await_no_flows(odd_lab)
    if kind is not Type.HANDOFF:
        assert ran(servers) == before + 3


# Processes that sleep


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.2, 3.0])
def test_back_end_sleeps_from_the_moment_the_server_has_the_request_it_runs_once(
    odd_lab: Lab, family: Family, servers: list[Odd], seconds: float
) -> None:
    """The server itself puts the back end's process to sleep, before it answers: ADOPTED may be under way or not.

    A client whose request runs, but whose back end is silent for too long, is told 503: it must not run elsewhere.
    """
    pid = odd_lab.backends[0].engine.pid
    before = ran(servers)
    with Conversation.open(odd_lab, family) as client, waking(pid):
        client.send(post(b"once", path=f"/either?stop={pid}"))
        assert wait_until(lambda: ran(servers) == before + 1, PATIENCE_S)
        client.is_quiet(seconds)
        wake(pid)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, digest_line(b"once")) or answer.status == 503
    await_no_flows(odd_lab)
    assert ran(servers) == before + 1


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.6, 1.2, 3.0])
def test_back_end_sleeps_while_the_request_comes_it_runs_once_or_never(
    odd_lab: Lab, family: Family, servers: list[Odd], seconds: float
) -> None:
    before = ran(servers)
    with Conversation.open(odd_lab, family) as client:
        with stopped(odd_lab.backends[0].engine.pid):
            client.send(post(b"once", path="/either"))
            client.is_quiet(seconds)
        answer = client.answer()
    await_no_flows(odd_lab)
    assert wait_until(lambda: serves(odd_lab, family), PATIENCE_S)
    assert ran(servers) == before + 1 + (answer.status == 200)


def test_back_end_sleeps_another_takes_an_idempotent_request_and_it_alone_runs_it(
    odd_lab: Lab, family: Family, servers: list[Odd]
) -> None:
    """The first wakes up when all is over: the HANDOFF that lay in its socket is too old."""
    needs_python("be", "for half a second it adopts and answers without the agent")
    before = [server.seen().requests for server in servers]
    sleeper = odd_lab.backends[0]
    stale = counters(sleeper)["stale"]
    with stopped(sleeper.engine.pid), Conversation.open(odd_lab, family) as client:
        answer = client.ask(get("/either"))
        assert (answer.status, answer.node) == (200, "be2")
    assert wait_until(lambda: counters(sleeper)["stale"] > stale, PATIENCE_S)
    await_no_flows(odd_lab)
    assert [server.seen().requests for server in servers] == [before[0], before[1] + 1]
    assert wait_until(lambda: serves(odd_lab, family), PATIENCE_S)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_front_end_sleeps_while_requests_come_each_runs_once(
    odd_lab: Lab, family: Family, servers: list[Odd], seconds: float
) -> None:
    """The client repeats its request meanwhile: all of them wait in the queue."""
    before = ran(servers)
    with ExitStack() as closing:
        clients = [closing.enter_context(Conversation.open(odd_lab, family)) for _ in range(5)]
        with stopped(odd_lab.fe.engine.pid):
            for client in clients:
                client.send(post(b"once", path="/either"))
            clients[0].is_quiet(seconds)
        for client in clients:
            assert client.answer().body == digest_line(b"once")
    assert ran(servers) == before + len(clients)
    await_no_flows(odd_lab)


def serves(lab: Lab, family: Family) -> bool:
    with Conversation.open(lab, family) as client:
        return client.ask(get("/")).node == "be1"


@contextmanager
def waking(pid: int | None) -> Iterator[None]:
    """Whoever put it to sleep: it wakes up in the end."""
    try:
        yield
    finally:
        wake(pid)


def wake(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGCONT)
