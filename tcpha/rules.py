"""Ordered rules -> the server of a connection.

Pure: knows no file, no socket and no state of a server; what it must know of those are arguments. The one clock here is
inside the `regex` package, which ends a match that takes too long. Of its own it remembers whose turn it is.

Rules are tried in file order, and the first whose conditions are all met decides (grammar: `rule_text`). A field that
the connection does not have meets no condition. Targets normally arrive percent-encoded (RFC 3986, 2.1) and are not
decoded first: write ``%20`` to match a space. A match that exceeds its time is counted and is no match, so the next
rule is tried: a rule is no access control.

While more octets of an unknown protocol may come, a rule that looks at them may be undecided (`conditions`). Then the
choice waits, even if a later rule matches: so it is the same however the octets were cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from tcpha.balance import Address, Endpoint, Least, Load, Rendezvous, RoundRobin, unloaded
from tcpha.conditions import Check, Condition, Tested, Verdict
from tcpha.fields import OF_ANY, UNKNOWN_PROTOCOL, Connection, Field, Kind, Seen, reader_of
from tcpha.patterns import RuleError
from tcpha.rule_text import Balance, Method, Rule, parse_rule, target_rule

__all__ = [
    "Address",
    "Balance",
    "Choice",
    "Condition",
    "Connection",
    "Endpoint",
    "NoChoice",
    "Rule",
    "RuleError",
    "RuleSet",
    "Seen",
    "Tested",
    "Verdict",
    "parse_rule",
    "target_rule",
]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule set chose: the server, and which rule did (index from 0, in file order)."""

    server: Endpoint
    rule_index: int


class NoChoice(Enum):
    """Why a rule set chose no server."""

    UNROUTED = "no rule matches"
    UNAVAILABLE = "none of its servers can be used"
    WAIT = "more octets may still decide for an earlier rule"


class _Unread(Enum):
    """A field that no rule has looked at yet."""

    UNREAD = 0


_UNREAD: Final = _Unread.UNREAD
_Values: TypeAlias = list[bytes | Literal[_Unread.UNREAD] | None]
"""The fields of one connection, by their slots: each is read once, however many rules look at it."""


class _Candidate:
    """One rule as it is asked.

    `checks` is None for the ordinary rule, a pattern in the target: that is `search`, or None if any target will do.
    `only`: the choice of a rule that has one server.
    """

    __slots__ = ("_index", "_key", "_pool", "checks", "only", "search")

    def __init__(self, index: int, rule: Rule, servers: Sequence[Endpoint], checks: Sequence[Check]) -> None:
        """`servers` are those of the rule."""
        is_ordinary = rule.pattern is not None
        self.search: Callable[[bytes], object | None] | None = checks[0].match if is_ordinary else None
        # What may stay undecided comes last: if something else is not met, nothing has to be waited for.
        self.checks = None if is_ordinary else tuple(sorted(checks, key=lambda check: check.grows))
        self.only = Choice(servers[0], index) if len(servers) == 1 else None
        self._index = index
        self._pool = _pool(rule.balance, servers)
        self._key = None if rule.balance.key is None else reader_of(rule.balance.key)

    def pick(
        self, seen: Seen, connection: Connection | None, excluding: Collection[Address], load: Load
    ) -> Choice | NoChoice:
        """Choose among several servers."""
        key = None if self._key is None else self._key(seen, connection)
        server = self._pool.pick(key, excluding, load)
        return NoChoice.UNAVAILABLE if server is None else Choice(server, self._index)


def _pool(balance: Balance, servers: Sequence[Endpoint]) -> RoundRobin | Least | Rendezvous:
    match balance.method:
        case Method.IN_TURN:
            return RoundRobin(servers)
        case Method.LEAST:
            return Least(servers)
        case Method.HASH:
            return Rendezvous(servers)


class RuleSet:
    """Rules in file order over the servers they name.

    `match_time_s` bounds one match of one pattern, in seconds; one that exceeds it is counted in `timeouts`.
    Raises: ValueError if a rule names an address that no server has.
    """

    __slots__ = ("_candidates", "_fields", "_match_time_s", "needs_octets", "rules", "timeouts")

    def __init__(self, rules: Sequence[Rule], servers: Sequence[Endpoint], match_time_s: float) -> None:
        endpoints = {server.addr: server for server in servers}
        slots: dict[Field, int] = {}
        candidates = []
        for index, rule in enumerate(rules):
            missing = [address for address in rule.servers if address not in endpoints]
            if missing:
                raise ValueError(f"rule {rule.when!r} names {missing[0]}, which no server has")
            checks = [Check(each, match_time_s, slots.setdefault(each.field, len(slots))) for each in rule.conditions]
            candidates.append(_Candidate(index, rule, [endpoints[address] for address in rule.servers], checks))
        self.rules = tuple(rules)
        self._candidates = tuple(candidates)
        self._fields = len(slots)
        self._match_time_s = match_time_s
        self.needs_octets: Final = any(field.kind is Kind.OCTETS for field in slots)
        """Does any rule look at `octets`? If not, no rule is for a protocol that nobody knows."""
        self.timeouts = 0
        """Matches that were given up because they took longer than `match_time_s`."""

    def takes_octets(self, port: int) -> bool:
        """Return whether connections to a virtual port are octets to all rules, whatever protocol they look like.

        So it is where every rule that may decide there looks at octets, port and client only, and one of them at
        octets: nobody asks for what an inspector could tell. By port or client alone a rule means requests.
        """
        number = b"%d" % port
        kinds: set[Kind] = set()
        for rule in self.rules:
            checks = [Check(condition, self._match_time_s) for condition in rule.conditions]
            others = [check for check in checks if check.condition.field.kind is not Kind.PORT]
            if not all(_may_match(check, number) for check in checks if check not in others):
                continue
            kinds.update(check.condition.field.kind for check in others)
            if rule.balance.key is not None:
                kinds.add(rule.balance.key.kind)
            if all(check.grows and check.match is None for check in others):
                break  # nothing gets past it
        return Kind.OCTETS in kinds and kinds <= OF_ANY

    def choose(
        self,
        seen: Seen,
        connection: Connection | None = None,
        excluding: Collection[Address] = (),
        *,
        load: Load = unloaded,
        final: bool = True,
    ) -> Choice | NoChoice:
        """Return a server of the first rule that matches, or why there is none.

        Of a rule's servers those in `excluding` are passed over. The first match decides even if it has none left: a
        rule further down never takes over what an earlier one claims. Without `connection` nothing is known of client
        and port. `load` is asked for ``balance=least`` only. `final` is false while more octets may come that would be
        looked at; that matters, and `NoChoice.WAIT` is possible, only for octets of an unknown protocol.
        """
        candidate = self._first(seen, connection, final)
        if isinstance(candidate, NoChoice):
            return candidate
        only = candidate.only
        if only is None:
            return candidate.pick(seen, connection, excluding, load)
        return NoChoice.UNAVAILABLE if excluding and only.server.addr in excluding else only

    def is_undecided(self, seen: Seen, connection: Connection | None = None) -> bool:
        """Return whether more octets may still change which rule decides; nobody's turn is used up by asking."""
        return self._first(seen, connection, final=False) is NoChoice.WAIT

    def _first(self, seen: Seen, connection: Connection | None, final: bool) -> _Candidate | NoChoice:
        target = seen.target
        values: _Values | None = None
        for candidate in self._candidates:
            if candidate.checks is not None:
                if values is None:
                    values = [_UNREAD] * self._fields
                is_met = self._is_met(candidate.checks, values, seen, connection, final)
                if is_met:
                    return candidate
                if is_met is None:
                    return NoChoice.WAIT
            elif target is not None:
                search = candidate.search
                try:
                    if search is None or search(target) is not None:
                        return candidate
                except TimeoutError:
                    self.timeouts += 1
        return NoChoice.UNROUTED

    def _is_met(
        self, checks: tuple[Check, ...], values: _Values, seen: Seen, connection: Connection | None, final: bool
    ) -> bool | None:
        """All conditions of a rule in one; None while that is undecided."""
        for check in checks:
            octets = values[check.slot]
            if octets is _UNREAD:
                octets = values[check.slot] = check.read(seen, connection)
            if octets is None:
                return False
            match = check.match
            try:
                if check.grows and not final and seen.protocol == UNKNOWN_PROTOCOL:
                    verdict = check.so_far(octets)
                    if verdict is not Verdict.MET:
                        return None if verdict is Verdict.UNDECIDED else False
                elif match is not None and match(octets) is None:
                    return False
            except TimeoutError:
                self.timeouts += 1
                return False
        return True

    def explain(
        self, rule_index: int, seen: Seen, connection: Connection | None = None, *, final: bool = True
    ) -> tuple[Tested, ...]:
        """Return what comes of every condition of a rule, in their order, also of those behind one that is not met."""
        may_grow = not final and seen.protocol == UNKNOWN_PROTOCOL
        found = []
        for condition in self.rules[rule_index].conditions:
            check = Check(condition, self._match_time_s)
            octets = check.read(seen, connection)
            found.append(Tested(condition, octets, check.verdict(octets, may_grow)))
        return tuple(found)


def _may_match(check: Check, octets: bytes) -> bool:
    try:
        return check.match is None or check.match(octets) is not None
    except TimeoutError:
        return True
