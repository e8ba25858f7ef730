"""One process of a role in each network namespace: a name that it holds, and by which the next one knows.

Rules, addresses and what is pinned belong to the network namespace, whatever directory of state a process has. So does
the name, an abstract address of unix(7), and it goes when the process does, however that ends. Any user of the host may
take such a name first: so the message says whose process it is. Knows nothing of what is put on the host.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from tcpha.errors import StartError

_CREDENTIALS = struct.Struct("3i")
_LOOKS = 128
"""Processes that asked who holds the name, and may be remembered by the kernel meanwhile."""


class Occupancy:
    """The name of a role in the network namespace of the thread that calls `take`."""

    def __init__(self, role: str) -> None:
        self._name = f"\0tcpha {role}".encode()
        self._held: socket.socket | None = None

    def take(self) -> None:
        """Hold the name from now on. Raises: StartError if another process does."""
        if self._held is not None:
            return
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(self._name)
            held.listen(_LOOKS)
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                raise StartError(f"the name of this role cannot be held: {error.strerror}") from error
            raise StartError(
                f"another process in this role runs in this network namespace{_holder(self._name)}"
            ) from error
        self._held = held

    def give_up(self) -> None:
        """Let the next process have the name."""
        if self._held is not None:
            self._held.close()
            self._held = None


def _holder(name: bytes) -> str:
    """Which process holds a name, as far as this one can see it, and whose that is if not of one like this."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
            octets = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:  # it has just ended, or too many have asked
            return ""
    pid, uid, _ = _CREDENTIALS.unpack(octets)
    owner = "" if uid in (0, os.geteuid()) else f" of user {uid}"
    return f": process {pid}{owner}" if pid else f": one of another container{owner}"
