"""When the machine counts as too noisy."""

from __future__ import annotations

from bench.noise import Observation, Window, reasons, window_of


def seen(foreign_share: float = 0.02, steal_share: float = 0.0) -> list[Observation]:
    return [Observation(number, 1.0, foreign_share, steal_share) for number in (1, 2, 3)]


def windows(*foreign_shares: float) -> list[Window]:
    return [Window(share, 0.0) for share in foreign_shares]


def test_steady_rates_and_nobody_else_it_is_quiet() -> None:
    assert reasons(seen(), windows(0.1, 0.0), {"close": [10.0, 11.0, 10.5]}) == []


def test_others_use_the_machine_it_is_told() -> None:
    (reason,) = reasons(seen(foreign_share=0.6), [], {})
    assert "others used 60%" in reason


def test_one_busy_moment_of_others_is_no_reason() -> None:
    assert reasons([*seen(), Observation(4, 1.0, 0.9, 0.0)], [], {}) == []


def test_others_use_the_machine_in_many_windows_it_is_told() -> None:
    (reason,) = reasons(seen(), windows(0.05, 0.5, 0.1, 0.3), {})
    assert "others used more than 10% of its processors in 2 of 4 windows, up to 50%" in reason


def test_others_use_the_machine_in_one_window_of_twenty_it_is_no_reason() -> None:
    assert reasons(seen(), windows(0.5, *[0.0] * 19), {}) == []
    assert "in 1 of 19 windows" in reasons(seen(), windows(0.5, *[0.0] * 18), {})[0]


def test_the_host_takes_processors_while_load_runs_it_is_told() -> None:
    (reason,) = reasons(seen(), [Window(0.0, share) for share in (0.02, 0.03, 0.0)], {})
    assert "the machine's host took more than 2% of its processors in 1 of 3 windows, up to 3%" in reason


def test_window_is_made_of_its_figures() -> None:
    assert window_of({"foreign_share": 0.1, "steal_share": 0.2}) == Window(0.1, 0.2)
    assert window_of({"octets_per_connection": 5.0}) is None


def test_the_host_takes_processors_it_is_told() -> None:
    (reason,) = reasons(seen(steal_share=0.1), [], {})
    assert "took 10%" in reason


def test_direct_rounds_apart_it_is_told_with_the_workload() -> None:
    (reason,) = reasons(seen(), [], {"close": [10.0, 14.0, 12.0], "download": [100.0, 101.0, 99.0], "upload": []})
    assert reason.startswith("direct, close:")
