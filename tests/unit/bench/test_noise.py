"""When the machine counts as too noisy."""

from __future__ import annotations

from bench.noise import Observation, reasons


def seen(foreign_share: float = 0.02, steal_share: float = 0.0) -> list[Observation]:
    return [Observation(number, 1.0, foreign_share, steal_share) for number in (1, 2, 3)]


def test_steady_rates_and_nobody_else_it_is_quiet() -> None:
    assert reasons(seen(), [0.1, 0.0], {"close": [10.0, 11.0, 10.5]}) == []


def test_others_use_the_machine_it_is_told() -> None:
    (reason,) = reasons(seen(foreign_share=0.6), [], {})
    assert "others used 60%" in reason


def test_one_busy_moment_of_others_is_no_reason() -> None:
    assert reasons([*seen(), Observation(4, 1.0, 0.9, 0.0)], [], {}) == []


def test_others_use_the_machine_in_a_window_it_is_told() -> None:
    (reason,) = reasons(seen(), [0.05, 0.5, 0.1, 0.3], {})
    assert "in 2 of 4 windows, up to 50%" in reason


def test_the_host_takes_processors_it_is_told() -> None:
    (reason,) = reasons(seen(steal_share=0.1), [], {})
    assert "took 10%" in reason


def test_direct_rounds_apart_it_is_told_with_the_workload() -> None:
    (reason,) = reasons(seen(), [], {"close": [10.0, 14.0, 12.0], "download": [100.0, 101.0, 99.0], "upload": []})
    assert reason.startswith("direct, close:")
