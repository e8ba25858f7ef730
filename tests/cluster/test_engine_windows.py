"""Receive windows: what one end offers the other may send, whatever scales the two kernels and the promise have.

The client is promised one window scale (7) and the server's kernel has its own: each window is rescaled. Never may the
client be told of more than there is, beyond what a field can say. RFC 7323, 2; RFC 9293, 3.8.6.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.impairment import Impairment
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, LIMIT_S, Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.engines import kernel_adopts, needs_python, some_overtake
from tests.cluster.mishaps import stopped
from tests.cluster.promising import ONE_BACK_END, Promise, promise
from tests.cluster.tcp_stack import NO_TIMESTAMPS, TcpInfo, extended_counts, info_at, info_of, set_up, window_scale

pytestmark = pytest.mark.cluster

PROMISED = 7
LARGEST_UNSCALED = 0xFFFF
DROPS = ["BeyondWindow", "TCPZeroWindowDrop", "TCPRcvQDrop", "TCPOFODrop", "TCPSACKDiscard"]
"""What a kernel counts when it is sent what it has not offered to take (linux/snmp.h; not every kernel has all)."""
if not some_overtake():
    DROPS.append("PAWSEstab")
DELAY_S = 0.03
_PIECE_OCTETS = 1 << 16
PROBED_S = 4.0
"""So soon the front end knows what has changed in a back end's kernel."""
RENO = {"tcp_congestion_control": "reno"}
"""Every kernel has it, and it sends what the window allows soon."""
FILLED = {"tcp_rmem": f"4096 131072 {1 << 20}"}
"""A server's receive buffer that an upload of 3 MB fills. Without a bound Linux enlarges it though no program reads:
with each segment that comes out of order, and when it is full (`tcp_rcvbuf_grow`, `tcp_clamp_window`)."""


@pytest.fixture(scope="module")
def scaled_lab(_machine: None) -> Iterator[Lab]:
    """A lab with one back end; every test undoes what it changed."""
    with engine_lab(ONE_BACK_END) as standing:
        yield standing


@contextmanager
def nothing_dropped(*nodes: Node) -> Iterator[None]:
    """No node's kernel is meanwhile sent anything that it does not take."""
    before = {node.name: extended_counts(node) for node in nodes}
    yield
    for node in nodes:
        after = extended_counts(node)
        grown = {name: after[name] - before[node.name][name] for name in DROPS if name in after}
        assert not any(grown.values()), (node.name, grown)


def transfer(lab: Lab, client: Conversation) -> None:
    """Up first: the client begins with the window that the front end offered."""
    body = os.urandom(1_000_000)
    assert client.ask(post(body)).body == digest_line(body)
    assert client.ask(get("/1m")).sha256 == digest(lab, "1m")


# --- every scale there is

EVERY_SCALE: list[tuple[Family, int]] = [(FAMILIES[scale % 2], scale) for scale in range(15)]


@pytest.mark.parametrize(("family", "scale"), EVERY_SCALE)
def test_server_of_any_scale_windows_are_rescaled_to_the_promise(scaled_lab: Lab, family: Family, scale: int) -> None:
    """A socket that the kernel adopts has the promised scale itself, whatever its host would choose."""
    server = scaled_lab.backends[0]
    with window_scale(server, scale), Conversation.open(scaled_lab, family) as client:
        with nothing_dropped(server, scaled_lab.client):
            transfer(scaled_lab, client)
        own, other = info_of(client), info_at(server, scaled_lab, family, client.port)
        assert (own.snd_wscale, other.rcv_wscale) == (PROMISED, PROMISED if kernel_adopts() else scale)
        if scale == 0 and not kernel_adopts():
            assert own.snd_wnd == LARGEST_UNSCALED >> PROMISED << PROMISED


@pytest.mark.parametrize(("family", "scale"), EVERY_SCALE)
def test_client_of_any_scale_its_windows_arrive_as_they_are(scaled_lab: Lab, family: Family, scale: int) -> None:
    server = scaled_lab.backends[0]
    with window_scale(scaled_lab.client, scale), Conversation.open(scaled_lab, family) as client:
        with nothing_dropped(server, scaled_lab.client):
            transfer(scaled_lab, client)
        own, other = info_of(client), info_at(server, scaled_lab, family, client.port)
        assert own.rcv_wscale == other.snd_wscale == scale
        if scale == 0:
            assert other.snd_wnd == LARGEST_UNSCALED


# --- windows that are used


class Watched(Conversation):
    """Between its pieces it asks an end of the connection how much it has in flight."""

    watch: Callable[[], TcpInfo] | None = None
    most_in_flight = 0

    def send(self, octets: bytes) -> None:
        for start in range(0, len(octets), _PIECE_OCTETS):
            self.socket.sendall(octets[start : start + _PIECE_OCTETS])
            self._look()

    def receive(self, most_octets: int) -> bytes:
        piece = super().receive(min(most_octets, _PIECE_OCTETS))
        self._look()
        return piece

    def _look(self) -> None:
        if self.watch is not None:
            self.most_in_flight = max(self.most_in_flight, self.watch().in_flight)


@pytest.mark.parametrize(("scale", "stamps"), [(PROMISED, True), (14, False)], ids=["timestamps", "no timestamps"])
def test_way_is_long_and_windows_are_large_more_is_in_flight_than_unscaled_windows_would_let(
    scaled_lab: Lab, scale: int, stamps: bool
) -> None:
    promise(scaled_lab, Promise())
    server, body = scaled_lab.backends[0], os.urandom(10_000_000)
    with ExitStack() as meanwhile:
        meanwhile.enter_context(window_scale(server, scale))
        meanwhile.enter_context(set_up(scaled_lab.client, RENO if stamps else {**RENO, **NO_TIMESTAMPS}))
        meanwhile.enter_context(set_up(server, RENO))
        meanwhile.enter_context(scaled_lab.impair("client", Impairment(delay_s=DELAY_S, only="tcp")))
        client = meanwhile.enter_context(Watched.open(scaled_lab, "ipv4"))
        client.send(get("/10m"))
        client.watch = lambda: info_at(server, scaled_lab, "ipv4", client.port)
        assert client.answer().sha256 == digest(scaled_lab, "10m")
        downloading, client.most_in_flight = client.most_in_flight, 0
        client.watch = lambda: info_of(client)
        assert client.ask(post(body)).body == digest_line(body)
        assert info_of(client).snd_wnd > 4 * LARGEST_UNSCALED
    assert downloading > 2 * LARGEST_UNSCALED
    assert client.most_in_flight > 2 * LARGEST_UNSCALED


# --- windows that shut


@dataclass(slots=True)
class Upload:
    """An upload of 3 MB to a server whose program does not read."""

    lab: Lab
    client: Conversation
    body: bytes
    sent: int = 0

    def fill(self, is_full: Callable[[], bool]) -> None:
        """Send until nothing more is taken, and the condition holds."""
        request = memoryview(post(self.body))
        self.client.socket.setblocking(False)

        def is_stuck() -> bool:
            try:
                self.sent += self.client.socket.send(request[self.sent : self.sent + 65_536])
            except BlockingIOError:
                return is_full()
            return self.sent == len(request) and is_full()

        assert wait_until(is_stuck, 10.0, 0.001), f"not full: {info_of(self.client)}"

    def finish(self) -> None:
        self.client.socket.settimeout(LIMIT_S)
        self.client.send(post(self.body)[self.sent :])
        assert self.client.answer().body == digest_line(self.body)

    def await_probe(self) -> None:
        before = counters(self.lab.fe)["forwarded"]
        assert wait_until(lambda: counters(self.lab.fe)["forwarded"] > before, 5.0), "the client asks no more"


@contextmanager
def stuck_upload(lab: Lab, scale: int) -> Iterator[Upload]:
    """The program behind the server does not read until the block is left; then the upload must be whole.

    The server's buffer is bounded only when the connection has its scale, which the largest possible buffer tells.
    """
    server = lab.backends[0]
    with window_scale(server, scale), Conversation.open(lab, "ipv4") as client:
        assert client.ask(get("/1k")).sha256 == digest(lab, "1k")
        upload = Upload(lab, client, os.urandom(3_000_000))
        with set_up(server, FILLED), stopped(server.sink.pid):
            yield upload
        upload.finish()
        assert info_of(client).snd_wnd > 1 << info_of(client).snd_wscale
    await_no_flows(lab)


@pytest.mark.parametrize(("promised", "scale"), [(7, 0), (14, 0)])
def test_server_has_a_smaller_scale_the_rest_of_its_window_is_told_as_one_unit_and_upload_is_whole(
    scaled_lab: Lab, promised: int, scale: int
) -> None:
    """What is not zero never becomes zero: so the client may send a little more than there is room for, and repeats.

    The front end says that it is so.
    """
    needs_python("be", "its socket has the promised scale, whatever the host would choose")
    promise(scaled_lab, Promise(promised))
    told = (
        f"its window scale {scale} is below the promised {promised}: "
        f"windows that its agent translates are told in steps of {1 << promised}"
    )
    with stuck_upload(scaled_lab, scale) as upload:
        assert wait_until(lambda: told in scaled_lab.log("fe").read_text(), PROBED_S)
        upload.fill(lambda: info_of(upload.client).snd_wnd <= 1 << promised)
        upload.await_probe()
        # A busy host finds room in what it holds, tells of that, and the client fills it as well.
        upload.fill(lambda: info_of(upload.client).snd_wnd in (0, 1 << promised))


@pytest.mark.parametrize(("promised", "scale"), [(7, 7), (7, 14), (0, 0)])
def test_server_shuts_its_window_client_asks_and_gets_it_open_again(scaled_lab: Lab, promised: int, scale: int) -> None:
    promise(scaled_lab, Promise(promised))
    server = scaled_lab.backends[0]
    with nothing_dropped(server), stuck_upload(scaled_lab, scale) as upload:
        upload.fill(lambda: info_of(upload.client).snd_wnd == 0)
        assert info_at(server, scaled_lab, "ipv4", upload.client.port).rcv_wnd == 0
        upload.await_probe()
        assert info_of(upload.client).snd_wnd == 0
