"""Waiting for a condition with a limit. Must not know what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], limit_s: float, interval_s: float = 0.02) -> bool:
    """Ask until `condition` holds or `limit_s` seconds are over; whether it held. It is asked once at least."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_s)
    return True
