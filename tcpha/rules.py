"""Ordered rules -> the server of a request.

Pure: knows no file, no socket and no state of a server, only the octets of one request target. The one clock here is
inside the `regex` package, which ends a match that takes too long.

A rule is ``ADDRESS PATTERN``, as in TCPHA-0.3: the pattern is a regular expression that is *searched* in the request
target (RFC 9112, 3.2), so ``jpg$`` matches ``/a/b.jpg``. The first rule in file order that matches wins. New is
``ADDRESS,ADDRESS PATTERN``: the first of these servers that may be used gets the request.

Patterns work on octets. Their text is encoded as UTF-8, the encoding of the file it stands in and of what clients
percent-encode; Latin-1 would give a pattern another meaning than its file shows. The consequence: outside ASCII one
character is several octets, so ``é+`` or ``[é]`` do not mean what they seem to, and ``(?i)`` folds ASCII letters only.
Targets normally arrive percent-encoded (RFC 3986, 2.1) and are not decoded first: write ``%20`` to match a space.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol, TypeAlias

import regex  # type: ignore[import-untyped]

from tcpha.errors import TcphaError

Address: TypeAlias = IPv4Address | IPv6Address

PATTERN_LIMIT_OCTETS: Final = 4096
"""Longest pattern, in octets."""

REPEAT_LIMIT: Final = 65536
"""Most items that a pattern's repeat counts may multiply to; `regex` writes them all out, and no target is longer."""

SERVERS_OF_A_RULE: Final = 255
"""Most servers in one rule: the digest that nodes compare counts them in one octet."""


class RuleError(TcphaError):
    """A rule that cannot be used. `column` is where in the rule's text, in characters, from 1."""

    def __init__(self, reason: str, column: int = 1) -> None:
        super().__init__(f"{reason} (column {column})")
        self.reason = reason
        self.column = column


class Targeted(Protocol):
    """What a rule looks at: anything that has a request target."""

    @property
    def target(self) -> bytes:
        """The request target as it came (RFC 9112, 3.2)."""


class CompiledPattern(Protocol):
    """A compiled pattern of the `regex` package, as far as it is used here."""

    def search(self, octets: bytes, /, *, timeout: float) -> object | None:
        """Look for the pattern anywhere in `octets`; `timeout` in seconds. Raises: TimeoutError."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port (1..65535): a ``server`` or ``fe`` line."""

    addr: Address
    port: int

    def __str__(self) -> str:
        """As it stands in the file: ``ADDRESS PORT``."""
        return f"{self.addr} {self.port}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests whose target has `pattern` in it go to the first of `servers` that may be used.

    `line` is where the rule was read (0: not from a file); it takes no part in comparisons.
    Raises: RuleError if the pattern cannot be compiled, with the column in the pattern.
    """

    servers: tuple[Address, ...]
    pattern: str
    line: int = field(default=0, compare=False)
    compiled: CompiledPattern = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A frozen dataclass leaves no other way to fill in a field that follows from another.
        object.__setattr__(self, "compiled", _compile(self.pattern))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule set chose: the server, and which rule did (index from 0, in file order)."""

    server: Endpoint
    rule_index: int


def parse_rule(text: str, line: int = 0) -> Rule:
    r"""Read ``ADDRESS[,ADDRESS...] PATTERN``. Everything after the blanks that follow the addresses is the pattern.

    There is no blank in the list of addresses. Inner blanks and ``#`` belong to the pattern; blanks at the end do not
    (write ``[ ]`` or ``\x20``). Raises: RuleError, its column counted in `text`.
    """
    body = text.strip(" \t")
    start = text.index(body)
    names, pattern = [*re.split(r"[ \t]+", body, maxsplit=1), ""][:2]
    servers = _parse_servers(names, start + 1)
    if not pattern:
        raise RuleError("no pattern after the address: a rule is ADDRESS PATTERN", start + len(body) + 1)
    try:
        return Rule(servers, pattern, line)
    except RuleError as error:
        raise RuleError(error.reason, start + len(body) - len(pattern) + error.column) from None


def _parse_servers(names: str, column: int) -> tuple[Address, ...]:
    """Read ``ADDRESS[,ADDRESS...]``, which begins at `column`. Raises: RuleError with the column of the faulty one."""
    servers: dict[Address, None] = {}
    for name in names.split(","):
        if not name and names:
            raise RuleError("an address is missing beside a comma: write ADDRESS,ADDRESS without blanks", column)
        try:
            address = ip_address(name)
        except ValueError:
            raise RuleError(f"{name[:60]!r} is no IPv4 or IPv6 address", column) from None
        if address in servers:
            raise RuleError(f"{address} is given twice in one rule", column)
        if len(servers) == SERVERS_OF_A_RULE:
            raise RuleError(f"more than {SERVERS_OF_A_RULE} addresses in one rule", column)
        servers[address] = None
        column += len(name) + 1
    return tuple(servers)


_MATCHES_ANY_TARGET: Final = frozenset((".", ".*", ".+", "^", "^.*", "^.*$", ".*$"))


class RuleSet:
    """Rules in file order over the servers they name.

    `match_time_s` bounds one match of one pattern, in seconds; one that exceeds it is counted in `timeouts` and ends
    the search. Raises: ValueError if a rule names an address that no server has.
    """

    __slots__ = ("_match_time_s", "_rules", "timeouts")

    def __init__(self, rules: Sequence[Rule], servers: Sequence[Endpoint], match_time_s: float) -> None:
        endpoints = {server.addr: server for server in servers}
        for rule in rules:
            for address in rule.servers:
                if address not in endpoints:
                    raise ValueError(f"rule {rule.pattern!r} names {address}, which no server has")
        # The usual last rule is not searched for: a target is never empty and has no line end.
        self._rules = tuple(
            (
                None if rule.pattern in _MATCHES_ANY_TARGET else rule.compiled,
                tuple(endpoints[address] for address in rule.servers),
            )
            for rule in rules
        )
        self._match_time_s = match_time_s
        self.timeouts = 0
        """Matches that were given up because they took longer than `match_time_s`."""

    def choose(self, request: Targeted, excluding: Collection[Address] = ()) -> Choice | None:
        """Return the server of the first rule that matches the request's target.

        Of a rule's servers it is the first that is not in `excluding`. The first match decides even if all its servers
        are: then the answer is None, as it is when no rule matches, and when a rule takes too long to tell. A rule
        further down never takes over what an earlier one claims, or might claim.
        """
        target = request.target
        for index, (compiled, servers) in enumerate(self._rules):
            try:
                found = compiled is None or compiled.search(target, timeout=self._match_time_s) is not None
            except TimeoutError:
                self.timeouts += 1
                return None
            if found:
                for server in servers:
                    if server.addr not in excluding:
                        return Choice(server, index)
                return None
        return None


# --- patterns


def _compile(pattern: str) -> CompiledPattern:
    """Compile a pattern over octets. Raises: RuleError with the column in `pattern`."""
    try:
        octets = pattern.encode()
    except UnicodeEncodeError as error:
        raise RuleError("bad pattern: half a surrogate pair is no character", error.start + 1) from None
    if len(octets) > PATTERN_LIMIT_OCTETS:
        raise RuleError(f"bad pattern: {len(octets)} octets, at most {PATTERN_LIMIT_OCTETS} are allowed")
    if _written_out(octets) > REPEAT_LIMIT:
        raise RuleError(f"bad pattern: its repeat counts multiply to more than {REPEAT_LIMIT}")
    try:
        compiled = regex.compile(octets)
    except regex.error as error:
        before = octets[: error.pos or 0].decode("utf-8", "ignore")
        raise RuleError(f"bad pattern: {error.msg}", len(before) + 1) from None
    except (RecursionError, MemoryError):
        raise RuleError("bad pattern: too deeply nested or too big") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # The package's parser lets some of its own slips through on odd patterns.
        raise RuleError(f"bad pattern: {error}") from None
    if compiled.flags & regex.LOCALE:
        # Its meaning would hang on the environment of each node.
        raise RuleError("bad pattern: (?L) is not allowed")
    found: CompiledPattern = compiled
    return found


_ITEM: Final = re.compile(rb"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{([0-9]+)(?:,[0-9]*)?\}|.", re.DOTALL)


def _written_out(pattern: bytes) -> int:
    """Estimate how many items `pattern` has once its least repeat counts are written out, as `regex` does.

    ``(a{1000}){1000}`` is a million. An estimate suffices: it only has to stop what would exhaust memory.
    """
    groups = [0]
    last = 0
    for item in _ITEM.finditer(pattern):
        if item[0] == b"(":
            groups.append(0)
            last = 0
        elif item[0] == b")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif item[1] is not None:
            more = last * (max(int(item[1][:12]), 1) - 1)
            groups[-1] += more
            last += more
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)


# --- rules that match everything


def _probes() -> tuple[bytes, ...]:
    """Targets of many kinds: every octet that may stand in one, alone and often, and a very long one."""
    octets = [bytes((octet,)) for octet in (*range(0x21, 0x7F), *range(0x80, 0x100))]
    often = [b"/a" + octet + b"/b" + octet + b".c" + octet + b"9" + octet for octet in octets]
    forms = [b"example.com:443", b"http://example.com:8080/a/b.jpg?x=1&y=%20", b"/" + b"a" * 16383]
    return (*octets, *often, *forms)


_PROBES: Final = _probes()
_NEGATIONS: Final = ("(?!", "(?<!", "(?(")
_PROBE_TIME_S: Final = 0.05


def matches_everything(rule: Rule) -> bool:
    """Return whether the rule is a catch-all: its pattern is found in every request target.

    The criterion: the pattern is found in each of some 450 sample targets (every octet a target may hold, alone and
    repeated, all forms of RFC 9112 3.2, one of 16 KB), and holds no negative look-around or conditional, which could
    except something that is no sample. So ``.*``, ``.``, ``x*``, ``^`` and ``()`` are catch-alls; ``/`` and ``^/`` are
    not (``OPTIONS *``), nor is ``...`` (shorter targets). A match that takes over 50 ms counts as none.
    """
    if any(negation in rule.pattern for negation in _NEGATIONS):
        return False
    try:
        return all(rule.compiled.search(probe, timeout=_PROBE_TIME_S) is not None for probe in _PROBES)
    except TimeoutError:
        return False


def rule_warnings(rules: Sequence[Rule], servers: Sequence[Endpoint]) -> tuple[str, ...]:
    """Return what is legal but probably not meant: rules that never win, servers no rule names, no catch-all."""
    found: list[str] = []
    catch_all: Rule | None = None
    seen: dict[str, Rule] = {}
    for rule in rules:
        if catch_all is not None:
            found.append(f"{_named(rule)} can never win: {_named(catch_all)} before it matches every request")
        elif rule.pattern in seen:
            found.append(f"{_named(rule)} can never win: {_named(seen[rule.pattern])} before it has the same pattern")
        elif matches_everything(rule):
            catch_all = rule
        seen.setdefault(rule.pattern, rule)
    if catch_all is None:
        found.append(
            "no rule matches every request: what no rule matches is answered 503; end with `rule = ADDRESS .*`"
        )
    named = {address for rule in rules for address in rule.servers}
    found.extend(
        f"server {server.addr} is named by no rule: it gets nothing" for server in servers if server.addr not in named
    )
    return tuple(found)


def _named(rule: Rule) -> str:
    where = f" (line {rule.line})" if rule.line else ""
    return f"rule {rule.pattern[:60]!r}{where}"
