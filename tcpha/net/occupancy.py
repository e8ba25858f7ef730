"""One process of a role in each network namespace: a name that it holds, and by which the next one knows.

Rules, addresses and what is pinned belong to the network namespace, whatever directory of state a process has. So does
the name, an abstract address of unix(7), and it goes when the process does, however that ends. Any user of the host may
take such a name first, so only root, and the user of this process, keep others out by it: where somebody else has it,
or nobody knows who, a process goes on without, and only the lock of its state is left. Knows nothing of what is put on
the host. Format of the list: sock_diag(7), linux/unix_diag.h.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import NamedTuple

from tcpha.errors import StartError
from tcpha.net.netlink import NLM_F_DUMP, NetlinkSocket, decode_attributes

_CREDENTIALS = struct.Struct("3i")
_LOOKS = 128
"""Processes that asked who holds the name, and may be remembered by the kernel meanwhile."""
_TRIES = 2
"""Who held the name may have ended before it was asked for."""

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST = struct.Struct("=BBxxIIIQ")  # unix_diag_req: family, protocol, states, inode, what to show, cookie
_HOLDING = 1 << 7 | 1 << 10
"""CLOSE (bound, no more) and LISTEN: an accepted connection bears its listener's name as well, and does not hold it."""
_SHOW = 0x01 | 0x40  # names; users, since Linux 5.3
_NAME, _UID = 0, 7
_TYPE_OFFSET, _ATTRIBUTES_OFFSET = 1, 16  # in unix_diag_msg

_log = logging.getLogger(__name__)


class Occupancy:
    """The name of a role in the network namespace of the thread that calls `take`."""

    def __init__(self, role: str) -> None:
        self._name = f"\0tcpha {role}".encode()
        self._held: socket.socket | None = None
        self._is_taken = False

    def take(self) -> None:
        """Hold the name from now on, or go on without it if it is a stranger's.

        Raises: StartError if another process of this role holds it.
        """
        if self._is_taken:
            return
        for _ in range(_TRIES):
            self._held = _bound(self._name)
            if self._held is not None:
                break
            holder = _holder(self._name)
            if holder.uid in (0, os.geteuid()):
                raise StartError(f"another process in this role runs in this network namespace{holder.which()}")
        else:
            _log.warning(
                "%s holds the name @%s: going on without it, so another process in this role is refused only where it"
                " has the same state",
                holder.who(),
                self._name[1:].decode(),
            )
        self._is_taken = True

    def give_up(self) -> None:
        """Let the next process have the name."""
        self._is_taken = False
        if self._held is not None:
            self._held.close()
            self._held = None


class _Holder(NamedTuple):
    """Which process holds a name, and whose that is; None: it cannot be learned. pid 0: one that is not seen here."""

    pid: int | None
    uid: int | None

    def which(self) -> str:
        if self.pid is None:
            return ""
        return f": process {self.pid}" if self.pid else ": one of another container"

    def who(self) -> str:
        process = f"process {self.pid}" if self.pid else "a process"
        return process + (" of nobody knows which user" if self.uid is None else f" of user {self.uid}")


def _bound(name: bytes) -> socket.socket | None:
    """Return a socket that holds the name, None if another one does. Raises: StartError."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
        held.listen(_LOOKS)
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise StartError(f"the name of this role cannot be held: {error.strerror}") from error
        return None
    return held


def _holder(name: bytes) -> _Holder:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
            octets = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:  # it has just ended, does not listen (yet), or too many have asked
            return _Holder(None, _uid_listed(name))
    pid, uid, _ = _CREDENTIALS.unpack(octets)
    return _Holder(pid, uid)


def _uid_listed(name: bytes) -> int | None:
    """Whose socket has the name by the kernel's list of them all; None if there is no list, or no such socket."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, _HOLDING, 0, _SHOW, 0)
    with suppress(OSError):
        diagnostics = NetlinkSocket(_NETLINK_SOCK_DIAG)
        try:
            answers = diagnostics.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body)
        finally:
            diagnostics.close()
        for answer in answers:
            attributes = decode_attributes(answer.body, _ATTRIBUTES_OFFSET)
            is_it = attributes.get(_NAME) == name and answer.body[_TYPE_OFFSET] == socket.SOCK_STREAM
            if is_it and _UID in attributes:
                return int.from_bytes(attributes[_UID], sys.byteorder)
    return None
