from __future__ import annotations

from tcpha.lab.waiting import wait_until


def test_condition_that_holds_is_asked_once() -> None:
    asked: list[bool] = []
    assert wait_until(lambda: not asked.append(True), limit_s=0.0)  # type: ignore[func-returns-value]
    assert asked == [True]


def test_condition_that_comes_to_hold_is_waited_for() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), limit_s=5.0, interval_s=0.0)
    assert list(answers) == []


def test_condition_that_never_holds_is_given_up() -> None:
    assert not wait_until(lambda: False, limit_s=0.01, interval_s=0.001)
