from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tcpha.errors import StartError
from tcpha.lab.node import Node
from tcpha.lab.switch_ports import Port, ports_of, shared

SWITCH_LINKS = [
    {"ifindex": 1, "ifname": "lo"},
    {"ifindex": 2, "ifname": "br-fe"},
    {"ifindex": 3, "ifname": "router-fe0", "link_index": 7, "master": "br-fe"},
    {"ifindex": 4, "ifname": "fe", "link_index": 2, "master": "br-fe"},
    {"ifindex": 5, "ifname": "router-be0", "link_index": 8, "master": "br-be"},
]
FE_LINKS = [{"ifindex": 1, "ifname": "lo", "address": "00"}, {"ifindex": 2, "link_index": 4, "address": "02:fe"}]
ROUTER_LINKS = [
    {"ifindex": 7, "link_index": 3, "address": "02:07"},
    {"ifindex": 8, "link_index": 5, "address": "02:08"},
]


def node(monkeypatch: pytest.MonkeyPatch, links: list[dict[str, Any]]) -> Node:
    made = Node("x", "lab-x", Path("/run/lab/x"), None, None)
    answer = subprocess.CompletedProcess([], 0, json.dumps(links), "")
    monkeypatch.setattr(made, "run", lambda *_, **__: answer)
    return made


def test_ports_of_a_node_are_those_its_interfaces_are_plugged_into(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = node(monkeypatch, SWITCH_LINKS)
    assert ports_of(switch, node(monkeypatch, FE_LINKS)) == (Port("fe", "br-fe", "02:fe"),)
    assert ports_of(switch, node(monkeypatch, ROUTER_LINKS)) == (
        Port("router-fe0", "br-fe", "02:07"),
        Port("router-be0", "br-be", "02:08"),
    )


def test_ports_of_a_node_that_is_plugged_in_nowhere_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="no port of the switch leads to x"):
        ports_of(node(monkeypatch, SWITCH_LINKS), node(monkeypatch, FE_LINKS[:1]))


def test_shared_ports_are_pairs_on_one_bridge() -> None:
    fe, be = Port("fe", "br-fe", "02:fe"), Port("be1", "br-be", "02:be")
    router = (Port("router-fe0", "br-fe", "02:07"), Port("router-be0", "br-be", "02:08"))
    assert shared((fe,), router) == ((fe, router[0]),)
    assert shared(router, (fe, be)) == ((router[0], fe), (router[1], be))
    assert shared((fe,), (be,)) == ()
