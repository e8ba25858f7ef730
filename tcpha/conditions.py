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
from typing import Final

from tcpha.fields import Field, Kind, Reader, reader_of
from tcpha.patterns import CompiledPattern, Found, Networks, compile_pattern, looks_ahead, search_within

_IN_ANY_TARGET: Final = frozenset((".", ".*", ".+", "^", "^.*", "^.*$", ".*$"))
"""Found in every target, which is never empty and has no line end: the usual last rule is not searched for."""
_IN_ANY_OCTETS: Final = frozenset((".*", "^", "^.*"))


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must be like.

    `networks` is set for the field `client`, `compiled` for all others. Raises: RuleError, its column in `pattern`.
    """

    field: Field
    pattern: str
    compiled: CompiledPattern | None = dataclasses.field(init=False, repr=False, compare=False)
    networks: Networks | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A frozen dataclass leaves no other way to fill in a field that follows from another.
        is_client = self.field.kind is Kind.CLIENT
        object.__setattr__(self, "networks", Networks(self.pattern) if is_client else None)
        object.__setattr__(self, "compiled", None if is_client else _compiled(self.field, self.pattern))

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

    def __init__(self, condition: Condition, match_time_s: float, slot: int = 0) -> None:
        """`match_time_s` bounds a match; `slot` is for whoever keeps the fields of several checks."""
        self.condition = condition
        self.slot = slot
        self.read: Reader = reader_of(condition.field)
        self.grows = condition.field.kind is Kind.OCTETS
        """May there be more of its field later?"""
        self.match = _match_of(condition, match_time_s)
        """Octets -> None if the condition is not met; None where any octets will do. Raises: TimeoutError."""
        self._match_more = _match_more_of(condition, match_time_s) if self.grows else None

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

    def verdict(self, octets: bytes | None, may_grow: bool) -> Verdict:
        """Judge what was read; `may_grow`: more octets of an unknown protocol may follow."""
        if octets is None:
            return Verdict.ABSENT
        try:
            if may_grow and self.grows:
                return self.so_far(octets)
            return Verdict.MET if self.match is None or self.match(octets) is not None else Verdict.NOT_MET
        except TimeoutError:
            return Verdict.TIMED_OUT


def _match_of(condition: Condition, match_time_s: float) -> Callable[[bytes], object | None] | None:
    networks, compiled = condition.networks, condition.compiled
    if compiled is None:
        return networks.find if networks is not None else None
    if condition.field.kind is Kind.PORT:
        return partial(compiled.fullmatch, timeout=match_time_s)
    if condition.pattern in (_IN_ANY_TARGET if condition.field.kind is Kind.TARGET else _IN_ANY_OCTETS):
        return None
    return search_within(compiled, condition.pattern, match_time_s)


def _match_more_of(condition: Condition, match_time_s: float) -> Callable[[bytes], Found | None] | None:
    if condition.compiled is None or looks_ahead(condition.pattern):
        return None
    return partial(condition.compiled.search, timeout=match_time_s, partial=True)
