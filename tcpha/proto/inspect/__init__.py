"""What the first octets of a connection can turn out to be: a request, not enough yet, or nothing that is served.

One file beside this one per protocol, each with an ``inspect(octets, limit_octets)`` that returns one of these three
values and never raises. The values know no rules, no back ends and no packets, and no reader knows another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class NeedMore(Enum):
    """Class of the one value `NEED_MORE`; an enumeration, so that ``is NEED_MORE`` narrows the type."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE
"""Nothing wrong so far, but not enough octets to decide: ask again with these and what arrives after them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """These octets are not served."""

    status: int
    """HTTP status code that tells the client: 400, 414, 431 or 505."""
    reason: str
    """For the log; never derived from what the client sent, so it is short and holds no control characters."""


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request head: what a rule decides on."""

    protocol: str
    """``http/1`` for every HTTP/1.x."""
    method: bytes
    """As sent; methods are case-sensitive (RFC 9110, 9.1)."""
    target: bytes
    """The request-target as sent, in whichever of the four forms (RFC 9112, 3.2)."""
    host: bytes
    """Host and optional port as sent: the target's authority if it has one, else the Host field; empty in HTTP/1.0
    without either."""
    headers: Headers
    """Names in lower case and values without surrounding white space, in the order sent."""
    head_octets: int
    """Octets from the first one that arrived to the end of the head: there the content or the next request begins."""
    field_lines: bytes = field(default=b"", repr=False, compare=False)
    """What `headers` is read from, if the request was made by `of_field_lines`."""

    @classmethod
    def of_field_lines(
        cls, protocol: str, method: bytes, target: bytes, host: bytes, field_lines: bytes, head_octets: int
    ) -> Request:
        """Make a request whose `headers` are split only when somebody asks: most rules look at the target alone.

        `field_lines` are lines ``name ":" OWS value OWS CRLF`` (RFC 9112, 5) that the caller has already checked.
        """
        request = object.__new__(cls)
        put = object.__setattr__
        put(request, "protocol", protocol)
        put(request, "method", method)
        put(request, "target", target)
        put(request, "host", host)
        put(request, "head_octets", head_octets)
        put(request, "field_lines", field_lines)
        return request

    if not TYPE_CHECKING:  # a type checker would otherwise take every misspelt attribute for this one

        def __getattr__(self, name: str) -> Headers:
            """Fill in `headers` at the first look. Python comes here only for a slot that is still empty."""
            if name != "headers":
                raise AttributeError(name)
            headers = _split(self.field_lines)
            object.__setattr__(self, "headers", headers)
            return headers


def _split(field_lines: bytes) -> Headers:
    parts = [line.partition(b":") for line in field_lines.split(b"\r\n")[:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in parts])


Inspection: TypeAlias = Request | NeedMore | Refusal
"""What a reader returns."""
