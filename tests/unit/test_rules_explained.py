"""Explaining a choice: what came of each condition, and that it is what the choice went by."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.balance import Address
from tcpha.conditions import Verdict
from tcpha.fields import Connection, Seen
from tcpha.rules import Choice, NoChoice
from tests.unit.rule_sets import ENDLESS, EXPONENTIAL, HERE, SERVERS, A, B, C, rule_set
from tests.unit.seen import connection, first, hello, request


def test_explanation_has_every_condition_in_order_with_its_octets_and_verdict() -> None:
    rules = rule_set("b sni=x path=^/a header.x=1 client=198.51.100.7", match_time_s=0.005)
    tested = rules.explain(0, request(b"/b", x="1"), HERE)
    assert [(str(each.condition.field), each.octets, each.verdict) for each in tested] == [
        ("sni", None, Verdict.ABSENT),
        ("path", b"/b", Verdict.NOT_MET),
        ("header.x", b"1", Verdict.MET),
        ("client", b"\xc6\x33\x64\x07", Verdict.MET),
    ]


def test_explanation_of_a_match_over_its_time_says_so_and_counts_nothing() -> None:
    rules = rule_set(f"b {EXPONENTIAL}", match_time_s=0.005)
    (tested,) = rules.explain(0, request(ENDLESS))
    assert tested.verdict is Verdict.TIMED_OUT
    assert rules.timeouts == 0


CONDITIONS = [
    *("jpg$", "target=.*", "path=^/a", "query=.", "host=^a", "host=B", "header.x=1", "cookie.id=.*", "method=GET"),
    *("sni=a", "alpn=h2", "octets=^GET", "octets=b$", "octets=.*", "port=80", "port=44", "client=198.51.100.0/24"),
    *("client=::/0", "path=jpg$"),
]  # fmt: skip
SEEN = st.one_of(
    st.builds(
        request,
        st.sampled_from([b"/a.jpg", b"/b?jpg", b"*"]),
        st.sampled_from([b"GET", b"PUT"]),
        st.sampled_from([b"", b"a", b"b:80"]),
        x=st.sampled_from(["1", "2"]),
        cookie=st.sampled_from(["", "id=1"]),
    ),
    st.builds(hello, st.sampled_from([None, b"a", b"b"]), st.sampled_from([b"h2", b"x"])),
    st.builds(first, st.sampled_from([b"G", b"GETb", b"ab"])),
)


@settings(deadline=None, max_examples=300)
@given(
    rules=st.lists(st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3), min_size=1, max_size=5),
    seen=SEEN,
    where=st.sampled_from([None, HERE, connection("2001:db8::1", 443)]),
    excluding=st.sets(st.sampled_from([A, B, C])),
)
def test_any_choice_is_that_of_the_first_rule_whose_explanation_is_all_met(
    rules: list[list[str]], seen: Seen, where: Connection | None, excluding: set[Address]
) -> None:
    lines = []
    for number, conditions in enumerate(rules):
        fields = list({each.partition("=")[0]: each for each in conditions if "=" in each}.values())
        lines.append(f"{'abc'[number % 3]} {' '.join(fields) or 'jpg$'}")
    chooser = rule_set(*lines, match_time_s=1)
    expected: object = NoChoice.UNROUTED
    for index in range(len(lines)):
        verdicts = {each.verdict for each in chooser.explain(index, seen, where)}
        if verdicts == {Verdict.MET}:
            server = SERVERS[index % 3]
            expected = NoChoice.UNAVAILABLE if server.addr in excluding else Choice(server, index)
            break
    assert chooser.choose(seen, where, excluding) == expected
