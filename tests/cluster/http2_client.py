"""A client's end of an HTTP/2 connection: the package h2 makes and reads the frames, many requests are open at once.

Must not know that handoff exists, nor whether TLS is below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
)

from tests.cluster.conversation import Answer, Conversation

HTTP2_PORT = 8080
PIECE_OCTETS = 1 << 18


@dataclass(slots=True)
class _Response:
    fields: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    has_ended: bool = False

    def answer(self) -> Answer:
        return Answer(int(self.fields[":status"]), self.fields, b"".join(self.pieces))


class Http2Client:
    """One connection."""

    def __init__(self, below: Conversation, host: str = "www.lab.test") -> None:
        self._below = below
        self._host = host
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._responses: dict[int, _Response] = {}
        self.goaway: int | None = None
        """Error code with which the server ended the connection."""
        self.has_settings = False
        """Whether the server's SETTINGS came."""
        self.pings_answered = 0

    def preface(self) -> bytes:
        """The octets that open the connection; it is the caller's to send them, once."""
        self._h2.initiate_connection()
        return self._h2.data_to_send()

    def request(self, path: str, *fields: tuple[str, str], method: str = "GET", body: bytes | None = None) -> bytes:
        """The octets of one more request; it is the caller's to send them. A body fits into the first window."""
        stream = self._h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", self._host), (":path", path)]
        self._h2.send_headers(stream, [*pseudo, *fields], end_stream=body is None)
        if body is not None:
            size = self._h2.max_outbound_frame_size
            for start in range(0, len(body), size):
                self._h2.send_data(stream, body[start : start + size])
            self._h2.end_stream(stream)
        self._responses[stream] = _Response()
        return self._h2.data_to_send()

    def ping(self) -> bytes:
        self._h2.ping(b"knocking")
        return self._h2.data_to_send()

    def send(self, octets: bytes) -> None:
        self._below.send(octets)

    def ask(self, paths: Sequence[str]) -> list[Answer]:
        """Send all requests at once, read all answers."""
        self.send(b"".join([self.request(path) for path in paths]))
        return self.answers()

    def answers(self) -> list[Answer]:
        """Read the answers to all that was asked since the last time, in the order asked."""
        while not all(response.has_ended for response in self._responses.values()):
            self.read_on()
        answers = [response.answer() for _, response in sorted(self._responses.items())]
        self._responses.clear()
        return answers

    def read_on(self) -> None:
        """Take in what comes next. Raises EOFError at the end of the connection."""
        octets = self._below.receive(PIECE_OCTETS)
        if not octets:
            raise EOFError("the connection has ended")
        for event in self._h2.receive_data(octets):
            self._take_in(event)
        if leaving := self._h2.data_to_send():
            self._below.send(leaving)

    def read_to_end(self) -> None:
        """Take in everything until the other side closes."""
        with suppress(EOFError):
            while True:
                self.read_on()

    def _take_in(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self._responses[_stream(event)].fields = {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, DataReceived):
            self._responses[_stream(event)].pieces.append(bytes(event.data or b""))
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, _stream(event))
        elif isinstance(event, StreamEnded):
            self._responses[_stream(event)].has_ended = True
        elif isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
        elif isinstance(event, RemoteSettingsChanged):
            self.has_settings = True
        elif isinstance(event, PingAckReceived):
            self.pings_answered += 1


def _stream(event: ResponseReceived | DataReceived | StreamEnded) -> int:
    return int(event.stream_id or 0)
