"""The TCP of a node's kernel: how it is set up, and what it says of one connection.

Must not know that handoff exists. tcp(7) for the settings and TCP_INFO, sock_diag(7) for a socket of another process,
linux/tcp.h for the layout of tcp_info. A window scale is set by the largest receive window that the kernel may ever
offer (RFC 7323, 2.3): by tcp_rmem, and below the scale that net.core.rmem_max gives by a limit of the route.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.net import sysctl
from tcpha.net.netlink import NetlinkSocket, decode_attributes
from tests.cluster.conversation import Conversation, Family, client_address, vip

NO_TIMESTAMPS = {"tcp_timestamps": "0"}
NO_SACK = {"tcp_sack": "0"}
NO_WINDOW_SCALING = {"tcp_window_scaling": "0"}
BARE = {**NO_TIMESTAMPS, **NO_SACK, **NO_WINDOW_SCALING}
"""Nothing but an MSS."""

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI")
_IDENTITY = struct.Struct("!HH16s16s")
_INFO = 2
_ANSWER_OCTETS = 72
_OPTIONS, _SCALES, _MSS, _ADVMSS, _ACKED, _SENT, _WINDOWS = 5, 6, 16, 84, 120, 200, 228
_SMALLEST_INFO_OCTETS = 236
_OPTION_NAMES = {1: "timestamps", 2: "sack", 4: "wscale", 8: "ecn"}
_LARGEST_SCALE = 14


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What one end of a connection says of it; windows in octets."""

    options: frozenset[str]
    """Of timestamps, sack, wscale, ecn: what was agreed on."""
    snd_wscale: int
    """The other side's shift count."""
    rcv_wscale: int
    snd_mss: int
    """Octets that a segment of this end carries at most, behind its options."""
    advmss: int
    snd_wnd: int
    """What the other side offers, as this end understands it."""
    rcv_wnd: int
    """What this end offers."""
    in_flight: int
    """Octets that were sent and not acknowledged yet, repetitions not counted; the own SYN counts as acknowledged."""


def info_of(client: Conversation) -> TcpInfo:
    """The client's end."""
    return _decode(client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))


def info_at(node: Node, lab: Lab, family: Family, port: int) -> TcpInfo:
    """The server's end, at the node that holds it, of the connection from the client's `port`."""
    addresses = (ip_address(vip(lab, family)), ip_address(client_address(lab, family)))
    identity = _IDENTITY.pack(80, port, *(address.packed for address in addresses))
    number = socket.AF_INET if family == "ipv4" else socket.AF_INET6
    body = _REQUEST.pack(number, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0xFFFFFFFF) + identity + bytes(4) + b"\xff" * 8
    with node.enter():
        netlink = NetlinkSocket(_NETLINK_SOCK_DIAG)
    try:
        (answer,) = netlink.request(_SOCK_DIAG_BY_FAMILY, 0, body)
    finally:
        netlink.close()
    return _decode(decode_attributes(answer.body, _ANSWER_OCTETS)[_INFO])


def _decode(octets: bytes) -> TcpInfo:
    assert len(octets) >= _SMALLEST_INFO_OCTETS, "this kernel does not tell its receive window (before Linux 6.2)"
    flags = octets[_OPTIONS]
    scales = octets[_SCALES]
    snd_wnd, rcv_wnd = struct.unpack_from("=II", octets, _WINDOWS)
    (acked,) = struct.unpack_from("=Q", octets, _ACKED)
    sent, repeated = struct.unpack_from("=QQ", octets, _SENT)
    return TcpInfo(
        options=frozenset(name for bit, name in _OPTION_NAMES.items() if flags & bit),
        snd_wscale=scales & 15,
        rcv_wscale=scales >> 4,
        snd_mss=struct.unpack_from("=I", octets, _MSS)[0],
        advmss=struct.unpack_from("=I", octets, _ADVMSS)[0],
        snd_wnd=snd_wnd,
        rcv_wnd=rcv_wnd,
        in_flight=sent - repeated - acked,
    )


@contextmanager
def set_up(node: Node, settings: Mapping[str, str]) -> Iterator[None]:
    """A node's kernel with these settings below net/ipv4, of both families, meanwhile."""
    with node.enter():
        before = {name: sysctl.read(f"ipv4/{name}") for name in settings}
        for name, value in settings.items():
            sysctl.write(f"ipv4/{name}", value)
    try:
        yield
    finally:
        with node.enter():
            for name, value in before.items():
                sysctl.write(f"ipv4/{name}", value)


@contextmanager
def window_scale(node: Node, scale: int) -> Iterator[None]:
    """A node's kernel whose window scale is 0..14 meanwhile, on all its ways out of the segment's interface."""
    assert 0 <= scale <= _LARGEST_SCALE
    largest = largest_window_octets(scale)
    with node.enter():
        least, usual, _ = sysctl.read("ipv4/tcp_rmem").split()
    with set_up(node, {"tcp_rmem": f"{least} {usual} {1 << 30}"}), route_window(node, largest):
        yield


def largest_window_octets(scale: int) -> int:
    """The largest window that can be offered with a scale, as the kernel chooses the scale by it."""
    return 0xFFFF << scale


@contextmanager
def route_window(node: Node, octets: int) -> Iterator[None]:
    """A node's kernel that never offers a larger window meanwhile (ip-route(8), `window`)."""
    changed: list[list[str]] = []
    try:
        for program in (["ip", "-4"], ["ip", "-6"]):
            for route in node.run([*program, "route", "show", "dev", IFACE], check=True).stdout.splitlines():
                words = [word for word in route.split() if word not in ("linkdown", "pref", "medium")]
                node.run([*program, "route", "change", *words, "dev", IFACE, "window", str(octets)], check=True)
                changed.append([*program, "route", "change", *words, "dev", IFACE])
        yield
    finally:
        for command in changed:
            node.run([*command, "window", "0"], check=True)


def extended_counts(node: Node) -> dict[str, int]:
    """The kernel's TcpExt counters of a node (nstat(8))."""
    with node.enter(), open("/proc/thread-self/net/netstat") as file:
        lines = file.read().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
    return dict(zip(names, map(int, values), strict=True))


@contextmanager
def link_mtu(lab: Lab, octets: int) -> Iterator[None]:
    """Every interface of a lab, and the bridge, takes packets of so many octets meanwhile."""
    ports = [(lab.node("switch"), name) for name in ("br0", *(n for n in lab.nodes if n != "switch"))]
    ends = [(node, IFACE) for name, node in lab.nodes.items() if name != "switch"]
    try:
        _set_mtu([*ports, *ends], octets)
        yield
    finally:
        _set_mtu([*ends, *ports], 1500)


def _set_mtu(interfaces: list[tuple[Node, str]], octets: int) -> None:
    for node, name in interfaces:
        node.run(["ip", "link", "set", name, "mtu", str(octets)], check=True)
