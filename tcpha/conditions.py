"""One condition of a rule, and whether a connection meets it.

Knows fields and patterns; no server and no other condition. Octets of an unknown protocol have no end that anybody
could see: while more may come, a condition on `octets` may be undecided. A pattern is decided once it is found, or once
it can no longer begin to match; one that looks ahead (`patterns.looks_ahead`) only when nothing more will be looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from tcpha.everything import takes_every
from tcpha.fields import Field, Kind, Reader, reader_of
from tcpha.patterns import CompiledPattern, Found, Networks, TimeLimit, compile_pattern, looks_ahead, search_within


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must be like.

    `networks` is set for the field `client`, `compiled` for all others. Raises: RuleError, its column in `pattern`.
    """

    field: Field
    pattern: str
    compiled: CompiledPattern | None = dataclasses.field(init=False, repr=False, compare=False)
    networks: Networks | None = dataclasses.field(init=False, repr=False, compare=False)
    takes_every: bool = dataclasses.field(init=False, repr=False, compare=False)
    """Is its pattern found in whatever its field may hold? The usual last rule is not searched for."""

    def __post_init__(self) -> None:
        # A frozen dataclass leaves no other way to fill in a field that follows from another.
        is_client = self.field.kind is Kind.CLIENT
        object.__setattr__(self, "networks", Networks(self.pattern) if is_client else None)
        compiled = None if is_client else _compiled(self.field, self.pattern)
        object.__setattr__(self, "compiled", compiled)
        takes = compiled is not None and takes_every(self.field.kind, self.pattern, compiled)
        object.__setattr__(self, "takes_every", takes)

    def __str__(self) -> str:
        """As it stands in a rule: ``FIELD=REGEX``."""
        return f"{self.field}={self.pattern}"

    @property
    def meaning(self) -> str:
        """The pattern; networks in their one spelling."""
        return self.pattern if self.networks is None else str(self.networks)


def _compiled(field: Field, pattern: str) -> CompiledPattern:
    # Names are shown to rules in lower case. Folding costs a little, so only where it can make a difference.
    any_case = field.kind in (Kind.HOST, Kind.SNI) and pattern != pattern.lower()
    return compile_pattern(pattern, any_case=any_case)


class Verdict(Enum):
    """What came of one condition."""

    MET = "matches"
    NOT_MET = "does not match"
    ABSENT = "is not there"
    TIMED_OUT = "takes too long"
    UNDECIDED = "may still match"
    """Only while more octets may come."""


@dataclass(frozen=True, slots=True)
class Tested:
    """One condition, the octets it looked at (None: there are none), and what came of it."""

    condition: Condition
    octets: bytes | None
    verdict: Verdict


class Check:
    """One condition as it is asked."""

    __slots__ = ("_match_more", "condition", "grows", "match", "read", "slot")

    def __init__(self, condition: Condition, limit: TimeLimit, slot: int = 0) -> None:
        """`limit` bounds the matches; `slot` is for whoever keeps the fields of several checks."""
        self.condition = condition
        self.slot = slot
        self.read: Reader = reader_of(condition.field)
        self.grows = condition.field.kind is Kind.OCTETS
        """May there be more of its field later?"""
        self.match = _match_of(condition, limit)
        """Octets -> None if the condition is not met; None where any octets will do. Raises: TimeoutError."""
        self._match_more = _match_more_of(condition, limit) if self.grows else None

    def so_far(self, octets: bytes) -> Verdict:
        """Judge octets that more may follow. Raises: TimeoutError."""
        if self.match is None:
            return Verdict.MET
        if self._match_more is None:
            return Verdict.UNDECIDED
        found = self._match_more(octets)
        if found is None:
            return Verdict.NOT_MET
        return Verdict.UNDECIDED if found.partial else Verdict.MET

    def verdict(self, octets: bytes | None) -> Verdict:
        """Judge what was read, behind which nothing more is looked at."""
        if octets is None:
            return Verdict.ABSENT
        try:
            return Verdict.MET if self.match is None or self.match(octets) is not None else Verdict.NOT_MET
        except TimeoutError:
            return Verdict.TIMED_OUT


def _match_of(condition: Condition, limit: TimeLimit) -> Callable[[bytes], object | None] | None:
    networks, compiled = condition.networks, condition.compiled
    if compiled is None:
        return networks.find if networks is not None else None
    if condition.field.kind is Kind.PORT:
        return partial(limit.run, compiled.fullmatch)
    if condition.takes_every:
        return None
    return search_within(compiled, condition.pattern, limit)


def _match_more_of(condition: Condition, limit: TimeLimit) -> Callable[[bytes], Found | None] | None:
    if condition.compiled is None or looks_ahead(condition.pattern):
        return None
    return partial(limit.run, partial(condition.compiled.search, partial=True))
