"""Which protocol do the first octets of a connection belong to? Every inspector is asked; the octets alone decide.

TLS is known by its first octet, HTTP/2 by its preface; what is neither is HTTP/1 as long as a request line can come of
it. All else is octets: served where a rule looks at them, and otherwise refused as the HTTP it is not, because a
cluster whose rules know only HTTP has clients that expect an answer in it. On a port whose rules ask for no protocol
none is looked for: what merely resembles HTTP or TLS there must not be refused as a bad one.
"""

from __future__ import annotations

from tcpha.proto.inspect import (
    NEED_MORE,
    NOT_MINE,
    Cause,
    FirstOctets,
    Inspected,
    NeedMore,
    NotMine,
    Protocol,
    Refusal,
    http1,
    http2,
    tls,
)

_TLS_FIRST = b"\x14\x15\x16\x17"
"""Types of records (RFC 8446, 5.1); no method of HTTP begins so."""
_HTTP2_FIRST = http2.PREFACE[0]


def inspect(octets: bytes, limit_octets: int, *, raw: bool, plain: bool = False) -> Inspected | NeedMore | Refusal:
    """Read what has arrived (one octet at least), from the connection's first octet on.

    `raw`: unknown protocols are served. `plain`: all are alike, and no inspector is asked. Never raises.
    """
    if plain:
        return FirstOctets(octets[:limit_octets])
    first = octets[0]
    found: Inspected | NeedMore | NotMine | Refusal = NOT_MINE
    if first in _TLS_FIRST:
        found = tls.inspect(octets, limit_octets)
    elif first == _HTTP2_FIRST:
        found = http2.inspect(octets, limit_octets)
    if found is NOT_MINE:
        found = http1.inspect(octets, limit_octets)
    if found is NOT_MINE:
        return FirstOctets(octets[:limit_octets]) if raw else http1.NO_HTTP
    return found


def is_cut_off(found: Refusal | NeedMore) -> bool:
    """Is an inspector left without its verdict because no more octets are looked at? They may be another protocol's.

    A frame or a message of TLS or HTTP/2 says how long it is before it has come: that is a verdict.
    """
    if isinstance(found, Refusal):
        return found.protocol is Protocol.HTTP1 and found.cause in (Cause.TARGET_TOO_LONG, Cause.HEAD_TOO_LONG)
    return False


def suspected(octets: bytes, limit_octets: int) -> Protocol:
    """Return the protocol of octets that tell it not yet: in whose words a client is told that it took too long."""
    if octets[0] in _TLS_FIRST:
        return Protocol.TLS
    if len(octets) > 3 and http2.inspect(octets, limit_octets) is NEED_MORE:
        return Protocol.HTTP2
    return Protocol.HTTP1


def answer(protocol: Protocol, cause: Cause, asked: Inspected | None = None, code: int | None = None) -> bytes:
    """Return a complete short answer in the client's protocol; no octets: only close. `code` is that of a refusal."""
    match protocol:
        case Protocol.HTTP1:
            return http1.answer(cause, asked)
        case Protocol.HTTP2:
            return http2.answer(cause, asked, code)
        case Protocol.TLS:
            return tls.answer(cause, asked, code)
        case Protocol.OCTETS:
            return b""
