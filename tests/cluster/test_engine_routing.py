"""Requests reach the back ends that the rules name, answers the client directly; nobody goes around the front end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tests.cluster.conversation import Conversation, Family, client_address, get, unconnected, url, vip
from tests.cluster.engine_sight import await_logged, await_no_flows, counters, digest, log_lines, packets_from_vip
from tests.cluster.forgery import forged_packet_sent

pytestmark = pytest.mark.cluster

NODE_OF = {"/1k.jpg": "be2", "/1k.html": "be1", "/client": "be1", "/1k?last=jpg": "be2", "/1k.jpg?x": "be1"}


@pytest.mark.parametrize("path", NODE_OF)
def test_curl_asks_for_a_path_is_answered_by_the_back_end_the_rules_name(lab: Lab, family: Family, path: str) -> None:
    curl = lab.client.run(["curl", "-sS", "-o", "/dev/null", "-D", "-", url(lab, family, path)], check=True)
    assert curl.stdout.startswith("HTTP/1.1 200 OK")
    assert re.findall(r"^Server-Node: (\S+)", curl.stdout, re.M) == [NODE_OF[path]]


def test_server_asked_for_its_peer_names_the_clients_address(lab: Lab, family: Family) -> None:
    curl = lab.client.run(["curl", "-sS", url(lab, family, "/client")], check=True)
    assert curl.stdout == client_address(lab, family)


@pytest.mark.parametrize(("kind", "node"), [("html", 0), ("jpg", 1)])
def test_request_is_logged_by_the_server_with_the_clients_address_and_port(
    lab: Lab, family: Family, kind: str, node: int
) -> None:
    target = f"/1.{kind}?logged-over={family}&end.{kind}"
    with Conversation.open(lab, family) as client:
        assert client.ask(get(target)).status == 200
        peer = f"{client.address} {client.port} "
    lines = await_logged(lab.backends[node], target)
    assert len(lines) == 1
    assert lines[0].startswith(peer)
    assert not log_lines(lab.backends[1 - node], target)


def test_downloads_run_front_end_sees_no_packet_of_a_server(lab: Lab, family: Family) -> None:
    before, forwarded = packets_from_vip(lab, family), counters(lab.fe)["forwarded"]
    for name in ("10m.jpg", "10m.html"):
        target = url(lab, family, f"/{name}")
        curl = lab.client.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", target], check=True)
        assert curl.stdout == "10000000"
    assert packets_from_vip(lab, family) == before
    assert counters(lab.fe)["forwarded"] > forwarded


def test_packet_from_the_virtual_address_passes_the_front_end_is_counted(lab: Lab, family: Family) -> None:
    """Without this the zero of the test above would say nothing."""
    before = packets_from_vip(lab, family)
    forged_packet_sent(lab, family)
    assert packets_from_vip(lab, family) == before + 1


@pytest.mark.parametrize("backend", [0, 1])
def test_client_sends_straight_to_a_back_end_gets_no_connection(lab: Lab, family: Family, backend: int) -> None:
    node = lab.backends[backend]
    before = counters(node)
    with _neighbour(lab, family, node), unconnected(lab, family) as peer:
        peer.settimeout(1.5)
        with pytest.raises(TimeoutError):
            peer.connect((vip(lab, family), 80))
    after = counters(node)
    assert after["dropped_flags"] - before["dropped_flags"] >= 2, "the SYN and its repetition came"
    assert after["leaving"] == before["leaving"]
    assert after["flows"] == before["flows"]


def test_segments_go_to_a_back_end_that_does_not_hold_the_flow_are_dropped(lab: Lab, family: Family) -> None:
    owner, other = lab.backends
    with Conversation.open(lab, family) as client:
        assert client.ask(get("/1k.html")).node == owner.name
        before = counters(other)
        with _neighbour(lab, family, other):
            client.send(get("/100k.html"))
            assert client.is_quiet(0.5)
        assert client.answer().sha256 == digest(lab, "100k")
    after = counters(other)
    assert after["hold_expired"] > before["hold_expired"]
    assert after["leaving"] == before["leaving"]
    await_no_flows(lab)


@contextmanager
def _neighbour(lab: Lab, family: Family, node: Node) -> Iterator[None]:
    """The client sends what is for the virtual address to `node` meanwhile."""
    mac = node.run(["ip", "-o", "link", "show", IFACE], check=True).stdout.split("link/ether ")[1].split()[0]
    entry = ["ip", "neigh", "replace", vip(lab, family), "lladdr", mac, "dev", IFACE, "nud", "permanent"]
    lab.client.run(entry, check=True)
    try:
        yield
    finally:
        lab.client.run(["ip", "neigh", "del", vip(lab, family), "dev", IFACE], check=True)
