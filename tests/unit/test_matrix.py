"""The runner of the whole matrix: which runs there are, what each is told, what becomes of their ends."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import matrix
from tests.cluster.engines import ENGINES

PASSED = "....\n3 passed, 1 skipped in 2.00s\n"
FAILED = "..F\nE  assert FAILED\nFAILED tests/x.py::test_y - assert\n1 failed, 2 passed in 1.00s\n"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Sequence[str], dict[str, str]]]:
    """What was run; the run of the kernel's front end without offloads fails."""
    commands: list[tuple[Sequence[str], dict[str, str]]] = []

    def fake(command: Sequence[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
        environment: dict[str, str] = given["env"]
        commands.append((command, environment))
        fails = (environment["TCPHA_ENGINES"], environment["TCPHA_OFFLOADS"]) == ("kernel-fe", "off")
        given["stdout"].write((FAILED if fails else PASSED).encode())
        return subprocess.CompletedProcess(command, int(fails))

    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return commands


def test_nothing_is_chosen_every_combination_is_a_run_of_all_tests_of_the_engine(
    ran: list[tuple[Sequence[str], dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert matrix.main([]) == 1
    told = [tuple(given[f"TCPHA_{name}"] for name in ("ENGINES", "OFFLOADS", "MTU")) for _, given in ran]
    assert len(set(told)) == len(told) == len(ENGINES) * 2 * 2
    assert all(any(word.endswith("test_engine_requests.py") for word in command) for command, _ in ran)
    said = capsys.readouterr().out
    assert "14 of 16 passed" in said
    assert said.count("    FAILED tests/x.py::test_y - assert") == 2
    summary = said.partition("\n\n")[2].splitlines()
    assert [line for line in summary if "1 failed, 2 passed in 1.00s" in line] == summary[10:12]


def test_some_are_chosen_only_they_run(ran: list[tuple[Sequence[str], dict[str, str]]]) -> None:
    assert matrix.main(["--engines", "kernel", "--mtu", "9000", "--", "tests/cluster/test_engine_ports.py", "-x"]) == 0
    assert [given["TCPHA_OFFLOADS"] for _, given in ran] == ["on", "off"]
    assert [list(command[-2:]) for command, _ in ran] == [["tests/cluster/test_engine_ports.py", "-x"]] * 2


def test_run_is_interrupted_those_before_are_told(
    ran: list[tuple[Sequence[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = subprocess.run

    def interrupted(*words: Any, **given: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        return fake(*words, **given)

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert matrix.main(["--engines", "python", "kernel"]) == 1
    assert "3 of 8 passed" in capsys.readouterr().out
