"""Whether programs could stand at an interface, asked of hosts that lack something."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.net import bpf_place, pins
from tcpha.net.bpf_place import obstacle_at

STATE = Path("/nowhere")


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that lacks nothing, with an interface."""
    monkeypatch.setattr(pins, "bpffs_of", lambda _: pins.SHARED)
    monkeypatch.setattr(bpf_place, "holds", lambda _: False)
    monkeypatch.setattr(bpf_place, "call", lambda *_: 0)
    monkeypatch.setattr(socket, "if_nametoindex", lambda _: 7)


def asking_fails_by(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise EdgeError(f"bpf prog_query: {errno.errorcode[code]}") from OSError(code, "")

    monkeypatch.setattr(bpf_place, "call", refuse)


def test_nothing_is_missing() -> None:
    assert obstacle_at("eth0", "fe", STATE) is None


def test_interface_is_the_loopback_one_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(pins, "bpffs_of", lambda _: pins.SHARED)
    assert str(obstacle_at("lo", "fe", STATE)).startswith("lo is the loopback interface")
    assert obstacle_at("nowhere0", "fe", STATE) == "there is no interface nowhere0"


@pytest.mark.parametrize("may_mount", [False, True])
def test_there_is_no_bpf_file_system_one_could_be_mounted_or_not(
    may_mount: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "bpffs_of", lambda _: None)
    monkeypatch.setattr(bpf_place, "holds", lambda _: may_mount)
    reason = "no bpf file system at /sys/fs/bpf, and CAP_SYS_ADMIN missing to mount another"
    assert obstacle_at("eth0", "be", STATE) == (None if may_mount else reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EINVAL, "this kernel has no tcx at eth0: it is older than Linux 6.6"),
        (errno.EPERM, "bpf prog_query: EPERM"),
        (errno.ENOSPC, None),
    ],
)
def test_kernel_does_not_say_what_is_there(code: int, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asking_fails_by(code, monkeypatch)
    assert obstacle_at("eth0", "fe", STATE) == reason
