"""The front end's program between real kernels: handshakes, forwarding, tunnels, and a process that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until
from tcpha.net import clock
from tcpha.net.bpf_forwarder import PINNED, Forwarder
from tcpha.net.pins import clear
from tcpha.proto.seqnum import seq_add
from tests.kernel.conftest import unique_name
from tests.kernel.three_hosts import (
    BACK_END,
    CARRIED_OCTETS,
    CLIENT,
    FRONT_END,
    IFACE,
    VIP,
    Hosts,
    forwarder_of,
    three_hosts,
)

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("family", [4, 6])
BACKEND = (ip_address(BACK_END[4]).packed, 666)
MEGABYTE = 1 << 20


@pytest.fixture
def cable(fe_bpf: None) -> Iterator[Hosts]:
    with three_hosts(unique_name()) as standing:
        yield standing


@pytest.fixture
def program(cable: Hosts) -> Iterator[Forwarder]:
    """Attached; the back end is a neighbour."""
    with namespaces.inside(cable.front_end):
        forwarder = forwarder_of()
        forwarder.set_neighbour(BACKEND, cable.mac(cable.back_end))
        forwarder.attach()
        yield forwarder
        forwarder.close()


def exchange(client: socket.socket, server: socket.socket, octets: int) -> None:
    """The client sends so much, the server answers as much; everything arrives."""
    sent = os.urandom(octets)
    got = bytearray()

    def serve() -> None:
        while len(got) < octets and (piece := server.recv(MEGABYTE)):
            got.extend(piece)
        server.sendall(bytes(got))

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        client.sendall(sent)
        back = bytearray()
        while len(back) < octets and (piece := client.recv(MEGABYTE)):
            back += piece
    finally:
        serving.join()
    assert got == sent
    assert back == sent


@BOTH
@pytest.mark.parametrize("settings", [(), ("tcp_timestamps=0",), ("tcp_sack=0",), ("tcp_window_scaling=0",)])
def test_client_of_linux_connects_the_handshake_is_the_programs(
    cable: Hosts, program: Forwarder, family: int, settings: tuple[str, ...]
) -> None:
    for setting in settings:
        cable.run(cable.client, "sysctl", "-qw", f"net.ipv4.{setting}")
    with cable.connect(family):
        assert wait_until(lambda: program.counters()["handshakes"] == 1, limit_s=2.0)
    assert program.counters()["syns"] == 1


@BOTH
@pytest.mark.parametrize("where", ["client", "front_end"])
def test_host_without_offloads_the_client_connects(cable: Hosts, program: Forwarder, family: int, where: str) -> None:
    """The client's: its checksums are complete. The front end's: its kernel completes those of the program.

    Elsewhere in this file nobody computes any: both kernels know that the packets never left the machine.
    """
    cable.run(getattr(cable, where), "ethtool", "-K", IFACE, "tx", "off")
    with cable.connect(family):
        assert program.counters()["syns"] == 1
        assert program.counters()["up_checksum"] == 0


@BOTH
def test_frame_with_a_tag_is_left_alone(cable: Hosts, program: Forwarder, family: int) -> None:
    network = IP(src=CLIENT[4], dst=VIP[4]) if family == 4 else IPv6(src=CLIENT[6], dst=VIP[6])
    syn, last = (network / TCP(sport=40000, dport=80, flags=flags) for flags in ("S", "SF"))
    ether = Ether(src=cable.mac(cable.client), dst=cable.mac(cable.front_end))
    with namespaces.inside(cable.client), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind((IFACE, 0))
        link.send(bytes(ether / Dot1Q(vlan=5) / syn))
        link.send(bytes(ether / syn))
        link.send(bytes(ether / last))
    assert wait_until(lambda: program.counters()["dropped_flags"] > 0, limit_s=2.0)
    assert program.counters()["syns"] == 1


@BOTH
def test_connection_that_is_carried_reaches_its_server(cable: Hosts, program: Forwarder, family: int) -> None:
    with cable.connect(family) as client, cable.server_of(client, family) as (identity, server):
        assert program.carry(identity, BACKEND, 1, seq_add(identity.iss, 1), clock.now())
        exchange(client, server, MEGABYTE)
        known = program.look_up(identity.key)
        assert known is not None
        assert known.last_ack == seq_add(identity.iss, 1 + MEGABYTE)
        assert clock.now() - 5 < known.last_seen_s <= clock.now()
    assert program.counters()["forwarded"] > 0


@BOTH
@pytest.mark.parametrize("outer", [4, 6])
def test_connection_that_is_carried_through_a_tunnel_arrives_whole(
    cable: Hosts, program: Forwarder, family: int, outer: int
) -> None:
    """The segments that the devices merge are wrapped at once, and cut where they leave."""
    source, destination = (ip_address(each[outer]).packed for each in (FRONT_END, BACK_END))
    program.set_tunnel(BACKEND, source, destination, CARRIED_OCTETS)
    inner = socket.IPPROTO_IPIP if family == 4 else socket.IPPROTO_IPV6
    with namespaces.inside(cable.back_end):
        listening = socket.socket(socket.AF_INET if outer == 4 else socket.AF_INET6, socket.SOCK_RAW, inner)
    with listening, cable.connect(family) as client, cable.server_of(client, family) as (identity, _):
        listening.settimeout(5.0)
        program.carry(identity, BACKEND, 1, seq_add(identity.iss, 1), clock.now())
        client.sendall(b"z" * 3000)
        arrived: set[int] = set()
        header, first = 20 if family == 4 else 40, seq_add(identity.irs, 1)
        while arrived != set(range(3000)):
            packet = listening.recv(1 << 16)
            packet = packet[20:] if outer == 4 else packet  # an IPv6 socket gets no outer header
            assert packet[0] >> 4 == family
            seq, offset = int.from_bytes(packet[header + 4 : header + 8], "big"), packet[header + 12] >> 4
            start = (seq - first) & 0xFFFFFFFF
            length = len(packet) - header - 4 * offset
            assert start + length <= 3000
            arrived |= set(range(start, start + length))
    counters = program.counters()
    assert counters["tunnelled"] > 0
    assert counters["up_kernel"] == counters["dropped_fault"] == 0


# --- processes that come and go

_KEEPER = """
import sys
from pathlib import Path
from tcpha.lab import namespaces
from tests.kernel.three_hosts import forwarder_of
with namespaces.inside(sys.argv[1]):
    forwarder = forwarder_of(Path(sys.argv[2]))
    forwarder.set_neighbour((bytes.fromhex(sys.argv[3]), 666), bytes.fromhex(sys.argv[4]))
    forwarder.attach()
    print("attached", flush=True)
    irs_and_so_on = sys.stdin.readline().split()
    from tcpha.proto.messages import Identity
    from tcpha.proto.ip import ConnectionKey
    key, irs, iss = bytes.fromhex(irs_and_so_on[0]), *map(int, irs_and_so_on[1:])
    forwarder.carry(Identity(ConnectionKey(key), irs, iss), (bytes.fromhex(sys.argv[3]), 666), 77, iss + 1, 1.0, (5, 6))
    print("carried", flush=True)
    sys.stdin.readline()
"""


@BOTH
def test_process_is_killed_the_connection_goes_on_and_the_next_process_finds_it(
    cable: Hosts, bpffs: Path, family: int
) -> None:
    pins = bpffs / "fe"
    arguments = [cable.front_end, str(pins), BACKEND[0].hex(), cable.mac(cable.back_end).hex()]
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "attached\n"
        with cable.connect(family) as client, cable.server_of(client, family) as (identity, server):
            process.stdin.write(f"{identity.key.hex()} {identity.irs} {identity.iss}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "carried\n"
            exchange(client, server, 1000)
            process.send_signal(signal.SIGKILL)
            process.wait()
            exchange(client, server, MEGABYTE)
            with namespaces.inside(cable.front_end):
                following = forwarder_of(pins)
                ((backend, flow),) = following.retain({BACKEND})
                assert (backend, flow.identity, flow.period, flow.noted) == (BACKEND, identity, 77, (5, 6))
                assert flow.last_ack == seq_add(identity.iss, 1001 + MEGABYTE)
                following.attach()
                exchange(client, server, 1000)
                assert following.counters()["forwarded"] > 0  # it is the new program that does it
                _end(following, pins)
                assert cable.run(cable.front_end, "tc", "filter", "show", "dev", IFACE, "ingress") == ""
            with pytest.raises(ConnectionRefusedError), cable.connect(family):  # the host itself answers
                raise AssertionError("a program is still there")
    assert not pins.exists()


def _end(forwarder: Forwarder, pins: Path) -> None:
    assert {each.name for each in pins.iterdir()} == set(PINNED)
    forwarder.detach()
    forwarder.close()
    clear(pins)
