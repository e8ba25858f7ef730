"""What reading a ClientHello costs: in one record as browsers send it, in many, unfinished, and hostile ones.

`python -m pytest bench/test_bench_inspect_tls.py`; on a busy machine compare the column Min of several runs.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.proto.inspect import NEED_MORE, Refusal
from tcpha.proto.inspect.tls import MOST_RECORDS, ClientHello, inspect
from tests.unit.proto.inspect.hellos import (
    Hello,
    chrome,
    extension,
    firefox,
    one_octet_records,
    records,
    resumption,
    sni,
    u16,
    vector,
)


def hello_of_openssl() -> bytes:
    """517 octets: padded (RFC 7685)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2", "http/1.1"])
    leaving = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), leaving, server_hostname="www.example.com").do_handshake()
    return leaving.read()


PQ = chrome().record
HELLOS = {
    "openssl, 517 octets": hello_of_openssl(),
    "chrome, post-quantum, 1.8 KB": PQ,
    "firefox, post-quantum, 1.9 KB": firefox().record,
    "resumption, 4 KB": resumption().record,
}


@pytest.mark.parametrize("octets", HELLOS.values(), ids=HELLOS)
def test_hello(benchmark: BenchmarkFixture, octets: bytes) -> None:
    assert isinstance(benchmark(inspect, octets), ClientHello)


def test_hello_and_alpn(benchmark: BenchmarkFixture) -> None:
    def inspect_and_ask() -> object:
        hello = inspect(PQ)
        return isinstance(hello, ClientHello) and hello.alpn

    assert benchmark(inspect_and_ask) == b"h2,http/1.1"


def test_first_segment_of_a_post_quantum_hello(benchmark: BenchmarkFixture) -> None:
    assert benchmark(inspect, PQ[:1448]) is NEED_MORE


def test_hello_in_three_records(benchmark: BenchmarkFixture) -> None:
    assert isinstance(benchmark(inspect, records(chrome().message, [600, 600])), ClientHello)


def test_post_quantum_hello_in_as_many_records_as_are_read(benchmark: BenchmarkFixture) -> None:
    octets = records(chrome().message, [1] * (MOST_RECORDS - 1))
    assert isinstance(benchmark(inspect, octets), ClientHello)


def test_as_many_records_as_are_read(benchmark: BenchmarkFixture) -> None:
    """The dearest beginning that asks for more; its sender pays a packet for each time."""
    octets = one_octet_records(Hello().padded(16384).message)[: 6 * MOST_RECORDS]
    assert benchmark(inspect, octets) is NEED_MORE


def test_as_many_extensions_as_fit(benchmark: BenchmarkFixture) -> None:
    """The dearest hello; each connection can send it once."""
    octets = Hello(sni(b"a") + b"".join(extension(kind) for kind in range(100, 4150))).record
    assert isinstance(benchmark(inspect, octets), ClientHello)


def test_as_many_names_as_fit(benchmark: BenchmarkFixture) -> None:
    octets = Hello(u16(16) + vector(vector(b"\1a" * 8100))).record
    assert isinstance(benchmark(inspect, octets), ClientHello)


def test_hello_that_is_refused(benchmark: BenchmarkFixture) -> None:
    assert isinstance(benchmark(inspect, chrome(b"a..b").record), Refusal)
