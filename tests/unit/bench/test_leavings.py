"""What killed runs left: whose labs and directories are removed, and whose are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import leavings


@pytest.fixture
def gone() -> int:
    """Pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_labs_are_left_if_their_process_is_gone(gone: int) -> None:
    names = [f"bench-{gone}-0-fe", f"bench-{gone}-0-switch", f"scaling-{gone}-2-0-be1", f"breakdown-{gone}-0-client"]
    others = [f"bench-{os.getpid()}-0-fe", f"t{gone}-fe", f"bench-{gone}-fe", "tcpha-fe", f"my-bench-{gone}-0-fe", "x"]
    assert leavings.left_labs([*names, *others]) == [f"bench-{gone}-0", f"breakdown-{gone}-0", f"scaling-{gone}-2-0"]


def test_directories_of_processes_that_are_gone_are_removed_and_no_others(
    gone: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_down: list[tuple[str, Path | None]] = []

    class Standing:
        def __init__(self, name: str, *, root: Path | None = None) -> None:
            self._named = (name, root)

        def down(self) -> None:
            taken_down.append(self._named)

    monkeypatch.setattr(leavings, "Lab", Standing)
    monkeypatch.setattr(leavings, "ROOTS", (tmp_path, tmp_path / "none"))
    monkeypatch.setattr("bench.leavings.namespaces.names", lambda: (f"scaling-{gone}-4-0-fe",))
    left = tmp_path / f"tcpha-bench-{gone}"
    (left / f"bench-{gone}-1").mkdir(parents=True)
    others = [tmp_path / f"tcpha-bench-{os.getpid()}", tmp_path / f"tcpha-lab-t{gone}n1", tmp_path / f"bench-{gone}"]
    for each in others:
        each.mkdir()
    said: list[str] = []
    leavings.remove(said.append)
    assert taken_down == [(f"bench-{gone}-1", left), (f"scaling-{gone}-4-0", None)]
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert said == [f"Removed what killed runs left: scaling-{gone}-4-0, {left}"]


def test_nothing_is_left_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leavings, "ROOTS", (tmp_path,))
    monkeypatch.setattr("bench.leavings.namespaces.names", tuple)
    leavings.remove(lambda _text: pytest.fail("something was removed"))
