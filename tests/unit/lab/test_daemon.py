from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Protocol

import pytest

from tcpha.errors import StartError
from tcpha.lab.daemon import Daemon, DaemonError, Program, await_ready, someone_listens
from tcpha.lab.waiting import wait_until


class MakeDaemon(Protocol):
    def __call__(self, script: str, *, name: str = "program", notifies: bool = False) -> Daemon: ...


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Daemons that run a shell script outside any namespace, killed after the test."""
    with ExitStack() as running:

        def make(script: str, *, name: str = "program", notifies: bool = False) -> Daemon:
            program = Program(name, ["sh", "-c", script], tmp_path, dict(os.environ), notifies=notifies)
            daemon = Daemon(program, nullcontext)
            running.callback(daemon.kill)
            return daemon

        yield make


def test_daemon_started_logs_and_serves(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("echo out; echo ready: yes >&2; exec sleep 60")
    daemon.start(5.0)
    assert daemon.is_running
    assert daemon.log.read_text() == "out\nready: yes\n"


NOTIFY = f"{sys.executable} -c 'from tcpha.net.notify import notify_ready; notify_ready()'"


def test_daemon_that_notifies_serves_without_a_word_in_its_log(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(f"{NOTIFY}; exec sleep 60", notifies=True)
    daemon.start(10.0)
    assert daemon.serves()
    assert daemon.log.read_text() == ""
    daemon.restart(10.0)
    assert daemon.serves()


def test_daemon_that_would_notify_but_only_logs_is_not_ready(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("echo ready; exec sleep 60", notifies=True)
    with pytest.raises(DaemonError, match=r"was not ready within 0\.2 s"):
        daemon.start(0.2)


@pytest.mark.parametrize("octets", [b"STATUS=reading\n", b"READY=0\n", b"NOT_READY=1\n"])
def test_daemon_that_notifies_of_something_else_is_not_ready(make_daemon: MakeDaemon, octets: bytes) -> None:
    script = f"import os, socket; socket.socket(1, 2).sendto({octets!r}, chr(0) + os.environ['NOTIFY_SOCKET'][1:])"
    daemon = make_daemon(
        f'{sys.executable} -c "{script}"; echo sent; exec sleep 60'.replace("\\n", "\\\\n"), notifies=True
    )
    daemon.launch()
    assert wait_until(lambda: "sent" in daemon.log.read_text(), 10.0)
    assert daemon.log.read_text() == "sent\n"
    assert not daemon.serves()


@pytest.mark.parametrize("line", ["already", "readying", "unready"])
def test_daemon_that_logs_another_word_is_not_ready(make_daemon: MakeDaemon, line: str) -> None:
    daemon = make_daemon(f"echo {line}; exec sleep 60")
    with pytest.raises(DaemonError, match=r"was not ready within 0\.2 s"):
        daemon.start(0.2)


def test_daemon_that_ends_early_shows_its_status_and_log(make_daemon: MakeDaemon) -> None:
    with pytest.raises(DaemonError, match=r"ended with exit status 3 before it was ready(?s:.*)line of the log"):
        make_daemon("echo line of the log; exit 3").start(5.0)


def test_daemon_that_is_killed_early_shows_the_signal(make_daemon: MakeDaemon) -> None:
    with pytest.raises(DaemonError, match="ended by signal 9 before it was ready"):
        make_daemon("kill -9 $$").start(5.0)


def test_daemon_running_started_again_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("echo ready; exec sleep 60")
    daemon.start(5.0)
    pid = daemon.pid
    with pytest.raises(StartError, match="runs already"):
        daemon.start(5.0)
    assert daemon.pid == pid


def test_daemon_whose_program_is_absent_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(Program("program", ["/no/such/program"], tmp_path, {}), nullcontext)
    with pytest.raises(StartError, match="/no/such/program cannot be run: No such file"):
        daemon.start(5.0)
    assert not daemon.is_running


def test_daemon_stopped_may_end_in_its_own_way(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.02; done")
    daemon.start(5.0)
    assert daemon.stop() == 4
    assert not daemon.is_running
    assert daemon.log.read_text() == "ready\nbye\n"
    assert daemon.stop() is None


def test_daemon_that_ignores_sigterm_is_killed(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("trap '' TERM; echo ready; while :; do sleep 0.02; done")
    daemon.start(5.0)
    assert daemon.stop(limit_s=0.2) == -signal.SIGKILL
    assert not daemon.is_running


def test_daemon_killed_takes_its_children_along(make_daemon: MakeDaemon) -> None:
    """It returns when they are gone; one that has much memory to give back takes a while."""
    large = (
        f'{sys.executable} -c \'import time; large = b"x" * 300_000_000; print("ready", flush=True); time.sleep(60)\''
    )
    daemon = make_daemon(f"{large} & echo $! >&2; wait")
    daemon.start(10.0)
    child = int(next(each for each in daemon.log.read_text().split() if each.isdigit()))
    assert is_alive(child)
    assert daemon.kill() == -signal.SIGKILL
    assert not is_alive(child)


def test_daemon_restarted_waits_for_a_new_ready(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon('test -e "$0.once" && { echo second; exit 5; }; echo ready; exec sleep 60')
    daemon.start(5.0)
    first = daemon.pid
    daemon.restart(5.0)
    assert daemon.pid != first
    assert daemon.log.read_text() == "ready\nready\n"


def test_daemon_restarted_that_fails_is_not_taken_for_ready(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    daemon = make_daemon(f"test -e {flag} && exit 5; echo ready; exec sleep 60")
    daemon.start(5.0)
    flag.touch()
    with pytest.raises(DaemonError, match="exit status 5"):
        daemon.restart(5.0)


def test_daemon_of_another_process_is_found_and_stopped(make_daemon: MakeDaemon) -> None:
    started, found = make_daemon("echo ready; exec sleep 60"), make_daemon("echo never run")
    started.start(5.0)
    assert found.pid == started.pid
    assert found.stop() is None
    assert not started.is_running


@pytest.mark.parametrize("text", ["", "x", "999999999", "-1"])
def test_daemon_whose_record_is_damaged_is_not_running(make_daemon: MakeDaemon, tmp_path: Path, text: str) -> None:
    daemon = make_daemon("exit")
    (tmp_path / "program.pid").write_text(text)
    assert daemon.pid is None
    assert daemon.stop() is None


def test_daemon_whose_record_names_another_process_leaves_it_alone(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon("exit")
    with subprocess.Popen(["sleep", "60"]) as other:  # leads no group of its own, unlike any daemon
        try:
            (tmp_path / "program.pid").write_text(str(other.pid))
            assert daemon.pid is None
            daemon.stop()
            daemon.kill()
            assert other.poll() is None
        finally:
            other.kill()


def test_await_ready_one_of_two_ends_names_it(make_daemon: MakeDaemon) -> None:
    good, bad = make_daemon("echo ready; exec sleep 60", name="good"), make_daemon("exit 1", name="bad")
    good.launch()
    bad.launch()
    with pytest.raises(DaemonError, match="bad ended with exit status 1"):
        await_ready([good, bad], 5.0)


def test_await_ready_with_a_question_of_its_own_asks_that(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"import pathlib, time; pathlib.Path({str(flag)!r}).touch(); time.sleep(60)"
    daemon = Daemon(Program("p", [sys.executable, "-c", script], tmp_path, dict(os.environ), flag.exists), nullcontext)
    try:
        daemon.start(10.0)
        assert flag.exists()
    finally:
        daemon.kill()


def test_listening_is_asked_for_ports_all_must_listen_over_both_families() -> None:
    with ExitStack() as open_sockets:

        def listen(family: socket.AddressFamily, host: str, port: int = 0) -> int:
            listener = open_sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.bind((host, port))
            listener.listen()
            return int(listener.getsockname()[1])

        first = listen(socket.AF_INET, "127.0.0.1")
        assert someone_listens(nullcontext)
        assert not someone_listens(nullcontext, (first,))
        listen(socket.AF_INET6, "::1", first)
        assert someone_listens(nullcontext, (first,))
        second = listen(socket.AF_INET6, "::1")
        assert not someone_listens(nullcontext, (first, second))


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# What is left of one that does not run


def test_daemon_stopped_leaves_no_record_of_its_process(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon("echo ready; exec sleep 60")
    daemon.start(5.0)
    daemon.stop()
    assert not (tmp_path / "program.pid").exists()
    assert not daemon.has_ended


def test_daemon_that_ended_by_itself_has_ended_until_that_is_forgotten(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    daemon = make_daemon(f"echo ready; read line < {tmp_path}/gate; exit 6")
    daemon.start(5.0)
    daemon.forget()
    assert not daemon.has_ended
    assert daemon.is_running
    (tmp_path / "gate").write_text("go\n")
    assert wait_until(lambda: daemon.has_ended, 5.0)
    assert daemon.how_it_ended == " with exit status 6"
    daemon.forget()
    assert not daemon.has_ended


@pytest.mark.parametrize(
    ("record", "how"),
    [
        ("999999999 3\n", " with exit status 3"),
        ("999999999 -9\n", " by signal 9"),
        ("999999998 3\n", ""),
        ("", ""),
        ("x y\n", ""),
    ],
)
def test_daemon_of_another_process_ended_as_its_record_says(
    make_daemon: MakeDaemon, tmp_path: Path, record: str, how: str
) -> None:
    daemon = make_daemon("exit")
    (tmp_path / "program.pid").write_text("999999999\n")
    daemon.status_file.write_text(record)
    assert daemon.has_ended
    assert daemon.how_it_ended == how


def test_daemon_that_ends_early_names_no_file_that_goes_with_the_lab(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    with pytest.raises(DaemonError) as raised:
        make_daemon("echo line of the log; exit 3").start(5.0)
    assert str(tmp_path) not in str(raised.value)
    assert str(raised.value).endswith("; its log ends with:\n    line of the log")
    with pytest.raises(DaemonError, match=r"before it was ready; its log is empty$"):
        make_daemon("exit 3", name="silent").start(5.0)
