"""Fields: what a rule can look at in a connection's first octets, and where a rule finds it.

Knows what a field is called and how it is read, no pattern and no server. A field that a connection does not have is
None, which no pattern matches: TLS stays end to end, so nothing of a request shows in it, and a request has no SNI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, StrEnum
from operator import attrgetter
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from tcpha.patterns import RuleError

UNKNOWN_PROTOCOL: Final = "octets"
"""`Seen.protocol` of octets that are none of a known protocol: only there more octets may still be looked at."""


class Seen(Protocol):
    """What an inspector has read. Whatever the client's protocol does not have is None."""

    @property
    def protocol(self) -> str:
        """``http/1``, ``http/2``, ``tls`` or ``octets`` (anything else)."""

    @property
    def method(self) -> bytes | None:
        """As sent (RFC 9110, 9.1)."""

    @property
    def target(self) -> bytes | None:
        """The request target as sent (RFC 9112, 3.2)."""

    @property
    def path(self) -> bytes | None:
        """The target's path."""

    @property
    def query(self) -> bytes | None:
        """What follows the target's ``?``; None without one."""

    @property
    def host(self) -> bytes | None:
        """In lower case, without a port."""

    @property
    def sni(self) -> bytes | None:
        """In lower case (RFC 6066, 3)."""

    @property
    def alpn(self) -> bytes | None:
        """Protocols offered, joined by commas (RFC 7301)."""

    @property
    def octets(self) -> bytes:
        """All that has arrived."""

    @property
    def head_octets(self) -> int:
        """How many of them were looked at."""

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header field; `name` is in lower case."""

    def cookie(self, name: bytes) -> bytes | None:
        """Return the value of a cookie."""


class Connection(Struct, frozen=True, gc=False):
    """What is known of a connection besides its octets: the client's address, packed (4 or 16), and the port asked."""

    client: bytes
    port: int


class Kind(StrEnum):
    """The kinds of fields, by the names that rules use."""

    METHOD = "method"
    TARGET = "target"
    PATH = "path"
    QUERY = "query"
    HOST = "host"
    HEADER = "header"
    COOKIE = "cookie"
    SNI = "sni"
    ALPN = "alpn"
    OCTETS = "octets"
    PORT = "port"
    CLIENT = "client"


NAMED: Final = frozenset((Kind.HEADER, Kind.COOKIE))
"""Kinds that need a name: ``header.user-agent``."""

OF_REQUESTS: Final = frozenset((Kind.METHOD, Kind.TARGET, Kind.PATH, Kind.QUERY, Kind.HOST, Kind.HEADER, Kind.COOKIE))
OF_TLS: Final = frozenset((Kind.SNI, Kind.ALPN))
OF_ANY: Final = frozenset((Kind.OCTETS, Kind.PORT, Kind.CLIENT))


class Spoken(Enum):
    """What a client can speak, as far as fields differ. The value: how one connection of the kind is called."""

    HTTP = "request"
    TLS = "TLS connection"
    OTHER = "connection of another protocol"


def are_meant_for(kinds: Collection[Kind], spoken: Spoken) -> bool:
    """Return whether the fields of a rule show that it is for a kind; by client or port alone it means requests."""
    match spoken:
        case Spoken.HTTP:
            return not OF_REQUESTS.isdisjoint(kinds) or {Kind.CLIENT, Kind.PORT}.issuperset(kinds)
        case Spoken.TLS:
            return not OF_TLS.isdisjoint(kinds)
        case Spoken.OTHER:
            return Kind.OCTETS in kinds


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to look at. `name`: of the header field, in lower case, or of the cookie; empty for the other kinds."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        """As it stands in a rule: ``path``, ``header.user-agent``."""
        return f"{self.kind}.{self.name}" if self.name else self.kind.value


_NAMED: Final = re.compile(r"(header|cookie)\.([A-Za-z0-9!#%&'._`~-]*)")
_UNNAMED: Final = {kind.value: Field(kind) for kind in Kind if kind not in NAMED}

FIELDS_LISTED: Final = ", ".join((*_UNNAMED, "header.NAME", "cookie.NAME"))
"""Every field, for messages."""


def parse_field(text: str) -> Field | None:
    """Read a field's name; None if it is none.

    A NAME holds what tokens may (RFC 9110, 5.6.2) except ``$ * + ^ |``, so that what can only be a pattern stays one.
    The name of a header field is folded to lower case; that of a cookie is not (RFC 6265, 5.4).
    Raises: RuleError if the NAME after ``header.`` or ``cookie.`` is missing.
    """
    if text in _UNNAMED:
        return _UNNAMED[text]
    named = _NAMED.fullmatch(text)
    if named is None:
        return None
    kind, name = Kind(named[1]), named[2]
    if not name:
        raise RuleError(f"a name is missing after `{kind}.`", len(text) + 1)
    return Field(kind, name.lower() if kind is Kind.HEADER else name)


# --- reading

Reader: TypeAlias = Callable[[Seen, Connection | None], bytes | None]
"""Finds a field's octets; None if the connection has no such field."""


def reader_of(field: Field) -> Reader:
    """Return how a field is read."""
    match field.kind:
        case Kind.HEADER:
            return _header_reader(field.name.encode())
        case Kind.COOKIE:
            return _cookie_reader(field.name.encode())
        case Kind.CLIENT:
            return _client
        case Kind.PORT:
            return _port
        case Kind.OCTETS:
            return _octets
        case _:
            return _attribute_reader(field.kind.value)


def _attribute_reader(name: str) -> Reader:
    attribute: Callable[[Seen], bytes | None] = attrgetter(name)
    return lambda seen, _connection: attribute(seen)


def _header_reader(name: bytes) -> Reader:
    return lambda seen, _connection: seen.header(name)


def _cookie_reader(name: bytes) -> Reader:
    return lambda seen, _connection: seen.cookie(name)


def _client(_seen: Seen, connection: Connection | None) -> bytes | None:
    return None if connection is None else connection.client


def _port(_seen: Seen, connection: Connection | None) -> bytes | None:
    return None if connection is None else b"%d" % connection.port


def _octets(seen: Seen, _connection: Connection | None) -> bytes:
    # What follows the head would be there or not, as the client's segments happen to be cut.
    return seen.octets[: seen.head_octets]
