"""A client uses one port again at once, towards the same or the other back end: never a wrong or lost answer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest

from tcpha.lab.cluster import Lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, retransmissions

pytestmark = pytest.mark.cluster

TIMES = 200
_ports = itertools.count(21_001, 2)


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
