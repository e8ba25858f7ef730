"""A router on the way to the client finds a back end's packets too big: its error comes to the front end, which holds
the virtual address, and must reach the kernel of the back end that sent the packet. RFC 1191, RFC 8201, RFC 5927.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tcpha.lab.addressing import MTU_OCTETS
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, client_address, get, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, extended_count
from tests.cluster.engines import link_mtu_octets
from tests.cluster.forgery import send
from tests.cluster.lab_sight import forgetting, path_mtu_octets

pytestmark = pytest.mark.cluster

NARROW_OCTETS = 1400
NARROWER_OCTETS = 1300
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _RECEIVE_QUEUE, _REPAIR_OFF_SILENTLY = 19, 20, 21, 1, -1
"""linux/tcp.h: what checkpoint/restore uses."""


@pytest.fixture(scope="module")
def narrow_lab(_machine: None) -> Iterator[Lab]:
    """A routed lab whose router has a narrow link towards the client."""
    with engine_lab(routed=True, client_mtu_octets=NARROW_OCTETS) as standing:
        yield standing


@pytest.mark.parametrize(("kind", "node"), [("html", 0), ("jpg", 1)])
def test_way_to_the_client_is_narrow_download_is_whole_and_the_servers_kernel_learns_the_path_mtu(
    narrow_lab: Lab, family: Family, kind: str, node: int
) -> None:
    server, client_host = narrow_lab.backends[node], client_address(narrow_lab, family)
    assert path_mtu_octets(server, client_host) == MTU_OCTETS, "this is to be found out here"
    before, timeouts = icmp_errors(narrow_lab, server), extended_count(server, "TCPTimeouts")
    with Conversation.open(narrow_lab, family) as client:
        assert client.ask(get(f"/1m.{kind}")).sha256 == digest(narrow_lab, "1m")
        assert socket_path_mtu_octets(server, client.port) == NARROW_OCTETS
    assert path_mtu_octets(server, client_host) == NARROW_OCTETS
    at_fe, at_server = (after - then for after, then in zip(icmp_errors(narrow_lab, server), before, strict=True))
    assert at_fe == at_server > 0
    # What was too big is sent again when the error comes, not when a timer ends.
    assert extended_count(server, "TCPTimeouts") == timeouts
    with Conversation.open(narrow_lab, family) as client:
        assert client.ask(get(f"/1m.{kind}")).sha256 == digest(narrow_lab, "1m")
    assert icmp_errors(narrow_lab, server) == (before[0] + at_fe, before[1] + at_server), "what is known draws no error"
    await_no_flows(narrow_lab)


def test_error_about_a_segment_in_flight_comes_to_the_front_end_the_servers_socket_heeds_it(
    lab: Lab, family: Family
) -> None:
    """One that quotes what was never sent is passed on too, and the server's own TCP ignores it (RFC 5927, 4.1)."""
    server, link_octets = lab.backends[1], link_mtu_octets()
    before = icmp_errors(lab, server)
    with forgetting(server), Conversation.open(lab, family) as client:
        assert client.ask(get("/1k.jpg")).node == server.name
        assert socket_path_mtu_octets(server, client.port) == link_octets
        snd_una = rcv_nxt(client)
        never_sent = too_big(lab, family, client.port, (snd_una + (1 << 30)) % (1 << 32), NARROWER_OCTETS)
        send(lab, [never_sent, too_big(lab, family, client.port, snd_una, NARROW_OCTETS)], lab.fe)
        assert wait_until(lambda: socket_path_mtu_octets(server, client.port) < link_octets, 5.0), "nothing was learned"
        assert socket_path_mtu_octets(server, client.port) == NARROW_OCTETS
        assert client.ask(get("/1m.jpg")).sha256 == digest(lab, "1m")
    assert icmp_errors(lab, server) == (before[0] + 2, before[1] + 2)


def test_error_about_a_connection_that_is_none_is_left_to_the_front_ends_host(lab: Lab, family: Family) -> None:
    server = lab.backends[1]
    before = icmp_errors(lab, server), host_icmp_errors(lab.fe, family)
    send(lab, [too_big(lab, family, 9, 0, NARROW_OCTETS)], lab.fe)
    assert wait_until(lambda: host_icmp_errors(lab.fe, family) > before[1], 5.0), "the host did not get it"
    assert icmp_errors(lab, server) == before[0]


def icmp_errors(lab: Lab, server: Node) -> tuple[int, int]:
    """Errors about flows that the front end and a back end have counted."""
    return counters(lab.fe)["icmp_errors"], counters(server)["icmp_errors"]


def host_icmp_errors(node: Node, family: Family) -> int:
    """Errors of the kind too big that the kernel of a node itself has received (RFC 4293; RFC 4443)."""
    with node.enter():
        ipv4 = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        ipv6 = dict(line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines())
    names, values = (line.split() for line in ipv4 if line.startswith("Icmp:"))
    found = dict(zip(names, values, strict=True))["InDestUnreachs"] if family == "ipv4" else ipv6["Icmp6InPktTooBigs"]
    return int(found)


def socket_path_mtu_octets(server: Node, port: int) -> int:
    """What the server's socket towards a port of the client takes for its path MTU (ss(8), pmtu)."""
    shown = server.run(["ss", "-Htni", "sport", "=", ":80", "dport", "=", f":{port}"], check=True).stdout
    (octets,) = re.findall(r"\bpmtu:(\d+)", shown)
    return int(octets)


def rcv_nxt(client: Conversation) -> int:
    """RCV.NXT of the client's socket (tcp(7) lacks it: TCP_REPAIR, made for checkpoint and restore)."""
    options = client.socket
    options.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    try:
        options.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, _RECEIVE_QUEUE)
        return options.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ) % (1 << 32)
    finally:
        options.setsockopt(socket.IPPROTO_TCP, _REPAIR, _REPAIR_OFF_SILENTLY)


def too_big(lab: Lab, family: Family, port: int, seq: int, mtu_octets: int) -> Any:
    """A router's error about a segment from the virtual address to a port of the client."""
    virtual, client_host = vip(lab, family), client_address(lab, family)
    quoted = TCP(sport=80, dport=port, seq=seq, flags="A")
    if family == "ipv4":
        error = ICMP(type=3, code=4, nexthopmtu=mtu_octets) / IP(src=virtual, dst=client_host, flags="DF") / quoted
        return IP(src=client_host, dst=virtual) / error
    too_big_error = ICMPv6PacketTooBig(mtu=mtu_octets) / IPv6(src=virtual, dst=client_host) / quoted
    return IPv6(src=client_host, dst=virtual) / too_big_error
