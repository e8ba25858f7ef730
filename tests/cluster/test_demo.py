"""The demo shows what README.md says it shows; how it judges is tests/unit/lab/test_demo.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.lab import demo
from tests.cluster.conftest import MakeLab
from tests.cluster.lab_sight import traces

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("_machine")]

README = Path(__file__).parents[2] / "README.md"
LIMIT_S = 60.0


def steady(output: str) -> list[str]:
    """All but what differs from run to run: how long requests took, and the drawing."""
    lines = [line for line in output.splitlines() if not re.search("[│├┤╞╡▶◀]", line)]
    return [re.sub(r" +\d+\.\d(?=  ok$)", " N", line) for line in lines]


def shown() -> str:
    block = README.read_text().partition("<!-- demo output: begin -->\n")[2].partition("<!-- demo output: end -->")[0]
    return re.sub(r"(?m)^    ", "", block)


def test_demo_runs_it_says_what_the_readme_shows_and_leaves_nothing() -> None:
    words = [sys.executable, "-m", "tcpha.lab.demo"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, faults = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it takes its lab down
            raise
    assert (process.returncode, faults) == (0, "")
    assert steady(said) == steady(shown())
    assert traces(f"demo-{process.pid}") == []


def test_steps_are_shown_python_carries_whatever_the_host_can(make_lab: MakeLab) -> None:
    lab = make_lab(settings=demo.settings())
    for node in (lab.fe, *lab.backends):
        assert node.engine is not None
        assert " accelerated: " not in node.engine.log.read_text()
