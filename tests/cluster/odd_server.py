"""A server that does what a test tells it: it closes, resets, dawdles, does not read, and counts what it has run.

Run as a lab's server (`COMMAND`) it listens on port 80 of every address, and takes orders on port `ORDERS_PORT` of the
node's own address: `Odd` is the other end of that. What concerns all connections is ordered, what concerns one stands
in the request's target: `/PATH?name=value&...`, as `Wishes` has it. It must not know that handoff exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tcpha.lab.node import Node

PORT = 80
ORDERS_PORT = 8080
COMMAND = f"{sys.executable} {Path(__file__).resolve()}"
BACKLOG = 128
_ABORT = struct.pack("ii", 1, 0)
_PIECE_OCTETS = 1 << 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server has seen since its start."""

    accepted: int
    """Connections."""
    requests: int
    """Requests that came whole: each was run."""
    octets: int
    """Of the last body."""
    digest: str
    """SHA-256 of it."""


class Odd:
    """The server of one node, as a test sees it."""

    def __init__(self, client: Node, node: Node) -> None:
        """`client` is where the orders come from."""
        self._client = client
        self._address = str(node.ipv4)

    def order(self, **order: object) -> Seen:
        """Change how it behaves to all: see `Server.obey`."""
        with self._client.enter():
            link = socket.create_connection((self._address, ORDERS_PORT), 10.0)
        with link:
            link.sendall(json.dumps(order).encode() + b"\n")
            return Seen(**json.loads(link.makefile().readline()))

    def seen(self) -> Seen:
        """Ask for nothing but its counters."""
        return self.order()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the query of a target may ask for, in the order in which it is done."""

    alive: float = 0.0
    """Keep-alive probes (SO_KEEPALIVE) so many seconds apart from now on."""
    probes: int = 3
    """The connection is given up after so many of them in vain."""
    early: int = 0
    """1: answer before the body is read; 2: and do not read it at all."""
    stop: int = 0
    """SIGSTOP this process before the answer."""
    wait: float = 0.0
    """Seconds before the answer."""
    octets: int = -1
    """Length of the answer's body; -1: the digest of the request's body, and a newline."""
    silent: int = 0
    """1: leave out the answer."""
    cut: int = -1
    """Leave off after so many octets of the answer's body; -1: none are left out."""
    later: float = 0.0
    """Seconds after the answer."""
    then: str = "stay"
    """`close`, `reset`, `half`: close the own side, and take in what still comes as one more body; `stay`."""


class Server:
    """Listens, and serves each connection in a thread of its own."""

    def __init__(self) -> None:
        self.node = os.environ.get("TCPHA_NODE", "")
        self.may_accept = threading.Event()
        self.may_read = threading.Event()
        self.may_accept.set()
        self.may_read.set()
        self._at_once = ""
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._seen = {"accepted": 0, "requests": 0, "octets": 0, "digest": ""}

    def obey(self, order: dict[str, Any]) -> None:
        """Take orders for all connections.

        `accept`, `read`: whether to. `at_once`: `close` or `reset` what is accepted, or nothing. `backlog`: listen anew
        with such a one; -1: do not listen.
        """
        self._at_once = order.get("at_once", self._at_once)
        for name, event in (("accept", self.may_accept), ("read", self.may_read)):
            if name in order:
                (event.set if order[name] else event.clear)()
        if "backlog" in order:
            self.listen(order["backlog"])

    def listen(self, backlog: int) -> None:
        """Listen on all addresses, with another socket than before."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        if backlog < 0:
            return
        self._listener = listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", PORT))
        listener.listen(backlog)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def count(self, **more: int | str) -> None:
        """Add numbers, replace texts."""
        with self._lock:
            for name, value in more.items():
                before = self._seen[name]
                self._seen[name] = before + value if name in ("accepted", "requests") else value  # type: ignore[operator]

    def take_orders(self) -> None:
        """Serve `Odd` for ever."""
        with socket.create_server(("", ORDERS_PORT)) as door:
            self.listen(BACKLOG)
            while True:
                link, _ = door.accept()
                with link, link.makefile() as lines:
                    self.obey(json.loads(lines.readline() or "{}"))
                    with self._lock:
                        link.sendall(json.dumps(self._seen).encode() + b"\n")

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                self.may_accept.wait()
                peer, _ = listener.accept()
                self.count(accepted=1)
                if self._at_once:
                    end(peer, self._at_once)
                else:
                    threading.Thread(target=Connection(self, peer).serve, daemon=True).start()
        except OSError:
            return


class Connection:
    """One client."""

    def __init__(self, server: Server, peer: socket.socket) -> None:
        self._server = server
        self._peer = peer
        self._file: BufferedReader = peer.makefile("rb")

    def serve(self) -> None:
        """Requests, one after the other, until either side has enough."""
        try:
            then = "stay"
            while then == "stay" and (line := self._file.readline()):
                then = self._request(line)
            end(self._peer, then)
        except OSError:
            self._peer.close()

    def _request(self, line: bytes) -> str:
        target = urlsplit(line.split()[1].decode())
        kinds = {name: type(getattr(Wishes(), name)) for name in Wishes.__slots__}
        wishes = Wishes(**{name: kinds[name](value) for name, value in parse_qsl(target.query)})
        length = 0
        while (field := self._file.readline().strip()) != b"":
            name, _, value = field.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        if wishes.alive:
            probe(self._peer, wishes.alive, wishes.probes)
        digest = "" if wishes.early else self._body(length)
        if wishes.stop:
            os.kill(wishes.stop, signal.SIGSTOP)
        time.sleep(wishes.wait)
        self._answer(wishes, digest)
        if wishes.early == 1:
            self._body(length)
        time.sleep(wishes.later)
        if wishes.then == "half":
            self._peer.shutdown(socket.SHUT_WR)
            self._body(-1)
        return wishes.then

    def _body(self, length: int) -> str:
        """Read so many octets, or all that come (-1); return their digest."""
        digest, octets = hashlib.sha256(), 0
        while octets != length:
            self._server.may_read.wait()
            piece = self._file.read1(_PIECE_OCTETS if length < 0 else min(length - octets, _PIECE_OCTETS))
            if not piece and length >= 0:
                raise ConnectionError("the body is not whole")
            if not piece:
                break
            digest.update(piece)
            octets += len(piece)
        self._server.count(requests=1, octets=octets, digest=digest.hexdigest())
        return digest.hexdigest()

    def _answer(self, wishes: Wishes, digest: str) -> None:
        body = (digest + "\n").encode() if wishes.octets < 0 else bytes(wishes.octets)
        head = f"HTTP/1.1 200 OK\r\nServer-Node: {self._server.node}\r\nContent-Length: {len(body)}\r\n\r\n"
        if wishes.silent:
            return
        self._peer.sendall(head.encode() + (body if wishes.cut < 0 else body[: wishes.cut]))


def probe(peer: socket.socket, interval_s: float, times: int) -> None:
    """Send keep-alive probes, so far apart, while a connection is idle; end it after so many in vain (tcp(7))."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(int(interval_s), 1))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(int(interval_s), 1))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, times)


def end(peer: socket.socket, how: str) -> None:
    """Close a connection with a FIN or, where that is wished, with a RST."""
    if how == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    peer.close()


if __name__ == "__main__":
    Server().take_orders()
