"""The answers a front end gives itself, read by the standard library's client; and which methods may be repeated."""

from __future__ import annotations

import io
from http.client import HTTPResponse
from typing import TYPE_CHECKING, cast

import pytest

from tcpha.proto.inspect.http1 import answer, idempotent

if TYPE_CHECKING:
    import socket

PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


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


@pytest.mark.parametrize("status", PHRASES)
def test_answer_any_status_is_one_complete_response(status: int) -> None:
    response, content, rest = read(answer(status), "GET")
    assert (response.version, response.status, response.reason) == (11, status, PHRASES[status])
    assert response.getheaders() == [
        ("Connection", "close"),
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(content))),
    ]
    assert content == f"{status} {PHRASES[status]}\n".encode()
    assert rest == b""


@pytest.mark.parametrize("status", PHRASES)
def test_answer_to_head_is_the_same_head_without_content(status: int) -> None:
    response, content, rest = read(answer(status, b"HEAD"), "HEAD")
    assert (response.status, content, rest) == (status, b"", b"")
    assert answer(status) == answer(status, b"HEAD") + f"{status} {PHRASES[status]}\n".encode()


@pytest.mark.parametrize("status", PHRASES)
def test_answer_twice_is_identical(status: int) -> None:
    assert answer(status) is answer(status, b"GET")


def test_answer_other_status_raises() -> None:
    with pytest.raises(KeyError):
        answer(200)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
def test_idempotent_method_may_be_repeated(method: bytes) -> None:
    assert idempotent(method)
    assert not idempotent(method.lower())


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"PROPFIND", b""])
def test_other_method_may_not_be_repeated(method: bytes) -> None:
    assert not idempotent(method)
