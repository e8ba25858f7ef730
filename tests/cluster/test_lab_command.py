"""Bringing a lab up, running commands in it, taking it down whatever happened before. Mostly without the engine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.errors import StartError
from tcpha.lab import documents, namespaces
from tcpha.lab.addressing import namespace_of, plan
from tcpha.lab.cluster import RUN_DIRECTORY, Lab, namespaces_of
from tcpha.lab.daemon import DaemonError
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import MakeLab
from tests.cluster.lab_sight import COMMAND, catches, command, get, get_octets, living_in, processes_naming, traces

pytestmark = pytest.mark.cluster

# up, exec, down, status


def test_up_by_the_command_exec_and_down_by_the_command(lab_name: str) -> None:
    up = command("up", "--name", lab_name, "--engine", "none", "--backends", "1")
    assert up.returncode == 0, up.stderr
    for text in ("198.18.0.36", "fd00:198:18::36", "198.18.0.33", "fd00:198:18::33", f"{lab_name}-be1"):
        assert text in up.stdout
    status = command("ls")
    assert f"lab {lab_name}," in status.stdout
    curl = command("exec", "--name", lab_name, "client", "--", "curl", "-sS", "http://198.18.0.33/client")
    assert (curl.returncode, curl.stdout) == (0, "198.18.0.10")
    attached = Lab.attach(lab_name)
    processes = living_in(attached)
    assert len(processes) == 3  # nginx, its worker, the sink
    down = command("down", "--name", lab_name)
    assert down.returncode == 0, down.stderr
    assert traces(lab_name) == []
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in processes)
    assert f"lab {lab_name}," not in command("status").stdout


def test_reader_of_up_goes_it_ends_as_if_by_sigpipe_without_a_word_and_the_lab_stands(lab_name: str) -> None:
    words = [*COMMAND, "up", "--name", lab_name, "--engine", "none", "--backends", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 128 + signal.SIGPIPE
    status = command("status", "--name", lab_name)
    assert re.search(r"^ +be1 .* sink  server$", status.stdout, re.M), status
    assert command("down", "--name", lab_name).returncode == 0
    assert traces(lab_name) == []


@pytest.mark.usefixtures("_protocols")
def test_up_with_protocols_by_the_command_all_are_served_and_nothing_stays(lab_name: str) -> None:
    up = command("up", "--name", lab_name, "--protocols", "--engine", "none", "--backends", "1")
    assert up.returncode == 0, up.stderr
    lab = Lab.attach(lab_name)
    assert re.search(r"^ +be1 .* sink  echo  redis  server$", up.stdout, re.M)
    assert len(living_in(lab)) == 5  # nginx, its worker, the sink, the echo, Redis
    node = lab.backends[0]
    checked = ["--cacert", str(lab.certificate), "-w", "%{stderr}%{http_version}"]
    for target, words in (
        (f"https://{node.ipv4}/client", ["--http2"]),
        (f"https://[{node.ipv6}]/client", ["--http1.1"]),
        (f"http://{node.ipv4}:8080/client", ["--http2-prior-knowledge"]),
        (f"http://[{node.ipv6}]:8080/client", ["--http2-prior-knowledge"]),
    ):
        curl = lab.client.run(["curl", "-sS", *checked, *words, target], check=True)
        assert curl.stdout == str(lab.client.ipv6 if "[" in target else lab.client.ipv4)
        assert curl.stderr == ("1.1" if "--http1.1" in words else "2")
    for address in (node.ipv4, node.ipv6):
        assert lab.client.run(["redis-cli", "-h", str(address), "ping"], check=True).stdout == "PONG\n"
    assert lab.certificate.with_suffix(".key").stat().st_mode & 0o077 == 0
    node.daemons["redis"].restart()
    assert lab.client.run(["redis-cli", "-h", str(node.ipv4), "ping"], check=True).stdout == "PONG\n"
    assert command("down", "--name", lab_name).returncode == 0
    assert traces(lab_name) == []
    assert processes_naming(str(lab.directory)) == []


def test_up_routed_by_the_command_status_exec_and_down_by_later_ones(lab_name: str) -> None:
    words = ["--routed", "--backends", "3", "--client-mtu", "1400", "--engine", "none"]
    up = command("up", "--name", lab_name, *words)
    assert up.returncode == 0, up.stderr
    assert re.search(r"^ +VIP +198\.18\.0\.36 +fd00:198:18::36$", up.stdout, re.M)
    assert re.search(r"^ +be3 +198\.18\.1\.39 +fd00:198:18:1::39 ", up.stdout, re.M)
    router = re.findall(r"^ +router +198\.18\.0\.1 .* fe0$|^ +198\.18\.[12]\.1 .*$", up.stdout, re.M)
    assert [line.split()[-1] for line in router] == ["fe0", "be0", "1400"]
    assert up.stdout in command("status").stdout
    routes = command("exec", "--name", lab_name, "router", "--", "ip", "route", "get", "198.18.2.10")
    assert "dev client0" in routes.stdout
    assert "mtu lock 1400" in routes.stdout
    curl = command("exec", "--name", lab_name, "client", "--", "curl", "-sS", "http://198.18.1.39/client")
    assert (curl.returncode, curl.stdout) == (0, "198.18.2.10")
    assert Lab.attach(lab_name).plan == plan(3, routed=True, client_mtu_octets=1400)
    down = command("down", "--name", lab_name)
    assert down.returncode == 0, down.stderr
    assert traces(lab_name) == []


def test_up_routed_with_the_users_files_completes_them_for_a_router(lab_name: str, tmp_path: Path) -> None:
    front, back = tmp_path / "fe.conf", tmp_path / "be.conf"
    front.write_text("raddr = 198.18.0.23\n")
    back.write_text("raddr = 198.18.1.33\n")
    words = ["--routed", "--server", "none", "--engine", "none", "--fe-conf", str(front), "--be-conf", str(back)]
    up = command("up", "--name", lab_name, *words)
    assert up.returncode == 0, up.stderr
    lab = Lab.attach(lab_name)
    assert "\nforward = tunnel\n" in (lab.fe.directory / "tcphafe.conf").read_text()
    assert (lab.backends[1].directory / "tcphabe.conf").read_text().startswith("raddr = 198.18.1.38\n")


def test_up_routed_with_a_server_of_the_users_runs_it_behind_the_router(make_lab: MakeLab) -> None:
    server = f"sh -c 'cd $TCPHA_DOCUMENTS && exec {sys.executable} -m http.server --bind 0.0.0.0 80'"
    lab = make_lab(backends=1, server=server, engine=False, routed=True)
    assert get_octets(lab, "/1k") == (lab.documents / "1k").read_bytes()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["no-such-command-anywhere"], 127),
        (["/"], 126),
    ],
)
def test_exec_command_ends_returns_its_status(plain_lab: Lab, words: list[str], status: int) -> None:
    assert command("exec", "--name", plain_lab.name, "client", "--", *words).returncode == status


def test_exec_streams_pass_through(plain_lab: Lab) -> None:
    words = [*COMMAND, "exec", "--name", plain_lab.name, "be1", "--", "sh", "-c", "cat; echo fault >&2"]
    done = subprocess.run(words, input=b"\x00octets", capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"\x00octets", b"fault\n")


def test_exec_receives_sigterm_passes_it_on(plain_lab: Lab) -> None:
    script = "trap 'exit 3' TERM; echo waiting; while :; do sleep 0.02; done"
    words = [*COMMAND, "exec", "--name", plain_lab.name, "client", "--", "sh", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as execution:
        try:
            assert execution.stdout is not None
            assert execution.stdout.readline() == b"waiting\n"
            # The trap is set, but exec itself may be a moment from passing signals on: it does so before it waits.
            assert wait_until(lambda: catches(execution.pid, signal.SIGTERM), 5.0)
            execution.send_signal(signal.SIGTERM)
            assert execution.wait(10) == 3
        finally:
            execution.kill()


def test_exec_keeps_sys_as_it_is(plain_lab: Lab) -> None:
    mounts = command("exec", "--name", plain_lab.name, "client", "--", "cat", "/proc/self/mountinfo")
    assert mounts.stdout == Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("words", [["be9", "--", "true"], ["switch2", "--", "true"]])
def test_exec_unknown_node_is_a_fault_of_usage(plain_lab: Lab, words: list[str]) -> None:
    done = command("exec", "--name", plain_lab.name, *words)
    assert done.returncode == 2
    assert f"no node '{words[0]}'" in done.stderr


def test_exec_no_such_lab_is_a_fault_of_usage(lab_name: str) -> None:
    done = command("exec", "--name", lab_name, "client", "--", "true")
    assert done.returncode == 2
    assert f"there is no lab {lab_name}" in done.stderr


def test_up_of_a_standing_lab_is_refused_and_harms_it_not(plain_lab: Lab) -> None:
    done = command("up", "--name", plain_lab.name, "--engine", "none")
    assert done.returncode == 2
    assert f"lab {plain_lab.name} stands already" in done.stderr
    with pytest.raises(StartError, match="stands already"), Lab(plain_lab.name) as second:
        second.up(engine=False)
    assert get(plain_lab, "http://198.18.0.33/client") == "198.18.0.10"


def test_up_where_namespaces_remain_is_refused_and_leaves_them(lab_name: str) -> None:
    namespaces.create(namespace_of(lab_name, "be7"))
    with pytest.raises(StartError, match="or remains of it do"):
        Lab(lab_name).up(server=None, engine=False)
    assert namespaces_of(lab_name) == {"be7": namespace_of(lab_name, "be7")}
    assert not (RUN_DIRECTORY / lab_name).exists()


def test_up_with_a_program_that_ends_shows_its_log_and_takes_all_down(lab_name: str) -> None:
    server = "sh -c 'echo line of the log; exit 9'"
    done = command("up", "--name", lab_name, "--engine", "none", "--server", server)
    assert done.returncode == 1
    assert "ended with exit status 9 before it was ready" in done.stderr
    assert "line of the log" in done.stderr
    assert "Traceback" not in done.stderr
    assert traces(lab_name) == []


def test_up_with_a_configuration_the_engine_refuses_shows_why_and_takes_all_down(lab_name: str, tmp_path: Path) -> None:
    file = tmp_path / "tcphafe.conf"
    file.write_text("raddr = nowhere\n")
    done = command("up", "--name", lab_name, "--server", "none", "--fe-conf", str(file))
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"fe ended with exit status \d+ before it was ready; its log ends with:\n +fe: .*raddr", done.stderr
    )
    assert "/fe.log" not in done.stderr, "it is gone"
    assert "Traceback" not in done.stderr
    assert traces(lab_name) == []


def test_up_with_a_program_that_is_not_ready_takes_all_down(lab_name: str) -> None:
    lab = Lab(lab_name)
    with pytest.raises(DaemonError, match=r"was not ready within 0\.3 s"):
        lab.up(backends=1, server="sleep 987654", engine=False, ready_limit_s=0.3)
    assert traces(lab_name) == []
    assert processes_naming("987654") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_interrupted_cleans_up(lab_name: str, number: signal.Signals) -> None:
    # Whoever starts tests in the background has them ignore SIGINT.
    words = ["env", "--default-signal", *COMMAND, "up", "--name", lab_name, "--engine", "none"]
    words += ["--server", "sleep 876543"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        try:
            assert wait_until(lambda: len(processes_naming("sleep\x00876543")) == 2, 30.0)
            up.send_signal(number)
            output, faults = up.communicate(timeout=30)
        finally:
            up.kill()
    assert up.returncode == 128 + number
    assert output == ""
    assert "interrupted" in faults
    assert "Traceback" not in faults
    assert traces(lab_name) == []
    assert processes_naming("sleep\x00876543") == []


def test_two_labs_stand_at_once_and_one_goes(make_lab: MakeLab) -> None:
    first, second = make_lab(backends=1, engine=False), make_lab(backends=1, engine=False)
    digests = [hashlib.sha256(get_octets(lab, "/1k")).digest() for lab in (first, second)]
    assert digests[0] != digests[1]
    first.down()
    assert traces(first.name) == []
    assert hashlib.sha256(get_octets(second, "/1k")).digest() == digests[1]


# status: what has ended


def test_status_after_programs_ended_says_how_and_where_their_logs_are(lab_name: str) -> None:
    assert command("up", "--name", lab_name, "--engine", "none", "--backends", "2").returncode == 0
    first, second = Lab.attach(lab_name).backends
    for daemon, number in ((first.sink, signal.SIGKILL), (second.server, signal.SIGQUIT)):
        pid = daemon.pid
        assert pid is not None
        os.kill(pid, number)
    assert wait_until(lambda: all(one.has_ended and one.how_it_ended for one in (first.sink, second.server)), 5.0)
    status = command("status", "--name", lab_name)
    assert f"  be1: sink ended by signal 9; its log is {first.sink.log}\n" in status.stdout
    assert f"  be2: server ended with exit status 0; its log is {second.server.log}\n" in status.stdout
    assert first.sink.log.exists()
    assert re.search(r"^ +be1 .* server$", status.stdout, re.M)
    assert command("down", "--name", lab_name).returncode == 0
    assert traces(lab_name) == []


def test_status_by_name_shows_that_lab_only(make_lab: MakeLab) -> None:
    labs = [make_lab(backends=1, server=None, engine=False) for _ in range(2)]
    said = command("status", "--name", labs[1].name).stdout
    assert f"lab {labs[1].name}," in said
    assert labs[0].name not in said


def test_up_with_one_of_the_two_files_says_what_the_others_have(lab_name: str, tmp_path: Path) -> None:
    file = tmp_path / "tcphafe.conf"
    file.write_text("raddr = 198.18.0.23\n")
    words = ["--server", "none", "--engine", "none", "--fe-conf", str(file)]
    done = command("up", "--name", lab_name, *words)
    assert done.returncode == 0, done.stderr
    assert "only --fe-conf was given: the back ends have the lab's own file" in done.stderr
    assert "the front end's log warns of it" in done.stderr
    assert "uses no back end" not in done.stderr


def test_up_with_a_file_of_other_rules_the_front_end_warns_and_serves_by_them(lab_name: str, tmp_path: Path) -> None:
    """As the hint says; and with `log = warning` nobody logs that it is ready."""
    file = tmp_path / "tcphafe.conf"
    file.write_text(
        "raddr = 198.18.0.23\nvaddr = 198.18.0.36\nserver = 198.18.0.33 666\nserver = 198.18.0.38 666\n"
        "rule = 198.18.0.38 .*\nlog = warning\n"
    )
    done = command("up", "--name", lab_name, "--fe-conf", str(file))
    assert done.returncode == 0, done.stderr
    lab = Lab.attach(lab_name)
    asked = lab.client.run(["curl", "-s", "-D", "-", "-o", "/dev/null", "http://198.18.0.36/1k.html"])
    assert "Server-Node: be2" in asked.stdout
    log = lab.log("fe").read_text()
    assert "are not those of this front end" in log
    assert "INFO" not in log


# down, whatever happened before


def test_down_of_nothing_is_no_fault(lab_name: str) -> None:
    done = command("down", "--name", lab_name)
    assert (done.returncode, done.stdout) == (0, f"there is no lab {lab_name}\n")


def test_down_after_everything_was_killed_leaves_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(engine=False)
    for pid in living_in(lab):
        os.kill(pid, signal.SIGKILL)
    assert command("down", "--name", lab.name).returncode == 0
    assert traces(lab.name) == []


def test_down_after_its_directory_was_removed_ends_the_processes(make_lab: MakeLab) -> None:
    lab = make_lab(engine=False)
    processes = living_in(lab)
    assert len(processes) == 6
    shutil.rmtree(lab.directory)
    assert command("down", "--name", lab.name).returncode == 0
    assert traces(lab.name) == []
    assert wait_until(lambda: processes_naming(lab.name) == [], 5.0)


def test_down_after_the_directory_of_a_routed_lab_was_removed_leaves_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, server=None, engine=False, routed=True)
    shutil.rmtree(lab.directory)
    found = Lab.attach(lab.name)
    assert found.plan == plan(1, routed=True)
    assert set(found.nodes) == {"client", "fe", "be1", "router", "switch"}
    assert command("down", "--name", lab.name).returncode == 0
    assert traces(lab.name) == []


def test_down_after_up_of_a_routed_lab_was_killed_leaves_nothing(lab_name: str) -> None:
    words = [*COMMAND, "up", "--routed", "--name", lab_name, "--engine", "none", "--server", "sleep 654321"]
    with subprocess.Popen(words) as up:
        try:
            assert wait_until(lambda: len(processes_naming("sleep\x00654321")) == 2, 30.0)
        finally:
            up.kill()
    assert f"lab {lab_name}," in command("status").stdout
    assert command("exec", "--name", lab_name, "router", "--", "true").returncode == 0
    down = command("down", "--name", lab_name)
    assert down.returncode == 0, down.stderr
    assert traces(lab_name) == []
    assert processes_naming("sleep\x00654321") == []


def test_down_of_a_process_that_ignores_sigterm_kills_it(make_lab: MakeLab) -> None:
    lab = make_lab(backends=1, server=None, engine=False)
    script = "trap '' TERM; echo waiting; while :; do sleep 765432; done"
    with lab.client.popen(["sh", "-c", script], stdout=subprocess.PIPE) as stubborn:
        try:
            assert stubborn.stdout is not None
            assert stubborn.stdout.readline() == b"waiting\n"
            lab.down()
            assert stubborn.wait(5) == -signal.SIGKILL
        finally:
            stubborn.kill()
    assert traces(lab.name) == []


def test_down_of_half_built_labs_leaves_nothing(lab_name: str) -> None:
    namespaces.create(namespace_of(lab_name, "switch"))
    Path("/run/netns", namespace_of(lab_name, "be1")).touch()
    (RUN_DIRECTORY / lab_name / "be1").mkdir(parents=True)
    documents.directory_in_memory(lab_name).mkdir()
    assert len(traces(lab_name)) >= 4
    Lab(lab_name).down()
    assert traces(lab_name) == []


def test_down_leaves_labs_and_namespaces_of_similar_names(lab_name: str) -> None:
    similar = [f"{lab_name}-fe-fe", f"{lab_name}x-fe", f"{lab_name}-be0", f"{lab_name}-other"]
    for name in similar:
        namespaces.create(name)
    try:
        namespaces.create(namespace_of(lab_name, "fe"))
        Lab(lab_name).down()
        assert traces(lab_name) == []
        assert set(similar) <= set(namespaces.names())
    finally:
        for name in similar:
            namespaces.remove(name)


def test_lab_up_and_down_leaves_the_host_as_before(lab_name: str) -> None:
    if shutil.which("ip") is None:
        pytest.skip("the program `ip` is not installed")

    def host() -> list[str]:
        queries = (["-br", "addr"], ["-br", "link"], ["rule"], ["-6", "rule"], ["route"], ["-6", "route"])
        shown = [subprocess.run(["ip", *query], capture_output=True, text=True, check=True).stdout for query in queries]
        named = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        # Other tests may have labs of their own meanwhile.
        return [*shown, *(line for line in named.splitlines() if line.startswith(lab_name))]

    before = host()
    lab = Lab(lab_name)
    lab.up(backends=1, engine=False)
    assert host()[: len(before)] == before
    assert len(host()) == len(before) + 4
    lab.down()
    assert host() == before
