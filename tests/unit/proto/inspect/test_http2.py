"""The opening of an HTTP/2 connection, as the h2 package and as hyperframe's frames write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.proto.inspect import NEED_MORE, NOT_MINE, Cause, NeedMore, NotMine, Protocol, Refusal, Request
from tcpha.proto.inspect.http2 import MOST_FRAMES, PREFACE, answer, inspect

Fields = list[tuple[str, str]]
USUAL: Fields = [(":method", "GET"), (":scheme", "http"), (":authority", "www.Example.com:81"), (":path", "/a.jpg?x=1")]
COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0x9, 0x6, 0x1, 0xB


def block(fields: Fields) -> bytes:
    encoded: bytes = Encoder().encode(fields)
    return encoded


def headers(data: bytes, stream: int = 1, flags: tuple[str, ...] = ("END_HEADERS", "END_STREAM"), **more: Any) -> Frame:
    return HeadersFrame(stream, data, flags=flags, **more)


@dataclass(frozen=True)
class raw:  # noqa: N801  it stands in lists of frames
    """A frame of any kind and payload."""

    kind: int
    stream: int
    payload: bytes
    flags: int = 0

    def serialize(self) -> bytes:
        length = len(self.payload).to_bytes(3, "big")
        return length + bytes((self.kind, self.flags)) + self.stream.to_bytes(4, "big") + self.payload


def opening(*frames: Frame | raw) -> bytes:
    return PREFACE + b"".join(frame.serialize() for frame in frames)


def usual(*before: Frame | raw, fields: Fields = USUAL) -> bytes:
    return opening(SettingsFrame(0), *before, headers(block(fields)))


def read(octets: bytes, limit_octets: int = 16384) -> Any:
    """The verdict, which must be the same for every cut: octet by octet, whole, with more behind it."""
    whole = inspect(octets, limit_octets)
    decided = None
    for end in range(len(octets) + 1):
        found = inspect(octets[:end], limit_octets)
        if decided is None and found is not NEED_MORE:
            decided = found
        assert decided is None or found == decided
    assert whole == (decided or NEED_MORE)
    for trailing in (b"\0" * 9, usual()):
        assert whole is NEED_MORE or inspect(octets + trailing, limit_octets) == whole
    return whole


def accepted(octets: bytes) -> Request:
    request = read(octets)
    assert isinstance(request, Request), request
    return request


def fault(octets: bytes, limit_octets: int = 16384) -> tuple[Cause, int | None]:
    refusal = read(octets, limit_octets)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.protocol is Protocol.HTTP2
    return refusal.cause, refusal.code


# --- what is read


def test_opening_of_the_h2_package_is_read() -> None:
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.increment_flow_control_window(1 << 20)
    fields = [*USUAL, ("user-agent", "x"), ("cookie", "a=1"), ("cookie", "b=2")]
    client.send_headers(1, fields, end_stream=True)
    octets = client.data_to_send()
    request = accepted(octets)
    assert (request.protocol, request.method, request.target) == (Protocol.HTTP2, b"GET", b"/a.jpg?x=1")
    assert (request.host, request.path, request.query) == (b"www.example.com", b"/a.jpg", b"x=1")
    assert request.header(b"user-agent") == b"x"
    assert (request.cookie(b"a"), request.cookie(b"b")) == (b"1", b"2")
    assert request.head_octets == len(octets)
    assert inspect(octets).octets == octets  # type: ignore[union-attr]
    assert request.idempotent


def test_field_block_in_pieces_padded_with_priority_is_read() -> None:
    whole = block([*USUAL, ("x", "y" * 300)])
    first = HeadersFrame(7, whole[:20], flags=("PADDED", "PRIORITY"), pad_length=9, depends_on=3, stream_weight=5)
    rest = [
        ContinuationFrame(7, whole[20:50]),
        ContinuationFrame(7, b""),
        ContinuationFrame(7, whole[50:], flags=["END_HEADERS"]),
    ]
    octets = opening(SettingsFrame(0), first, *rest)
    assert accepted(octets).header(b"x") == b"y" * 300
    assert accepted(octets + DataFrame(7, b"z").serialize()).head_octets == len(octets)


def test_frames_that_may_precede_the_request_are_passed_over() -> None:
    before: list[Frame | raw] = [
        SettingsFrame(0, settings={1: 0, 2: 0, 3: 100, 4: 0x7FFFFFFF, 5: 1 << 14, 6: 1 << 20, 99: 7}),
        SettingsFrame(0, flags=["ACK"]),
        WindowUpdateFrame(0, window_increment=1),
        PriorityFrame(3, depends_on=0, stream_weight=200),
        PingFrame(0, b"12345678"),
        raw(0xBB, 5, b"grease", 0xFF),
    ]
    assert accepted(usual(*before)).target == b"/a.jpg?x=1"


@pytest.mark.parametrize(
    ("fields", "host", "target"),
    [
        ([(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "A.b")], b"a.b", b"/"),
        ([*USUAL, ("host", "WWW.example.com:81")], b"www.example.com", b"/a.jpg?x=1"),
        ([(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", "*")], b"a", b"*"),
        ([(":method", "CONNECT"), (":authority", "a:443")], b"a", b"a:443"),
        ([(":authority", "[::1]"), (":path", "/"), (":scheme", "https"), (":method", "PATCH")], b"[::1]", b"/"),
    ],
)
def test_legal_requests_are_read(fields: Fields, host: bytes, target: bytes) -> None:
    request = accepted(usual(fields=fields))
    assert (request.host, request.target) == (host, target)


def test_octets_that_begin_otherwise_are_not_mine() -> None:
    for octets in (b"G", b"PRI * HTTP/2.0\r\n\r\nSN", b"POST / HTTP/1.1\r\n", b"PRI * HTTP/1.1"):
        assert inspect(octets) is NOT_MINE
    for end in range(len(PREFACE) + 9):
        assert inspect(opening(SettingsFrame(0))[:end]) is NEED_MORE


# --- what is refused


SETTINGS = SettingsFrame(0)


FRAMES: dict[str, tuple[list[Frame | raw], int]] = {
    "no SETTINGS first": ([headers(block(USUAL))], PROTOCOL_ERROR),
    "an acknowledgement first": ([SettingsFrame(0, flags=["ACK"])], PROTOCOL_ERROR),
    "SETTINGS on a stream": ([raw(4, 1, b"")], PROTOCOL_ERROR),
    "SETTINGS of an odd length": ([raw(4, 0, bytes(7))], FRAME_SIZE_ERROR),
    "ACK with settings": ([SETTINGS, raw(4, 0, bytes(6), 1)], FRAME_SIZE_ERROR),
    "push neither on nor off": ([raw(4, 0, b"\0\2\0\0\0\2")], PROTOCOL_ERROR),
    "initial window too large": ([raw(4, 0, b"\0\4\x80\0\0\0")], 0x3),
    "frame size too small": ([raw(4, 0, b"\0\5\0\0\x3f\xff")], PROTOCOL_ERROR),
    "DATA": ([SETTINGS, DataFrame(1, b"x")], PROTOCOL_ERROR),
    "RST_STREAM": ([SETTINGS, RstStreamFrame(1)], PROTOCOL_ERROR),
    "PUSH_PROMISE": ([SETTINGS, raw(5, 1, bytes(8))], PROTOCOL_ERROR),
    "GOAWAY": ([SETTINGS, GoAwayFrame(0)], PROTOCOL_ERROR),
    "CONTINUATION": ([SETTINGS, ContinuationFrame(1, b"")], PROTOCOL_ERROR),
    "PING on a stream": ([SETTINGS, raw(6, 1, bytes(8))], PROTOCOL_ERROR),
    "PING too short": ([SETTINGS, raw(6, 0, bytes(7))], FRAME_SIZE_ERROR),
    "PRIORITY on no stream": ([SETTINGS, raw(2, 0, bytes(5))], PROTOCOL_ERROR),
    "PRIORITY too long": ([SETTINGS, raw(2, 1, bytes(6))], FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": ([SETTINGS, raw(8, 1, b"\0\0\0\1")], PROTOCOL_ERROR),
    "WINDOW_UPDATE by nothing": ([SETTINGS, raw(8, 0, b"\x80\0\0\0")], PROTOCOL_ERROR),
    "WINDOW_UPDATE too long": ([SETTINGS, raw(8, 0, bytes(5))], FRAME_SIZE_ERROR),
    "HEADERS on an even stream": ([SETTINGS, headers(block(USUAL), 2)], PROTOCOL_ERROR),
    "HEADERS on no stream": ([SETTINGS, raw(1, 0, b"", 5)], PROTOCOL_ERROR),
    "priority longer than the frame": ([SETTINGS, raw(1, 1, b"ab", 0x25)], FRAME_SIZE_ERROR),
    "padding and priority longer than the frame": ([SETTINGS, raw(1, 1, b"\x09ab", 0x2D)], FRAME_SIZE_ERROR),
    "padding longer than the frame": ([SETTINGS, raw(1, 1, b"\x05abc", 0x0D)], PROTOCOL_ERROR),
    "padded without a length": ([SETTINGS, raw(1, 1, b"", 0x0D)], FRAME_SIZE_ERROR),
    "block interrupted": ([SETTINGS, headers(b"", flags=()), PingFrame(0, bytes(8))], PROTOCOL_ERROR),
    "block continued on another stream": (
        [SETTINGS, headers(b"", flags=()), ContinuationFrame(3, b"")],
        PROTOCOL_ERROR,
    ),
    "index out of the table": ([SETTINGS, headers(b"\xff\x80\x01")], COMPRESSION_ERROR),
    "block cut off": ([SETTINGS, headers(block(USUAL)[:-3])], COMPRESSION_ERROR),
    "table larger than allowed": ([SETTINGS, headers(b"\x3f\xff\xff\x03" + block(USUAL))], COMPRESSION_ERROR),
}


@pytest.mark.parametrize(("frames", "code"), FRAMES.values(), ids=FRAMES)
def test_frames_that_break_the_rules_are_refused(frames: list[Frame | raw], code: int) -> None:
    assert fault(opening(*frames)) == (Cause.MALFORMED, code)


def test_frame_larger_than_allowed_is_refused_by_its_header() -> None:
    octets = opening(SETTINGS) + (16385).to_bytes(3, "big") + b"\x20\0\0\0\0\0"
    assert fault(octets, 1 << 20) == (Cause.MALFORMED, FRAME_SIZE_ERROR)


BAD_FIELDS: dict[str, Fields] = {
    "no method": USUAL[1:],
    "no scheme": [USUAL[0], *USUAL[2:]],
    "scheme that begins with a digit": [USUAL[0], (":scheme", "1http"), *USUAL[2:]],
    "scheme with a colon": [USUAL[0], (":scheme", "http:"), *USUAL[2:]],
    "control character in a pseudo-header": [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/\t\x01"),
    ],
    "blank behind a pseudo-header": [*USUAL[:3], (":path", "/ ")],
    "no path": USUAL[:3],
    "empty path": [*USUAL[:3], (":path", "")],
    "path without slash": [*USUAL[:3], (":path", "a")],
    "asterisk with GET": [*USUAL[:3], (":path", "*")],
    "absolute path": [*USUAL[:3], (":path", "http://a/")],
    "space in path": [*USUAL[:3], (":path", "/a b")],
    "fragment in path": [*USUAL[:3], (":path", "/a#b")],
    "no authority": [*USUAL[:2], USUAL[3]],
    "empty authority": [*USUAL[:2], (":authority", ""), USUAL[3]],
    "user information": [*USUAL[:2], (":authority", "u@a"), USUAL[3]],
    "two methods": [USUAL[0], *USUAL],
    "unknown pseudo-header": [*USUAL, (":status", "200")],
    "late pseudo-header": [*USUAL[:3], ("a", "b"), USUAL[3]],
    "extended CONNECT": [(":method", "CONNECT"), *USUAL[1:], (":protocol", "websocket")],
    "CONNECT with path": [(":method", "CONNECT"), (":authority", "a:443"), (":path", "/")],
    "CONNECT without port": [(":method", "CONNECT"), (":authority", "a")],
    "another host": [*USUAL, ("host", "other")],
    "two hosts": [*USUAL[:2], USUAL[3], ("host", "a"), ("host", "a")],
    "upper case": [*USUAL, ("X-Y", "z")],
    "connection": [*USUAL, ("connection", "close")],
    "transfer-encoding": [*USUAL, ("transfer-encoding", "chunked")],
    "upgrade": [*USUAL, ("upgrade", "websocket")],
    "te other than trailers": [*USUAL, ("te", "gzip")],
    "empty name": [*USUAL, ("", "z")],
    "colon in name": [*USUAL, ("a:b", "z")],
    "CR in value": [*USUAL, ("a", "b\rc")],
    "LF in value": [*USUAL, ("a", "b\nc")],
    "NUL in value": [*USUAL, ("a", "b\0c")],
    "space before value": [*USUAL, ("a", " b")],
    "tab behind value": [*USUAL, ("a", "b\t")],
    "two lengths": [*USUAL, ("content-length", "1"), ("content-length", "1")],
    "length that is none": [*USUAL, ("content-length", "+1")],
    "length too large": [*USUAL, ("content-length", str(1 << 63))],
    "space in method": [(":method", "GE T"), *USUAL[1:]],
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_malformed_request_is_refused(fields: Fields) -> None:
    assert fault(usual(fields=fields)) == (Cause.MALFORMED, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "fields", [[*USUAL, ("te", "trailers")], [*USUAL, ("content-length", "5")], [*USUAL, ("a", "")]]
)
def test_field_that_only_looks_odd_is_taken(fields: Fields) -> None:
    accepted(usual(fields=fields))


# --- limits


def test_request_beyond_the_limit_is_refused_by_the_frame_header() -> None:
    octets = usual(fields=[*USUAL, ("x", "Y" * 400)])
    assert isinstance(inspect(octets, len(octets) + 200), Request)
    assert fault(octets, len(octets) - 1) == (Cause.HEAD_TOO_LONG, ENHANCE_YOUR_CALM)
    assert fault(opening(SETTINGS, raw(0xBB, 0, bytes(500))), 300) == (Cause.HEAD_TOO_LONG, ENHANCE_YOUR_CALM)


def test_block_that_unfolds_beyond_the_limit_is_refused() -> None:
    """A field in the table costs one octet each time it is named (RFC 7541, 6.1)."""
    bomb = block([*USUAL, ("x", "y" * 1000)]) + b"\xbe" * 100
    assert fault(opening(SETTINGS, headers(bomb))) == (Cause.HEAD_TOO_LONG, ENHANCE_YOUR_CALM)


def test_frames_without_end_are_refused() -> None:
    pings = [PingFrame(0, bytes(8))] * MOST_FRAMES
    assert inspect(usual(*pings[:-2])) is not NEED_MORE
    assert fault(usual(*pings)) == (Cause.HEAD_TOO_LONG, ENHANCE_YOUR_CALM)
    pieces = [ContinuationFrame(1, b"")] * MOST_FRAMES
    assert fault(opening(SETTINGS, headers(b"", flags=()), *pieces)) == (Cause.HEAD_TOO_LONG, ENHANCE_YOUR_CALM)


@settings(deadline=None, max_examples=300)
@given(octets=st.binary(max_size=200), limit=st.integers(64, 400), begun=st.booleans())
def test_any_octets_never_raise_and_no_cut_changes_the_verdict(octets: bytes, limit: int, begun: bool) -> None:
    octets = (opening(SETTINGS) if begun else b"") + octets
    decided = None
    for end in range(len(octets) + 1):
        found = inspect(octets[:end], limit)
        assert isinstance(found, Request | Refusal | NeedMore | NotMine)
        if decided is None and found is not NEED_MORE:
            decided = found
        assert decided is None or found == decided


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_mutated_openings_never_raise(data: st.DataObject) -> None:
    octets = bytearray(usual(PingFrame(0, bytes(8)), fields=[*USUAL, ("a", "b"), ("cookie", "c=d")]))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(24, len(octets) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(octets))


# --- answers


def heard(octets: bytes, with_request: bool) -> list[Any]:
    """What a client of the h2 package makes of an answer."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    if with_request:
        client.send_headers(1, USUAL, end_stream=True)
    return [
        event for event in client.receive_data(octets) if not type(event).__name__.endswith(("Changed", "Settings"))
    ]


@pytest.mark.parametrize("cause", [Cause.UNAVAILABLE, Cause.UNROUTED, Cause.TIMED_OUT])
def test_answer_to_a_request_is_a_503_and_goodbye(cause: Cause) -> None:
    asked = inspect(usual())
    assert isinstance(asked, Request)
    events = heard(answer(cause, asked), with_request=True)
    assert [type(event) for event in events] == [ResponseReceived, StreamEnded, ConnectionTerminated]
    assert [(bytes(name), bytes(value)) for name, value in events[0].headers] == [(b":status", b"503")]
    assert (events[2].error_code, events[2].last_stream_id) == (0, 1)
    assert answer(cause, asked) == answer(cause, asked)


@pytest.mark.parametrize(
    ("cause", "code", "told"),
    [
        (Cause.MALFORMED, COMPRESSION_ERROR, COMPRESSION_ERROR),
        (Cause.HEAD_TOO_LONG, None, ENHANCE_YOUR_CALM),
        (Cause.TIMED_OUT, None, 0),
    ],
)
def test_answer_without_a_request_is_goodbye_with_the_reason(cause: Cause, code: int | None, told: int) -> None:
    (event,) = heard(answer(cause, None, code), with_request=False)
    assert isinstance(event, ConnectionTerminated)
    assert (event.error_code, event.last_stream_id) == (told, 0)


def test_reserved_bit_of_a_stream_is_ignored() -> None:
    data = block(USUAL)
    frame = raw(1, 1 | 1 << 31, data, 0x05)
    assert read(opening(SETTINGS, frame)).stream == 1
    assert isinstance(read(opening(raw(4, 1 << 31, b""), frame)), Request)


def test_cookie_in_several_fields_is_one_to_rules() -> None:
    request = accepted(usual(fields=[*USUAL, ("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2")]))
    assert request.header(b"cookie") == b"a=1; b=2"
    assert request.header(b"x") == b"1, 2"
    assert (request.cookie(b"a"), request.cookie(b"b")) == (b"1", b"2")
