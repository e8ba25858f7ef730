from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tcpha.net.nfqueue import _Reader


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        yield near, far


@pytest.mark.parametrize("octets", [0, 1, 15, 16, 17, 18, 19, 20, 4016, 65535 + 1024])
def test_reader_short_message_after_a_long_one_has_zeros_behind_it(
    ends: tuple[socket.socket, socket.socket], octets: int
) -> None:
    near, far = ends
    reader = _Reader(near)
    reader.left = 2
    far.send(b"\xee" * (65535 + 1024))
    reader.recv(4096)
    far.send(b"\x55" * octets)
    buffer = reader.recv(4096)
    # What libnfnetlink would take for the length of a next message: 4 octets at the next multiple of 4.
    following = (octets + 3) & ~3
    assert buffer[:octets] == b"\x55" * octets
    assert buffer[octets : following + 4] == bytes(following + 4 - octets)


def test_reader_returns_the_same_buffer_each_time(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    reader = _Reader(near)
    reader.left = 2
    far.send(b"one")
    first = reader.recv(4096)
    far.send(b"two")
    assert reader.recv(4096) is first
    assert len(first) >= 65535 + 1024 + 20


def test_reader_burst_over_stops_with_messages_waiting(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    reader = _Reader(near)
    reader.left = 1
    far.send(b"one")
    far.send(b"two")
    reader.recv(4096)
    with pytest.raises(BlockingIOError) as caught:
        reader.recv(4096)
    assert caught.value.args[0] == errno.EAGAIN
    assert near.recv(10) == b"two"


def test_reader_nothing_waits_does_not_block(ends: tuple[socket.socket, socket.socket]) -> None:
    reader = _Reader(ends[0])
    reader.left = 1
    with pytest.raises(BlockingIOError):
        reader.recv(4096)
    assert reader.left == 1


class Overrun:
    """A socket that reports one overrun, then a message, then a fault."""

    def __init__(self) -> None:
        self.calls = 0

    def recv_into(self, buffer: memoryview, _octets: int, _flags: int) -> int:
        self.calls += 1
        if self.calls == 1:
            raise OSError(errno.ENOBUFS, "no buffer space")
        if self.calls == 2:
            buffer[:3] = b"abc"
            return 3
        raise OSError(errno.EBADF, "closed")


def test_reader_overrun_is_counted_and_other_faults_are_raised() -> None:
    reader = _Reader(Overrun())  # type: ignore[arg-type]
    reader.left = 5
    assert reader.recv(4096)[:4] == b"abc\0"
    assert reader.overruns == 1
    with pytest.raises(OSError, match="closed"):
        reader.recv(4096)
