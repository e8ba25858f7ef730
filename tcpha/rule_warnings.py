"""What is legal in a list of rules but probably not meant.

Knows rules, and which fields are seen together; no server's state and no file. A warning must be worth its line: a list
of rules for requests that ends with ``.*``, as TCPHA-0.3 recommends, draws none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tcpha.balance import Endpoint
from tcpha.conditions import Condition
from tcpha.everything import PROBE_TIME_S
from tcpha.fields import OF_ANY, OF_REQUESTS, OF_TLS, Field, Kind, Spoken, are_meant_for
from tcpha.patterns import CompiledPattern, Networks
from tcpha.rule_mistakes import mistakes_of_condition, mistakes_of_pattern
from tcpha.rule_text import Rule

_SEEN: Final = {
    Spoken.HTTP: OF_REQUESTS | OF_ANY,
    Spoken.TLS: OF_TLS | OF_ANY,
    Spoken.OTHER: OF_ANY,
}
"""Which fields a connection of each kind has, or may have."""
_ANSWERED: Final = {
    Spoken.HTTP: "is answered 503; end with `rule = ADDRESS .*`",
    Spoken.TLS: "is ended with an alert; end with `rule = ADDRESS port=.*`",
    Spoken.OTHER: "is closed; end with `rule = ADDRESS port=.*`",
}


@dataclass(frozen=True, slots=True)
class Served:
    """What a configuration serves: the virtual ports, and the versions (4, 6) of the virtual addresses."""

    ports: Collection[int] = (80,)
    families: Collection[int] = (4, 6)


Case: TypeAlias = tuple[Spoken, int]
"""A kind of connection to one of the ports."""


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far a rule reaches.

    `seen`: the cases in which all its fields can be there; `all_of`: those of them of which it takes every connection;
    `asked`, `networks`: its conditions, those for the client apart.
    """

    rule: Rule
    seen: frozenset[Case]
    all_of: frozenset[Case]
    asked: frozenset[tuple[Field, str]]
    networks: Networks | None


def rule_warnings(rules: Sequence[Rule], servers: Sequence[Endpoint], served: Served = Served()) -> tuple[str, ...]:
    """Return one sentence for everything that is legal but probably not meant."""
    reaches = [_reach(rule, served) for rule in rules]
    named = {address for rule in rules for address in rule.servers}
    return (
        *_of_rules(reaches),
        *_of_missing_catch_alls(reaches, served),
        *_of_refused_tls(reaches, served),
        *(f"server {each.addr} is named by no rule: it gets nothing" for each in servers if each.addr not in named),
    )


def _named(rule: Rule) -> str:
    where = f" (line {rule.line})" if rule.line else ""
    return f"rule '{rule.when[:60]}'{where}"  # as it stands in the file, no backslash doubled


# --- rules that never win


def _spoken_by(rule: Rule) -> frozenset[Spoken]:
    """Return the kinds of connections on which all fields of a rule can be seen; often one, at times none."""
    kinds = {condition.field.kind for condition in rule.conditions}
    return frozenset(spoken for spoken in Spoken if kinds <= _SEEN[spoken])


def _reach(rule: Rule, served: Served) -> _Reach:
    seen = {
        (spoken, port)
        for spoken in _spoken_by(rule)
        for port in served.ports
        if all(_is_port(each.compiled, port) for each in rule.conditions if each.field.kind is Kind.PORT)
    }
    return _Reach(
        rule,
        frozenset(seen),
        frozenset(case for case in seen if all(_matches_every(each, served) for each in rule.conditions)),
        frozenset((each.field, each.pattern) for each in rule.conditions if each.networks is None),
        next((each.networks for each in rule.conditions if each.networks is not None), None),
    )


def _of_rules(reaches: Sequence[_Reach]) -> Iterator[str]:
    taken: dict[Case, Rule] = {}
    for index, reach in enumerate(reaches):
        reason = _why_never(reach, reaches[:index], taken)
        if reason is None:
            yield from _of_one(reach.rule)
        else:
            yield f"{_named(reach.rule)} can never win: {reason}"
        for case in reach.all_of:
            taken.setdefault(case, reach.rule)


def _why_never(reach: _Reach, before: Sequence[_Reach], taken: Mapping[Case, Rule]) -> str | None:
    rule = reach.rule
    if not _spoken_by(rule):
        return _why_never_together(rule)
    if not reach.seen:
        return "its port is no vport"
    if reach.seen <= taken.keys():
        takers = sorted({taken[case] for case in reach.seen}, key=lambda taker: taker.line)
        verb = "matches" if len(takers) == 1 else "match"
        return f"{' and '.join(map(_named, takers))} before it {verb} every {_called(reach.seen)}"
    for earlier in before:
        if earlier.asked == reach.asked and earlier.networks is reach.networks is None:
            return f"{_named(earlier.rule)} before it has the same pattern"
        if _claims(earlier, reach):
            return f"{_named(earlier.rule)} before it matches whatever it does"
    return None


def _why_never_together(rule: Rule) -> str:
    of_tls = next(str(each.field) for each in rule.conditions if each.field.kind in OF_TLS)
    of_request = next(str(each.field) for each in rule.conditions if each.field.kind in OF_REQUESTS)
    return f"{of_tls} and {of_request} are never seen together: TLS stays end to end"


def _called(cases: Collection[Case]) -> str:
    kinds = {spoken for spoken, _ in cases}
    return "connection" if len(kinds) > 1 else kinds.pop().value


def _claims(earlier: _Reach, later: _Reach) -> bool:
    """Return whether all that an earlier rule asks is asked by the later one, too."""
    if not earlier.asked <= later.asked:
        return False
    if earlier.networks is None:
        return True
    return later.networks is not None and earlier.networks.covers(later.networks)


def _is_port(pattern: CompiledPattern | None, port: int) -> bool:
    try:
        return pattern is None or pattern.fullmatch(b"%d" % port, timeout=PROBE_TIME_S) is not None
    except TimeoutError:
        return False


# --- rules that match everything


def _matches_every(condition: Condition, served: Served) -> bool:
    """Return whether a condition is met by every connection that can have its field, on a port that it asks for."""
    match condition.field.kind:
        case Kind.TARGET | Kind.METHOD | Kind.OCTETS:
            return condition.takes_every
        case Kind.PORT:
            return True
        case Kind.CLIENT:
            everybody = Networks(",".join("0.0.0.0/0" if family == 4 else "::/0" for family in served.families))
            return condition.networks is not None and condition.networks.covers(everybody)
        case _:
            return False  # a connection that could have it need not


def _of_missing_catch_alls(reaches: Sequence[_Reach], served: Served) -> Iterator[str]:
    """A kind of connection that rules mean must have a rule that takes what the others leave.

    For requests on every port; for TLS and other protocols one port will do: whoever serves requests on port 80 and
    TLS on 443 has no use for TLS on 80.
    """
    meant = {case for reach in reaches for case in reach.seen if are_meant_for(_kinds(reach.rule), case[0])}
    caught = {case for reach in reaches for case in reach.all_of}
    for spoken in Spoken:
        missing = [port for port in served.ports if (spoken, port) in meant - caught]
        will_do = spoken is not Spoken.HTTP and any((spoken, port) in meant & caught for port in served.ports)
        if missing and not will_do:
            where = f" to port {missing[0]}" if len(missing) < len(served.ports) else ""
            yield f"no rule matches every {spoken.value}{where}: what no rule matches {_ANSWERED[spoken]}"


_TLS_PORTS: Final = (443, 8443)
"""Ports to which clients hardly send anything but TLS."""


def _of_refused_tls(reaches: Sequence[_Reach], served: Served) -> Iterator[str]:
    taken = {port for reach in reaches for spoken, port in reach.seen if spoken is Spoken.TLS}
    for port in served.ports:
        if port in _TLS_PORTS and port not in taken:
            yield f"TLS on port {port} is refused: no rule takes it; there is `rule = ADDRESS port={port}`, or sni="


def _kinds(rule: Rule) -> frozenset[Kind]:
    return frozenset(condition.field.kind for condition in rule.conditions)


# --- rules that were meant otherwise


def _of_one(rule: Rule) -> Iterator[str]:
    if rule.pattern is not None:
        yield from (f"{_named(rule)}: {reason}" for reason in mistakes_of_pattern(rule.pattern))
    key = rule.balance.key
    if key is not None and not any(key.kind in _SEEN[spoken] for spoken in _spoken_by(rule)):
        yield f"{_named(rule)}: hash:{key} is never seen with its other fields: its servers take turns"
    for condition in rule.conditions:
        yield from (f"{_named(rule)}: {reason}" for reason in mistakes_of_condition(condition))
