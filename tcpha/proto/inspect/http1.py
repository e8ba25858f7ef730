r"""HTTP/1.x: the first octets of a connection -> a request head, by RFC 9112, sections 2 to 6.

Pure, and blind to everything but these octets: it knows no rules, no packets, no clock. What it accepts is sent to a
server unchanged, so it accepts only what every server reads in the same way: nothing is repaired, and where RFC 9112
lets a recipient choose between tolerating and rejecting, it rejects. The one exception: a single empty line (CRLF)
before the request line is tolerated (RFC 9112, 2.2) and counted in `Request.head_octets`.

The reader is stateless: each call looks at everything that has arrived, and its verdict depends on the octets alone,
not on how they were cut. A beginning of which no request line can come is refused at the octet that shows it; fields
are looked at when the head is complete, and split only when somebody asks for them. Nearly every head is read by one
match; what that one does not take is read as if it were not there.

Written by hand on compiled patterns, not with httptools (llhttp), because it is stricter; and while nobody asks for
the headers, about a fifth faster than httptools with the checks that it lacks. Asked for them it is slower
(bench/test_bench_inspect.py has all three). llhttp takes several Host fields, none, or an invalid one; several spaces
in the request line; any number of empty lines and bare LF before it; a fragment; HTTP/0.9 and 2.0; RTSP and ICE;
``*`` with any method; Transfer-Encoding in HTTP/1.0; it refuses methods that it does not know and HTTP/1.2; and how
strict it is otherwise changes with its release. The tests use it as an independent oracle. Every quantifier over
input is possessive: a match is linear in its input.

Deviation: beyond the characters of RFC 3986 a request-target may hold ``"<>[]\^`{|}``, most of which browsers send
unencoded; not ``#`` (a rule for the end of a path would see what the server cuts off), nor octets above 0x7e.
Deviation: an empty host, an IPvFuture literal and a port outside 1 to 65535 are refused.
Deviation: Transfer-Encoding is refused if it stands in several lines or names a coding that is not registered;
Content-Length if it is repeated, even with the same value: RFC 9110, 8.6 wants that rejected or replaced, and nothing
is replaced here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from tcpha.proto.inspect import (
    NEED_MORE,
    NOT_MINE,
    Cause,
    Inspected,
    NeedMore,
    NotMine,
    Protocol,
    Refusal,
    Request,
)
from tcpha.proto.inspect.authority import is_authority

_HTTP1: Final = Protocol.HTTP1  # to fetch a member from its class costs as much as a call
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110, 5.6.2
_HTTP_BEGINS: Final = re.compile(rb"%b (?:/|[A-Za-z][A-Za-z0-9+.\-]*+://|\* HTTP/)" % _TOKEN)
_LINE: Final = rb"(%b) ([!\"$-~]++) HTTP/([0-9])\.([0-9])\r\n" % _TOKEN
_FIELDS: Final = rb"(?:%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+" % _TOKEN
_REQUEST_LINE: Final = re.compile(_LINE)
_HEAD: Final = re.compile(rb"(?:\r\n)?+%b(%b)\r\n" % (_LINE, _FIELDS))
# The head of nearly every request: the target is a path, and of the fields below only Host is there, once. One match
# tells all that is to be known of it; of any other head the two others do.
_INDECISIVE: Final = (
    rb"(?:(?![CHTcht](?i:ost|ontent-length|ransfer-encoding):)%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+" % _TOKEN
)
_ORDINARY_HEAD: Final = re.compile(
    rb"(?!CONNECT )(%b) (/[!\"$-~]*+) HTTP/1\.[0-9]\r\n(%b(?i:host):([\t\x20-\x7e\x80-\xff]*+)\r\n%b)\r\n"
    % (_TOKEN, _INDECISIVE, _INDECISIVE)
)
_ABSOLUTE_FORM: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?]*+)(?:[/?].*+)?")
# the fields that decide where the request goes and where it ends; the LF is that of the line before the field line. To
# look at one letter first takes half the time.
_DECISIVE_FIELDS: Final = re.compile(rb"\n(?=[CHTcht])(?i:(host|content-length|transfer-encoding)):([^\r]*+)")
_HOST_OCTETS: Final = len(b"host")
_is_authority: Final = lru_cache(maxsize=256)(is_authority)
"""Of Host, which hardly changes from request to request."""
_LENGTH: Final = re.compile(rb"[0-9]{1,19}+")
_CHUNKED_LAST: Final = re.compile(
    rb"(?:(?:gzip|x-gzip|compress|x-compress|deflate)[ \t]*+,[ \t]*+)*+chunked", re.IGNORECASE
)
_DEFAULT_PORTS: Final = {b"http": b"80", b"https": b"443"}  # RFC 9110, 4.2
_LARGEST_LENGTH_OCTETS: Final = 2**63 - 1  # servers hold it in a signed 64-bit integer

NO_HTTP: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "no HTTP, nor anything else that is served")
"""For what is NOT_MINE where nothing but HTTP is served."""
_REQUEST_LINE_FAULT: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "malformed request line")
_VERSION_0: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "HTTP before 1.0")
_VERSION_OTHER: Final = Refusal(Protocol.HTTP1, Cause.VERSION, "HTTP major version other than 1")
_TARGET_FORM: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "request-target form does not fit the method")
_CONNECT_TARGET: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "CONNECT without host and port")
_TARGET_AUTHORITY: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "invalid authority in request-target")
_FIELD_LINE_FAULT: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "malformed field line")
_HOST_MISSING: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "HTTP/1.1 without Host")
_HOST_REPEATED: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "several Host fields")
_HOST_INVALID: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "invalid Host")
_HOST_OTHER: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "Host differs from the request-target's")
_BOTH_FRAMINGS: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "both Content-Length and Transfer-Encoding")
_LENGTH_REPEATED: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "several Content-Length fields")
_LENGTH_INVALID: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "invalid Content-Length")
_CODING_BEFORE_11: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "Transfer-Encoding in HTTP/1.0")
_CODING_REPEATED: Final = Refusal(Protocol.HTTP1, Cause.MALFORMED, "several Transfer-Encoding fields")
_CODING_INVALID: Final = Refusal(
    Protocol.HTTP1, Cause.MALFORMED, "Transfer-Encoding that does not end with one chunked"
)
_LINE_TOO_LONG: Final = Refusal(Protocol.HTTP1, Cause.TARGET_TOO_LONG, "request line exceeds the limit")
_HEAD_TOO_LONG: Final = Refusal(Protocol.HTTP1, Cause.HEAD_TOO_LONG, "request head exceeds the limit")

_STATUS: Final = {
    Cause.MALFORMED: 400,
    Cause.TIMED_OUT: 408,
    Cause.TARGET_TOO_LONG: 414,
    Cause.HEAD_TOO_LONG: 431,
    Cause.UNAVAILABLE: 503,
    Cause.UNROUTED: 503,
    Cause.VERSION: 505,
}
_REASON_PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


def inspect(octets: bytes, limit_octets: int = 16384) -> Request | NeedMore | NotMine | Refusal:
    """Read the head of the first request in everything that has arrived, from the connection's first octet on.

    `limit_octets` (>= 1) bounds the head, its closing empty line and a leading one included: a head of exactly that
    many is read. What follows the head is not looked at.

    Never raises. Refused with 400: not HTTP/1, or not to be read in one way only; 505: a major version above 1; 414:
    the request line, CRLF included, does not end within the limit; 431: the head does not.
    """
    # Looked for first, because what is unfinished comes again with every segment, and would be matched in vain. One
    # octet is found fastest: a long line without an end costs no more than that.
    has_end = b"\n" in octets and octets.find(b"\r\n\r\n", 0, limit_octets) >= 0
    ordinary = _ORDINARY_HEAD.match(octets, 0, limit_octets) if has_end else None
    if ordinary is not None:
        method, target, field_lines, value = ordinary.groups()
        host = value.strip(b" \t")
        if _is_authority(host):
            return Request(_HTTP1, method, target, host, field_lines, ordinary.end(), octets)
    head = _HEAD.match(octets, 0, limit_octets) if has_end else None
    if head is None:
        return _no_head(octets, limit_octets, has_end)
    method, target, major, minor, field_lines = head.groups()
    authority = _authority(method, target, major)
    if isinstance(authority, Refusal):
        return authority
    host = _host(_DECISIVE_FIELDS.findall(octets, head.start(5) - 1, head.end(5)), minor)
    if isinstance(host, Refusal):
        return host
    if authority is not None and host and method != b"CONNECT" and not _is_same_host(target, authority, host):
        return _HOST_OTHER
    # RFC 9112, 3.3: the target's authority, if it has one, stands above Host
    return Request(_HTTP1, method, target, authority or host, field_lines, head.end(), octets)


def answer(cause: Cause, asked: Inspected | None = None) -> bytes:
    """Return the complete response that ends a connection without a server: 400 408 414 431 503 or 505.

    Identical octets at every call. `asked` is the request, if one was read: to HEAD the content is left out
    (RFC 9110, 9.3.2). There is no Date: a core knows no clock, and who has none must not send one (RFC 9110, 6.6.1).
    """
    to_head = asked is not None and asked.method == b"HEAD"
    return (_ANSWERS_TO_HEAD if to_head else _ANSWERS)[_STATUS[cause]]


def _answer_head(status: int) -> bytes:
    return (
        f"HTTP/1.1 {status} {_REASON_PHRASES[status]}\r\n"
        f"Connection: close\r\n"
        f"Content-Type: text/plain\r\n"
        f"Content-Length: {len(_answer_content(status))}\r\n\r\n"
    ).encode("ascii")


def _answer_content(status: int) -> bytes:
    return f"{status} {_REASON_PHRASES[status]}\n".encode("ascii")


_ANSWERS_TO_HEAD: Final = {status: _answer_head(status) for status in _REASON_PHRASES}
_ANSWERS: Final = {status: _answer_head(status) + _answer_content(status) for status in _REASON_PHRASES}


def _no_head(octets: bytes, limit_octets: int, has_end: bool) -> NeedMore | NotMine | Refusal:
    """There is no whole, well-formed head within the limit: what is wrong with it, if it is not merely unfinished?

    `has_end`: there is an empty line. A request line has none in it, nor a second one in front.
    """
    start = 2 if octets.startswith(b"\r\n") else 0
    line_end = octets.find(b"\r\n", start, limit_octets)
    if line_end < 0:
        return _unfinished_line(octets, start, limit_octets)
    line = _REQUEST_LINE.match(octets, start, line_end + 2)
    if line is None:
        return _line_fault(octets, start)
    method, target, major, _ = line.groups()
    authority = _authority(method, target, major)
    if isinstance(authority, Refusal):
        return authority
    return _FIELD_LINE_FAULT if has_end else _unfinished_fields(octets, line_end + 2, limit_octets)


def _unfinished_line(octets: bytes, start: int, limit_octets: int) -> NeedMore | NotMine | Refusal:
    """No end of the request line stands within the limit: can one still come of these octets?"""
    line = octets[start:limit_octets]
    may_still_be_empty_line = start == 0 and line == b"\r"
    if line and not may_still_be_empty_line and not _may_begin_request_line(line):
        return _line_fault(octets, start)
    return NEED_MORE if len(octets) < limit_octets else _LINE_TOO_LONG


def _line_fault(octets: bytes, start: int) -> NotMine | Refusal:
    """Say what a line is that is no request line: one that went wrong behind its method, or something else.

    Looks only at what precedes the octet that went wrong, which is there in every cut.
    """
    return NOT_MINE if _HTTP_BEGINS.match(octets, start) is None else _REQUEST_LINE_FAULT


def _may_begin_request_line(line: bytes) -> bool:
    """Supply what is missing: a beginning is good if its completion is."""
    spaces = line.count(b" ")
    if spaces == 0:
        line += b" / HTTP/1.1\r\n"
    elif spaces == 1:
        line += b"/ HTTP/1.1\r\n"
    else:
        version_octets = len(line) - line.rindex(b" ") - 1
        line += b"HTTP/1.1\r\n"[version_octets:]
    return _REQUEST_LINE.fullmatch(line) is not None


def _unfinished_fields(octets: bytes, start: int, limit_octets: int) -> NeedMore | Refusal:
    """The end of the head is not within the limit.

    A client that ends lines with LF would never reach that end, so this is seen at once; the rest waits for the end.
    """
    if octets.count(b"\n", start, limit_octets) != octets.count(b"\r\n", start, limit_octets):
        return _FIELD_LINE_FAULT
    return NEED_MORE if len(octets) < limit_octets else _HEAD_TOO_LONG


def _authority(method: bytes, target: bytes, major: bytes) -> bytes | Refusal | None:
    """Judge a request line: return the authority in its target, if there is one."""
    if major != b"1":
        return _VERSION_OTHER if major > b"1" else _VERSION_0
    if target.startswith(b"/") and method != b"CONNECT":
        return None
    return _target_authority(method, target)


def _target_authority(method: bytes, target: bytes) -> bytes | Refusal | None:
    """Return the authority of a target that is not in origin-form (RFC 9112, 3.2.2 to 3.2.4); ``*`` has none."""
    if method == b"CONNECT":
        return target if is_authority(target, port_required=True) else _CONNECT_TARGET
    if target == b"*":
        return None if method == b"OPTIONS" else _TARGET_FORM
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return _TARGET_FORM
    authority: bytes = absolute[2]
    return authority if is_authority(authority) else _TARGET_AUTHORITY


def _host(decisive: list[tuple[bytes, bytes]], minor: bytes) -> bytes | Refusal:
    """Return the value of the one Host field (RFC 9112, 3.2), empty if HTTP/1.0 came without."""
    if len(decisive) == 1 and len(decisive[0][0]) == _HOST_OCTETS:  # as of nearly every request
        host = decisive[0][1].strip(b" \t")
        return host if _is_authority(host) else _HOST_INVALID
    hosts = [value for name, value in decisive if name.lower() == b"host"]
    if len(hosts) > 1:
        return _HOST_REPEATED
    if not hosts and minor != b"0":
        return _HOST_MISSING
    host = hosts[0].strip(b" \t") if hosts else b""
    if hosts and not _is_authority(host):
        return _HOST_INVALID
    if len(decisive) > len(hosts):
        return _framing_fault(decisive, minor) or host
    return host


def _is_same_host(target: bytes, authority: bytes, host: bytes) -> bool:
    """Do an absolute-form and Host name the same, as RFC 9112, 3.2 wants? Not every server looks at both.

    Case, the scheme's own port and one dot at the end make no difference, as they make none to rules and servers.
    """
    port = _DEFAULT_PORTS.get(target.partition(b":")[0].lower(), b"")
    return _plain_host(authority, port) == _plain_host(host, port)


def _plain_host(authority: bytes, default_port: bytes) -> tuple[bytes, bytes]:
    name, colon, port = authority.lower().rpartition(b":")
    if not colon or (name.startswith(b"[") and not name.endswith(b"]")):
        name, port = authority.lower(), b""
    number = port.lstrip(b"0")
    return name.removesuffix(b"."), b"" if number == default_port else number


def _framing_fault(decisive: list[tuple[bytes, bytes]], minor: bytes) -> Refusal | None:
    """Look for two ways to find the end of the content (RFC 9112, 6.1 to 6.3): how requests are smuggled."""
    lengths = [value.strip(b" \t") for name, value in decisive if name.lower() == b"content-length"]
    codings = [value.strip(b" \t") for name, value in decisive if name.lower() == b"transfer-encoding"]
    if lengths and codings:
        return _BOTH_FRAMINGS
    if len(lengths) > 1:
        return _LENGTH_REPEATED
    if len(codings) > 1:
        return _CODING_REPEATED
    if lengths and (_LENGTH.fullmatch(lengths[0]) is None or int(lengths[0]) > _LARGEST_LENGTH_OCTETS):
        return _LENGTH_INVALID
    if codings and minor == b"0":
        return _CODING_BEFORE_11
    if codings and _CHUNKED_LAST.fullmatch(codings[0]) is None:
        return _CODING_INVALID
    return None
