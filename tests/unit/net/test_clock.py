from __future__ import annotations

import time

from tcpha.net import clock


def test_now_is_monotonic_time() -> None:
    before_s = time.monotonic()
    assert before_s <= clock.now() <= time.monotonic()


def test_utc_is_the_time_of_day() -> None:
    before_s = time.time()
    assert before_s <= clock.utc() <= time.time()
