"""Patterns of rules: compiled once, bounded in size, and matched within a time limit.

Knows octets and patterns, no rule and no field. A pattern is a regular expression of the `regex` package, which ends a
match that takes too long (a clock of its own, the only one in any pure part), or a list of networks.

Patterns work on octets. Their text is encoded as UTF-8, the encoding of the file it stands in and of what clients
percent-encode; Latin-1 would give a pattern another meaning than its file shows. The consequence: outside ASCII one
character is several octets, so ``é+`` or ``[é]`` do not mean what they seem to, and ``(?i)`` folds ASCII letters only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Protocol, TypeAlias

import regex  # type: ignore[import-untyped]

from tcpha.errors import TcphaError

Network: TypeAlias = IPv4Network | IPv6Network

PATTERN_LIMIT_OCTETS: Final = 4096
"""Longest pattern, in octets."""

REPEAT_LIMIT: Final = 65536
"""Most items that a pattern's repeat counts may multiply to; `regex` writes them all out, and no target is longer."""


class RuleError(TcphaError):
    """A rule that cannot be used. `column` is where in the rule's text, in characters, from 1."""

    def __init__(self, reason: str, column: int = 1) -> None:
        super().__init__(f"{reason} (column {column})")
        self.reason = reason
        self.column = column


class Found(Protocol):
    """What a search has found, as far as it is used here."""

    @property
    def partial(self) -> bool:
        """Did the octets end before it was decided?"""


class CompiledPattern(Protocol):
    """A compiled pattern of the `regex` package, as far as it is used here; `timeout` in seconds, None: no limit."""

    def search(self, octets: bytes, /, *, timeout: float | None = None, partial: bool = False) -> Found | None:
        """Look for the pattern anywhere in `octets`. Raises: TimeoutError."""

    def fullmatch(self, octets: bytes, /, *, timeout: float | None = None) -> Found | None:
        """Compare the pattern with the whole of `octets`. Raises: TimeoutError."""


def compile_pattern(pattern: str, *, any_case: bool = False) -> CompiledPattern:
    """Compile a pattern over octets; `any_case` folds ASCII letters. Raises: RuleError with the column in `pattern`."""
    try:
        octets = pattern.encode()
    except UnicodeEncodeError as error:
        raise RuleError("bad pattern: half a surrogate pair is no character", error.start + 1) from None
    if len(octets) > PATTERN_LIMIT_OCTETS:
        raise RuleError(f"bad pattern: {len(octets)} octets, at most {PATTERN_LIMIT_OCTETS} are allowed")
    if _written_out(octets) > REPEAT_LIMIT:
        raise RuleError(f"bad pattern: its repeat counts multiply to more than {REPEAT_LIMIT}")
    try:
        compiled = regex.compile(octets, regex.IGNORECASE if any_case else 0)
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


def _stopped() -> float:
    return 0.0


class TimeSpent(TimeoutError):
    """There is no time left for a match, after others that took long."""


class TimeLimit:
    """How long matches may take: each by itself, and all of one connection together.

    `left_s` (seconds) is what they may still take together; whoever chooses sets it before and reads it afterwards.
    """

    __slots__ = ("_clock", "_match_s", "left_s")

    def __init__(self, match_s: float, clock: Callable[[], float] = _stopped) -> None:
        """`clock` gives seconds; without one only matches that are given up use up what is left."""
        self._match_s = match_s
        self._clock = clock
        self.left_s = 2 * match_s

    def run(self, match: Callable[..., Found | None], octets: bytes) -> Found | None:
        """Match within the time. Raises: TimeoutError; TimeSpent if there was none left."""
        allowed = min(self._match_s, self.left_s)
        if allowed <= 0:
            raise TimeSpent
        begun = self._clock()
        try:
            found = match(octets, timeout=allowed)
        except TimeoutError:
            self.left_s -= allowed
            raise
        # `regex` counts the processor's time: whatever else took longer is not the pattern's doing.
        self.left_s -= min(self._clock() - begun, allowed)
        return found


_CHARACTER: Final = r"[^\\\[\](){}*+?|^$]"
_ESCAPE: Final = r"\\(?:[AdswDSWnrtfv]|x[0-9A-Fa-f]{2}|[^A-Za-z0-9])"
_SET: Final = r"\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\[\]\\])*+\]"
_GROUP: Final = r"\((?:\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>|[is]+:|[is]+(?=\)))|(?![?*]))|\)"
_REPEAT: Final = r"(?:[*+?]|\{[0-9]*(?:,[0-9]*)?\})\??(?!\+)"
_LOOKS_BACK_ONLY: Final = re.compile(rf"(?:{_CHARACTER}|{_ESCAPE}|{_SET}|{_GROUP}|{_REPEAT}|[\^|])*+")
_SOON_DONE: Final = re.compile(rf"(?:{_CHARACTER}|{_ESCAPE}|{_SET}|[\^$|])*+")
_SOON_DONE_PATTERN_OCTETS: Final = 32
_SOON_DONE_OCTETS: Final = 4096


def looks_ahead(pattern: str) -> bool:
    r"""Return whether octets that follow a match may undo it: ``$``, ``\b``, look-aheads, possessive repeats and such.

    Told by what the pattern is made of, and in doubt yes. Without them it holds what waiting for more octets rests on:
    a match stays one whatever follows, and what cannot even begin to match never will.
    """
    return _LOOKS_BACK_ONLY.fullmatch(pattern) is None


def search_within(compiled: CompiledPattern, pattern: str, limit: TimeLimit) -> Callable[[bytes], Found | None]:
    """Return the search for a pattern that ends with TimeoutError if it takes too long.

    Asking the clock takes longer than most searches. It is left out where it cannot matter: a short pattern without
    repeats and groups, alternatives at most, looks at no more octets than it has itself, wherever it begins; in 4 KB
    that takes less than a millisecond.
    """
    search = compiled.search
    limited = partial(limit.run, search)
    if len(pattern.encode()) > _SOON_DONE_PATTERN_OCTETS or _SOON_DONE.fullmatch(pattern) is None:
        return limited
    return lambda octets: search(octets) if len(octets) <= _SOON_DONE_OCTETS else limited(octets)


# --- networks


class Networks:
    """One or more networks, as a pattern for an address.

    Written ``NETWORK[,NETWORK...]``, each an address or ``ADDRESS/LENGTH`` (RFC 4632, RFC 4291). `listed` is in
    order of value, so that two spellings of the same list are equal.
    """

    __slots__ = ("_tests", "listed")

    def __init__(self, text: str) -> None:
        """Raises: RuleError with the column in `text`."""
        found: set[Network] = set()
        for column, name in _pieces(text):
            network = _network(name, column)
            if network in found:
                raise RuleError(f"{network} is given twice", column)
            found.add(network)
        self.listed = tuple(sorted(found, key=lambda network: (network.version, network)))
        self._tests = tuple(
            (network.max_prefixlen // 8, network.max_prefixlen - network.prefixlen, _prefix(network))
            for network in self.listed
        )

    def find(self, address: bytes) -> bytes | None:
        """Return the address, packed (4 or 16 octets), if it is in one of the networks."""
        octets, value = len(address), int.from_bytes(address, "big")
        for length, rest, prefix in self._tests:
            if octets == length and value >> rest == prefix:
                return address
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.listed))

    def covers(self, other: Networks) -> bool:
        """Return whether every network of `other` lies within one of these."""
        return all(any(_lies_within(inner, outer) for outer in self.listed) for inner in other.listed)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    column = 1
    for piece in text.split(","):
        yield column, piece
        column += len(piece) + 1


def _network(name: str, column: int) -> Network:
    if not name:
        raise RuleError("a network is missing beside a comma: write NETWORK,NETWORK without blanks", column)
    try:
        network = ip_network(name)
    except ValueError:
        return _told_apart(name, column)
    if "%" in name:
        raise RuleError(f"{name[:60]!r}: a network has no scope", column)
    if isinstance(network, IPv6Network) and network.subnet_of(IPv6Network("::ffff:0:0/96")):
        # No client's packet carries such an address; it would never match.
        raise RuleError(f"{network} is IPv4: write it as such", column)
    return network


def _told_apart(name: str, column: int) -> Network:
    """Say what is wrong with what is no network. Raises: RuleError, always."""
    try:
        meant = ip_network(name, strict=False)
    except ValueError:
        raise RuleError(f"{name[:60]!r} is no address and no ADDRESS/LENGTH", column) from None
    raise RuleError(f"{name[:60]!r} has bits beyond its length: write {meant}", column)


def _prefix(network: Network) -> int:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)


def _lies_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
