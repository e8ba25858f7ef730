"""Servers that behave badly or are overloaded: clients hear of it soon, requests run once, and nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster import odd_server
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import (
    adopted_by_kernel,
    await_no_flows,
    counters,
    digest_line,
    extended_count,
    sockets_at,
)
from tests.cluster.mishaps import kernel
from tests.cluster.odd_server import BACKLOG, Odd
from tests.cluster.test_engine_duplicates import Recording

pytestmark = pytest.mark.cluster

ROUNDS = 20
SOON_S = 2.0
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def odd_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose servers do what they are told; all requests go to the first."""
    with engine_lab(Settings(both=("rule = 198.18.0.33 .*", "idle_time = 2s")), server=odd_server.COMMAND) as standing:
        yield standing


@pytest.fixture
def odd(odd_lab: Lab) -> Iterator[Odd]:
    """The first back end's server, which behaves again afterwards."""
    first = Odd(odd_lab.client, odd_lab.backends[0])
    yield first
    first.order(accept=True, read=True, at_once="", backlog=BACKLOG)
    assert wait_until(lambda: serves(odd_lab), PATIENCE_S)
    await_no_flows(odd_lab)


def serves(lab: Lab) -> bool:
    with Conversation.open(lab, "ipv4") as client:
        return client.ask(get("/")).status == 200


def outcome(client: Conversation) -> str:
    """How a connection ended: `answered`, `refused` (by the front end), `closed`, `reset`."""
    try:
        answer = client.answer()
    except EOFError:
        return "closed"
    except ConnectionResetError:
        return "reset"
    assert answer.status == (200 if answer.node else 503)
    return "answered" if answer.node else "refused"


# Servers that do not answer


@pytest.mark.parametrize("how", ["close", "reset"])
def test_server_ends_every_connection_at_once_clients_are_told_soon(
    odd_lab: Lab, family: Family, odd: Odd, how: str
) -> None:
    """It has not read the request: its kernel resets also where it only closes."""
    before = odd.order(at_once=how)
    for _ in range(ROUNDS):
        with Conversation.open(odd_lab, family, limit_s=SOON_S) as client:
            client.send(post(b"body", path="/"))
            assert outcome(client) in ("closed", "reset")
    assert odd.seen().accepted == before.accepted + ROUNDS, "a connection was played again"


@pytest.mark.parametrize("then", ["close", "reset"])
def test_server_reads_the_request_and_ends_without_an_answer_client_is_told_soon(
    odd_lab: Lab, family: Family, odd: Odd, then: str
) -> None:
    before = odd.seen()
    for _ in range(ROUNDS):
        with Conversation.open(odd_lab, family, limit_s=SOON_S) as client:
            client.send(post(b"body", path=f"/?silent=1&then={then}"))
            assert outcome(client) == ("closed" if then == "close" else "reset")
    assert odd.seen().requests == before.requests + ROUNDS


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("cut", [0, 1, 999_999])
def test_server_ends_inside_its_answer_client_is_told_soon(
    odd_lab: Lab, family: Family, odd: Odd, cut: int, then: str
) -> None:
    with Conversation.open(odd_lab, family, limit_s=SOON_S) as client:
        client.send(get(f"/?octets=1000000&cut={cut}&then={then}"))
        assert outcome(client) in (("closed",) if then == "close" else ("closed", "reset"))


def test_server_does_not_listen_requests_are_refused_soon_until_it_does(odd_lab: Lab, family: Family, odd: Odd) -> None:
    before = odd.order(backlog=-1)
    for _ in range(3):
        with Conversation.open(odd_lab, family, limit_s=SOON_S) as client:
            client.send(post(b"body", path="/"))
            assert outcome(client) == "refused"
    odd.order(backlog=BACKLOG)
    assert wait_until(lambda: serves(odd_lab), PATIENCE_S)
    assert odd.seen().requests > before.requests


def test_server_listens_anew_now_and_then_every_request_gets_one_answer(odd_lab: Lab, family: Family, odd: Odd) -> None:
    """A restart: for a moment nobody listens, and what nobody has accepted yet is reset."""
    before, answered = odd.seen(), 0
    for number in range(60):
        if number % 10 == 5:
            odd.order(backlog=BACKLOG)
        with Conversation.open(odd_lab, family, limit_s=SOON_S) as client:
            client.send(post(b"body", path="/"))
            answered += outcome(client) == "answered"
    assert answered >= 40
    assert odd.seen().requests == before.requests + answered


# Servers that are slow


def test_server_is_slow_to_accept_clients_wait_and_are_answered_once(odd_lab: Lab, family: Family, odd: Odd) -> None:
    before = odd.order(accept=False)
    bodies = [os.urandom(1_000) for _ in range(10)]
    with ExitStack() as closing:
        clients = [closing.enter_context(Conversation.open(odd_lab, family)) for _ in bodies]
        for client, body in zip(clients, bodies, strict=True):
            client.send(post(body, path="/"))
        for client in clients:
            client.await_acknowledged()
        assert clients[-1].is_quiet(1.0)
        odd.order(accept=True)
        for client, body in zip(clients, bodies, strict=True):
            assert client.answer().body == digest_line(body)
    assert odd.seen().requests == before.requests + len(bodies)


@pytest.mark.parametrize("abort", [0, 1])
def test_accept_queue_is_full_some_are_refused_soon_the_others_answered_later_none_twice(
    odd_lab: Lab, family: Family, odd: Odd, abort: int
) -> None:
    """tcp_abort_on_overflow: the kernel resets a handshake that it has no room for, instead of waiting."""
    before = odd.order(accept=False, backlog=2)
    with kernel(odd_lab.backends[0], tcp_abort_on_overflow=abort), ExitStack() as closing:
        clients = [closing.enter_context(Conversation.open(odd_lab, family)) for _ in range(12)]
        for client in clients:
            client.send(post(b"body", path="/"))
        room = 3  # Linux takes one more than the backlog
        assert wait_until(lambda: sum(client.received_octets() > 0 for client in clients) >= 12 - room, SOON_S)
        refused = [client for client in clients if client.received_octets() > 0]
        assert len(refused) == 12 - room
        assert {outcome(client) for client in refused} == {"refused"}
        odd.order(accept=True)
        waiting = [client for client in clients if client not in refused]
        assert {outcome(client) for client in waiting} == {"answered"}
    assert odd.seen().requests == before.requests + len(waiting)


@pytest.mark.parametrize("cookies", [0, 1, 2])
def test_backlog_of_one_and_many_clients_at_once_each_gets_one_answer(
    odd_lab: Lab, family: Family, odd: Odd, cookies: int
) -> None:
    """SYNs are dropped, or answered with SYN cookies of the server's kernel (tcp_syncookies; 2: always)."""
    server = odd_lab.backends[0]
    assert wait_until(lambda: serves(odd_lab), PATIENCE_S)  # it may have refused a moment ago
    before, taken = odd.order(backlog=1), extended_count(server, "SyncookiesRecv")
    by_kernel = adopted_by_kernel(server)
    body = os.urandom(3_000)
    with kernel(server, tcp_syncookies=cookies), ExitStack() as closing:
        clients = [closing.enter_context(Conversation.open(odd_lab, family)) for _ in range(50)]
        for client in clients:
            client.send(post(body, path="/?wait=0.01"))
        outcomes = [outcome(client) for client in clients]
    assert set(outcomes) <= {"answered", "refused"}
    assert outcomes.count("answered") >= 3  # on a busy machine; mostly thirty and more
    replayed = outcomes.count("answered") - (adopted_by_kernel(server) - by_kernel)
    assert cookies < 2 or extended_count(server, "SyncookiesRecv") - taken >= replayed
    assert odd.seen().requests == before.requests + outcomes.count("answered")


@pytest.mark.parametrize("mss_octets", [1_000, 1_400, 1_440, 1_460])
def test_server_sends_cookies_request_again_when_all_is_over_makes_no_connection(
    odd_lab: Lab, family: Family, odd: Odd, mss_octets: int
) -> None:
    """Linux also takes what begins up to three octets beside the request for a handshake's end, by the client's MSS."""
    recording = Recording(odd_lab, family)
    with kernel(odd_lab.backends[0], tcp_syncookies=2):
        before = odd.seen()
        with recording.running(), Conversation.open(odd_lab, family, mss_octets=mss_octets) as client:
            assert client.ask(post(b"once", path="/")).status == 200
        recording.play(recording.requests, ROUNDS)
        await_no_flows(odd_lab)
        recording.play(recording.requests, ROUNDS)
        assert sockets_at(odd_lab.backends[0]) == []
        after = odd.seen()
    assert (after.accepted, after.requests) == (before.accepted + 1, before.requests + 1)


# Answers that come too early


def test_server_answers_before_the_body_came_both_go_on(odd_lab: Lab, family: Family, odd: Odd) -> None:
    body = os.urandom(3_000_000)
    with Conversation.open(odd_lab, family) as client:
        request = post(body, path="/?early=1&octets=100000")
        client.send(request[:200])
        assert len(client.answer().body) == 100_000
        client.send(request[200:])
        assert wait_until(lambda: odd.seen().octets == len(body), PATIENCE_S)
        assert client.ask(post(b"next", path="/")).body == digest_line(b"next")


@pytest.mark.parametrize("then", ["close", "reset"])
def test_server_answers_early_and_ends_client_that_still_sends_is_told(
    odd_lab: Lab, family: Family, odd: Odd, then: str
) -> None:
    """As nginx does with a body that is too large."""
    for _ in range(5):
        with Conversation.open(odd_lab, family) as client:
            client.send(post(bytes(100_000_000), path=f"/?early=2&octets=1000&then={then}")[:200])
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                client.send(bytes(100_000_000))
            with suppress(ConnectionResetError):
                client.rest()


# Kernels that remember little


@pytest.mark.parametrize("where", ["server", "client", "both"])
@pytest.mark.parametrize("then", ["close", "stay"])
def test_no_room_for_time_wait_connections_end_all_the_same(
    odd_lab: Lab, family: Family, odd: Odd, where: str, then: str
) -> None:
    server, client_node = odd_lab.backends[0], odd_lab.client
    nodes = {"server": [server], "client": [client_node], "both": [server, client_node]}[where]
    before = counters(odd_lab.fe)
    with ExitStack() as closing:
        for node in nodes:
            closing.enter_context(kernel(node, tcp_max_tw_buckets=0))
        for _ in range(ROUNDS):
            with Conversation.open(odd_lab, family) as client:
                assert client.ask(get(f"/?then={then}")).status == 200
                client.half_close()
                assert client.rest() == b""
        await_no_flows(odd_lab)
        assert sockets_at(server) == []
    assert counters(odd_lab.fe)["handoffs"] - before["handoffs"] == ROUNDS
