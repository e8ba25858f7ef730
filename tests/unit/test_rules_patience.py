"""What matches may take in all: of one connection, of however many rules, and however often it is asked about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tcpha.conditions import Check, Condition, Verdict
from tcpha.fields import Field, Kind
from tcpha.patterns import TimeLimit, TimeSpent
from tcpha.rules import Choice, RuleSet
from tests.unit.rule_sets import ENDLESS, EXPONENTIAL, HERE, SERVERS, A, rule_set
from tests.unit.seen import first, request

SLOW = [f"a {EXPONENTIAL}"] * 5


class Limited:
    """Stands for a compiled pattern: how often it was tried, and with which limits."""

    def __init__(self, *, gives_up: bool) -> None:
        self.limits: list[float] = []
        self._gives_up = gives_up

    def __call__(self, _octets: bytes, *, timeout: float) -> None:
        self.limits.append(timeout)
        if self._gives_up:
            raise TimeoutError


def test_many_slow_rules_two_are_given_their_time_and_the_last_rule_decides() -> None:
    rules = rule_set(*SLOW, "b .*", match_time_s=0.005)
    assert rules.choose(request(ENDLESS), HERE) == Choice(SERVERS[1], 5)
    assert rules.timeouts == 5
    slow = rules.take_slow()
    assert slow is not None
    assert slow.line == 2, "the third was not even begun"
    assert rules.take_slow() is None


def test_next_connection_has_its_own_time() -> None:
    rules = rule_set(*SLOW, "b .*", match_time_s=0.005)
    for _ in range(2):
        rules.choose(request(ENDLESS), HERE)
        slow = rules.take_slow()
        assert slow is not None
        assert slow.line == 2


def test_same_connection_again_slow_rules_are_not_tried_again() -> None:
    rules = rule_set(SLOW[0], "a,b .*", match_time_s=0.005)
    patience = rules.patience()
    left = []
    for excluded in ((), (A,)):
        assert isinstance(rules.choose(request(ENDLESS), HERE, excluded, patience=patience), Choice)
        left.append(patience.left_s)
    assert left == [0.005, 0.005]
    assert (patience.slow, rules.timeouts) == (frozenset({0}), 1)
    assert rules.explain(0, request(b"/"), HERE, patience)[0].verdict is Verdict.NOT_MET
    assert rules.explain(0, request(b"/aa"), HERE, patience)[0].verdict is Verdict.TIMED_OUT


def test_octets_in_many_segments_slow_rule_is_tried_once() -> None:
    rules = rule_set(r"b octets=^(?:a|aa)+c.\d{3}", "a octets=^b", "a octets=^ad", match_time_s=0.005)
    patience = rules.patience()
    octets = b"a" * 100 + b"d"
    for end in range(90, len(octets)):
        rules.is_undecided(first(octets[:end] + b"d"), HERE, patience)
        rules.claims_octets(first(octets[:end] + b"d"), HERE, patience, final=False)
    assert rules.timeouts == 1


def test_matches_that_are_just_quick_enough_use_up_the_time() -> None:
    ticks: Iterator[float] = iter((0.0, 0.004, 1.0, 1.005, 2.0, 2.9))
    limit = TimeLimit(0.005, lambda: next(ticks))
    quick = Limited(gives_up=False)
    for _ in range(2):
        limit.run(quick, b"x")
    assert limit.left_s == pytest.approx(0.001)
    limit.run(quick, b"x")
    assert quick.limits == pytest.approx([0.005, 0.005, 0.001])
    with pytest.raises(TimeSpent):
        limit.run(quick, b"x")
    assert len(quick.limits) == 3


def test_clock_that_a_rule_set_is_given_is_asked() -> None:
    seconds = iter(range(100))
    rules = RuleSet(
        rule_set(*[f"a {number}.*x" for number in range(5)], "b .*").rules, SERVERS, 0.005, lambda: next(seconds)
    )
    assert rules.choose(request(b"/"), HERE) == Choice(SERVERS[1], 5)
    assert rules.timeouts == 3, "two have taken all their time; what stopped meanwhile is not the pattern's doing"


def test_pattern_of_a_port_has_the_time_limit() -> None:
    limit = TimeLimit(0.005)
    check = Check(Condition(Field(Kind.PORT), "[0-9]+"), limit)
    assert check.match is not None
    assert check.match(b"80") is not None
    limit.left_s = 0
    with pytest.raises(TimeSpent):
        check.match(b"80")
