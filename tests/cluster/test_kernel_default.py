"""A cluster whose configuration says nothing of `accelerate`: the kernel carries it where it can, else Python does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.daemon import await_ready
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import host_state
from tests.cluster.conftest import unique_name
from tests.cluster.conversation import FAMILIES, Conversation, get
from tests.cluster.engine_sight import adopted_by_kernel, counters, digest, faults
from tests.cluster.engines import cables_of
from tests.cluster.kernel_sight import attached, carried, key_of, pinned

pytestmark = pytest.mark.cluster

PATIENCE_S = 10.0
ACCELERATED = {
    "fe": ["accelerated: the kernel answers SYNs and carries what is handed over, at eth0"],
    "be": ["accelerated: the kernel adopts connections at eth0"],
}
INSTEAD = {"fe": "this process carries all packets", "be": "this process adopts all connections"}
WITHOUT = {
    # what is missing: the capabilities that are not there either; the bpf file system never is
    "bpf file system": "-sys_admin",
    "rights": "-bpf,-perfmon,-sys_admin",
}
ANSWERS = (("/1k.jpg", "be2", "1k"), ("/1m.html", "be1", "1m"))


@pytest.fixture(scope="module")
def silent_lab(_machine: None) -> Iterator[Lab]:
    """Its files say nothing of it; nothing runs but the servers."""
    with Lab(unique_name()) as standing:
        standing.up(engine=False, cables=cables_of())
        for node in (standing.fe, *standing.backends):
            assert "accelerate" not in (node.directory / f"tcpha{role(node)}.conf").read_text()
        yield standing


def role(node: Node) -> str:
    return "fe" if node.name == "fe" else "be"


@contextmanager
def running(lab: Lab, before: Sequence[str] = ()) -> Iterator[None]:
    """The engine, each program behind these words. At its end nothing of it is left on any host."""
    nodes = (*lab.backends, lab.fe)
    states = host_state.of_nodes(lab)
    usual = {node.name: node.engine.program for node in nodes}
    try:
        for node in nodes:
            node.engine.log.unlink(missing_ok=True)
            node.engine.program = replace(usual[node.name], arguments=[*before, *usual[node.name].arguments])
            node.engine.launch()
        await_ready([node.engine for node in nodes])
        yield
        assert faults(lab) == []
        assert [node.engine.stop() for node in reversed(nodes)] == [0] * len(nodes)
    finally:
        for node in nodes:
            node.engine.stop()
            node.engine.program = usual[node.name]
    assert host_state.of_nodes(lab) == states
    for node in nodes:
        assert (attached(node), pinned(node, role(node))) == (0, [])
        assert [file.suffix for file in (node.directory / "state").iterdir()] == [".lock"]


def told(node: Node) -> list[str]:
    """What the log says about it, behind time and name."""
    lines = node.engine.log.read_text().splitlines()
    return [line.partition(f"INFO tcpha.{role(node)}: ")[2] for line in lines if "accelerate" in line]


def is_used(lab: Lab) -> bool:
    """Do all back ends answer already?"""
    for path, node, _ in ANSWERS:
        with Conversation.open(lab, "ipv4") as client:
            if client.ask(get(path, "Connection: close")).node != node:
                return False
    return True


def served(lab: Lab) -> None:
    """Clients of both families get the right octets from the right back ends."""
    for family in FAMILIES:
        for path, node, name in ANSWERS:
            with Conversation.open(lab, family) as client:
                answer = client.ask(get(path, "Connection: close"))
                assert (answer.status, answer.node, answer.sha256) == (200, node, digest(lab, name))


@pytest.mark.usefixtures("_adopting")
def test_nothing_is_configured_the_kernel_carries_and_nothing_stays(silent_lab: Lab) -> None:
    lab = silent_lab
    with running(lab):
        assert wait_until(lambda: is_used(lab), PATIENCE_S)
        assert {node.name: told(node) for node in (lab.fe, *lab.backends)} == {
            "fe": ACCELERATED["fe"],
            "be1": ACCELERATED["be"],
            "be2": ACCELERATED["be"],
        }
        adopted = sum(map(adopted_by_kernel, lab.backends))
        served(lab)
        assert sum(map(adopted_by_kernel, lab.backends)) - adopted == len(FAMILIES) * len(ANSWERS)
        shown = [counters(node) for node in (lab.fe, *lab.backends)]
        assert [each["accelerated"] for each in shown] == [True] * 3
        assert [each["adopted"] for each in shown[1:]] == [each["kernel"]["started"] for each in shown[1:]]
        with Conversation.open(lab, "ipv4") as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
            assert wait_until(lambda: key_of(lab, "ipv4", client) in carried(lab), PATIENCE_S)
        shown = counters(lab.fe)["kernel"]
        assert min(shown["syns"], shown["handshakes"], shown["forwarded"]) >= len(FAMILIES) * len(ANSWERS)


@pytest.mark.parametrize("missing", WITHOUT)
def test_nothing_is_configured_and_the_kernel_cannot_each_node_says_so_once_without_alarm_and_serves(
    silent_lab: Lab, missing: str
) -> None:
    lab = silent_lab
    script = 'umount -q /sys/fs/bpf; exec "$@"'
    without = ["unshare", "--mount", "sh", "-c", script, "sh", "setpriv", f"--bounding-set={WITHOUT[missing]}"]
    with running(lab, without):
        assert wait_until(lambda: is_used(lab), PATIENCE_S)
        for node in (lab.fe, *lab.backends):
            (line,) = told(node)
            assert line.startswith(f"not accelerated, {INSTEAD[role(node)]}: ")
            assert "bpf file system: Operation not permitted" in line or "CAP_BPF missing" in line
            assert line.endswith(f": {counters(node)['accelerated']}")
            assert not [line for line in warnings(node.engine.log) if "accelerat" in line or "earlier process" in line]
        served(lab)
        assert sum(counters(node)["adopted"] for node in lab.backends) >= len(FAMILIES) * len(ANSWERS)
        assert [attached(node) for node in (lab.fe, *lab.backends)] == [0, 0, 0]


def warnings(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if " WARNING " in line or " ERROR " in line]
