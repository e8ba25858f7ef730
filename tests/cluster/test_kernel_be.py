"""Back ends whose connections the kernel adopts, beside a front end in Python: what clients, servers and hosts see."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import TCP

from tcpha.be.acceleration import TWINS
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import host_state
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import LIMIT_S, Conversation, Family, client_address, get, post, unconnected, vip
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line, sockets_at
from tests.cluster.kernel_sight import pinned
from tests.cluster.mishaps import kernel
from tests.cluster.sniffing import sniffing

pytestmark = pytest.mark.cluster

ACCELERATED = Settings(fe=("accelerate = off",), be=("accelerate = require",))
PATIENCE_S = 10.0
FIRST_OCTETS = 100_000
"""Of a download, read before something happens."""
SMALL_WINDOW_OCTETS = 65_536
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_SEND_QUEUE = 19, 20, 21, 2
"""As linux/tcp.h has them."""


@pytest.fixture(scope="module")
def kernel_lab(_adopting: None) -> Iterator[Lab]:
    with engine_lab(ACCELERATED) as standing:
        yield standing


@pytest.fixture(scope="module")
def mortal_lab(_adopting: None) -> Iterator[Lab]:
    """A lab whose first back end's agent is ended, and started again, by the tests."""
    with engine_lab(ACCELERATED) as standing:
        yield standing


def seen(lab: Lab, name: str) -> int:
    """A counter of all agents, without what the programs counted."""
    shown = [counters(node) for node in lab.backends]
    return sum(int(each[name]) - int(each["kernel"][TWINS[name]]) for each in shown)


def in_kernel(lab: Lab, name: str) -> int:
    """A counter of all back ends' programs."""
    return sum(int(counters(node)["kernel"][name]) for node in lab.backends)


@contextmanager
def all_by_the_kernel(lab: Lab, connections: int) -> Iterator[None]:
    """So many connections are adopted by the kernel meanwhile, and no packet of theirs comes to an agent."""
    started = in_kernel(lab, "started")
    handoffs, arriving = (seen(lab, name) for name in ("handoffs", "arriving"))
    yield
    assert in_kernel(lab, "started") == started + connections
    assert (seen(lab, "handoffs"), seen(lab, "arriving")) == (handoffs, arriving)


def is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


@contextmanager
def started(node: Node, *options: str, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """The node's agent, run by the test, until it is ready; killed at the end."""
    program = node.engine.program
    log = node.directory / "by-hand.log"
    with log.open("wb") as stream:
        process = node.popen(
            [*before, *program.arguments, *options], stderr=stream, stdout=stream, environment=program.environment
        )
    try:
        assert wait_until(lambda: "be ready" in log.read_text() or not is_running(process), PATIENCE_S)
        yield process
    finally:
        if is_running(process):
            process.kill()
        process.wait()


def pinned_below(place: Path) -> list[Path]:
    return [each for each in place.rglob("*") if each.is_file()] if place.exists() else []


# Requests


@pytest.mark.parametrize("name", ["1k.html", "100k.jpg", "1m.html"])
def test_request_answer_is_right_and_no_agent_sees_a_packet(kernel_lab: Lab, family: Family, name: str) -> None:
    with all_by_the_kernel(kernel_lab, 1), Conversation.open(kernel_lab, family) as client:
        answer = client.ask(get(f"/{name}"))
    assert answer.sha256 == digest(kernel_lab, name)
    assert answer.node == ("be2" if name.endswith("jpg") else "be1")


def test_keep_alive_every_request_is_answered(kernel_lab: Lab, family: Family) -> None:
    with all_by_the_kernel(kernel_lab, 1), Conversation.open(kernel_lab, family) as client:
        for _ in range(50):
            assert client.ask(get("/1k.html")).sha256 == digest(kernel_lab, "1k.html")


@pytest.mark.parametrize("octets", [0, 1, 1000, 3_000, 20_000_000])
def test_upload_arrives_whole(kernel_lab: Lab, family: Family, octets: int) -> None:
    body = os.urandom(octets)
    with Conversation.open(kernel_lab, family) as client:
        assert client.ask(post(body)).body == digest_line(body)


def test_large_download_is_whole(kernel_lab: Lab, family: Family) -> None:
    with all_by_the_kernel(kernel_lab, 1), Conversation.open(kernel_lab, family) as client:
        assert client.ask(get("/100m.html")).sha256 == digest(kernel_lab, "100m.html")


def test_many_small_connections_all_are_answered_and_forgotten(kernel_lab: Lab, family: Family) -> None:
    with all_by_the_kernel(kernel_lab, 200):
        for number in range(200):
            with Conversation.open(kernel_lab, family) as client:
                lines = ("Connection: close",) if number % 2 else ()
                assert client.ask(get("/1k.html", *lines)).status == 200
    await_no_flows(kernel_lab)


def test_head_comes_in_two_pieces_the_agent_adopts_it_beside_the_kernel(kernel_lab: Lab, family: Family) -> None:
    """What the front end acknowledged has to be watched."""
    handoffs = seen(kernel_lab, "handoffs")
    request = get("/1k.html")
    with Conversation.open(kernel_lab, family, nagle=False) as client:
        client.send(request[:20])
        client.await_acknowledged()
        client.send(request[20:])
        assert client.answer().status == 200
    assert seen(kernel_lab, "handoffs") == handoffs + 1
    await_no_flows(kernel_lab)


def test_first_octet_of_the_answer_has_the_promised_number(kernel_lab: Lab, family: Family) -> None:
    request = get("/1k.html")
    with sniffing(kernel_lab.client) as wire, Conversation.open(kernel_lab, family) as client:
        assert client.ask(request).status == 200
        packets = [packet[TCP] for packet in wire.hear() if TCP in packet and packet[TCP].dport == client.port]
    greeting = next(each for each in packets if each.flags == "SA")
    first = next(each for each in packets if len(each.payload))
    assert first.seq == (greeting.seq + 1) & 0xFFFFFFFF
    assert first.ack == (greeting.ack + len(request)) & 0xFFFFFFFF


def test_port_is_used_again_at_once_every_connection_is_answered(kernel_lab: Lab, family: Family) -> None:
    """The server closes first, so its host keeps the four-tuple in TIME-WAIT."""
    port = 40_777
    recycled = in_kernel(kernel_lab, "recycled")
    for _ in range(20):
        with Conversation.open(kernel_lab, family, port=port) as client:
            answer = client.ask(get("/1k.html", "Connection: close"))
            assert (answer.sha256, client.rest()) == (digest(kernel_lab, "1k.html"), b"")
    assert in_kernel(kernel_lab, "recycled") > recycled


def numbered_from(lab: Lab, family: Family, port: int, iss: int) -> Conversation:
    """A connection whose client counts from `iss` on: what a closed socket is told in repair mode it keeps."""
    peer = unconnected(lab, family)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    peer.bind((client_address(lab, family), port))
    with lab.client.enter():
        repair = ((TCP_REPAIR, 1), (TCP_REPAIR_QUEUE, TCP_SEND_QUEUE), (TCP_QUEUE_SEQ, iss), (TCP_REPAIR, 0))
        for option, value in repair:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
    peer.settimeout(LIMIT_S)
    peer.connect((vip(lab, family), 80))
    return Conversation(peer)


def test_port_is_used_again_by_lower_numbers_without_timestamps_the_server_that_was_chosen_answers(
    kernel_lab: Lab, family: Family
) -> None:
    """No SYN of that connection ends the TIME-WAIT (RFC 6191): only the agent can."""
    port, left = 40_778, in_kernel(kernel_lab, "up_time_wait")
    request = get("/1k.html", "Connection: close")
    with kernel(kernel_lab.client, tcp_timestamps=0):
        for iss in (0x60000000, 0x50000000):
            assert in_kernel(kernel_lab, "up_time_wait") == left
            with numbered_from(kernel_lab, family, port, iss) as client:
                answer = client.ask(request)
                assert (answer.status, answer.node, client.rest()) == (200, "be1", b"")
    assert in_kernel(kernel_lab, "up_time_wait") == left + 1


def test_agents_connection_is_aborted_and_its_port_used_again_at_once_each_answer_is_its_own(
    kernel_lab: Lab, family: Family
) -> None:
    """Of the first the agent hears the end later than the kernel hears of the second."""
    request = get("/1k.html")
    for number in range(100):
        port = 41_001 + number % 3
        with Conversation.open(kernel_lab, family, nagle=False, port=port, limit_s=10.0) as client:
            client.send(request[:20])
            client.await_acknowledged()
            client.send(request[20:])
            assert client.answer().status == 200
            client.abort()
        with Conversation.open(kernel_lab, family, port=port, limit_s=10.0) as client:
            assert client.ask(request).sha256 == digest(kernel_lab, "1k.html"), number
            client.abort()
    await_no_flows(kernel_lab)


def test_client_resets_connection_is_over_at_once(kernel_lab: Lab, family: Family) -> None:
    with Conversation.open(kernel_lab, family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        client.abort()
    await_no_flows(kernel_lab)
    assert sockets_at(kernel_lab.backends[0]) == []


# Servers


def test_server_is_down_request_is_answered_503_and_served_again_later(kernel_lab: Lab, family: Family) -> None:
    broken = kernel_lab.backends[1]

    def status() -> int:
        with Conversation.open(kernel_lab, family) as client:
            return client.ask(get("/1k.jpg")).status

    broken.server.kill()
    try:
        assert status() == 503
    finally:
        broken.server.start()
    assert wait_until(lambda: status() == 200, PATIENCE_S)


# The agent's end


def test_agent_is_killed_during_downloads_nobody_notices_and_the_next_one_answers_for_them(mortal_lab: Lab) -> None:
    node = mortal_lab.backends[0]
    with ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(Conversation.open(mortal_lab, each, receive_buffer_octets=SMALL_WINDOW_OCTETS))
            for each in ("ipv4", "ipv6")
            for _ in range(3)
        ]
        for client in clients:
            client.send(get("/10m.html"))
        heads = [client.exactly(FIRST_OCTETS) for client in clients]
        node.engine.kill()
        for number, client in enumerate(clients):
            heads[number] += client.exactly(FIRST_OCTETS)
        node.engine.start()
        assert counters(node)["kernel"]["flows"] == len(clients)
        assert f"connections of an earlier process that go on: {len(clients)}\n" in node.engine.log.read_text()
        for head, client in zip(heads, clients, strict=True):
            client._unread = head
            assert client.answer().sha256 == digest(mortal_lab, "10m.html")
    await_no_flows(mortal_lab)


def test_agent_is_ended_with_keep_download_goes_on(mortal_lab: Lab, family: Family) -> None:
    node = mortal_lab.backends[0]
    node.engine.stop()
    with started(node, "--keep") as process:
        assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
        with Conversation.open(mortal_lab, family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
            client.send(get("/10m.html"))
            client._unread = client.exactly(FIRST_OCTETS)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert client.answer().sha256 == digest(mortal_lab, "10m.html")
    assert "; connections left to the kernel: 1; --clean" in (node.directory / "by-hand.log").read_text()
    node.engine.start()
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)


def serves(lab: Lab) -> bool:
    with Conversation.open(lab, "ipv4") as client:
        return client.ask(get("/1k.html")).status == 200


def test_agent_is_ended_with_keep_the_next_one_is_not_accelerated_what_is_left_is_ended(mortal_lab: Lab) -> None:
    """Nobody would pass its packets on."""
    node = mortal_lab.backends[0]
    node.engine.stop()
    arguments = [str(each) for each in node.engine.program.arguments]
    file = Path(arguments[arguments.index("-c") + 1])
    own = file.read_text()
    with started(node, "--keep") as process:
        assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
        with Conversation.open(mortal_lab, "ipv4", receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
            client.send(get("/10m.html"))
            client.exactly(FIRST_OCTETS)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert sockets_at(node) != []
            file.write_text(own.replace("accelerate = require", "accelerate = off"))
            try:
                with started(node):
                    assert (
                        "ended connections that an earlier process let the kernel carry: 1"
                        in (node.directory / "by-hand.log").read_text()
                    )
                    assert wait_until(lambda: sockets_at(node) == [], PATIENCE_S)  # the probe has some for a moment
                    assert pinned(node, "be") == []
            finally:
                file.write_text(own)
    node.engine.start()
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)


@pytest.mark.parametrize("lost", ["all", "terms"])
def test_agent_is_killed_what_it_pinned_is_lost_or_another_versions_its_connections_are_ended(
    mortal_lab: Lab, family: Family, lost: str
) -> None:
    """What arrives for them would come to nobody, and their ports to no other connection."""
    node = mortal_lab.backends[0]
    assert wait_until(lambda: sockets_at(node) == [], PATIENCE_S)
    with Conversation.open(mortal_lab, family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        node.engine.kill()
        assert sockets_at(node) != []
        for each in map(Path, pinned(node, "be")):
            if lost in ("all", each.name) and not each.is_mount():
                each.unlink()
        node.engine.start()
        assert wait_until(lambda: sockets_at(node) == [], PATIENCE_S)  # the probe has some for a moment
        log = node.engine.log.read_text()
        assert "ended connections that an earlier process let the kernel carry: 1" in log
        with pytest.raises(ConnectionResetError):
            client.rest()
        port = client.port
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
    assert wait_until(lambda: sockets_at(node) == [], PATIENCE_S)
    with all_by_the_kernel(mortal_lab, 1), Conversation.open(mortal_lab, family, port=port) as client:
        assert client.ask(get("/1k.html")).sha256 == digest(mortal_lab, "1k.html")


def test_agent_is_killed_the_next_one_has_another_mark_what_bears_the_old_one_is_ended(mortal_lab: Lab) -> None:
    """No program would know its packets."""
    node = mortal_lab.backends[0]
    arguments = [str(each) for each in node.engine.program.arguments]
    file = Path(arguments[arguments.index("-c") + 1])
    own = file.read_text()
    with Conversation.open(mortal_lab, "ipv4", receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        node.engine.kill()
        file.write_text(f"{own}kernel_mark = 0x5555\n")
        try:
            with started(node):
                assert (
                    "ended connections that an earlier process let the kernel carry: 1"
                    in (node.directory / "by-hand.log").read_text()
                )
                assert wait_until(lambda: sockets_at(node) == [], PATIENCE_S)  # the probe has some for a moment
                assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
        finally:
            file.write_text(own)
            node.engine.start()


def test_agent_is_ended_its_connections_are_reset_and_the_host_is_as_before(mortal_lab: Lab, family: Family) -> None:
    node = mortal_lab.backends[0]
    node.engine.stop()
    before = host_state.of_node(node)
    node.engine.start()
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
    with Conversation.open(mortal_lab, family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        assert "tcp_fwmark_accept = 1" in host_state.of_node(node)
        assert node.engine.stop() == 0
        with pytest.raises(ConnectionResetError):
            client.rest()
    assert host_state.of_node(node) == before
    assert [each for each in pinned_below(node.directory / "state") if each.suffix != ".lock"] == []
    node.engine.start()


def test_agent_was_killed_clean_leaves_nothing(mortal_lab: Lab) -> None:
    node = mortal_lab.backends[0]
    node.engine.stop()
    before = host_state.of_node(node)
    node.engine.start()
    node.engine.kill()
    assert host_state.of_node(node) != before
    program = node.engine.program
    done = node.run([*program.arguments, "--clean"], environment=program.environment, check=True)
    assert "the change of ipv4/tcp_fwmark_accept" in done.stdout
    assert "kernel" in done.stdout
    assert host_state.of_node(node) == before
    node.engine.start()
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)


def test_agent_was_killed_during_a_download_clean_ends_it_and_the_client_hears_of_it(
    mortal_lab: Lab, family: Family
) -> None:
    node = mortal_lab.backends[0]
    program = node.engine.program
    with Conversation.open(mortal_lab, family, receive_buffer_octets=SMALL_WINDOW_OCTETS) as client:
        client.send(get("/10m.html"))
        client.exactly(FIRST_OCTETS)
        node.engine.kill()
        assert sockets_at(node) != []
        done = node.run([*program.arguments, "--clean"], environment=program.environment, check=True)
        assert "be: ended connections that the kernel carried: 1\n" in done.stdout
        assert sockets_at(node) == []
        with pytest.raises(ConnectionResetError):
            client.rest()
    node.engine.start()
    assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)


# Where the kernel cannot

MASKED = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin")


def test_right_is_missing_and_required_start_fails_and_says_which(mortal_lab: Lab) -> None:
    node = mortal_lab.backends[0]
    node.engine.stop()
    before = host_state.of_node(node)
    with started(node, before=MASKED) as process:
        assert process.wait(PATIENCE_S) == 2
    (line,) = (node.directory / "by-hand.log").read_text().splitlines()
    assert line.startswith("be: accelerate = require: ")
    assert "CAP_BPF missing" in line
    assert host_state.of_node(node) == before
    node.engine.start()


def test_right_is_missing_and_auto_agent_adopts_and_says_why(mortal_lab: Lab, tmp_path: Path, family: Family) -> None:
    node = mortal_lab.backends[0]
    node.engine.stop()
    arguments = [str(each) for each in node.engine.program.arguments]
    file = Path(arguments[arguments.index("-c") + 1])
    own = file.read_text()
    file.write_text(own.replace("accelerate = require", "accelerate = auto"))
    try:
        with started(node, before=MASKED):
            log = (node.directory / "by-hand.log").read_text()
            assert len([line for line in log.splitlines() if "not accelerated, " in line and "CAP_BPF" in line]) == 1
            assert wait_until(lambda: serves(mortal_lab), PATIENCE_S)
            with Conversation.open(mortal_lab, family) as client:
                assert client.ask(get("/1m.html")).sha256 == digest(mortal_lab, "1m.html")
    finally:
        file.write_text(own)
        node.engine.start()
