"""Back ends beyond a router: packets to them inside others, answers from them straight to the client. RFC 2003, 4213.

In a routed lab client, front end and back ends are each on a segment of their own, and `forward = tunnel`. What packets
say of themselves is read with scapy, which shares no code with the engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from tcpha.lab.addressing import MTU_OCTETS
from tcpha.lab.capture import capturing
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import Daemon, await_ready
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import host_state
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, client_address, get, post, url, vip
from tests.cluster.engine_sight import (
    await_logged,
    await_no_flows,
    counters,
    digest,
    digest_line,
    log_lines,
    packets_from_vip,
    sockets_at,
)
from tests.cluster.forgery import forged_packet_sent, segment, send_to_router
from tests.cluster.lab_sight import forgetting, path_mtu_octets
from tests.cluster.mishaps import one_by_one

pytestmark = pytest.mark.cluster

NODE_OF = {"/1k.jpg": "be2", "/1k.html": "be1", "/client": "be1", "/1k?last=jpg": "be2", "/1k.jpg?x": "be1"}
UPLOAD_OCTETS = 20_000_000
NARROW_OCTETS = 1400
INNER_OCTETS = {"ipv4": 20 + 20, "ipv6": 40 + 20}
"""IP and TCP headers of a client's segment, its options not counted (RFC 9293, 3.7.1)."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A connection over which a client sent much, as it was captured."""

    announced_mss_octets: int
    """What the SYN-ACK said."""
    packets: tuple[Any, ...]
    """The outer packets with the client's segments, as they came to the back end."""


@pytest.fixture(scope="module")
def routed_lab(_machine: None) -> Iterator[Lab]:
    with engine_lab(routed=True) as standing:
        yield standing


# Who answers


@pytest.mark.parametrize("path", NODE_OF)
def test_request_is_answered_by_the_back_end_the_rules_name_wherever_it_is(
    routed_lab: Lab, family: Family, path: str
) -> None:
    with Conversation.open(routed_lab, family) as client:
        answer = client.ask(get(path))
        assert (answer.status, answer.node) == (200, NODE_OF[path])


@pytest.mark.parametrize(("kind", "node"), [("html", 0), ("jpg", 1)])
def test_server_beyond_a_router_sees_the_clients_address_and_port(
    routed_lab: Lab, family: Family, kind: str, node: int
) -> None:
    target = f"/1.{kind}?logged-over={family}&end.{kind}"
    with Conversation.open(routed_lab, family) as client:
        assert client.ask(get(target)).status == 200
        assert client.address == client_address(routed_lab, family)
        peer = f"{client.address} {client.port} "
    (line,) = await_logged(routed_lab.backends[node], target)
    assert line.startswith(peer)
    assert not log_lines(routed_lab.backends[1 - node], target)


def test_downloads_run_front_end_sees_no_packet_of_a_server_beyond_a_router(routed_lab: Lab, family: Family) -> None:
    before, forwarded = packets_from_vip(routed_lab, family), counters(routed_lab.fe)["forwarded"]
    for name in ("10m.jpg", "10m.html"):
        with Conversation.open(routed_lab, family) as client:
            assert client.ask(get(f"/{name}")).sha256 == digest(routed_lab, "10m")
    assert packets_from_vip(routed_lab, family) == before
    assert counters(routed_lab.fe)["forwarded"] > forwarded


def test_packet_from_the_virtual_address_comes_by_the_router_is_counted(routed_lab: Lab, family: Family) -> None:
    """Without this the zero of the test above would say nothing."""
    before = packets_from_vip(routed_lab, family)
    forged_packet_sent(routed_lab, family)
    assert wait_until(lambda: packets_from_vip(routed_lab, family) == before + 1, 5.0)


# What is transferred


@pytest.mark.parametrize("kind", ["jpg", "html"])
@pytest.mark.parametrize("name", ["1", "1k", "100k", "1m", "10m"])
def test_curl_downloads_a_document_through_the_router_gets_its_octets(
    routed_lab: Lab, family: Family, name: str, kind: str
) -> None:
    command = 'curl -sSf --max-time 60 "$0" | sha256sum'
    curl = routed_lab.client.run(["sh", "-c", command, url(routed_lab, family, f"/{name}.{kind}")])
    assert curl.stderr == ""
    assert curl.stdout.split()[0] == digest(routed_lab, name)


def test_upload_through_the_tunnel_is_whole_and_nothing_is_fragmented(routed_lab: Lab, family: Family) -> None:
    nodes = (routed_lab.fe, routed_lab.router, *routed_lab.backends)
    body, before = os.urandom(UPLOAD_OCTETS), counters(routed_lab.backends[0])["tunnelled"]
    with one_by_one(routed_lab.client), Conversation.open(routed_lab, family) as client:
        assert client.ask(post(body)).body == digest_line(body)
    assert counters(routed_lab.backends[0])["tunnelled"] - before > UPLOAD_OCTETS // MTU_OCTETS
    assert {node.name: fragments(node) for node in nodes} == dict.fromkeys((node.name for node in nodes), 0)
    assert counters(routed_lab.fe)["too_big"] == 0


def test_hundred_requests_on_one_connection_through_the_tunnel_are_all_answered(
    routed_lab: Lab, family: Family
) -> None:
    wholes = {name: digest(routed_lab, name) for name in ("1k", "100k")}
    with Conversation.open(routed_lab, family) as client:
        for number in range(100):
            name = "100k" if number % 10 == 9 else "1k"
            answer = client.ask(get(f"/{name}.{'jpg' if number % 2 else 'html'}"))
            assert (answer.status, answer.node, answer.sha256) == (200, "be1", wholes[name]), number
    await_no_flows(routed_lab)
    assert sockets_at(routed_lab.backends[0]) == []


# How much fits


def test_clients_segments_fill_the_tunnels_packets_to_the_octet(routed_lab: Lab, family: Family) -> None:
    """The SYN-ACK announces what fits into the outer packet, and the client makes use of all of it."""
    upload = captured_upload(routed_lab, family)
    assert upload.announced_mss_octets == MTU_OCTETS - len(IP()) - INNER_OCTETS[family]
    assert max(packet.len for packet in upload.packets) == MTU_OCTETS
    assert {(packet.src, packet.dst) for packet in upload.packets} == {("198.18.0.23", "198.18.1.33")}
    assert {packet.proto for packet in upload.packets} == {4 if family == "ipv4" else 41}
    inner = {(packet.payload.src, packet.payload.dst) for packet in upload.packets}
    assert inner == {(client_address(routed_lab, family), vip(routed_lab, family))}


def test_front_end_comes_back_with_a_smaller_mtu_clients_are_told(routed_lab: Lab, family: Family) -> None:
    """New connections by the SYN-ACK, those that go on by an error that the front end itself sends."""
    file = routed_lab.fe.directory / "tcphafe.conf"
    text = file.read_text()
    with forgetting(routed_lab.client), Conversation.open(routed_lab, family) as client:
        assert client.ask(get("/1k")).status == 200
        routed_lab.fe.engine.kill()
        try:
            file.write_text(f"{text}mtu = {NARROW_OCTETS}\n")
            routed_lab.fe.engine.start()
            body = os.urandom(100_000)
            assert client.ask(post(body)).body == digest_line(body)
            assert counters(routed_lab.fe)["too_big"] > 0
            assert path_mtu_octets(routed_lab.client, vip(routed_lab, family)) == NARROW_OCTETS - len(IP())
            upload = captured_upload(routed_lab, family)
            assert upload.announced_mss_octets == NARROW_OCTETS - len(IP()) - INNER_OCTETS[family]
            assert max(packet.len for packet in upload.packets) == NARROW_OCTETS
        finally:
            file.write_text(text)
            routed_lab.fe.engine.kill()
            routed_lab.fe.engine.start()


@pytest.mark.usefixtures("_machine")
def test_way_to_the_back_ends_is_narrower_than_the_front_end_knows_packets_are_fragmented_and_upload_is_whole() -> None:
    with engine_lab(backends=1, routed=True, backend_mtu_octets=NARROW_OCTETS) as lab:
        for family in FAMILIES:
            assert captured_upload(lab, family).announced_mss_octets == MTU_OCTETS - len(IP()) - INNER_OCTETS[family]
        assert fragments(lab.backends[0]) > 0


@pytest.mark.usefixtures("_machine")
def test_nodes_have_ipv6_addresses_only_tunnel_is_one_over_ipv6() -> None:
    front, back = "fd00:198:18::23", "fd00:198:18:1::33"
    settings = Settings(
        both=(f"server = {back} 666", f"rule = {back} .*"),
        fe=(f"raddr = {front}", f"mtu = {NARROW_OCTETS}"),
        be=(f"raddr = {back}", f"fe = {front} 666"),
    )
    with engine_lab(settings, backends=1, routed=True, backend_mtu_octets=NARROW_OCTETS) as lab:
        for family in FAMILIES:
            upload = captured_upload(lab, family)
            assert upload.announced_mss_octets == NARROW_OCTETS - len(IPv6()) - INNER_OCTETS[family]
            assert {(packet.src, packet.dst) for packet in upload.packets} == {(front, back)}
            assert max(len(IPv6()) + packet.plen for packet in upload.packets) == NARROW_OCTETS
            with Conversation.open(lab, family) as client:
                assert client.ask(get("/1m.jpg")).sha256 == digest(lab, "1m")
                assert client.ask(get("/client")).body.decode() == client_address(lab, family)
        assert [fragments(node) for node in (lab.fe, lab.router, *lab.backends)] == [0, 0, 0]


# Strangers


def test_stranger_tunnels_to_a_back_end_is_not_heard(routed_lab: Lab, family: Family) -> None:
    server = routed_lab.backends[0]
    before = counters(server)
    syn = segment(routed_lab, family, sport=40_000, flags="S")
    stranger = IP(src=str(routed_lab.client.ipv4), dst=str(server.ipv4)) / syn
    forged = IP(src=str(routed_lab.fe.ipv4), dst=str(server.ipv4)) / syn
    send_to_router(routed_lab, [stranger, forged])
    assert wait_until(lambda: counters(server)["tunnelled"] > before["tunnelled"], 5.0)
    after = counters(server)
    assert after["tunnelled"] == before["tunnelled"] + 1, "the stranger's came before the other"
    assert after["dropped_flags"] == before["dropped_flags"] + 1
    assert (after["leaving"], after["flows"]) == (before["leaving"], before["flows"])


# Failures


def test_back_end_beyond_a_router_is_killed_and_started_serves_again(routed_lab: Lab, family: Family) -> None:
    broken = routed_lab.backends[1]
    assert status(routed_lab, family, "/1k.jpg") == 200
    broken.engine.kill()
    try:
        assert wait_until(lambda: status(routed_lab, family, "/1k.jpg") == 503, 5.0)
        assert status(routed_lab, family, "/1k.html") == 200
    finally:
        broken.engine.start()
    assert wait_until(lambda: status(routed_lab, family, "/1k.jpg") == 200, 5.0)
    with Conversation.open(routed_lab, family) as client:
        assert client.ask(get("/1m.jpg")).sha256 == digest(routed_lab, "1m")


def test_front_end_is_killed_and_started_tunnelled_connections_go_on(routed_lab: Lab, family: Family) -> None:
    with Conversation.open(routed_lab, family) as client:
        assert client.ask(get("/1k.jpg")).status == 200
        routed_lab.fe.engine.kill()
        routed_lab.fe.engine.start()
        assert client.ask(get("/1m.jpg")).sha256 == digest(routed_lab, "1m")
        body = os.urandom(100_000)
        assert client.ask(post(body)).body == digest_line(body)
    await_no_flows(routed_lab)


@pytest.mark.usefixtures("_machine")
def test_engine_with_a_tunnel_is_killed_started_and_stopped_hosts_are_as_before() -> None:
    with engine_lab(backends=1, engine=False, routed=True) as lab:
        nodes = (*lab.backends, lab.fe)
        before = {node.name: host_state.of_node(node) for node in nodes}
        for end in (Daemon.kill, Daemon.stop):
            for node in nodes:
                node.engine.launch()
            await_ready([node.engine for node in nodes])
            assert wait_until(lambda: all(status(lab, family, "/1k") == 200 for family in FAMILIES), 5.0)
            for node in nodes:
                end(node.engine)
            after = {node.name: host_state.of_node(node) for node in nodes}
            changed = {name for name in before if after[name] != before[name]}
            assert changed == (set() if end is Daemon.stop else set(before))


def status(lab: Lab, family: Family, path: str) -> int:
    with Conversation.open(lab, family) as client:
        return client.ask(get(path)).status


def fragments(node: Node) -> int:
    """IP fragments that a node has made, forwarded in pieces, failed to make, or had to join (RFC 4293, 5)."""
    with node.enter():
        ipv4 = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        ipv6 = dict(line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines())
    names, values = (line.split() for line in ipv4 if line.startswith("Ip:"))
    counts = {**dict(zip(names, values, strict=True)), **ipv6}
    return sum(int(value) for name, value in counts.items() if "Frag" in name or "Reasm" in name)


def captured_upload(lab: Lab, family: Family) -> Upload:
    """Upload to be1 and capture at both ends."""
    body, server = os.urandom(100_000), lab.backends[0]
    expression = "tcp port 80 or ip proto 4 or ip proto 41 or ip6 proto 4 or ip6 proto 41"
    with one_by_one(lab.client), capturing([lab.client, server], expression) as (at_client, at_server):
        with Conversation.open(lab, family) as client:
            assert client.ask(post(body)).body == digest_line(body)
            port = client.port

        def tunnelled() -> list[Any]:
            return [packet for packet in rdpcap(str(at_server.file)) if TCP in packet and packet[TCP].sport == port]

        assert wait_until(lambda: any(packet[TCP].flags.F for packet in tunnelled()), 15.0), "the end was not captured"
        syn_acks = [
            packet[TCP] for packet in rdpcap(str(at_client.file)) if TCP in packet and packet[TCP].flags == "SA"
        ]
        (mss_octets,) = {dict(syn_ack.options)["MSS"] for syn_ack in syn_acks if syn_ack.dport == port}
        return Upload(mss_octets, tuple(packet.payload for packet in tunnelled()))
