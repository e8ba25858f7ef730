"""A host of the segment forges segments of a client's connection: it goes on in every state, and so does the client.

The stranger knows all addresses and ports. Its numbers are those of nobody, or lie where RFC 5961 expects a guess: in
the window, but not the exact next number, and what they acknowledge was never sent. It sends to the front end and, past
it, to the back end. What that provokes (challenge ACKs, SYN-ACKs that the client never asked for) reaches the client's
own kernel.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.l2 import Ether

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import forgery, odd_server
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, digest_line, extended_count, packets_seen
from tests.cluster.mishaps import stopped
from tests.cluster.odd_server import Odd
from tests.cluster.socket_sight import MASK, numbers, states

pytestmark = pytest.mark.cluster

PATIENCE_S = 10.0
OTHER = b"GET /other HTTP/1.1\r\nHost: lab\r\n\r\n"


@pytest.fixture(scope="module")
def odd_lab(_machine: None) -> Iterator[Lab]:
    """A lab in which the second back end's host is the stranger's; all requests go to the first."""
    with engine_lab(Settings(both=("rule = 198.18.0.33 .*", "idle_time = 2s")), server=odd_server.COMMAND) as standing:
        yield standing


class Stranger:
    """Sends what it likes from a node, with the client's address."""

    def __init__(self, lab: Lab, family: Family, seed: str) -> None:
        self._lab = lab
        self._family = family
        self._node = lab.backends[1]
        self._random = random.Random(seed)
        self._targets = (lab.fe, lab.backends[0])

    def forges(self, client: Conversation, *, plausible: bool = True) -> None:
        """Send all kinds of segments of a connection, and wait until both nodes have had them."""
        port, (snd_nxt, _) = client.port, numbers(client.socket)
        packets = [self._segment(port, **fields) for fields in self._implausible()]
        if plausible:
            packets += [self._segment(port, **fields) for fields in self._plausible(snd_nxt)]
        self._random.shuffle(packets)
        for node in self._targets:
            self._send(packets, node)

    def forges_at(self, port: int) -> None:
        """The same where there is no connection any more."""
        for node in self._targets:
            self._send([self._segment(port, **fields) for fields in self._implausible()], node)

    def _implausible(self) -> Iterator[dict[str, Any]]:
        for flags in ("S", "S", "S", "SA", "R", "RA", "F", "FA", "A", "PA", "PA", "", "FSRPAU"):
            for payload in (b"", OTHER):
                yield {"flags": flags, "seq": self._number(), "ack": self._number(), "payload": payload}

    def _plausible(self, snd_nxt: int) -> Iterator[dict[str, Any]]:
        for distance in (1, 2, 1000, 20_000):
            seq = (snd_nxt + distance) & MASK
            for flags in ("R", "S", "SA"):
                yield {"flags": flags, "seq": seq, "ack": 0, "payload": b""}
            for flags in ("PA", "FA", "A", "RA"):
                yield {"flags": flags, "seq": seq, "ack": self._number(), "payload": OTHER if flags == "PA" else b""}
        yield {"flags": "S", "seq": snd_nxt, "ack": 0, "payload": b""}
        yield {"flags": "PA", "seq": snd_nxt, "ack": self._number(), "payload": OTHER}
        yield {"flags": "FA", "seq": snd_nxt, "ack": self._number(), "payload": b""}

    def _number(self) -> int:
        return self._random.randrange(1 << 32)

    def _segment(self, port: int, payload: bytes, **fields: Any) -> Any:
        return forgery.segment(self._lab, self._family, sport=port, window=500, **fields) / payload

    def _send(self, packets: list[Any], to: Node) -> None:
        asleep = states_of(to) == "T"
        before = 0 if asleep else packets_seen(to)
        ether = Ether(src=forgery.mac_of(self._node), dst=forgery.mac_of(to))
        with self._node.enter():
            link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with link:
            link.bind((IFACE, 0))
            for packet in packets:
                link.send(bytes(ether / packet))
        assert asleep or wait_until(lambda: packets_seen(to) - before >= len(packets), PATIENCE_S)


def states_of(node: Node) -> str:
    """The state of a node's engine as proc_pid_stat(5) names it: T, it was stopped."""
    with open(f"/proc/{node.engine.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.fixture
def stranger(odd_lab: Lab, family: Family, request: pytest.FixtureRequest) -> Stranger:
    return Stranger(odd_lab, family, request.node.name)


@pytest.fixture(autouse=True)
def _all_is_over(odd_lab: Lab) -> Iterator[None]:
    yield
    await_no_flows(odd_lab, PATIENCE_S)


def challenges(lab: Lab) -> int:
    """How often the server's TCP found that a segment was worth a challenge ACK; it sends few of them."""
    return sum(
        extended_count(lab.backends[0], name) for name in ("TCPChallengeACK", "TCPACKSkippedChallenge")
    )  # fmt: skip


def goes_on(client: Conversation) -> None:
    for body in (b"on", b"and on"):
        assert client.ask(post(body, path="/")).body == digest_line(body)


def test_before_a_request_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    with Conversation.open(odd_lab, family) as client:
        stranger.forges(client, plausible=False)
        goes_on(client)


def test_inside_a_head_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    with Conversation.open(odd_lab, family) as client:
        request = post(b"body", path="/")
        client.send(request[:9])
        client.await_acknowledged()
        stranger.forges(client)
        client.send(request[9:])
        assert client.answer().body == digest_line(b"body")
        goes_on(client)


def test_while_the_back_end_sleeps_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    """HANDING at the front end; all that was forged is in the back end's queues when it wakes up."""
    with Conversation.open(odd_lab, family) as client:
        with stopped(odd_lab.backends[0].engine.pid):
            client.send(post(b"body", path="/"))
            stranger.forges(client)
        answer = client.answer()
        if answer.status == 503:  # it has slept for too long on this machine: that is another test's business
            return
        assert answer.body == digest_line(b"body")
        goes_on(client)


def test_idle_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    before = challenges(odd_lab)
    with Conversation.open(odd_lab, family) as client:
        for _ in range(3):
            goes_on(client)
            stranger.forges(client)
        goes_on(client)
    assert challenges(odd_lab) > before, "no guess was worth a challenge"


def test_inside_transfers_they_are_whole(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    body = random.Random(7).randbytes(5_000_000)
    with Conversation.open(odd_lab, family, receive_buffer_octets=65_536) as client:
        client.send(get("/?octets=5000000"))
        assert wait_until(lambda: client.received_octets() > 0, PATIENCE_S)
        stranger.forges(client)
        assert client.answer().body == bytes(5_000_000)
        request = post(body, path="/")
        client.send(request[:1_000_000])
        stranger.forges(client)
        client.send(request[1_000_000:])
        assert client.answer().body == digest_line(body)
        goes_on(client)


def test_half_closed_by_the_client_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    with Conversation.open(odd_lab, family) as client:
        client.send(get("/?wait=0.7&octets=100000&then=close"))
        client.half_close()
        assert wait_until(lambda: states(odd_lab.client, client.port) == ["FIN-WAIT-2"], PATIENCE_S)
        stranger.forges(client)
        assert client.answer().body == bytes(100_000)
        assert client.rest() == b""


def test_half_closed_by_the_server_it_goes_on(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    """Octets would end it: the server's TCP resets who sends to a socket that nobody reads (RFC 9293, 3.6)."""
    odd = Odd(odd_lab.client, odd_lab.backends[0])
    with Conversation.open(odd_lab, family) as client:
        assert len(client.ask(get("/?octets=1000&then=half")).body) == 1000
        assert client.rest() == b""
        stranger.forges(client)
        client.send(b"late octets")
        before = odd.seen().requests
        client.half_close()
        assert wait_until(lambda: odd.seen().requests == before + 1, PATIENCE_S)
        assert odd.seen().octets == len(b"late octets")


def test_answered_by_the_front_end_it_is_closed_in_order(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    with Conversation.open(odd_lab, family) as client:
        assert client.ask(b"no HTTP\r\n\r\n").status == 400
        stranger.forges(client)
        client.half_close()
        assert client.rest() == b""


@pytest.mark.parametrize("how", ["close", "stay", "reset"])
def test_over_the_next_connection_on_the_port_is_served(
    odd_lab: Lab, family: Family, stranger: Stranger, how: str
) -> None:
    port = None
    for _ in range(3):
        with Conversation.open(odd_lab, family, port=port or 0) as client:
            port = client.port
            end: Callable[[], object] = client.abort if how == "stay" else client.rest
            assert client.ask(get(f"/?later=0.1&then={how}")).status == 200
            try:
                assert end() in (None, b"")
            except ConnectionResetError:
                assert how == "reset"
        stranger.forges_at(port)


def test_requests_of_strangers_reach_no_server(odd_lab: Lab, family: Family, stranger: Stranger) -> None:
    odd = Odd(odd_lab.client, odd_lab.backends[0])
    before = odd.seen()
    with Conversation.open(odd_lab, family) as client:
        stranger.forges(client)
        stranger.forges_at(client.port + 1)
    after = odd.seen()
    assert (after.accepted, after.requests) == (before.accepted, before.requests)
