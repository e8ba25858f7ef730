"""What is transferred over a handed-off connection is what was sent, octet for octet, in both directions."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tcpha.lab import documents
from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until
from tests.cluster.conversation import Conversation, Family, get, post, unconnected, url, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, sockets_at

pytestmark = pytest.mark.cluster

AT_ONCE = 200
ANSWER_LIMIT_S = 60.0


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 50 MB of random octets."""
    file = tmp_path_factory.mktemp("upload") / "50m"
    file.write_bytes(os.urandom(50_000_000))
    return file


@pytest.mark.parametrize("kind", ["jpg", "html"])
@pytest.mark.parametrize("name", documents.SIZES_OCTETS)
def test_curl_downloads_a_document_gets_its_octets(lab: Lab, family: Family, name: str, kind: str) -> None:
    command = 'curl -sSf --max-time 60 "$0" | sha256sum'
    curl = lab.client.run(["sh", "-c", command, url(lab, family, f"/{name}.{kind}")])
    assert curl.stderr == ""
    assert curl.stdout.split()[0] == digest(lab, name)


@pytest.mark.parametrize("size_octets", [0, 1, 1_000, 1_380, 1_381, 100_000, 1_000_000, 50_000_000])
def test_curl_uploads_octets_server_gets_them(lab: Lab, family: Family, upload: Path, size_octets: int) -> None:
    octets = upload.read_bytes()[:size_octets]
    target = url(lab, family, "/sink")
    curl = lab.client.run(["curl", "-sSf", "--data-binary", "@-", target], input=octets)
    assert curl.stderr == ""
    assert curl.stdout == hashlib.sha256(octets).hexdigest() + "\n"


def test_uploads_and_downloads_run_at_once_all_are_whole(lab: Lab, family: Family, upload: Path) -> None:
    commands = [f"curl -sSf {url(lab, family, f'/10m.{kind}')} | sha256sum" for kind in ("jpg", "html")]
    commands += [f"curl -sSf --data-binary @{upload} {url(lab, family, '/sink')}"]
    pipe = subprocess.PIPE
    children = [lab.client.popen(["sh", "-c", each], stdout=pipe, stderr=pipe) for each in commands * 3]
    wholes = ([digest(lab, "10m")] * 2 + [hashlib.sha256(upload.read_bytes()).hexdigest()]) * 3
    for child, whole in zip(children, wholes, strict=True):
        output, said = child.communicate(timeout=ANSWER_LIMIT_S)
        assert said == b""
        assert output.split()[0].decode() == whole


def test_upload_with_expect_continue_is_whole(lab: Lab, family: Family, upload: Path) -> None:
    target = url(lab, family, "/sink")
    curl = lab.client.run(
        ["curl", "-sv", "--expect100-timeout", "20", "-H", "Expect: 100-continue", "-T", upload, "-X", "POST", target]
    )
    assert "< HTTP/1.1 100 Continue" in curl.stderr
    assert curl.stdout == hashlib.sha256(upload.read_bytes()).hexdigest() + "\n"


def test_upload_in_chunks_is_whole(lab: Lab, family: Family, upload: Path) -> None:
    target = url(lab, family, "/sink")
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
    curl = lab.client.run(["curl", "-sSf", *chunked, "-T", upload, "-X", "POST", target])
    assert curl.stdout == hashlib.sha256(upload.read_bytes()).hexdigest() + "\n"


def test_many_connections_at_once_each_gets_its_own_answer(lab: Lab, family: Family) -> None:
    wholes = {name: digest(lab, name) for name in ("1", "1k", "100k")}
    targets = [f"/{name}.{kind}" for name in wholes for kind in ("jpg", "html")]
    wanted = [targets[number % len(targets)] for number in range(AT_ONCE)]
    peers = [unconnected(lab, family) for _ in wanted]

    async def visit(number: int) -> tuple[str, str]:
        loop, peer = asyncio.get_running_loop(), peers[number]
        peer.setblocking(False)
        await loop.sock_connect(peer, (vip(lab, family), 80))
        reader, writer = await asyncio.open_connection(sock=peer)
        writer.write(get(wanted[number], "Connection: close"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = await reader.read()
        writer.close()
        return head.partition("Server-Node: ")[2].split()[0], hashlib.sha256(body).hexdigest()

    async def visit_all() -> list[tuple[str, str]]:
        return await asyncio.wait_for(asyncio.gather(*map(visit, range(AT_ONCE))), ANSWER_LIMIT_S)

    answers = asyncio.run(visit_all())
    expected = [("be2" if target.endswith("jpg") else "be1", wholes[target[1:].split(".")[0]]) for target in wanted]
    assert answers == expected
    await_no_flows(lab)


def test_slow_reader_shuts_its_window_and_opens_it_download_is_whole(lab: Lab, family: Family) -> None:
    server = lab.backends[0]
    with Conversation.open(lab, family, receive_buffer_octets=8192) as client:
        client.send(get("/10m"))
        persists = ["ss", "-Htno", "sport", "=", ":80", "dport", "=", f":{client.port}"]
        assert wait_until(lambda: "persist" in server.run(persists).stdout, 10.0), "the window did not shut"
        forwarded = counters(lab.fe)["forwarded"]
        assert wait_until(lambda: counters(lab.fe)["forwarded"] > forwarded, 5.0), "no answer to a window probe"
        assert client.answer().sha256 == digest(lab, "10m")
        assert client.ask(get("/1k")).sha256 == digest(lab, "1k")
    await_no_flows(lab)


def test_keep_alive_connection_idle_for_seconds_is_used_again(lab: Lab, family: Family) -> None:
    with Conversation.open(lab, family) as client:
        first = client.ask(get("/1k.jpg"))
        assert client.is_quiet(3.0)
        second = client.ask(post(os.urandom(100_000)))
        assert (first.status, first.node, second.status, second.node) == (200, "be2", 200, "be2")
        assert client.ask(get("/100k")).sha256 == digest(lab, "100k")


def test_hundred_requests_on_one_connection_are_all_answered_by_the_first_back_end(lab: Lab, family: Family) -> None:
    wholes = {name: digest(lab, name) for name in ("1k", "100k")}
    with Conversation.open(lab, family) as client:
        for number in range(100):
            name = "100k" if number % 10 == 9 else "1k"
            kind = "jpg" if number % 2 else "html"
            answer = client.ask(get(f"/{name}.{kind}"))
            assert (answer.status, answer.node, answer.sha256) == (200, "be1", wholes[name]), number
    await_no_flows(lab)
    assert sockets_at(lab.backends[0]) == []


def test_curl_asks_a_hundred_times_on_one_connection_all_are_answered(lab: Lab, family: Family) -> None:
    before = counters(lab.fe)
    shown = ["-w", "%{http_code} %{num_connects} %{size_download}\n", "-o", "/dev/null"]
    curl = lab.client.run(["curl", "-sS", *shown, url(lab, family, "/1k.jpg?[1-100]")], check=True)
    assert curl.stdout.splitlines() == ["200 1 1000", *["200 0 1000"] * 99]
    assert counters(lab.fe)["handoffs"] == before["handoffs"] + 1
