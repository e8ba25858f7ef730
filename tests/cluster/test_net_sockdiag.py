"""SocketDiagnostics against the kernel's TCP, state by state."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tcpha.kernel.be_maps import encode_tuple
from tcpha.net.raw import RawSender
from tcpha.net.sockdiag import (
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECEIVED,
    TCP_TIME_WAIT,
    SocketDiagnostics,
    TcpSocket,
    connection_of,
)
from tcpha.proto.ip import connection_key
from tests.unit.net.namespaces import Host, pair, until

pytestmark = pytest.mark.cluster

PORT = 8080
FIN_WAIT_2 = 5
CLOSE_WAIT = 8


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@dataclass
class Server:
    """A listener on one host, connected to from the other."""

    host: Host
    client: Host
    diagnostics: SocketDiagnostics
    listener: socket.socket
    local: IPv4Address | IPv6Address
    remote: IPv4Address | IPv6Address

    def connect(self) -> tuple[socket.socket, socket.socket]:
        family = socket.AF_INET if self.local.version == 4 else socket.AF_INET6
        with self.client.inside():
            client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(5)
        client.connect((str(self.local), PORT))
        return client, self.listener.accept()[0]

    def find(self, port: int) -> TcpSocket | None:
        return self.diagnostics.find(self.local, PORT, self.remote, port)

    def until_state(self, port: int, state: int) -> TcpSocket:
        found: list[TcpSocket | None] = []

        def reached() -> bool:
            found.append(self.find(port))
            return found[-1] is not None and found[-1].state == state

        until(reached)
        assert found[-1] is not None
        return found[-1]


@pytest.fixture(params=["ipv4", "ipv6", "ipv4 on a dual-stack wildcard"])
def server(request: pytest.FixtureRequest, hosts: tuple[Host, Host]) -> Iterator[Server]:
    client, host = hosts
    with host.inside():
        diagnostics = SocketDiagnostics()
        if request.param == "ipv4":
            listener = socket.create_server((str(host.addr4), PORT))
        elif request.param == "ipv6":
            listener = socket.create_server((str(host.addr6), PORT), family=socket.AF_INET6)
        else:
            listener = socket.create_server(("", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    local, remote = (host.addr6, client.addr6) if request.param == "ipv6" else (host.addr4, client.addr4)
    with closing(diagnostics), listener:
        yield Server(host, client, diagnostics, listener, local, remote)


def test_no_connection_listener_is_not_returned(server: Server) -> None:
    assert server.find(40000) is None


def test_established_is_found_by_the_exact_tuple_only(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        port = client.getsockname()[1]
        found = server.find(port)
        assert found is not None
        assert found.state == TCP_ESTABLISHED
        assert server.find(port ^ 1) is None
        assert server.diagnostics.find(server.remote, port, server.local, PORT) is None


def test_received_octets_are_those_in_order_read_or_not(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        port = client.getsockname()[1]
        assert server.until_state(port, TCP_ESTABLISHED).received == 0
        for octets in (1, 3_001):
            client.sendall(bytes(octets - (octets > 1)))
            until(lambda: getattr(server.find(port), "received", None) == octets)  # noqa: B023
            accepted.recv(octets)
        client.shutdown(socket.SHUT_WR)
        until(lambda: getattr(server.find(port), "received", None) == 3_002)  # a FIN counts as one


def test_closing_states_are_reported(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        port = client.getsockname()[1]
        client.shutdown(socket.SHUT_WR)
        server.until_state(port, CLOSE_WAIT)
    client, accepted = server.connect()
    with client, accepted:
        port = client.getsockname()[1]
        accepted.shutdown(socket.SHUT_WR)
        server.until_state(port, FIN_WAIT_2)
        client.shutdown(socket.SHUT_WR)
        server.until_state(port, TCP_TIME_WAIT)


def encoded(server: Server, port: int) -> bytes:
    return encode_tuple(connection_key(server.remote, port, server.local, PORT))


def test_sockets_with_a_mark_are_found_and_no_others(server: Server) -> None:
    client, accepted = server.connect()
    another, unmarked = server.connect()
    with client, accepted, another, unmarked:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x7C0B)
        (found,) = server.diagnostics.marked(0x7C0B)
        port = client.getsockname()[1]
        assert encode_tuple(connection_of(found)) == encoded(server, port)
        assert server.diagnostics.destroy(found)
        assert server.find(port) is None
        assert server.diagnostics.marked(0x7C0B) == []


def test_connection_is_found_by_its_four_tuple_with_the_mark_of_its_socket(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        key = connection_key(server.remote, client.getsockname()[1], server.local, PORT)
        before = server.diagnostics.find_connection(key)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x7C0B)
        after = server.diagnostics.find_connection(key)
        assert before is not None
        assert after is not None
        assert (before.mark, after.mark, after.cookie) == (0, 0x7C0B, before.cookie)


def test_time_wait_shows_the_mark_of_the_socket_before(server: Server) -> None:
    client, accepted = server.connect()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x7C0B)
    port = client.getsockname()[1]
    accepted.close()
    client.close()
    assert server.until_state(port, TCP_TIME_WAIT).mark == 0x7C0B


def destroy_established(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        found = server.find(client.getsockname()[1])
        assert found is not None
        assert server.diagnostics.destroy(found)
        assert server.find(client.getsockname()[1]) is None
        with pytest.raises(ConnectionAbortedError):
            accepted.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def destroy_time_wait(server: Server) -> None:
    client, accepted = server.connect()
    port = client.getsockname()[1]
    accepted.close()
    client.close()
    found = server.until_state(port, TCP_TIME_WAIT)
    assert server.diagnostics.destroy(found)
    assert server.find(port) is None
    assert server.diagnostics.destroy(found), "what is gone already is gone"


def destroy_syn_received(server: Server) -> None:
    # From an address on the link that nobody has: its SYN-ACK is never answered, so the request stays.
    with server.client.inside():
        sender = RawSender(1)
    if server.local.version == 4:
        absent: IPv4Address | IPv6Address = IPv4Address("10.77.0.77")
        syn = IP(src=str(absent), dst=str(server.local)) / TCP(sport=40001, dport=PORT, flags="S", seq=1)
    else:
        absent = IPv6Address("fd77::77")
        syn = IPv6(src=str(absent), dst=str(server.local)) / TCP(sport=40001, dport=PORT, flags="S", seq=1)
    server.remote = absent
    with closing(sender):
        sender.send(bytes(syn))
        found = server.until_state(40001, TCP_SYN_RECEIVED)
    assert server.diagnostics.destroy(found)
    assert server.find(40001) is None


@pytest.mark.parametrize("scenario", [destroy_established, destroy_time_wait, destroy_syn_received])
def test_destroy_hits_the_socket_and_never_the_listener(server: Server, scenario: Callable[[Server], None]) -> None:
    real_client = server.remote
    scenario(server)
    server.remote = real_client
    client, accepted = server.connect()
    client.close()
    accepted.close()


def test_destroy_with_the_cookie_of_an_earlier_socket_leaves_the_new_one(server: Server) -> None:
    first, accepted_first = server.connect()
    port = first.getsockname()[1]
    old = server.find(port)
    assert old is not None
    accepted_first.close()
    first.close()
    assert server.diagnostics.destroy(server.until_state(port, TCP_TIME_WAIT))
    family = socket.AF_INET if server.local.version == 4 else socket.AF_INET6
    with server.client.inside():
        second = socket.socket(family, socket.SOCK_STREAM)
    with second:
        second.bind((str(server.remote), port))
        second.settimeout(5)
        second.connect((str(server.local), PORT))
        accepted = server.listener.accept()[0]
        with accepted:
            assert server.diagnostics.destroy(old)
            second.send(b"alive")
            assert accepted.recv(5) == b"alive"


def test_destroy_of_a_listener_is_refused(server: Server) -> None:
    client, accepted = server.connect()
    with client, accepted:
        found = server.find(client.getsockname()[1])
        assert found is not None
        assert not server.diagnostics.destroy(dataclasses.replace(found, state=TCP_LISTEN))
        assert server.find(client.getsockname()[1]) is not None
