from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.lab.blueprint import Blueprint, read


@pytest.mark.parametrize("server", ["nginx", None, "sh -c 'exec \"server\"'"])
def test_blueprint_written_is_read_back(tmp_path: Path, server: str | None) -> None:
    blueprint = Blueprint(backends=3, server=server, documents="/dev/shm/x")
    blueprint.write(tmp_path)
    assert read(tmp_path) == blueprint


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"backends": 2}', '{"unknown": 1}'])
def test_blueprint_damaged_is_as_if_lost(tmp_path: Path, text: str) -> None:
    Blueprint(backends=1, server=None, documents="").write(tmp_path)
    (written,) = tmp_path.iterdir()
    written.write_text(text)
    assert read(tmp_path) is None


def test_blueprint_lost_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
