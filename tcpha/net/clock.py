"""The two clocks of the process. Cores never look here: time is an argument to them.

`now` orders events and measures waits: it never steps. `utc` is the wall clock, for what several hosts must agree on
(the period of a cookie) and for what the kernel stamps with it (the receive time of a datagram).
"""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since an arbitrary origin, never going back (CLOCK_MONOTONIC)."""
    return time.monotonic()


def utc() -> float:
    """Seconds since 1970-01-01 UTC (CLOCK_REALTIME); may step when the host's clock is set."""
    return time.time()
