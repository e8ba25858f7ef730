"""The systemd units in etc/systemd: what they let a process do is what the kernel fast path needs, and hardly more."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.net import bpf_syscall, pins

UNITS = Path(__file__).parents[2] / "etc/systemd"
ROLES = {"fe": "front end", "be": "back end"}
PLAIN = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"}
EXPOSURE_MOST = 3.0
"""Of 10, by systemd-analyze(1)."""
ANALYZE = shutil.which("systemd-analyze")


def settings(role: str) -> dict[str, list[str]]:
    """All lines of a unit, by key."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"tcpha-{role}.service").read_text().splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def words(role: str, key: str) -> set[str]:
    (value,) = settings(role)[key]
    return set(value.split())


def test_units_of_both_roles_differ_in_their_names_only() -> None:
    rights = [{key: value for key, value in settings(role).items() if key != "Description"} for role in ROLES]
    (fe, be) = (
        repr(each).replace(f"tcpha{role}", "R").replace(f"tcpha.{role}", "R")
        for each, role in zip(rights, ROLES, strict=True)
    )
    assert fe == be


@pytest.mark.parametrize("role", ROLES)
def test_capabilities_are_those_that_a_refusal_can_name_and_no_others(role: str) -> None:
    """Whatever bpf(2) says is missing, a unit gives."""
    named = {*bpf_syscall._CAPABILITIES.values(), "CAP_PERFMON"}
    assert words(role, "CapabilityBoundingSet") == PLAIN | named
    assert words(role, "AmbientCapabilities") == set()


@pytest.mark.parametrize("role", ROLES)
def test_bpf_may_be_called_and_what_may_not_be_called_ends_no_process(role: str) -> None:
    """Else a process that tries to mount a bpf file system would be killed, where it should go on without."""
    assert words(role, "SystemCallFilter") == {"@system-service", "bpf"}
    assert words(role, "SystemCallErrorNumber") == {"EPERM"}


@pytest.mark.parametrize("role", ROLES)
def test_place_of_pins_may_be_written_where_there_is_one(role: str) -> None:
    assert f"-{pins.SHARED}" in words(role, "ReadWritePaths")
    assert "ProtectKernelTunables" not in settings(role), "it would make /sys read-only, and /proc/sys"


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_every_line_and_finds_little_exposed(role: str, tmp_path: Path) -> None:
    unit = tmp_path / f"tcpha-{role}.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/opt/tcpha/bin/python", sys.executable))

    def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(ANALYZE), *arguments, str(unit)], capture_output=True, text=True, check=False)

    verified = analyze("verify", "--recursive-errors=no", "--man=no")
    if "unrecognized option" in verified.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if unit.name in line]) == (0, [])
    exposure = re.search(r"exposure level .*: ([0-9.]+) ", analyze("security", "--offline=true", "--no-pager").stdout)
    assert exposure is not None
    assert float(exposure[1]) < EXPOSURE_MOST
