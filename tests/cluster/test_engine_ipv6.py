"""IPv6 beside IPv4 on one engine: who answers neighbour discovery, mixed clients, and nodes that talk over IPv6.

That each family is served alike is what the parameter `family` of the other tests says. RFC 4861; RFC 4007 for clients
whose address is valid on the link alone: those get a 503, because the server's host, which is given their packets by
itself, would not find the way back to them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6

from tcpha.lab.addressing import IFACE, plan
from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until
from tests.cluster import forgery
from tests.cluster.conftest import unique_name
from tests.cluster.conversation import FAMILIES, Conversation, Family, client_address, get, post, unconnected, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, faults
from tests.cluster.engines import needs_python, with_engines
from tests.cluster.sniffing import Sniffed, sniffing
from tests.cluster.test_engine_loss import EVERY_THIRD, dropping

pytestmark = pytest.mark.cluster

AT_ONCE = 40
LIMIT_S = 5.0


# --- who has the address


def test_virtual_address_is_one_host_of_the_front_ends_interface_and_of_the_back_ends_loopback(lab: Lab) -> None:
    for node in (lab.fe, *lab.backends):
        shown = node.run(["ip", "-6", "-o", "address", "show"], check=True).stdout.splitlines()
        places = [(line.split()[1], line.split()[3]) for line in shown if f" {lab.vip6}/" in line]
        assert places == [(IFACE if node is lab.fe else "lo", f"{lab.vip6}/128")], node.name


def answers_for(heard: Sniffed) -> set[str]:
    """Addresses of which a neighbour advertisement has come that is an answer; a front end that begins sends others."""
    return {packet[ICMPv6ND_NA].tgt for packet in heard.hear() if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].S}


def test_everybody_is_asked_for_the_virtual_address_the_front_end_alone_answers(lab: Lab) -> None:
    """Each node by itself, with a question that only it hears; behind it one for its own address, which it answers."""
    option = ICMPv6NDOptSrcLLAddr(lladdr=forgery.mac_of(lab.client))
    # The client's kernel makes sure of what it knows now and then: not of what it has just been told.
    known = ["lladdr", forgery.mac_of(lab.fe), "dev", IFACE, "nud", "reachable"]
    lab.client.run(["ip", "-6", "neigh", "replace", str(lab.vip6), *known], check=True)
    for node in (lab.fe, *lab.backends):
        asked = [str(lab.vip6), str(node.ipv6)]
        questions = [
            IPv6(src=client_address(lab, "ipv6"), dst=each, hlim=255) / ICMPv6ND_NS(tgt=each) / option for each in asked
        ]
        with sniffing(lab.client) as heard:
            forgery.send(lab, questions, node)
            assert wait_until(lambda at=node, by=heard: str(at.ipv6) in answers_for(by), LIMIT_S)  # type: ignore[misc]
            answered = answers_for(heard) & set(asked)
        assert answered == (set(asked) if node is lab.fe else {str(node.ipv6)}), node.name


def test_neighbours_forget_each_other_no_back_end_speaks_of_the_virtual_address(lab: Lab) -> None:
    """A back end that asks who has the client's address asks in its own name."""
    for node in (lab.client, lab.fe, *lab.backends):
        node.run(["ip", "-6", "neigh", "flush", "dev", IFACE], check=True)
    with sniffing(lab.client) as heard:
        for path in ("/1k", "/1k.jpg"):
            with Conversation.open(lab, "ipv6") as client:
                assert client.ask(get(path)).sha256 == digest(lab, "1k")
    asking = {packet.src for packet in heard.arrived if ICMPv6ND_NS in packet}
    assert len(asking) >= len(lab.backends), "the back ends knew the client"
    assert str(lab.vip6) not in asking
    link = f"{lab.vip6} dev {IFACE} lladdr {forgery.mac_of(lab.fe)}"
    assert link in lab.client.run(["ip", "-6", "neigh", "show"], check=True).stdout


# --- both families at once


def test_clients_of_both_families_on_the_same_ports_at_once_each_gets_its_own_answer(lab: Lab) -> None:
    """Their connections differ in nothing but the addresses."""
    wholes = {name: digest(lab, name) for name in ("1k", "100k")}
    ports = range(24_000, 24_000 + AT_ONCE)

    async def visit(peer: socket.socket, family: Family, number: int) -> tuple[str, bytes]:
        loop = asyncio.get_running_loop()
        peer.setblocking(False)
        await loop.sock_connect(peer, (vip(lab, family), 80))
        reader, writer = await asyncio.open_connection(sock=peer)
        name = "100k" if (number + (family == "ipv6")) % 2 else "1k"
        writer.write(get(f"/{name}.jpg" if number % 3 else f"/{name}", "Connection: close"))
        await reader.readuntil(b"\r\n\r\n")
        whole = hashlib.sha256(await reader.read()).hexdigest()
        writer.write(b"")
        writer.close()
        return name, whole.encode()

    async def visit_all(peers: dict[tuple[Family, int], socket.socket]) -> list[tuple[str, bytes]]:
        visits = [visit(peer, family, port) for (family, port), peer in peers.items()]
        return await asyncio.wait_for(asyncio.gather(*visits), 30.0)

    for _ in range(3):
        answers = asyncio.run(
            visit_all({(family, port): bound(lab, family, port) for port in ports for family in FAMILIES})
        )
        assert [whole for _, whole in answers] == [wholes[name].encode() for name, _ in answers]
        await_no_flows(lab)


def bound(lab: Lab, family: Family, port: int) -> socket.socket:
    peer = unconnected(lab, family)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def is_bound() -> bool:
        try:
            peer.bind((client_address(lab, family), port))
        except OSError:
            return False
        return True

    assert wait_until(is_bound, LIMIT_S), "the client's port does not become free"
    return peer


# --- addresses of the link


def test_client_with_an_address_of_the_link_gets_a_503_and_nothing_is_left(lab: Lab) -> None:
    needs_python("be", "its sockets know the interface, so such a client is served")
    with lab.client.enter():
        index = socket.if_nametoindex(IFACE)
    shown = lab.client.run(["ip", "-6", "-o", "address", "show", "dev", IFACE, "scope", "link"], check=True).stdout
    before = counters(lab.fe)["refused"]
    with unconnected(lab, "ipv6") as peer:
        peer.settimeout(LIMIT_S)
        peer.bind((shown.split()[3].partition("/")[0], 0, 0, index))
        peer.connect((str(lab.vip6), 80))
        client = Conversation(peer)
        assert client.ask(get("/1k")).status == 503
        assert client.rest() == b""
    assert counters(lab.fe)["refused"] == before + 1
    await_no_flows(lab)
    with Conversation.open(lab, "ipv6") as client:
        assert client.ask(get("/1k")).sha256 == digest(lab, "1k")


# --- a handoff channel over IPv6


@pytest.fixture(scope="module")
def channel6_lab(_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose nodes know each other by IPv6 addresses only; the virtual addresses are of both families."""
    places = plan(2)
    servers = [place.ipv6 for place in places.backends]
    shared = [f"vaddr = {places.vip4}", f"vaddr = {places.vip6}", *(f"server = {each} 666" for each in servers)]
    shared += [f"rule = {servers[1]} jpg$", f"rule = {servers[0]} .*"]
    fe, be = (tmp_path_factory.mktemp("channel6") / name for name in ("fe.conf", "be.conf"))
    engines = with_engines(None)
    shared += ["idle_time = 2s", "dead_time = 3s"]
    fe.write_text("\n".join([f"raddr = {places.fe.ipv6}", *shared, *engines.fe, ""]))
    unused = [f"uaddr = {places.uaddr4}", f"uaddr = {places.uaddr6}"]
    own = [f"raddr = {servers[0]}", *unused, f"fe = {places.fe.ipv6} 666"]
    be.write_text("\n".join([*own, *shared, *engines.be, ""]))
    with Lab(unique_name()) as standing:
        standing.up(fe_conf=Path(fe), be_conf=Path(be))
        yield standing
        assert faults(standing) == []


def test_nodes_talk_over_ipv6_alone(channel6_lab: Lab) -> None:
    assert set(counters(channel6_lab.fe)["peers"]) == {str(node.ipv6) for node in channel6_lab.backends}
    shown = channel6_lab.fe.run(["ss", "-Hlun", "sport", "=", ":666"], check=True).stdout
    assert [line.split()[3] for line in shown.splitlines()] == [f"[{channel6_lab.fe.ipv6}]:666"]


def test_nodes_talk_over_ipv6_transfers_are_whole(channel6_lab: Lab, family: Family) -> None:
    for path, node in (("/1m", "be1"), ("/1m.jpg", "be2")):
        body = os.urandom(1_000_000)
        with Conversation.open(channel6_lab, family) as client:
            answer = client.ask(get(path))
            assert (answer.node, answer.sha256) == (node, digest(channel6_lab, "1m"))
            assert client.ask(post(body)).body == digest_line(body)
    await_no_flows(channel6_lab)


def test_nodes_talk_over_ipv6_datagrams_are_lost_requests_run_once(channel6_lab: Lab) -> None:
    """Heads that the front end acknowledged in part and that do not fit into one datagram."""
    lab, before = channel6_lab, counters(channel6_lab.fe)
    with ExitStack() as losing:
        for node in (lab.fe, *lab.backends):
            losing.enter_context(dropping(node, "ipv6", ["-p", "udp", "--dport", "666", *EVERY_THIRD]))
        for number in range(12):
            body = os.urandom(5_000)
            request = post(body, *((f"X: {'x' * 9_000}",) if number % 3 else ()))
            with Conversation.open(lab, FAMILIES[number % 2], nagle=False) as client:
                client.send(request[:30])
                client.await_acknowledged()
                client.send(request[30:])
                assert client.answer().body == digest_line(body), number
    assert counters(lab.fe)["repeats"] > before["repeats"]
    await_no_flows(lab, 10.0)


def test_nodes_talk_over_ipv6_front_end_is_killed_and_started_connections_go_on(channel6_lab: Lab) -> None:
    """And its host has forgotten where the back ends are."""
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(Conversation.open(channel6_lab, family)) for family in FAMILIES]
        assert [client.ask(get("/1k.jpg")).status for client in clients] == [200, 200]
        channel6_lab.fe.engine.kill()
        channel6_lab.fe.run(["ip", "-6", "neigh", "flush", "dev", IFACE], check=True)
        channel6_lab.fe.engine.start()
        for client in clients:
            assert client.ask(get("/1m.jpg")).sha256 == digest(channel6_lab, "1m")
    await_no_flows(channel6_lab)


def test_nodes_talk_over_ipv6_back_end_is_gone_its_requests_are_answered_503(channel6_lab: Lab) -> None:
    gone = channel6_lab.node("be2")
    gone.engine.stop()
    try:
        for family in FAMILIES:
            with Conversation.open(channel6_lab, family) as client:
                assert client.ask(get("/1k.jpg")).status == 503
    finally:
        gone.engine.start()

    def is_back() -> bool:
        with Conversation.open(channel6_lab, "ipv6") as client:
            return client.ask(get("/1k.jpg")).node == "be2"

    assert wait_until(is_back, LIMIT_S)
