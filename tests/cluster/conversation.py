"""A client's end of one connection: an ordinary kernel socket of the client node, and HTTP/1 read by hand.

Must not know that handoff exists. Written for tests that decide octet by octet what is sent and when; where an ordinary
client will do, tests use curl. RFC 9112, 6.3 for the length of an answer: Content-Length, or the end of the connection.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import socket
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from tcpha.lab.cluster import Lab
from tcpha.lab.waiting import wait_until

Family = Literal["ipv4", "ipv6"]
FAMILIES: tuple[Family, Family] = ("ipv4", "ipv6")

LIMIT_S = 20.0
_PIECE_OCTETS = 1 << 18
_SND_WND_OFFSET = 228
_ABORT = struct.pack("ii", 1, 0)


def vip(lab: Lab, family: Family) -> str:
    return str(lab.vip4 if family == "ipv4" else lab.vip6)


def url(lab: Lab, family: Family, path: str) -> str:
    address = vip(lab, family)
    return f"http://{address if family == 'ipv4' else f'[{address}]'}{path}"


def client_address(lab: Lab, family: Family) -> str:
    return str(lab.client.ipv4 if family == "ipv4" else lab.client.ipv6)


def get(path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: lab", *lines, "", ""]).encode()


def post(body: bytes, *lines: str, path: str = "/sink") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: lab", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def node(self) -> str | None:
        """Which server answered; None: no server of the lab."""
        return self.headers.get("server-node")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Conversation:
    """One connection from the client node."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self._unread = b""

    @classmethod
    def open(
        cls,
        lab: Lab,
        family: Family,
        *,
        vport: int = 80,
        address: str | None = None,
        port: int = 0,
        nagle: bool = True,
        mss_octets: int | None = None,
        receive_buffer_octets: int | None = None,
        limit_s: float = LIMIT_S,
    ) -> Self:
        """Connect to the virtual address and `vport`. `address` and `port` are the client's, None and 0: any.

        The port may have been in use just before.
        """
        peer = unconnected(lab, family)
        try:
            if port:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port or address is not None:
                peer.bind((address or client_address(lab, family), port))
            if not nagle:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if mss_octets is not None:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss_octets)
            if receive_buffer_octets is not None:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_octets)
            peer.settimeout(limit_s)
            _connect(peer, (vip(lab, family), vport), limit_s)
        except BaseException:
            peer.close()
            raise
        return cls(peer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    @property
    def address(self) -> str:
        return str(self.socket.getsockname()[0])

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def await_acknowledged(self, limit_s: float = LIMIT_S) -> None:
        """Wait until the other side has acknowledged all that was sent (tcp(7), SIOCOUTQ)."""
        assert wait_until(lambda: self.unacknowledged_octets() == 0, limit_s, 0.001), "octets stay unacknowledged"

    def unacknowledged_octets(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0])

    def send_window_octets(self) -> int:
        """What the other side may be sent, as the client's kernel understands it (tcp_info, tcpi_snd_wnd)."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("I", info, _SND_WND_OFFSET)[0])

    def received_octets(self) -> int:
        """Octets that arrived and were not read yet."""
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, b"\0" * 4))[0])

    def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer. Raises TimeoutError, ConnectionError, or EOFError where it breaks off."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._read_more()
        head, self._unread = self._unread[:end].decode("latin-1"), self._unread[end + 4 :]
        status_line, *lines = head.split("\r\n")
        split = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in split}
        length = headers.get("content-length")
        status = int(status_line.split()[1])
        if to_head or status == 100:
            return Answer(status, headers, b"")
        body = self.rest() if length is None else self.exactly(int(length))
        return Answer(status, headers, body)

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        pieces = [self._unread]
        self._unread = b""
        while piece := self.receive(_PIECE_OCTETS):
            pieces.append(piece)
        return b"".join(pieces)

    def receive(self, most_octets: int) -> bytes:
        """What there is, at least an octet; none: the other side has closed. What `answer` left unread is left out."""
        return self.socket.recv(most_octets)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with RST (socket(7), SO_LINGER)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.socket.close()

    def is_quiet(self, duration_s: float) -> bool:
        """Whether nothing arrives, no end of the connection either, for so long."""
        self.socket.setblocking(False)

        def something_came() -> bool:
            try:
                self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return False
            return True

        try:
            return not wait_until(something_came, duration_s)
        finally:
            self.socket.settimeout(LIMIT_S)

    def exactly(self, length_octets: int) -> bytes:
        """So many octets. Raises EOFError where they break off."""
        pieces, missing = [self._unread[:length_octets]], length_octets - len(self._unread)
        self._unread = self._unread[length_octets:]
        while missing > 0:
            piece = self.receive(min(missing, _PIECE_OCTETS))
            if not piece:
                raise EOFError(f"the answer breaks off {missing} octets before its end")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _read_more(self) -> None:
        piece = self.receive(_PIECE_OCTETS)
        if not piece:
            raise EOFError(f"the connection ended inside an answer's head: {self._unread!r}")
        self._unread += piece


def _connect(peer: socket.socket, address: tuple[str, int], limit_s: float) -> None:
    """Connect as soon as the client's own kernel lets it: it keeps a port until its last FIN is acknowledged."""

    def is_connected() -> bool:
        try:
            peer.connect(address)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
        return True

    assert wait_until(is_connected, limit_s, 0.0005), "the client's port does not become free"


def unconnected(lab: Lab, family: Family) -> socket.socket:
    """A TCP socket of the client node."""
    with lab.client.enter():
        return socket.socket(socket.AF_INET if family == "ipv4" else socket.AF_INET6, socket.SOCK_STREAM)
