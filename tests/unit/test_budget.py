from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpha.budget import Budget

NOW = 1000.0


def test_as_many_as_allowed_at_once_then_as_many_as_time_gives_back() -> None:
    budget = Budget(10, 3)
    assert [budget.take(NOW) for _ in range(5)] == [True, True, True, False, False]
    assert not budget.take(NOW + 0.09)
    assert budget.take(NOW + 0.11)
    assert not budget.take(NOW + 0.12)


def test_pause_saves_no_more_than_what_is_allowed_at_once() -> None:
    budget = Budget(10, 3)
    assert budget.take(NOW)
    assert [budget.take(NOW + 3600) for _ in range(5)] == [True, True, True, False, False]


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200), st.integers(1, 100), st.integers(1, 20))
def test_any_pauses_never_more_than_rate_and_reserve(pauses: list[float], rate: int, at_once: int) -> None:
    budget, now, taken = Budget(rate, at_once), NOW, 0
    for pause in pauses:
        now += pause
        taken += budget.take(now)
    assert taken <= at_once + (now - NOW) * rate + 1e-6
