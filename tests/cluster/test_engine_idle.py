"""Connections on which nothing happens for longer than every limit, and a front end that is killed under them.

All limits are a second here: idle_time, finished_time, inspect_time. A connection lives as long as the server's kernel
keeps it; what the front end forgets or never knew it asks the back ends for. Both families wait at the same time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tcpha.proto.handoff import Type
from tests.cluster import odd_server
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest_line, live_flows
from tests.cluster.engines import needs_python
from tests.cluster.mishaps import losing
from tests.cluster.odd_server import Odd

pytestmark = pytest.mark.cluster

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
LIMIT_S = 1.0
LONG_S = 12.0 if AT_LENGTH else 4.5
PATIENCE_S = 15.0
Open = Callable[[Family], Conversation]


@pytest.fixture(scope="module")
def brief_lab(_machine: None) -> Iterator[Lab]:
    """A lab of which every limit is a second."""
    names = ("idle_time", "finished_time")
    settings = Settings(both=tuple(f"{name} = {LIMIT_S}s" for name in names), fe=(f"inspect_time = {LIMIT_S}s",))
    with engine_lab(settings, server=odd_server.COMMAND) as standing:
        yield standing


@pytest.fixture
def opened(brief_lab: Lab) -> Iterator[Open]:
    """Opens connections that are closed when the test is over; then no flow may stay."""
    with ExitStack() as closing:
        yield lambda family: closing.enter_context(Conversation.open(brief_lab, family))
    await_no_flows(brief_lab, PATIENCE_S)


def await_flows(lab: Lab, number: int) -> None:
    names = (lab.fe.name, lab.backends[0].name)
    assert wait_until(lambda: [live_flows(lab)[name] for name in names] == [number] * 2, PATIENCE_S)


def go_on(*clients: Conversation) -> None:
    """Each connection still does what it should."""
    for number, client in enumerate(clients):
        body = b"%d" % number
        assert client.ask(post(body, path="/")).body == digest_line(body)


def kill_and_start(lab: Lab) -> None:
    lab.fe.engine.kill()
    lab.fe.engine.start()


# Idle


def test_connections_are_idle_for_long_they_live_whatever_was_last(brief_lab: Lab, opened: Open) -> None:
    """Answered, half closed by either side, waiting for the first octet of an answer, before any request."""
    odd = Odd(brief_lab.client, brief_lab.backends[0])
    before = odd.seen().requests
    answered, half_closed, early, silent, waiting = ([opened(family) for family in FAMILIES] for _ in range(5))
    go_on(*answered)
    for client in half_closed:
        client.send(get(f"/?wait={LONG_S}&then=close"))
        client.half_close()
    for client in early:
        assert len(client.ask(get("/?octets=1000&then=half")).body) == 1000
    for client in waiting:
        client.send(post(b"body", path=f"/?wait={LONG_S}"))
    await_flows(brief_lab, 8)
    assert answered[0].is_quiet(LONG_S - 0.5)
    assert [live_flows(brief_lab)[node.name] for node in (brief_lab.fe, brief_lab.backends[0])] == [8, 8]
    go_on(*answered, *silent)
    for client in half_closed:
        assert (client.answer().body, client.rest()) == (digest_line(b""), b"")
    for client in waiting:
        assert client.answer().body == digest_line(b"body")
    for client in early:
        client.send(b"late octets")
        client.half_close()
    assert wait_until(lambda: odd.seen().requests == before + 14, PATIENCE_S)
    assert odd.seen().digest == hashlib.sha256(b"late octets").hexdigest()


@pytest.mark.long
@pytest.mark.skipif(not AT_LENGTH, reason="waits until an idle flow is forgotten: set TCPHA_LONG=1")
@pytest.mark.parametrize("lost", [(Type.FLOWS,), (Type.FLOWS_QUERY,), (Type.FLOWS, Type.CLOSED)])
def test_questions_about_idle_connections_are_lost_they_live(
    brief_lab: Lab, opened: Open, lost: tuple[Type, ...]
) -> None:
    """So long that the front end forgets them: it asks anew when the next packet comes."""
    dropped = counters(brief_lab.fe)["idle_dropped"]
    idle, waiting = ([opened(family) for family in FAMILIES] for _ in range(2))
    go_on(*idle)
    for client in waiting:
        client.send(post(b"body", path="/?wait=13"))
    await_flows(brief_lab, 4)
    with losing(brief_lab.backends[0], *lost), losing(brief_lab.fe, *lost):
        assert wait_until(lambda: counters(brief_lab.fe)["idle_dropped"] == dropped + 4, PATIENCE_S)
        assert wait_until(lambda: counters(brief_lab.fe)["flows_lingering"] == 0, PATIENCE_S)
    go_on(*idle)
    for client in waiting:
        assert client.answer().body == digest_line(b"body")
    go_on(*waiting, *idle)


# The front end is killed


def test_front_end_is_killed_during_transfers_they_are_whole(brief_lab: Lab, opened: Open) -> None:
    """Only a head that was not complete is lost: octets were acknowledged that died with the front end."""
    body = os.urandom(20_000_000)
    request = post(body, path="/")
    downloads, uploads, idle, waiting, heads = ([opened(family) for family in FAMILIES] for _ in range(5))
    for client in downloads:
        client.send(get("/?octets=30000000"))
    for client in uploads:
        client.send(request[:1_000_000])
    go_on(*idle)
    for client in waiting:
        client.send(post(b"body", path="/?wait=3"))
    for client in heads:
        client.send(b"POST / HTTP/1.1\r\nHost:")
        client.await_acknowledged()
    for number in range(1, 4 if AT_LENGTH else 2):
        kill_and_start(brief_lab)
        for client in uploads:
            client.send(request[1_000_000 * number : 1_000_000 * (number + 1)])
    for client in heads:
        client.send(b" lab\r\nContent-Length: 0\r\n\r\n")
    for client in uploads:
        client.send(request[1_000_000 * (number + 1) :])
        assert client.answer().body == digest_line(body)
    for client in downloads:
        assert client.answer().body == bytes(30_000_000)
    for client in waiting:
        assert client.answer().body == digest_line(b"body")
    for client in heads:
        with pytest.raises(ConnectionResetError):
            client.answer()
    go_on(*idle, *uploads, *downloads, *waiting)


def test_front_end_is_killed_between_handshake_and_request_it_is_answered(brief_lab: Lab, opened: Open) -> None:
    clients = [opened(family) for family in FAMILIES * 2]
    brief_lab.fe.engine.kill()
    clients[0].send(get("/"))
    brief_lab.fe.engine.start()
    assert clients[0].answer().status == 200
    go_on(*clients)


def test_front_end_is_killed_and_the_back_ends_answers_are_lost_connections_live(brief_lab: Lab, opened: Open) -> None:
    """It asks for all flows once, and then for each whose packets it sees."""
    needs_python("fe", "its flows outlive the process, none has to be learned")
    clients = [opened(family) for family in FAMILIES * 2]
    go_on(*clients)
    with losing(brief_lab.fe, Type.FLOWS):
        kill_and_start(brief_lab)
        assert counters(brief_lab.fe)["learned"] == 0
    go_on(*clients)
    assert counters(brief_lab.fe)["learned"] == len(clients)


def test_front_end_is_killed_ports_are_used_again_each_answer_is_its_own(brief_lab: Lab, opened: Open) -> None:
    """The new connection's SYN is answered before the kill, its request comes after: the back ends tell of the old."""
    clients = []
    for family in FAMILIES:
        old = opened(family)
        port = old.port
        go_on(old)
        old.abort()
        clients.append(Conversation.open(brief_lab, family, port=port))
    kill_and_start(brief_lab)
    for client in clients:
        with client:
            go_on(client)


# The life of a cookie

COOKIE_LIFE_S = 96.5
"""No cookie is accepted longer: its period of 32 s, the next, and the one after, for clocks that are ahead."""


@pytest.mark.long
@pytest.mark.skipif(not AT_LENGTH, reason="waits for the life of a cookie: set TCPHA_LONG=1")
def test_connection_opened_early_and_used_when_its_cookie_has_expired_is_reset_at_once(opened: Open) -> None:
    """One that was used in time lives; one that its client probes hears of its end by the probes."""
    late, later, probing, half, used = ([opened(family) for family in FAMILIES] for _ in range(5))
    begun = time.monotonic()
    for client in probing:
        odd_server.probe(client.socket, 5.0, 3)
    go_on(*used)
    assert late[0].is_quiet(50.0)
    for client in probing:
        client.socket.settimeout(COOKIE_LIFE_S)
        with pytest.raises(ConnectionResetError):
            client.rest()
    assert late[0].is_quiet(max(0.0, COOKIE_LIFE_S - (time.monotonic() - begun)))
    for client in late:
        begun = time.monotonic()
        client.send(post(b"late", path="/"))
        with pytest.raises(ConnectionResetError):
            client.answer()
        assert time.monotonic() - begun < 1.0
    for client in half:
        client.half_close()
        with pytest.raises(ConnectionResetError):
            client.rest()
    for client in later:
        with pytest.raises(ConnectionResetError):
            client.ask(bytes(100_000))
    go_on(*used)
