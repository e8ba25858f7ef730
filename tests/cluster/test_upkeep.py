"""What others take off a host while a process runs, and that it comes back: addresses, settings, the interface."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpha.lab.addressing import IFACE, MTU_OCTETS, SWITCH
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.node import Node
from tcpha.lab.switch_ports import ports_of
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, vip
from tests.cluster.engine_sight import counters, digest
from tests.cluster.kernel_sight import attached

pytestmark = pytest.mark.cluster

PATIENCE_S = 15.0
_ETH_P_ALL = 3
_SYN_ACK = 0x12


@pytest.fixture(scope="module")
def lab(_adopting: None) -> Iterator[Lab]:
    """All carried by the kernel."""
    with engine_lab(Settings(both=("accelerate = require",))) as standing:
        yield standing


@pytest.fixture
def fe(lab: Lab) -> Node:
    return started_anew(lab, lab.fe)


@pytest.fixture
def be(lab: Lab) -> Node:
    return started_anew(lab, lab.backends[0])


def started_anew(lab: Lab, node: Node) -> Node:
    """With a log of its own; all others run."""
    node.engine.stop()
    node.engine.log.unlink(missing_ok=True)
    for each in (*lab.backends, lab.fe):
        if not each.engine.is_running:
            each.engine.start()
    assert wait_until(lambda: serves(lab), PATIENCE_S)
    return node


def serves(lab: Lab) -> bool:
    """Clients get answers in both families. Something is being mended, so a conversation may fail."""
    try:
        for family in FAMILIES:
            with Conversation.open(lab, family) as client:
                answer = client.ask(get("/1k.html", "Connection: close"))
            if (answer.status, answer.sha256) != (200, digest(lab, "1k.html")):
                return False
    except (OSError, AssertionError):
        return False
    return True


def warnings(node: Node) -> list[str]:
    lines = node.engine.log.read_text().splitlines()
    return [line.partition("WARNING tcpha: ")[2] for line in lines if "WARNING tcpha: " in line]


def said(node: Node, *texts: str) -> bool:
    return wait_until(lambda: all(text in warnings(node) for text in texts), PATIENCE_S)


def setting(node: Node, name: str) -> str:
    return node.run(["sysctl", "-n", name], check=True).stdout.strip()


def holds(node: Node, addr: str) -> bool:
    return f" {addr}/" in node.run(["ip", "-o", "addr"], check=True).stdout


def mac_of(node: Node) -> str:
    (link,) = json.loads(node.run(["ip", "-j", "link", "show", "dev", IFACE], check=True).stdout)
    return str(link["address"])


def make_again(lab: Lab, node: Node) -> None:
    """The node's interface goes, and another one of its name and its own addresses is plugged in where it was."""
    switch = lab.node(SWITCH)
    (port,) = ports_of(switch, node)
    addresses = ((f"{node.ipv4}/24",), (f"{node.ipv6}/64", "nodad"))
    node.run(["ip", "link", "delete", IFACE], check=True)
    peer = ["peer", "name", IFACE, "mtu", str(MTU_OCTETS), "netns", node.namespace]
    switch.run(["ip", "link", "add", port.name, "mtu", str(MTU_OCTETS), "type", "veth", *peer], check=True)
    switch.run(["ip", "link", "set", port.name, "master", port.bridge, "up"], check=True)
    for words in addresses:
        node.run(["ip", "addr", "add", *words, "dev", IFACE], check=True)
    node.run(["ip", "link", "set", IFACE, "up"], check=True)


def test_back_ends_interface_is_made_again_it_is_silent_about_the_address_and_the_kernel_adopts_there(
    lab: Lab, be: Node
) -> None:
    names = [f"net.ipv4.conf.{IFACE}.arp_ignore", f"net.ipv4.conf.{IFACE}.arp_announce"]
    make_again(lab, be)
    assert said(be, f"{IFACE} is another interface than at the start: followed")
    assert [setting(be, name) for name in names] == ["1", "2"]
    assert attached(be) == 2
    assert counters(be)["accelerated"] is True
    before = counters(be)["kernel"]["started"]
    assert wait_until(lambda: serves(lab) and counters(be)["kernel"]["started"] > before, PATIENCE_S)
    be.engine.stop()
    assert [setting(be, name) for name in names] == ["0", "0"]
    assert attached(be) == 0


def test_back_ends_settings_are_written_by_somebody_they_are_put_back_and_the_originals_in_the_end(
    lab: Lab, be: Node
) -> None:
    name = f"net.ipv4.conf.{IFACE}.arp_ignore"
    be.run(["sysctl", "-w", f"{name}=0"], check=True)
    assert said(be, f"{name} is not what it has to be any more: put back")
    assert setting(be, name) == "1"
    assert counters(be)["repairs"] == 1
    be.engine.stop()
    assert setting(be, name) == "0"


@pytest.mark.parametrize("role", ["fe", "be"])
def test_addresses_are_taken_off_they_are_put_back_and_go_in_the_end(lab: Lab, role: str) -> None:
    node = started_anew(lab, lab.fe if role == "fe" else lab.backends[0])
    wanted = {vip(lab, "ipv4"): "lo", vip(lab, "ipv6"): IFACE if role == "fe" else "lo"}
    for addr, holder in wanted.items():
        node.run(["ip", "addr", "del", f"{addr}/{128 if ':' in addr else 32}", "dev", holder], check=True)
    assert said(node, *(f"{addr} was taken off {holder} by somebody: put back" for addr, holder in wanted.items()))
    assert all(holds(node, addr) for addr in wanted)
    assert counters(node)["repairs"] == 2
    assert wait_until(lambda: serves(lab), PATIENCE_S)
    node.engine.stop()
    assert not any(holds(node, addr) for addr in wanted)


def test_front_ends_interface_goes_down_and_up_its_ipv6_address_comes_back(lab: Lab, fe: Node) -> None:
    own = ["ip", "addr", "add", f"{fe.ipv6}/64", "nodad", "dev", IFACE]
    fe.run(["ip", "link", "set", IFACE, "down"], check=True)
    assert not holds(fe, vip(lab, "ipv6"))
    fe.run(["ip", "link", "set", IFACE, "up"], check=True)
    fe.run(own, check=True)
    assert said(fe, f"{vip(lab, 'ipv6')} was taken off {IFACE} by somebody: put back")
    assert wait_until(lambda: serves(lab), PATIENCE_S)
    assert [each for each in warnings(fe) if "put back" not in each] == []
    assert counters(fe)["repairs"] == 1


def test_front_ends_interface_is_made_again_the_kernel_carries_there(lab: Lab, fe: Node) -> None:
    make_again(lab, fe)
    assert said(fe, f"{IFACE} is another interface than at the start: followed")
    assert attached(fe) == 1
    assert wait_until(lambda: serves(lab), PATIENCE_S)
    before = counters(fe)["kernel"]
    assert serves(lab)
    shown = counters(fe)
    assert shown["accelerated"] is True
    assert shown["kernel"]["syns"] > before["syns"]
    assert shown["kernel"]["forwarded"] > before["forwarded"]
    assert "clients come by" not in fe.engine.log.read_text()
    fe.engine.stop()
    assert attached(fe) == 0
    assert not holds(fe, vip(lab, "ipv6"))


def test_interface_is_gone_counters_say_that_nothing_carries(lab: Lab, be: Node) -> None:
    be.run(["ip", "link", "set", IFACE, "name", "other0"], check=True)
    try:
        assert said(be, f"{IFACE} is gone: nothing comes or leaves there until it is made again")
        assert counters(be)["accelerated"] == f"{IFACE} is gone"
    finally:
        be.run(["ip", "link", "set", "other0", "name", IFACE], check=True)
    assert wait_until(lambda: counters(be)["accelerated"] is True, PATIENCE_S)


def sender_of_syn_ack(lab: Lab, family: Family) -> str:
    """Connect once, and return the hardware address that the SYN-ACK came from."""
    with lab.client.enter():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sniffer.bind((IFACE, _ETH_P_ALL))
        sniffer.settimeout(PATIENCE_S)
    at = 14 + (20 if family == "ipv4" else 40)
    with closing(sniffer), Conversation.open(lab, family) as client:
        while True:
            frame = sniffer.recv(2048)
            ports = frame[at : at + 4]
            if ports == (80).to_bytes(2) + client.port.to_bytes(2) and frame[at + 13] == _SYN_ACK:
                return frame[6:12].hex(":")


def test_front_end_gets_another_mac_syn_acks_come_from_it(lab: Lab, fe: Node, family: Family) -> None:
    usual, other = mac_of(fe), "02:00:5e:00:53:17"
    fe.run(["ip", "link", "set", IFACE, "address", other], check=True)
    try:
        assert said(fe, f"{IFACE} has another MAC: followed")
        assert wait_until(lambda: serves(lab), PATIENCE_S)
        assert sender_of_syn_ack(lab, family) == other
    finally:
        fe.run(["ip", "link", "set", IFACE, "address", usual], check=True)
