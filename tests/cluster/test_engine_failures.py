"""Servers and back ends that die, stop or stall: requests go elsewhere or get a short answer, and never run twice."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import await_ready
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Answer, Conversation, Family, get, post, url
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.engines import needs_python
from tests.cluster.mishaps import stopped

pytestmark = pytest.mark.cluster

SETTINGS = Settings(
    both=(
        "rule = 198.18.0.38 jpg$",
        "rule = 198.18.0.33 html$",
        "rule = 198.18.0.33 ^/sink",
    )
)
NOTICED_S = 1.5
"""Dead time (1 s) and a STATUS interval."""


@pytest.fixture(scope="module")
def frail_lab(_machine: None) -> Iterator[Lab]:
    """A lab in which parts fail; every test repairs what it broke."""
    with engine_lab(SETTINGS) as standing:
        yield standing


def ask(lab: Lab, family: Family, request: bytes, limit_s: float = 10.0) -> Answer:
    with Conversation.open(lab, family, limit_s=limit_s) as client:
        return client.ask(request)


def answers_with(lab: Lab, family: Family, request: bytes, status: int) -> Callable[[], bool]:
    return lambda: ask(lab, family, request).status == status


def peer_is(lab: Lab, node: Node, state: str) -> Callable[[], bool]:
    return lambda: counters(lab.fe)["peers"][str(node.ipv4)] == state


def test_server_process_is_down_its_requests_are_answered_503_and_served_again_later(
    frail_lab: Lab, family: Family
) -> None:
    broken = frail_lab.backends[1]
    broken.server.kill()
    try:
        first = ask(frail_lab, family, get("/1k.jpg"))
        assert (first.status, first.node) == (503, None)
        assert ask(frail_lab, family, get("/1k.html")).node == "be1"
    finally:
        broken.server.start()
    assert wait_until(answers_with(frail_lab, family, get("/1k.jpg"), 200), 3.0)


def test_server_process_is_stopped_established_connections_and_new_ones_wait(frail_lab: Lab, family: Family) -> None:
    """Its kernel still accepts: for the cluster, as without it, a server that is slow."""
    broken = frail_lab.backends[1]
    worker = int(broken.run(["pgrep", "-P", str(broken.server.pid)], check=True).stdout)
    with Conversation.open(frail_lab, family) as client:
        with stopped(worker):
            client.send(get("/100k.jpg"))
            assert client.is_quiet(1.0)
        assert client.answer().sha256 == digest(frail_lab, "100k")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_agent_is_down_its_requests_are_answered_503_within_a_second_and_served_again_later(
    frail_lab: Lab, family: Family, how: str
) -> None:
    broken = frail_lab.backends[1]
    (broken.engine.kill if how == "kill" else broken.engine.stop)()
    try:
        assert ask(frail_lab, family, get("/1k.jpg"), limit_s=1.5).status == 503, "not noticed yet"
        assert wait_until(peer_is(frail_lab, broken, "down"), NOTICED_S)
        assert ask(frail_lab, family, get("/1k.jpg"), limit_s=1.0).status == 503
        assert ask(frail_lab, family, get("/1k.html")).node == "be1"
    finally:
        broken.engine.start()
    assert wait_until(answers_with(frail_lab, family, get("/1k.jpg"), 200), 3.0)
    assert ask(frail_lab, family, get("/1k.jpg")).sha256 == digest(frail_lab, "1k")


def test_agents_of_all_back_ends_are_down_every_request_is_answered_503(frail_lab: Lab, family: Family) -> None:
    for node in frail_lab.backends:
        node.engine.stop()
    try:
        for node in frail_lab.backends:
            assert wait_until(peer_is(frail_lab, node, "down"), NOTICED_S)
        for target in ("/1k.jpg", "/1k.html"):
            assert ask(frail_lab, family, get(target), limit_s=1.0).status == 503
    finally:
        for node in frail_lab.backends:
            node.engine.launch()
        await_ready([node.engine for node in frail_lab.backends])
    for target in ("/1k.jpg", "/1k.html"):
        assert wait_until(answers_with(frail_lab, family, get(target), 200), 3.0)


def test_agent_is_stopped_upload_is_answered_503_and_never_runs(frail_lab: Lab, family: Family) -> None:
    """It may have been on its way to the server, and POST is not idempotent: it must not run at another."""
    needs_python("be", "for half a second it adopts and answers without the agent")
    node = frail_lab.backends[0]
    before = served(frail_lab, node)
    bodies = [os.urandom(1_000) for _ in range(5)]
    with stopped(node.engine.pid):
        clients = [Conversation.open(frail_lab, family) for _ in bodies]
        for client, body in zip(clients, bodies, strict=True):
            client.send(post(body))
        for client in clients:
            assert client.answer().status == 503
            client.socket.close()
    assert wait_until(peer_is(frail_lab, node, "up"), 5.0)
    assert wait_until(lambda: ask(frail_lab, family, post(b"last")).body == digest_line(b"last"), 5.0)
    await_no_flows(frail_lab)
    assert served(frail_lab, node) == before + 1


def test_agent_is_stopped_for_a_moment_upload_runs_exactly_once_or_is_answered_503(
    frail_lab: Lab, family: Family
) -> None:
    """The FE repeats the HANDOFF while the agent sleeps; when it wakes up it finds all of them."""
    needs_python("be", "the agent gets none of them")
    node = frail_lab.backends[0]
    before, ran = served(frail_lab, node), 0
    for number in range(8):
        body = os.urandom(2_000)
        with Conversation.open(frail_lab, family) as client:
            with stopped(node.engine.pid):
                client.send(post(body))
                assert client.is_quiet(0.1 * number)
            answer = client.answer()
            assert answer.status in (200, 503)
            if answer.status == 200:
                assert answer.body == digest_line(body)
                ran += 1
    assert ran > 0
    assert served(frail_lab, node) == before + ran


@pytest.mark.parametrize("which", ["fe", "be2"])
def test_process_is_stopped_for_two_seconds_during_transfers_they_are_whole(
    frail_lab: Lab, family: Family, which: str
) -> None:
    pipe = subprocess.PIPE
    download = ["curl", "-sSf", "--limit-rate", "40M", "--max-time", "60", url(frail_lab, family, "/100m.jpg")]
    with frail_lab.client.popen(download, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        whole = hashlib.sha256(child.stdout.read(5_000_000))
        with stopped(frail_lab.node(which).engine.pid):
            assert not wait_until(lambda: child.poll() is not None, 2.0), "it went on without the process"
        while piece := child.stdout.read(1 << 18):
            whole.update(piece)
        assert child.stderr.read() == b""
    assert child.returncode == 0
    assert whole.hexdigest() == digest(frail_lab, "100m")
    await_no_flows(frail_lab)


def test_agent_is_stopped_for_two_seconds_during_an_upload_it_is_whole(frail_lab: Lab, family: Family) -> None:
    body = os.urandom(20_000_000)
    node = frail_lab.backends[0]
    with Conversation.open(frail_lab, family) as client:
        request = post(body)
        client.send(request[:100_000])
        client.await_acknowledged()
        client.send(request[100_000:1_000_000])
        with stopped(node.engine.pid):
            assert client.is_quiet(2.0)
        client.send(request[1_000_000:])
        assert client.answer().body == digest_line(body)


@pytest.mark.parametrize("which", ["fe", "be2"])
def test_process_ends_during_downloads_clients_are_told_promptly(frail_lab: Lab, family: Family, which: str) -> None:
    """Octets are on their way, windows are shut and acknowledgements delayed while it ends."""
    node, told = frail_lab.node(which), 0
    clients = [Conversation.open(frail_lab, family, receive_buffer_octets=65_536) for _ in range(10)]
    try:
        for client in clients:
            client.send(get("/100m.jpg"))
            assert client.socket.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        assert node.engine.stop() == 0
        for client in clients:
            client.socket.settimeout(0.5)
            with suppress(TimeoutError):
                try:
                    client.rest()
                except ConnectionResetError:
                    told += 1
        assert told == len(clients)
    finally:
        for client in clients:
            client.socket.close()
        node.engine.start()
    assert wait_until(answers_with(frail_lab, family, get("/1k.jpg"), 200), 3.0)
    await_no_flows(frail_lab)


@pytest.mark.parametrize("which", ["fe", "be2"])
def test_process_ends_while_a_connection_is_idle_client_is_told_promptly(
    frail_lab: Lab, family: Family, which: str
) -> None:
    node = frail_lab.node(which)
    try:
        with Conversation.open(frail_lab, family) as client:
            assert client.ask(get("/1k.jpg")).status == 200
            assert node.engine.stop() == 0
            client.socket.settimeout(2.0)
            with pytest.raises(ConnectionResetError):
                client.rest()
    finally:
        node.engine.start()
    assert wait_until(answers_with(frail_lab, family, get("/1k.jpg"), 200), 3.0)


def test_front_end_is_killed_and_started_connections_go_on(frail_lab: Lab, family: Family) -> None:
    """It asks the back ends what they hold."""
    with Conversation.open(frail_lab, family) as client:
        assert client.ask(get("/1k.jpg")).status == 200
        frail_lab.fe.engine.kill()
        frail_lab.fe.engine.start()
        assert client.ask(get("/1m.jpg")).sha256 == digest(frail_lab, "1m")
    await_no_flows(frail_lab)


def served(lab: Lab, node: Node) -> int:
    """POSTs that reached the sink of a node."""
    curl = lab.client.run(["curl", "-sSf", f"http://{node.ipv4}/sink/count"], check=True)
    return int(curl.stdout)
