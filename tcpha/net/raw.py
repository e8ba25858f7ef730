"""Whole IP packets sent as they are, routed by the kernel.

The packet's header is the caller's (IP_HDRINCL, implied by IPPROTO_RAW), so the transport checksum must be complete.
Of an IPv4 header the kernel fills in the checksum and the total length, the source address if it is 0, and the
identification if it is 0 and the packet may be fragmented. With don't fragment it stays 0: an atomic datagram's means
nothing (RFC 6864, 4.1). What may be fragmented, as a tunnel's outer packets may, gets the number that the host counts
for its addresses and protocol, like any of its packets. After 65536 the number comes again, sooner than RFC 6864, 4.3
allows if that takes less than fragments are waited for: then fragments of two packets may be taken for one, which the
checksum inside finds out. Of an IPv6 header the kernel fills in nothing.

Knows nothing of what is in a packet beyond its version and its destination. raw(7), ipv6(7).
"""

from __future__ import annotations

import errno
import socket

from tcpha.errors import StartError

_SO_SNDBUFFORCE = 32
_SEND_BUFFER_OCTETS = 4 << 20


class RawSender:
    """Sends IPv4 and IPv6 packets, each carrying the same firewall mark.

    `send` raises nothing: `errors` counts what was not sent by the name of the error (EMSGSIZE: larger than the MTU;
    EAGAIN: the send buffer is full; EINVAL: no IP packet; EAFNOSUPPORT: IPv6 on a kernel without it).
    """

    def __init__(self, mark: int) -> None:
        """Open the sockets in the network namespace of the calling thread.

        Raises: StartError if the rights CAP_NET_RAW and CAP_NET_ADMIN are missing.
        """
        self.errors: dict[str, int] = {}
        self._socket4 = _open(socket.AF_INET, mark)
        self._socket6: socket.socket | None = None
        try:
            self._socket6 = _open(socket.AF_INET6, mark)
        except StartError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EAFNOSUPPORT:
                self.close()
                raise

    def send(self, packet: bytes) -> None:
        """Send one whole IP packet to the destination in its header, without waiting."""
        try:
            if packet[0] >> 4 == 4:
                self._socket4.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            elif self._socket6 is None:
                self._count("EAFNOSUPPORT")
            else:
                self._socket6.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
        except OSError as error:
            # inet_ntoa gives no errno for an address that is cut off.
            self._count(errno.errorcode.get(error.errno or errno.EINVAL, str(error.errno)))
        except (IndexError, ValueError):
            self._count("EINVAL")

    def close(self) -> None:
        """Close both sockets."""
        self._socket4.close()
        if self._socket6 is not None:
            self._socket6.close()

    def _count(self, name: str) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1


def _open(family: socket.AddressFamily, mark: int) -> socket.socket:
    try:
        opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    except PermissionError as error:
        raise StartError("raw packets cannot be sent: the right CAP_NET_RAW is missing") from error
    except OSError as error:
        raise StartError(f"raw packets cannot be sent: {error}") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except OSError as error:
        opened.close()
        raise StartError(f"packets cannot be marked: the right CAP_NET_ADMIN is missing ({error})") from error
    set_send_buffer(opened, _SEND_BUFFER_OCTETS)
    return opened


def set_send_buffer(opened: socket.socket, octets: int) -> None:
    """Set the send buffer, beyond net.core.wmem_max where the process may."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, octets)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, octets)
