"""By how much processes grew."""

from __future__ import annotations

from bench.idle import grown


def test_processes_grew_their_growth_is_added() -> None:
    assert grown({1: 100, 2: 50}, {1: 130, 2: 45}) == 25


def test_process_ended_it_does_not_count() -> None:
    assert grown({1: 100, 2: 5000}, {1: 130, 2: 0}) == 30
