"""What stands in the way of the back end's programs, told without a kernel that runs them."""

from __future__ import annotations

import errno
import time

import pytest

from tcpha.errors import EdgeError
from tcpha.net import bpf_adopter, sysctl


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
