"""The UDP socket on which front ends and back ends talk: one message, one datagram, never fragmented by this host.

Knows nothing of the messages. A datagram that cannot be sent or that an ICMP error answers is counted, not raised: the
protocol above repeats. udp(7); SO_TIMESTAMPNS as in the kernel's Documentation/networking/timestamping.rst.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address

from tcpha.errors import StartError
from tcpha.net import clock
from tcpha.net.datagrams import INTAKE_PLACES, Burst, Intake, socket_address
from tcpha.net.drops import dropped_by_kernel

_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO, _PMTUDISC_INTERFACE = 10, 23, 2, 4


def is_address_here(addr: IPv4Address | IPv6Address) -> bool:
    """Whether a channel could be bound to an address, in the network namespace of the calling thread."""
    try:
        with socket.socket(socket.AF_INET if addr.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(addr), 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


class Channel:
    """A UDP socket bound to one address and port. Wait for `fileno()` to become readable, then call `read()`.

    What is posted leaves by one system call at `flush`, or before anything that is sent. Nothing here raises: `errors`
    counts failures by the name of the error (EMSGSIZE: larger than the path's MTU; ECONNREFUSED, EHOSTUNREACH: an ICMP
    error or an address that does not answer; EAGAIN: the send buffer is full).
    """

    def __init__(
        self,
        addr: IPv4Address | IPv6Address,
        port: int,
        *,
        receive_buffer_octets: int = 8 << 20,
    ) -> None:
        """Bind in the network namespace of the calling thread.

        Raises: StartError if the port is in use, the address is none of this host, or a right is missing.
        """
        self.errors: dict[str, int] = {}
        name = f"[{addr}]:{port}" if addr.version == 6 else f"{addr}:{port}"
        family = socket.AF_INET if addr.version == 4 else socket.AF_INET6
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise StartError(f"{name} cannot be opened: {error}") from error
        try:
            self._set_options(family, receive_buffer_octets)
            self._socket.bind((str(addr), port))
        except OSError as error:
            self._socket.close()
            raise StartError(_explain(name, addr, error)) from error
        own = socket_address((str(addr), port))
        self._burst = Burst(self._socket.fileno(), len(own), self._count)
        self._intake = Intake(self._socket.fileno(), len(own), self._count)
        self._names: dict[tuple[str, int], bytes] = {}

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when datagrams wait."""
        return self._socket.fileno()

    def read(self, burst: int = 256) -> list[tuple[bytes, tuple[str, int], float]]:
        """Return at most `burst` waiting datagrams: octets, source address and port, age in seconds.

        The age counts from the kernel's receipt and is never negative.
        """
        datagrams: list[tuple[bytes, tuple[str, int], float]] = []
        while len(datagrams) < burst:
            found = self._intake.read(burst - len(datagrams))
            if not found:
                break
            now_s = clock.utc()
            datagrams += [
                (octets, source, max(0.0, now_s - came_s) if came_s else 0.0) for octets, source, came_s in found
            ]
            if len(found) < INTAKE_PLACES:
                break
        return datagrams

    def send(self, datagram: bytes, to: tuple[str, int]) -> None:
        """Send one datagram to an address and port, without waiting."""
        self.flush()
        try:
            self._socket.sendto(datagram, to)
        except OSError as error:
            self._count(error)

    def post(self, datagram: bytes, to: tuple[str, int]) -> None:
        """Send one datagram at the next `flush`, or now if it has no room."""
        name = self._names.get(to)
        if name is None:
            name = self._names[to] = socket_address(to)
        if self._burst.post(datagram, name):
            return
        self.flush()
        if not self._burst.post(datagram, name):
            self.send(datagram, to)

    def flush(self) -> None:
        """Send what was posted."""
        if self._burst:
            self._burst.send()

    def dropped_by_kernel(self) -> int:
        """Return how many datagrams the kernel dropped: no room in the receive buffer, or a wrong checksum."""
        return dropped_by_kernel(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _set_options(self, family: socket.AddressFamily, receive_buffer_octets: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_octets)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_octets)
        if family == socket.AF_INET:
            # Nothing larger than the interface's MTU leaves; a narrower router on the way may fragment it.
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_INTERFACE)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)

    def _count(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or errno.EINVAL, str(error.errno))
        self.errors[name] = self.errors.get(name, 0) + 1


def _explain(name: str, addr: IPv4Address | IPv6Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{name} is in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{name} cannot be bound: {addr} is no address of this host"
    if error.errno == errno.EACCES:
        return f"{name} cannot be bound: the right CAP_NET_BIND_SERVICE is missing"
    return f"{name} cannot be opened: {error}"
