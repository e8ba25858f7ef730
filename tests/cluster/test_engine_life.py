"""How a connection lives and ends: half-closes, closes at once, resets, shut windows, probes, silent deaths.

Servers and clients are kernels; `odd_server` and the client's socket decide what they do and when.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster import odd_server
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest_line, extended_count, sockets_at
from tests.cluster.engines import needs_python
from tests.cluster.mishaps import kernel, stopped
from tests.cluster.odd_server import Odd
from tests.cluster.socket_sight import mute, persist_probes, send_with_fin, states, vanish

pytestmark = pytest.mark.cluster

PROBES = 2
"""So often a probe must come, of those that are sent a second apart."""
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def odd_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose first back end's server does what it is told."""
    with engine_lab(Settings(both=("idle_time = 2s",)), server=odd_server.COMMAND) as standing:
        yield standing


@pytest.fixture
def odd(odd_lab: Lab) -> Odd:
    return Odd(odd_lab.client, odd_lab.backends[0])


def await_over(lab: Lab, port: int) -> None:
    """Wait until nobody knows the connection any more, but for sockets that only wait for time to pass."""
    await_no_flows(lab, PATIENCE_S)
    server = lab.backends[0]
    assert wait_until(lambda: set(states(server, port)) <= {"TIME-WAIT"}, PATIENCE_S), states(server, port)


# Half-close


def test_server_half_closes_then_a_long_upload_it_is_whole(odd_lab: Lab, family: Family, odd: Odd) -> None:
    body = os.urandom(20_000_000)
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        answer = client.ask(get("/?octets=100000&then=half"))
        assert (answer.status, len(answer.body)) == (200, 100_000)
        assert client.rest() == b""
        client.send(body)
        client.half_close()
        assert wait_until(lambda: odd.seen().octets == len(body), PATIENCE_S)
        assert odd.seen().digest == hashlib.sha256(body).hexdigest()
    await_over(odd_lab, port)


def test_client_half_closes_then_a_long_download_it_is_whole(odd_lab: Lab, family: Family) -> None:
    with Conversation.open(odd_lab, family) as client:
        client.send(get("/?wait=0.3&octets=20000000&then=close"))
        port = client.port
        client.half_close()
        assert client.answer().body == bytes(20_000_000)
        assert client.rest() == b""
    await_over(odd_lab, port)


def test_both_half_close_in_turn_with_transfers_between_all_is_whole(odd_lab: Lab, family: Family, odd: Odd) -> None:
    """The server closes its side first, then the client sends, and closes when it is done, long after."""
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        assert len(client.ask(get("/?octets=3000000&then=half")).body) == 3_000_000
        pieces = [os.urandom(500_000) for _ in range(6)]
        for number, piece in enumerate(pieces, start=1):
            client.send(piece)
            client.await_acknowledged()
            assert states(odd_lab.backends[0], port) == ["FIN-WAIT-2"], number
        client.half_close()
        assert wait_until(lambda: odd.seen().digest == hashlib.sha256(b"".join(pieces)).hexdigest(), PATIENCE_S)
    await_over(odd_lab, port)


# FIN with the request


@pytest.mark.parametrize("how", ["in the same segment", "right behind it"])
@pytest.mark.parametrize("size", [0, 1, 100, 5_000, 200_000])
def test_client_closes_with_its_request_it_is_answered_and_run_once(
    odd_lab: Lab, family: Family, odd: Odd, how: str, size: int
) -> None:
    body = os.urandom(size)
    before = odd.seen().requests
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        request = post(body, path="/") if size else get("/")
        if how == "in the same segment":
            send_with_fin(client, request)
        else:
            client.send(request)
            client.half_close()
        assert client.answer().body == digest_line(body)
        assert client.rest() == b""
    assert odd.seen().requests == before + 1
    await_over(odd_lab, port)


# Both close at once


def test_both_close_at_once_all_is_over(odd_lab: Lab, family: Family) -> None:
    """The back end sleeps while both close: neither FIN has met the other when it wakes up."""
    needs_python("be", "no agent that sleeps keeps them apart")
    node = odd_lab.backends[0]
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        assert client.ask(get("/?later=1&then=close")).status == 200
        with stopped(node.engine.pid):
            client.half_close()
            assert wait_until(lambda: states(node, port) == ["FIN-WAIT-1"], PATIENCE_S)
            assert states(odd_lab.client, port) == ["FIN-WAIT-1"]
        assert client.rest() == b""
    await_over(odd_lab, port)
    assert wait_until(lambda: set(states(odd_lab.client, port)) <= {"TIME-WAIT"}, PATIENCE_S)


# RST


def _half_head(client: Conversation, lab: Lab) -> None:
    client.send(b"GET /")
    client.await_acknowledged()


def _answered(client: Conversation, lab: Lab) -> None:
    assert client.ask(get("/")).status == 200


def _half_body(client: Conversation, lab: Lab) -> None:
    client.send(post(bytes(2_000_000), path="/")[:1_000_000])
    client.await_acknowledged()


def _half_answer(client: Conversation, lab: Lab) -> None:
    client.send(get("/?octets=50000000"))
    assert client.socket.recv(1000)


def _waiting(client: Conversation, lab: Lab) -> None:
    client.send(get("/?wait=1"))
    client.await_acknowledged()


def _half_closed(client: Conversation, lab: Lab) -> None:
    client.send(get("/?octets=50000000"))
    client.half_close()
    assert client.socket.recv(1000)


def _refused(client: Conversation, lab: Lab) -> None:
    assert client.ask(b"no HTTP\r\n\r\n").status == 400


SITUATIONS: dict[str, Callable[[Conversation, Lab], None]] = {
    "inside its head": _half_head,
    "answered": _answered,
    "inside its body": _half_body,
    "inside the answer": _half_answer,
    "waiting for the answer": _waiting,
    "half closed, inside the answer": _half_closed,
    "answered by the front end": _refused,
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_client_resets_all_is_over_at_once(odd_lab: Lab, family: Family, situation: str) -> None:
    with Conversation.open(odd_lab, family, receive_buffer_octets=65_536) as client:
        port = client.port
        SITUATIONS[situation](client, odd_lab)
        client.abort()
    await_over(odd_lab, port)


def test_client_resets_while_the_back_end_sleeps_all_is_over(odd_lab: Lab, family: Family) -> None:
    """HANDING: the RST reaches the server behind the request, or neither does."""
    with stopped(odd_lab.backends[0].engine.pid), Conversation.open(odd_lab, family) as client:
        port = client.port
        client.send(post(b"body", path="/"))
        client.abort()
    await_over(odd_lab, port)


@pytest.mark.parametrize("cut", [0, 1, 1_000_000])
def test_server_resets_inside_its_answer_client_is_told(odd_lab: Lab, family: Family, cut: int) -> None:
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        client.send(get(f"/?octets=3000000&cut={cut}&later=0.2&then=reset"))
        with pytest.raises(ConnectionResetError):
            client.answer()
    await_over(odd_lab, port)


def test_server_resets_an_idle_connection_client_is_told(odd_lab: Lab, family: Family) -> None:
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        assert client.ask(get("/?later=0.2&then=reset")).status == 200
        with pytest.raises(ConnectionResetError):
            client.rest()
    await_over(odd_lab, port)


def test_server_resets_inside_an_upload_client_is_told(odd_lab: Lab, family: Family) -> None:
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        client.send(post(bytes(50_000_000), path="/?early=2&later=0.1&then=reset")[:100])
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.send(bytes(1_000_000_000))
    await_over(odd_lab, port)


# Shut windows


def test_client_does_not_read_for_long_download_is_whole(odd_lab: Lab, family: Family) -> None:
    """The server's persist timer fires again and again: each probe is translated, and answered."""
    with Conversation.open(odd_lab, family, receive_buffer_octets=8_192) as client:
        port = client.port
        client.send(get("/?octets=5000000"))
        assert wait_until(lambda: persist_probes(odd_lab.backends[0], port) >= 3, PATIENCE_S)
        assert client.answer().body == bytes(5_000_000)
        assert client.ask(get("/?then=close")).status == 200
    await_over(odd_lab, port)


def test_server_does_not_read_for_long_upload_is_whole(odd_lab: Lab, family: Family, odd: Odd) -> None:
    body = os.urandom(20_000_000)
    odd.order(read=False)
    try:
        with Conversation.open(odd_lab, family) as client:
            port = client.port
            client.socket.setblocking(False)
            rest = [memoryview(post(body, path="/"))]

            def window_is_shut() -> bool:
                with suppress(BlockingIOError):
                    rest[0] = rest[0][client.socket.send(rest[0]) :]
                return persist_probes(odd_lab.client, port) >= 3

            assert wait_until(window_is_shut, PATIENCE_S)
            odd.order(read=True)
            client.socket.settimeout(PATIENCE_S)
            client.socket.sendall(rest[0])
            assert client.answer().body == digest_line(body)
    finally:
        odd.order(read=True)
    await_over(odd_lab, port)


# Keep-alive probes


def _probing(lab: Lab, family: Family, *, times: int = 3) -> Conversation:
    """A connection whose client probes it every second, and gives it up after so many without an answer."""
    client = Conversation.open(lab, family)
    odd_server.probe(client.socket, 1.0, times)
    return client


def test_client_probes_before_its_request_and_when_idle_connection_lives(odd_lab: Lab, family: Family) -> None:
    before = counters(odd_lab.fe)["keepalives"]
    with ExitStack() as closing:
        silent, idle = (closing.enter_context(_probing(odd_lab, family, times=2)) for _ in range(2))
        idle.send(get("/"))
        assert idle.answer().status == 200
        probes = extended_count(odd_lab.client, "TCPKeepAlive")
        assert wait_until(lambda: extended_count(odd_lab.client, "TCPKeepAlive") >= probes + 4 * PROBES, PATIENCE_S)
        assert counters(odd_lab.fe)["keepalives"] - before >= PROBES
        for client in (silent, idle):
            assert client.ask(get("/")).status == 200
    await_no_flows(odd_lab)


def test_server_probes_an_idle_connection_it_lives(odd_lab: Lab, family: Family) -> None:
    server = odd_lab.backends[0]
    with Conversation.open(odd_lab, family) as client:
        port = client.port
        assert client.ask(get("/?alive=1")).status == 200
        probes = extended_count(server, "TCPKeepAlive")
        assert wait_until(lambda: extended_count(server, "TCPKeepAlive") >= probes + PROBES + 1, PATIENCE_S)
        assert states(server, port) == ["ESTAB"]
        assert client.ask(get("/")).status == 200
    await_over(odd_lab, port)


def test_both_probe_across_a_restart_of_the_front_end_connections_live(odd_lab: Lab, family: Family) -> None:
    with ExitStack() as closing:
        silent, idle, probed = (closing.enter_context(_probing(odd_lab, family, times=9)) for _ in range(3))
        assert idle.ask(get("/")).status == 200
        assert probed.ask(get("/?alive=1&probes=9")).status == 200  # nobody answers them until the restart is over
        odd_lab.fe.engine.kill()
        probes = extended_count(odd_lab.client, "TCPKeepAlive")
        assert wait_until(lambda: extended_count(odd_lab.client, "TCPKeepAlive") >= probes + 3, PATIENCE_S)
        odd_lab.fe.engine.start()
        probes = extended_count(odd_lab.client, "TCPKeepAlive")
        assert wait_until(lambda: extended_count(odd_lab.client, "TCPKeepAlive") >= probes + 6, PATIENCE_S)
        for client in (silent, idle, probed):
            assert client.ask(get("/")).status == 200
    await_no_flows(odd_lab)


# Silent ends


def test_clients_vanish_all_is_over_as_soon_as_the_server_gives_up(odd_lab: Lab, family: Family) -> None:
    """No FIN, no RST, no answer ever: the server's own limits end it, which are short here, and then all others."""
    server = odd_lab.backends[0]
    with kernel(server, tcp_retries2=2):
        with ExitStack() as muted:
            for situation in (
                "answered",
                "inside the answer",
                "waiting for the answer",
                "half closed, inside the answer",
            ):
                client = Conversation.open(odd_lab, family, receive_buffer_octets=65_536)
                assert client.ask(get("/?alive=1")).status == 200
                SITUATIONS[situation](client, odd_lab)
                muted.enter_context(mute(odd_lab.client, family, client.port))
                vanish(client.socket)
            assert counters(odd_lab.fe)["flows"] == 4
            await_no_flows(odd_lab, 30.0)
        assert wait_until(lambda: sockets_at(server) == [], PATIENCE_S)
