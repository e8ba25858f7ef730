"""A node as a container: who it is, what it says, how it ends, and how it is when something in it hangs or dies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tcpha.lab.waiting import wait_until
from tests.compose.cluster import NODES, SERVICES, Cluster
from tests.compose.engine import Engine, EngineError

pytestmark = pytest.mark.compose

LIMIT_S = 60.0
SECRET = "/var/lib/tcpha-secret/secret"
VARIABLES = {
    "TCPHA_RADDR": "192.0.2.23",
    "TCPHA_VADDR": "192.0.2.36",
    "TCPHA_SERVERS": "192.0.2.33",
    "TCPHA_RULES": "192.0.2.33 .*",
}
NET_ADMIN, NET_BIND_SERVICE, NET_RAW = 1 << 12, 1 << 10, 1 << 13
"""capabilities(7)."""
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID"]


def test_node_runs_agent_and_server_have_no_rights_but_what_the_agent_needs(cluster: Cluster) -> None:
    for service, command, wanted in (
        ("fe", "-m tcpha.fe", NET_ADMIN | NET_BIND_SERVICE | NET_RAW),
        ("be1", "-m tcpha.be", NET_ADMIN | NET_BIND_SERVICE | NET_RAW),
        ("be1", "nginx: ", 0),
    ):
        pids = cluster.pids(service, command)
        assert pids != []
        for pid in pids:
            fields = cluster.execute(service, "cat", f"/proc/{pid}/status").splitlines()
            status = {name: value.split() for name, _, value in (line.partition(":") for line in fields)}
            assert "0" not in status["Uid"]
            assert int(status["CapEff"][0], 16) == wanted
            assert status["NoNewPrivs"] == ["1"]


def test_server_cannot_read_the_secret_agent_reads_its_own_copy_only(cluster: Cluster) -> None:
    for user in ("www-data", "tcpha"):
        with pytest.raises(EngineError, match="Permission denied"):
            cluster.execute("be1", "cat", SECRET, user=user)
    with pytest.raises(EngineError, match="Permission denied"):
        cluster.execute("be1", "cat", "/run/tcpha/secret", user="www-data")
    assert cluster.execute("be1", "cat", "/run/tcpha/secret", user="tcpha")


def test_secret_is_shared_and_stands_in_no_log_environment_or_command_line(cluster: Cluster) -> None:
    secrets = {cluster.execute(node, "cat", SECRET) for node in NODES}
    assert len(secrets) == 1
    key = secrets.pop().split()[1]
    assert len(key) == 64
    for node in NODES:
        assert key not in json.dumps(cluster.inspect(node))
        assert key not in cluster.logs(node)
        commands = cluster.read_outside(node, "cmdline")
        assert [True for words in commands if f"-m\0tcpha.{node[:2]}\0" in words]
        assert bool([True for words in commands if "nginx" in words]) == (node != "fe")
        variables = cluster.read_outside(node, "environ")
        assert len([True for each in variables if "TCPHA_VADDR=" in each]) >= 2  # process 1, the agent
        assert not [text for text in (*commands, *variables) if key in text]


def test_nothing_of_the_cluster_is_privileged(cluster: Cluster) -> None:
    for node in NODES:
        host = cluster.inspect(node)["HostConfig"]
        assert not host["Privileged"]
        assert host["ReadonlyRootfs"]
        assert sorted(name.removeprefix("CAP_") for name in host["CapAdd"]) == CAPABILITIES
    client = cluster.inspect("client")
    assert client["HostConfig"]["CapAdd"] is None
    for service in SERVICES:
        host = cluster.inspect(service)["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert client["Config"]["User"] == "nobody"


def test_signal_for_counters_comes_the_agent_logs_them(cluster: Cluster) -> None:
    for node, name in (("fe", "handoffs"), ("be1", "adopted")):
        cluster.compose("kill", "-s", "SIGUSR1", node)
        assert wait_until(lambda node=node, name=name: f'"{name}": ' in cluster.logs(node), LIMIT_S)  # type: ignore[misc]


def test_server_is_asked_to_reload_by_the_containers_signal_it_does_and_goes_on(cluster: Cluster) -> None:
    before = set(cluster.pids("be1", "nginx: worker"))
    cluster.compose("kill", "-s", "SIGHUP", "be1")
    assert wait_until(lambda: not before & set(cluster.pids("be1", "nginx: worker")), LIMIT_S)
    assert wait_until(lambda: cluster.answers("/page.html", "be1"), LIMIT_S)


def restarts(cluster: Cluster, service: str) -> int:
    count: int = cluster.inspect(service)["RestartCount"]
    return count


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("-m tcpha.be", "container: the agent ended by signal 9: stopping"),
        ("nginx: master", "container: the server ended by signal 9: stopping"),
    ],
)
def test_process_of_a_back_end_dies_the_container_says_so_ends_and_is_started_again(
    cluster: Cluster, command: str, said: str
) -> None:
    before = restarts(cluster, "be1")
    cluster.compose("kill", "-s", "SIGUSR1", "be1")  # no engine may take this for a wish that it end
    [pid] = cluster.pids("be1", command)
    cluster.execute("be1", "sh", "-c", f"kill -KILL {pid}")
    assert wait_until(lambda: restarts(cluster, "be1") == before + 1, LIMIT_S)
    assert said in cluster.logs("be1").splitlines()
    assert wait_until(lambda: cluster.answers("/page.html", "be1"), LIMIT_S)
    cluster.await_health("be1")


def test_agent_hangs_the_health_check_fails_and_passes_again_when_it_goes_on(cluster: Cluster) -> None:
    [pid] = cluster.pids("be2", "-m tcpha.be")
    cluster.execute("be2", "sh", "-c", f"kill -STOP {pid}")
    try:
        cluster.await_health("be2", "unhealthy")
        last = cluster.inspect("be2")["State"]["Health"]["Log"][-1]["Output"]
        assert "wait unread" in last
    finally:
        cluster.execute("be2", "sh", "-c", f"kill -CONT {pid}")
    cluster.await_health("be2")
    assert wait_until(lambda: cluster.answers("/picture.jpg", "be2"), LIMIT_S)


def test_cluster_is_stopped_every_node_ends_in_time_with_status_0(cluster: Cluster) -> None:
    cluster.compose("stop", limit_s=60)
    for node in NODES:
        state = cluster.inspect(node)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        lines = cluster.logs(node).splitlines()
        assert "container: SIGTERM: stopping" in lines
        assert lines[-1].endswith(f"{node[:2]} stopped")
    cluster.compose("start", limit_s=120)
    assert wait_until(lambda: cluster.answers("/page.html", "be1"), LIMIT_S)
    for node in NODES:
        cluster.await_health(node)


# One container alone


def run(engine: Engine, *words: str, variables: dict[str, str] | None = None, options: Sequence[str] = ()) -> str:
    """What a container said that ends by itself. Raises: EngineError."""
    given = [word for name, value in (variables or {}).items() for word in ("--env", f"{name}={value}")]
    return engine.docker("run", "--rm", "--network", "none", *options, *given, "tcpha", *words)


@pytest.fixture
def mounted(engine: Engine, tmp_path: Path) -> list[str]:
    """Options that mount a configuration, and a secret that belongs to a user of the host."""
    lines = [f"{key} = {value}" for key, value in (("raddr", "192.0.2.23"), ("vaddr", "192.0.2.36"))]
    lines += ["server = 192.0.2.33 666", "rule = 192.0.2.33 .*"]
    (tmp_path / "tcphafe.conf").write_text("".join(f"{line}\n" for line in lines))
    secret = tmp_path / "secret"
    secret.write_text("0 " + "ab" * 32 + "\n")
    secret.chmod(0o600)
    return [
        *("--volume", f"{tmp_path}/tcphafe.conf:/etc/tcpha/tcphafe.conf:ro"),
        *("--volume", f"{secret}:/etc/tcpha/secret:ro"),
    ]


def test_configuration_is_mounted_it_is_used(engine: Engine, mounted: list[str]) -> None:
    assert run(engine, "--check", "fe", options=mounted) == "container: configuration ok\n"


def test_configuration_is_mounted_and_said_by_variables_too_container_refuses(
    engine: Engine, mounted: list[str]
) -> None:
    with pytest.raises(EngineError, match="exit status 2\ncontainer: TCPHA_RADDR: is set, but there is /etc/tcpha"):
        run(engine, "--check", "fe", variables=VARIABLES, options=mounted)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"TCPHA_VADDR": "192.0.2"}, "container: TCPHA_VADDR:1: '192.0.2' is no IPv4 or IPv6 address"),
        ({"TCPHA_RULES": "192.0.2.33 .*\n192.0.2.34 x"}, "container: TCPHA_RULES:2: "),
        ({"TCPHA_RADDR": ""}, "container: TCPHA_RADDR: not set"),
        ({"TCPHA_RULE": "192.0.2.33 .*"}, "container: TCPHA_RULE: no such variable: did you mean TCPHA_RULES?"),
        ({"TCPHA_SECRET": "x"}, "container: TCPHA_SECRET: a secret is never taken from the environment"),
        ({}, "container: /etc/tcpha/secret: no such file"),
    ],
)
def test_variable_is_at_fault_container_names_it_and_ends_with_status_2(
    engine: Engine, changed: dict[str, str], said: str
) -> None:
    with pytest.raises(EngineError) as caught:
        run(engine, "fe", variables=VARIABLES | changed)
    *_, command, line = str(caught.value).splitlines()
    assert command.endswith("exit status 2")
    assert line.startswith(said)


def test_server_cannot_be_run_container_says_which_and_ends(engine: Engine) -> None:
    made = {"TCPHA_SECRET_FILE": "/tmp/secret", "TCPHA_MAKE_SECRET": "yes"}
    variables = VARIABLES | made | {"TCPHA_RADDR": "192.0.2.33", "TCPHA_FE": "192.0.2.23"}
    with pytest.raises(EngineError) as caught:
        run(engine, "be", "no-such-server", variables=variables, options=["--cap-add=NET_ADMIN", "--cap-add=NET_RAW"])
    command, _, said = str(caught.value).partition("\n")
    assert command.endswith("exit status 2")
    assert "container: no-such-server: no such program in this image" in said.splitlines()
