"""A client uses one port again at once, towards the same or the other back end: never a wrong or lost answer."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import TCP

from tcpha.fe.flows import STRANGE_OCTETS
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster import forgery
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, retransmissions
from tests.cluster.mishaps import kernel
from tests.cluster.sniffing import sniffing
from tests.cluster.socket_sight import numbers, states, vanish
from tests.cluster.test_engine_loss import dropping

pytestmark = pytest.mark.cluster

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
TIMES = 200
AGAIN = 1_000 if AT_LENGTH else 50
PATIENT = Settings(
    both=("dead_time = 8s",),
    fe=("handoff_repeats = 7", "handoff_wait = 9s"),
    be=("stale_time = 4s", "replay_time = 4s"),
)
_ports = itertools.count(21_001, 2)


@pytest.fixture(scope="module")
def lab(_machine: None) -> Iterator[Lab]:
    """A lab whose nodes wait for each other for seconds: an answer of the front end's own would be a wrong one here."""
    with engine_lab(PATIENT) as standing:
        yield standing


def _server_closes(client: Conversation, lab: Lab) -> None:
    assert client.rest() == b""


def _client_resets(client: Conversation, lab: Lab) -> None:
    client.abort()


def _client_closes(client: Conversation, lab: Lab) -> None:
    """The client's own kernel keeps the port for a minute: its memory of it is taken away as soon as all is closed."""
    client.half_close()
    assert client.rest() == b""
    port = client.port
    client.socket.close()
    lab.client.run(["ss", "-K", "sport", "=", f":{port}"], check=True)


ENDS: dict[str, tuple[str, Callable[[Conversation, Lab], None]]] = {
    "server closes": ("Connection: close", _server_closes),
    "client resets": ("Connection: keep-alive", _client_resets),
    "client closes": ("Connection: keep-alive", _client_closes),
}


@pytest.mark.parametrize("end", ENDS)
def test_port_is_used_again_at_once_to_the_same_back_end_each_answer_is_its_own(
    lab: Lab, family: Family, end: str
) -> None:
    port = next(_ports)
    line, finish = ENDS[end]
    before, repeated = counters(lab.fe), retransmissions(lab.client)
    for number in range(TIMES):
        body = os.urandom(64 + number)
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            answer = client.ask(post(body, line))
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body)), number
            finish(client, lab)
    after = counters(lab.fe)
    assert after["handoffs"] - before["handoffs"] == TIMES
    assert after["answered"] == before["answered"]
    assert retransmissions(lab.client) - repeated < TIMES / 4
    assert after["ports_reused"] - before["ports_reused"] == TIMES - 1
    await_no_flows(lab)


@pytest.mark.parametrize("end", ENDS)
def test_port_is_used_again_at_once_to_the_other_back_end_each_answer_is_its_own(
    lab: Lab, family: Family, end: str
) -> None:
    port = next(_ports)
    line, finish = ENDS[end]
    before, repeated = counters(lab.fe), retransmissions(lab.client)
    wanted = [("/1k.jpg", "be2", digest(lab, "1k")), ("/100k.html", "be1", digest(lab, "100k"))]
    for number in range(TIMES):
        target, node, whole = wanted[number % 2]
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            answer = client.ask(get(target, line))
            assert (answer.status, answer.node, answer.sha256) == (200, node, whole), number
            finish(client, lab)
    after = counters(lab.fe)
    assert after["handoffs"] - before["handoffs"] == TIMES
    assert after["answered"] == before["answered"]
    assert retransmissions(lab.client) - repeated < TIMES / 4
    await_no_flows(lab)


def test_download_is_reset_and_the_port_used_again_at_once_each_answer_is_its_own(lab: Lab, family: Family) -> None:
    """The old download is still on its way when the new connection begins."""
    port = next(_ports)
    wanted = [("/10m.jpg", "be2"), ("/10m.html", "be1"), ("/10m.html", "be1")]
    for number in range(TIMES):
        target, node = wanted[number % 3]
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            first = client.ask(get(target.replace("10m", "1k")))
            assert (first.status, first.node, first.sha256) == (200, node, digest(lab, "1k")), number
            client.send(get(target))
            assert client.socket.recv(10_000).startswith(b"HTTP/1.1 200 OK")
            client.abort()
    await_no_flows(lab)


def test_upload_is_reset_and_the_port_used_again_at_once_each_answer_is_its_own(lab: Lab, family: Family) -> None:
    port = next(_ports)
    for number in range(TIMES):
        body = os.urandom(300_000)
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            if number % 2:
                assert client.ask(post(body)).body == digest_line(body), number
            client.send(post(body, "X: this one is given up")[:200_000])
            client.abort()
    await_no_flows(lab)


def test_port_is_used_again_before_the_request_was_answered_each_answer_is_its_own(lab: Lab, family: Family) -> None:
    port = next(_ports)
    for number in range(TIMES):
        body = os.urandom(64 + number)
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            client.send(get("/1k.jpg"))
            client.abort()
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            answer = client.ask(post(body))
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body)), number
            client.abort()
    await_no_flows(lab)


def test_servers_host_loses_the_reset_and_the_port_is_used_again_its_answer_is_its_own(
    lab: Lab, family: Family
) -> None:
    """Programs of the kernel's have seen it by then, and take the connection for over; its socket lives."""
    port, server = next(_ports), lab.backends[0]
    resets = ["-p", "tcp", "--sport", str(port), "--tcp-flags", "RST", "RST"]
    for number in range(5):
        with ExitStack() as losing:  # also what answers a packet that the old server sends late
            with Conversation.open(lab, family, port=port) as old:
                assert old.ask(post(b"old")).node == server.name
                losing.enter_context(dropping(server, family, resets))
                with sniffing(server) as heard:
                    old.abort()
                    assert wait_until(lambda: any(TCP in each and each[TCP].flags.R for each in heard.hear()), 5.0)
            assert "ESTAB" in states(server, port), "it is not lost"
            body = os.urandom(64 + number)
            with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
                answer = client.ask(post(body))
                assert (answer.status, answer.node, answer.body) == (200, server.name, digest_line(body)), number
                losing.close()
                client.abort()
    await_no_flows(lab)


# The old connection still lives


def _nothing_sent(client: Conversation) -> None:
    pass


def _inside_its_head(client: Conversation) -> None:
    client.send(b"GET /1k")
    client.await_acknowledged()


def _answered(client: Conversation) -> None:
    assert client.ask(get("/1k.jpg")).status == 200


def _inside_an_answer(client: Conversation) -> None:
    client.send(get("/100m.jpg"))
    assert client.socket.recv(1000)


def _half_closed(client: Conversation) -> None:
    client.send(post(bytes(100_000))[:50_000])
    client.half_close()


def _inside_an_upload(client: Conversation) -> None:
    client.send(post(bytes(2_000_000))[:1_000_000])
    client.await_acknowledged()


def _refused(client: Conversation) -> None:
    assert client.ask(b"no HTTP\r\n\r\n").status == 400


LIVES: dict[str, Callable[[Conversation], None]] = {
    "nothing sent": _nothing_sent,
    "inside its head": _inside_its_head,
    "answered": _answered,
    "inside an answer": _inside_an_answer,
    "half closed": _half_closed,
    "inside an upload": _inside_an_upload,
    "answered by the front end": _refused,
}


@pytest.mark.parametrize("life", LIVES)
def test_client_vanishes_and_its_port_is_used_again_at_once_each_answer_is_its_own(
    lab: Lab, family: Family, life: str
) -> None:
    """Its host lost its power, or so it looks: nobody hears of the old connection's end, only of the new one."""
    port = next(_ports)
    for number in range(5):
        with Conversation.open(lab, family, port=port, receive_buffer_octets=65_536) as old:
            LIVES[life](old)
            vanish(old.socket)
        body = os.urandom(64 + number)
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            answer = client.ask(post(body))
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body)), number
            assert client.ask(get("/1k.html")).sha256 == digest(lab, "1k")
            vanish(client.socket)
    with Conversation.open(lab, family, port=port) as client:
        assert client.ask(get("/1k.jpg", "Connection: close")).status == 200
        assert client.rest() == b""
    await_no_flows(lab, 10.0)


def _open_far_from(lab: Lab, family: Family, port: int, heard: int) -> Conversation:
    """A connection whose numbers tell it from the one before: of 256 one begins by chance where that one was."""
    while True:
        client = Conversation.open(lab, family, port=port, limit_s=5.0)
        if (numbers(client.socket)[1] - heard + STRANGE_OCTETS) % (1 << 32) > 2 * STRANGE_OCTETS:
            return client
        client.abort()


def test_strangers_syns_hide_the_one_that_uses_a_port_again_its_answer_is_its_own(lab: Lab, family: Family) -> None:
    """The front end remembers two SYNs of a live flow; these come between the true one and its request."""
    port = next(_ports)
    for number in range(10):
        with Conversation.open(lab, family, port=port) as old:
            _answered(old)
            heard = numbers(old.socket)[1]
            vanish(old.socket)
        with _open_far_from(lab, family, port, heard) as client:
            before = counters(lab.fe)["syns"]
            syns = [forgery.segment(lab, family, sport=port, flags="S", seq=1000 * each) for each in range(10)]
            forgery.send(lab, syns, lab.fe)
            assert wait_until(lambda: counters(lab.fe)["syns"] >= before + 10, 5.0)  # noqa: B023
            body = os.urandom(64 + number)
            assert client.ask(post(body)).body == digest_line(body), number
            client.abort()
    await_no_flows(lab)


def test_port_in_time_wait_is_used_again_by_the_kernel_itself_each_answer_is_its_own(lab: Lab, family: Family) -> None:
    """tcp_tw_reuse: the client's kernel takes a port whose old connection it still remembers (RFC 6191)."""
    port = next(_ports)
    with lab.client.enter():
        if not Path("/proc/sys/net/ipv4/tcp_tw_reuse_delay").exists():
            pytest.skip("this kernel reuses a port only after a second")
    with kernel(lab.client, tcp_tw_reuse=1, tcp_tw_reuse_delay=1):
        for number in range(AGAIN):
            target, node = (("/1k.jpg", "be2"), ("/1k.html", "be1"))[number % 2]
            with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
                answer = client.ask(get(target))
                assert (answer.status, answer.node, answer.sha256) == (200, node, digest(lab, "1k")), number
                client.half_close()
                assert client.rest() == b""
    await_no_flows(lab)


@pytest.mark.long
@pytest.mark.skipif(not AT_LENGTH, reason="thousands of connections: set TCPHA_LONG=1")
def test_port_is_used_again_thousands_of_times_each_answer_is_its_own(lab: Lab, family: Family) -> None:
    """In every order of the ways to end, to both back ends."""
    port, order = next(_ports), random.Random(4711)
    ways = list(ENDS.values())
    for number in range(5_000):
        line, finish = order.choice(ways)
        body, node = os.urandom(order.randrange(1, 3_000)), order.choice(("be1", "be2"))
        with Conversation.open(lab, family, port=port, limit_s=10.0) as client:
            if node == "be1":
                answer = client.ask(post(body, line))
                assert (answer.status, answer.node, answer.body) == (200, node, digest_line(body)), number
            else:
                answer = client.ask(get("/1k.jpg", line))
                assert (answer.status, answer.node, answer.sha256) == (200, node, digest(lab, "1k")), number
            finish(client, lab)
    await_no_flows(lab)
