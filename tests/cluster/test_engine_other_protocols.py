"""WebSocket through an upgrade, and Redis, which no inspector knows: its first octets decide.

A client that does not speak first is none of a front end's: it has a handshake, and nothing more.
"""

from __future__ import annotations

import os
import threading

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.choosy_rules import BE1, BE2, INSPECT_TIME_S
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, client_address, get, vip
from tests.cluster.engine_sight import await_no_flows, counters, live_flows
from tests.cluster.tls_conversation import tls_opened
from tests.cluster.websocket_client import BINARY, CLOSE, PING, PONG, TEXT, WebSocket

pytestmark = pytest.mark.cluster

REDIS_PORT = 6379
MEGABYTE = 1_000_000

# --- WebSocket


def test_websocket_is_accepted_by_the_server_for_upgrades_and_plain_requests_are_not_its(
    protocol_lab: Lab, family: Family
) -> None:
    with Conversation.open(protocol_lab, family) as below:
        socket = WebSocket(below)
        below.send(socket.upgrade())
        socket.await_accepted()
        assert socket.node == "be2"
        socket.send(TEXT, b"hello")
        assert socket.receive() == (TEXT, b"hello")
        socket.send(CLOSE, b"\x03\xe8")
        assert socket.receive() == (CLOSE, b"\x03\xe8")
        assert below.rest() == b""
    with Conversation.open(protocol_lab, family) as below:
        answer = below.ask(get("/ws", "Connection: close"))
        assert (answer.status, answer.node) == (426, "be1")
    await_no_flows(protocol_lab)


@pytest.mark.parametrize("message_octets", [MEGABYTE, 1])
def test_websocket_echoes_a_megabyte_in_both_directions(protocol_lab: Lab, family: Family, message_octets: int) -> None:
    """As one message, and as many that are on their way at once."""
    messages = [os.urandom(message_octets) for _ in range(min(MEGABYTE // message_octets, 2_000))]
    with Conversation.open(protocol_lab, family) as below:
        socket = WebSocket(below)
        below.send(socket.upgrade())
        socket.await_accepted()
        frames = b"".join(socket.frame(BINARY, message) for message in messages)
        sender = threading.Thread(target=below.send, args=(frames,))
        sender.start()
        for message in messages:
            assert socket.receive() == (BINARY, message)
        sender.join()
        socket.send(PING, b"still there?")
        assert socket.receive() == (PONG, b"still there?")
    await_no_flows(protocol_lab)


def test_websocket_client_does_not_wait_for_the_upgrade_its_message_arrives(protocol_lab: Lab, family: Family) -> None:
    with Conversation.open(protocol_lab, family) as below:
        socket = WebSocket(below)
        below.send(socket.upgrade() + socket.frame(TEXT, b"early", fin=False) + socket.frame(0, b"bird"))
        socket.await_accepted()
        assert [socket.receive(), socket.receive()] == [(TEXT, b"early"), (0, b"bird")]


def test_websocket_over_tls_is_echoed(protocol_lab: Lab, family: Family) -> None:
    """What is inside TLS no rule can see: the name decides."""
    message = os.urandom(100_000)
    with tls_opened(protocol_lab, family, "www.lab.test") as below:
        below.shake_hands()
        socket = WebSocket(below)
        below.send(socket.upgrade())
        socket.await_accepted()
        assert socket.node == "be1"
        socket.send(BINARY, message)
        assert socket.receive() == (BINARY, message)


# --- Redis


def redis_cli(lab: Lab, family: Family, *words: str, body: bytes = b"") -> bytes:
    command = ["redis-cli", "-h", vip(lab, family), "-e", *words]
    return lab.client.run(command, text=False, input=body, check=True).stdout


def array(*words: bytes) -> bytes:
    """A command as Redis clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Redis:
    """One connection to Redis."""

    def __init__(self, below: Conversation) -> None:
        self.below = below

    def line(self) -> bytes:
        octets = b""
        while not octets.endswith(b"\r\n"):
            octets += self.below.exactly(1)
        return octets[:-2]

    def bulk(self) -> bytes:
        """A bulk string, or an array of them in one."""
        kind = self.line()
        if kind.startswith(b"*"):
            return b" ".join(self.bulk() for _ in range(int(kind[1:])))
        assert kind.startswith(b"$"), kind
        return self.below.exactly(int(kind[1:]) + 2)[:-2]

    def node(self, question: bytes = array(b"CONFIG", b"GET", b"dir")) -> str:
        """Which server it is: each has a directory of its own."""
        self.below.send(question)
        return self.bulk().decode().rpartition("/")[2]


def test_redis_cli_is_answered_by_the_server_for_its_octets(protocol_lab: Lab, family: Family) -> None:
    assert redis_cli(protocol_lab, family, "ping") == b"PONG\n"
    assert redis_cli(protocol_lab, family, "config", "get", "dir").endswith(b"/be1\n")


def test_redis_cli_stores_a_megabyte_and_gets_it_back(protocol_lab: Lab, family: Family) -> None:
    value, key = os.urandom(MEGABYTE), f"large-{family}"
    assert redis_cli(protocol_lab, family, "-x", "set", key, body=value) == b"OK\n"
    assert redis_cli(protocol_lab, family, "get", key) == value + b"\n"


def test_redis_tells_who_asks_it_is_the_clients_address(protocol_lab: Lab, family: Family) -> None:
    with Conversation.open(protocol_lab, family, vport=REDIS_PORT) as below:
        client = Redis(below)
        below.send(array(b"CLIENT", b"INFO"))
        address = client_address(protocol_lab, family)
        shown = address if family == "ipv4" else f"[{address}]"
        assert f" addr={shown}:{below.port} ".encode() in client.bulk()
    await_no_flows(protocol_lab)


@pytest.mark.parametrize(
    ("question", "node"),
    [
        (array(b"CONFIG", b"GET", b"dir"), "be1"),
        (b"CONFIG GET dir\r\n", "be2"),
        (b"get no-key\r\nconfig get dir\r\n", "be2"),
    ],
)
def test_redis_is_asked_by_an_array_or_a_line_two_servers_are_told_apart(
    protocol_lab: Lab, family: Family, question: bytes, node: str
) -> None:
    with Conversation.open(protocol_lab, family, vport=REDIS_PORT) as below:
        client = Redis(below)
        below.send(question)
        if question.startswith(b"get"):
            assert client.line() == b"$-1"
        assert client.node(b"") == node


def test_redis_commands_are_pipelined_all_are_answered_in_their_order(protocol_lab: Lab, family: Family) -> None:
    key = f"counter-{family}".encode()
    with Conversation.open(protocol_lab, family, vport=REDIS_PORT) as below:
        client = Redis(below)
        below.send(array(b"DEL", key) + array(b"INCR", key) * 2_000 + array(b"GET", key))
        client.line()
        assert [client.line() for _ in range(2_000)] == [b":%d" % number for number in range(1, 2_001)]
        assert client.bulk() == b"2000"
    await_no_flows(protocol_lab)


@pytest.mark.parametrize(
    ("question", "node"), [(array(b"CONFIG", b"GET", b"dir"), "be1"), (b"CONFIG GET dir\r\n", "be2")]
)
@pytest.mark.parametrize("waits", [False, True])
def test_redis_command_comes_octet_by_octet_is_answered(
    protocol_lab: Lab, family: Family, waits: bool, question: bytes, node: str
) -> None:
    with Conversation.open(protocol_lab, family, vport=REDIS_PORT, nagle=False) as below:
        for octet in question:
            below.send(bytes((octet,)))
            if waits:
                below.await_acknowledged()
        assert Redis(below).node(b"") == node
    await_no_flows(protocol_lab)


def test_redis_rule_is_undecided_until_the_command_is_known_however_it_is_cut(choosy_lab: Lab, family: Family) -> None:
    """An earlier rule wants ``ping`` first of all: until that cannot come any more, a later one must not win."""
    dir_of = array(b"CONFIG", b"GET", b"dir")
    for first, reply, node in ((array(b"ping"), b"+PONG", "be3"), (array(b"dbsize"), b":0", "be1")):
        for position in range(1, len(first)):
            with Conversation.open(choosy_lab, family, vport=REDIS_PORT, nagle=False) as below:
                below.send(first[:position])
                below.await_acknowledged()
                below.send(first[position:])
                client = Redis(below)
                assert client.line() == reply
                assert client.node(dir_of) == node, position
    await_no_flows(choosy_lab)


# --- clients nobody can serve


def test_client_waits_for_the_server_to_speak_nothing_ends_it_and_nothing_is_kept_of_it(
    choosy_lab: Lab, family: Family
) -> None:
    """A server that speaks first cannot be chosen by what the client says; but when the client speaks, it is served."""
    before = counters(choosy_lab.fe)
    with (
        Conversation.open(choosy_lab, family) as web,
        Conversation.open(choosy_lab, family, vport=REDIS_PORT) as store,
    ):
        assert web.is_quiet(2 * INSPECT_TIME_S)
        assert store.is_quiet(0)
        assert not any(live_flows(choosy_lab).values())
        after = counters(choosy_lab.fe)
        assert [after[name] - before[name] for name in ("syns", "handoffs", "timed_out")] == [2, 0, 0]
        assert web.ask(get("/1k?field")).status == 200
        store.send(array(b"PING"))
        assert Redis(store).line() == b"+PONG"
    await_no_flows(choosy_lab)


def test_client_sends_octets_that_no_rule_wants_its_connection_is_closed_without_a_word(
    protocol_lab: Lab, family: Family
) -> None:
    """Where a rule looks at octets nobody says that they must be HTTP."""
    with Conversation.open(protocol_lab, family) as below:
        below.send(b"\0\1 nothing that anybody knows\r\n")
        assert below.rest() == b""
    await_no_flows(protocol_lab)


@pytest.mark.usefixtures("_protocols")
def test_command_looks_like_a_request_where_rules_look_at_octets_only_server_answers() -> None:
    """Words in a line are a command of Redis, too. Elsewhere they are a beginning of HTTP, and `GET` alone waits."""
    rules = (f"rule = {BE2} port={REDIS_PORT} octets=^", f"rule = {BE1} .*")
    with engine_lab(Settings(both=rules), protocols=True) as lab:
        for family in FAMILIES:
            with Conversation.open(lab, family, vport=REDIS_PORT, nagle=False) as below:
                below.send(b"GET / HTTP/1.1\r\n")
                assert Redis(below).line().startswith(b"-ERR wrong number of arguments")
                assert Redis(below).node(b"CONFIG GET dir\r\n") == "be2"
            with Conversation.open(lab, family, vport=REDIS_PORT, nagle=False) as below:
                below.send(b"GE")
                assert wait_until(lambda: live_flows(lab)["be2"] == 1, 5.0), "it waits for nothing"
                below.send(b"T nothing\r\n")
                assert Redis(below).line() == b"$-1"
            with Conversation.open(lab, family) as below:
                assert below.ask(get("/1k")).node == "be1"
            await_no_flows(lab)


def test_client_stops_inside_its_first_command_what_there_is_decides(choosy_lab: Lab, family: Family) -> None:
    """What is undecided when the time is over goes where it would go if nothing more came."""
    ping = array(b"ping")
    with Conversation.open(choosy_lab, family, vport=REDIS_PORT, nagle=False) as below:
        below.send(ping[:-1])
        assert below.is_quiet(INSPECT_TIME_S / 2)
        below.await_acknowledged()
        assert below.is_quiet(INSPECT_TIME_S)
        below.send(ping[-1:])
        client = Redis(below)
        assert client.line() == b"+PONG"
        assert client.node() == "be1"
    await_no_flows(choosy_lab)
