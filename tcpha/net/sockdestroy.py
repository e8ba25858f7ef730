"""The TCP connections of this host that have just lost their socket, as the kernel tells it. sock_diag(7).

The kernel sends one message for each socket that is destroyed, by whatever: closed, reset, timed out. One that goes
into TIME-WAIT is told when it goes there. Knows nothing of flows. Format: linux/sock_diag.h, inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection

from tcpha.errors import EdgeError, StartError

_NETLINK_SOCK_DIAG = 4
_TCP_DESTROY, _TCP6_DESTROY = 1, 3  # enum sknetlink_groups
_GROUPS = 1 << (_TCP_DESTROY - 1) | 1 << (_TCP6_DESTROY - 1)
_SO_RCVBUFFORCE = 33
_BUFFER_OCTETS = 8 << 20
_ROOM_OCTETS = 2048
_FAMILY_AT = 16  # of inet_diag_msg, behind nlmsghdr
_LOCAL_PORT, _REMOTE_PORT = slice(20, 22), slice(22, 24)
_LOCAL, _REMOTE, _END = 24, 40, 56
_COOKIE = slice(60, 68)
_MAPPED = bytes(10) + b"\xff\xff"


class DestroyedSockets:
    """Says which connections are over. Counter: `overruns` (messages were lost: compare with what there is)."""

    def __init__(self, ports: Collection[int]) -> None:
        """Of connections to these local ports, in the network namespace of the calling thread. Raises: StartError."""
        self.overruns = 0
        self._ports = frozenset(port.to_bytes(2, "big") for port in ports)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
            self._socket.bind((0, _GROUPS))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise StartError(f"the end of sockets cannot be followed: {error.strerror}") from error

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when connections have ended."""
        return self._socket.fileno()

    def read(self, limit: int = 4096) -> list[tuple[bytes, bytes]]:
        """Return at most `limit` connections, each with the cookie of its socket.

        A connection: the client's address and ours of 16 octets, its port and ours of 2; IPv4 addresses are in their
        IPv6 form. Of one that the server has aborted (SO_LINGER) the client's port is 0. Raises: EdgeError.
        """
        ended: list[tuple[bytes, bytes]] = []
        for _ in range(limit):
            try:
                octets = self._socket.recv(_ROOM_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise EdgeError(f"the end of sockets: {error}") from error
                self.overruns += 1
                continue
            if octets[_LOCAL_PORT] not in self._ports or len(octets) < _COOKIE.stop:
                continue
            if octets[_FAMILY_AT] == socket.AF_INET:
                addresses = _MAPPED + octets[_REMOTE : _REMOTE + 4] + _MAPPED + octets[_LOCAL : _LOCAL + 4]
            else:
                addresses = octets[_REMOTE:_END] + octets[_LOCAL:_REMOTE]
            ended.append((addresses + octets[_REMOTE_PORT] + octets[_LOCAL_PORT], octets[_COOKIE]))
        return ended

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()
