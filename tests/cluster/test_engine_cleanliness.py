"""What the engine puts on a host it takes away again: after a stop, after a kill and a start, after the lab is down."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.daemon import await_ready
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import host_state
from tests.cluster.conftest import engine_lab, unique_name
from tests.cluster.conversation import FAMILIES, Conversation, get
from tests.cluster.engine_sight import digest
from tests.cluster.lab_sight import living_in, traces

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def hosts(_machine: None) -> Iterator[tuple[Lab, dict[str, str]]]:
    """A lab whose engine does not run yet, and the states of its nodes."""
    with engine_lab(engine=False) as standing:
        yield standing, host_state.of_nodes(standing)


def engine_nodes(lab: Lab) -> tuple[Node, ...]:
    return (*lab.backends, lab.fe)


def start(lab: Lab) -> None:
    engines = [node.engine for node in engine_nodes(lab)]
    for engine in engines:
        engine.launch()
    await_ready(engines)
    assert wait_until(lambda: serves(lab), 5.0)


def serves(lab: Lab) -> bool:
    for family in FAMILIES:
        with Conversation.open(lab, family) as client:
            if client.ask(get("/1k.jpg")).status != 200:
                return False
    return True


def remains(lab: Lab) -> list[str]:
    """What the state directories of the engines hold."""
    return [str(file) for node in engine_nodes(lab) for file in (node.directory / "state").iterdir()]


def test_engine_runs_hosts_are_changed(hosts: tuple[Lab, dict[str, str]]) -> None:
    """Without this, equality before and after would say nothing."""
    lab, before = hosts
    start(lab)
    try:
        during = host_state.of_nodes(lab)
        assert all(during[node.name] != before[node.name] for node in engine_nodes(lab))
        assert [name for name in ("client", "switch") if during[name] != before[name]] == []
    finally:
        for node in engine_nodes(lab):
            node.engine.stop()


def test_engine_is_stopped_hosts_are_as_before(hosts: tuple[Lab, dict[str, str]]) -> None:
    lab, before = hosts
    start(lab)
    assert [node.engine.stop() for node in engine_nodes(lab)] == [0, 0, 0]
    assert host_state.of_nodes(lab) == before
    assert [each for each in remains(lab) if not each.endswith(".lock")] == []


def test_engine_is_stopped_during_transfers_hosts_are_as_before(hosts: tuple[Lab, dict[str, str]]) -> None:
    lab, before = hosts
    start(lab)
    clients = [Conversation.open(lab, family) for family in FAMILIES for _ in range(5)]
    for client in clients:
        client.send(get("/100m.jpg"))
        assert client.socket.recv(1_000).startswith(b"HTTP/1.1 200 OK")
    assert [node.engine.stop() for node in engine_nodes(lab)] == [0, 0, 0]
    for client in clients:
        client.socket.close()
    assert host_state.of_nodes(lab) == before


def test_engine_is_killed_started_and_stopped_hosts_are_as_before(hosts: tuple[Lab, dict[str, str]]) -> None:
    lab, before = hosts
    start(lab)
    for node in engine_nodes(lab):
        node.engine.kill()
    assert host_state.of_nodes(lab) != before
    start(lab)
    assert [node.engine.stop() for node in engine_nodes(lab)] == [0, 0, 0]
    assert host_state.of_nodes(lab) == before


def test_engine_is_killed_while_it_starts_next_run_cleans_up(hosts: tuple[Lab, dict[str, str]]) -> None:
    """At whatever point of its start a process is killed: the next one finds what it left."""
    lab, before = hosts
    for node in engine_nodes(lab):
        for look in range(1, 6):
            node.engine.launch()
            rules = ["sh", "-c", "{ ip -o addr; iptables-save; ip6tables-save; } | grep -c -e tcpha -e '198.18.0.36'"]

            def has_begun(node: Node = node, rules: list[str] = rules, look: int = look) -> bool:
                return int(node.run(rules).stdout) >= look

            assert wait_until(has_begun, 10.0, 0.001)
            node.engine.kill()
    start(lab)
    assert [node.engine.stop() for node in engine_nodes(lab)] == [0, 0, 0]
    assert host_state.of_nodes(lab) == before


def test_stop_with_keep_leaves_the_host_ready_and_connections_live(hosts: tuple[Lab, dict[str, str]]) -> None:
    lab, before = hosts
    start(lab)
    lab.fe.engine.stop()
    with lab.fe.popen([*lab.fe.engine.program.arguments, "--keep"], stderr=subprocess.DEVNULL) as child:
        try:
            assert wait_until(lambda: serves(lab), 5.0)
            during = host_state.of_node(lab.fe)
            with Conversation.open(lab, "ipv4") as client:
                assert client.ask(get("/1k.jpg")).status == 200
                child.terminate()
                assert child.wait(10.0) == 0
                assert host_state.of_node(lab.fe) == during
                lab.fe.engine.start()
                assert client.ask(get("/100k.jpg")).sha256 == digest(lab, "100k")
        finally:
            child.kill()
    assert [node.engine.stop() for node in engine_nodes(lab)] == [0, 0, 0]
    assert host_state.of_nodes(lab) == before


@pytest.mark.usefixtures("_machine")
def test_engine_is_killed_and_the_lab_taken_down_machine_is_as_before() -> None:
    before = host_state.of_machine()
    lab = Lab(unique_name())
    with lab:
        lab.up()
        assert serves(lab)
        for node in engine_nodes(lab):
            node.engine.kill()
        name = lab.name
        lab.down()
        assert living_in(lab) == ()
    assert traces(name) == []
    assert host_state.of_machine() == before


@pytest.mark.usefixtures("_machine")
def test_lab_is_taken_down_during_transfers_machine_is_as_before() -> None:
    before = host_state.of_machine()
    lab = Lab(unique_name())
    with lab:
        lab.up()
        name = lab.name
        with Conversation.open(lab, "ipv4") as client:
            client.send(get("/100m.jpg"))
            assert client.socket.recv(1_000).startswith(b"HTTP/1.1 200 OK")
            lab.down()
    assert traces(name) == []
    assert host_state.of_machine() == before
