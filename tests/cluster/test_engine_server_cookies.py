"""A back end's kernel that falls back to SYN cookies of its own forgets options that the client was promised.

Without timestamps it forgets window scale and SACK, and rounds the MSS: the windows are rescaled in both directions.
Here it sends cookies always (tcp_syncookies 2), as it would with a full backlog. Linux, net/ipv4/syncookies.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tcpha.lab.cluster import Lab
from tests.cluster.conversation import Conversation, Family, get, post, vip
from tests.cluster.engine_sight import await_no_flows, digest, digest_line, extended_count
from tests.cluster.engines import needs_python
from tests.cluster.tcp_stack import NO_TIMESTAMPS, info_at, info_of, set_up
from tests.cluster.test_engine_loss import FORGOTTEN_S, LOST, dropping

pytestmark = pytest.mark.cluster

CLIENTS: dict[str, Mapping[str, str]] = {"timestamps": {}, "no timestamps": NO_TIMESTAMPS}
EVERYTHING = {"timestamps", "sack", "wscale"}


@pytest.fixture(scope="module")
def cookie_lab(lab: Lab) -> Iterator[Lab]:
    """The kernel of be1 sends cookies, whatever its backlog holds."""
    with set_up(lab.backends[0], {"tcp_syncookies": "2"}):
        yield lab


@pytest.fixture(params=CLIENTS)
def offers(request: pytest.FixtureRequest, cookie_lab: Lab) -> Iterator[frozenset[str]]:
    """What the client offers, whose kernel is so set during a test."""
    settings = CLIENTS[request.param]
    with set_up(cookie_lab.client, settings):
        yield frozenset(EVERYTHING - ({"timestamps"} if settings else set()))


def test_without_server_cookies_a_client_without_timestamps_has_scale_and_sack_on_both_ends(
    lab: Lab, family: Family
) -> None:
    """The front end's cookie has room for them in the initial sequence number."""
    with set_up(lab.client, NO_TIMESTAMPS), Conversation.open(lab, family) as client:
        assert client.ask(get("/1m.jpg")).sha256 == digest(lab, "1m")
        own, server = info_of(client), info_at(lab.node("be2"), lab, family, client.port)
        assert own.options == server.options == {"sack", "wscale"}
        assert (own.rcv_wscale, own.snd_wscale) == (server.snd_wscale, 7)


def test_server_forgets_options_windows_are_rescaled_and_transfers_whole(
    cookie_lab: Lab, family: Family, offers: frozenset[str]
) -> None:
    needs_python("be", "no SYN is played, so its host forgets nothing")
    before = extended_count(cookie_lab.backends[0], "SyncookiesRecv")
    body = os.urandom(3_000_000)
    with Conversation.open(cookie_lab, family) as client:
        assert client.ask(get("/10m")).sha256 == digest(cookie_lab, "10m")
        assert client.ask(post(body)).body == digest_line(body)
        own, server = info_of(client), info_at(cookie_lab.backends[0], cookie_lab, family, client.port)
        assert own.options == offers
        assert server.options == (offers if "timestamps" in offers else set())
        if "timestamps" not in offers:
            assert own.snd_wnd == 0xFFFF >> 7 << 7, "the server offers at most 65535"
            assert server.snd_wnd == 0xFFFF, "it is told of no more"
    assert extended_count(cookie_lab.backends[0], "SyncookiesRecv") > before
    await_no_flows(cookie_lab)


@pytest.mark.parametrize("mss_octets", [88, 500, 536, 1_000, 1_219, 1_400])
def test_server_rounds_a_small_mss_up_transfers_are_whole(
    cookie_lab: Lab, family: Family, offers: frozenset[str], mss_octets: int
) -> None:
    """Its segments are then larger than the client's MSS, and each must have its checksum all the same."""
    body = os.urandom(100_000)
    with Conversation.open(cookie_lab, family, mss_octets=mss_octets, limit_s=5.0) as client:
        assert client.ask(get("/100k")).sha256 == digest(cookie_lab, "100k")
        assert client.ask(post(body)).body == digest_line(body)


def test_server_forgets_options_and_packets_are_lost_transfers_are_whole(
    cookie_lab: Lab, family: Family, offers: frozenset[str]
) -> None:
    body = os.urandom(200_000)
    lossy = ["-p", "tcp", *LOST]
    with ExitStack() as losing:
        losing.enter_context(dropping(cookie_lab.client, family, ["-s", vip(cookie_lab, family), *lossy]))
        losing.enter_context(dropping(cookie_lab.fe, family, ["-d", vip(cookie_lab, family), *lossy]))
        for _ in range(3):
            with Conversation.open(cookie_lab, family) as client:
                assert client.ask(get("/100k")).sha256 == digest(cookie_lab, "100k")
                assert client.ask(post(body)).body == digest_line(body)
    await_no_flows(cookie_lab, FORGOTTEN_S)
