"""Process 1 with real children: signals arrive there, orphans are collected, the exit status is right.

Each test runs it in a process of its own; where a process namespace can be made it is process 1 there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIMIT_S = 30.0
PROGRAM = """
import json, sys
from tcpha.container import process
sys.exit(process.run(json.loads(sys.argv[1])))
"""
AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

AGENT = """
import os, signal, sys
waited_for = {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
blocked = sorted(each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, waited_for))
os.write(1, f"agent runs {blocked}\\n".encode())
number = None
while number != signal.SIGTERM:
    number = signal.sigwait(waited_for)
    os.write(1, f"agent got {number.name}\\n".encode())
sys.exit({status})
"""
SERVER = "import signal; signal.pause()"
STUBBORN = """
import os
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"stubborn runs\\n")
while True:
    signal.pause()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def agent(status: int = 0) -> list[str]:
    return python(AGENT.replace("{status}", str(status)))


@contextmanager
def process_1(
    commands: dict[str, list[str]], *, apart: bool = False, program: str = PROGRAM
) -> Iterator[subprocess.Popen[str]]:
    """Process 1 with these children; whatever hangs is ended after `LIMIT_S`, which ends what reads its output."""
    words = [*(AS_PROCESS_1 if apart else ()), sys.executable, "-c", program, json.dumps(commands)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = threading.Timer(LIMIT_S, end, [process])
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def line_with(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line.rstrip("\n")
    raise AssertionError(f"no line with {text!r}")


def rest_of(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit status and what was still said; to standard error nothing ever is."""
    output, errors = process.communicate(timeout=LIMIT_S)
    assert errors == ""
    return process.returncode, output.splitlines()


def test_children_run_no_signal_is_blocked_in_them() -> None:
    with process_1({"agent": agent()}) as process:
        assert line_with(process, "agent runs") == "agent runs []"


@pytest.mark.parametrize("apart", [False, True])
def test_signals_come_they_are_passed_on_and_the_status_is_the_agents(apart: bool) -> None:
    if apart and os.geteuid() != 0:
        pytest.skip("only root can be process 1 of a namespace")
    with process_1({"server": python(SERVER), "agent": agent(status=7)}, apart=apart) as process:
        line_with(process, "agent runs")
        target = children_of(process.pid)[0] if apart else process.pid
        os.kill(target, signal.SIGUSR1)
        line_with(process, "agent got SIGUSR1")
        os.kill(target, signal.SIGTERM)
        status, said = rest_of(process)
    assert said == [
        "container: SIGTERM: stopping",
        "agent got SIGTERM",
        "container: the agent ended with exit status 7",
    ]
    assert status == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_asked_to_stop_before_anything_runs_nothing_is_started(number: signal.Signals) -> None:
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    asked = f"signal.raise_signal({int(number)})\n"
    with process_1({"agent": python("print('agent runs')")}, program=blocked + asked + PROGRAM) as process:
        assert rest_of(process) == (0, [f"container: {number.name}: not started"])


ENTRY = """
import builtins, runpy, signal, sys
load, sent = builtins.__import__, []
def load_slowly(name, *rest, **named):
    if name == "tcpha.container.command":
        sent.append(signal.raise_signal(signal.SIGTERM))
    return load(name, *rest, **named)
builtins.__import__ = load_slowly
sys.argv = ["container", "--version"]
try:
    runpy.run_module("tcpha.container", run_name="__main__")
finally:
    print(len(sent), signal.SIGTERM in signal.sigpending())
"""


def test_asked_to_stop_while_the_entry_point_is_being_imported_the_signal_waits() -> None:
    done = subprocess.run(python(ENTRY), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout.splitlines()[-1:] == ["1 True"]


def test_server_dies_container_says_so_and_ends_with_its_status() -> None:
    with process_1({"server": python("raise SystemExit(3)"), "agent": agent()}) as process:
        status, said = rest_of(process)
    assert "container: the server ended with exit status 3: stopping" in said
    assert status == 3


def test_child_writes_to_standard_error_it_comes_out_at_standard_output() -> None:
    with process_1({"agent": python("import sys; print('woe', file=sys.stderr)")}) as process:
        status, said = rest_of(process)
    assert said == ["woe", "container: the agent ended with exit status 0: stopping"]
    assert status == 1


def test_child_closes_its_end_of_a_pipe_it_dies_of_that_as_any_process() -> None:
    script = "sh -c 'yes; echo $? >&2' | head -c 1 >/dev/null"
    with process_1({"agent": ["bash", "-c", script]}) as process:
        _, said = rest_of(process)
    # 128 + SIGPIPE; a child of Python whose SIGPIPE is still ignored says 1 and complains.
    assert "141" in said


def test_program_is_missing_it_is_a_start_error_and_nothing_runs_on() -> None:
    code = """
import os, sys
from tcpha.container import process
from tcpha.errors import StartError
try:
    process.run({"server": ["sleep", "60"], "agent": ["/nonexistent/agent"]})
except StartError as error:
    print(error)
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    print("children:", children)
"""
    done = subprocess.run(python(code), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    said = done.stdout.splitlines()
    assert said == ["/nonexistent/agent cannot be run: No such file or directory", "children: "]


def test_child_does_not_end_it_is_killed_in_time_and_the_status_tells() -> None:
    quick = "from tcpha.container import supervision; supervision.STOP_LIMIT_S = 0.3\n"
    with process_1({"agent": python(STUBBORN)}, program=quick + PROGRAM) as process:
        line_with(process, "stubborn runs")
        process.send_signal(signal.SIGTERM)
        status, said = rest_of(process)
    assert said == [
        "container: SIGTERM: stopping",
        "container: not ended after 0.3 s, killed: agent",
        "container: the agent ended by signal 9",
    ]
    assert status == 1


def test_orphan_is_left_to_process_1_it_is_collected() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be process 1 of a namespace")
    # Fails if the orphan, once it ended, is still there a moment later.
    code = """
import os, subprocess, sys, time
orphan = int(subprocess.run(["sh", "-c", "sleep 0.01 >/dev/null & echo $!"], capture_output=True, text=True).stdout)
ends_at = time.monotonic() + 20
while os.path.exists(f"/proc/{orphan}") and time.monotonic() < ends_at:
    time.sleep(0.01)
sys.exit(4 if os.path.exists(f"/proc/{orphan}") else 3)
"""
    with process_1({"agent": python(code)}, apart=True) as process:
        status, _ = rest_of(process)
    assert status == 3
