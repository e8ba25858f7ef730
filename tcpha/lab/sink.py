"""A small HTTP server that swallows request bodies and answers their digest: ``python -m tcpha.lab.sink SOCKET``.

POST /sink answers the SHA-256 of the body as hexadecimal digits and a newline; GET /sink/count answers how many POSTs
were served, likewise. A POST whose body broke off is neither answered nor counted. It listens on a Unix socket behind a
server that speaks TCP, and must not know which one. Framing of bodies: RFC 9112, 6.2 and 7.1.
"""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from io import BufferedIOBase

from tcpha.lab.unix_server import UnixServer, serve

_PIECE_OCTETS = 1 << 18
_LINE_OCTETS = 4096


class BrokenBodyError(Exception):
    """The body ended early or is not framed as its head says."""


class Sink(UnixServer):
    """The server."""

    def __init__(self, path: str) -> None:
        super().__init__(path, SinkHandler)
        self._lock = threading.Lock()
        self.served = 0
        """POSTs whose body was complete."""

    def count_post(self) -> None:
        """One more."""
        with self._lock:
            self.served += 1


class SinkHandler(http.server.BaseHTTPRequestHandler):
    """One connection to the sink."""

    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        """Read the body to its end; then count, then answer: who has the answer finds it counted."""
        if self.path != "/sink":
            self._answer(HTTPStatus.NOT_FOUND, "no such resource\n")
            return
        digest = hashlib.sha256()
        try:
            for piece in body(self.rfile, self.headers.get("Content-Length"), self.headers.get("Transfer-Encoding")):
                digest.update(piece)
        except (BrokenBodyError, OSError):
            self.close_connection = True
            return
        self.server.count_post()
        self._answer(HTTPStatus.OK, digest.hexdigest() + "\n")

    def do_GET(self) -> None:
        """Answer the counter."""
        if self.path == "/sink/count":
            self._answer(HTTPStatus.OK, f"{self.server.served}\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "no such resource\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: the server in front keeps the access log."""

    def _answer(self, status: HTTPStatus, text: str) -> None:
        octets = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)


def body(file: BufferedIOBase, content_length: str | None, transfer_encoding: str | None) -> Iterator[bytes]:
    """Pieces of a request body in order, read from behind its head.

    Raises:
        BrokenBodyError: it ended early or is not framed as its head says.
    """
    if transfer_encoding is not None:
        if transfer_encoding.strip().lower() != "chunked":
            raise BrokenBodyError(f"transfer coding {transfer_encoding!r}")
        yield from _chunks(file)
    elif content_length is not None:
        yield from _exactly(file, _number(content_length, 10))


def _chunks(file: BufferedIOBase) -> Iterator[bytes]:
    while size_octets := _number(_line(file).partition(b";")[0].decode("latin-1"), 16):
        yield from _exactly(file, size_octets)
        if _line(file):
            raise BrokenBodyError("a chunk is longer than announced")
    while _line(file):  # trailers
        pass


def _line(file: BufferedIOBase) -> bytes:
    line = file.readline(_LINE_OCTETS)
    if not line.endswith(b"\n"):
        raise BrokenBodyError("a line has no end")
    return line.rstrip(b"\r\n")


def _exactly(file: BufferedIOBase, size_octets: int) -> Iterator[bytes]:
    while size_octets:
        piece = file.read(min(size_octets, _PIECE_OCTETS))
        if not piece:
            raise BrokenBodyError(f"{size_octets} octets are missing")
        size_octets -= len(piece)
        yield piece


def _number(text: str, base: int) -> int:
    digits = text.strip().lower()
    if not digits or not set(digits) <= set("0123456789abcdef"[:base]):
        raise BrokenBodyError(f"{text!r} is no length")
    return int(digits, base)


def main(arguments: list[str]) -> int:
    """Serve until a signal ends the process."""
    return serve("sink", Sink, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
