"""Choosing while octets still arrive: it waits for a rule that may still match, and no cut changes the choice."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.fields import Seen
from tcpha.rules import Choice, NoChoice, RuleSet
from tests.unit.rule_sets import HERE, SERVERS, UNDECIDED, chosen, rule_set
from tests.unit.seen import first, hello, request


def decided(rules: RuleSet, octets: bytes, cuts: Collection[int]) -> Choice | NoChoice:
    """What is chosen at last, if the octets arrive cut here and there."""
    for end in sorted(cuts):
        if not rules.is_undecided(first(octets[:end]), HERE):
            return rules.choose(first(octets[:end]), HERE)
    return rules.choose(first(octets), HERE)


@pytest.mark.parametrize(
    ("lines", "octets", "expected"),
    [
        (["b octets=^SSH-", "a octets=.*"], b"SS", UNDECIDED),
        (["b octets=^SSH-", "a octets=.*"], b"SSH-", "b1"),
        (["b octets=^SSH-", "a octets=.*"], b"SX", "a2"),
        (["b octets=^SSH-", "a octets=^S"], b"SX", "a2"),
        (["b octets=^SSH-"], b"SX", NoChoice.UNROUTED),
        (["b octets=late", "a octets=.*"], b"X", UNDECIDED),
        (["b octets=end$", "a octets=.*"], b"the end", UNDECIDED),
        (["b octets=^(?!X)", "a octets=.*"], b"Y", UNDECIDED),
        (["b octets=.*", "a octets=^SSH-"], b"S", "b1"),
        (["a octets=^S", "b octets=^SSH-"], b"S", "a1"),
        (["b octets=^SSH- port=22", "a octets=.*"], b"SS", "a2"),
        (["b octets=^SSH- port=80", "a octets=.*"], b"SS", UNDECIDED),
        (["b octets=^SSH- host=x", "a octets=.*"], b"SS", "a2"),
        (["b .*", "a octets=^SSH-"], b"S", UNDECIDED),
        (["b port=80", "a octets=^SSH-"], b"S", "b1"),
    ],
)
def test_more_octets_may_come_choice_waits_only_for_a_rule_that_may_still_match(
    lines: list[str], octets: bytes, expected: object
) -> None:
    assert chosen(rule_set(*lines), first(octets), final=False) == expected


@pytest.mark.parametrize("seen", [request(b"/x"), hello(b"x")])
def test_head_of_a_known_protocol_is_complete_nothing_waits(seen: Seen) -> None:
    rules = rule_set("b octets=late$", "a octets=.*")
    assert rules.choose(seen, HERE) == Choice(SERVERS[0], 1)
    assert not rules.is_undecided(seen, HERE)


def test_question_whether_it_is_decided_uses_up_nobodys_turn() -> None:
    rules = rule_set("a,b octets=.*")
    assert not rules.is_undecided(first(b"x"), HERE)
    assert [chosen(rules, first(b"x")) for _ in range(2)] == ["a1", "b1"]


PATTERNS = [
    *("^SSH-", "^ab", "b$", "ab", "^a*b", "(?:ab)+c", "^[^b]+$", "^(?!ab)", "^(?>ab|a)b", r"a\b", "^a{2,3}c"),
    *("c", "^$", ".*", "(?i)^AB", r"^\w+\.", "(?<=a)b", "^a++b", "x|^b", "(?s)^.{4}c", "a.c"),
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    patterns=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4),
    octets=st.text("aabbc.\n", min_size=1, max_size=10).map(str.encode),
    cuts=st.lists(st.sets(st.integers(1, 10)), min_size=2, max_size=4),
)
def test_any_cut_of_the_octets_gives_the_same_choice(patterns: list[str], octets: bytes, cuts: list[set[int]]) -> None:
    lines = [f"{'abc'[number % 3]} octets={pattern}" for number, pattern in enumerate(patterns)]
    at_once = rule_set(*lines, match_time_s=1).choose(first(octets), HERE)
    for each in cuts:
        assert decided(rule_set(*lines, match_time_s=1), octets, {cut for cut in each if cut < len(octets)}) == at_once


def test_match_of_octets_over_its_time_while_more_may_come_is_no_match() -> None:
    rules = rule_set(r"b octets=^(?:a|aa)+c.\d{3}", "a octets=^a", match_time_s=0.005)
    seen = first(b"a" * 100 + b"d")
    assert not rules.is_undecided(seen)
    assert rules.timeouts == 1
