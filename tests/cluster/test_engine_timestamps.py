"""Timestamps as the client sees them, whoever speaks: the front end or a server that it never heard of (RFC 7323, 3).

Of every connection each packet is heard where it leaves, and at the client. Once timestamps are agreed on, every
segment but a RST carries them; TSval never goes back, neither from one segment of a node's to its next nor from the
front end to the server; TSecr is a TSval that the client has sent.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, post, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, packets_seen
from tests.cluster.engines import needs_python
from tests.cluster.sniffing import Sniffed, sniffing
from tests.cluster.tcp_stack import set_up
from tests.cluster.test_engine_loss import dropping

pytestmark = pytest.mark.cluster

NO_HTTP = b"what?\r\n\r\n"
"""The front end answers it."""
HALF = 1 << 31
MASK = (1 << 32) - 1


@contextmanager
def heard_right(lab: Lab) -> Iterator[dict[int, list[str]]]:
    """What is heard meanwhile of every connection must be right; filled at the end: flags of arrived segments by port.

    On their way segments of one node may overtake each other: so clocks are judged where they speak.
    """
    flags: dict[int, list[str]] = {}
    with ExitStack() as ears:
        speakers = [ears.enter_context(sniffing(node)) for node in (lab.fe, *lab.backends)]
        heard = ears.enter_context(sniffing(lab.client))
        yield flags
    assert heard.arrived, "nothing was heard"
    addresses = {vip(lab, family) for family in FAMILIES}
    spoken = [said(each, addresses) for each in speakers]
    for port, segments in connections(heard, addresses).items():
        flags[port] = [str(tcp.flags) for arrived, tcp in segments if arrived]
        check_echoes(port, segments)
        # The front end's clock stands still: whenever it speaks, it is not ahead of a server.
        check_clock(port, [tcp for each in spoken for tcp in each.get(port, ())])


def connections(heard: Sniffed, addresses: set[str]) -> dict[int, list[tuple[bool, Any]]]:
    """The segments of each connection with the virtual addresses, by the client's port."""
    found: dict[int, list[tuple[bool, Any]]] = {}
    for arrived, packet in heard.both:
        if TCP in packet and (packet.src if arrived else packet.dst) in addresses:
            tcp = packet[TCP]
            found.setdefault(tcp.dport if arrived else tcp.sport, []).append((arrived, tcp))
    return found


def said(heard: Sniffed, addresses: set[str]) -> dict[int, list[Any]]:
    """What the node itself has sent from the virtual addresses, by the client's port; of SYN-ACKs the last.

    The one before it was lost, and its TSval is no clock's but a cookie, another one for each period.
    """
    found: dict[int, list[Any]] = {}
    for arrived, packet in heard.both:
        if not arrived and TCP in packet and packet.src in addresses:
            tcp = packet[TCP]
            if tcp.flags.S:
                found[tcp.dport] = []
            found.setdefault(tcp.dport, []).append(tcp)
    return found


def timestamps(tcp: Any) -> tuple[int, int] | None:
    """TSval and TSecr."""
    found: tuple[int, int] | None = dict(tcp.options).get("Timestamp")
    return found


def check_echoes(port: int, segments: list[tuple[bool, Any]]) -> None:
    sent: set[int] = set()
    for arrived, tcp in segments:
        stamps = timestamps(tcp)
        if not arrived:
            sent |= {stamps[0]} if stamps else set()
        elif not tcp.flags.R:
            assert stamps is not None, f"port {port}: {tcp.flags} without timestamps"
            assert stamps[1] in sent, f"port {port}: {tcp.flags} echoes what was never sent"


def check_clock(port: int, segments: list[Any]) -> None:
    values = [stamps[0] for tcp in segments if (stamps := timestamps(tcp)) is not None]
    assert values, f"port {port}: nobody was heard to speak"
    for one, next_one in pairwise(values):
        assert (next_one - one) & MASK < HALF, f"port {port}: {one}, then {next_one}"


def test_requests_and_answers_of_one_connection(lab: Lab, family: Family) -> None:
    with heard_right(lab), Conversation.open(lab, family) as client:
        for name in ("1k", "100k", "1m"):
            assert client.ask(get(f"/{name}.jpg")).sha256 == digest(lab, name)
        body = os.urandom(100_000)
        assert client.ask(post(body)).body == digest_line(body)
        client.half_close()
        assert client.rest() == b""
    await_no_flows(lab)


@pytest.mark.parametrize("cookies", ["1", "2"], ids=["", "cookies"])
def test_head_is_split_and_the_front_end_acknowledges_its_parts(lab: Lab, family: Family, cookies: str) -> None:
    """Whose clock the server's is, is seen in its SYN-ACK, which a kernel in SYN cookies makes of other bits."""
    server = lab.node("be2")
    request = get("/100k.jpg", "Connection: close")
    with heard_right(lab) as flags, set_up(server, {"tcp_syncookies": cookies}):
        with Conversation.open(lab, family, nagle=False) as client:
            port = client.port
            for start in range(0, len(request), 20):
                client.send(request[start : start + 20])
                if start + 20 < len(request):
                    client.await_acknowledged()
            assert client.answer().sha256 == digest(lab, "100k")
            assert client.rest() == b""
        await_no_flows(lab)
    assert flags[port][:3] == ["SA", "A", "A"]


def test_front_end_answers_and_repeats_its_answer(lab: Lab, family: Family) -> None:
    """What arrives at the client is lost until the front end has said all twice."""
    with heard_right(lab) as flags, Conversation.open(lab, family) as client:
        port = client.port
        with dropping(lab.client, family, ["-s", vip(lab, family), "-p", "tcp"]):
            client.send(NO_HTTP)
            assert client.is_quiet(0.35)
        assert client.answer().status == 400
        assert client.rest() == b""
        client.socket.close()
        await_no_flows(lab)
    assert sum("F" in each for each in flags[port]) >= 2


def test_back_end_is_silent_and_the_front_end_answers(lab: Lab, family: Family) -> None:
    """A POST that may have run: it is not given to anybody else."""
    agent = lab.node("be1").engine.pid
    assert agent is not None
    with heard_right(lab), Conversation.open(lab, family) as client:
        request = post(os.urandom(1_000))
        os.kill(agent, signal.SIGSTOP)
        try:
            client.send(request[:20])
            client.await_acknowledged()
            client.send(request[20:])
            assert client.answer().status == 503
        finally:
            os.kill(agent, signal.SIGCONT)
        assert client.rest() == b""
    await_no_flows(lab)
    address = str(lab.node("be1").ipv4)
    assert wait_until(lambda: counters(lab.fe)["peers"][address] == "up", 5.0)


def test_handoff_is_lost_and_repeated(lab: Lab, family: Family) -> None:
    """And the request is lost at the client's side, which repeats it, too."""
    needs_python("be", "its program takes a HANDOFF before a rule of the host can drop it")
    before = counters(lab.fe)["repeats"]
    with heard_right(lab), Conversation.open(lab, family) as client:
        with dropping(lab.node("be2"), "ipv4", ["-p", "udp", "--dport", "666"]):
            client.send(get("/100k.jpg"))
            assert wait_until(lambda: counters(lab.fe)["repeats"] > before, 2.0, 0.001)
        assert client.answer().sha256 == digest(lab, "100k")
    await_no_flows(lab)


def test_packets_to_the_client_are_lost_and_come_again(lab: Lab, family: Family) -> None:
    lossy = ["-s", vip(lab, family), "-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", "0.03"]
    with heard_right(lab), dropping(lab.client, family, lossy):
        for _ in range(5):
            with Conversation.open(lab, family) as client:
                assert client.ask(get("/1m.jpg", "Connection: close")).sha256 == digest(lab, "1m")
                assert client.rest() == b""
        await_no_flows(lab, 10.0)


def test_client_closes_before_a_request(lab: Lab, family: Family) -> None:
    with heard_right(lab) as flags:
        with Conversation.open(lab, family) as client:
            port = client.port
            client.half_close()
            assert client.rest() == b""
        with Conversation.open(lab, family) as client:
            client.send(b"GET /1k.jp")
            client.half_close()
            assert client.rest() == b""
    assert "FA" in flags[port]
    await_no_flows(lab)


def test_client_asks_whether_the_connection_lives_before_its_request(lab: Lab) -> None:
    before = counters(lab.fe)["keepalives"]
    with heard_right(lab), ExitStack() as open_clients:
        clients = [open_clients.enter_context(Conversation.open(lab, family)) for family in FAMILIES]
        for client in clients:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        assert wait_until(lambda: counters(lab.fe)["keepalives"] >= before + len(clients), 5.0)
        for client in clients:
            assert client.ask(get("/1k.jpg")).sha256 == digest(lab, "1k")
    await_no_flows(lab)


@pytest.mark.parametrize("request_octets", [get("/1k.jpg", "Connection: close"), NO_HTTP], ids=["server", "front end"])
def test_last_acknowledgement_is_lost_and_the_client_closes_again(
    lab: Lab, family: Family, request_octets: bytes
) -> None:
    """Whoever is in TIME-WAIT answers once more."""
    with heard_right(lab) as flags, Conversation.open(lab, family) as client:
        port = client.port
        client.ask(request_octets)
        assert client.rest() == b""
        with dropping(lab.client, family, ["-s", vip(lab, family), "-p", "tcp"]):
            before = packets_seen(lab.fe)
            client.half_close()
            assert wait_until(lambda: packets_seen(lab.fe) >= before + 2, 5.0)
        client.await_acknowledged()
    assert flags[port][-1] == "A"
    await_no_flows(lab)
