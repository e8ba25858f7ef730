"""The cluster of docker-compose.yml serves: who answers, which way, what survives the death of a container."""

from __future__ import annotations

import hashlib
import re

import pytest

from tcpha.lab.waiting import wait_until
from tests.compose.cluster import CLIENT, NODES, SERVICES, VIP, Cluster
from tests.compose.conftest import PICTURE_OCTETS

pytestmark = pytest.mark.compose

LIMIT_S = 30.0


def test_cluster_comes_up_every_health_check_passes(cluster: Cluster) -> None:
    for service in SERVICES:
        cluster.await_health(service)


def test_rights_for_the_kernel_fast_path_are_missing_each_node_says_so_once_and_goes_on(cluster: Cluster) -> None:
    for node in NODES:
        cluster.await_health(node)
        [line] = [line for line in cluster.logs(node).splitlines() if "accelerate" in line]
        assert "not accelerated" in line
    assert cluster.fetch("/page.html").status == 200


def test_request_goes_out_by_compose_exec_the_back_end_the_rules_name_answers(cluster: Cluster) -> None:
    for path, node in (("/page.html", "be1"), ("/picture.jpg", "be2")):
        head = cluster.compose("exec", "-T", "client", "curl", "-sSi", "-m", "5", f"http://{VIP}{path}")
        assert head.startswith("HTTP/1.1 200 ")
        assert f"Server-Node: {node}\n" in head


def test_every_request_goes_by_its_own_target(cluster: Cluster) -> None:
    wanted = {"/page.html": "be1", "/picture.jpg": "be2", "/client": "be1", "/client?jpg": "be2", "/": "be1"}
    assert {path: cluster.fetch(path).node for path in wanted} == wanted


def test_server_is_asked_who_the_client_is_it_names_the_clients_own_address(cluster: Cluster) -> None:
    assert [cluster.fetch(path).body for path in ("/client", "/client?jpg")] == [CLIENT, CLIENT]


def test_machine_that_runs_the_containers_is_a_client_too(cluster: Cluster) -> None:
    words = ["run", "--rm", "--network", "host", "--entrypoint", "curl", "tcpha"]
    assert cluster.engine.docker(*words, "-sS", "-m", "5", f"http://{VIP}/client") == "198.18.36.1"


@pytest.mark.parametrize(("path", "node"), [("/large.bin", "be1"), ("/large.jpg", "be2")])
def test_ten_megabytes_arrive_identical_and_do_not_pass_the_front_end(cluster: Cluster, path: str, node: str) -> None:
    wanted = hashlib.sha256((cluster.engine.directory / "documents" / path[1:]).read_bytes()).hexdigest()
    before = {service: cluster.octets_sent(service) for service in NODES}
    script = f"curl -sS -m 20 http://{VIP}{path} | sha256sum"
    assert cluster.execute("client", "sh", "-c", script).split()[0] == wanted
    sent = {service: cluster.octets_sent(service) - before[service] for service in NODES}
    assert sent[node] >= PICTURE_OCTETS
    # What it passes on are the client's acknowledgements.
    assert sent["fe"] < PICTURE_OCTETS / 8


def test_responses_were_sent_none_came_by_the_front_end(cluster: Cluster) -> None:
    cluster.fetch("/page.html")
    rules = cluster.execute("fe", "iptables-save", "-c", "-t", "raw").splitlines()
    counting = [rule for rule in rules if f"-s {VIP}/32" in rule and "PREROUTING" in rule]
    assert [rule.partition("]")[0] for rule in counting] == ["[0:0"]


def test_second_request_of_a_connection_needs_no_second_connection(cluster: Cluster) -> None:
    words = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"]
    shown = ["-w", "%{http_code} %{num_connects}\n"]
    output = cluster.execute("client", *words, *shown, *[f"http://{VIP}/page.html"] * 3)
    assert output.splitlines() == ["200 1", "200 0", "200 0"]


def test_clients_load_the_cluster_every_request_is_answered(cluster: Cluster) -> None:
    output = cluster.execute("client", "wrk", "-t1", "-c8", "-d2s", "--timeout", "5s", f"http://{VIP}/page.html")
    done = re.search(r"(\d+) requests in", output)
    assert done is not None
    assert int(done[1]) > 100
    assert "Socket errors" not in output
    assert "Non-2xx" not in output


def test_front_end_is_killed_and_started_new_connections_work_again(cluster: Cluster) -> None:
    cluster.compose("kill", "-s", "KILL", "fe")
    assert cluster.fetch("/page.html").status == 0
    cluster.compose("start", "fe")
    for path, node in (("/page.html", "be1"), ("/picture.jpg", "be2")):
        assert wait_until(lambda path=path, node=node: cluster.answers(path, node), LIMIT_S)  # type: ignore[misc]
    cluster.await_health("fe")


def test_back_end_is_killed_the_other_goes_on_and_after_a_start_both_do(cluster: Cluster) -> None:
    cluster.compose("kill", "-s", "KILL", "be1")
    assert wait_until(lambda: cluster.fetch("/page.html").status == 503, LIMIT_S)
    assert cluster.answers("/picture.jpg", "be2")
    cluster.compose("start", "be1")
    assert wait_until(lambda: cluster.answers("/page.html", "be1"), LIMIT_S)
    assert cluster.answers("/picture.jpg", "be2")
    cluster.await_health("be1")
