"""Whoever runs the tests may kill them: nothing of the engine survives that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpha.lab.waiting import wait_until
from tests.compose import base_image, keeper, machine_state

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
PROGRAM = """
import sys
from tests.compose import base_image
from tests.compose.engine import Engine
engine = Engine()
engine.start_apart()
base_image.provide(engine, lambda text: None)
engine.docker("run", "--detach", base_image.NAME, "sleep", "600")
print(engine.keeper_pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def user(engine: object) -> Iterator[subprocess.Popen[str]]:
    """A program that runs an engine of its own, with a container in it."""
    if not base_image.is_kept():
        pytest.skip("the base image was pulled: there is no stand-in to run")
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def keeper_of(user: subprocess.Popen[str]) -> int:
    assert user.stdout is not None
    return int(user.stdout.readline())


def remains_of(pid: int) -> list[str]:
    return [path for path in keeper.remains() if path.endswith(keeper.name_of(pid))]


def test_tests_are_killed_the_keeper_takes_everything_away(user: subprocess.Popen[str]) -> None:
    before = machine_state.of_machine()
    pid = keeper_of(user)
    assert len(remains_of(pid)) > 1
    assert machine_state.of_machine() != before
    user.kill()
    assert wait_until(lambda: remains_of(pid) == [], LIMIT_S, interval_s=0.2)
    assert wait_until(lambda: machine_state.of_machine() == before, LIMIT_S, interval_s=0.2)


def test_keeper_is_killed_the_engine_ends_and_the_next_run_removes_the_rest(user: subprocess.Popen[str]) -> None:
    before = machine_state.of_machine()
    pid = keeper_of(user)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: machine_state.of_machine()["programs"] == before["programs"], LIMIT_S, interval_s=0.2)
    user.kill()
    user.wait()
    assert remains_of(pid) != []
    keeper.sweep()
    assert remains_of(pid) == []
    assert machine_state.of_machine() == before
