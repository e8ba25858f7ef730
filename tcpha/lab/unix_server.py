"""A small server on a Unix socket, behind one that speaks TCP: what the lab's own servers have in common."""

from __future__ import annotations

import socket
import socketserver
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tcpha.invocation import command


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The server; one thread a connection."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, path: str, handler: type[socketserver.BaseRequestHandler]) -> None:
        # A server that was killed leaves its socket behind.
        Path(path).unlink(missing_ok=True)
        super().__init__(path, handler)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Silence where the other side went away; anything else is a fault of this program and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(name: str, server: Callable[[str], UnixServer], arguments: Sequence[str]) -> int:
    """Serve as the program `name` of the lab until a signal ends the process; return the exit status."""
    if len(arguments) != 1:
        print(f"usage: {command(f'tcpha.lab.{name}')} SOCKET", file=sys.stderr)
        return 2
    with server(arguments[0]) as serving:
        print(f"ready: {name} on {arguments[0]}", file=sys.stderr, flush=True)
        serving.serve_forever()
    return 0
