"""What the first octets of a connection can turn out to be, as values that rules look at.

One file beside this one per protocol, each with ``inspect(octets, limit_octets)``, which never raises, and
``answer(cause, asked)``. An inspector says one of four things: this is it (a kind of `Inspected`), this is it but it is
not served (`Refusal`), not mine, need more. Its verdict depends on the octets alone, not on how they were cut: a
beginning of what is its own gives NEED_MORE or the final verdict, and what is NOT_MINE stays so. `first` asks them all.

The values know no rules, no back ends and no packets, and no inspector knows another.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, TypeAlias

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Protocol(StrEnum):
    """What a client can speak, by the names that logs show."""

    HTTP1 = "http/1"
    HTTP2 = "http/2"
    TLS = "tls"
    OCTETS = "octets"
    """Anything else whose client speaks first."""


class Cause(Enum):
    """Why a connection gets its answer from the front end itself."""

    MALFORMED = "malformed"
    TARGET_TOO_LONG = "target too long"
    HEAD_TOO_LONG = "head too long"
    VERSION = "version not supported"
    TIMED_OUT = "timed out"
    UNAVAILABLE = "no usable back end"
    """A rule matches, but none of its back ends can be used."""
    UNROUTED = "no rule"
    """No rule matches."""


class NeedMore(Enum):
    """Class of the one value `NEED_MORE`; an enumeration, so that ``is NEED_MORE`` narrows the type."""

    NEED_MORE = "need more"


class NotMine(Enum):
    """Class of the one value `NOT_MINE`."""

    NOT_MINE = "not mine"


NEED_MORE: Final = NeedMore.NEED_MORE
"""Nothing wrong so far, but not enough octets to decide: ask again with these and what arrives after them."""
NOT_MINE: Final = NotMine.NOT_MINE
"""This is another protocol."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """These octets are of the inspector's protocol, but they are not served."""

    protocol: Protocol
    cause: Cause
    reason: str
    """For the log; never derived from what the client sent, so it is short and holds no control characters."""
    code: int | None = None
    """The protocol's own number of the fault, where it has one that tells more than the cause."""


class Inspected:
    """What a rule can see. Every attribute exists on every kind; None where the protocol has no such thing."""

    __slots__ = ("head_octets", "octets")

    head_octets: int
    """Octets from the connection's first one to the end of what was read; what follows was not looked at."""
    octets: bytes
    """All that has arrived."""

    @property
    def protocol(self) -> Protocol:
        """What the client speaks."""
        raise NotImplementedError

    @property
    def end_octets(self) -> int:
        """Octets to the end of the request, its content included as far as the head tells how long it is."""
        return self.head_octets

    @property
    def idempotent(self) -> bool:
        """May it be repeated elsewhere after it may have reached a server (RFC 9110, 9.2.2)?"""
        return False

    @property
    def method(self) -> bytes | None:
        """As sent; methods are case-sensitive (RFC 9110, 9.1)."""
        return None

    @property
    def target(self) -> bytes | None:
        """The request-target as sent, in whichever of the four forms (RFC 9112, 3.2)."""
        return None

    @property
    def path(self) -> bytes | None:
        """The target's path as sent, nothing decoded; ``*`` is one."""
        return None

    @property
    def query(self) -> bytes | None:
        """What follows the first question mark of the target; None without one."""
        return None

    @property
    def host(self) -> bytes | None:
        """Host in lower case, without a port or a dot at its end; an IPv6 address keeps its brackets."""
        return None

    @property
    def sni(self) -> bytes | None:
        """The name of the server that the client means (RFC 6066, 3), in lower case."""
        return None

    @property
    def alpn(self) -> bytes | None:
        """The protocols offered for what TLS protects (RFC 7301), joined by commas."""
        return None

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a field, lines of one name joined by ``, `` (RFC 9110, 5.3); `name` is in lower case.

        Those of ``cookie`` over HTTP/2 by ``; `` (RFC 9113, 8.2.3).
        """
        return None

    def cookie(self, name: bytes) -> bytes | None:
        """Return the value of the first cookie of that name, quotes included (RFC 6265, 4.2)."""
        return None


class Request(Inspected):
    """A complete HTTP request head. Its fields are split only when somebody asks: most rules look at the target."""

    __slots__ = ("_fields", "authority", "method", "protocol", "target")

    protocol: Protocol
    method: bytes
    target: bytes
    authority: bytes
    """Host and optional port as sent: the target's authority if it has one, else the Host field; empty in HTTP/1.0
    without either."""

    def __init__(
        self,
        protocol: Protocol,
        method: bytes,
        target: bytes,
        authority: bytes,
        fields: bytes | Headers,
        head_octets: int,
        octets: bytes = b"",
    ) -> None:
        """`fields`: lines ``name ":" OWS value OWS CRLF`` (RFC 9112, 5), already checked, or what `headers` returns."""
        self.protocol = protocol
        self.method = method
        self.target = target
        self.authority = authority
        self.head_octets = head_octets
        self.octets = octets
        self._fields = fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[object, ...]:
        return (self.protocol, self.method, self.target, self.authority, self.headers, self.head_octets)

    def __repr__(self) -> str:
        return f"<Request {self.protocol} {self.method!r} {self.target!r} at {self.authority!r}>"

    @property
    def headers(self) -> Headers:
        """Names in lower case and values without surrounding white space, in the order sent."""
        if isinstance(self._fields, bytes):
            self._fields = _split(self._fields)
        return self._fields

    @property
    def end_octets(self) -> int:
        """As `Inspected.end_octets`; over HTTP/2 content comes in frames, whose headers count, too."""
        length = self.header(b"content-length") if self.protocol is Protocol.HTTP1 else None
        return self.head_octets + (int(length) if length else 0)

    @property
    def idempotent(self) -> bool:
        """Is its method (RFC 9110, 9.2.2)? One that is not known is not."""
        return self.method in _IDEMPOTENT

    @property
    def path(self) -> bytes | None:
        """None for CONNECT, whose target is an authority."""
        if self.method == b"CONNECT":
            return None
        path = self.target.partition(b"?")[0]
        if not path.startswith((b"/", b"*")):  # absolute-form
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        return path

    @property
    def query(self) -> bytes | None:
        """As sent."""
        _, mark, query = self.target.partition(b"?")
        return query if mark else None

    @property
    def host(self) -> bytes | None:
        """None without any."""
        authority = self.authority.lower()
        if authority.startswith(b"["):
            return authority[: authority.find(b"]") + 1]
        # servers choose by the name without the dot: a rule must not see another one
        return authority.partition(b":")[0].removesuffix(b".") or None

    def header(self, name: bytes) -> bytes | None:
        """As `Inspected.header`."""
        values = [value for each, value in self.headers if each == name]
        # Over HTTP/2 a client may cut its cookies into several fields; a server sees them as one (RFC 9113, 8.2.3).
        is_in_crumbs = name == b"cookie" and self.protocol is Protocol.HTTP2
        return (b"; " if is_in_crumbs else b", ").join(values) if values else None

    def cookie(self, name: bytes) -> bytes | None:
        """As `Inspected.cookie`; over HTTP/2 the cookies may stand in several fields (RFC 9113, 8.2.3)."""
        for field, value in self.headers:
            if field == b"cookie":
                for pair in value.split(b";"):
                    each, equals, content = pair.partition(b"=")
                    if equals and each.strip(b" \t") == name:
                        return content.strip(b" \t")
        return None


class FirstOctets(Inspected):
    """Octets of a protocol nobody here knows."""

    __slots__ = ()

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.head_octets = len(octets)

    @property
    def protocol(self) -> Protocol:
        """Anything."""
        return Protocol.OCTETS


Inspection: TypeAlias = Inspected | NeedMore | NotMine | Refusal
"""What an inspector says."""

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def _split(field_lines: bytes) -> Headers:
    parts = [line.partition(b":") for line in field_lines.split(b"\r\n")[:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in parts])
