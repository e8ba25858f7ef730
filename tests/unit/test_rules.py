"""Choosing by rules: which one decides, which of its servers, and what is said when none can be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.balance import Address
from tcpha.fields import Connection, Seen
from tcpha.rules import Choice, Endpoint, NoChoice
from tests.unit.rule_sets import ENDLESS, EXPONENTIAL, HERE, NAMES, SERVERS, A, B, C, chosen, rule_set
from tests.unit.seen import connection, first, hello, request

# --- patterns for the target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a/b.jpg", "b1"),
        (b"/a/b.jpg?x", "a2"),
        (b"/", "a2"),
        (b"http://example.com/a.jpg", "b1"),
        (b"*", "a2"),
        (b"/\xff\xfejpg", "b1"),
    ],
)
def test_original_rules_target_is_searched_and_first_match_wins(target: bytes, expected: str) -> None:
    assert chosen(rule_set("b jpg$", "a .*"), request(target)) == expected


def test_two_matching_rules_order_decides() -> None:
    assert chosen(rule_set("a a", "b b"), request(b"/ba")) == "a1"
    assert chosen(rule_set("b b", "a a"), request(b"/ba")) == "b1"


def test_choice_names_endpoint_and_rule_index() -> None:
    rules = rule_set("b jpg$", "c png$")
    assert rules.choose(request(b"/x.png")) == Choice(Endpoint(C, 668), 1)


def test_no_matching_rule_is_unrouted() -> None:
    assert chosen(rule_set("b jpg$", "a host=x"), request(b"/x.png")) is NoChoice.UNROUTED


def test_first_match_is_excluded_no_later_rule_takes_over() -> None:
    rules = rule_set("b jpg$", "a path=.*", "c .*")
    assert chosen(rules, request(b"/x.jpg"), excluding={B}) is NoChoice.UNAVAILABLE
    assert chosen(rules, request(b"/x.jpg"), excluding=[A]) == "b1"
    assert chosen(rules, request(b"/x.png"), excluding={A, C}) is NoChoice.UNAVAILABLE


def test_pattern_outside_ascii_matches_the_targets_utf8_octets() -> None:
    rules = rule_set("b /é$")
    assert chosen(rules, request("/é".encode())) == "b1"
    assert chosen(rules, request("/é".encode("latin-1"))) is NoChoice.UNROUTED


def test_rule_of_an_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'x' names 2001:db8::7, which no server has"):
        rule_set("c x", servers=SERVERS[:2])


@pytest.mark.parametrize("pattern", [".*", ".", "^", "^.*$", ".+"])
def test_usual_last_rule_takes_every_request_and_nothing_else(pattern: str) -> None:
    rules = rule_set(f"a {pattern}")
    assert chosen(rules, request(b"/x")) == "a1"
    assert chosen(rules, hello(b"x")) is NoChoice.UNROUTED
    assert chosen(rules, first(b"SSH-2.0")) is NoChoice.UNROUTED


# --- fields


@pytest.mark.parametrize(
    ("line", "seen", "where"),
    [
        ("method=^(GET|HEAD)$", request(method=b"HEAD"), HERE),
        ("path=^/a$", request(b"/a?b"), HERE),
        ("query=^b=1", request(b"/a?b=1"), HERE),
        ("host=^www\\.", request(host=b"WWW.example.com:80"), HERE),
        ("host=^WWW\\.Example\\.com$", request(host=b"www.example.com"), HERE),
        ("header.user-agent=curl", request(user_agent="curl/8"), HERE),
        ("header.x=.*", request(x=""), HERE),
        ("cookie.id=^7$", request(cookie="a=1; id=7"), HERE),
        ("sni=^www\\.", hello(b"www.example.com"), HERE),
        ("sni=EXAMPLE", hello(b"www.example.com"), HERE),
        ("alpn=\\bh2\\b", hello(b"x", b"http/1.1", b"h2"), HERE),
        ("octets=^SSH-", first(b"SSH-2.0"), HERE),
        ("octets=^GET", request(), HERE),
        ("port=80", hello(), HERE),
        ("port=80|443", request(), connection(port=443)),
        ("client=198.51.100.0/24", request(), HERE),
        ("client=10.0.0.0/8,2001:db8::/32", hello(), connection("2001:db8::9")),
        ("host=a path=/b", request(b"/b", host=b"a"), HERE),
        ("target=b method=GET", request(b"/b"), HERE),
    ],
)
def test_condition_that_is_met_its_rule_wins(line: str, seen: Seen, where: Connection) -> None:
    assert chosen(rule_set(f"b {line}", "a port=.*"), seen, where) == "b1"


@pytest.mark.parametrize(
    ("line", "seen", "where"),
    [
        ("method=GET", request(method=b"PUT"), HERE),
        ("method=get", request(), HERE),
        ("path=b", request(b"/a?b"), HERE),
        ("query=.*", request(b"/a"), HERE),
        ("host=.*", request(), HERE),
        ("header.x=.", request(x=""), HERE),
        ("header.x=.*", request(), HERE),
        ("cookie.id=.*", request(cookie="ID=7"), HERE),
        ("sni=.*", request(host=b"a"), HERE),
        ("sni=.*", hello(), HERE),
        ("target=.*", hello(b"a"), HERE),
        ("octets=SSH", first(b"X"), HERE),
        ("port=8", request(), HERE),
        ("port=80", request(), connection(port=8080)),
        ("port=80", request(), None),
        ("client=198.51.101.0/24", request(), HERE),
        ("client=0.0.0.0/0", request(), connection("2001:db8::9")),
        ("client=0.0.0.0/0,::/0", request(), None),
        ("host=a path=/c", request(b"/b", host=b"a"), HERE),
        ("host=b path=/b", request(b"/b", host=b"a"), HERE),
        ("sni=.* path=.*", request(b"/b"), HERE),
    ],
)
def test_condition_that_is_not_met_the_next_rule_is_tried(line: str, seen: Seen, where: Connection | None) -> None:
    rules = rule_set(f"b {line}", "a octets=.*")
    assert chosen(rules, seen, where) == "a2"
    assert rules.timeouts == 0


class Counted:
    """A request that counts how often its host is asked for."""

    def __init__(self) -> None:
        self._request = request(host=b"h")
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        self.reads += name == "host"
        return getattr(self._request, name)


def test_field_of_many_rules_is_read_once_a_choice() -> None:
    rules = rule_set("a host=x", "a host=y method=GET", "b host=h")
    seen = Counted()
    assert chosen(rules, seen) == "b3"  # type: ignore[arg-type]
    assert seen.reads == 1


def test_rules_without_octets_need_none() -> None:
    assert not rule_set("a .*", "a sni=x", "a client=::/0 port=80").needs_octets
    assert rule_set("a .*", "a octets=x port=80").needs_octets


def test_no_rule_looks_at_client_or_port_nothing_need_be_known_of_the_connection() -> None:
    assert not rule_set("a .*", "a sni=x", "a,b balance=hash:host host=x").looks_at_connection
    for line in ("a client=::/0", "a host=x port=80", "a,b balance=hash:client host=x"):
        assert rule_set("a .*", line).looks_at_connection, line


# --- the time limit


@pytest.mark.parametrize("line", [EXPONENTIAL, f"path={EXPONENTIAL}", f"method=GET path={EXPONENTIAL}"])
def test_match_over_its_time_is_counted_and_the_next_rule_is_tried(line: str) -> None:
    rules = rule_set("a png$", f"b {line}", "c .*", match_time_s=0.005)
    assert chosen(rules, request(ENDLESS)) == "c3"
    assert rules.timeouts == 1
    assert chosen(rules, request(ENDLESS)) == "c3"
    assert rules.timeouts == 2
    assert chosen(rules, request(ENDLESS + b".png")) == "a1"
    assert chosen(rules, request(b"/aaa")) == "b2"
    assert chosen(rules, request(b"/b")) == "c3"
    assert rules.timeouts == 2


# --- several servers


def test_servers_of_a_rule_take_turns_and_each_rule_has_its_own() -> None:
    rules = rule_set("a,b x", "a,b,c .*")
    assert [chosen(rules, request(b"/x")) for _ in range(3)] == ["a1", "b1", "a1"]
    assert [chosen(rules, request(b"/y")) for _ in range(4)] == ["a2", "b2", "c2", "a2"]
    assert chosen(rules, request(b"/x")) == "b1"


def test_servers_that_are_excluded_are_passed_over() -> None:
    rules = rule_set("a,b,c .*")
    assert [chosen(rules, request(), excluding={A, C}) for _ in range(3)] == ["b1"] * 3
    assert chosen(rules, request(), excluding={A, B, C}) is NoChoice.UNAVAILABLE
    assert chosen(rule_set("a .*"), request(), excluding={A}) is NoChoice.UNAVAILABLE


def test_weights_of_the_servers_count() -> None:
    rules = rule_set("a,b .*", servers=(Endpoint(A, 666, 3), Endpoint(B, 666)))
    assert "".join(str(chosen(rules, request()))[0] for _ in range(8)) == "aabaaaba"


def test_least_asks_for_the_load_of_the_rules_servers_only() -> None:
    rules = rule_set("b,c balance=least .*")
    loads = {B: 4, C: 3}
    choice = rules.choose(request(), HERE, load=lambda addr: loads[addr])
    assert choice == Choice(SERVERS[2], 0)
    assert [chosen(rules, request()) for _ in range(2)] != ["c1", "c1"], "without loads they take turns"


@pytest.mark.parametrize("key", ["client", "cookie.id", "host", "path"])
def test_hash_keeps_a_key_at_its_server_on_every_front_end(key: str) -> None:
    front_ends = [rule_set(f"a,b,c balance=hash:{key} .*") for _ in range(2)]
    found = set()
    for number in range(40):
        seen = request(b"/%d" % number, host=b"host-%d" % number, cookie=f"id={number}")
        where = connection(f"198.51.100.{number}")
        (server,) = {chosen(rules, seen, where) for rules in front_ends for _ in range(3)}
        found.add(server)
        others = {chosen(rules, seen, where, {NAMES[str(server)[0]]}) for rules in front_ends}
        assert len(others) == 1
        assert server not in others
    assert found == {"a1", "b1", "c1"}


def test_hash_of_what_is_not_there_lets_the_servers_take_turns() -> None:
    rules = rule_set("a,b balance=hash:cookie.id .*")
    assert [chosen(rules, request(cookie="x=1")) for _ in range(4)] == ["a1", "b1", "a1", "b1"]


@settings(deadline=None)
@given(target=st.binary(max_size=64), excluding=st.sets(st.sampled_from([A, B, C])))
def test_any_target_gets_the_first_matching_rules_server(target: bytes, excluding: set[Address]) -> None:
    found = chosen(rule_set("b jpg$", "c ^/x", "a .*"), request(target), excluding=excluding)
    # `$` also matches before a line feed that ends the target.
    expected = "b1" if target.endswith((b"jpg", b"jpg\n")) else "c2" if target.startswith(b"/x") else "a3"
    assert found == (NoChoice.UNAVAILABLE if NAMES[expected[0]] in excluding else expected)
