"""The two clocks of the process. Cores never look here: time is an argument to them.

`now` orders events and measures waits: it never steps. `utc` is the wall clock, for what several hosts must agree on
(the period of a cookie) and for what the kernel stamps with it (the receive time of a datagram).
"""

from __future__ import annotations

import time

# The functions themselves: another one around them would cost every packet as much again.
now = time.monotonic
"""Seconds since an arbitrary origin, never going back (CLOCK_MONOTONIC)."""

utc = time.time
"""Seconds since 1970-01-01 UTC (CLOCK_REALTIME); may step when the host's clock is set."""
