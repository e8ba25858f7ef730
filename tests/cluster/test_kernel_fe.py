"""A front end whose packets the kernel carries, in a cluster whose back ends have none: as right, and longer.

Longer: established connections go on while no process of the front end runs, and the next one knows them. What must be
so with any engine is in the other files (TCPHA_ENGINES=kernel-fe runs them with this one).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tcpha.proto.handoff import Type
from tests.cluster import forgery
from tests.cluster.conftest import MakeLab, engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.kernel_sight import carried, evict, key_of
from tests.cluster.mishaps import losing

pytestmark = pytest.mark.cluster

REQUIRED = Settings(fe=("accelerate = require",), be=("accelerate = off",))
PIECE_OCTETS = 100_000
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def fast_lab(_machine: None) -> Iterator[Lab]:
    with engine_lab(REQUIRED) as standing:
        yield standing


def await_carried(lab: Lab, family: Family, *clients: Conversation) -> None:
    """Wait until the program has these connections wholly."""
    wanted = {key_of(lab, family, client) for client in clients}

    def has_all() -> bool:
        flows = carried(lab)
        return all(key in flows and flows[key].is_confirmed for key in wanted)

    assert wait_until(has_all, PATIENCE_S), carried(lab)


@contextmanager
def keeping(lab: Lab) -> Iterator[None]:
    """The front end runs with --keep; afterwards without."""
    engine = lab.fe.engine
    usual = engine.program
    engine.stop()
    engine.program = replace(usual, arguments=[*usual.arguments, "--keep"])
    try:
        engine.start()
        yield
    finally:
        engine.program = usual
        engine.restart()


def came_up(shown: dict[str, Any]) -> int:
    """How many packets the process itself had to look at."""
    return int(shown["queue_packets"]) + int(shown["ring_packets"])


def took_over(lab: Lab) -> int:
    """How many connections the running front end says that it took over."""
    lines = [line for line in lab.fe.engine.log.read_text().splitlines() if " accelerated: " in line]
    _, found, told = lines[-1].partition("that go on: ")
    return int(told) if found else 0


# --- as right as without


def test_requests_of_both_back_ends_are_answered_and_python_sees_one_packet_each(fast_lab: Lab, family: Family) -> None:
    before = counters(fast_lab.fe)
    for _ in range(20):
        for target, node, name in (("/1k.jpg", "be2", "1k"), ("/100k.html", "be1", "100k")):
            with Conversation.open(fast_lab, family) as client:
                answer = client.ask(get(target, "Connection: close"))
                assert (answer.status, answer.node, answer.sha256) == (200, node, digest(fast_lab, name))
                assert client.rest() == b""
    await_no_flows(fast_lab)
    after = counters(fast_lab.fe)
    assert [after[name] - before[name] for name in ("syns", "handshakes", "handoffs", "closed")] == [40] * 4
    assert came_up(after) - came_up(before) <= 44
    assert after["ring_packets"] - before["ring_packets"] >= 40
    kernel = {name: after["kernel"][name] - before["kernel"][name] for name in after["kernel"]}
    assert (kernel["syns"], kernel["handshakes"]) == (40, 40)
    assert kernel["forwarded"] >= 40 * 2


def test_download_and_upload_are_whole_and_pass_by_the_process(fast_lab: Lab, family: Family) -> None:
    before = counters(fast_lab.fe)
    body = random.Random(7).randbytes(20_000_000)
    with Conversation.open(fast_lab, family) as client:
        assert client.ask(get("/100m.jpg")).sha256 == digest(fast_lab, "100m")
        for piece in (body[:PIECE_OCTETS], body):
            assert client.ask(post(piece)).body == digest_line(piece)
    after = counters(fast_lab.fe)
    assert came_up(after) - came_up(before) < 200
    assert after["forwarded"] - before["forwarded"] > 300
    await_no_flows(fast_lab)


def test_connection_stays_open_long_after_its_request_it_is_carried_wholly(fast_lab: Lab, family: Family) -> None:
    """Not only once it sends octets: by then the process may be gone."""
    with Conversation.open(fast_lab, family) as client:
        assert client.ask(get("/1k.jpg")).status == 200
        await_carried(fast_lab, family, client)
        before = came_up(counters(fast_lab.fe))
        assert client.ask(get("/100k.jpg")).sha256 == digest(fast_lab, "100k")
        assert came_up(counters(fast_lab.fe)) == before
    await_no_flows(fast_lab)
    assert wait_until(lambda: carried(fast_lab) == {}, PATIENCE_S)


def test_stranger_sends_syns_on_the_ports_of_a_download_and_of_an_upload_both_are_whole(
    fast_lab: Lab, family: Family
) -> None:
    body = os.urandom(2_000_000)
    with Conversation.open(fast_lab, family) as down, Conversation.open(fast_lab, family) as up:
        down.send(get("/100m.jpg"))
        up.send(post(body)[: -len(body)])
        for start in range(0, len(body), PIECE_OCTETS):
            numbers = [random.getrandbits(32) for _ in range(4)]
            forged = [
                forgery.segment(fast_lab, family, sport=each.port, seq=number, flags="S")
                for each in (down, up)
                for number in numbers
            ]
            forgery.send(fast_lab, forged, fast_lab.fe)
            up.send(body[start : start + PIECE_OCTETS])
        assert up.answer().body == digest_line(body)
        assert down.answer().sha256 == digest(fast_lab, "100m")
    await_no_flows(fast_lab)


def test_port_is_used_again_while_the_program_has_the_old_flow_the_new_one_is_served(
    fast_lab: Lab, family: Family
) -> None:
    port = 20_999
    for number in range(30):
        with Conversation.open(fast_lab, family, port=port) as client:
            assert client.ask(get("/1k.jpg")).sha256 == digest(fast_lab, "1k"), number
            if number % 3 == 0:
                await_carried(fast_lab, family, client)
            client.abort()
    await_no_flows(fast_lab)


def test_flow_is_lost_from_the_kernel_its_next_packet_puts_it_back(fast_lab: Lab, family: Family) -> None:
    with Conversation.open(fast_lab, family) as client:
        assert client.ask(get("/1k.jpg")).status == 200
        await_carried(fast_lab, family, client)
        assert evict(fast_lab, key_of(fast_lab, family, client))
        assert client.ask(get("/100k.jpg")).sha256 == digest(fast_lab, "100k")
        await_carried(fast_lab, family, client)
    await_no_flows(fast_lab)


def test_idle_connection_whose_packets_the_process_does_not_see_is_not_dropped(make_lab: MakeLab) -> None:
    """What the program saw last counts: it is neither asked about nor forgotten while it is in use."""
    lab = make_lab(settings=Settings(("idle_time = 0.5s",), REQUIRED.fe, REQUIRED.be))
    with Conversation.open(lab, "ipv4") as client:
        assert client.ask(get("/1k.jpg")).status == 200
        await_carried(lab, "ipv4", client)
        before = counters(lab.fe)
        for _ in range(15):
            assert client.is_quiet(0.2)
            assert client.ask(get("/1k.jpg")).status == 200
        after = counters(lab.fe)
    assert came_up(after) == came_up(before)
    assert (after["idle_dropped"], after["flows"]) == (0, 1)


# --- longer than the process


def test_front_end_is_killed_downloads_and_uploads_go_on_and_the_next_one_knows_them(
    fast_lab: Lab, family: Family
) -> None:
    body = os.urandom(10_000_000)
    with ExitStack() as open_clients:
        downs = [open_clients.enter_context(Conversation.open(fast_lab, family)) for _ in range(3)]
        up = open_clients.enter_context(Conversation.open(fast_lab, family))
        for client in downs:
            client.send(get("/100m.jpg"))
        up.send(post(body)[: -len(body)] + body[:PIECE_OCTETS])
        await_carried(fast_lab, family, *downs, up)
        fast_lab.fe.engine.kill()
        up.send(body[PIECE_OCTETS:])
        for client in downs:
            assert client.answer().sha256 == digest(fast_lab, "100m")
        assert up.answer().body == digest_line(body)
        assert not fast_lab.fe.engine.is_running
        downs[0].socket.close()
        fast_lab.fe.engine.start()
        assert took_over(fast_lab) >= 3
        for client in (*downs[1:], up):
            assert client.ask(get("/100k.html")).sha256 == digest(fast_lab, "100k")
        now = counters(fast_lab.fe)
        assert (now["learned"], now["enquiries"]) == (0, 0)
        assert wait_until(lambda: counters(fast_lab.fe)["flows"] == 3, PATIENCE_S), "what is over is still known"
    await_no_flows(fast_lab)


def test_front_end_is_stopped_with_keep_and_started_connections_go_on(fast_lab: Lab) -> None:
    with keeping(fast_lab), ExitStack() as open_clients:
        clients = [open_clients.enter_context(Conversation.open(fast_lab, family)) for family in FAMILIES]
        for family, client in zip(FAMILIES, clients, strict=True):
            assert client.ask(get("/1k.jpg")).status == 200
            await_carried(fast_lab, family, client)
        assert fast_lab.fe.engine.stop() == 0
        for client in clients:
            assert client.ask(get("/100k.jpg")).sha256 == digest(fast_lab, "100k")
        fast_lab.fe.engine.start()
        assert took_over(fast_lab) == 2
        for client in clients:
            assert client.ask(get("/100k.jpg")).sha256 == digest(fast_lab, "100k")
    await_no_flows(fast_lab)


def test_front_end_starts_without_one_of_its_back_ends_the_connections_of_that_one_are_dropped(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(settings=REQUIRED)
    file = lab.fe.directory / "tcphafe.conf"
    gone = str(lab.backends[1].ipv4)
    with Conversation.open(lab, "ipv4") as stays, Conversation.open(lab, "ipv4") as goes:
        for client, target in ((stays, "/1k.html"), (goes, "/1k.jpg")):
            assert client.ask(get(target)).status == 200
            await_carried(lab, "ipv4", client)
        lab.fe.engine.kill()
        kept_lines = [line for line in file.read_text().splitlines() if gone not in line]
        file.write_text("".join(f"{line}\n" for line in kept_lines))
        lab.fe.engine.start()
        assert took_over(lab) == 1
        assert carried(lab).keys() == {key_of(lab, "ipv4", stays)}
        assert stays.ask(get("/100k.html")).sha256 == digest(lab, "100k")


def test_front_end_is_killed_while_its_handoffs_are_lost_the_next_one_hands_the_repeated_requests_over(
    make_lab: MakeLab,
) -> None:
    """What was decided is in the program before a HANDOFF leaves: the next process must not take it for confirmed."""
    slow = ("handoff_repeat = 5s", "handoff_wait = 10s")  # so that the only HANDOFF may be lost for long
    lab = make_lab(settings=replace(REQUIRED, fe=(*REQUIRED.fe, *slow)))
    with ExitStack() as open_clients:
        clients = {family: open_clients.enter_context(Conversation.open(lab, family)) for family in FAMILIES}
        keys = {key_of(lab, family, client) for family, client in clients.items()}
        with losing(lab.backends[1], Type.HANDOFF):
            for client in clients.values():
                client.send(get("/1k.jpg"))
            assert wait_until(lambda: carried(lab).keys() >= keys, PATIENCE_S)
            lab.fe.engine.kill()
            assert not any(carried(lab)[key].is_confirmed or carried(lab)[key].is_held for key in keys)
        lab.fe.engine.start()
        assert took_over(lab) == 2
        for client in clients.values():
            assert client.answer().sha256 == digest(lab, "1k")


def test_back_ends_are_reached_by_a_tunnel_front_end_is_killed_the_download_goes_on(make_lab: MakeLab) -> None:
    lab = make_lab(settings=REQUIRED, routed=True)
    for family in FAMILIES:
        with Conversation.open(lab, family) as client:
            client.send(get("/100m.jpg"))
            await_carried(lab, family, client)
            lab.fe.engine.kill()
            assert client.answer().sha256 == digest(lab, "100m")
            lab.fe.engine.start()
            assert took_over(lab) == 1
            assert client.ask(post(bytes(300_000))).body == digest_line(bytes(300_000))
            assert counters(lab.fe)["kernel"]["tunnelled"] > 0
        await_no_flows(lab)
