"""The receiving end of IP in IP, without a tunnel device: raw sockets of the two protocol numbers.

Each socket is connected to one peer, so the kernel hands over nothing that another address sent; a packet of another
tunnel of this host goes its usual way. The kernel has put fragments together before. raw(7), ipv6(7), RFC 2003.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from tcpha.errors import StartError
from tcpha.net.drops import dropped_by_kernel

_SO_RCVBUFFORCE = 33
_IPPROTO_IPIP = 4
_PACKET_OCTETS = 1 << 16


class TunnelSocket:
    """What one peer sends in one of the two protocols. Wait for `fileno()` to become readable, then call `read()`."""

    def __init__(
        self, local: IPv4Address | IPv6Address, peer: IPv4Address | IPv6Address, protocol: int, buffer_octets: int
    ) -> None:
        """Open in the network namespace of the calling thread.

        Raises: StartError if the right CAP_NET_RAW is missing or the peer cannot be reached from `local`.
        """
        self.errors: dict[str, int] = {}
        self._buffer = memoryview(bytearray(_PACKET_OCTETS))
        self._has_header = local.version == 4
        family = socket.AF_INET if local.version == 4 else socket.AF_INET6
        try:
            self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        except PermissionError as error:
            raise StartError("tunnelled packets cannot be received: the right CAP_NET_RAW is missing") from error
        try:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_octets)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_octets)
            self._socket.bind((str(local), 0))
            self._socket.connect((str(peer), 0))
        except OSError as error:
            self._socket.close()
            raise StartError(f"tunnelled packets of {peer} cannot be received: {error}") from error

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when packets wait."""
        return self._socket.fileno()

    def read(self, burst: int = 256) -> list[bytes]:
        """Return at most `burst` waiting packets, each as it lies in the tunnel, unverified. Errors are counted."""
        packets = []
        for _ in range(burst):
            try:
                length = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                break
            except OSError as error:
                name = errno.errorcode.get(error.errno or errno.EINVAL, str(error.errno))
                self.errors[name] = self.errors.get(name, 0) + 1
                continue
            # An IPv4 raw socket hands over the outer header, an IPv6 one does not.
            start = (self._buffer[0] & 15) * 4 if self._has_header else 0
            packets.append(bytes(self._buffer[start:length]))
        return packets

    def dropped_by_kernel(self) -> int:
        """Return how many packets the kernel dropped because the receive buffer was full."""
        return dropped_by_kernel(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def open_tunnels(
    local: IPv4Address | IPv6Address,
    peers: Iterable[IPv4Address | IPv6Address],
    *,
    buffer_octets: int = 8 << 20,
) -> tuple[TunnelSocket, ...]:
    """Open a socket for each peer and protocol (IPv4 and IPv6 inside). Raises: as TunnelSocket."""
    protocols = (_IPPROTO_IPIP, socket.IPPROTO_IPV6)
    opened: list[TunnelSocket] = []
    try:
        for peer in peers:
            opened += [TunnelSocket(local, peer, protocol, buffer_octets) for protocol in protocols]
    except BaseException:
        for each in opened:
            each.close()
        raise
    return tuple(opened)
