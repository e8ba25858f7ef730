"""What README.md shows is what the programs take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tcpha.__main__ import main
from tcpha.config import load_front_end
from tests.unit.module_list import ROOT
from tests.unit.original_files import ORIGINAL_FE

README = (ROOT / "README.md").read_text()


def block_after(heading: str) -> str:
    """The first indented block of a section."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"(?m)(?:^    .*\n)+", section)
    assert found is not None
    return re.sub(r"(?m)^    ", "", found[0])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The nodes of the README's three hosts, the rules that it shows."""
    path = tmp_path / "tcphafe.conf"
    path.write_text(ORIGINAL_FE.partition("rule")[0] + block_after("Rules"))
    return path


def test_rules_that_are_shown_are_taken_without_a_warning(file: Path) -> None:
    config = load_front_end(file)
    assert len(config.rule) == 7
    assert config.vport == (80, 443, 6379)
    assert config.warnings() == ()


def test_command_that_is_shown_tells_the_server_of_a_request(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (request,) = re.findall(r"tcpha route -c \S+ '([^']+)' --host shop\.example\n", README)
    assert main(["route", "-c", str(file), request, "--host", "shop.example"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "chosen: 192.168.1.38, the only server of its rule"
