"""What in one rule is probably not meant, told by how its patterns are written.

Knows conditions of one rule, no other rule and no server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from tcpha.conditions import Condition
from tcpha.everything import FIRST_OCTETS, PROBE_TIME_S
from tcpha.fields import NAMED, Kind, parse_field
from tcpha.patterns import CompiledPattern, RuleError, looks_ahead

_FIELD_WITHIN: Final = re.compile(r"[ \t]([a-z]+(?:\.[^ \t=]*)?)[ \t]*=")
_WORD_BEFORE: Final = re.compile(r"(!?)([A-Za-z]+)(\.[^ \t=]*)?[ \t]*(!?)=")
_OPTIONS: Final = (*(kind.value for kind in Kind), "balance")
_SET_OR_ESCAPE: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^ ]")
_UNLESS: Final = re.compile(r"[|(]|[ \t][*?{]")
_NO_BLANKS: Final = "it can never win: a target has no blanks"


def mistakes_of_pattern(pattern: str) -> Iterator[str]:
    """Yield what is odd about the pattern of a rule that only looks at the target."""
    within = next((name for name in _FIELD_WITHIN.findall(pattern) if is_field(name)), None)
    if within is not None:
        yield f"`{within}=` is part of the pattern: fields count from the first word on only{_and_never(pattern)}"
        return
    word = _WORD_BEFORE.match(pattern)
    if word is not None:
        yield _odd_word(word) + _and_never(pattern)
    elif _has_blank(pattern):
        yield _NO_BLANKS + _blank_hint(pattern)


def _odd_word(word: re.Match[str]) -> str:
    near = get_close_matches(word[2].lower(), _OPTIONS, n=1, cutoff=0.8)
    named = f"{near[0]}.NAME" if near and near[0] in NAMED else near[0] if near else ""
    part = f"`{word[0]}` is part of the pattern"
    if word[1] or word[4]:
        return f"{part}: there is no negation; put a rule for what is excepted before this one"
    if named:
        return f"{part}: did you mean {named}=?" + (" (no blank before `=`)" if word[0][-2] in " \t" else "")
    return f"{part}, no field: if that is meant, write {word[2]}[=]"


def _and_never(pattern: str) -> str:
    return f"; {_NO_BLANKS}" if _has_blank(pattern) else ""


def _has_blank(pattern: str) -> bool:
    """Return whether a match must hold a blank; in doubt not."""
    bare = _SET_OR_ESCAPE.sub("x", pattern)
    return (" " in bare or "\t" in bare) and _UNLESS.search(bare) is None


def _blank_hint(pattern: str) -> str:
    if re.search(r"[ \t]#", pattern):
        return " (no comment can follow a rule)"
    if re.search(r"[ \t](?:balance=|hash:)", pattern):
        return " (balance=... stands before the pattern)"
    return ""


def is_field(name: str) -> bool:
    """Return whether a word would be read as a field, or as a faulty one."""
    try:
        return parse_field(name) is not None
    except RuleError:
        return True


def mistakes_of_condition(condition: Condition) -> Iterator[str]:
    """Yield what is odd about the pattern of any field."""
    pattern, kind = condition.pattern, condition.field.kind
    if kind is Kind.OCTETS and (reason := _why_slow(condition)) is not None:
        yield reason
    bare = re.sub(r"\[[^\]]*\]|\(\?", "x", pattern)
    if "|" in bare:
        return
    if kind is Kind.HOST and re.search(r":(?:[0-9]|\\d)", bare):
        yield "it can never win: host is without its port; for the port there is port="
    if kind in (Kind.HOST, Kind.SNI) and bare.endswith(r"\.$"):
        yield f"it can never win: {kind} is without a dot at its end"
    if kind is Kind.PATH and re.search(r"\\\?(?![*?{])", bare):
        yield "it can never win: path ends before the `?`; what follows is query"
    if kind is Kind.QUERY and re.match(r"\^\\\?(?![*?{])", bare):
        yield "it can never win: query begins behind the `?`"


def _why_slow(condition: Condition) -> str | None:
    """Say why connections of an unknown protocol wait until no more octets are looked at; None if they need not."""
    if condition.takes_every:
        return None
    waits = "connections of other protocols wait until inspect_time or inspect_octets"
    if looks_ahead(condition.pattern):
        return f"its pattern for octets looks at what follows ($, \\b, (?=, (?!, ...): {waits}"
    if _never_fails(condition.compiled):
        return f"its pattern for octets may match however late: {waits}; anchor it with ^"
    return None


def _never_fails(pattern: CompiledPattern | None) -> bool:
    """Return whether there is no beginning after which the pattern is known not to match."""
    try:
        return pattern is not None and all(
            pattern.search(sample, timeout=PROBE_TIME_S, partial=True) is not None for sample in FIRST_OCTETS
        )
    except TimeoutError:
        return True
