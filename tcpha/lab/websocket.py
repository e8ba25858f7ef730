"""A small WebSocket server that echoes every message: ``python -m tcpha.lab.websocket SOCKET``. RFC 6455.

It listens on a Unix socket behind a server that speaks TCP, and must not know which one. Frames come back as they came,
unmasked: type, FIN and octets of a data frame are the client's; a ping is answered, a close is returned.

Deviation: that a client's frames are in a possible order, and that text is UTF-8, is not checked.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import struct
import sys
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedIOBase

from tcpha.lab.unix_server import UnixServer, serve

LARGEST_FRAME_OCTETS = 1 << 24
CLOSE, PING, PONG = 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN, _MASKED = 0x80, 0x80
_RESERVED = 0x70
_LENGTH_16, _LENGTH_64 = 126, 127


class FrameError(Exception):
    """Octets that are no frame of a client, or the connection ended inside one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame (RFC 6455, 5.2)."""

    fin: bool
    opcode: int
    payload: bytes


def accept_key(key: str) -> str:
    """What a server answers to Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


def read_frame(file: BufferedIOBase) -> Frame | None:
    """The next frame of a client, its mask taken off; None at the end of the connection.

    Raises:
        FrameError: it is not masked, uses reserved bits, is larger than `LARGEST_FRAME_OCTETS` or broke off.
    """
    head = file.read(2)
    if not head:
        return None
    if len(head) < 2 or not head[1] & _MASKED or head[0] & _RESERVED:
        raise FrameError("no masked frame")
    length = head[1] & ~_MASKED
    if length == _LENGTH_16:
        (length,) = struct.unpack("!H", _exactly(file, 2))
    elif length == _LENGTH_64:
        (length,) = struct.unpack("!Q", _exactly(file, 8))
    if length > LARGEST_FRAME_OCTETS:
        raise FrameError("frame too large")
    mask, payload = _exactly(file, 4), _exactly(file, length)
    stream = (mask * (length // 4 + 1))[:length]
    unmasked = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return Frame(bool(head[0] & _FIN), head[0] & 0x0F, unmasked.to_bytes(length, "big"))


def encode_frame(frame: Frame) -> bytes:
    """A server's frame: not masked."""
    first, length = (_FIN if frame.fin else 0) | frame.opcode, len(frame.payload)
    if length < _LENGTH_16:
        head = struct.pack("!BB", first, length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, _LENGTH_16, length)
    else:
        head = struct.pack("!BBQ", first, _LENGTH_64, length)
    return head + frame.payload


class Echo(UnixServer):
    """The server."""

    def __init__(self, path: str) -> None:
        super().__init__(path, EchoHandler)


class EchoHandler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Switch protocols (RFC 6455, 4.2), then echo until the client closes."""
        self.close_connection = True
        key = self.headers.get("Sec-WebSocket-Key")
        if key is None or self.headers.get("Upgrade", "").lower() != "websocket":
            self.send_error(HTTPStatus.UPGRADE_REQUIRED)
            return
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(key))
        self.end_headers()
        try:
            self._echo()
        except (FrameError, OSError):
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: the server in front keeps the access log."""

    def _echo(self) -> None:
        while (frame := read_frame(self.rfile)) is not None:
            if frame.opcode == PING:
                frame = Frame(True, PONG, frame.payload)
            elif frame.opcode == PONG:
                continue
            self.wfile.write(encode_frame(frame))
            if frame.opcode == CLOSE:
                return


def _exactly(file: BufferedIOBase, size_octets: int) -> bytes:
    octets = file.read(size_octets)
    if len(octets) < size_octets:
        raise FrameError("the connection ended inside a frame")
    return octets


def main(arguments: list[str]) -> int:
    """Serve until a signal ends the process."""
    return serve("websocket", Echo, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
