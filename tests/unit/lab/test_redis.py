from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpha.lab import redis
from tcpha.lab.waiting import wait_until


@contextmanager
def running(directory: Path) -> Iterator[None]:
    """Redis as the lab runs it, but on a socket of its own instead of the port."""
    program = redis.find_program()
    if program is None:
        pytest.skip("redis-server is not installed")
    words = [*redis.command(program, directory), "--port", "0", "--unixsocket", str(directory / "socket")]
    with (directory / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as server:
        try:
            assert wait_until((directory / "socket").exists, 10.0), (directory / "log").read_text()
            yield
        finally:
            server.terminate()
            assert server.wait(10.0) == 0


def test_command_is_one_that_redis_takes_and_nothing_is_left_of_the_data(tmp_path: Path) -> None:
    with running(tmp_path):
        words = ["redis-cli", "-s", str(tmp_path / "socket")]
        for command, answer in ((["set", "a", "b"], "OK\n"), (["get", "a"], "b\n"), (["config", "get", "save"], None)):
            done = subprocess.run([*words, *command], capture_output=True, text=True, timeout=10, check=True)
            assert answer is None or done.stdout == answer
        assert done.stdout == "save\n\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"log", "socket"}


def test_command_serves_both_families_on_every_address() -> None:
    words = redis.command("/somewhere/redis-server", Path("/lab/be1"))
    assert words[0] == "/somewhere/redis-server"
    at = words.index("--bind")
    assert words[at + 1 : at + 3] == ["0.0.0.0", "::"]
    assert words[words.index("--dir") + 1] == "/lab/be1"
