"""How a front end begins to let the kernel carry: what passes is waited for, and nothing is removed for it."""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tcpha.errors import EdgeError, StartError
from tcpha.fe import acceleration
from tcpha.net import bpf_forwarder, bpf_namespace, pins
from tests.packet.fe_playbook import Playbook

KEPT = ["flows", "link", "ways"]


class Kernel:
    """What opening the program and attaching it say, and what is pinned."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.opening: list[EdgeError] = []
        self.attaching: list[EdgeError] = []
        self.waited_s: list[float] = []
        self.obstacle: str | None = None
        for name in KEPT:
            (place / name).touch()
        monkeypatch.setattr(acceleration, "Forwarder", self.open)
        monkeypatch.setattr(bpf_forwarder, "obstacle", lambda: self.obstacle)
        monkeypatch.setattr(pins, "directory", lambda *_: place)
        monkeypatch.setattr(pins, "places", lambda *_: (place, place / "beside"))
        monkeypatch.setattr(pins, "remove", lambda *_: self.remove())
        monkeypatch.setattr(time, "sleep", self.waited_s.append)

    def remove(self) -> bool:
        found = list(self.place.iterdir())
        for each in found:
            each.unlink()
        return bool(found)

    def open(self, *_: object, **__: object) -> Kernel:
        if self.opening:
            raise self.opening.pop(0)
        return self

    # --- what `Forwarder` has

    def attach(self) -> None:
        if self.attaching:
            raise self.attaching.pop(0)

    def retain(self, _: object) -> list[Any]:
        return []

    def forget_all(self, _: object) -> int:
        return 0

    def set_targets(self, _: object) -> None:
        pass

    def set_neighbour(self, *_: object) -> None:
        pass

    def renew(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def pinned(self) -> list[str]:
        return sorted(each.name for each in self.place.iterdir())


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def fault(code: int) -> EdgeError:
    made = EdgeError(errno.errorcode[code])
    made.__cause__ = OSError(code, "")
    return made


def begun(settings: str = "") -> bool:
    return not isinstance(outcome(settings), str)


def outcome(settings: str = "", iface: str = "eth0") -> acceleration.Acceleration | str:
    book = Playbook(settings)
    return acceleration.begin(book.config, iface, cast(Any, None), book.dispatcher, lambda _: bytes(6))


def test_kernel_carries_what_is_pinned_for_namespaces_that_are_gone_is_removed(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(bpf_namespace, "remove_left", looked.append)
    assert begun()
    assert looked == [kernel.place]


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EBUSY])
@pytest.mark.parametrize("step", ["opening", "attaching"])
def test_step_fails_by_what_passes_the_kernel_carries_and_what_is_pinned_stays(
    kernel: Kernel, step: str, code: int
) -> None:
    setattr(kernel, step, [fault(code)])
    assert begun()
    assert (kernel.pinned, len(kernel.waited_s)) == (KEPT, 1)


def test_what_is_pinned_is_of_another_shape_it_is_removed_and_the_log_says_why(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.opening = [EdgeError("flows: another shape")]
    with caplog.at_level(logging.INFO):
        assert begun()
    assert (kernel.pinned, kernel.waited_s) == ([], [])
    assert caplog.messages[0] == (
        "what an earlier process left in the kernel cannot go on, and is removed: flows: another shape"
    )


@pytest.mark.parametrize("step", ["opening", "attaching"])
def test_step_fails_for_good_nothing_stays_pinned_and_the_process_carries(kernel: Kernel, step: str) -> None:
    setattr(kernel, step, [fault(errno.ENOMEM) for _ in range(6)])
    assert not begun()
    assert kernel.pinned == []
    assert sum(kernel.waited_s) <= 1.5


@pytest.mark.parametrize(("obstacle", "told"), [("CAP_BPF missing", "CAP_BPF missing"), (None, "no mount")])
def test_more_than_one_thing_is_missing_the_capability_is_named_before_what_fails_for_want_of_it(
    kernel: Kernel, caplog: pytest.LogCaptureFixture, obstacle: str | None, told: str
) -> None:
    kernel.obstacle = obstacle
    kernel.opening = [EdgeError("no mount") for _ in range(4)]
    with caplog.at_level(logging.INFO):
        assert not begun()
    assert caplog.messages[-1] == f"not accelerated, this process carries all packets: {told}"
    with pytest.raises(StartError, match=f"^accelerate = require: {told}$"):
        begun("accelerate = require")


def test_it_is_off_what_an_earlier_process_left_is_removed_and_the_log_says_so(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert [outcome("accelerate = off"), outcome("accelerate = off")] == ["accelerate = off", "accelerate = off"]
    assert kernel.pinned == []
    assert caplog.messages == ["accelerate = off: what an earlier process left in the kernel is removed"]


def test_kernel_refuses_a_hardware_address_it_is_told_again_until_it_has_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = outcome()
    assert isinstance(made, acceleration.Acceleration)
    told: list[bytes] = []
    refusals = [EdgeError("no room")]

    def set_neighbour(_backend: object, mac: bytes) -> None:
        if refusals:
            raise refusals.pop()
        told.append(mac)

    monkeypatch.setattr(kernel, "set_neighbour", set_neighbour)
    other = bytes.fromhex("020000000007")
    with pytest.raises(EdgeError):
        made.set_ways(lambda _: other)
    for _ in range(2):
        made.set_ways(lambda _: other)
    assert set(told) == {other}
    assert len(told) == len(made._macs)


def test_kernel_cannot_the_reason_is_returned(kernel: Kernel) -> None:
    kernel.opening = [EdgeError("this kernel has no tcx") for _ in range(2)]
    assert outcome() == "this kernel has no tcx"


def test_interface_is_the_loopback_one_the_process_carries_and_the_log_says_why(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reason = outcome(iface="lo")
    assert isinstance(reason, str)
    assert reason.startswith("lo is the loopback interface")
    assert caplog.messages == [f"not accelerated, this process carries all packets: {reason}"]
