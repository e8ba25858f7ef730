"""The network of a routed lab: who reaches whom over how many routers, what the router finds too big, what is outside.

Without the engine: datagrams between the nodes' own addresses.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tcpha.lab.addressing import IFACE, MTU_OCTETS, Place
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tests.cluster.conftest import unique_name
from tests.cluster.conversation import Family, vip
from tests.cluster.datagrams import PORT, Datagrams, IcmpError
from tests.cluster.lab_sight import get, path_mtu_octets

pytestmark = pytest.mark.cluster

CLIENT_MTU_OCTETS = 1400
BACKEND_MTU_OCTETS = 1300
OUTSIDE = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}

TOO_BIG = {"ipv4": (3, 4), "ipv6": (2, 0)}
"""Type and code: fragmentation needed (RFC 1191, 4), packet too big (RFC 4443, 3.2)."""
HOPS_USED_UP = {"ipv4": (11, 0), "ipv6": (3, 0)}
"""Time exceeded in transit (RFC 792; RFC 4443, 3.3)."""
NO_ROUTE = {"ipv4": (3, 0), "ipv6": (1, 0)}
"""Net unreachable (RFC 792), no route to destination (RFC 4443, 3.1)."""


@pytest.fixture(scope="module")
def routed_lab(_machine: None) -> Iterator[Lab]:
    """Without the engine; the router is narrow towards the client and narrower towards the back ends."""
    with Lab(unique_name()) as standing:
        standing.up(
            engine=False, routed=True, client_mtu_octets=CLIENT_MTU_OCTETS, backend_mtu_octets=BACKEND_MTU_OCTETS
        )
        yield standing


# Who reaches whom


def test_nodes_of_two_segments_reach_each_other_over_one_router(routed_lab: Lab, family: Family) -> None:
    places = routed_lab.plan.places
    hops = {}
    with ExitStack() as open_sockets:
        peers = {
            place.node: open_sockets.enter_context(Datagrams(routed_lab.node(place.node), family, port=PORT))
            for place in places
        }
        for source, target in itertools.permutations(places, 2):
            peers[source.node].send(address(target, family))
            sender, _, hops[source.node, target.node] = peers[target.node].received()
            assert sender == address(source, family)
    neighbours = {("be1", "be2"), ("be2", "be1")}
    assert hops == {pair: 0 if pair in neighbours else 1 for pair in itertools.permutations(peers, 2)}


@pytest.mark.parametrize(("source", "target"), [("client", "fe"), ("fe", "be1"), ("be2", "client")])
def test_packet_whose_hop_limit_ends_on_the_way_is_reported_by_the_router(
    routed_lab: Lab, family: Family, source: str, target: str
) -> None:
    with Datagrams(routed_lab.node(source), family) as sender:
        sender.send(address(place_of(routed_lab, target), family), hop_limit=1)
        assert sender.error() == IcmpError(*HOPS_USED_UP[family], gateway(routed_lab, source, family), 0)


def test_back_end_sends_from_the_virtual_address_client_gets_it_by_the_router(routed_lab: Lab, family: Family) -> None:
    virtual, back_end = vip(routed_lab, family), routed_lab.backends[0]
    with (
        holding(back_end, "lo", virtual),
        Datagrams(back_end, family, virtual) as sender,
        Datagrams(routed_lab.client, family, port=PORT) as receiver,
    ):
        sender.send(address(routed_lab.plan.client, family), packet_octets=100)
        assert receiver.received() == (virtual, 100, 1)


def test_client_asks_a_server_sees_its_own_address(routed_lab: Lab) -> None:
    assert get(routed_lab, "http://198.18.1.38/client") == "198.18.2.10"
    assert get(routed_lab, "http://[fd00:198:18:1::38]/client") == "fd00:198:18:2::10"


# What is too big


@pytest.mark.parametrize(
    ("source", "target", "mtu_octets"),
    [
        ("be1", "client", CLIENT_MTU_OCTETS),
        ("fe", "client", CLIENT_MTU_OCTETS),
        ("client", "be1", BACKEND_MTU_OCTETS),
        ("fe", "be2", BACKEND_MTU_OCTETS),
    ],
)
def test_packet_too_big_for_the_routers_way_draws_an_error_that_names_its_mtu(
    routed_lab: Lab, family: Family, source: str, target: str, mtu_octets: int
) -> None:
    node, whither = routed_lab.node(source), address(place_of(routed_lab, target), family)
    with (
        Datagrams(node, family) as sender,
        Datagrams(routed_lab.node(target), family, port=PORT) as receiver,
    ):
        sender.send(whither, packet_octets=mtu_octets)
        assert receiver.received()[1:] == (mtu_octets, 1)
        sender.send(whither, packet_octets=mtu_octets + 1)
        assert sender.error() == IcmpError(*TOO_BIG[family], gateway(routed_lab, source, family), mtu_octets)
    assert path_mtu_octets(node, whither) == mtu_octets


@pytest.mark.parametrize(("source", "target"), [("client", "fe"), ("be1", "fe")])
def test_packet_as_long_as_the_interface_allows_leaves_a_narrow_segment(
    routed_lab: Lab, family: Family, source: str, target: str
) -> None:
    """Narrow is only what the router sends: the client's own MSS stays as it is."""
    with (
        Datagrams(routed_lab.node(source), family) as sender,
        Datagrams(routed_lab.node(target), family, port=PORT) as receiver,
    ):
        sender.send(address(place_of(routed_lab, target), family), packet_octets=MTU_OCTETS)
        assert receiver.received()[1:] == (MTU_OCTETS, 1)


def test_packet_from_the_virtual_address_is_too_big_front_end_is_told(routed_lab: Lab, family: Family) -> None:
    virtual, back_end, front_end = vip(routed_lab, family), routed_lab.backends[0], routed_lab.fe
    with (
        holding(back_end, "lo", virtual),
        holding(front_end, IFACE, virtual),
        icmp_socket(front_end, family) as listener,
        Datagrams(back_end, family, virtual) as sender,
    ):
        sender.send(address(routed_lab.plan.client, family), packet_octets=CLIENT_MTU_OCTETS + 1)
        kind, mtu_octets, packet = too_big_message(listener, family)
    assert (kind, mtu_octets) == (TOO_BIG[family], CLIENT_MTU_OCTETS)
    assert socket.inet_pton(socket.AF_INET if family == "ipv4" else socket.AF_INET6, virtual) in packet[:28]


def test_download_finds_the_narrow_way_and_is_whole(routed_lab: Lab, family: Family) -> None:
    host = {"ipv4": "198.18.1.33", "ipv6": "[fd00:198:18:1::33]"}[family]
    curl = routed_lab.client.run(["curl", "-sSf", "--max-time", "10", f"http://{host}/1m"], text=False, check=True)
    assert hashlib.sha256(curl.stdout).digest() == hashlib.sha256((routed_lab.documents / "1m").read_bytes()).digest()
    assert path_mtu_octets(routed_lab.backends[0], address(routed_lab.plan.client, family)) == CLIENT_MTU_OCTETS


# What is outside


def test_nodes_have_no_way_out_but_a_router_that_has_none(routed_lab: Lab, family: Family) -> None:
    for place in routed_lab.plan.places:
        with Datagrams(routed_lab.node(place.node), family) as sender:
            sender.send(OUTSIDE[family])
            assert sender.error() == IcmpError(*NO_ROUTE[family], gateway(routed_lab, place.node, family), 0)
    with Datagrams(routed_lab.router, family) as sender, pytest.raises(OSError, match="unreachable"):
        sender.send(OUTSIDE[family])


def test_nodes_have_interfaces_on_the_labs_segments_only(routed_lab: Lab) -> None:
    found = {name: interfaces(node) for name, node in routed_lab.nodes.items()}
    router = found.pop("router")
    switch = found.pop("switch")
    assert router == {"lo", "fe0", "be0", "client0"}
    assert switch == {"lo", "br-fe", "br-be", "br-client", *found, *(f"router-{name}" for name in router - {"lo"})}
    assert all(names == {"lo", IFACE} for names in found.values())


def test_router_keeps_nobody_from_sending_and_sends_nobody_elsewhere(routed_lab: Lab) -> None:
    names = [f"net.ipv4.conf.{iface}.{name}" for iface in ("all", "be0") for name in ("rp_filter", "send_redirects")]
    values = routed_lab.router.run(["sysctl", "-n", *names], check=True).stdout.split()
    assert dict(zip(names, values, strict=True)) == dict.fromkeys(names, "0")


def place_of(lab: Lab, node: str) -> Place:
    return next(place for place in lab.plan.places if place.node == node)


def address(place: Place, family: Family) -> str:
    return str(place.ipv4 if family == "ipv4" else place.ipv6)


def gateway(lab: Lab, node: str, family: Family) -> str:
    """The router's address on the segment of a node."""
    for segment in lab.plan.segments:
        if node in {place.node for place in segment.places} and segment.gateway is not None:
            return address(segment.gateway, family)
    raise AssertionError(f"{node} is on no segment of a routed lab")


def interfaces(node: Node) -> set[str]:
    return {str(link["ifname"]) for link in json.loads(node.run(["ip", "-j", "link"], check=True).stdout)}


@contextmanager
def holding(node: Node, iface: str, virtual: str) -> Iterator[None]:
    """The node has the address meanwhile."""
    words = [virtual + ("/128" if ":" in virtual else "/32"), "dev", iface]
    node.run(["ip", "addr", "add", *words, *(["nodad"] if ":" in virtual else [])], check=True)
    try:
        yield
    finally:
        node.run(["ip", "addr", "del", *words], check=True)


def icmp_socket(node: Node, family: Family) -> socket.socket:
    ipv4 = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    ipv6 = (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with node.enter():
        listener = socket.socket(*(ipv4 if family == "ipv4" else ipv6))
    listener.settimeout(5.0)
    return listener


def too_big_message(listener: socket.socket, family: Family) -> tuple[tuple[int, int], int, bytes]:
    """Type and code, MTU and the packet inside the first ICMP message that says too big."""
    while True:
        octets = listener.recv(65536)
        message = octets[20:] if family == "ipv4" else octets  # ip(7): over IPv4 its header comes along
        if (message[0], message[1]) == TOO_BIG[family]:
            (mtu_octets,) = struct.unpack_from(
                "!H" if family == "ipv4" else "!I", message, 6 if family == "ipv4" else 4
            )
            return TOO_BIG[family], mtu_octets, message[8:]
