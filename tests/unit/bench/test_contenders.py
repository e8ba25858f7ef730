"""The table of contenders: everybody follows the same rules, and everybody's figures have keys of their own."""

from __future__ import annotations

import pytest

from bench import measuring
from bench.contenders import (
    CONTENDERS,
    DIRECT,
    FINISHED_TIME,
    HAPROXY,
    REUSE,
    RULES,
    Contender,
    Door,
    essential,
    judged,
    spread_over,
)
from tcpha.lab import addressing


def test_keys_and_doors_are_each_contenders_own() -> None:
    assert len({each.key for each in CONTENDERS}) == len(CONTENDERS)
    doors = [(each.settings, each.door, each.port) for each in CONTENDERS]
    assert len(set(doors)) == len(doors)
    prefixes = [each.judged_as for each in judged()]
    assert prefixes
    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.key)
def test_engine_in_every_lab_follows_the_rules_of_the_proxies(contender: Contender) -> None:
    address = {str(place.ipv4): place.node for place in addressing.plan(2).backends}
    lines = [line.split(maxsplit=3) for line in contender.settings.both if line.startswith("rule")]
    assert [(pattern, address[server]) for _, _, server, pattern in lines] == list(RULES)


@pytest.mark.parametrize("contender", [*CONTENDERS, spread_over(3)], ids=lambda contender: contender.key)
def test_engine_in_every_lab_forgets_connections_before_a_window_ends(contender: Contender) -> None:
    assert FINISHED_TIME in contender.settings.both
    assert float(FINISHED_TIME.partition("= ")[2].removesuffix("s")) < measuring.FORGET_S - 1


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.key)
def test_whoever_is_not_direct_answers_by_the_rules(contender: Contender) -> None:
    expected = ("be1", "be1") if contender.door is Door.BACK_END else ("be2", "be1")
    assert (contender.node_for("/1k.jpg"), contender.node_for("/1k.html")) == expected


def test_quick_run_has_the_engines_and_whom_they_are_compared_with() -> None:
    assert [each.key for each in essential()] == [DIRECT, HAPROXY, REUSE, *(each.key for each in judged())]


def test_every_engine_says_who_carries_its_packets() -> None:
    carried = {each.key: [line for line in each.settings.both if line.startswith("accelerate")] for each in CONTENDERS}
    assert carried.pop("tcpha_kernel") == ["accelerate = require"]
    assert list(carried.values()) == [["accelerate = off"]] * len(carried)
    assert [each.key for each in CONTENDERS if each.needs_programs] == ["tcpha_kernel"]
    assert [(each.key, each.judged_as) for each in judged()] == [("tcpha", ""), ("tcpha_kernel", "kernel_")]


def test_only_direct_has_no_processes() -> None:
    assert [each.key for each in CONTENDERS if not each.roles] == [DIRECT]
