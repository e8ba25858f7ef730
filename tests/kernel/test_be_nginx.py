"""HANDOFFs of our codec, a real kernel, an unmodified nginx, a client's kernel: no agent runs, only the programs."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_PACKET, SHUT_WR, SO_LINGER, SO_MARK, SOCK_DGRAM, SOL_SOCKET, htons, socket

import pytest
from msgspec.structs import replace

from tcpha.kernel.be_maps import Answer
from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until
from tcpha.net.bpf_adopter import Adopter, obstacle
from tcpha.net.raw import RawSender
from tcpha.proto.cookie import Agreement
from tcpha.proto.ip import reverse_key
from tcpha.proto.messages import Handoff
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import RST, decode_segment, encode_segment
from tests.kernel.frames import EPOCH, PERIOD, SENDER, TABLE, VIP, VIP_PORT, Datagram, handoff
from tests.kernel.rehearsal import identities
from tests.kernel.two_hosts import Hosts, nginx, received

pytestmark = pytest.mark.kernel

ETH_P_ALL = 3
SMALL, LARGE = os.urandom(1000), os.urandom(10_000_000)
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@dataclass
class Site:
    """Both hosts, with programs and server."""

    hosts: Hosts
    adopter: Adopter
    family: int
    directory: Path
    sequence: int = 0

    def request(self, path: str, *, close: bool = True, **changes: int) -> Handoff:
        end = "Connection: close\r\n" if close else ""
        octets = f"GET /{path} HTTP/1.1\r\nHost: www.example\r\n{end}\r\n".encode()
        return replace(handoff(self.family, **changes), octets=octets)

    def hand_over(self, message: Handoff) -> None:
        """One more HANDOFF, sealed anew."""
        self.sequence += 1
        self.hosts.send(Datagram(message, self.family, sequence=self.sequence).octets, self.family)

    def fetch(self, message: Handoff) -> bytes:
        """Hand over, and return what the client gets until the server closes."""
        with self.hosts.client_of(message, self.family) as client:
            self.hand_over(message)
            return body(received(client))

    def counted(self, **wanted: int) -> bool:
        counts = self.adopter.counters()
        return all(counts[name] == number for name, number in wanted.items())

    def requests_served(self) -> int:
        return len((self.directory / "access.log").read_text().splitlines())


def body(response: bytes) -> bytes:
    head, _, rest = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return rest


def small_body(client: socket) -> bytes:
    """The body of a response that has as many octets as `SMALL`; the connection stays open."""
    response = b""
    while len(response.partition(b"\r\n\r\n")[2]) < len(SMALL):
        piece = client.recv(1 << 16)
        assert piece, response
        response += piece
    return body(response)


def silence(hosts: Hosts, family: int) -> None:
    """The client's kernel hears nothing of the server, and so says nothing."""
    program = "iptables" if family == 4 else "ip6tables"
    hosts.run(
        hosts.client, program, "-w", "-t", "raw", "-A", "PREROUTING", "-s", VIP[family], "-p", "tcp", "-j", "DROP"
    )


@contextmanager
def site(hosts: Hosts, directory: Path, family: int, listen: str = "") -> Iterator[Site]:
    directory.chmod(0o755)
    (directory / "small").write_bytes(SMALL)
    (directory / "large").write_bytes(LARGE)
    with nginx(hosts, directory, listen=listen), hosts.adopter(PERIOD, SENDER, EPOCH, TABLE, family) as adopter:
        yield Site(hosts, adopter, family, directory)


@FAMILIES
def test_handoff_arrives_nginx_answers_the_client(hosts: Hosts, tmp_path: Path, family: int) -> None:
    with site(hosts, tmp_path, family) as here:
        assert here.fetch(here.request("small")) == SMALL
        message = replace(here.request("large", client_port=40002, irs=0xFFFFFFF0, iss=0xFFFFFF00), confirm=True)
        assert here.fetch(message) == LARGE
        assert here.counted(adopted=2)
        closed, held = here.adopter.news()
        assert [each for fields in closed for each in identities(fields)][-1] == message.identity
        assert held == []


@FAMILIES
@pytest.mark.parametrize("what", ["no timestamps", "nothing"])
def test_client_agreed_on_less_nginx_answers(hosts: Hosts, tmp_path: Path, family: int, what: str) -> None:
    with site(hosts, tmp_path, family) as here:
        message = here.request("small")
        if what in ("no timestamps", "nothing"):
            message = replace(message, tsval_sent=None, tsval_client=0)
        if what in ("no scales", "nothing"):
            message = replace(
                message, agreement=replace(message.agreement, window_scale=None), promised_window_scale=None
            )
        if what in ("no SACK", "nothing"):
            message = replace(message, agreement=replace(message.agreement, sack=False))
        assert here.fetch(message) == SMALL


def test_handoff_carries_no_octets_the_clients_own_segment_brings_them(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        message = here.request("small")
        with here.hosts.client_of(replace(message, octets=b"")) as client:
            here.hand_over(replace(message, octets=b""))
            assert wait_until(lambda: here.counted(adopted=1), limit_s=2.0)
            client.send(message.octets)
            assert body(received(client)) == SMALL


def test_client_goes_on_and_closes_first_the_connection_stays_the_kernels(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        message = here.request("small", close=False)
        with here.hosts.client_of(message) as client:
            here.hand_over(message)
            assert small_body(client) == SMALL
            client.send(here.request("small").octets)
            assert body(received(client)) == SMALL
            client.shutdown(SHUT_WR)
        assert here.requests_served() == 2
        assert here.counted(adopted=1)


def client_closes(client: socket) -> None:
    client.shutdown(SHUT_WR)
    assert client.recv(1) == b""


def client_aborts(client: socket) -> None:
    client.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def server_closes(client: socket) -> None:
    client.send(b"GET /small HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n")
    assert body(received(client)) == SMALL


def server_closes_and_the_client_is_slow(client: socket) -> None:
    """Before the client has closed, too, the server's host keeps the connection as one in TIME-WAIT (FIN-WAIT-2)."""
    server_closes(client)
    client.send(b"x")


@FAMILIES
@pytest.mark.parametrize("end", [client_closes, client_aborts, server_closes, server_closes_and_the_client_is_slow])
def test_connection_ends_it_is_told_at_once_and_the_socket_is_gone(
    hosts: Hosts, tmp_path: Path, family: int, end: Callable[[socket], None]
) -> None:
    with site(hosts, tmp_path, family) as here:
        message = here.request("small", close=False)
        with here.hosts.client_of(message, family) as client:
            here.hand_over(message)
            assert small_body(client) == SMALL
            assert (here.adopter.live, here.adopter.news()[0]) == (1, [])
            end(client)
        assert wait_until(lambda: here.adopter.live == 0, limit_s=2.0)
        assert [each for fields in here.adopter.news()[0] for each in identities(fields)] == [message.identity]
        assert "ESTAB" not in hosts.sockets("sport", "=", f":{VIP_PORT}", "and", "dport", "=", ":40000")


def test_client_has_sent_what_the_server_has_not_seen_its_reset_ends_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """The server's TCP asks who it was (RFC 5961, 3.2)."""
    with site(hosts, tmp_path, 4) as here:
        message = here.request("small", close=False)
        with here.hosts.client_of(message) as client:
            here.hand_over(message)
            assert small_body(client) == SMALL
            forged = encode_segment(
                message.identity.key, seq_add(message.identity.irs, 1 + len(message.octets) + 1), SeqNum(0), RST, 0
            )
            with namespaces.inside(hosts.client), closing(RawSender(1)) as stranger:
                stranger.send(forged)
            doubted: list[Answer] = []

            def doubts() -> bool:
                doubted.extend(here.adopter.answers())
                return bool(doubted)

            assert wait_until(doubts, limit_s=2.0)
            assert [(each.identity, each.sender) for each in doubted] == [(message.identity, 0)]
            assert here.adopter.live == 1
            client.send(here.request("small").octets)
            assert body(received(client)) == SMALL
        assert wait_until(lambda: here.adopter.live == 0, limit_s=2.0)
        assert here.requests_served() == 2


@FAMILIES
def test_time_wait_holds_the_ports_next_connection_is_adopted(hosts: Hosts, tmp_path: Path, family: int) -> None:
    with site(hosts, tmp_path, family) as here:
        for number in range(4):
            message = here.request("small", irs=0x11223344 + 0x100000 * number, iss=0x0A514C36 + 0x10000000 * number)
            message = replace(message, tsval_client=1000000 + 1000 * number)
            assert here.fetch(message) == SMALL
        assert here.counted(adopted=4, recycled=3)


def test_handoff_comes_again_while_it_lives_nothing_runs_twice(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        message = replace(here.request("small", close=False), confirm=True)
        with here.hosts.client_of(message) as client:
            for _ in range(3):
                here.hand_over(message)
            assert small_body(client) == SMALL
            assert wait_until(lambda: here.counted(adopted=1, repeated=2), limit_s=2.0)
            answers = {each.rcv_nxt for each in here.adopter.answers()}
            assert answers == {seq_add(message.identity.irs, 1 + len(message.octets))}
            client.send(here.request("small").octets)
            assert body(received(client)) == SMALL
        assert here.requests_served() == 2


def test_handoff_comes_again_when_it_is_over_that_is_told_again_and_nothing_runs(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        message = here.request("small")
        assert here.fetch(message) == SMALL
        here.hand_over(message)
        assert wait_until(lambda: here.counted(told_again=1), limit_s=2.0)
        hosts.run(hosts.server, "ss", "-K", "state", "time-wait")
        here.hand_over(message)
        assert wait_until(lambda: here.counted(told_again=2), limit_s=2.0)
        assert [each for fields in here.adopter.news()[0] for each in identities(fields)] == [message.identity] * 3
        assert here.requests_served() == 1
        assert here.adopter.live == 0


def test_accept_queue_is_full_nothing_is_made_and_the_agent_may_take_over(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.adopter(PERIOD, SENDER, EPOCH, TABLE) as adopter:
        with namespaces.inside(hosts.server):
            listener = socket()
            listener.bind((VIP[4], VIP_PORT))
            listener.listen(0)
        with listener:
            here = Site(hosts, adopter, 4, tmp_path)
            first, second = (here.request("x", client_port=port) for port in (41000, 41002))
            for message in (first, second):
                here.hand_over(message)
            assert wait_until(lambda: here.counted(adopted=2), limit_s=2.0)
            here.hand_over(second)
            assert wait_until(lambda: here.counted(up_ran=1), limit_s=2.0)
            assert here.counted(adopted=2, started=1)
            assert adopter.take_over(second.identity, PERIOD)
            assert not adopter.take_over(first.identity, PERIOD)


def test_listener_has_a_mark_of_its_own_agent_gets_the_datagram(hosts: Hosts, tmp_path: Path) -> None:
    """Its connections would bear that one, and nobody would know them for ours."""
    with hosts.adopter(PERIOD, SENDER, EPOCH, TABLE) as adopter:
        with namespaces.inside(hosts.server):
            listener = socket()
            listener.setsockopt(SOL_SOCKET, SO_MARK, 5)
            listener.bind((VIP[4], VIP_PORT))
            listener.listen(5)
        with listener:
            here = Site(hosts, adopter, 4, tmp_path)
            here.hand_over(here.request("small"))
            assert wait_until(lambda: here.counted(up_live=1), limit_s=2.0)


@FAMILIES
def test_answers_leave_where_no_program_sees_them_connection_counts_and_its_reset_is_told(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    with site(hosts, tmp_path, family) as here:
        here.adopter._attached[1].detach()  # be_egress
        message = replace(here.request("small", close=False), confirm=True)
        with here.hosts.client_of(message, family) as client:
            here.hand_over(message)
            assert small_body(client) == SMALL
            assert wait_until(lambda: here.adopter.live == 1, limit_s=2.0)
            assert [sender for sender, _ in here.adopter.news()[1]] == [SENDER]
            client_aborts(client)
        assert wait_until(lambda: here.adopter.live == 0, limit_s=2.0)


@FAMILIES
def test_server_speaks_first_packet_bears_what_the_client_was_promised(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    with site(hosts, tmp_path, family) as here, namespaces.inside(hosts.client):
        message = here.request("small", close=False)
        silence(hosts, family)
        with socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL)) as cable:
            cable.settimeout(2.0)
            here.hand_over(message)
            while True:
                packet = cable.recv(1 << 16)
                if b"HTTP/1.1 200 OK" in packet:
                    break
        first = decode_segment(packet)
        assert first.key == reverse_key(message.identity.key)
        assert first.seg_seq == seq_add(message.identity.iss, 1)
        assert first.seg_ack == seq_add(message.identity.irs, 1 + len(message.octets))
        assert first.timestamps is not None
        tsval, tsecr = first.timestamps
        assert 0 <= tsval - (message.tsval_sent or 0) < 5000
        assert tsecr == message.tsval_client
        seen = hosts.run(hosts.server, "ss", "-Htinmo", "sport", "=", f":{VIP_PORT}", "dport", "=", ":40000")
        assert " ts sack " in seen
        assert f" wscale:{message.agreement.window_scale},{message.promised_window_scale} " in seen


def test_client_is_silent_no_round_trip_was_measured(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        silence(hosts, 4)
        here.hand_over(here.request("large"))

        def seen() -> str:
            return hosts.run(hosts.server, "ss", "-Htin", "sport", "=", f":{VIP_PORT}", "dport", "=", ":40000")

        assert wait_until(lambda: "bytes_sent:" in seen(), limit_s=2.0)
        assert " rtt:" not in seen()


def test_mss_is_smaller_than_the_kernel_takes_agent_gets_the_datagram(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        here.hand_over(replace(here.request("small"), agreement=Agreement(88, 7, True)))
        assert wait_until(lambda: here.counted(up_kernel=1), limit_s=2.0)
        assert here.requests_served() == 0


def test_nobody_listens_agent_gets_the_datagram(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.adopter(PERIOD, SENDER, EPOCH, TABLE) as adopter:
        here = Site(hosts, adopter, 4, tmp_path)
        here.hand_over(here.request("small"))
        assert wait_until(lambda: here.counted(up_no_listener=1), limit_s=2.0)


def test_programs_are_detached_connection_goes_on_no_other_is_adopted(hosts: Hosts, tmp_path: Path) -> None:
    with site(hosts, tmp_path, 4) as here:
        message = here.request("small", close=False)
        with here.hosts.client_of(message) as client:
            here.hand_over(message)
            assert small_body(client) == SMALL
            here.adopter.detach()
            here.hand_over(here.request("small", client_port=40002))
            assert "40000" in hosts.sockets("state", "established")
            assert "40002" not in hosts.sockets()


@pytest.mark.parametrize("setting", ["tcp_syncookies", "tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
def test_host_does_not_allow_it_obstacle_names_the_setting(hosts: Hosts, setting: str) -> None:
    with namespaces.inside(hosts.server):
        assert obstacle() is None
    hosts.run(hosts.server, "sysctl", "-qw", f"net.ipv4.{setting}=0")
    with namespaces.inside(hosts.server):
        assert f"net.ipv4.{setting} is 0" in str(obstacle())
