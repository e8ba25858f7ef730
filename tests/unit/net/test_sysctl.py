from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.net import sysctl

NAME = "ipv4/conf/eth0.7/arp_ignore"


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One setting, of an interface with a dot in its name, that is 0."""
    file = tmp_path / NAME
    file.parent.mkdir(parents=True)
    file.write_text("0\n")
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    return file


def test_change_original_is_kept_before_the_setting_is_written(setting: Path) -> None:
    originals: dict[str, str] = {}
    seen: list[tuple[str, dict[str, str]]] = []
    settings = sysctl.Sysctls(originals, lambda: seen.append((setting.read_text(), dict(originals))))
    settings.change(NAME, "1")
    assert seen == [("0\n", {NAME: "0"})]
    assert sysctl.read(NAME) == "1"


def test_change_twice_first_original_stays(setting: Path) -> None:
    originals: dict[str, str] = {}
    settings = sysctl.Sysctls(originals, lambda: None)
    settings.change(NAME, "1")
    settings.change(NAME, "2")
    assert originals == {NAME: "0"}
    settings.restore(NAME)
    assert sysctl.read(NAME) == "0"
    assert originals == {}


def test_change_to_what_it_is_writes_and_remembers_nothing(setting: Path) -> None:
    originals: dict[str, str] = {}
    setting.chmod(0o400)
    before = setting.stat().st_mtime_ns
    sysctl.Sysctls(originals, lambda: pytest.fail("nothing to keep")).change(NAME, "0")
    assert originals == {}
    assert setting.stat().st_mtime_ns == before


def test_restore_of_an_interface_that_is_gone_forgets_it(setting: Path) -> None:
    originals = {NAME: "0"}
    setting.unlink()
    sysctl.Sysctls(originals, lambda: None).restore(NAME)
    assert originals == {}


def test_missing_setting_is_an_edge_error_that_names_it(setting: Path) -> None:
    with pytest.raises(EdgeError, match="/proc/sys/net/ipv4/nowhere: No such file"):
        sysctl.read("ipv4/nowhere")
    with pytest.raises(EdgeError, match="/proc/sys/net/ipv4/nowhere/x: 1 cannot be written"):
        sysctl.write("ipv4/nowhere/x", "1")
