r"""One line of rules <-> a value.

Knows the grammar and what of a rule can be told without a server list::

    rule = ADDRESS[,ADDRESS...] [balance=BALANCE] PATTERN
    rule = ADDRESS[,ADDRESS...] [balance=BALANCE] FIELD=REGEX [FIELD=REGEX ...]

    BALANCE = rr | least | hash:FIELD
    FIELD = method | target | path | query | host | header.NAME | cookie.NAME | sni | alpn | octets | port | client

Words are separated by blanks. The first form is that of TCPHA-0.3 and means ``target=PATTERN``, where PATTERN is the
rest of the line, inner blanks and ``#`` included; blanks at its end do not count (write ``[ ]`` or ``\x20``). In the
second all fields must match. The first word after the addresses and ``balance`` decides: if it is FIELD= with a FIELD
of the list, the rule has the second form, else the first. So

- ``foo=bar`` and ``Host=a`` are patterns, as in TCPHA-0.3, and so is ``foo host=a``, blank included: a field counts
  only from the first word on. `rule_warnings` points at patterns that look like this by mistake;
- ``host=a foo`` is an error, as is a REGEX with a blank: once fields are used, every word is one. Write ``\x20``;
- a field given twice is an error: both would have to match, which is hardly what was meant. Write ``a|b`` for either,
  ``(?=.*a).*b`` for both;
- ``header.=x`` is an error, a NAME is missing; ``header.*=x`` is a pattern, because ``*`` stands in no NAME;
- ``balance=`` is always an option: another value than the listed ones is an error, and so is a second ``balance=``, or
  one behind a field. A pattern like this is written ``target=balance=3``, one like ``host=a`` ``target=host=a``.

Every REGEX is searched in its field, except two: that of `port` must match the whole decimal number, and `client` takes
networks (``192.0.2.0/24,2001:db8::1``). Those of `host` and `sni` are folded in case, as names are (RFC 4343).
`octets` is no key for ``balance=hash``: how many there are when the choice is made is chance.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from tcpha.balance import Address
from tcpha.conditions import Condition
from tcpha.fields import FIELDS_LISTED, Field, Kind, parse_field
from tcpha.patterns import RuleError

SERVERS_OF_A_RULE: Final = 255
"""Most servers in one rule: the digest that nodes compare counts them in one octet."""

_FORM: Final = "a rule is ADDRESS PATTERN or ADDRESS FIELD=REGEX"
_TARGET: Final = Field(Kind.TARGET)


class Method(StrEnum):
    """How one of several servers is picked."""

    IN_TURN = "rr"
    LEAST = "least"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Balance:
    """How one of several servers is picked. `key`: what is hashed (`Method.HASH` only)."""

    method: Method = Method.IN_TURN
    key: Field | None = None

    def __str__(self) -> str:
        """As it stands in a rule: ``rr``, ``hash:client``."""
        return self.method.value if self.key is None else f"{self.method}:{self.key}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A connection that meets all `conditions` (at least one) goes to one of `servers` (at least one).

    `line` is where the rule was read (0: not from a file); it takes no part in comparisons.
    """

    servers: tuple[Address, ...]
    conditions: tuple[Condition, ...]
    balance: Balance = Balance()
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def pattern(self) -> str | None:
        """The pattern of a rule that only looks at the target."""
        only = self.conditions[0]
        return only.pattern if len(self.conditions) == 1 and only.field == _TARGET else None

    @property
    def when(self) -> str:
        """Its conditions, as they stand in a rule."""
        pattern = self.pattern
        if pattern is not None and not _reads_otherwise(pattern):
            return pattern
        return " ".join(map(str, self.conditions))

    def __str__(self) -> str:
        """As it could stand in a file: of a rule that was read, `parse_rule` makes an equal one."""
        balance = "" if self.balance == Balance() else f"balance={self.balance} "
        return f"{','.join(map(str, self.servers))} {balance}{self.when}"


# --- reading

_WORD: Final = re.compile(r"[^ \t]+")
_BALANCE: Final = "balance="


def parse_rule(text: str, line: int = 0) -> Rule:
    """Read a rule in the grammar above. Raises: RuleError, its column counted in `text`."""
    body = text.rstrip(" \t")
    words = list(_WORD.finditer(body))
    if not words:
        raise RuleError(f"no address: {_FORM}")
    servers = _parse_servers(words[0])
    balance, rest = Balance(), words[1:]
    if rest and rest[0][0].startswith(_BALANCE):
        balance, rest = _parse_balance(rest[0]), rest[1:]
        if rest and rest[0][0].startswith(_BALANCE):
            raise RuleError("balance is given twice", rest[0].start() + 1)
    if not rest:
        raise RuleError(f"no pattern: {_FORM}", len(body) + 1)
    start = rest[0].start()
    if _field_of(rest[0]) is None:
        conditions: tuple[Condition, ...] = (_condition(_TARGET, body[start:], start),)
    else:
        conditions = _parse_conditions(rest)
    return Rule(servers, conditions, balance, line)


def _parse_servers(word: re.Match[str]) -> tuple[Address, ...]:
    """Read ``ADDRESS[,ADDRESS...]``. Raises: RuleError with the column of the faulty one."""
    servers: dict[Address, None] = {}
    column = word.start() + 1
    for name in word[0].split(","):
        if not name:
            raise RuleError("an address is missing beside a comma: write ADDRESS,ADDRESS without blanks", column)
        try:
            address = ip_address(name)
        except ValueError:
            raise RuleError(f"{name[:60]!r} is no IPv4 or IPv6 address{_meant(name)}", column) from None
        if address in servers:
            raise RuleError(f"{address} is given twice in one rule", column)
        if len(servers) == SERVERS_OF_A_RULE:
            raise RuleError(f"more than {SERVERS_OF_A_RULE} addresses in one rule", column)
        servers[address] = None
        column += len(name) + 1
    return tuple(servers)


_DECORATED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+|/128)?|([0-9.]+)(?::[0-9]+|/32)|([0-9A-Fa-f:.]+)/128")


def _meant(name: str) -> str:
    """Say what to write instead of an address with a port, a length or brackets; nothing if it is none."""
    found = _DECORATED.fullmatch(name)
    return "" if found is None else f": write {found[1] or found[2] or found[3]} alone"


def _parse_balance(word: re.Match[str]) -> Balance:
    column = word.start() + len(_BALANCE) + 1
    name, colon, key = word[0][len(_BALANCE) :].partition(":")
    if name == Method.HASH and colon:
        return Balance(Method.HASH, _parse_key(key, column + len(name) + 1))
    if colon or name not in (Method.IN_TURN, Method.LEAST):
        reason = f"{word[0][:60]!r}: balance is rr, least or hash:FIELD (a pattern like this: target={_BALANCE}...)"
        raise RuleError(reason, column)
    return Balance(Method(name))


def _parse_key(name: str, column: int) -> Field:
    try:
        key = parse_field(name)
    except RuleError as error:
        raise RuleError(error.reason, column - 1 + error.column) from None
    if key is None:
        raise RuleError(f"{name[:60]!r} is no field: hash takes {FIELDS_LISTED.replace(' octets,', '')}", column)
    if key.kind is Kind.OCTETS:
        raise RuleError("octets is no key: how many there are when the choice is made is chance", column)
    return key


def _field_of(word: re.Match[str]) -> Field | None:
    """Return the field that a word of the form FIELD=REGEX names, None if it has not this form. Raises: RuleError."""
    name, equals, _ = word[0].partition("=")
    if not equals:
        return None
    try:
        return parse_field(name)
    except RuleError as error:
        raise RuleError(error.reason, word.start() + error.column) from None


def _parse_conditions(words: Sequence[re.Match[str]]) -> tuple[Condition, ...]:
    conditions: dict[Field, Condition] = {}
    for word in words:
        column = word.start() + 1
        what = _field_of(word)
        if what is None:
            raise RuleError(_no_field(word[0]), column)
        if what in conditions:
            raise RuleError(f"{what} is given twice: write one pattern, a|b for either", column)
        name, _, pattern = word[0].partition("=")
        if not pattern:
            remedy = "0.0.0.0/0,::/0 for any, or leave it out" if what.kind is Kind.CLIENT else ".* for any"
            raise RuleError(f"no pattern after `{name}=`: write {name}={remedy}", column + len(word[0]))
        conditions[what] = _condition(what, pattern, word.start() + len(name) + 1)
    return tuple(conditions.values())


def _no_field(word: str) -> str:
    if word.startswith(_BALANCE):
        return "balance comes before the fields"
    return f"{word[:60]!r} is no FIELD=REGEX: every word after the first field is one (a blank in a REGEX: \\x20)"


def _condition(what: Field, pattern: str, offset: int) -> Condition:
    """Raises: RuleError, its column counted from `offset` characters before the pattern."""
    try:
        return Condition(what, pattern)
    except RuleError as error:
        raise RuleError(error.reason, offset + error.column) from None


def _reads_otherwise(pattern: str) -> bool:
    """Return whether a rule that begins with this pattern of a target would be read as something else."""
    word = _WORD.match(pattern)
    if word is None or word[0].startswith(_BALANCE):
        return True
    try:
        return _field_of(word) is not None
    except RuleError:
        return True
