"""The same inner loops with cold caches: what they take when other processes had the processor in between.

Before each round octets as many as the second-level cache has are written, which drives out code and data of the
interpreter. A node under load shares its processor with the kernel, and in a lab with clients and servers, too; so this
is nearer to what a connection costs there than a loop that finds everything where it left it.

make bench-micro
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import test_bench_adoption as adoption
from bench import test_bench_dispatch as dispatch
from tcpha.fe.actions import Send
from tcpha.proto.handoff import Envelope
from tcpha.proto.tcp import decode_segment

ROUNDS: Final = 2_000
EVICTED_OCTETS: Final = 4 << 20

_mass = bytearray(EVICTED_OCTETS)
_zeros = bytes(EVICTED_OCTETS)


def evict() -> None:
    _mass[:] = _zeros


@pytest.fixture
def front_end(tmp_path: Path) -> dispatch.Bench:
    return dispatch.Bench(tmp_path)


def test_cold_syn_with_cookie(benchmark: BenchmarkFixture, front_end: dispatch.Bench) -> None:
    packet = front_end.syn(front_end.key(0))

    def answer() -> None:
        front_end.dispatcher.on_segment(decode_segment(packet), 0.0)

    benchmark.pedantic(answer, setup=evict, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_cold_request_to_sealed_handoff(benchmark: BenchmarkFixture, front_end: dispatch.Bench) -> None:
    packets = iter([front_end.request(front_end.key(number)) for number in range(ROUNDS)])

    def hand_off() -> None:
        (action,) = front_end.dispatcher.on_segment(decode_segment(next(packets)), 0.0)
        assert isinstance(action, Send)
        front_end.codec.encode(Envelope(23, 1, 1), action.message)

    benchmark.pedantic(hand_off, setup=evict, rounds=ROUNDS)  # type: ignore[no-untyped-call]


@pytest.fixture
def connections(tmp_path: Path) -> tuple[adoption.Bench, Iterator[adoption.Connection]]:
    back_end = adoption.Bench(tmp_path)
    return back_end, iter([adoption.Connection(number, back_end.codec) for number in range(ROUNDS)])


def test_cold_connection_from_handoff_to_the_end(
    benchmark: BenchmarkFixture, connections: tuple[adoption.Bench, Iterator[adoption.Connection]]
) -> None:
    """Cold once, at its HANDOFF; what follows finds the caches as that left them."""
    back_end, coming = connections
    benchmark.pedantic(lambda: back_end.carry(next(coming)), setup=evict, rounds=ROUNDS)  # type: ignore[no-untyped-call]
