"""Patterns: compiled within bounds, cut off in time, and known to be final or not while octets still arrive."""

from __future__ import annotations

import time
from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tcpha.patterns import (
    PATTERN_LIMIT_OCTETS,
    CompiledPattern,
    Networks,
    RuleError,
    TimeLimit,
    compile_pattern,
    looks_ahead,
    search_within,
)

TIME_S = 0.5
CATASTROPHES = {
    r"(a|aa)+$": b"/" + b"a" * 100 + b"c",
    r"\A(?:\w|\w\w)*\Z": b"a" * 60 + b"-",
    r"^(?:a|b|ab)*$": b"ab" * 100 + b"!",
    r"(x+x+)+y": b"x" * 3000,
    r"(a+a+)+\1b$": b"a" * 3000,
    r"(.*)(.*)(.*)(.*)(.*)[^a]$": b"a" * 3000,
}
"""Patterns, and what somebody would send against them."""

# --- compiling


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
        ("(?u)x", "UNICODE"),
        ("(?L)x", r"\(\?L\) is not allowed"),
    ],
)
def test_pattern_that_would_exhaust_or_puzzle_the_process_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        compile_pattern(pattern)


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
def test_pattern_of_ordinary_size_is_compiled(pattern: str) -> None:
    assert compile_pattern(pattern).search(b"") is None or pattern == "(a{,1000}){,1000}"


PIECES = st.sampled_from([*"()[]{}*+?|\\a1,-^$.=!:<>é&", "(?", "(?P<", "\\p", "\\N", "||"])


@settings(deadline=None)
@given(pattern=st.lists(PIECES, max_size=14).map("".join))
def test_any_pattern_is_compiled_or_a_rule_error_with_a_column_of_it(pattern: str) -> None:
    try:
        found: CompiledPattern | RuleError = compile_pattern(pattern)
    except RuleError as error:
        found = error
    if isinstance(found, RuleError):
        assert 1 <= found.column <= len(pattern) + 1
        return
    with suppress(TimeoutError):
        found.search(b"/aaaa1.a", timeout=TIME_S)


def test_any_case_folds_letters_of_ascii_only() -> None:
    assert compile_pattern("Www", any_case=True).search(b"wWw") is not None
    assert compile_pattern("Www").search(b"www") is None
    assert compile_pattern("É", any_case=True).search("é".encode()) is None


# --- the time limit


@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_catastrophic_pattern_is_cut_off_soon_after_its_time(pattern: str) -> None:
    search = search_within(compile_pattern(pattern), pattern, TimeLimit(0.01))
    begun = time.process_time()
    with pytest.raises(TimeoutError):
        search(CATASTROPHES[pattern])
    assert time.process_time() - begun < 0.2


@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_catastrophic_pattern_without_a_limit_takes_longer_than_its_time(pattern: str) -> None:
    """Else the test above would say nothing."""
    with pytest.raises(TimeoutError):
        compile_pattern(pattern).search(CATASTROPHES[pattern], timeout=TIME_S)


QUICK = ["[a-z]a[a-z]a[a-z]a[a-z]a[a-z]ab", "aaaab|aaaab|aaaab|aaaab|aaaab|ab", "$|$|$|$|$|$|$|$|$|$|$|$|$|$|$|b"]


@pytest.mark.parametrize("pattern", QUICK)
def test_search_that_asks_no_clock_is_quick_on_the_worst_it_may_get(pattern: str) -> None:
    search = search_within(compile_pattern(pattern), pattern, TimeLimit(1e-9))
    octets = b"a" * 4096
    begun = time.process_time()
    for _ in range(10):
        search(octets)
    assert (time.process_time() - begun) / 10 < 0.005


@pytest.mark.parametrize(
    ("pattern", "octets"), [("[a-z]a[a-z]a[a-z]ab", b"a" * 60000), ("[a-z]a" * 11 + "b", b"a" * 4000)]
)
def test_search_of_many_octets_or_for_a_long_pattern_asks_the_clock(pattern: str, octets: bytes) -> None:
    with pytest.raises(TimeoutError):
        search_within(compile_pattern(pattern), pattern, TimeLimit(1e-9))(octets)


@settings(deadline=None)
@given(octets=st.binary(max_size=40) | st.text("ajpg./$", max_size=12).map(str.encode))
def test_search_finds_the_same_with_and_without_the_clock(octets: bytes) -> None:
    for pattern in ("jpg$", "^/a", "a|g", r"\.", "[^a]", "(?:jpg)$"):
        compiled = compile_pattern(pattern)
        found = search_within(compiled, pattern, TimeLimit(TIME_S))(octets)
        assert (found is None) == (compiled.search(octets) is None)


# --- while octets arrive


@pytest.mark.parametrize(
    "pattern",
    ["^SSH-", "foo", "a|b", r"^\x16\x03", "[^a]b?", "(?:ab)+", "(?i)ssh", "(?P<n>a)", "a{2,3}?", ".*", r"\d+\.", ""],
)
def test_pattern_without_a_look_ahead_is_known_as_such(pattern: str) -> None:
    assert not looks_ahead(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "foo$",
        r"foo\b",
        r"\Bx",
        "a(?!b)",
        "a(?=b)",
        "(?<!a)b",
        "a++b",
        "a*+",
        "a?+",
        "a{2}+",
        "(?>ab|a)b",
        r"a\Z",
        r"(a)\1",
        "(?r)a",
        "(?x)a",
        "(*PRUNE)a",
        "a{e<=1}",
        "(?(1)a|b)",
        "[[:alpha:]$",
    ],
)
def test_pattern_that_may_look_ahead_is_known_as_such(pattern: str) -> None:
    assert looks_ahead(pattern)


ATOMS = [
    *"aabb.^$|()*+?-", "[ab]", "[^a]", "[^]a]", "[[:alpha:]]", "{2}", "{,1}", "(?:", "(?i)", "(?i:", "(?s)", "(?P<n>",
    "(?=", "(?!", "(?<!a)", "(?>", r"\b", r"\Z", r"\A", r"\1", r"\w", r"\x61", "*+", "++", "?+", "+?", "??", "(?R)",
    "(?r)", "(?m)", "(*PRUNE)", "{e<=1}", r"\K", r"\X",
]  # fmt: skip
STREAMS = st.text("aab\n.", min_size=1, max_size=8).map(str.encode)


@settings(deadline=None, max_examples=400)
@example(["^", "(?>", "a", "b", "|", "a", ")", "b"], b"abx")
@example(["a", "$"], b"ab")
@given(atoms=st.lists(st.sampled_from(ATOMS), min_size=1, max_size=6), octets=STREAMS)
def test_pattern_without_a_look_ahead_is_never_decided_otherwise_by_more_octets(
    atoms: list[str], octets: bytes
) -> None:
    pattern = "".join(atoms)
    try:
        compiled = compile_pattern(pattern)
    except RuleError:
        assume(False)
    if looks_ahead(pattern):
        return
    is_found = compiled.search(octets, timeout=TIME_S) is not None
    for end in range(1, len(octets)):
        so_far = compiled.search(octets[:end], timeout=TIME_S, partial=True)
        if so_far is None:
            assert not is_found
        elif not so_far.partial:
            assert is_found


# --- networks


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("::/0", "2001:db8::1", "0.0.0.0"),
        ("2001:db8::/32,192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("10.0.0.0/8,192.0.2.1,2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
    ],
)
def test_address_is_found_in_its_network_only(text: str, inside: str, outside: str) -> None:
    networks = Networks(text)
    assert networks.find(ip_address(inside).packed) == ip_address(inside).packed
    assert networks.find(ip_address(outside).packed) is None


@given(address=st.ip_addresses(), network=st.ip_addresses(v=4), length=st.integers(0, 32))
def test_any_address_is_found_as_the_standard_library_finds_it(address: object, network: object, length: int) -> None:
    expected = ip_network(f"{network}/{length}", strict=False)
    client = ip_address(str(address))
    assert (Networks(str(expected)).find(client.packed) is not None) == (client in expected)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "a network is missing"),
        ("10.0.0.0/8,", 12, "a network is missing"),
        ("10.0.0.0/8,,x", 12, "a network is missing"),
        ("10.0.0.0/8,x", 12, "'x' is no address and no ADDRESS/LENGTH"),
        ("10.0.0.1/8", 1, "has bits beyond its length: write 10.0.0.0/8"),
        ("10.0.0.0/33", 1, "is no address"),
        ("10.0.0.0/8,10.0.0.0/8", 12, "10.0.0.0/8 is given twice"),
        ("10.0.0.1,10.0.0.1/32", 10, "10.0.0.1/32 is given twice"),
        ("::ffff:192.0.2.1", 1, "is IPv4: write it as such"),
        ("fe80::1%eth0", 1, "has no scope"),
        ("10.0.0.*", 1, "is no address"),
    ],
)
def test_networks_with_a_fault_raise_with_its_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(RuleError) as raised:
        Networks(text)
    assert reason in raised.value.reason
    assert raised.value.column == column


def test_networks_have_one_spelling() -> None:
    assert str(Networks("2001:DB8:0::/32,10.0.0.1")) == str(Networks("10.0.0.1/32,2001:db8::/32"))


def test_networks_cover_what_lies_within_them() -> None:
    assert Networks("10.0.0.0/8,::/0").covers(Networks("10.1.0.0/16,2001:db8::1"))
    assert not Networks("10.1.0.0/16").covers(Networks("10.0.0.0/8"))
    assert not Networks("10.0.0.0/8").covers(Networks("10.1.0.0/16,::/0"))
    assert not Networks("0.0.0.0/0").covers(Networks("::/0"))
