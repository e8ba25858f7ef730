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
from math import inf
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from tcpha.balance import Address, Endpoint, Least, Load, Rendezvous, RoundRobin, unloaded
from tcpha.conditions import Check, Tested, Verdict
from tcpha.fields import (
    OF_ANY,
    UNKNOWN_PROTOCOL,
    Connection,
    Field,
    Kind,
    Seen,
    Spoken,
    are_meant_for,
    reader_of,
)
from tcpha.patterns import RuleError, TimeLimit, TimeSpent
from tcpha.rule_text import Balance, Method, Rule, parse_rule

__all__ = [
    "Address",
    "Choice",
    "Connection",
    "Endpoint",
    "NoChoice",
    "Patience",
    "Rule",
    "RuleError",
    "RuleSet",
    "parse_rule",
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


class Patience(Struct, gc=False):
    """What is left of the time that the matches of one connection may take, however often it is asked about."""

    left_s: float
    slow: frozenset[int] = frozenset()
    """Rules, by their index, that took too long once: they do not match, and are not tried again."""


class _Undecided(Enum):
    """More octets may still decide for an earlier rule."""

    UNDECIDED = 0


class _Unread(Enum):
    """A field that no rule has looked at yet."""

    UNREAD = 0


_UNREAD: Final = _Unread.UNREAD
_UNDECIDED: Final = _Undecided.UNDECIDED
_Values: TypeAlias = list[bytes | Literal[_Unread.UNREAD] | None]
"""The fields of one connection, by their slots: each is read once, however many rules look at it."""


class _Candidate:
    """One rule as it is asked.

    `checks` is None for the ordinary rule, a pattern in the target: that is `search`, or None if any target will do.
    `only`: the choice of a rule that has one server.
    """

    __slots__ = ("_key", "_pool", "checks", "index", "is_for_octets", "of_any", "only", "search")

    def __init__(self, index: int, rule: Rule, servers: Sequence[Endpoint], checks: Sequence[Check]) -> None:
        """`servers` are those of the rule."""
        is_ordinary = rule.pattern is not None
        self.search: Callable[[bytes], object | None] | None = checks[0].match if is_ordinary else None
        # What may stay undecided comes last: if something else is not met, nothing has to be waited for.
        self.checks = None if is_ordinary else tuple(sorted(checks, key=lambda check: check.grows))
        self.only = Choice(servers[0], index) if len(servers) == 1 else None
        kinds = {condition.field.kind for condition in rule.conditions}
        key = rule.balance.key
        meant = {each for each in Spoken if are_meant_for(kinds, each)}
        self.is_for_octets = meant == {Spoken.OTHER} and (key is None or key.kind in OF_ANY)
        """Does it decide by octets, whatever protocol they are of?"""
        self.of_any = tuple(check for check in self.checks or () if check.condition.field.kind in OF_ANY)
        self.index = index
        self._pool = _pool(rule.balance, servers)
        self._key = None if rule.balance.key is None else reader_of(rule.balance.key)

    def pick(
        self, seen: Seen, connection: Connection | None, excluding: Collection[Address], load: Load
    ) -> Choice | NoChoice:
        """Choose among several servers."""
        key = None if self._key is None else self._key(seen, connection)
        server = self._pool.pick(key, excluding, load)
        return NoChoice.UNAVAILABLE if server is None else Choice(server, self.index)


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

    `match_time_s` bounds one match of one pattern, in seconds, and twice as much those of one connection together; one
    that exceeds it is counted in `timeouts`. `clock` (seconds) tells how long matches took that were not given up.
    Raises: ValueError if a rule names an address that no server has.
    """

    __slots__ = (
        "_candidates",
        "_fields",
        "_limit",
        "_match_time_s",
        "_slow",
        "looks_at_connection",
        "needs_octets",
        "rules",
        "timeouts",
    )

    def __init__(
        self,
        rules: Sequence[Rule],
        servers: Sequence[Endpoint],
        match_time_s: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        endpoints = {server.addr: server for server in servers}
        slots: dict[Field, int] = {}
        candidates = []
        self._match_time_s = match_time_s
        self._limit = TimeLimit(match_time_s) if clock is None else TimeLimit(match_time_s, clock)
        for index, rule in enumerate(rules):
            missing = [address for address in rule.servers if address not in endpoints]
            if missing:
                raise ValueError(f"rule {rule.when!r} names {missing[0]}, which no server has")
            checks = [Check(each, self._limit, slots.setdefault(each.field, len(slots))) for each in rule.conditions]
            candidates.append(_Candidate(index, rule, [endpoints[address] for address in rule.servers], checks))
        self.rules = tuple(rules)
        self._candidates = tuple(candidates)
        self._fields = len(slots)
        self._slow: Rule | None = None
        self.needs_octets: Final = any(field.kind is Kind.OCTETS for field in slots)
        """Does any rule look at `octets`? If not, no rule is for a protocol that nobody knows."""
        self.looks_at_connection: Final = any(field.kind in OF_ANY for field in slots) or any(
            rule.balance.key is not None and rule.balance.key.kind in OF_ANY for rule in rules
        )
        """Does any rule look at more than octets: at the client, or the port?"""
        self.timeouts = 0
        """Matches that were given up because they took too long, or not begun because no time was left."""

    def patience(self) -> Patience:
        """Return what the matches of a new connection may take."""
        return Patience(2 * self._match_time_s)

    def take_slow(self) -> Rule | None:
        """Return the latest rule of which a match was given up, once."""
        slow, self._slow = self._slow, None
        return slow

    def takes_octets(self, port: int) -> bool:
        """Return whether connections to a virtual port are octets to all rules, whatever protocol they look like.

        So it is where every rule that may decide there looks at octets, and beside them at port and client only: nobody
        asks for what an inspector could tell. Behind one that takes all octets no other can decide.
        """
        number = b"%d" % port
        looks = False
        for candidate in self._candidates:
            self._limit.left_s = 2 * self._match_time_s
            if not all(
                _may_match(check, number) for check in candidate.of_any if check.condition.field.kind is Kind.PORT
            ):
                continue
            if not candidate.is_for_octets:
                return False
            looks = True
            others = [check for check in candidate.of_any if check.condition.field.kind is not Kind.PORT]
            if all(check.grows and check.match is None for check in others):
                break  # nothing gets past it
        return looks

    def choose(
        self,
        seen: Seen,
        connection: Connection | None = None,
        excluding: Collection[Address] = (),
        *,
        load: Load = unloaded,
        patience: Patience | None = None,
    ) -> Choice | NoChoice:
        """Return a server of the first rule that matches, or why there is none.

        Of a rule's servers those in `excluding` are passed over. The first match decides even if it has none left: a
        rule further down never takes over what an earlier one claims. Without `connection` nothing is known of client
        and port. `load` is asked for ``balance=least`` only. `patience`: the connection's, if it is asked about again.
        """
        candidate = self._first(seen, connection, patience)
        if candidate is None or candidate is _UNDECIDED:
            return NoChoice.UNROUTED
        only = candidate.only
        if only is None:
            return candidate.pick(seen, connection, excluding, load)
        return NoChoice.UNAVAILABLE if excluding and only.server.addr in excluding else only

    def is_undecided(self, seen: Seen, connection: Connection | None = None, patience: Patience | None = None) -> bool:
        """Return whether more octets may still change which rule decides; nobody's turn is used up by asking."""
        return self._first(seen, connection, patience, final=False) is _UNDECIDED

    def claims_octets(
        self, seen: Seen, connection: Connection | None, patience: Patience | None = None, *, final: bool
    ) -> bool:
        """Return whether octets that look like a known protocol, but are no complete or no right one, are a rule's.

        `seen` are these as octets of an unknown protocol. Before the end (`final`) only if no rule in front of that one
        can match any more, whatever the protocol turns out to be; at the end if it is the first that matches octets.
        """
        if not self.needs_octets:
            return False
        if final:
            found = self._first(seen, connection, patience)
            return isinstance(found, _Candidate) and found.is_for_octets
        self._limit.left_s = 2 * self._match_time_s if patience is None else patience.left_s
        is_claimed = self._is_claimed_early(seen, connection, patience)
        if patience is not None:
            patience.left_s = self._limit.left_s
        return is_claimed

    def _is_claimed_early(self, seen: Seen, connection: Connection | None, patience: Patience | None) -> bool:
        values: _Values = [_UNREAD] * self._fields
        for candidate in self._candidates:
            if patience is not None and candidate.index in patience.slow:
                continue
            is_met = self._is_met(candidate, candidate.of_any, values, seen, connection, patience, final=False)
            if is_met is not False:
                return is_met is True and candidate.is_for_octets
        return False

    def _first(
        self, seen: Seen, connection: Connection | None, patience: Patience | None, *, final: bool = True
    ) -> _Candidate | Literal[_Undecided.UNDECIDED] | None:
        """Return the first rule that matches; None if none does."""
        limit = self._limit
        if patience is None:
            limit.left_s = 2 * self._match_time_s
            return self._search(seen, connection, None, final)
        limit.left_s = patience.left_s
        try:
            return self._search(seen, connection, patience, final)
        finally:
            patience.left_s = limit.left_s

    def _search(
        self, seen: Seen, connection: Connection | None, patience: Patience | None, final: bool
    ) -> _Candidate | Literal[_Undecided.UNDECIDED] | None:
        target = seen.target
        slow = patience.slow if patience is not None else None
        values: _Values | None = None
        for candidate in self._candidates:
            if slow and candidate.index in slow:
                continue
            checks = candidate.checks
            if checks is not None:
                if values is None:
                    values = [_UNREAD] * self._fields
                is_met = self._is_met(candidate, checks, values, seen, connection, patience, final)
                if is_met:
                    return candidate
                if is_met is None:
                    return _UNDECIDED
            elif target is not None:
                search = candidate.search
                try:
                    if search is None or search(target) is not None:
                        return candidate
                except TimeoutError as error:
                    self._note_slow(candidate, patience, error)
        return None

    def _is_met(
        self,
        candidate: _Candidate,
        checks: tuple[Check, ...],
        values: _Values,
        seen: Seen,
        connection: Connection | None,
        patience: Patience | None,
        final: bool,
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
            except TimeoutError as error:
                self._note_slow(candidate, patience, error)
                return False
        return True

    def _note_slow(self, candidate: _Candidate, patience: Patience | None, error: TimeoutError) -> None:
        self.timeouts += 1
        if patience is not None:
            patience.slow |= {candidate.index}
        if not isinstance(error, TimeSpent):
            self._slow = self.rules[candidate.index]

    def explain(
        self, rule_index: int, seen: Seen, connection: Connection | None = None, patience: Patience | None = None
    ) -> tuple[Tested, ...]:
        """Return what comes of every condition of a rule, in their order, also of those behind one that is not met.

        `patience`: that of the choice that is explained; the rules that were too slow then are so here.
        """
        self._limit.left_s = inf
        found = []
        for condition in self.rules[rule_index].conditions:
            check = Check(condition, self._limit)
            octets = check.read(seen, connection)
            found.append(Tested(condition, octets, check.verdict(octets)))
        is_slow = patience is not None and rule_index in patience.slow
        if is_slow and all(each.verdict is Verdict.MET for each in found):
            found[-1] = Tested(found[-1].condition, found[-1].octets, Verdict.TIMED_OUT)
        return tuple(found)


def _may_match(check: Check, octets: bytes) -> bool:
    try:
        return check.match is None or check.match(octets) is not None
    except TimeoutError:
        return True
