"""Datagrams of one socket that leave by one system call: sendmmsg(2).

They are copied into places that were prepared once, so that posting one allocates nothing. Knows nothing of what is in
them. Layouts: struct mmsghdr, struct iovec (socket.h), struct sockaddr_in and sockaddr_in6.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

PLACES = 64
PLACE_OCTETS = 2048
"""A larger datagram is not posted: its sender sends it alone."""

# name, its octets, vector, its length, control octets, their number, flags; then the octets sent
_HEADER = struct.Struct("@PIPNPNi0PI0P")
_VECTOR = struct.Struct("@PN")
_LENGTH = struct.Struct("@N")
_LENGTH_AT = _VECTOR.size - _LENGTH.size
_FAMILY = struct.Struct("=H")

_libc = ctypes.CDLL(None, use_errno=True)


def socket_address(address: tuple[str, int]) -> bytes:
    """Return an IP address and port as the kernel reads them."""
    addr, port = address
    if ":" in addr:
        rest = struct.pack("!H4x16s4x", port, IPv6Address(addr).packed)
        return _FAMILY.pack(socket.AF_INET6) + rest
    return _FAMILY.pack(socket.AF_INET) + struct.pack("!H4s8x", port, IPv4Address(addr).packed)


class Burst:
    """What is posted, until it is sent."""

    def __init__(self, descriptor: int, address_octets: int, on_error: Callable[[OSError], None]) -> None:
        """`address_octets`: of what `socket_address` returns for this socket. `on_error`: one was not sent."""
        self._on_error = on_error
        self._address_octets = address_octets
        self._count = 0
        places = ctypes.create_string_buffer(PLACES * PLACE_OCTETS)
        names = ctypes.create_string_buffer(PLACES * address_octets)
        vectors = ctypes.create_string_buffer(PLACES * _VECTOR.size)
        headers = ctypes.create_string_buffer(PLACES * _HEADER.size)
        for at in range(PLACES):
            _VECTOR.pack_into(vectors, at * _VECTOR.size, ctypes.addressof(places) + at * PLACE_OCTETS, 0)
            name = ctypes.addressof(names) + at * address_octets
            vector = ctypes.addressof(vectors) + at * _VECTOR.size
            _HEADER.pack_into(headers, at * _HEADER.size, name, address_octets, vector, 1, 0, 0, 0, 0)
        self._places, self._names, self._vectors = (memoryview(each).cast("B") for each in (places, names, vectors))
        self._headers = headers
        self._descriptor = ctypes.c_int(descriptor)

    def __len__(self) -> int:
        return self._count

    def post(self, datagram: bytes, to: bytes) -> bool:
        """Let a datagram leave with the next `send`; False: it is too large, or there is no room."""
        at, octets = self._count, len(datagram)
        if octets > PLACE_OCTETS or at == PLACES:
            return False
        start = at * PLACE_OCTETS
        self._places[start : start + octets] = datagram
        start = at * self._address_octets
        self._names[start : start + self._address_octets] = to
        _LENGTH.pack_into(self._vectors, at * _VECTOR.size + _LENGTH_AT, octets)
        self._count = at + 1
        return True

    def send(self) -> None:
        """Send what was posted, in that order; what cannot be sent is told and left out."""
        done, count = 0, self._count
        self._count = 0
        while done < count:
            first = ctypes.byref(self._headers, done * _HEADER.size)
            sent = _libc.sendmmsg(self._descriptor, first, ctypes.c_uint(count - done), ctypes.c_int(0))
            if sent > 0:
                done += sent
                continue
            code = ctypes.get_errno()
            if code != errno.EINTR:
                self._on_error(OSError(code, "sendmmsg"))
                done += 1
