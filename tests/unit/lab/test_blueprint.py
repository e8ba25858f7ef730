from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.lab.addressing import plan
from tcpha.lab.blueprint import Blueprint, read


@pytest.mark.parametrize("server", ["nginx", None, "sh -c 'exec \"server\"'"])
def test_blueprint_written_is_read_back(tmp_path: Path, server: str | None) -> None:
    blueprint = Blueprint(backends=3, server=server, documents="/dev/shm/x", protocols=server == "nginx")
    blueprint.write(tmp_path)
    assert read(tmp_path) == blueprint


def test_blueprint_of_a_routed_lab_is_read_back_with_its_plan(tmp_path: Path) -> None:
    blueprint = Blueprint(3, None, routed=True, client_mtu_octets=1400, backend_mtu_octets=1300)
    blueprint.write(tmp_path)
    found = read(tmp_path)
    assert found == blueprint
    assert found.plan() == plan(3, routed=True, client_mtu_octets=1400, backend_mtu_octets=1300)


def test_blueprint_that_says_nothing_of_a_router_is_of_a_flat_lab(tmp_path: Path) -> None:
    Blueprint(backends=1, server=None).write(tmp_path)
    (written,) = tmp_path.iterdir()
    written.write_text('{"backends": 2, "server": null, "documents": ""}')
    found = read(tmp_path)
    assert found is not None
    assert found.plan() == plan(2)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"backends": 2}', '{"unknown": 1}'])
def test_blueprint_damaged_is_as_if_lost(tmp_path: Path, text: str) -> None:
    Blueprint(backends=1, server=None, documents="").write(tmp_path)
    (written,) = tmp_path.iterdir()
    written.write_text(text)
    assert read(tmp_path) is None


def test_blueprint_lost_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None


@pytest.mark.parametrize("choices", ['"backends": 0', '"backends": "2"', '"backends": 2, "client_mtu_octets": 1400'])
def test_blueprint_of_a_lab_that_cannot_be_is_as_if_lost(tmp_path: Path, choices: str) -> None:
    Blueprint(backends=1, server=None).write(tmp_path)
    (written,) = tmp_path.iterdir()
    written.write_text(f'{{"server": null, {choices}}}')
    assert read(tmp_path) is None
