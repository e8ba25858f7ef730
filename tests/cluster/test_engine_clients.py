"""Clients whose TCP offers less than it could, or takes little at a time, are served all the same."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator

import pytest

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tests.cluster.conversation import Conversation, Family, get, post, unconnected, url, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.tcp_stack import set_up

pytestmark = pytest.mark.cluster

STACKS: dict[str, dict[str, str]] = {
    "no timestamps": {"tcp_timestamps": "0"},
    "no SACK": {"tcp_sack": "0"},
    "no window scaling": {"tcp_window_scaling": "0"},
    "no SACK, no window scaling": {"tcp_sack": "0", "tcp_window_scaling": "0"},
    "nothing but an MSS": {"tcp_timestamps": "0", "tcp_sack": "0", "tcp_window_scaling": "0"},
    "ECN wanted": {"tcp_ecn": "1"},
}


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    """The client's kernel is so set during a test."""
    name: str = request.param
    with set_up(lab.client, STACKS[name]):
        yield name


def test_client_with_another_stack_downloads_what_is_there(lab: Lab, family: Family, stack: str) -> None:
    for name in ("0", "1", "1k", "100k", "10m"):
        target = url(lab, family, f"/{name}.jpg")
        curl = lab.client.run(["curl", "-sSf", target], text=False)
        assert curl.returncode == 0, curl.stderr
        assert hashlib.sha256(curl.stdout).hexdigest() == digest(lab, name), name
    await_no_flows(lab)


def test_client_with_another_stack_uploads_all(lab: Lab, family: Family, stack: str) -> None:
    body = os.urandom(3_000_000)
    with Conversation.open(lab, family) as client:
        for piece in (body[:1], body[:20_000], body):
            assert client.ask(post(piece)).body == digest_line(piece)
            assert client.send_window_octets() >= 30_000, "the server's window arrives too small"
    await_no_flows(lab)


def test_client_with_another_stack_splits_its_head_is_answered(lab: Lab, family: Family, stack: str) -> None:
    request = get("/100k.jpg", f"X: {'x' * 4_000}", "Connection: close")
    for position in (1, 5, 100, 2_000, len(request) - 1):
        with Conversation.open(lab, family, nagle=False) as client:
            client.send(request[:position])
            client.await_acknowledged()
            client.send(request[position:])
            answer = client.answer()
            assert (answer.node, answer.sha256) == ("be2", digest(lab, "100k"))
            assert client.rest() == b""
    await_no_flows(lab)


def test_client_with_another_stack_asks_for_nothing_there_is_gets_an_answer(
    lab: Lab, family: Family, stack: str
) -> None:
    """What the front end answers itself must fit the agreed options, too."""
    with Conversation.open(lab, family) as client:
        assert client.ask(b"nothing that is HTTP\r\n\r\n").status == 400
        assert client.rest() == b""
    await_no_flows(lab)


def test_client_without_timestamps_is_counted_as_less_protected(lab: Lab, family: Family) -> None:
    before = counters(lab.fe)["short_cookies"]
    with set_up(lab.client, {"tcp_timestamps": "0"}), Conversation.open(lab, family) as client:
        assert client.ask(get("/1k")).status == 200
    assert counters(lab.fe)["short_cookies"] == before + 1


def test_client_sends_its_request_in_the_syn_is_answered(lab: Lab, family: Family) -> None:
    """TCP Fast Open without a cookie (RFC 7413, 4.1.2): the data is not taken, and the client sends it again."""
    with set_up(lab.client, {"tcp_fastopen": "5"}), unconnected(lab, family) as peer:
        peer.settimeout(10.0)
        peer.sendto(get("/100k.jpg"), socket.MSG_FASTOPEN, (vip(lab, family), 80))
        answer = Conversation(peer).answer()
        assert (answer.node, answer.sha256) == ("be2", digest(lab, "100k"))
    await_no_flows(lab)


@pytest.mark.parametrize("mss_octets", [100, 536, 1_000])
def test_client_with_a_small_mss_gets_and_sends_all(lab: Lab, family: Family, mss_octets: int) -> None:
    body = os.urandom(300_000)
    with Conversation.open(lab, family, mss_octets=mss_octets) as client:
        assert client.ask(get("/1m.jpg", f"X: {'x' * 3_000}")).sha256 == digest(lab, "1m")
        assert client.ask(post(body)).body == digest_line(body)
    await_no_flows(lab)


@pytest.mark.parametrize("receive_buffer_octets", [1, 4_096, 65_536])
def test_client_with_a_small_receive_buffer_gets_all(lab: Lab, family: Family, receive_buffer_octets: int) -> None:
    with Conversation.open(lab, family, receive_buffer_octets=receive_buffer_octets) as client:
        assert client.ask(get("/1m.jpg")).sha256 == digest(lab, "1m")
        assert client.ask(get("/100k.jpg")).sha256 == digest(lab, "100k")
    await_no_flows(lab)


@pytest.mark.parametrize("mtu_octets", [1_280, 1_400, 9_000])
def test_client_on_a_link_of_another_mtu_gets_and_sends_all(lab: Lab, family: Family, mtu_octets: int) -> None:
    """Its own MSS follows from its MTU; with the largest it must keep to the MSS that it was promised."""
    body = os.urandom(1_000_000)
    set_mtu = ["ip", "link", "set", IFACE, "mtu"]
    lab.client.run([*set_mtu, str(mtu_octets)], check=True)
    try:
        with Conversation.open(lab, family) as client:
            assert client.ask(post(body)).body == digest_line(body)
            assert client.ask(get("/10m")).sha256 == digest(lab, "10m")
    finally:
        lab.client.run([*set_mtu, "1500"], check=True)
    await_no_flows(lab)
