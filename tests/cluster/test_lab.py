"""The lab itself: network, servers, entering, configurations. Without the engine, which has tests of its own."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tcpha.errors import ConfigError, StartError
from tcpha.lab import documents, namespaces
from tcpha.lab.addressing import SWITCH
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import MakeLab
from tests.cluster.lab_sight import get, traces

pytestmark = pytest.mark.cluster

# The network


@pytest.mark.parametrize("address", ["198.18.0.33", "[fd00:198:18::33]", "198.18.0.38", "[fd00:198:18::38]"])
def test_standing_lab_client_asks_a_server_directly_sees_its_own_address(plain_lab: Lab, address: str) -> None:
    expected = "fd00:198:18::10" if "[" in address else "198.18.0.10"
    assert get(plain_lab, f"http://{address}/client") == expected


def test_standing_lab_nodes_have_no_route_outside(plain_lab: Lab) -> None:
    for node in plain_lab.nodes.values():
        with node.enter():
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probe, pytest.raises(OSError, match="unreachable"):
            probe.connect(("192.0.2.1", 9))


def test_standing_lab_ipv6_addresses_are_usable_at_once(plain_lab: Lab) -> None:
    nodad, tentative, permanent = 0x02, 0x40, 0x80
    with plain_lab.fe.enter():
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    flags = {line.split()[0]: int(line.split()[4], 16) for line in lines if line.endswith("eth0")}
    assert len(flags) == 2
    assert all(value & permanent and not value & tentative for value in flags.values())
    assert flags[plain_lab.fe.ipv6.packed.hex()] & nodad


def test_standing_lab_unused_address_nobody_answers(plain_lab: Lab) -> None:
    curl = plain_lab.client.run(["curl", "-sS", "--max-time", "10", f"http://{plain_lab.plan.uaddr4}/"])
    assert curl.returncode == 7, curl.stderr


def test_standing_lab_switch_asks_no_firewall_about_what_it_forwards(plain_lab: Lab) -> None:
    with plain_lab.nodes[SWITCH].enter():
        values = {path.name: path.read_text() for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*")}
    assert set(values.values()) <= {"0\n"}, values


def test_thread_inside_a_node_leaves_returns_home(plain_lab: Lab) -> None:
    home = namespaces.own_identity()
    with plain_lab.client.enter():
        assert namespaces.own_identity() == namespaces.identity(plain_lab.client.namespace)
        with plain_lab.fe.enter():
            assert namespaces.own_identity() == namespaces.identity(plain_lab.fe.namespace)
        assert namespaces.own_identity() == namespaces.identity(plain_lab.client.namespace)
    assert namespaces.own_identity() == home


def test_thread_inside_a_node_raises_returns_home(plain_lab: Lab) -> None:
    home = namespaces.own_identity()
    with pytest.raises(ZeroDivisionError), plain_lab.client.enter():
        raise ZeroDivisionError
    assert namespaces.own_identity() == home


# The servers


@pytest.mark.parametrize("name", [*documents.SIZES_OCTETS, "1k.jpg", "1k.html", "100m.jpg"])
def test_server_get_a_document_answers_the_same_octets_everywhere(plain_lab: Lab, name: str) -> None:
    octets = (plain_lab.documents / name).read_bytes()
    assert len(octets) == documents.SIZES_OCTETS[name.partition(".")[0]]
    expected = hashlib.sha256(octets).hexdigest()
    for node in plain_lab.backends:
        curl = plain_lab.client.run(["curl", "-sS", f"http://{node.ipv4}/{name}"], text=False, check=True)
        assert hashlib.sha256(curl.stdout).hexdigest() == expected


@pytest.mark.parametrize(
    ("path", "status"), [("/1k", 200), ("/client", 200), ("/sink/count", 200), ("/absent", 404), ("/sink", 404)]
)
def test_server_any_request_answers_with_the_name_of_its_node(plain_lab: Lab, path: str, status: int) -> None:
    for node in plain_lab.backends:
        head = get_head(plain_lab, f"http://{node.ipv4}{path}")
        assert f" {status} " in head.splitlines()[0]
        assert f"Server-Node: {node.name}" in head.splitlines()


def test_server_malformed_request_answers_with_the_name_of_its_node(plain_lab: Lab) -> None:
    with plain_lab.client.enter():
        peer = socket.create_connection((str(plain_lab.backends[1].ipv4), 80), timeout=10)
    with peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nServer-Node: be2\r\n" in answer


def test_server_head_of_15_kilobytes_is_taken(plain_lab: Lab) -> None:
    url = f"http://{plain_lab.backends[0].ipv4}/1"
    curl = plain_lab.client.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X: {'x' * 15000}", url]
    )
    assert curl.stdout == "200"


@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding: chunked"])
def test_server_post_to_the_sink_answers_the_digest_and_counts(plain_lab: Lab, framing: str) -> None:
    node = plain_lab.backends[0]
    before = int(get(plain_lab, f"http://{node.ipv4}/sink/count"))
    octets = os.urandom(3_000_001)
    header = [] if framing == "Content-Length" else ["-H", framing]
    curl = plain_lab.client.run(
        ["curl", "-sS", *header, "--data-binary", "@-", f"http://{node.ipv4}/sink"], input=octets, check=True
    )
    assert curl.stdout == hashlib.sha256(octets).hexdigest() + "\n"
    assert int(get(plain_lab, f"http://{node.ipv4}/sink/count")) == before + 1


def test_server_request_is_logged_with_the_peers_address_and_port(plain_lab: Lab) -> None:
    node = plain_lab.backends[0]
    with plain_lab.client.enter():
        peer = socket.create_connection((str(node.ipv4), 80), timeout=10)
    with peer:
        host, port = peer.getsockname()
        peer.sendall(b"GET /0?logged HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.recv(65536)
    line = re.compile(rf"^{re.escape(host)} {port} .* 200 0 \"GET /0\?logged HTTP/1\.1\"$", re.MULTILINE)
    assert wait_until(lambda: line.search(node.access_log.read_text()) is not None, 5.0)


def test_server_killed_and_started_serves_again(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, engine=False)
    node = lab.backends[0]
    node.server.kill()
    assert lab.client.run(["curl", "-sS", f"http://{node.ipv4}/1"]).returncode == 7
    node.server.start()
    node.sink.kill()
    node.sink.start()
    assert get(lab, f"http://{node.ipv4}/sink/count") == "0\n"
    node.server.restart()
    assert get(lab, f"http://{node.ipv4}/client") == str(lab.client.ipv4)


def test_lab_with_a_server_of_the_users_runs_it_in_each_back_end(make_lab: MakeLab) -> None:
    server = f"{sys.executable} -m http.server --bind 0.0.0.0 80"
    lab = make_lab(backends=3, server=f"sh -c 'cd $TCPHA_DOCUMENTS && exec {server}'", engine=False)
    assert [str(node.ipv4) for node in lab.backends] == ["198.18.0.33", "198.18.0.38", "198.18.0.39"]
    for node in lab.backends:
        curl = lab.client.run(["curl", "-sS", f"http://{node.ipv4}/1k"], text=False, check=True)
        assert curl.stdout == (lab.documents / "1k").read_bytes()


def test_lab_without_servers_nobody_listens(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, server=None, engine=False)
    assert lab.client.run(["curl", "-sS", f"http://{lab.backends[0].ipv4}/1"]).returncode == 7
    with pytest.raises(StartError, match="be1 has no server"):
        lab.backends[0].server.start()


# The configurations that are written for the engine


def test_lab_without_engine_writes_its_configurations_all_the_same(plain_lab: Lab) -> None:
    front, back = (
        node.directory / f"tcpha{role}.conf" for node, role in ((plain_lab.fe, "fe"), (plain_lab.backends[1], "be"))
    )
    assert "raddr = 198.18.0.23\n" in front.read_text()
    assert "raddr = 198.18.0.38\n" in back.read_text()
    secret = plain_lab.directory / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"1 [0-9a-f]{64}\n", secret.read_text())
    assert f"secret = {secret}\n" in front.read_text()
    assert f"secret = {secret}\n" in back.read_text()


def test_lab_with_settings_writes_them_in_place_of_its_own(make_lab: MakeLab) -> None:
    settings = Settings(both=("rule = 198.18.0.33 x",), fe=("log = debug",))
    lab = make_lab(backends=1, server=None, engine=False, settings=settings)
    text = (lab.fe.directory / "tcphafe.conf").read_text()
    assert [line for line in text.splitlines() if line.startswith("rule")] == ["rule = 198.18.0.33 x"]
    assert "log = debug\n" in text
    assert "log = debug\n" not in (lab.backends[0].directory / "tcphabe.conf").read_text()


def test_lab_with_an_unreadable_file_names_it_and_leaves_nothing(lab_name: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent.conf"
    with pytest.raises(ConfigError, match=r"absent\.conf: cannot be read"):
        Lab(lab_name).up(server=None, be_conf=absent)
    assert traces(lab_name) == []


def get_head(lab: Lab, url: str) -> str:
    return lab.client.run(["curl", "-sS", "-o", "/dev/null", "-D", "-", url], check=True).stdout
