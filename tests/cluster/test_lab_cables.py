"""The cables of a lab: what `Cables` says is so at every interface, and is seen in the packets."""

from __future__ import annotations

import re

import pytest

from tcpha.lab.addressing import IFACE, SWITCH
from tcpha.lab.cables import OFFLOADS, Cables
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tests.cluster.conftest import unique_name

pytestmark = pytest.mark.cluster

NAMES = {
    "tx": "tx-checksumming",
    "rx": "rx-checksumming",
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
}


def on(node: Node, interface: str) -> set[str]:
    """The offloads that ethtool(8) says are on."""
    shown = node.run(["ethtool", "-k", interface], check=True).stdout
    return {short for short, name in NAMES.items() if re.search(rf"(?m)^{name}: on", shown)}


def mtu_octets(node: Node, interface: str) -> int:
    shown = node.run(["ip", "link", "show", interface], check=True).stdout
    return int(shown.partition(" mtu ")[2].split()[0])


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("routed", [False, True])
def test_cables_are_laid_every_interface_has_what_was_said(routed: bool) -> None:
    with Lab(unique_name()) as lab:
        lab.up(server=None, engine=False, routed=routed, cables=Cables(9000, frozenset(("tx", "gso"))))
        ends = [(node, IFACE) for name, node in lab.nodes.items() if name in ("client", "fe", "be1", "be2")]
        ports = [(lab.node(SWITCH), node.name) for node, _ in ends]
        assert {mtu_octets(*each) for each in (*ends, *ports)} == {9000}
        assert [on(*each) for each in (*ends, *ports)] == [{"tx", "gso"}] * 8
        Cables(None, frozenset(OFFLOADS)).lay(lab.nodes)
        assert [on(*each) for each in (*ends, *ports)] == [set(OFFLOADS)] * 8
        assert {mtu_octets(*each) for each in (*ends, *ports)} == {9000}


def test_nothing_is_said_everything_is_as_the_kernel_makes_it(plain_lab: Lab) -> None:
    before = on(plain_lab.client, IFACE)
    Cables().lay(plain_lab.nodes)
    assert (on(plain_lab.client, IFACE), mtu_octets(plain_lab.client, IFACE)) == (before, 1500)
