"""From processor times to the rates they leave room for."""

from __future__ import annotations

from bench.limits import Spent, cases, table


def test_rates_are_to_each_other_as_processor_times_the_other_way_round() -> None:
    assert table(62, Spent("HAProxy", 56), cases(383, 225, is_new=True)).splitlines() == [
        "| us | servers and clients | balancer | in all | rate, times HAProxy |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| HAProxy | 62 | 56 | 118 | 1.00 |",
        "| tcpha | 62 | 383 | 445 | 0.27 |",
        "| tcpha, its system calls alone | 62 | 225 | 287 | 0.41 |",
        "| tcpha, at its floors of CPU | 62 | 260 | 322 | 0.37 |",
    ]


def test_open_connections_have_no_floors_of_cpu() -> None:
    assert [each.title for each in cases(70, 61, is_new=False)] == ["tcpha", "tcpha, its system calls alone"]
