"""HTTP/2, with prior knowledge and over TLS: the first request decides, and its connection stays where it went."""

from __future__ import annotations

import hashlib
import os

import pytest

from tcpha.lab.cluster import Lab
from tests.cluster.choosy_rules import CLOSED_PORT, INSPECT_TIME_S
from tests.cluster.conversation import Conversation, Family, vip
from tests.cluster.engine_sight import await_logged, await_no_flows, counters, digest, digest_line
from tests.cluster.http2_client import HTTP2_PORT, Http2Client
from tests.cluster.tls_conversation import client_context, tls_opened

pytestmark = pytest.mark.cluster

NAMES = ("1k", "100k", "0", "1", "1m")
PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0x1, 0xB


def url(lab: Lab, family: Family, path: str, port: int = HTTP2_PORT) -> str:
    address = vip(lab, family)
    return f"http://{address if family == 'ipv4' else f'[{address}]'}:{port}{path}"


def curl(lab: Lab, target: str, *words: str, body: bytes = b"") -> tuple[list[str], bytes]:
    """Status and answering node, and content."""
    shown = "%{stderr}%{http_version} %{http_code} %header{server-node}"
    command = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "-w", shown, *words, target]
    done = lab.client.run(command, text=False, input=body)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode().split(), done.stdout


# --- with prior knowledge


@pytest.mark.parametrize(
    ("path", "host", "node"), [("/1k.jpg", "lab", "be2"), ("/1k.html", "lab", "be1"), ("/1k", "img.lab.test", "be2")]
)
def test_curl_knows_is_answered_by_the_server_the_rules_name(
    protocol_lab: Lab, family: Family, path: str, host: str, node: str
) -> None:
    shown, content = curl(protocol_lab, url(protocol_lab, family, path), "-H", f"Host: {host}")
    assert shown == ["2", "200", node]
    assert hashlib.sha256(content).hexdigest() == digest(protocol_lab, "1k")


def test_curl_downloads_much_it_is_whole(protocol_lab: Lab, family: Family) -> None:
    shown, content = curl(protocol_lab, url(protocol_lab, family, "/10m.jpg"))
    assert shown == ["2", "200", "be2"]
    assert hashlib.sha256(content).hexdigest() == digest(protocol_lab, "10m")


def test_curl_uploads_much_it_is_whole(protocol_lab: Lab, family: Family) -> None:
    body = os.urandom(5_000_000)
    shown, content = curl(protocol_lab, url(protocol_lab, family, "/sink"), "--data-binary", "@-", body=body)
    assert shown == ["2", "200", "be1"]
    assert content == digest_line(body)


def test_many_requests_are_open_at_once_all_are_answered_where_the_first_went(
    protocol_lab: Lab, family: Family
) -> None:
    before = counters(protocol_lab.fe)["handoffs"]
    with Conversation.open(protocol_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface())
        for first in (True, False):
            names = [name for _ in range(4) for name in NAMES]
            answers = client.ask([f"/{name}{'.jpg' if first else '.html'}" for name in names])
            assert {(answer.status, answer.node) for answer in answers} == {(200, "be2")}
            assert [answer.sha256 for answer in answers] == [digest(protocol_lab, name) for name in names]
        client.send(client.ping())
        while not client.pings_answered:
            client.read_on()
    assert counters(protocol_lab.fe)["handoffs"] == before + 1
    await_no_flows(protocol_lab)


def test_first_request_comes_octet_by_octet_is_answered(protocol_lab: Lab, family: Family) -> None:
    with Conversation.open(protocol_lab, family, vport=HTTP2_PORT, nagle=False) as below:
        client = Http2Client(below)
        for octet in client.preface() + client.request("/100k.jpg"):
            client.send(bytes((octet,)))
        (answer,) = client.answers()
        assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(protocol_lab, "100k"))
    await_no_flows(protocol_lab)


def test_first_request_is_cut_anywhere_and_its_beginning_acknowledged_is_answered(
    protocol_lab: Lab, family: Family
) -> None:
    for position in (1, 3, 14, 23, 24, 25, 33, 60, -10, -1):
        with Conversation.open(protocol_lab, family, vport=HTTP2_PORT, nagle=False) as below:
            client = Http2Client(below)
            octets = client.preface() + client.request("/1k.jpg")
            client.send(octets[:position])
            below.await_acknowledged()
            client.send(octets[position:])
            (answer,) = client.answers()
            assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(protocol_lab, "1k"))
    await_no_flows(protocol_lab)


def test_first_request_has_a_long_head_and_a_body_is_answered(protocol_lab: Lab, family: Family) -> None:
    body = os.urandom(30_000)
    with Conversation.open(protocol_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below, "img.lab.test")
        field = ("cookie", "session=" + os.urandom(5_500).hex())
        client.send(client.preface() + client.request("/sink", field, method="POST", body=body))
        (answer,) = client.answers()
        assert (answer.status, answer.node, answer.body) == (200, "be2", digest_line(body))


# --- over TLS


def test_curl_asks_for_several_at_once_over_tls_one_connection_has_them_all(protocol_lab: Lab, family: Family) -> None:
    address = vip(protocol_lab, family) if family == "ipv4" else f"[{vip(protocol_lab, family)}]"
    mark = f"together-{family}"
    words = ["-Z", "--cacert", str(protocol_lab.certificate), "--resolve", f"img.lab.test:443:{address}"]
    for name in NAMES:
        words += ["-o", "/dev/null", f"https://img.lab.test/{name}?{mark}"]
    shown = "%{http_version} %{http_code} %header{server-node} %{num_connects}\n"
    done = protocol_lab.client.run(["curl", "-sS", "--max-time", "20", "-w", shown, *words], check=True)
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [answer[:3] for answer in answers] == [["2", "200", "be2"]] * len(NAMES)
    assert sum(int(answer[3]) for answer in answers) == 1
    for name in NAMES:
        lines = await_logged(protocol_lab.backends[1], f"/{name}?{mark}")
        assert len(lines) == 1
    assert len({line.split()[1] for name in NAMES for line in await_logged(protocol_lab.backends[1], mark)}) == 1


def test_many_requests_are_open_at_once_over_tls_all_are_answered(protocol_lab: Lab, family: Family) -> None:
    with tls_opened(protocol_lab, family, "www.lab.test", client_context(protocol_lab, "h2")) as below:
        below.shake_hands()
        client = Http2Client(below)
        client.send(client.preface())
        names = [name for _ in range(4) for name in NAMES]
        answers = client.ask([f"/{name}" for name in names])
        assert {(answer.status, answer.node) for answer in answers} == {(200, "be1")}
        assert [answer.sha256 for answer in answers] == [digest(protocol_lab, name) for name in names]
        assert answers[0].headers["tls-alpn"] == "h2"
    await_no_flows(protocol_lab)


# --- what cannot be served


@pytest.mark.parametrize("port", [HTTP2_PORT, CLOSED_PORT])
def test_curl_asks_for_what_nobody_can_serve_understands_503(choosy_lab: Lab, family: Family, port: int) -> None:
    """No rule is for it, or no server of its rule can be used."""
    shown, content = curl(choosy_lab, url(choosy_lab, family, "/1k", port))
    assert (shown, content) == (["2", "503"], b"")


def test_client_asks_for_what_nobody_can_serve_gets_503_and_a_clean_end(choosy_lab: Lab, family: Family) -> None:
    with Conversation.open(choosy_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface() + client.request("/1k"))
        (answer,) = client.answers()
        assert answer.status == 503
        client.read_to_end()
        assert client.goaway == 0
    await_no_flows(choosy_lab)


def test_client_breaks_the_protocol_is_told_so(choosy_lab: Lab, family: Family) -> None:
    with Conversation.open(choosy_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface() + b"\0\0\1\0\0\0\0\0\1x")  # DATA of a stream that is not open
        client.read_to_end()
        assert client.goaway == PROTOCOL_ERROR


def test_client_sends_a_head_that_is_too_long_is_told_so(choosy_lab: Lab, family: Family) -> None:
    with Conversation.open(choosy_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface() + client.request("/1k", ("cookie", os.urandom(10_000).hex())))
        client.read_to_end()
        assert client.goaway == ENHANCE_YOUR_CALM


def test_client_waits_for_the_servers_settings_is_sent_away_when_its_time_is_over(
    choosy_lab: Lab, family: Family
) -> None:
    """Who has no request yet has no server yet: RFC 9113, 3.4 lets a client send its request without waiting."""
    before = counters(choosy_lab.fe)["timed_out"]
    with Conversation.open(choosy_lab, family, vport=HTTP2_PORT) as below:
        client = Http2Client(below)
        client.send(client.preface())
        assert below.is_quiet(INSPECT_TIME_S / 2)
        client.read_to_end()
        assert client.has_settings
        assert client.goaway == 0
    assert counters(choosy_lab.fe)["timed_out"] == before + 1
    await_no_flows(choosy_lab)
