"""The answers a front end gives itself, read by the standard library's client; and which methods may be repeated."""

from __future__ import annotations

import io
from http.client import HTTPResponse
from typing import TYPE_CHECKING, cast

import pytest

from tcpha.proto.inspect import Cause, Protocol, Request
from tcpha.proto.inspect.http1 import answer

if TYPE_CHECKING:
    import socket

STATUSES = {
    Cause.MALFORMED: (400, "Bad Request"),
    Cause.TIMED_OUT: (408, "Request Timeout"),
    Cause.TARGET_TOO_LONG: (414, "URI Too Long"),
    Cause.HEAD_TOO_LONG: (431, "Request Header Fields Too Large"),
    Cause.UNAVAILABLE: (503, "Service Unavailable"),
    Cause.UNROUTED: (503, "Service Unavailable"),
    Cause.VERSION: (505, "HTTP Version Not Supported"),
}


def request(method: bytes) -> Request:
    return Request(Protocol.HTTP1, method, b"/", b"", b"", 18)


class Wire:
    """As much of a connection as a client's reader asks for."""

    def __init__(self, octets: bytes) -> None:
        self.stream = io.BytesIO(octets)

    def makefile(self, _mode: str) -> io.BytesIO:
        return self.stream


def read(octets: bytes, method: str) -> tuple[HTTPResponse, bytes, bytes]:
    """The response, its content, and what is left on the connection behind it."""
    wire = Wire(octets)
    response = HTTPResponse(cast("socket.socket", wire), method=method)
    response.begin()
    content = response.fp.read(response.length or 0)
    return response, content, wire.stream.read()


@pytest.mark.parametrize("cause", Cause)
def test_answer_any_cause_is_one_complete_response(cause: Cause) -> None:
    response, content, rest = read(answer(cause), "GET")
    assert (response.version, response.status, response.reason) == (11, *STATUSES[cause])
    assert response.getheaders() == [
        ("Connection", "close"),
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(content))),
    ]
    assert content == "{} {}\n".format(*STATUSES[cause]).encode()
    assert rest == b""


@pytest.mark.parametrize("cause", Cause)
def test_answer_to_head_is_the_same_head_without_content(cause: Cause) -> None:
    response, content, rest = read(answer(cause, request(b"HEAD")), "HEAD")
    assert (response.status, content, rest) == (STATUSES[cause][0], b"", b"")
    assert answer(cause) == answer(cause, request(b"HEAD")) + "{} {}\n".format(*STATUSES[cause]).encode()


@pytest.mark.parametrize("cause", Cause)
def test_answer_twice_is_identical(cause: Cause) -> None:
    assert answer(cause) is answer(cause, request(b"GET"))


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
def test_idempotent_method_may_be_repeated(method: bytes) -> None:
    assert request(method).idempotent
    assert not request(method.lower()).idempotent


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"PROPFIND", b""])
def test_other_method_may_not_be_repeated(method: bytes) -> None:
    assert not request(method).idempotent
