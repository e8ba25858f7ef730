"""The kernel at one end or at both, over cables of every kind: a small set of conversations for each pair of values.

The table is what `tests.cluster.pairs` makes of the matrix: every two values of two columns meet in some row. The whole
matrix is `make test-all`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations

import pytest

from tcpha.lab.cables import Cables, Offload
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import await_ready
from tcpha.net.bpf_adopter import obstacle
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, post
from tests.cluster.engine_sight import adopted_by_kernel, await_no_flows, counters, digest, digest_line, sockets_at
from tests.cluster.engines import with_engines
from tests.cluster.pairs import pairs, pairs_of

pytestmark = pytest.mark.cluster

TX: tuple[Offload, ...] = ("tx",)
RX: tuple[Offload, ...] = ("rx",)
GSO: tuple[Offload, ...] = ("tso", "gso")
GRO: tuple[Offload, ...] = ("gro",)
NO: tuple[Offload, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Who carries, on what."""

    engines: str
    tx: tuple[Offload, ...]
    rx: tuple[Offload, ...]
    gso: tuple[Offload, ...]
    gro: tuple[Offload, ...]
    mtu_octets: int
    family: Family
    forward: str

    def __str__(self) -> str:
        on = [part[-1] for part in (self.tx, self.rx, self.gso, self.gro) if part]
        return f"{self.engines}, {' '.join(on) or 'no offloads'}, {self.mtu_octets}, {self.family}, {self.forward}"

    @property
    def lab(self) -> tuple[str, str, int]:
        """What a lab is brought up for: all but what its cables are laid for."""
        return self.engines, self.forward, self.mtu_octets

    @property
    def cables(self) -> Cables:
        return Cables(self.mtu_octets, frozenset((*self.tx, *self.rx, *self.gso, *self.gro)))


MATRIX = {
    "engines": ("kernel-fe", "kernel-be", "kernel"),
    "tx": (TX, NO),
    "rx": (RX, NO),
    "gso": (GSO, NO),
    "gro": (GRO, NO),
    "mtu_octets": (1500, 9000),
    "family": FAMILIES,
    "forward": ("direct", "tunnel"),
}
ROWS = (
    Row("kernel", TX, RX, NO, NO, 1500, "ipv4", "direct"),
    Row("kernel", NO, NO, GSO, GRO, 9000, "ipv6", "tunnel"),
    Row("kernel-be", TX, NO, GSO, NO, 1500, "ipv6", "direct"),
    Row("kernel-be", NO, NO, NO, NO, 1500, "ipv4", "direct"),
    Row("kernel-be", NO, RX, NO, GRO, 9000, "ipv4", "tunnel"),
    Row("kernel-fe", TX, RX, GSO, GRO, 1500, "ipv4", "tunnel"),
    Row("kernel-fe", NO, NO, NO, NO, 9000, "ipv6", "tunnel"),
    Row("kernel-fe", TX, RX, GSO, GRO, 9000, "ipv6", "direct"),
)
HEADERS_OCTETS = 40
"""IPv4 and TCP."""
REQUESTS = 50
TIMES = 20
UPLOAD_OCTETS = 3_000_000
FIRST_OCTETS = 100_000
SMALL_WINDOW_OCTETS = 65_536
PATIENCE_S = 10.0


def values(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in MATRIX}


@pytest.fixture(scope="module", params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    chosen: Row = request.param
    return chosen


@pytest.fixture(scope="module")
def _labs(_machine: None) -> Iterator[dict[tuple[str, str, int], Lab]]:
    if reason := obstacle():
        pytest.skip(f"no kernel fast path here: {reason}")
    with ExitStack() as standing:
        found: dict[tuple[str, str, int], Lab] = {}
        for engines, forward, mtu_octets in dict.fromkeys(each.lab for each in ROWS):
            settings = Settings((f"mss = {mtu_octets - HEADERS_OCTETS}",), fe=(f"forward = {forward}",))
            lab = standing.enter_context(engine_lab(with_engines(settings, engines), engine=False))
            found[engines, forward, mtu_octets] = lab
        yield found


@pytest.fixture(scope="module")
def laid(row: Row, _labs: dict[tuple[str, str, int], Lab]) -> Iterator[Lab]:
    """The row's lab on the row's cables. A node looks at its interface's MTU when it starts."""
    lab = _labs[row.lab]
    row.cables.lay(lab.nodes)
    engines = [node.engine for node in (*lab.backends, lab.fe)]
    for engine in engines:
        engine.launch()
    await_ready(engines, PATIENCE_S)
    yield lab
    for engine in engines:
        engine.stop()


def carried(lab: Lab) -> int:
    """Packets that a front end's program has passed on, whichever way."""
    by_kernel = counters(lab.fe).get("kernel", {})
    return sum(int(by_kernel.get(name, 0)) for name in ("forwarded", "tunnelled"))


def test_every_two_values_of_two_columns_meet() -> None:
    met = {pair for each in ROWS for pair in pairs_of(values(each))}
    assert met == set(pairs(MATRIX))
    assert all(one != other for one, other in combinations(ROWS, 2))


def test_kernel_carries_where_it_is_asked_to_and_nowhere_else(laid: Lab, row: Row) -> None:
    forwarded, adopted = carried(laid), adopted_by_kernel(laid.backends[0])
    with Conversation.open(laid, row.family) as client:
        for _ in range(3):
            assert client.ask(get("/1k.html")).sha256 == digest(laid, "1k.html")
    assert (carried(laid) > forwarded) == (row.engines != "kernel-be")
    assert (adopted_by_kernel(laid.backends[0]) == adopted + 1) == (row.engines != "kernel-fe")


def test_large_download_is_whole(laid: Lab, row: Row) -> None:
    with Conversation.open(laid, row.family) as client:
        assert client.ask(get("/10m.html")).sha256 == digest(laid, "10m.html")


def test_upload_is_whole(laid: Lab, row: Row) -> None:
    body = os.urandom(UPLOAD_OCTETS)
    with Conversation.open(laid, row.family) as client:
        assert client.ask(post(body)).body == digest_line(body)


def test_client_closes_with_its_last_octets_connection_is_over_everywhere(laid: Lab, row: Row) -> None:
    """They wait for the FIN, and fill the segment that bears it. The head alone is short enough for the kernel."""
    adopted = adopted_by_kernel(laid.backends[0])
    with Conversation.open(laid, row.family) as client:
        mss_octets = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        body = bytes(100 * mss_octets - 1)
        # The server answers the head, and then reads what it drops; as a proxy it would give up for a half-closed one.
        assert client.ask(post(body, path="/client").removesuffix(body)).status == 200
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        client.send(body)
        client.half_close()
        assert client.rest() == b""
    await_no_flows(laid)
    assert (adopted_by_kernel(laid.backends[0]) > adopted) == (row.engines != "kernel-fe")


def test_head_comes_in_two_pieces_it_is_answered(laid: Lab, row: Row) -> None:
    request = get("/1k.jpg")
    with Conversation.open(laid, row.family, nagle=False) as client:
        client.send(request[:20])
        client.await_acknowledged()
        client.send(request[20:])
        answer = client.answer()
        assert (answer.node, answer.sha256) == ("be2", digest(laid, "1k.jpg"))


def test_connection_is_kept_every_request_is_answered(laid: Lab, row: Row) -> None:
    with Conversation.open(laid, row.family) as client:
        for number in range(REQUESTS):
            name = ("1k.html", "100k.jpg")[number % 10 == 0]
            assert client.ask(get(f"/{name}")).sha256 == digest(laid, name)


def test_server_closes_port_is_used_again_each_answer_is_its_own(laid: Lab, row: Row) -> None:
    """Each time another back end."""
    for number in range(TIMES):
        name = ("1k.html", "1k.jpg")[number % 2]
        with Conversation.open(laid, row.family, port=40_555) as client:
            answer = client.ask(get(f"/{name}", "Connection: close"))
            assert (answer.sha256, client.rest()) == (digest(laid, name), b"")


def test_client_resets_connection_is_over_everywhere(laid: Lab, row: Row) -> None:
    with Conversation.open(laid, row.family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        client.abort()
    await_no_flows(laid)
    assert sockets_at(laid.backends[0]) == []


def test_client_resets_port_is_used_again_each_answer_is_its_own(laid: Lab, row: Row) -> None:
    for _ in range(TIMES):
        with Conversation.open(laid, row.family, port=40_556) as client:
            assert client.ask(get("/1k.html")).sha256 == digest(laid, "1k.html")
            client.abort()
