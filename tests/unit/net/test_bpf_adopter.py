"""What stands in the way of the back end's programs, told without a kernel that runs them."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tcpha.errors import EdgeError
from tcpha.net import bpf_adopter, bpf_attach, sysctl
from tcpha.net.bpf_adopter import Adopter


class Loading:
    """What loading the programs says, and how often it was tried."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.closed = 0

    def __call__(self, *_: object) -> Loading:
        if self.codes:
            code = self.codes.pop(0)
            raise EdgeError(errno.errorcode[code]) from OSError(code, "")
        return self

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def _host_is_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_adopter, "kernel_function", lambda _: 1)
    monkeypatch.setattr(sysctl, "read", lambda _: "1")
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((), None),
        ((errno.ENOMEM, errno.EAGAIN), None),
        ((errno.ENOMEM,) * 3, "ENOMEM"),
        ((errno.EPERM,), "EPERM"),
    ],
    ids=["none", "passes", "does not pass in time", "will not pass"],
)
def test_fault_of_loading_is_in_the_way_unless_it_passes(
    monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...], reason: str | None
) -> None:
    loading = Loading(*codes)
    monkeypatch.setattr(bpf_adopter, "load", loading)
    assert bpf_adopter.obstacle() == reason
    assert loading.closed == (reason is None)
    assert loading.codes == []


class Link:
    """In the place of a link; it can be pinned and, if it is, found again."""

    faults: dict[str, EdgeError]
    """By what is called, what that says, once."""
    opened: list[Link]

    def __init__(self) -> None:
        self.is_open = True
        self.opened.append(self)

    @classmethod
    def pinned(cls, place: Path) -> Link | None:
        return cls() if place.exists() else None

    def iface_index(self) -> int:
        return 1

    def replace(self, _: object) -> None:
        self._call("replace")

    def pin(self, place: Path) -> None:
        self._call("pin")
        place.touch()

    def detach(self) -> None:
        self.is_open = False

    close = detach

    @classmethod
    def _call(cls, what: str) -> None:
        if (error := cls.faults.pop(what, None)) is not None:
            raise error

    @classmethod
    def attach(cls, program: str, *_: object) -> Link:
        cls._call(f"attach {program}")
        return cls()


@pytest.fixture
def adopter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Adopter:
    Link.faults, Link.opened = {}, []
    monkeypatch.setattr(bpf_attach, "Link", Link)
    monkeypatch.setattr(bpf_attach, "_ethernet_index", lambda _: 1)
    for module in (bpf_attach, bpf_adopter):
        monkeypatch.setattr(module, "attach", Link.attach)
    monkeypatch.setattr(bpf_adopter, "attach_mark", Link)
    made = Adopter.__new__(Adopter)
    programs = {name: name for name in ("be_segments", "be_egress", "be_ingress")}
    vars(made).update(_pins=tmp_path, _attached=[], _loaded=cast(Any, SimpleNamespace(programs=programs)))
    return made


@pytest.mark.parametrize(
    ("left", "step"),
    [
        *(([], step) for step in ("pin", "attach be_egress", "attach be_ingress")),
        *((["be_segments"], step) for step in ("replace", "pin", "attach be_egress", "attach be_ingress")),
        *((["be_egress", "be_segments"], step) for step in ("replace", "attach be_ingress")),
    ],
)
def test_attaching_fails_what_was_pinned_stays_nothing_else_does_and_it_can_be_tried_again(
    adopter: Adopter, tmp_path: Path, left: list[str], step: str
) -> None:
    for each in left:
        (tmp_path / each).touch()
    Link.faults[step] = EdgeError("busy")
    with pytest.raises(EdgeError, match="busy"):
        adopter.attach("lo")
    assert sorted(each.name for each in tmp_path.iterdir()) == left
    assert not any(each.is_open for each in Link.opened)
    adopter.attach("lo")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["be_egress", "be_segments", "namespace"]
    assert [each.is_open for each in Link.opened][-4:] == [True] * 4
