"""The back end's process where packets come in a tunnel: what one costs that fails, and what a stop costs."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tcpha.be.actions import Action
from tcpha.be.service import BackEnd
from tcpha.errors import EdgeError


@pytest.mark.parametrize("fault", [EdgeError("no room"), ZeroDivisionError()])
def test_tunnelled_packet_fails_those_behind_it_are_delivered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    back_end, delivered = BackEnd.__new__(BackEnd), list[bytes]()
    back_end._faults, back_end._fault_log_at, back_end._tunnelled = 0, -inf, 0
    back_end._raw = cast(Any, SimpleNamespace(send=delivered.append))

    def arrive(octets: bytes, _now: float, tunnelled: bool) -> tuple[Sequence[Action], bytes | None]:
        if octets == b"bad":
            raise fault
        return (), octets

    monkeypatch.setattr(back_end, "_arrive", arrive)
    back_end._on_tunnel(cast(Any, SimpleNamespace(read=lambda: [b"one", b"bad", b"two"])))
    assert (delivered, back_end._tunnelled, back_end._faults) == ([b"one", b"two"], 3, 1)
    assert caplog.messages == ["dropped a packet that failed (1 so far)"]


STANDING = "connections whose packets come in a tunnel stand still until the next start"


@pytest.mark.parametrize(("tunnelled", "live", "said"), [(1, 1, [STANDING]), (1, 0, []), (0, 1, [])])
def test_process_leaves_connections_to_the_kernel_those_behind_a_tunnel_are_told_of(
    caplog: pytest.LogCaptureFixture, tunnelled: int, live: int, said: list[str]
) -> None:
    back_end = BackEnd.__new__(BackEnd)
    back_end._tunnelled = tunnelled
    back_end._kernel = cast(Any, SimpleNamespace(on_leave=lambda: None, live=live))
    assert back_end.on_leave() == live
    assert caplog.messages == said


def test_process_leaves_and_the_kernel_carries_nothing_nothing_is_left() -> None:
    assert BackEnd.__new__(BackEnd).on_leave() == 0
