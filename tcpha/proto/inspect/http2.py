"""HTTP/2 with prior knowledge (RFC 9113, 3.3): the first octets of a connection -> its first request.

    24 octets      the client's connection preface
    SETTINGS       may be empty
    ...            SETTINGS, WINDOW_UPDATE, PRIORITY, PING, frames of unknown types: each allowed, each checked
    HEADERS        the first request, with its CONTINUATION frames

Pure and stateless: every call reads from the first octet, and a fault is seen at the frame header or at the end of the
frame that shows it, so no cut changes the verdict. Field blocks are decoded by the package `hpack` (RFC 7541), bounded
in what they may unfold to. What the server will see decides, so what RFC 9113 calls malformed (8.1.1) is refused:
pseudo-header fields that are missing, doubled, unknown or late, names in upper case, fields of a connection (8.2.2), a
Host field that differs from ``:authority`` (8.3.1).

The whole connection goes where its first request goes: the streams of one connection stay together.

Deviation: extended CONNECT (RFC 8441) is refused, because the server has not offered it before the first request.
Deviation: the frames before the first request may not say GOAWAY.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

from tcpha.proto.inspect import (
    NEED_MORE,
    NOT_MINE,
    Cause,
    Headers,
    Inspected,
    Inspection,
    NeedMore,
    Protocol,
    Refusal,
    Request,
)
from tcpha.proto.inspect.authority import is_authority

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_OCTETS: Final = 9
LARGEST_FRAME_OCTETS: Final = 1 << 14
"""SETTINGS_MAX_FRAME_SIZE before anybody has set it (RFC 9113, 6.5.2)."""
MOST_FRAMES: Final = 16
"""Frames before the request, and pieces of the request, at most: each costs time whenever an octet arrives."""

_HEADERS, _SETTINGS, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 1, 4, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _HAS_PRIORITY = 0x4, 0x8, 0x20
_NO_ERROR, _PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x6
_COMPRESSION_ERROR, _ENHANCE_YOUR_CALM = 0x9, 0xB
_ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 2, 4, 5

_FRAME: Final = struct.Struct("!HBBBI")  # length in two parts, type, flags, stream
_SETTING: Final = struct.Struct("!HI")
_LAST_WORDS: Final = struct.Struct("!II")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
_VALUE: Final = re.compile(rb"(?![ \t])[\t\x20-\x7e\x80-\xff]*+(?<![ \t])")
_PATH_FORM: Final = re.compile(rb"/[!\"$-~]*+")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}+")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*+")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_OF_A_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


def _fault(reason: str, code: int = _PROTOCOL_ERROR) -> Refusal:
    return Refusal(Protocol.HTTP2, Cause.MALFORMED, reason, code)


_NO_SETTINGS: Final = _fault("no SETTINGS behind the preface")
_FRAME_TOO_LONG: Final = _fault("frame of more than 2^14 octets", _FRAME_SIZE_ERROR)
_FRAME_LENGTH: Final = _fault("frame of a wrong length", _FRAME_SIZE_ERROR)
_PRIORITY_CUT: Final = _fault("HEADERS too short for their priority", _FRAME_SIZE_ERROR)
_STREAM: Final = _fault("frame on a stream that it may not be on")
_UNEXPECTED: Final = _fault("frame that may not come before the first request")
_SETTING_VALUE: Final = _fault("setting out of range")
_WINDOW_SETTING: Final = _fault("initial window out of range", _FLOW_CONTROL_ERROR)
_INCREMENT: Final = _fault("window update by nothing")
_PADDING: Final = _fault("padding longer than its frame")
_BLOCK: Final = _fault("field block that cannot be decoded", _COMPRESSION_ERROR)
_INTERRUPTED: Final = _fault("field block interrupted by another frame")
_FIELD: Final = _fault("malformed field")
_PSEUDO_FIELD: Final = _fault("pseudo-header field unknown, doubled or late")
_CONNECTION_FIELD: Final = _fault("field of a connection")
_INCOMPLETE: Final = _fault("pseudo-header field missing")
_CONNECT: Final = _fault("CONNECT with more than an authority")
_PATH: Final = _fault("malformed :path")
_SCHEME_FAULT: Final = _fault("malformed :scheme")
_AUTHORITY_FAULT: Final = _fault("malformed, doubled or contradictory host")
_CONTENT_LENGTH: Final = _fault("invalid Content-Length")
_TOO_MANY: Final = Refusal(Protocol.HTTP2, Cause.HEAD_TOO_LONG, "too many frames", _ENHANCE_YOUR_CALM)
_TOO_LONG: Final = Refusal(Protocol.HTTP2, Cause.HEAD_TOO_LONG, "first request exceeds the limit", _ENHANCE_YOUR_CALM)


class _Frame:
    """One frame's header, and where its payload lies (RFC 9113, 4.1)."""

    __slots__ = ("end", "flags", "kind", "start", "stream")

    def __init__(self, octets: bytes, at: int) -> None:
        high, low, self.kind, self.flags, stream = _FRAME.unpack_from(octets, at)
        self.start = at + FRAME_HEADER_OCTETS
        self.end = self.start + (high << 8 | low)
        self.stream = stream & 0x7FFFFFFF


class Http2Request(Request):
    """The first request of an HTTP/2 connection."""

    __slots__ = ("stream",)

    stream: int
    """Its stream, odd (RFC 9113, 5.1.1)."""


def inspect(octets: bytes, limit_octets: int = 16384) -> Inspection:
    """Read the first request in everything that has arrived, from the connection's first octet on.

    `limit_octets` (>= 64) bounds all frames to the end of the request's HEADERS, and what its fields unfold to
    (RFC 9113, 10.5.1); `MOST_FRAMES` their number. Never raises.
    """
    if octets[: len(PREFACE)] != PREFACE[: len(octets)]:
        return NOT_MINE
    at = len(PREFACE)
    for number in range(MOST_FRAMES):
        frame = _next_frame(octets, at, limit_octets)
        if not isinstance(frame, _Frame):
            return frame
        fault = _header_fault(frame) if number else _settings_fault(frame)
        if fault is not None:
            return fault
        if frame.end > len(octets):
            return NEED_MORE
        if frame.kind == _HEADERS:
            return _first_request(octets, frame, limit_octets)
        fault = _payload_fault(octets, frame)
        if fault is not None:
            return fault
        at = frame.end
    return _TOO_MANY


def answer(cause: Cause, asked: Inspected | None = None, code: int | None = None) -> bytes:
    """Return the whole of a connection without a server: SETTINGS, a 503 to the request if one was read, GOAWAY.

    `code` is that of the refusal. Identical octets at every call (RFC 9113, 3.4, 8.1 and 6.8).
    """
    if isinstance(asked, Http2Request):
        response = _frame(_HEADERS, _END_HEADERS | _END_STREAM, asked.stream, _STATUS_503)
        return _EMPTY_SETTINGS + response + _goaway(asked.stream, _NO_ERROR)
    if code is None:
        code = _ENHANCE_YOUR_CALM if cause is Cause.HEAD_TOO_LONG else _NO_ERROR
    return _EMPTY_SETTINGS + _goaway(0, code)


def opening(field_block: bytes) -> bytes:
    """Return how a client begins that knows its server: the preface, SETTINGS, and a request without content."""
    return PREFACE + _EMPTY_SETTINGS + _frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, field_block)


# --- frames


def _next_frame(octets: bytes, at: int, limit_octets: int) -> _Frame | Refusal | NeedMore:
    """Return the frame that begins at `at`, whole or not."""
    if at + FRAME_HEADER_OCTETS > limit_octets:
        return _TOO_LONG
    if at + FRAME_HEADER_OCTETS > len(octets):
        return NEED_MORE
    frame = _Frame(octets, at)
    if frame.end - frame.start > LARGEST_FRAME_OCTETS:
        return _FRAME_TOO_LONG
    return _TOO_LONG if frame.end > limit_octets else frame


def _settings_fault(frame: _Frame) -> Refusal | None:
    """The first frame: SETTINGS, and no acknowledgement of one (RFC 9113, 3.4)."""
    if frame.kind != _SETTINGS or frame.flags & _ACK:
        return _NO_SETTINGS
    return _header_fault(frame)


def _header_fault(frame: _Frame) -> Refusal | None:
    """Judge a frame by its header (RFC 9113, 6 and 5.1: every stream is idle)."""
    length = frame.end - frame.start
    match frame.kind:
        case 1:  # HEADERS
            return None if frame.stream & 1 else _STREAM
        case 2:  # PRIORITY
            return _STREAM if not frame.stream else None if length == 5 else _FRAME_LENGTH
        case 4:  # SETTINGS
            if frame.stream:
                return _STREAM
            return _FRAME_LENGTH if length % 6 or (frame.flags & _ACK and length) else None
        case 6:  # PING
            return _STREAM if frame.stream else None if length == 8 else _FRAME_LENGTH
        case 8:  # WINDOW_UPDATE
            return _STREAM if frame.stream else None if length == 4 else _FRAME_LENGTH
        case 0 | 3 | 5 | 7 | 9:  # DATA, RST_STREAM, PUSH_PROMISE, GOAWAY, CONTINUATION
            return _UNEXPECTED
        case _:
            return None  # unknown types are ignored (RFC 9113, 5.5)


def _payload_fault(octets: bytes, frame: _Frame) -> Refusal | None:
    """Judge the payload of a frame before the request (RFC 9113, 6.5.2 and 6.9)."""
    if frame.kind == _WINDOW_UPDATE:
        increment = int.from_bytes(octets[frame.start : frame.end], "big") & 0x7FFFFFFF
        return None if increment else _INCREMENT
    if frame.kind == _SETTINGS:
        for name, value in _SETTING.iter_unpack(octets[frame.start : frame.end]):
            if name == _INITIAL_WINDOW_SIZE and value > 0x7FFFFFFF:
                return _WINDOW_SETTING
            if name == _ENABLE_PUSH and value > 1:
                return _SETTING_VALUE
            if name == _MAX_FRAME_SIZE and not 1 << 14 <= value < 1 << 24:
                return _SETTING_VALUE
    return None


def _fragment(octets: bytes, frame: _Frame) -> bytes | Refusal:
    """Return what HEADERS hold of the field block (RFC 9113, 6.2)."""
    start, end = frame.start, frame.end
    if frame.flags & _PADDED:
        if start == end:
            return _FRAME_LENGTH
        end -= octets[start]
        start += 1
    if frame.flags & _HAS_PRIORITY:
        start += 5
        if start > frame.end:  # too small for what must stand in it, padding or not (RFC 9113, 4.2)
            return _PRIORITY_CUT
    return octets[start:end] if start <= end else _PADDING


# --- the request


def _first_request(octets: bytes, frame: _Frame, limit_octets: int) -> Inspection:
    """Put the field block together and read it."""
    first = _fragment(octets, frame)
    if isinstance(first, Refusal):
        return first
    stream, block = frame.stream, [first]
    while not frame.flags & _END_HEADERS:
        following = _next_frame(octets, frame.end, limit_octets)
        if not isinstance(following, _Frame):
            return following
        if following.kind != _CONTINUATION or following.stream != stream:
            return _INTERRUPTED
        if len(block) == MOST_FRAMES:
            return _TOO_MANY
        if following.end > len(octets):
            return NEED_MORE
        block.append(octets[following.start : following.end])
        frame = following
    try:
        fields = Decoder(max_header_list_size=limit_octets).decode(b"".join(block), raw=True)
    except OversizedHeaderListError:
        return _TOO_LONG
    except HPACKError:
        return _BLOCK
    headers = tuple([(bytes(name), bytes(value)) for name, value in fields])
    return _read(headers, stream, frame.end, octets)


def _read(headers: Headers, stream: int, head_octets: int, octets: bytes) -> Request | Refusal:
    """Check the fields of a request (RFC 9113, 8.2 and 8.3) and make it a value."""
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in headers:
        if not name.startswith(b":"):
            break
        count += 1
        if name not in _PSEUDO or name in pseudo:
            return _PSEUDO_FIELD
        pseudo[name] = value  # what each may hold is looked at below
    regular = headers[count:]
    fault = _field_fault(regular)
    if fault is not None:
        return fault
    authority = _authority(pseudo.get(b":authority"), regular)
    if isinstance(authority, Refusal):
        return authority
    method = pseudo.get(b":method", b"")
    target = _target(method, pseudo, authority)
    if isinstance(target, Refusal):
        return target
    request = Http2Request(Protocol.HTTP2, method, target, authority, regular, head_octets, octets)
    request.stream = stream
    return request


def _field_fault(fields: Headers) -> Refusal | None:
    """Judge the fields behind the pseudo-header fields (RFC 9113, 8.2.1 and 8.2.2)."""
    lengths = 0
    for name, value in fields:
        if name.startswith(b":"):
            return _PSEUDO_FIELD
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            return _FIELD
        if name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
            return _CONNECTION_FIELD
        if name == b"content-length":
            lengths += 1
            if lengths > 1 or _LENGTH.fullmatch(value) is None or int(value) >= 1 << 63:
                return _CONTENT_LENGTH
    return None


def _authority(pseudo: bytes | None, fields: Headers) -> bytes | Refusal:
    """Return the one host that is named, whichever way (RFC 9113, 8.3.1)."""
    hosts = [value for name, value in fields if name == b"host"]
    named = {each.lower() for each in (*hosts, *(() if pseudo is None else (pseudo,)))}
    if len(hosts) > 1 or len(named) != 1:
        return _AUTHORITY_FAULT
    authority = hosts[0] if pseudo is None else pseudo
    return authority if is_authority(authority) else _AUTHORITY_FAULT


def _target(method: bytes, pseudo: dict[bytes, bytes], authority: bytes) -> bytes | Refusal:
    """Return what HTTP/1.1 would have as request-target (RFC 9113, 8.3.1 and 8.5)."""
    if _METHOD.fullmatch(method) is None:
        return _INCOMPLETE
    if method == b"CONNECT":
        if pseudo.keys() != {b":method", b":authority"} or not is_authority(authority, port_required=True):
            return _CONNECT
        return authority
    if not pseudo.get(b":scheme") or b":path" not in pseudo:
        return _INCOMPLETE
    if _SCHEME.fullmatch(pseudo[b":scheme"]) is None:  # RFC 3986, 3.1
        return _SCHEME_FAULT
    path = pseudo[b":path"]
    if path == b"*" and method == b"OPTIONS":
        return path
    return path if _PATH_FORM.fullmatch(path) else _PATH


# --- answers


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _goaway(last_stream: int, code: int) -> bytes:
    return _frame(_GOAWAY, 0, 0, _LAST_WORDS.pack(last_stream, code))


_EMPTY_SETTINGS: Final = _frame(_SETTINGS, 0, 0, b"")
# Name 8 of the static table is :status; the value is not entered into the client's table (RFC 7541, 6.2.2).
_STATUS_503: Final = b"\x08\x03503"
