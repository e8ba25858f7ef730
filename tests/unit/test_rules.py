"""Rules: reading one, choosing by them, and telling which match everything."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.rules import (
    PATTERN_LIMIT_OCTETS,
    Choice,
    Endpoint,
    Rule,
    RuleError,
    RuleSet,
    matches_everything,
    parse_rule,
    rule_warnings,
)

A = IPv4Address("192.168.1.33")
B = IPv4Address("192.168.1.38")
C = IPv6Address("2001:db8::7")
SERVERS = (Endpoint(A, 666), Endpoint(B, 667), Endpoint(C, 668))
EXPONENTIAL = r"(a|aa)+$"


@dataclass(frozen=True)
class Target:
    target: bytes


def rule_set(*lines: str, match_time_s: float = 0.05) -> RuleSet:
    return RuleSet([parse_rule(line) for line in lines], SERVERS, match_time_s)


def chosen(rules: RuleSet, target: bytes) -> IPv4Address | IPv6Address | None:
    choice = rules.choose(Target(target))
    return choice.server.addr if choice is not None else None


# --- reading one rule


@pytest.mark.parametrize(
    ("text", "addresses", "pattern"),
    [
        ("192.168.1.38 jpg$", B, "jpg$"),
        ("192.168.1.38,192.168.1.33 jpg$", (B, A), "jpg$"),
        ("192.168.1.38,2001:db8:0::7,192.168.1.33 a,b", (B, C, A), "a,b"),
        ("192.168.1.38 \t jpg$", B, "jpg$"),
        ("  192.168.1.38 jpg$  ", B, "jpg$"),
        ("192.168.1.38 a b  c", B, "a b  c"),
        ("192.168.1.38 /x #y", B, "/x #y"),
        ("192.168.1.38 a=b", B, "a=b"),
        ("2001:db8:0::7 .*", C, ".*"),
    ],
)
def test_rule_text_is_read_as_addresses_and_pattern(text: str, addresses: object, pattern: str) -> None:
    rule = parse_rule(text, 7)
    expected = addresses if isinstance(addresses, tuple) else (addresses,)
    assert (rule.servers, rule.pattern, rule.line) == (expected, pattern, 7)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("192.168.1.38 (", 15, "missing )"),
        ("192.168.1.38 [a", 16, "unterminated character set"),
        ("  192.168.1.38   *x", 18, "nothing to repeat"),
        ("192.168.1.38 é*[a", 18, "unterminated character set"),
        ("192.168.1.38 a**", 16, "multiple repeat"),
        ("192.168.1.38", 13, "no pattern"),
        ("192.168.1.38   ", 13, "no pattern"),
        ("jpg$", 1, "'jpg$' is no IPv4 or IPv6 address"),
        ("  192.168.1 x", 3, "'192.168.1' is no IPv4 or IPv6 address"),
        ("", 1, "'' is no IPv4 or IPv6 address"),
        ("192.168.1.38, 192.168.1.33 x", 14, "an address is missing beside a comma"),
        (" 192.168.1.38,,192.168.1.33 x", 15, "an address is missing beside a comma"),
        (",192.168.1.33 x", 1, "an address is missing beside a comma"),
        ("192.168.1.38,192.168.1 x", 14, "'192.168.1' is no IPv4 or IPv6 address"),
        ("192.168.1.38,2001:db8::7,2001:DB8:0::7 x", 26, "2001:db8::7 is given twice in one rule"),
        ("192.168.1.38,192.168.1.33", 26, "no pattern"),
        ("192.168.1.38,192.168.1.33 (", 28, "missing )"),
        (",".join(f"10.0.0.{n}" for n in range(256)) + " x", 2696, "more than 255 addresses in one rule"),
        ("192.168.1.38 (?u)x", 14, "UNICODE"),
        ("192.168.1.38 (?L)x", 14, "(?L) is not allowed"),
    ],
)
def test_rule_text_with_a_fault_raises_with_its_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(text)
    assert reason in raised.value.reason
    assert raised.value.column == column


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("x" * (PATTERN_LIMIT_OCTETS + 1), "4097 octets"),
        ("é" * (PATTERN_LIMIT_OCTETS // 2 + 1), "4098 octets"),
        ("(a{1000}){1000}", "multiply"),
        ("((?:ab{300}c){300}|x){9}", "multiply"),
        ("a{99999999999999999999}", "multiply"),
        ("(" * 2000 + ")" * 2000, "too deeply nested"),
        ("a\ud800", "surrogate"),
    ],
)
def test_pattern_that_would_exhaust_the_process_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        Rule((A,), pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "x" * PATTERN_LIMIT_OCTETS,
        "(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}){2}",
        r"([(a{1000}]){100}",
        "a{1000}b{1000}c{1000}",
        "(a{,1000}){,1000}",
    ],
)
def test_pattern_of_ordinary_size_is_accepted(pattern: str) -> None:
    assert Rule((A,), pattern).pattern == pattern


def test_rule_is_frozen_and_compares_without_its_line() -> None:
    assert parse_rule("192.168.1.38 x", 1) == parse_rule("192.168.1.38 x", 2)
    assert parse_rule("192.168.1.38 x") != parse_rule("192.168.1.38 y")
    assert parse_rule("192.168.1.38 x") != parse_rule("192.168.1.33 x")
    assert len({parse_rule("192.168.1.38 x", 1), parse_rule("192.168.1.38 x", 2)}) == 1
    with pytest.raises(FrozenInstanceError):
        parse_rule("192.168.1.38 x").pattern = "y"  # type: ignore[misc]


# --- choosing


@pytest.mark.parametrize(
    ("target", "address"),
    [
        (b"/a/b.jpg", B),
        (b"/a/b.jpg?x", A),
        (b"/", A),
        (b"", A),
        (b"http://example.com/a.jpg", B),
        (b"*", A),
        (b"/\xff\xfejpg", B),
    ],
)
def test_original_rules_target_is_searched_and_first_match_wins(target: bytes, address: object) -> None:
    assert chosen(rule_set("192.168.1.38 jpg$", "192.168.1.33 .*"), target) == address


def test_two_matching_rules_order_decides() -> None:
    assert chosen(rule_set("192.168.1.33 a", "192.168.1.38 b"), b"/ba") == A
    assert chosen(rule_set("192.168.1.38 b", "192.168.1.33 a"), b"/ba") == B


def test_choice_names_endpoint_and_rule_index() -> None:
    rules = rule_set("192.168.1.38 jpg$", "2001:db8::7 png$")
    assert rules.choose(Target(b"/x.png")) == Choice(Endpoint(C, 668), 1)


def test_no_matching_rule_is_no_choice() -> None:
    assert rule_set("192.168.1.38 jpg$").choose(Target(b"/x.png")) is None


def test_first_match_excluded_gives_none_even_if_a_later_rule_matches() -> None:
    rules = rule_set("192.168.1.38 jpg$", "192.168.1.33 .*")
    assert rules.choose(Target(b"/x.jpg"), {B}) is None
    assert rules.choose(Target(b"/x.jpg"), [A]) == Choice(Endpoint(B, 667), 0)
    assert rules.choose(Target(b"/x.png"), {B}) == Choice(Endpoint(A, 666), 1)


def test_rule_with_several_servers_first_that_is_not_excluded_wins() -> None:
    rules = rule_set("192.168.1.33,192.168.1.38 x", "2001:db8::7 .*")
    assert rules.choose(Target(b"x")) == Choice(Endpoint(A, 666), 0)
    assert rules.choose(Target(b"x"), {A}) == Choice(Endpoint(B, 667), 0)
    assert rules.choose(Target(b"x"), {A, B}) is None


def test_pattern_outside_ascii_matches_the_targets_utf8_octets() -> None:
    rules = rule_set("192.168.1.38 /é$")
    assert chosen(rules, "/é".encode()) == B
    assert chosen(rules, "/é".encode("latin-1")) is None


def test_match_over_its_time_is_counted_and_no_later_rule_decides() -> None:
    rules = rule_set("192.168.1.33 png$", f"192.168.1.38 {EXPONENTIAL}", "192.168.1.33 .*", match_time_s=0.005)
    endless = b"/" + b"a" * 100 + b"c"
    assert chosen(rules, endless) is None
    assert rules.timeouts == 1
    assert chosen(rules, endless) is None
    assert rules.timeouts == 2
    assert chosen(rules, endless + b".png") == A
    assert chosen(rules, b"/aaa") == B
    assert chosen(rules, b"/b") == A
    assert rules.timeouts == 2


def test_rule_of_an_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match=r"192\.168\.1\.99, which no server has"):
        rule_set("192.168.1.99 x")


@settings(deadline=None)
@given(target=st.binary(max_size=64), excluding=st.sets(st.sampled_from([A, B, C])))
def test_any_target_gets_the_first_matching_rules_server(target: bytes, excluding: set[IPv4Address]) -> None:
    choice = rule_set("192.168.1.38 jpg$", "2001:db8::7 ^/x", "192.168.1.33 .*").choose(Target(target), excluding)
    # `$` also matches before a line feed that ends the target.
    if target.endswith((b"jpg", b"jpg\n")):
        expected: tuple[object, int] = (B, 0)
    else:
        expected = (C, 1) if target.startswith(b"/x") else (A, 2)
    assert (None if choice is None else (choice.server.addr, choice.rule_index)) == (
        None if expected[0] in excluding else expected
    )


@settings(deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_as_rule_is_a_rule_or_a_rule_error(text: str) -> None:
    try:
        found: Rule | RuleError = parse_rule(text)
    except RuleError as error:
        found = error
    if isinstance(found, Rule):
        assert text.strip(" \t").endswith(found.pattern)
    else:
        assert 1 <= found.column <= len(text) + 1


@settings(deadline=None)
@given(
    pattern=st.lists(st.sampled_from([*"()[]{}*+?|\\a1,-^$.=!:<>é&", "(?", "(?P<", "\\p", "\\N", "||"]), max_size=14)
)
def test_any_pattern_is_compiled_or_a_rule_error_and_never_raises_when_searched(pattern: list[str]) -> None:
    try:
        found: Rule | RuleError = Rule((A,), "".join(pattern))
    except RuleError as error:
        found = error
    if isinstance(found, Rule):
        rules = RuleSet([found], SERVERS, 0.01)
        assert rules.choose(Target(b"/aaaa1.a")) in (None, Choice(SERVERS[0], 0))
    else:
        assert 1 <= found.column <= len("".join(pattern)) + 1


# --- rules that match everything


@pytest.mark.parametrize(
    "pattern",
    [".*", ".", "", "x*", "^", "$", "()", "^.*$", "(?s).", "a?", "jpg$|.*", "[^ ]", "(jpg|)", "^.+$", "(?i).*", r"\S"],
)
def test_pattern_that_matches_every_target_is_a_catch_all(pattern: str) -> None:
    assert matches_everything(Rule((A,), pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        "jpg$",
        "/",
        "^/",
        "..",
        "^$",
        "[a-z]",
        r"\w",
        "[^?]",
        r"^[^?]*$",
        r"^[^.]*\.?[^.]*$",
        r"^[^~]*~?[^~]*$",
        "^.{1,200}$",
        r"[\x00-\x7f]",
        r"^(?!.*\.php$)",
        r"(?<!jpg)$",
        EXPONENTIAL,
    ],
)
def test_pattern_that_spares_some_target_is_no_catch_all(pattern: str) -> None:
    assert not matches_everything(Rule((A,), pattern))


def warnings_of(*lines: str) -> tuple[str, ...]:
    rules = [parse_rule(line, number) for number, line in enumerate(lines, start=1)]
    return rule_warnings(rules, [Endpoint(ip_address("192.168.1.33"), 666), Endpoint(B, 666)])


def test_sensible_rules_draw_no_warning() -> None:
    assert warnings_of("192.168.1.38 jpg$", "192.168.1.33 .*") == ()


def test_rules_without_catch_all_are_warned_of() -> None:
    (warning,) = warnings_of("192.168.1.38 jpg$", "192.168.1.33 ^/")
    assert "no rule matches every request" in warning


def test_rules_behind_a_catch_all_are_warned_of_with_both_lines() -> None:
    first, second = warnings_of("192.168.1.38 .", "192.168.1.33 jpg$", "192.168.1.33 .*")
    assert first == "rule 'jpg$' (line 2) can never win: rule '.' (line 1) before it matches every request"
    assert "'.*' (line 3)" in second


def test_rule_with_the_pattern_of_an_earlier_one_is_warned_of() -> None:
    (warning,) = warnings_of("192.168.1.38 jpg$", "192.168.1.33 jpg$", "192.168.1.33 .*")
    assert warning == "rule 'jpg$' (line 2) can never win: rule 'jpg$' (line 1) before it has the same pattern"


def test_server_that_is_only_an_alternative_is_named_by_a_rule() -> None:
    assert warnings_of("192.168.1.38,192.168.1.33 .*") == ()


def test_server_that_no_rule_names_is_warned_of() -> None:
    (warning,) = warnings_of("192.168.1.38 .*")
    assert warning == "server 192.168.1.33 is named by no rule: it gets nothing"
