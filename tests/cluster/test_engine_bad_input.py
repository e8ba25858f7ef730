"""Whatever comes from outside, the client gets a clear answer or none, and the front end goes on."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator

import pytest
from scapy.packet import Raw

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster import forgery
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Answer, Conversation, Family, get, url
from tests.cluster.engine_sight import await_no_flows, counters, digest, packets_seen

pytestmark = pytest.mark.cluster

LIMIT_OCTETS = 16384
INSPECT_TIME_S = 1.0
SETTINGS = Settings(
    both=("rule = 198.18.0.38 jpg$", "rule = 198.18.0.33 html$"),
    fe=(f"inspect_time = {INSPECT_TIME_S}s", "max_reading = 50"),
)


@pytest.fixture(scope="module")
def strict_lab(_machine: None) -> Iterator[Lab]:
    """A lab without a rule for everything, whose front end waits for a head for a second only."""
    with engine_lab(SETTINGS) as standing:
        yield standing


@pytest.fixture(autouse=True)
def _serves_afterwards(strict_lab: Lab) -> Iterator[None]:
    """After every test the front end serves as before, and keeps no flow."""
    yield
    for family in ("ipv4", "ipv6"):
        with Conversation.open(strict_lab, family) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(strict_lab, "1k")
    await_no_flows(strict_lab)


def refusal(client: Conversation, octets: bytes) -> Answer:
    """What comes back; afterwards the connection is over."""
    answer = client.ask(octets)
    assert answer.node is None, "a server answered"
    assert answer.headers["connection"] == "close"
    assert answer.body.startswith(str(answer.status).encode())
    assert client.rest() == b""
    return answer


NO_HTTP = {
    "text": b"hello, is anybody there?\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "zeros": bytes(2_000),
    "HTTP/0.9": b"GET /\r\n",
    "no Host": b"GET /1k.jpg HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /1k.jpg HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": b"POST /1k.jpg HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("kind", NO_HTTP)
def test_octets_that_are_no_http_are_answered_400(strict_lab: Lab, family: Family, kind: str) -> None:
    with Conversation.open(strict_lab, family) as client:
        status = refusal(client, NO_HTTP[kind]).status
        assert status == 400


def test_octets_that_are_no_http_sent_one_by_one_are_answered_400(strict_lab: Lab, family: Family) -> None:
    with Conversation.open(strict_lab, family, nagle=False) as client:
        for octet in b"GET  ":
            client.send(bytes([octet]))
        assert client.answer().status == 400
        assert client.rest() == b""


def test_random_octets_of_many_connections_are_answered_400(strict_lab: Lab, family: Family) -> None:
    octets = random.Random(4711)
    for _ in range(50):
        with Conversation.open(strict_lab, family) as client:
            assert refusal(client, b"\xff" + octets.randbytes(octets.randrange(1, 3_000))).status == 400


@pytest.mark.parametrize("beyond_octets", [1, 100, 20_000, 200_000])
def test_head_beyond_the_limit_is_answered_431(strict_lab: Lab, family: Family, beyond_octets: int) -> None:
    empty = get("/1k.jpg", "X: ")
    request = get("/1k.jpg", "X: " + "x" * (LIMIT_OCTETS + beyond_octets - len(empty)))
    with Conversation.open(strict_lab, family) as client:
        assert refusal(client, request).status == 431


@pytest.mark.parametrize("beyond_octets", [1, 20_000])
def test_target_beyond_the_limit_is_answered_414(strict_lab: Lab, family: Family, beyond_octets: int) -> None:
    with Conversation.open(strict_lab, family) as client:
        assert refusal(client, get(f"/{'x' * (LIMIT_OCTETS + beyond_octets)}.jpg")).status == 414


def test_curl_sends_a_head_beyond_the_limit_shows_431(strict_lab: Lab, family: Family) -> None:
    target = url(strict_lab, family, "/1k.jpg")
    curl = strict_lab.client.run(["curl", "-sS", "-w", "%{http_code}", "-H", f"X: {'x' * 17_000}", target], check=True)
    assert curl.stdout == "431 Request Header Fields Too Large\n431"


@pytest.mark.parametrize("octets", [b"G", b"GET /1k.jpg HTTP/1.1\r\nHost: a\r\n"])
def test_client_falls_silent_inside_its_head_is_answered_408(strict_lab: Lab, family: Family, octets: bytes) -> None:
    before = counters(strict_lab.fe)["timed_out"]
    with Conversation.open(strict_lab, family) as client:
        client.send(octets)
        assert client.is_quiet(INSPECT_TIME_S * 0.8)
        assert client.answer().status == 408
        assert client.rest() == b""
    assert counters(strict_lab.fe)["timed_out"] == before + 1


def test_client_drips_its_head_is_answered_408_all_the_same(strict_lab: Lab, family: Family) -> None:
    with Conversation.open(strict_lab, family, nagle=False) as client:
        client.send(b"GET /1k.jpg HTTP/1.1\r\nX: ")

        def drips_until_answered() -> bool:
            if client.received_octets():
                return True
            client.send(b"x")
            return False

        assert wait_until(drips_until_answered, 3 * INSPECT_TIME_S)
        assert client.answer().status == 408


def test_more_unfinished_heads_than_kept_the_oldest_is_answered_408(strict_lab: Lab, family: Family) -> None:
    before = counters(strict_lab.fe)["evicted"]
    clients = [Conversation.open(strict_lab, family) for _ in range(51)]
    try:
        for client in clients:
            client.send(b"GET /1k.jpg HT")
            client.await_acknowledged()
        assert clients[0].answer().status == 408
        clients[1].send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert clients[1].answer().status == 200
        assert counters(strict_lab.fe)["evicted"] == before + 1
    finally:
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("request_octets", [get("/absent.png"), get("/1k.jpg?x"), b"GET / HTTP/1.0\r\n\r\n"])
def test_request_that_no_rule_matches_is_answered_503(strict_lab: Lab, family: Family, request_octets: bytes) -> None:
    before = counters(strict_lab.fe)["no_choice"]
    with Conversation.open(strict_lab, family) as client:
        assert refusal(client, request_octets).status == 503
    assert counters(strict_lab.fe)["no_choice"] == before + 1


def test_upload_that_no_rule_matches_is_answered_503(strict_lab: Lab, family: Family) -> None:
    """What the client sends meanwhile must not cost it the answer."""
    body = os.urandom(2_000_000)
    curl = strict_lab.client.run(
        ["curl", "-sS", "-w", "%{http_code}", "-H", "Expect:", "--data-binary", "@-", url(strict_lab, family, "/sink")],
        input=body,
    )
    assert curl.stdout == "503 Service Unavailable\n503", curl.stderr


def test_head_request_that_no_rule_matches_is_answered_503_without_a_body(strict_lab: Lab, family: Family) -> None:
    with Conversation.open(strict_lab, family) as client:
        client.send(b"HEAD /absent HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer(to_head=True).status == 503
        assert client.rest() == b""


def test_client_closes_with_its_request_that_no_rule_matches_is_answered_503(strict_lab: Lab, family: Family) -> None:
    for _ in range(20):
        with Conversation.open(strict_lab, family) as client:
            client.send(get("/absent"))
            client.half_close()
            assert client.answer().status == 503
            assert client.rest() == b""


def test_port_is_used_again_after_an_answer_of_the_front_end_is_served(strict_lab: Lab, family: Family) -> None:
    for number in range(50):
        with Conversation.open(strict_lab, family, port=23_001) as client:
            assert client.ask(get("/absent")).status == 503, number
            assert client.rest() == b""
        with Conversation.open(strict_lab, family, port=23_001) as client:
            answer = client.ask(get("/1k.jpg", "Connection: close"))
            assert (answer.node, answer.sha256) == ("be2", digest(strict_lab, "1k")), number
            assert client.rest() == b""


def test_port_scan_leaves_nothing_behind(strict_lab: Lab, family: Family) -> None:
    """A SYN from every port; the client's kernel, which knows of none, resets each SYN-ACK."""
    before = counters(strict_lab.fe)
    ports = range(30_000, 30_500)
    syns = [forgery.segment(strict_lab, family, sport=port, flags="S", seq=port * 7) for port in ports]
    forgery.send(strict_lab, syns, strict_lab.fe)

    def all_are_reset() -> bool:
        after = counters(strict_lab.fe)
        return bool(after["dropped_flags"] - before["dropped_flags"] >= len(ports))

    assert wait_until(all_are_reset, 5.0, 0.1)
    after = counters(strict_lab.fe)
    assert after["syns"] - before["syns"] == len(ports)
    assert (after["flows"], after["enquiries"]) == (before["flows"], before["enquiries"])


def test_closed_port_of_the_virtual_address_is_refused_by_its_host(strict_lab: Lab, family: Family) -> None:
    target = url(strict_lab, family, "/").removesuffix("/") + ":81/"
    curl = strict_lab.client.run(["curl", "-sS", "--max-time", "5", target])
    assert curl.returncode == 7, curl.stderr


@pytest.mark.parametrize("flags", ["A", "PA", "R", "RA", "F", "FA", "", "SF", "SR", "SA", "FPU", "FSRPAUEC"])
def test_segment_of_no_connection_starts_none(strict_lab: Lab, family: Family, flags: str) -> None:
    before, seen = counters(strict_lab.fe), packets_seen(strict_lab.fe)
    odd = [
        forgery.segment(strict_lab, family, sport=31_000 + number, flags=flags, seq=number << 20, ack=number)
        / Raw(b"GET")
        for number in range(20)
    ]
    forgery.send(strict_lab, odd, strict_lab.fe)
    assert wait_until(lambda: packets_seen(strict_lab.fe) >= seen + len(odd), 5.0)
    after = counters(strict_lab.fe)
    assert (after["flows"], after["handoffs"]) == (before["flows"], before["handoffs"])


def test_damaged_packets_are_counted_and_dropped(strict_lab: Lab, family: Family) -> None:
    before = counters(strict_lab.fe)
    damaged = [
        forgery.segment(strict_lab, family, sport=32_000, flags="S", chksum=0x1234),
        forgery.segment(strict_lab, family, sport=32_001, flags="S", dataofs=6) / Raw(b"\x02\x09\x05\xb4"),
        forgery.segment(strict_lab, family, sport=32_002, flags="S", dataofs=15),
        forgery.segment(strict_lab, family, sport=32_003, flags="S", dataofs=4),
    ]
    forgery.send(strict_lab, damaged, strict_lab.fe)
    wanted = before["malformed"] + len(damaged)
    assert wait_until(lambda: counters(strict_lab.fe)["malformed"] >= wanted, 5.0)
    after = counters(strict_lab.fe)
    assert after["malformed"] == wanted
    assert after["flows"] == before["flows"]


def test_log_of_the_front_end_holds_no_traceback(strict_lab: Lab) -> None:
    assert not re.search("Traceback|Error", strict_lab.log("fe").read_text())
