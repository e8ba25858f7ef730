from __future__ import annotations

import hashlib
import io
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.lab.sink import BrokenBodyError, Sink, body, main
from tcpha.lab.waiting import wait_until
from tests.unit.lab.serving import serving


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with Sink(str(tmp_path / "socket")) as server, serving(server):
        yield server


def connect(sink: Sink) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(10)
    peer.connect(str(sink.server_address))
    return peer


def exchange(sink: Sink, request: bytes) -> tuple[int, str]:
    """Status and body of the answer to one request, after which the connection ends."""
    with connect(sink) as peer:
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        with peer.makefile("rb") as file:
            head, _, text = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), text.decode()


def post(octets: bytes) -> bytes:
    return b"POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(octets), octets)


COUNT = b"GET /sink/count HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("octets", [b"", b"x", bytes(range(256)) * 4096])
def test_sink_post_answers_the_digest_of_the_body(sink: Sink, octets: bytes) -> None:
    assert exchange(sink, post(octets)) == (200, hashlib.sha256(octets).hexdigest() + "\n")


def test_sink_count_rises_with_each_post_only(sink: Sink) -> None:
    assert exchange(sink, COUNT) == (200, "0\n")
    for _ in range(3):
        exchange(sink, post(b"octets"))
    assert exchange(sink, COUNT) == (200, "3\n")
    assert exchange(sink, COUNT) == (200, "3\n")


@pytest.mark.parametrize("cut_octets", [1, 5])
def test_sink_post_broken_off_is_neither_answered_nor_counted(sink: Sink, cut_octets: int) -> None:
    with connect(sink) as peer:
        peer.sendall(post(b"octets")[:-cut_octets])
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(100) == b""
    assert exchange(sink, COUNT) == (200, "0\n")


def test_sink_peer_resets_says_nothing(sink: Sink, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(sink) as peer:
        # An answer that is not read before the end makes a Unix socket reset the other side.
        peer.sendall(COUNT)
        assert wait_until(lambda: bool(select.select([peer], [], [], 0)[0]), 5.0)
    assert exchange(sink, COUNT) == (200, "0\n")
    sink.shutdown()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("line", [b"GET /", b"GET /sink", b"POST /", b"POST /sink/count"])
def test_sink_other_resource_is_not_found(sink: Sink, line: bytes) -> None:
    assert exchange(sink, line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")[0] == 404
    assert sink.served == 0


def test_sink_two_at_once_are_served(sink: Sink) -> None:
    with connect(sink) as slow:
        slow.sendall(post(b"octets")[:-1])
        assert exchange(sink, post(b"x"))[0] == 200
        slow.sendall(b"s")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
    assert wait_until(lambda: sink.served == 2, 5.0)


def test_sink_killed_leaves_a_socket_the_next_replaces(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(path)
    Sink(path).server_close()


def test_sink_without_a_socket_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: " in capsys.readouterr().err


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.booleans())
def test_body_in_chunks_is_their_octets_and_the_next_request_is_left(pieces: list[bytes], decorated: bool) -> None:
    extension, trailer = (b";a=b", b"Trailer: x\r\n") if decorated else (b"", b"")
    chunks = b"".join(b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    file = io.BytesIO(chunks + b"0\r\n" + trailer + b"\r\nnext")
    assert b"".join(body(file, None, "Chunked")) == b"".join(pieces)
    assert file.read() == b"next"


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_body_of_a_length_is_its_octets_and_the_next_request_is_left(octets: bytes, following: bytes) -> None:
    file = io.BytesIO(octets + following)
    assert b"".join(body(file, str(len(octets)), None)) == octets
    assert file.read() == following


def test_body_without_framing_is_empty() -> None:
    assert list(body(io.BytesIO(b"next"), None, None)) == []


@pytest.mark.parametrize(
    "octets",
    [b"", b"5", b"5\r\nabc", b"5\r\nabcdeX\r\n", b"-1\r\n", b"0x5\r\nabcde\r\n", b"\r\n", b"0\r\n", b"0\r\nA: b"],
)
def test_body_in_broken_chunks_is_refused(octets: bytes) -> None:
    with pytest.raises(BrokenBodyError):
        list(body(io.BytesIO(octets), None, "chunked"))


@pytest.mark.parametrize(
    ("length", "coding"), [("7", None), ("-1", None), ("x", None), ("1", "gzip"), (None, "gzip, chunked")]
)
def test_body_of_impossible_framing_is_refused(length: str | None, coding: str | None) -> None:
    with pytest.raises(BrokenBodyError):
        list(body(io.BytesIO(b"abcdef"), length, coding))
