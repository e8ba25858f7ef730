"""A client that believes nothing: every octet of every answer is compared with what should have been sent.

Must not know who answers, only who should say so. It runs in threads of the measuring process, each inside the client's
node; receiving and comparing leave most of a processor to others. RFC 9112.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self

LIMIT_S = 10.0
"""For every step of a connection."""
_BUFFER_OCTETS = 1 << 18
_HEAD_OCTETS_MAX = 16384
_HEAD_END = b"\r\n\r\n"
_RECEIVE_LIMIT = struct.pack("ll", int(LIMIT_S), 0)
_WRONG_ANSWERS_SHOWN = 5

Enter = Callable[[], AbstractContextManager[None]]
"""Brings the calling thread into the client's node."""


class WrongAnswerError(Exception):
    """An answer that is not what the server was asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Document:
    """What is asked for and has to come back."""

    path: str
    content: bytes
    node: str
    """Who has to answer: the value of the header field Server-Node."""


@dataclass(slots=True)
class Tally:
    """What came of many requests."""

    latencies_s: list[float] = field(default_factory=list)
    """Of each complete and right answer."""
    octets: int = 0
    """Of their bodies, or of the bodies they answer."""
    errors: int = 0
    """Connections that failed or were silent too long."""
    wrong: list[str] = field(default_factory=list)
    """Answers that were not right, in words."""
    seconds: float = 0.0
    """From the first request to the last answer."""

    @property
    def answers(self) -> int:
        """Right ones."""
        return len(self.latencies_s)

    def add(self, other: Tally) -> None:
        """Count another's outcome in, except for its time."""
        self.latencies_s += other.latencies_s
        self.octets += other.octets
        self.errors += other.errors
        self.wrong += other.wrong[: _WRONG_ANSWERS_SHOWN - len(self.wrong)]


class Connection:
    """One connection to a server, and one buffer."""

    def __init__(self, target: Target, buffer_octets: int = _BUFFER_OCTETS) -> None:
        """Raises OSError if there is no connection within `LIMIT_S` seconds."""
        self._socket = socket.create_connection((target.address, target.port), LIMIT_S)
        # A blocking socket with a limit of the kernel's: one system call for each piece, not two.
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_LIMIT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _RECEIVE_LIMIT)
        self._buffer = bytearray(buffer_octets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def get(self, document: Document, *, closes: bool) -> None:
        """Fetch a document.

        Raises:
            WrongAnswerError: something else came, or the end too early.
            OSError: the connection failed.
        """
        self._socket.sendall(_head("GET", document.path, closes=closes))
        self._read_answer(document.path, document.content, document.node)

    def post(self, path: str, body: bytes, digest: str, node: str) -> None:
        """Send a body, on a connection that ends with it, and read back its digest. Raises as `get`."""
        self._socket.sendall(_head("POST", path, closes=True, body_octets=len(body)))
        self._socket.sendall(body)
        self._read_answer(path, f"{digest}\n".encode(), node)

    def _read_answer(self, path: str, expected: bytes, node: str) -> None:
        view, filled, end = memoryview(self._buffer), 0, -1
        while end < 0:
            count = self._receive(view[filled:], path)
            end = self._buffer.find(_HEAD_END, 0, filled + count)
            filled += count
            if end < 0 and filled > _HEAD_OCTETS_MAX:
                raise WrongAnswerError(f"{path}: no end of the head in {filled} octets")
        _check_head(bytes(view[:end]), path, len(expected), node)
        start, offset = end + len(_HEAD_END), 0
        while True:
            # bytes.startswith compares in place; a comparison of two memoryviews would go octet by octet.
            if not expected.startswith(view[start:filled], offset):
                raise WrongAnswerError(f"{path}: other octets than the document's from octet {offset} on")
            offset += filled - start
            if offset == len(expected):
                return
            start, filled = 0, self._receive(view, path)

    def _receive(self, into: memoryview, path: str) -> int:
        count = self._socket.recv_into(into)
        if not count:
            raise WrongAnswerError(f"{path}: the answer ended early")
        return count


def _head(method: str, path: str, *, closes: bool, body_octets: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench.test", f"Connection: {'close' if closes else 'keep-alive'}"]
    if body_octets is not None:
        lines.append(f"Content-Length: {body_octets}")
    return "\r\n".join([*lines, "", ""]).encode()


def _check_head(head: bytes, path: str, octets: int, node: str) -> None:
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ")[1:2] != ["200"]:
        raise WrongAnswerError(f"{path}: {status}")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if fields.get("server-node") != node:
        raise WrongAnswerError(f"{path}: answered by {fields.get('server-node')}, the rules say {node}")
    if fields.get("content-length") != str(octets):
        raise WrongAnswerError(f"{path}: Content-Length {fields.get('content-length')}, not {octets}")


# --- many requests ----------------------------------------------------------------------------------------------------


def fetch(enter: Enter, target: Target, document: Document, concurrency: int, seconds: float) -> Tally:
    """Fetch a document on one new connection after the other: each client once, then until `seconds` are over."""

    def once() -> int:
        with Connection(target) as connection:
            connection.get(document, closes=True)
        return len(document.content)

    return _repeat(enter, once, concurrency, seconds)


def upload(enter: Enter, target: Target, path: str, body: bytes, node: str, concurrency: int, seconds: float) -> Tally:
    """Send a body on one new connection after the other: each client once, then until `seconds` are over."""
    digest = hashlib.sha256(body).hexdigest()

    def once() -> int:
        with Connection(target) as connection:
            connection.post(path, body, digest, node)
        return len(body)

    return _repeat(enter, once, concurrency, seconds)


def paced(enter: Enter, target: Target, documents: Sequence[Document], per_s: float, seconds: float) -> Tally:
    """Fetch documents in turn, each on a new connection, at a fixed rate.

    A request that is late because the one before it took long counts from when it was due.
    """
    tally, turn = Tally(), cycle(documents)
    with enter():
        start = time.monotonic()
        for number in range(max(1, round(per_s * seconds))):
            due = start + number / per_s
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
                due = time.monotonic()
            document = next(turn)
            with _counting(tally, due, len(document.content)), Connection(target) as connection:
                connection.get(document, closes=True)
        tally.seconds = time.monotonic() - start
    return tally


@contextmanager
def held(enter: Enter, target: Target, document: Document, count: int) -> Iterator[Tally]:
    """So many connections that are open and idle, each after one answer; they are closed at the end."""
    tally = Tally()
    with ExitStack() as connections:
        with enter():
            for _ in range(count):
                with _counting(tally, time.monotonic(), len(document.content)):
                    connection = connections.enter_context(Connection(target, _HEAD_OCTETS_MAX))
                    connection.get(document, closes=False)
        yield tally


def _repeat(enter: Enter, once: Callable[[], int], concurrency: int, seconds: float) -> Tally:
    """`once` transfers one body and returns its length. A client that is slow to start makes one transfer, too."""
    tallies = [Tally() for _ in range(concurrency)]
    start = time.monotonic()

    def run(tally: Tally) -> None:
        with enter():
            now = time.monotonic()
            while True:
                with _counting(tally, now, 0):
                    tally.octets += once()
                if (now := time.monotonic()) >= start + seconds:
                    return

    threads = [threading.Thread(target=run, args=(tally,), name="client", daemon=True) for tally in tallies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally(seconds=time.monotonic() - start)
    for tally in tallies:
        total.add(tally)
    return total


@contextmanager
def _counting(tally: Tally, since: float, octets: int) -> Iterator[None]:
    try:
        yield
    except WrongAnswerError as error:
        tally.wrong.append(str(error))
    except OSError:
        tally.errors += 1
    else:
        tally.latencies_s.append(time.monotonic() - since)
        tally.octets += octets
