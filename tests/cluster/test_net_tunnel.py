"""TunnelSocket: what a peer sends in IP in IP arrives as it was, from that peer only."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.errors import StartError
from tcpha.net.raw import RawSender
from tcpha.net.tunnel import TunnelSocket, open_tunnels
from tcpha.proto.tunnel import Tunnel
from tests.unit.net.namespaces import DEADLINE_S, Host, pair, until

pytestmark = pytest.mark.cluster

families = pytest.mark.parametrize(("outer", "inner"), [(4, 4), (4, 6), (6, 4), (6, 6)])


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


def addr(host: Host, version: int) -> IPv4Address | IPv6Address:
    return host.addr4 if version == 4 else host.addr6


def packet(version: int, octets: bytes = b"inner") -> bytes:
    header = IP(src="192.0.2.1", dst="192.0.2.2") if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return bytes(header / TCP(sport=40000, dport=80, seq=7) / octets)


def received(tunnels: tuple[TunnelSocket, ...], limit_s: float = DEADLINE_S) -> list[bytes]:
    """What arrives next at any of the sockets."""
    ready = select.select(tunnels, (), (), limit_s)[0]
    return [each for tunnel in ready for each in tunnel.read()]


@families
def test_wrapped_packet_arrives_as_it_was(hosts: tuple[Host, Host], outer: int, inner: int) -> None:
    near, far = hosts
    with ExitStack() as stack:
        with far.inside():
            tunnels = open_tunnels(addr(far, outer), [addr(near, outer)])
        for each in tunnels:
            stack.callback(each.close)
        with near.inside():
            sender = stack.enter_context(closing(RawSender(1)))
        tunnel = Tunnel(addr(near, outer), addr(far, outer))
        for octets in (b"", b"x", bytes(range(256)) * 5):
            sender.send(tunnel.wrap(packet(inner, octets)))
            assert received(tunnels) == [packet(inner, octets)]
        assert sender.errors == {}


def test_outer_packet_fragmented_on_its_way_arrives_whole(hosts: tuple[Host, Host]) -> None:
    """As a router with a smaller MTU would do; here the sender does it, which needs a socket without IP_HDRINCL."""
    near, far = hosts
    with ExitStack() as stack:
        with far.inside():
            tunnels = open_tunnels(far.addr4, [near.addr4])
        for each in tunnels:
            stack.callback(each.close)
        with near.inside():
            plain = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, 4))
            plain.bind((str(near.addr4), 0))
            plain.sendto(packet(4, bytes(4000)), (str(far.addr4), 0))
        assert received(tunnels) == [packet(4, bytes(4000))]


@pytest.mark.parametrize("version", [4, 6])
def test_packet_of_another_sender_or_protocol_not_taken(hosts: tuple[Host, Host], version: int) -> None:
    near, far = hosts
    stranger = IPv4Address("10.99.99.99") if version == 4 else IPv6Address("fd99::99")
    with ExitStack() as stack:
        with far.inside():
            tunnels = open_tunnels(addr(far, version), [addr(near, version)])
        for each in tunnels:
            stack.callback(each.close)
        with near.inside():
            sender = stack.enter_context(closing(RawSender(1)))
        sender.send(Tunnel(stranger, addr(far, version)).wrap(packet(4)))
        header = IP if version == 4 else IPv6
        sender.send(bytes(header(src=str(addr(near, version)), dst=str(addr(far, version))) / TCP(dport=9)))
        sender.send(Tunnel(addr(near, version), addr(far, version)).wrap(packet(4, b"mine")))
        assert received(tunnels) == [packet(4, b"mine")]


def test_burst_limits_what_one_read_takes(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with ExitStack() as stack:
        with far.inside():
            tunnel, other = open_tunnels(far.addr4, [near.addr4])
        stack.callback(tunnel.close)
        stack.callback(other.close)
        with near.inside():
            sender = stack.enter_context(closing(RawSender(1)))
        for number in range(5):
            sender.send(Tunnel(near.addr4, far.addr4).wrap(packet(4, b"%d" % number)))
        assert select.select([tunnel], (), (), DEADLINE_S)[0]
        got = tunnel.read(2)
        assert len(got) <= 2
        while len(got) < 5 and select.select([tunnel], (), (), DEADLINE_S)[0]:
            got += tunnel.read(2)
        assert got == [packet(4, b"%d" % number) for number in range(5)]
        assert tunnel.read() == []


@pytest.mark.parametrize("version", [4, 6])
def test_packets_find_the_receive_buffer_full_are_counted(hosts: tuple[Host, Host], version: int) -> None:
    near, far = hosts
    sent = 200
    with ExitStack() as stack:
        with far.inside():
            tunnel = TunnelSocket(addr(far, version), addr(near, version), 4, buffer_octets=16_384)
        stack.callback(tunnel.close)
        with near.inside():
            sender = stack.enter_context(closing(RawSender(1)))
        wrapped = Tunnel(addr(near, version), addr(far, version)).wrap(packet(4, bytes(1000)))
        sender.send(wrapped)
        assert select.select([tunnel], (), (), DEADLINE_S)[0]
        assert (len(tunnel.read()), tunnel.dropped_by_kernel()) == (1, 0)
        for _ in range(sent):
            sender.send(wrapped)
        got: list[bytes] = []

        def all_accounted_for() -> bool:
            got.extend(tunnel.read())
            return len(got) + tunnel.dropped_by_kernel() == sent

        until(all_accounted_for)
        assert 0 < len(got) < sent
        assert sender.errors == {}


def test_open_without_the_right_says_so(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    program = f"""
import os
from ipaddress import ip_address
from tcpha.errors import StartError
from tcpha.net.tunnel import open_tunnels
os.setresuid(65534, 65534, 65534)
try:
    open_tunnels(ip_address("{far.addr4}"), [ip_address("{near.addr4}")])
except StartError as error:
    print(error)
"""
    with far.inside():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "tunnelled packets cannot be received: the right CAP_NET_RAW is missing\n", done.stderr


def test_open_at_an_address_of_another_host_says_so(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with far.inside(), pytest.raises(StartError, match=f"tunnelled packets of {near.addr4} cannot be received"):
        open_tunnels(near.addr4, [near.addr4])
