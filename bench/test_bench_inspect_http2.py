"""What reading the first request of an HTTP/2 connection costs, and what asking every inspector does.

`python -m pytest bench/test_bench_inspect_http2.py`; on a busy machine compare the column Min of several runs. The
octets are those of an independent implementation (h2).
"""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.proto.inspect import NEED_MORE, FirstOctets, Request, first
from tcpha.proto.inspect.http2 import inspect

LIMIT_OCTETS = 16384
CURL = (("user-agent", "curl/7.88.1"), ("accept", "*/*"))
BROWSER = (
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "http://www.example.com/"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("priority", "u=0, i"),
)


def first_flight(fields: tuple[tuple[str, str], ...]) -> bytes:
    """Preface, SETTINGS and the HEADERS of a GET."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    pseudo = (
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "www.example.com"),
        (":path", "/static/app.js?v=3"),
    )
    connection.send_headers(1, [*pseudo, *fields], end_stream=True)
    return connection.data_to_send()


FLIGHTS = pytest.mark.parametrize("octets", [first_flight(CURL), first_flight(BROWSER)], ids=["curl", "browser"])


@FLIGHTS
def test_first_request(benchmark: BenchmarkFixture, octets: bytes) -> None:
    assert isinstance(benchmark(inspect, octets, LIMIT_OCTETS), Request)


@FLIGHTS
def test_first_request_by_all_inspectors(benchmark: BenchmarkFixture, octets: bytes) -> None:
    assert isinstance(benchmark(first.inspect, octets, LIMIT_OCTETS, raw=True), Request)


def test_unfinished_first_request(benchmark: BenchmarkFixture) -> None:
    assert benchmark(inspect, first_flight(BROWSER)[:-1], LIMIT_OCTETS) is NEED_MORE


def test_octets_of_redis_by_all_inspectors(benchmark: BenchmarkFixture) -> None:
    octets = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"
    assert isinstance(benchmark(first.inspect, octets, LIMIT_OCTETS, raw=True), FirstOctets)
