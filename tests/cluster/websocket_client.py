"""A client's end of a WebSocket (RFC 6455), written out by hand.

Must not know that handoff exists, nor what the server does with what it gets.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct

from tests.cluster.conversation import Conversation

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocket:
    """One WebSocket over a connection that is already open."""

    def __init__(self, below: Conversation) -> None:
        self._below = below
        self._key = base64.b64encode(os.urandom(16))
        self.node: str | None = None
        """Which server accepted it."""

    def upgrade(self, path: str = "/ws") -> bytes:
        """The request that opens it; it is the caller's to send it."""
        lines = [b"GET %b HTTP/1.1" % path.encode(), b"Host: lab", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines += [b"Sec-WebSocket-Key: " + self._key, b"Sec-WebSocket-Version: 13"]
        return b"\r\n".join([*lines, b"", b""])

    def await_accepted(self) -> None:
        answer = self._below.answer(to_head=True)
        assert answer.status == 101
        expected = base64.b64encode(hashlib.sha1(self._key + _GUID).digest()).decode()
        assert answer.headers["sec-websocket-accept"] == expected
        self.node = answer.node

    @staticmethod
    def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
        """A masked frame."""
        length, mask = len(payload), os.urandom(4)
        first = (0x80 if fin else 0) | opcode
        if length < 126:
            head = struct.pack("!BB", first, 0x80 | length)
        elif length < 65536:
            head = struct.pack("!BBH", first, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, length)
        stream = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        return head + mask + (int.from_bytes(payload, "big") ^ stream).to_bytes(length, "big")

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        self._below.send(self.frame(opcode, payload, fin=fin))

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which the server must not mask."""
        first, length = self._below.exactly(2)
        assert length < 128
        if length == 126:
            (length,) = struct.unpack("!H", self._below.exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._below.exactly(8))
        return first & 0x0F, self._below.exactly(length)
