"""Whatever a client offers, the front end promises and a back end's kernel does: both ends agree, and nothing is lost.

The matrix of the three is tested in pairs: every two values of two of its dimensions meet in some case. Its interfaces
have an MTU of 9000 octets, so that no MSS is too large for the segment. RFC 9293, 3.7.1; RFC 7323; RFC 2018; RFC 3168.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import pytest
from scapy.layers.inet import TCP

from tcpha.errors import EdgeError
from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until
from tcpha.proto.cookie import MSS_CLASSES
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, LIMIT_S, Conversation, Family, get, post, unconnected, vip
from tests.cluster.engine_sight import adopted_by_kernel, await_no_flows, digest, digest_line
from tests.cluster.pairs import Case, covering, pairs, pairs_of
from tests.cluster.promising import ONE_BACK_END, Promise, promise
from tests.cluster.sniffing import sniffing
from tests.cluster.tcp_stack import (
    NO_SACK,
    NO_TIMESTAMPS,
    NO_WINDOW_SCALING,
    TcpInfo,
    info_at,
    info_of,
    largest_window_octets,
    link_mtu,
    set_up,
    window_scale,
)

pytestmark = pytest.mark.cluster

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
OCTETS = 1_000_000
TIMESTAMPS_OCTETS = 12
LEAST_COOKIE_MSS = {"ipv4": 536, "ipv6": 1220}
"""What a server's kernel in SYN cookies takes a smaller MSS for (Linux, syncookies.c)."""

PROMISES = (
    Promise(7, True, True, 1460),
    Promise(7, False, False, 88),
    Promise(None, True, False, 536),
    Promise(None, False, True, 8960),
    Promise(0, True, True, 88),
    Promise(0, False, False, 1460),
    Promise(14, True, False, 8960),
    Promise(14, False, True, 536),
)
"""Every two values of two of its fields meet, but for window scale and MSS, which nothing joins."""

CLIENTS: dict[str, tuple[object, ...]] = {
    "timestamps": (True, False),
    "sack": (True, False),
    "window_scale": (7, None, 0, 14),
    "mss": (1460, 88, 536, 8960),
    "ecn": (False, True),
    "family": FAMILIES,
}
SERVERS: dict[str, tuple[object, ...]] = {
    "server_scale": (7, 0, 10, 14),
    "syn_cookies": (False, True),
    "sparing": (True, False),
}
MATRIX = {"promise": PROMISES, **CLIENTS, **SERVERS}
CASES = sorted(covering(MATRIX), key=lambda case: PROMISES.index(case["promise"]))
LARGE_SEGMENTS_MTU_OCTETS = 9_000
MULTIPATH = 30
"""The kind of its options."""


@dataclass(frozen=True, slots=True)
class Client:
    """What a client offers; its window scale None: none."""

    timestamps: bool
    sack: bool
    window_scale: int | None
    mss: int
    ecn: bool
    family: Family

    def settings(self) -> dict[str, str]:
        together = {"tcp_ecn": "1" if self.ecn else "0"}
        together |= {} if self.timestamps else NO_TIMESTAMPS
        together |= {} if self.sack else NO_SACK
        return together | ({} if self.window_scale is not None else NO_WINDOW_SCALING)


@dataclass(frozen=True, slots=True)
class Server:
    """A back end's kernel."""

    server_scale: int
    syn_cookies: bool
    """Always, not only when its backlog overflows."""
    sparing: bool
    """What is not promised it cannot do."""

    def settings(self, promised: Promise) -> dict[str, str]:
        # A kernel in SYN cookies that has no timestamps has nothing else: it could not keep what is promised.
        bare = promised.window_scale is None and not promised.sack
        spared = [
            (NO_TIMESTAMPS, not promised.timestamps and (bare or not self.syn_cookies)),
            (NO_SACK, not promised.sack),
            (NO_WINDOW_SCALING, promised.window_scale is None),
        ]
        together = {"tcp_ecn": "1", "tcp_syncookies": "2" if self.syn_cookies else "1"}
        for settings, is_spare in spared:
            together |= settings if is_spare and self.sparing else {}
        return together


def parties(case: Case) -> tuple[Promise, Client, Server]:
    offered = Client(**{name: case[name] for name in CLIENTS})
    return case["promise"], offered, Server(**{name: case[name] for name in SERVERS})


def name_of(case: Case) -> str:
    return f"{case['promise']}, " + ", ".join(f"{name} {case[name]}" for name in (*CLIENTS, *SERVERS))


@pytest.fixture(scope="module")
def large_lab(_machine: None) -> Iterator[Lab]:
    """A lab with one back end, all of whose links take large segments."""
    with engine_lab(ONE_BACK_END, engine=False) as standing, link_mtu(standing, LARGE_SEGMENTS_MTU_OCTETS):
        yield standing


def connect(lab: Lab, offered: Client) -> Conversation:
    """Connect as such a client; its kernel is set up already."""
    peer = unconnected(lab, offered.family)
    try:
        peer.settimeout(LIMIT_S)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, offered.mss)
        if offered.window_scale is not None:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, largest_window_octets(offered.window_scale))
        peer.connect((vip(lab, offered.family), 80))
    except BaseException:
        peer.close()
        raise
    return Conversation(peer)


# --- what both ends must have agreed on


def agreed_on(promised: Promise, offered: Client) -> frozenset[str]:
    both = {
        "timestamps": promised.timestamps and offered.timestamps,
        "sack": promised.sack and offered.sack,
        "wscale": promised.window_scale is not None and offered.window_scale is not None,
    }
    return frozenset(name for name, value in both.items() if value)


def check_client(seen: TcpInfo, promised: Promise, offered: Client) -> None:
    agreed = agreed_on(promised, offered)
    assert seen.options == agreed
    scales = (promised.window_scale, offered.window_scale) if "wscale" in agreed else (0, 0)
    assert (seen.snd_wscale, seen.rcv_wscale) == scales
    stamps = TIMESTAMPS_OCTETS if "timestamps" in agreed else 0
    assert seen.snd_mss == min(offered.mss, promised.mss - (20 if offered.family == "ipv6" else 0)) - stamps


def check_server(seen: TcpInfo, promised: Promise, offered: Client, server: Server, by_kernel: bool) -> None:
    """A connection that the kernel adopted is what the front end promised; a replayed one what its server grants."""
    agreed = agreed_on(promised, offered)
    mss = max(size for size in MSS_CLASSES if size <= offered.mss)
    stamps = TIMESTAMPS_OCTETS if "timestamps" in agreed else 0
    if server.syn_cookies and not by_kernel:
        mss = max(mss, LEAST_COOKIE_MSS[offered.family])
        if "timestamps" not in agreed:  # its cookie has no room for more
            agreed = frozenset()
    assert seen.options == agreed
    own_scale = promised.window_scale if by_kernel else server.server_scale
    scales = (offered.window_scale, own_scale) if "wscale" in agreed else (0, 0)
    assert (seen.snd_wscale, seen.rcv_wscale) == scales
    assert seen.snd_mss <= mss - stamps


def understands(offers: TcpInfo, other: TcpInfo) -> bool:
    """Whether one end understands what the other offers: never more, and less only where no field can say it."""
    offered = min(offers.rcv_wnd >> offers.rcv_wscale, 0xFFFF) << offers.rcv_wscale
    unit, largest = 1 << other.snd_wscale, 0xFFFF << other.snd_wscale
    return other.snd_wnd <= max(offered, unit) and (other.snd_wnd > offered - unit or other.snd_wnd == largest)


def transfer(lab: Lab, client: Conversation) -> None:
    answer = client.ask(get("/1m"))
    assert (answer.status, answer.sha256) == (200, digest(lab, "1m"))
    body = os.urandom(OCTETS)
    assert client.ask(post(body)).body == digest_line(body)


def check_case(lab: Lab, case: Case) -> None:
    promised, offered, server = parties(case)
    promise(lab, promised)
    backend = lab.backends[0]
    with ExitStack() as meanwhile:
        meanwhile.enter_context(window_scale(backend, server.server_scale))
        meanwhile.enter_context(set_up(backend, server.settings(promised)))
        if offered.window_scale is not None:
            meanwhile.enter_context(window_scale(lab.client, 14))
        meanwhile.enter_context(set_up(lab.client, offered.settings()))
        before = adopted_by_kernel(backend)
        client = meanwhile.enter_context(connect(lab, offered))
        transfer(lab, client)
        by_kernel = adopted_by_kernel(backend) > before

        def ends() -> tuple[TcpInfo, TcpInfo]:
            return info_of(client), info_at(backend, lab, offered.family, client.port)

        own, other = ends()
        check_client(own, promised, offered)
        check_server(other, promised, offered, server, by_kernel)
        assert wait_until(lambda: understands(*reversed(ends())), 2.0), f"the server's window: {ends()}"
        assert wait_until(lambda: understands(*ends()), 2.0), f"the client's window: {ends()}"


def test_selection_covers_every_pair_of_the_matrix() -> None:
    assert {pair for case in CASES for pair in pairs_of({name: case[name] for name in MATRIX})} == set(pairs(MATRIX))
    assert len(CASES) < 45


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_any_offer_promise_and_stack_both_ends_agree_and_transfers_are_whole(large_lab: Lab, case: Case) -> None:
    check_case(large_lab, case)


@pytest.mark.parametrize("ecn", ["1", "3"], ids=["ECN", "accurate ECN"])
def test_client_and_server_want_congestion_notified_neither_gets_it(lab: Lab, family: Family, ecn: str) -> None:
    """RFC 3168, 6.1.1; accurate ECN asks with a flag that was reserved before, and takes the same answer for a no."""
    with ExitStack() as meanwhile:
        for node in (lab.client, lab.node("be2")):
            try:
                meanwhile.enter_context(set_up(node, {"tcp_ecn": ecn}))
            except EdgeError:
                pytest.skip(f"this kernel knows no tcp_ecn {ecn}")
        heard = meanwhile.enter_context(sniffing(lab.client))
        client = meanwhile.enter_context(Conversation.open(lab, family))
        assert client.ask(get("/1m.jpg")).sha256 == digest(lab, "1m")
        for seen in (info_of(client), info_at(lab.node("be2"), lab, family, client.port)):
            assert seen.options == {"timestamps", "sack", "wscale"}
    flags = [(arrived, str(packet[TCP].flags)) for arrived, packet in heard.both if TCP in packet]
    assert (False, "SEC" if ecn == "1" else "SECN") in flags
    assert (True, "SA") in flags
    assert not [each for arrived, each in flags if arrived and set(each) & set("ECN")]


def test_client_of_multipath_tcp_is_served_by_one_path(lab: Lab, family: Family) -> None:
    """It asks with an option that nobody answers, and goes on with plain TCP (RFC 8684, 3.7)."""
    number = socket.AF_INET if family == "ipv4" else socket.AF_INET6
    with ExitStack() as meanwhile:
        try:
            with lab.client.enter():
                peer = meanwhile.enter_context(socket.socket(number, socket.SOCK_STREAM, socket.IPPROTO_MPTCP))
        except OSError:
            pytest.skip("this kernel has no multipath TCP")
        heard = meanwhile.enter_context(sniffing(lab.client))
        peer.settimeout(LIMIT_S)
        peer.connect((vip(lab, family), 80))
        transfer(lab, Conversation(peer))
    asked = [
        packet[TCP] for arrived, packet in heard.both if not arrived and TCP in packet and packet[TCP].flags == "S"
    ]
    assert MULTIPATH in {kind for kind, _ in asked[0].options}
    assert not [tcp for tcp in asked[1:] if tcp.sport == asked[0].sport], "it had to ask once more, without"
    await_no_flows(lab)


EVERY_OFFER: list[Case] = [
    {
        **dict(zip(CLIENTS, offer, strict=True)),
        "server_scale": SERVERS["server_scale"][number % 4],
        "syn_cookies": number // 4 % 3 == 0,
        "sparing": number % 5 < 3,
    }
    for number, offer in enumerate(product(*CLIENTS.values()))
]
"""Every offer there is; what the server's kernel does takes turns."""


@pytest.mark.long
@pytest.mark.skipif(not AT_LENGTH, reason="every offer takes a quarter of an hour: set TCPHA_LONG=1")
@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_every_offer_and_promise_both_ends_agree_and_transfers_are_whole(large_lab: Lab, promised: Promise) -> None:
    for offer in EVERY_OFFER:
        check_case(large_lab, {**offer, "promise": promised})
    await_no_flows(large_lab)
