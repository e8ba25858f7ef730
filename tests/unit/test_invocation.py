"""The command lines that programs print for a person: they can be pasted, whichever interpreter is installed."""

from __future__ import annotations

import ast
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.invocation import command
from tests.unit.module_list import PACKAGE, ROOT

OF_DEVELOPERS = {"announce.py", "wiredoc.py", "wiretext.py"}
"""Files for whoever works on the package itself, in a checkout with an environment of its own.

Those of a container's image know its interpreter, too.
"""


@pytest.mark.parametrize(
    ("interpreter", "shown"),
    [
        ("/opt/tcpha/bin/python", "/opt/tcpha/bin/python -m tcpha.lab"),
        ("/opt/my tcpha/bin/python", "'/opt/my tcpha/bin/python' -m tcpha.lab"),
        ("", "python3 -m tcpha.lab"),
    ],
)
def test_interpreter_elsewhere_is_named_by_its_path(
    monkeypatch: pytest.MonkeyPatch, interpreter: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    assert command("tcpha.lab") == shown


def test_interpreter_below_the_working_directory_is_named_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.chdir(tmp_path)
    assert command("tcpha route") == ".venv/bin/python -m tcpha route"


def test_command_is_pasted_it_runs() -> None:
    words = [*shlex.split(command("tcpha")), "--version"]
    assert subprocess.run(words, capture_output=True, check=False, cwd=ROOT).returncode == 0


def test_reader_of_a_command_goes_it_ends_as_if_by_sigpipe_without_a_word() -> None:
    words = [*shlex.split(command("tcpha.lab")), "sim", "--costs", "built-in", "--backends", "16"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    "file",
    [file for file in PACKAGE.rglob("*.py") if file.name not in OF_DEVELOPERS and "container" not in file.parts],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_no_text_that_is_printed_names_an_interpreter_that_may_not_be_there(file: Path) -> None:
    tree = ast.parse(file.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
    ]
    assert [text for text in texts if "python -m tcpha" in text and not text.lstrip().startswith("# Made by")] == []
