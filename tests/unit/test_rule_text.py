"""The grammar of rules: what is read, what is refused and where, and that what is written is read again."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tcpha.balance import Address
from tcpha.conditions import Condition
from tcpha.fields import Field, Kind
from tcpha.patterns import RuleError
from tcpha.rule_text import Balance, Method, Rule, parse_rule

A = IPv4Address("192.168.1.33")
B = IPv4Address("192.168.1.38")
C = IPv6Address("2001:db8::7")

# --- patterns for the target


@pytest.mark.parametrize(
    ("text", "addresses", "pattern"),
    [
        ("192.168.1.38 jpg$", (B,), "jpg$"),
        ("192.168.1.38,192.168.1.33 jpg$", (B, A), "jpg$"),
        ("192.168.1.38,2001:db8:0::7,192.168.1.33 a,b", (B, C, A), "a,b"),
        ("192.168.1.38 \t jpg$", (B,), "jpg$"),
        ("  192.168.1.38 jpg$ \t ", (B,), "jpg$"),
        ("192.168.1.38 a b  c", (B,), "a b  c"),
        ("192.168.1.38 /x #y", (B,), "/x #y"),
        ("2001:db8:0::7 .*", (C,), ".*"),
        ("192.168.1.38 a=b", (B,), "a=b"),
        ("192.168.1.38 foo=bar", (B,), "foo=bar"),
        ("192.168.1.38 Host=a", (B,), "Host=a"),
        ("192.168.1.38 host", (B,), "host"),
        ("192.168.1.38 =x", (B,), "=x"),
        ("192.168.1.38 header=x", (B,), "header=x"),
        ("192.168.1.38 header.*=x", (B,), "header.*=x"),
        ("192.168.1.38 foo host=a", (B,), "foo host=a"),
        ("192.168.1.38 ^host=a", (B,), "^host=a"),
        ("192.168.1.38 (?:host=a)", (B,), "(?:host=a)"),
        ("192.168.1.38 x balance=least", (B,), "x balance=least"),
        ("192.168.1.38 balances=rr", (B,), "balances=rr"),
        ("192.168.1.38 target=host=a", (B,), "host=a"),
        ("192.168.1.38 target=balance=3", (B,), "balance=3"),
    ],
)
def test_rest_of_a_rule_that_begins_with_no_field_is_a_pattern_for_the_target(
    text: str, addresses: tuple[Address, ...], pattern: str
) -> None:
    rule = parse_rule(text, 7)
    assert (rule.servers, rule.pattern, rule.balance, rule.line) == (addresses, pattern, Balance(), 7)


def test_bare_pattern_and_one_for_the_target_are_the_same_rule() -> None:
    assert parse_rule("192.168.1.38 jpg$") == parse_rule("192.168.1.38 target=jpg$")


@pytest.mark.parametrize(
    "text",
    [
        "192.168.1.38 jpg$",
        "192.168.1.38 a b",
        "192.168.1.38 foo=bar",
        "192.168.1.38 target=host=a",
        "192.168.1.38 target=balance=3",
        "192.168.1.38 target=header.=x",
        "192.168.1.38,2001:db8::7 balance=hash:cookie.A client=10.0.0.0/8 host=a",
        "192.168.1.38 balance=least target=port=8",
    ],
)
def test_rule_is_written_as_it_must_be_read(text: str) -> None:
    assert str(parse_rule(text)) == text


# --- fields


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("host=^www\\.", {"host": "^www\\."}),
        ("host=a path=^/b  method=GET", {"host": "a", "path": "^/b", "method": "GET"}),
        ("query=a=b", {"query": "a=b"}),
        ("query=host=a", {"query": "host=a"}),
        ("header.User-Agent=curl header.accept=html", {"header.user-agent": "curl", "header.accept": "html"}),
        ("cookie.id=. cookie.ID=.", {"cookie.id": ".", "cookie.ID": "."}),
        ("sni=a alpn=h2", {"sni": "a", "alpn": "h2"}),
        ("octets=^SSH-", {"octets": "^SSH-"}),
        ("port=80|443 client=10.0.0.0/8,2001:db8::1", {"port": "80|443", "client": "10.0.0.0/8,2001:db8::1"}),
        ("path=#", {"path": "#"}),
        ("target=a method=b", {"target": "a", "method": "b"}),
    ],
)
def test_rule_that_begins_with_a_field_has_one_condition_a_word(text: str, conditions: dict[str, str]) -> None:
    rule = parse_rule(f"192.168.1.38 {text}")
    assert {str(each.field): each.pattern for each in rule.conditions} == conditions
    assert rule.pattern is None


@pytest.mark.parametrize(
    ("text", "balance"),
    [
        ("balance=rr x", Balance(Method.IN_TURN)),
        ("balance=least x", Balance(Method.LEAST)),
        ("balance=hash:client host=a", Balance(Method.HASH, parse_rule("192.168.1.38 client=::").conditions[0].field)),
        ("\tbalance=least\tx", Balance(Method.LEAST)),
    ],
)
def test_balance_stands_between_addresses_and_pattern(text: str, balance: Balance) -> None:
    rule = parse_rule(f"192.168.1.38 {text}")
    assert rule.balance == balance
    assert str(rule.balance) in text


@pytest.mark.parametrize("key", ["client", "path", "cookie.Id", "header.x-user", "sni", "port"])
def test_field_is_a_key_for_the_hash(key: str) -> None:
    assert str(parse_rule(f"192.168.1.38 balance=hash:{key} x").balance) == f"hash:{key}"


# --- faults


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
        ("192.168.1.38 balance=rr ", 24, "no pattern"),
        ("jpg$", 1, "'jpg$' is no IPv4 or IPv6 address"),
        ("  192.168.1 x", 3, "'192.168.1' is no IPv4 or IPv6 address"),
        ("", 1, "no address"),
        (" \t", 1, "no address"),
        ("192.168.1.38, 192.168.1.33 x", 14, "an address is missing beside a comma"),
        (" 192.168.1.38,,192.168.1.33 x", 15, "an address is missing beside a comma"),
        (",192.168.1.33 x", 1, "an address is missing beside a comma"),
        ("192.168.1.38,192.168.1 x", 14, "'192.168.1' is no IPv4 or IPv6 address"),
        ("192.168.1.38,2001:db8::7,2001:DB8:0::7 x", 26, "2001:db8::7 is given twice in one rule"),
        ("192.168.1.38,192.168.1.33 (", 28, "missing )"),
        (",".join(f"10.0.0.{n}" for n in range(256)) + " x", 2696, "more than 255 addresses in one rule"),
        ("192.168.1.38 host=a foo", 21, "'foo' is no FIELD=REGEX"),
        ("192.168.1.38 host=a foo=bar", 21, "'foo=bar' is no FIELD=REGEX"),
        ("192.168.1.38 header.user-agent=Mobile Safari", 39, "a blank in a REGEX: \\x20"),
        ("192.168.1.38 host=a path=b host=c", 28, "host is given twice"),
        ("192.168.1.38 header.A=a header.a=b", 25, "header.a is given twice"),
        ("192.168.1.38 host=", 19, "no pattern after `host=`"),
        ("192.168.1.38 host= a", 19, "no pattern after `host=`"),
        ("192.168.1.38 header.=x", 21, "a name is missing after `header.`"),
        ("192.168.1.38 host=a cookie.=x", 28, "a name is missing after `cookie.`"),
        ("192.168.1.38 host=a path=(b", 28, "missing )"),
        ("192.168.1.38 client=10.0.0.0/8,10.1", 32, "'10.1' is no address"),
        ("192.168.1.38 client=10.0.0.1/8", 21, "write 10.0.0.0/8"),
        ("192.168.1.38 balance=leats x", 22, "balance is rr, least or hash:FIELD"),
        ("192.168.1.38 balance=3", 22, "target=balance="),
        ("192.168.1.38 balance= x", 22, "balance is rr, least or hash:FIELD"),
        ("192.168.1.38 balance=rr:x x", 22, "balance is rr, least or hash:FIELD"),
        ("192.168.1.38 balance=hash x", 22, "balance is rr, least or hash:FIELD"),
        ("192.168.1.38 balance=hash: x", 27, "'' is no field"),
        ("192.168.1.38 balance=hash:nosuch x", 27, "'nosuch' is no field"),
        ("192.168.1.38 balance=hash:cookie. x", 34, "a name is missing after `cookie.`"),
        ("192.168.1.38 balance=hash:octets x", 27, "octets is no key"),
        ("192.168.1.38 balance=rr balance=rr x", 25, "balance is given twice"),
        ("192.168.1.38 host=a balance=rr", 21, "balance comes before the fields"),
    ],
)
def test_rule_with_a_fault_raises_with_its_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(text)
    assert reason in raised.value.reason
    assert raised.value.column == column


# --- values


def test_rule_is_frozen_and_compares_without_its_line() -> None:
    assert parse_rule("192.168.1.38 x", 1) == parse_rule("192.168.1.38 x", 2)
    assert len({parse_rule("192.168.1.38 x", 1), parse_rule("192.168.1.38 x", 2)}) == 1
    with pytest.raises(FrozenInstanceError):
        parse_rule("192.168.1.38 x").line = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "other",
    [
        "192.168.1.38 y",
        "192.168.1.33 x",
        "192.168.1.38 path=x",
        "192.168.1.38 balance=least x",
        "192.168.1.38,192.168.1.33 x",
    ],
)
def test_rules_that_differ_are_not_equal(other: str) -> None:
    assert parse_rule("192.168.1.38 x") != parse_rule(other)


def test_networks_have_one_meaning_and_patterns_their_text() -> None:
    one, two = (
        parse_rule(f"::1 client={text}").conditions[0]
        for text in ("2001:DB8::/32,10.0.0.1", "10.0.0.1/32,2001:db8::/32")
    )
    assert one.meaning == two.meaning
    assert parse_rule("::1 path=^/a").conditions[0].meaning == "^/a"


# --- any text

WORDS = st.sampled_from(
    [
        *("192.168.1.38", "192.168.1.33,2001:db8::7", "1.2.3", ","),
        *("balance=rr", "balance=least", "balance=hash:client", "balance=hash:cookie.a", "balance=x", "balance="),
        *("host=a", "path=^/b", "header.x=1", "header.=1", "cookie.*=1"),
        *("client=10.0.0.0/8", "client=x", "octets=.", "port=8("),
        *("jpg$", "foo=bar", "(", "a b", ".*", "target=", "=", "é", "#"),
    ]
)  # fmt: skip
LINES = st.lists(WORDS | st.text(max_size=8), max_size=6).flatmap(
    lambda words: st.sampled_from([" ", "  ", "\t"]).map(lambda blank: blank.join(words))
)


@settings(deadline=None, max_examples=400)
@example("192.168.1.38 host=a  foo")
@given(text=LINES | st.text(max_size=60))
def test_any_line_is_a_rule_that_reads_the_same_again_or_a_fault_within_it(text: str) -> None:
    try:
        found: Rule | RuleError = parse_rule(text)
    except RuleError as error:
        found = error
    if isinstance(found, RuleError):
        assert 1 <= found.column <= len(text) + 1
    else:
        assert parse_rule(str(found)) == found


NAMES = st.text("abcxyz019-_.!#%&'`~", min_size=1, max_size=6)
KINDS = st.sampled_from([Kind.METHOD, Kind.TARGET, Kind.PATH, Kind.QUERY, Kind.HOST, Kind.SNI, Kind.ALPN, Kind.PORT])
FIELDS = st.builds(Field, KINDS) | st.builds(Field, st.sampled_from([Kind.HEADER, Kind.COOKIE]), NAMES)
PATTERNS = st.text("abAB.*^$|=/é,-#", min_size=1, max_size=8)
NETWORKS = st.lists(st.ip_addresses().map(str), min_size=1, max_size=3, unique=True).map(",".join)
CONDITIONS = st.one_of(
    st.tuples(FIELDS, PATTERNS),
    st.tuples(st.just(Field(Kind.OCTETS)), PATTERNS),
    st.tuples(st.just(Field(Kind.CLIENT)), NETWORKS),
)
BALANCES = st.sampled_from([Balance(), Balance(Method.LEAST)]) | st.builds(Balance, st.just(Method.HASH), FIELDS)
SERVERS = st.lists(st.ip_addresses(), min_size=1, max_size=4, unique=True).map(tuple)


@settings(deadline=None)
@given(
    servers=SERVERS,
    conditions=st.lists(CONDITIONS, min_size=1, max_size=4, unique_by=lambda each: each[0]),
    balance=BALANCES,
)
def test_any_rule_is_written_and_read_as_the_same(
    servers: tuple[Address, ...], conditions: list[tuple[Field, str]], balance: Balance
) -> None:
    try:
        rule = Rule(servers, tuple(Condition(*each) for each in conditions), balance)
    except RuleError:
        assume(False)
    assert parse_rule(str(rule)) == rule
    assert parse_rule(f" {rule}\t", 3).line == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.168.1.38:80 x", "'192.168.1.38:80' is no IPv4 or IPv6 address: write 192.168.1.38 alone"),
        ("192.168.1.38/32 x", "'192.168.1.38/32' is no IPv4 or IPv6 address: write 192.168.1.38 alone"),
        ("[2001:db8::7] x", "'[2001:db8::7]' is no IPv4 or IPv6 address: write 2001:db8::7 alone"),
        ("[2001:db8::7]:80 x", "'[2001:db8::7]:80' is no IPv4 or IPv6 address: write 2001:db8::7 alone"),
        ("2001:db8::7/128 x", "'2001:db8::7/128' is no IPv4 or IPv6 address: write 2001:db8::7 alone"),
        ("192.168.1.38 client=", "no pattern after `client=`: write client=0.0.0.0/0,::/0 for any, or leave it out"),
        ("192.168.1.38 host=", "no pattern after `host=`: write host=.* for any"),
    ],
)
def test_rule_that_is_nearly_right_the_remedy_is_told(text: str, reason: str) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(text)
    assert raised.value.reason == reason
