"""However a client cuts, delays, shapes or ends its request, it gets the right answer from the right back end."""

from __future__ import annotations

import itertools

import pytest

from tcpha.lab.cluster import Lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line

pytestmark = pytest.mark.cluster

HEAD = b"GET /1k.jpg HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HEAD_LIMIT_OCTETS = 16384


def test_http_1_0_is_answered_and_closed(lab: Lab, family: Family) -> None:
    with Conversation.open(lab, family) as client:
        answer = client.ask(b"GET /100k.jpg HTTP/1.0\r\n\r\n")
        assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lab, "100k"))
        assert client.rest() == b""
    await_no_flows(lab)


@pytest.mark.parametrize("head_octets", [1_400, 1_448, 1_500, 3_000, 15_000, HEAD_LIMIT_OCTETS])
def test_long_head_is_answered(lab: Lab, family: Family, head_octets: int) -> None:
    empty = get("/1k.jpg", "X: ", "Connection: close")
    request = get("/1k.jpg", "X: " + "x" * (head_octets - len(empty)), "Connection: close")
    assert len(request) == head_octets
    with Conversation.open(lab, family) as client:
        answer = client.ask(request)
        assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lab, "1k"))
        assert client.rest() == b""


def test_curl_sends_a_head_of_15_kilobytes_is_answered(lab: Lab, family: Family) -> None:
    address = f"[{lab.vip6}]" if family == "ipv6" else str(lab.vip4)
    curl = lab.client.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X: {'x' * 15_000}", f"http://{address}/1k.jpg"]
    )
    assert curl.stdout == "200"


def test_long_head_with_a_body_behind_it_reaches_the_server_whole(lab: Lab, family: Family) -> None:
    before = counters(lab.fe)["handoffs"]
    body = bytes(range(256)) * 400
    with Conversation.open(lab, family) as client:
        answer = client.ask(post(body, f"X: {'x' * 15_000}"))
        assert (answer.status, answer.body) == (200, digest_line(body))
    assert counters(lab.fe)["handoffs"] == before + 1


@pytest.mark.parametrize("nagle", [False, True])
def test_request_sent_octet_by_octet_is_answered(lab: Lab, family: Family, nagle: bool) -> None:
    with Conversation.open(lab, family, nagle=nagle) as client:
        for octet in HEAD:
            client.send(bytes([octet]))
        answer = client.answer()
        assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lab, "1k"))
        assert client.rest() == b""


def test_request_sent_octet_by_octet_each_acknowledged_is_answered(lab: Lab, family: Family) -> None:
    with Conversation.open(lab, family, nagle=False) as client:
        for octet in HEAD:
            client.send(bytes([octet]))
            client.await_acknowledged()
        answer = client.answer()
        assert (answer.status, answer.node, answer.sha256) == (200, "be2", digest(lab, "1k"))
        assert client.rest() == b""


def test_head_split_at_every_position_is_answered(lab: Lab, family: Family) -> None:
    whole = digest(lab, "1k")
    before = counters(lab.fe)
    for position in range(1, len(HEAD)):
        with Conversation.open(lab, family, nagle=False) as client:
            client.send(HEAD[:position])
            client.await_acknowledged()
            client.send(HEAD[position:])
            answer = client.answer()
            assert (answer.status, answer.node, answer.sha256) == (200, "be2", whole), position
            assert client.rest() == b""
    after = counters(lab.fe)
    assert after["handoffs"] - before["handoffs"] == len(HEAD) - 1
    assert after["orphaned"] == before["orphaned"]
    await_no_flows(lab)


def test_head_split_at_every_position_sent_at_once_is_answered(lab: Lab, family: Family) -> None:
    """Both pieces are on their way before the front end has acknowledged anything."""
    whole = digest(lab, "1k")
    for position in range(1, len(HEAD)):
        with Conversation.open(lab, family, nagle=False) as client:
            client.send(HEAD[:position])
            client.send(HEAD[position:])
            answer = client.answer()
            assert (answer.status, answer.node, answer.sha256) == (200, "be2", whole), position
            assert client.rest() == b""
    await_no_flows(lab)


def test_head_comes_in_three_pieces_body_in_the_last_is_whole(lab: Lab, family: Family) -> None:
    body = bytes(range(256)) * 20
    request = post(body)
    cuts = (0, 10, 40, len(request))
    with Conversation.open(lab, family, nagle=False) as client:
        for start, end in itertools.pairwise(cuts):
            client.send(request[start:end])
            client.await_acknowledged()
        answer = client.answer()
        assert (answer.status, answer.body) == (200, digest_line(body))
        assert client.ask(post(body[::-1])).body == digest_line(body[::-1])


def test_expect_continue_is_answered_before_the_body(lab: Lab, family: Family) -> None:
    body = bytes(range(256)) * 4
    with Conversation.open(lab, family) as client:
        client.send(post(body, "Expect: 100-continue")[: -len(body)])
        assert client.answer().status == 100
        client.send(body)
        assert client.answer().body == digest_line(body)


def test_pipelined_requests_are_answered_in_their_order(lab: Lab, family: Family) -> None:
    names = ("1k", "1", "100k", "0", "1m")
    with Conversation.open(lab, family) as client:
        client.send(b"".join(get(f"/{name}.{kind}") for name in names for kind in ("html", "jpg")))
        for name in names:
            for _ in range(2):
                answer = client.answer()
                assert (answer.status, answer.node, answer.sha256) == (200, "be1", digest(lab, name))


def test_pipelined_requests_that_end_inside_a_head_are_answered(lab: Lab, family: Family) -> None:
    first, second = get("/1k.jpg"), get("/100k.html")
    with Conversation.open(lab, family, nagle=False) as client:
        client.send(first + second[:7])
        assert client.answer().sha256 == digest(lab, "1k")
        client.send(second[7:])
        answer = client.answer()
        assert (answer.node, answer.sha256) == ("be2", digest(lab, "100k"))


def test_head_request_is_answered_without_a_body(lab: Lab, family: Family) -> None:
    with Conversation.open(lab, family) as client:
        client.send(b"HEAD /100k.jpg HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.answer(to_head=True)
        assert (answer.status, answer.node, answer.headers["content-length"]) == (200, "be2", "100000")
        assert client.ask(get("/1k")).sha256 == digest(lab, "1k")


def test_client_waits_between_handshake_and_request_is_answered(lab: Lab, family: Family) -> None:
    with Conversation.open(lab, family) as client:
        assert client.is_quiet(1.0)
        answer = client.ask(get("/1k.jpg"))
        assert (answer.status, answer.node) == (200, "be2")
