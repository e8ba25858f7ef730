"""What reading a request head costs, compared with httptools and the checks that it lacks.

`python -m pytest bench/test_bench_inspect.py`; on a busy machine compare the column Min of several runs.
"""

from __future__ import annotations

import httptools
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.proto.inspect import NEED_MORE, NOT_MINE, Protocol, Refusal, Request
from tcpha.proto.inspect.http1 import _REQUEST_LINE, _host, inspect

CURL = b"GET / HTTP/1.1\r\nHost: 192.0.2.10\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
BROWSER = (
    b"GET /static/app.js?v=3 HTTP/1.1\r\n"
    b"Host: www.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Referer: http://www.example.com/\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Priority: u=0, i\r\n\r\n"
)
HEADS = {"browser": BROWSER, "curl": CURL}


class Collected:
    """The callback that httptools needs for the same value."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def inspect_by_httptools(octets: bytes, limit_octets: int = 16384) -> Request | None:
    """Let httptools read the fields, and check as the reader does what it takes too lightly: request line and Host."""
    line_end = octets.find(b"\r\n", 0, limit_octets)
    line = _REQUEST_LINE.match(octets, 0, line_end + 2)
    head_octets = octets.find(b"\r\n\r\n", line_end, limit_octets) + 4
    if line is None or head_octets < 4:
        return None
    method, target, major, minor = line.groups()
    if major != b"1" or not target.startswith(b"/") or method == b"CONNECT":
        return None
    collected = Collected()
    httptools.HttpRequestParser(collected).feed_data(octets[:head_octets])
    host = _host([field for field in collected.headers if field[0] == b"host"], minor)
    if isinstance(host, Refusal):
        return None
    return Request(Protocol.HTTP1, method, target, host, tuple(collected.headers), head_octets)


@pytest.mark.parametrize("octets", HEADS.values(), ids=HEADS)
def test_head(benchmark: BenchmarkFixture, octets: bytes) -> None:
    assert isinstance(benchmark(inspect, octets), Request)


@pytest.mark.parametrize("octets", HEADS.values(), ids=HEADS)
def test_head_and_headers(benchmark: BenchmarkFixture, octets: bytes) -> None:
    def inspect_and_ask() -> object:
        inspection = inspect(octets)
        return isinstance(inspection, Request) and inspection.headers

    assert benchmark(inspect_and_ask)


@pytest.mark.parametrize("octets", HEADS.values(), ids=HEADS)
def test_head_by_httptools_and_checks(benchmark: BenchmarkFixture, octets: bytes) -> None:
    assert benchmark(inspect_by_httptools, octets) == inspect(octets)


def test_unfinished_head(benchmark: BenchmarkFixture) -> None:
    assert benchmark(inspect, BROWSER[:-2]) is NEED_MORE


def test_unfinished_request_line_of_8_kib(benchmark: BenchmarkFixture) -> None:
    assert benchmark(inspect, b"GET /" + b"a" * 8187) is NEED_MORE


def test_tls_client_hello(benchmark: BenchmarkFixture) -> None:
    assert benchmark(inspect, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506)) is NOT_MINE
