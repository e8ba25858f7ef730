"""Whoever runs the tests may kill them: nothing of the engine survives. And what it cannot reach while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpha.lab.waiting import wait_until
from tests.compose import base_image, keeper, machine_state
from tests.compose.engine import Engine, find

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
RUNS_A_CONTAINER = """
import sys
from tests.compose import base_image
from tests.compose.engine import Engine
engine = Engine()
engine.start_apart()
engine.docker("image", "load", "--input", sys.argv[1])
engine.docker("run", "--detach", base_image.NAME, "sleep", "600")
print(engine.keeper_pid, flush=True)
sys.stdin.read()
"""
MAKES_A_BASE_IMAGE = """
import sys
from pathlib import Path
from tests.compose import base_image
from tests.compose.engine import Engine
engine = Engine()
print(engine.keeper_pid, flush=True)
base_image.make(engine, Path(sys.argv[1]))
"""


@contextmanager
def running(program: str, argument: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", program, str(argument)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def image(engine: Engine) -> Path:
    """An image in a file, for engines that can pull none."""
    file = engine.directory / "base.tar"
    engine.docker("image", "save", "--output", str(file), base_image.NAME)
    return file


@pytest.fixture
def user(image: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that runs an engine of its own, with a container in it."""
    with running(RUNS_A_CONTAINER, image) as process:
        yield process


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


def test_keeper_is_killed_while_a_base_image_is_made_nothing_of_that_runs_on(engine: Engine, tmp_path: Path) -> None:
    if find("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    before = machine_state.of_machine()
    with running(MAKES_A_BASE_IMAGE, tmp_path / "base.tar") as user:
        pid = keeper_of(user)
        root = keeper.directory_of(keeper.name_of(pid)) / "rootfs"
        assert wait_until(lambda: (root / "debootstrap").exists(), LIMIT_S)
        assert running_in(root) != []
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: running_in(root) == [], LIMIT_S)
        user.wait()
    keeper.sweep()
    assert remains_of(pid) == []
    assert list(tmp_path.iterdir()) == []
    assert machine_state.of_machine() == before


def running_in(root: Path) -> list[str]:
    """Command lines of processes that work on a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(errors="replace").replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
        if "debootstrap" in words and str(root) in words:
            found.append(words)
    return found


def test_engine_asks_for_the_bridge_filters_module_it_is_not_loaded_others_are(engine: Engine) -> None:
    stub = keeper.view_of(engine.name) / "bin/modprobe"
    assert engine.inside(["sh", "-c", "command -v modprobe"]).strip() == str(stub)
    # What would be the machine's own, if it has one, says what it was asked for.
    pretended = 'printf "#!/bin/sh\\necho \\$@" >"$1" && chmod 755 "$1" && exec modprobe -va bridge br_netfilter nf_nat'
    real = keeper.view_of(engine.name) / "real/modprobe"
    around = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tcpha "${{1%/*}}" && {pretended}', "-", str(real)]
    assert engine.inside(around) == "-va bridge nf_nat\n"


def test_engine_makes_directories_the_machine_has_none_of_them(engine: Engine) -> None:
    for tree in keeper.OWN_TREES:
        made = Path(tree, f"{engine.name}-made")
        engine.inside(["mkdir", str(made)])
        assert not made.exists()


@pytest.mark.parametrize("cut", [0, 1, 512, 10240])
def test_stand_in_was_cut_off_it_is_not_taken_for_whole(tmp_path: Path, cut: int) -> None:
    content, archive = tmp_path / "content", tmp_path / "x.tar"
    content.write_bytes(b"x" * 30000)
    with tarfile.open(archive, "w") as file:
        file.add(content)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) - cut])
    assert base_image.is_whole(archive) == (cut == 0)
    archive.write_bytes(b"")
    assert not base_image.is_whole(archive)
    assert not base_image.is_whole(tmp_path / "none")
