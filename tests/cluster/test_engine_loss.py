"""Packets and handoff datagrams are lost on their way: clients notice nothing but the time it takes to repeat them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.node import Node
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, extended_count
from tests.cluster.engines import some_overtake

pytestmark = pytest.mark.cluster

LOST = ["-m", "statistic", "--mode", "random", "--probability", "0.03"]
LOST_OFTEN = ["-m", "statistic", "--mode", "random", "--probability", "0.1"]
FORGOTTEN_S = 10.0
"""Until the front end has asked what became of flows whose CLOSED was lost."""
EVERY_THIRD = ["-m", "statistic", "--mode", "nth", "--every", "3", "--packet", "0"]


@pytest.fixture(scope="module")
def lossy_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose front end soon asks about idle flows, and bears the loss of several STATUS or HANDOFFs in a row.

    Four tries of a HANDOFF and its ADOPTED fail one time in a thousand where a third of all datagrams is lost.
    """
    with engine_lab(Settings(both=("idle_time = 2s", "dead_time = 3s"), fe=("handoff_repeats = 7",))) as standing:
        yield standing


@contextmanager
def dropping(node: Node, family: Family, match: list[str]) -> Iterator[None]:
    """A node loses arriving packets that match, before the engine or its kernel sees them."""
    program = "iptables" if family == "ipv4" else "ip6tables"
    rule = ["PREROUTING", "-i", IFACE, *match, "-j", "DROP"]
    node.run([program, "-t", "raw", "-I", *rule], check=True)
    try:
        yield
    finally:
        node.run([program, "-t", "raw", "-D", *rule], check=True)


def test_packets_to_the_client_are_lost_downloads_are_whole(lossy_lab: Lab, family: Family) -> None:
    server = lossy_lab.backends[1]
    names = ("TCPSackRecovery", "TCPSACKDiscard", "PAWSEstab", "TCPChallengeACK")
    before = {name: extended_count(server, name) for name in names}
    with dropping(lossy_lab.client, family, ["-s", vip(lossy_lab, family), "-p", "tcp", *LOST]):
        for _ in range(10):
            with Conversation.open(lossy_lab, family) as client:
                answer = client.ask(get("/1m.jpg", "Connection: close"))
                assert (answer.status, answer.sha256) == (200, digest(lossy_lab, "1m"))
                assert client.rest() == b""
        with Conversation.open(lossy_lab, family) as client:
            assert client.ask(get("/10m.jpg")).sha256 == digest(lossy_lab, "10m")
    after = {name: extended_count(server, name) - before[name] for name in names}
    assert after.pop("TCPSackRecovery") > 0, "the server did not understand what the client acknowledged selectively"
    if some_overtake():
        del after["PAWSEstab"]
    assert not any(after.values()), after
    await_no_flows(lossy_lab, FORGOTTEN_S)


def test_packets_from_the_client_are_lost_uploads_are_whole(lossy_lab: Lab, family: Family) -> None:
    with dropping(lossy_lab.fe, family, ["-d", vip(lossy_lab, family), "-p", "tcp", *LOST]):
        for _ in range(10):
            body = os.urandom(300_000)
            with Conversation.open(lossy_lab, family) as client:
                answer = client.ask(post(body, "Connection: close"))
                assert (answer.status, answer.body) == (200, digest_line(body))
                assert client.rest() == b""
    await_no_flows(lossy_lab, FORGOTTEN_S)


def test_packets_from_the_client_are_lost_split_heads_are_answered(lossy_lab: Lab, family: Family) -> None:
    request = get("/100k.jpg", f"X: {'x' * 12_000}", "Connection: close")
    with dropping(lossy_lab.fe, family, ["-d", vip(lossy_lab, family), "-p", "tcp", *LOST]):
        for _ in range(20):
            with Conversation.open(lossy_lab, family, nagle=False, mss_octets=1_000) as client:
                for start in range(0, len(request), 700):
                    client.send(request[start : start + 700])
                answer = client.answer()
                assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lossy_lab, "100k"))
                assert client.rest() == b""
    await_no_flows(lossy_lab, FORGOTTEN_S)


def test_packets_from_the_front_end_to_the_back_end_are_lost_uploads_are_whole(lossy_lab: Lab, family: Family) -> None:
    """The client was told that most of the head arrived: the front end alone can repeat it."""
    with dropping(lossy_lab.backends[0], family, ["-d", vip(lossy_lab, family), "-p", "tcp", *LOST_OFTEN]):
        for _ in range(10):
            body = os.urandom(10_000)
            request = post(body, f"X: {'x' * 12_000}", "Connection: close")
            with Conversation.open(lossy_lab, family, nagle=False) as client:
                client.send(request[:11_000])
                client.await_acknowledged()
                client.send(request[11_000:])
                answer = client.answer()
                assert (answer.status, answer.body) == (200, digest_line(body))
                assert client.rest() == b""
    await_no_flows(lossy_lab, FORGOTTEN_S)


def test_every_third_handoff_datagram_is_lost_all_are_answered_once(lossy_lab: Lab, family: Family) -> None:
    """Among them HANDOFF, ADOPTED, CLOSED and STATUS, in both directions; the channel itself is IPv4."""
    before = counters(lossy_lab.fe)
    lines: tuple[tuple[str, ...], ...] = ((), (f"X: {'x' * 12_000}",))
    with ExitStack() as losing:
        for node in (lossy_lab.fe, *lossy_lab.backends):
            losing.enter_context(dropping(node, "ipv4", ["-p", "udp", "--dport", "666", *EVERY_THIRD]))
        served = sum(posts_served(lossy_lab, node) for node in lossy_lab.backends)
        for number in range(60):
            body = os.urandom(1_000 + number)
            with Conversation.open(lossy_lab, family, nagle=False) as client:
                request = post(body, *lines[number % 2])
                client.send(request[:25])
                if number % 3 == 0:
                    client.await_acknowledged()
                client.send(request[25:])
                answer = client.answer()
                assert (answer.status, answer.body) == (200, digest_line(body)), number
        assert sum(posts_served(lossy_lab, node) for node in lossy_lab.backends) == served + 60
    after = counters(lossy_lab.fe)
    assert after["repeats"] > before["repeats"]
    assert (after["silent"], after["answered"]) == (before["silent"], before["answered"])
    await_no_flows(lossy_lab, FORGOTTEN_S)
    assert counters(lossy_lab.fe)["idle_dropped"] > before["idle_dropped"], "no CLOSED was lost"


def posts_served(lab: Lab, node: Node) -> int:
    return int(lab.client.run(["curl", "-sSf", f"http://{node.ipv4}/sink/count"], check=True).stdout)
