"""What stands around a segment: IPv4 options, IPv6 extension headers, fragments. RFC 791, RFC 8200, RFC 7126, RFC 9288.

A packet with options or extension headers is dropped and counted by whoever gets it, front end or back end. A fragment
as well, but for hosts whose connection tracking puts fragments together before anybody sees them (nf_defrag_ipv4): with
those it is as if the packet had come whole. Of other hosts the first fragment comes to the engine, and the kernel keeps
the rest until it has waited long enough. Meanwhile everybody else is served as ever.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP, IPOption_RR, IPOption_Timestamp, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.packet import Raw

from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import forgery
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, client_address, get, url, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest
from tests.cluster.sniffing import sniffing
from tests.cluster.wire_client import ADDRESSES, WireClient

pytestmark = pytest.mark.cluster

LIMIT_S = 5.0
ROUTES: dict[str, Any] = {
    "type 0": IPv6ExtHdrRouting(type=0, segleft=0),
    "type 2": IPv6ExtHdrRouting(type=2, segleft=0, addresses=["::1"]),
    "segments": IPv6ExtHdrSegmentRouting(segleft=0, addresses=["fd00:198:18::36"], lastentry=0),
}
HEADERS: dict[str, tuple[Family, Callable[[str, str], Any]]] = {
    "IPv4 no operation": ("ipv4", lambda source, to: IP(src=source, dst=to, options=[IPOption_NOP()] * 4)),
    "IPv4 record route": (
        "ipv4",
        lambda source, to: IP(src=source, dst=to, options=[IPOption_RR(routers=["0.0.0.0"])]),
    ),
    "IPv4 timestamp": ("ipv4", lambda source, to: IP(src=source, dst=to, options=[IPOption_Timestamp()])),
    "hop by hop": ("ipv6", lambda source, to: IPv6(src=source, dst=to) / IPv6ExtHdrHopByHop()),
    "destination": ("ipv6", lambda source, to: IPv6(src=source, dst=to) / IPv6ExtHdrDestOpt()),
    "two headers": ("ipv6", lambda source, to: IPv6(src=source, dst=to) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()),
    **{
        f"routing {name}": ("ipv6", lambda source, to, header=header: IPv6(src=source, dst=to) / header)  # type: ignore[misc]
        for name, header in ROUTES.items()
    },
    "fragment that is whole": ("ipv6", lambda source, to: IPv6(src=source, dst=to) / IPv6ExtHdrFragment(id=5)),
}


@pytest.fixture(scope="module")
def tracking_hosts(_machine: None) -> Iterator[Lab]:
    """A lab whose hosts have a firewall that knows connections, as many have; it lets everything pass."""
    with engine_lab() as standing:
        for node in (standing.fe, *standing.backends):
            for program in ("iptables", "ip6tables"):
                rule = ["-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"]
                node.run([program, "-A", "INPUT", *rule], check=True)
        yield standing


@contextmanager
def others_are_served(lab: Lab) -> Iterator[None]:
    """A download and an upload that go on meanwhile are whole."""
    pipe = subprocess.PIPE
    commands = [f"curl -sSf --limit-rate 30M {url(lab, family, '/10m.jpg')} | sha256sum" for family in ("ipv4", "ipv6")]
    children = [lab.client.popen(["sh", "-c", each], stdout=pipe, stderr=pipe) for each in commands]
    try:
        yield
    finally:
        outputs = [child.communicate(timeout=30.0) for child in children]
    assert [(said, output.split()[0].decode()) for output, said in outputs] == [(b"", digest(lab, "10m"))] * 2


def refused(node: Node, *names: str) -> int:
    """Packets of which these counters tell; none named: both."""
    shown = counters(node)
    return sum(int(shown[name]) for name in names or ("extra_headers", "fragments"))


def syn(port: int) -> Any:
    options: list[Any] = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7)]
    return TCP(sport=port, dport=80, flags="S", seq=1000, window=64240, options=options)


def in_fragments(lab: Lab, family: Family, octets: int, port: int) -> list[Any]:
    """A SYN with data behind it, in fragments of so many octets (8 at least, the whole ports)."""
    source, target = client_address(lab, family), vip(lab, family)
    data = Raw(b"x" * 100)
    if family == "ipv4":
        return list(fragment(IP(bytes(IP(src=source, dst=target, flags=0, id=port) / syn(port) / data)), octets))
    whole = bytes(IPv6(src=source, dst=target) / syn(port) / data)[40:]
    return pieces_of(IPv6(src=source, dst=target), whole, octets, port)


# --- options and extension headers


@pytest.mark.parametrize("name", HEADERS)
def test_header_beyond_the_plain_one_is_dropped_and_counted(lab: Lab, name: str) -> None:
    """At the front end, and at a back end to which somebody on its segment sends it directly."""
    family, header = HEADERS[name]
    packets = [header(client_address(lab, family), vip(lab, family)) / syn(33_000 + number) for number in range(3)]
    syns = counters(lab.fe)["syns"]
    with sniffing(lab.client) as heard:
        for node in (lab.fe, lab.node("be2")):
            counter = "fragments" if name == "fragment that is whole" else "extra_headers"
            before = refused(node, counter)
            forgery.send(lab, packets, node)
            assert wait_until(lambda at=node, by=counter, so_far=before: refused(at, by) == so_far + 3, LIMIT_S)  # type: ignore[misc]
        with Conversation.open(lab, family) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
    assert not [packet for packet in heard.arrived if TCP in packet and 33_000 <= packet[TCP].dport < 33_003]
    assert counters(lab.fe)["syns"] == syns + 1, "that of the client that was served"
    await_no_flows(lab)


def test_many_packets_with_headers_beyond_the_plain_one_others_are_served(lab: Lab, family: Family) -> None:
    before = refused(lab.fe)
    headers = [header for of, header in HEADERS.values() if of == family]
    ends = (client_address(lab, family), vip(lab, family))
    packets = [headers[number % len(headers)](*ends) / syn(34_000 + number) for number in range(200)]
    with others_are_served(lab):
        forgery.send(lab, packets, lab.fe)
        assert wait_until(lambda: refused(lab.fe) >= before + len(packets), LIMIT_S, 0.1)
    await_no_flows(lab)


# --- fragments


@pytest.mark.parametrize("octets", [8, 24, 64])
@pytest.mark.parametrize("which", ["fe", "be2"])
def test_host_tracks_no_connections_first_fragment_is_counted_and_the_rest_goes_nowhere(
    lab: Lab, family: Family, which: str, octets: int
) -> None:
    node = lab.node(which)
    before, waiting = refused(node, "fragments"), kernel_count(node, family, "ReasmReqds")
    pieces = in_fragments(lab, family, octets, 35_000 + octets)
    with sniffing(lab.client) as heard:
        forgery.send(lab, pieces, node)
        assert wait_until(lambda: kernel_count(node, family, "ReasmReqds") == waiting + len(pieces) - 1, LIMIT_S)
        assert wait_until(lambda: refused(node, "fragments") == before + 1, LIMIT_S)
        with Conversation.open(lab, family) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
    assert not [packet for packet in heard.arrived if TCP in packet and packet[TCP].dport == 35_000 + octets]


@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "last first"])
def test_host_tracks_connections_segments_in_fragments_are_read_as_if_they_were_whole(
    tracking_hosts: Lab, family: Family, in_order: bool
) -> None:
    """A handshake and a request: the back end and its server get them from the front end, whole."""
    lab, request = tracking_hosts, get("/1.jpg", "Connection: close")
    ends = {"sport": 36_000 + in_order, "dport": 80}
    before = refused(lab.fe)
    with WireClient(lab) as wire:

        def say(payload: bytes, **fields: Any) -> None:
            pieces = cut(lab, family, TCP(**ends, **fields) / Raw(payload))
            wire.send(*(wire.frame(piece, lab.fe) for piece in (pieces if in_order else pieces[::-1])))

        def hear(flags: str) -> Any:
            """The next segment with these flags."""
            found: list[Any] = []

            def has_come() -> bool:
                found.extend(each.packet[TCP] for each in wire.hear(0.1) if each.packet[TCP].flags == flags)
                return bool(found)

            assert wait_until(has_come, LIMIT_S), f"no {flags}"
            return found[0]

        say(b"x" * 60, flags="S", seq=1000, options=[("MSS", 1460), ("SAckOK", b"")])
        iss = hear("SA").seq
        say(request, flags="PA", seq=1001, ack=iss + 1)
        assert bytes(hear("PA").payload).startswith(b"HTTP/1.1 200 OK")
        say(b"", flags="R", seq=1001 + len(request))
    assert refused(lab.fe) == before
    await_no_flows(lab)


def cut(lab: Lab, family: Family, segment: Any) -> list[Any]:
    """A segment of the wire client in fragments of 48 octets: the first holds the whole TCP header (RFC 8200, 4.5)."""
    source, target, octets = ADDRESSES[family], vip(lab, family), 48
    if family == "ipv4":
        return list(fragment(IP(bytes(IP(src=source, dst=target, flags=0, id=segment.seq) / segment)), octets))
    whole = bytes(IPv6(src=source, dst=target) / segment)[40:]
    return pieces_of(IPv6(src=source, dst=target), whole, octets, segment.seq)


def pieces_of(header: Any, octets: bytes, size: int, number: int) -> list[Any]:
    """What an IPv6 packet carries, in fragments of `size` octets."""
    return [
        header
        / IPv6ExtHdrFragment(nh=6, offset=start // 8, m=int(start + size < len(octets)), id=number)
        / Raw(octets[start : start + size])
        for start in range(0, len(octets), size)
    ]


def kernel_count(node: Node, family: Family, name: str) -> int:
    """One of the counters of a node's IP (nstat(8))."""
    with node.enter():
        if family == "ipv6":
            with open("/proc/thread-self/net/snmp6") as file:
                return int(dict(line.split() for line in file)[f"Ip6{name}"])
        with open("/proc/thread-self/net/snmp") as file:
            names, values = [line.split()[1:] for line in file if line.startswith("Ip:")]
    return int(values[names.index(name)])
