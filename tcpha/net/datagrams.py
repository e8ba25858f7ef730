"""Datagrams of one socket that leave, or come, by one system call: sendmmsg(2), recvmmsg(2).

They lie in places that were prepared once, so that posting one allocates nothing. Knows nothing of what is in them.
Layouts: struct mmsghdr, struct iovec (socket.h), struct sockaddr_in and sockaddr_in6.
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
INTAKE_PLACES = 32
INTAKE_PLACE_OCTETS = 1 << 16
MOST_SOURCES = 1024
"""So many addresses of senders are kept in words."""

# name, its octets, vector, its length, control octets, their number, flags; then the octets of the datagram
_HEADER = struct.Struct("@PIPNPNi0PI0P")
_VECTOR = struct.Struct("@PN")
_FAMILY = struct.Struct("=H")
_CONTROL_OCTETS = 64
_TIMESPEC = struct.Struct("@ll")
_TIMESPEC_AT = 16  # behind the header of the only control message that is asked for, SO_TIMESTAMPNS
_DONTWAIT = int(socket.MSG_DONTWAIT)

_libc = ctypes.CDLL(None, use_errno=True)


def socket_address(address: tuple[str, int]) -> bytes:
    """Return an IP address and port as the kernel reads them."""
    addr, port = address
    if ":" in addr:
        rest = struct.pack("!H4x16s4x", port, IPv6Address(addr).packed)
        return _FAMILY.pack(socket.AF_INET6) + rest
    return _FAMILY.pack(socket.AF_INET) + struct.pack("!H4s8x", port, IPv4Address(addr).packed)


def _address_of(name: bytes) -> tuple[str, int]:
    port = int.from_bytes(name[2:4], "big")
    if _FAMILY.unpack_from(name)[0] == socket.AF_INET6:
        return str(IPv6Address(name[8:24])), port
    return str(IPv4Address(name[4:8])), port


class Intake:
    """Datagrams that came, each with its source and the time (UTC, seconds) at which the kernel got it."""

    def __init__(self, descriptor: int, address_octets: int, on_error: Callable[[OSError], None]) -> None:
        """`on_error`: an ICMP error has answered what was sent, or reading failed. `address_octets` as for `Burst`."""
        self._on_error = on_error
        self._address_octets = address_octets
        self._places = ctypes.create_string_buffer(INTAKE_PLACES * INTAKE_PLACE_OCTETS)
        names = ctypes.create_string_buffer(INTAKE_PLACES * address_octets)
        control = ctypes.create_string_buffer(INTAKE_PLACES * _CONTROL_OCTETS)
        vectors = self._vectors = ctypes.create_string_buffer(INTAKE_PLACES * _VECTOR.size)
        headers = ctypes.create_string_buffer(INTAKE_PLACES * _HEADER.size)
        for at in range(INTAKE_PLACES):
            place = ctypes.addressof(self._places) + at * INTAKE_PLACE_OCTETS
            _VECTOR.pack_into(vectors, at * _VECTOR.size, place, INTAKE_PLACE_OCTETS)
            name = ctypes.addressof(names) + at * address_octets
            told = ctypes.addressof(control) + at * _CONTROL_OCTETS
            vector = ctypes.addressof(vectors) + at * _VECTOR.size
            header = (name, address_octets, vector, 1, told, _CONTROL_OCTETS, 0, 0)
            _HEADER.pack_into(headers, at * _HEADER.size, *header)
        self._octets, self._names, self._control, self._headers = (
            memoryview(each).cast("B") for each in (self._places, names, control, headers)
        )
        self._fresh = bytes(self._headers)
        self._limit = ctypes.c_uint(INTAKE_PLACES)
        self._arguments = (
            ctypes.c_int(descriptor), ctypes.byref(headers), self._limit, ctypes.c_int(_DONTWAIT),
            ctypes.c_void_p(None),
        )  # fmt: skip
        self._sources: dict[bytes, tuple[str, int]] = {}

    def read(self, limit: int) -> list[tuple[bytes, tuple[str, int], float]]:
        """Return at most `limit` of those that wait, and `INTAKE_PLACES`; 0.0 for a time that is not known."""
        self._limit.value = min(limit, INTAKE_PLACES)
        count = _libc.recvmmsg(*self._arguments)
        if count < 0:
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR):
                self._on_error(OSError(code, "recvmmsg"))
            return []
        found = []
        for at in range(count):
            _, _, _, _, _, told_octets, _, octets = _HEADER.unpack_from(self._headers, at * _HEADER.size)
            start = at * INTAKE_PLACE_OCTETS
            name = bytes(self._names[at * self._address_octets : (at + 1) * self._address_octets])
            came_s = 0.0
            if told_octets:
                seconds, nanoseconds = _TIMESPEC.unpack_from(self._control, at * _CONTROL_OCTETS + _TIMESPEC_AT)
                came_s = seconds + nanoseconds / 1e9
            found.append(
                (bytes(self._octets[start : start + octets]), self._sources.get(name) or self._learn(name), came_s)
            )
        self._headers[: count * _HEADER.size] = self._fresh[: count * _HEADER.size]
        return found

    def _learn(self, name: bytes) -> tuple[str, int]:
        if len(self._sources) >= MOST_SOURCES:
            self._sources.clear()
        address = self._sources[name] = _address_of(name)
        return address


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
        self._places, self._names = (memoryview(each).cast("B") for each in (places, names))
        self._lengths = memoryview(vectors).cast("B").cast("L")[1::2]  # size_t
        """Of what is in each place."""
        self._to = [b""] * PLACES
        """What is in `names`: most of what leaves goes to few."""
        self._headers = headers
        self._descriptor = ctypes.c_int(descriptor)
        self._limit = ctypes.c_uint()
        self._arguments = self._descriptor, ctypes.byref(headers), self._limit, ctypes.c_int(0)

    def __len__(self) -> int:
        return self._count

    def post(self, datagram: bytes, to: bytes) -> bool:
        """Let a datagram leave with the next `send`; False: it is too large, or there is no room."""
        at, octets = self._count, len(datagram)
        if octets > PLACE_OCTETS or at == PLACES:
            return False
        start = at * PLACE_OCTETS
        self._places[start : start + octets] = datagram
        self._lengths[at] = octets
        if self._to[at] != to:
            self._to[at] = to
            start = at * self._address_octets
            self._names[start : start + self._address_octets] = to
        self._count = at + 1
        return True

    def send(self) -> None:
        """Send what was posted, in that order; what cannot be sent is told and left out."""
        count, self._count = self._count, 0
        self._limit.value = count
        sent = _libc.sendmmsg(*self._arguments)
        if sent < count:
            self._send_rest(sent, count)

    def _send_rest(self, sent: int, count: int) -> None:
        """Go on behind a call that sent so many, or failed."""
        done = 0
        while True:
            if sent > 0:
                done += sent
            elif (code := ctypes.get_errno()) != errno.EINTR:
                self._on_error(OSError(code, "sendmmsg"))
                done += 1
            if done >= count:
                return
            first = ctypes.byref(self._headers, done * _HEADER.size)
            sent = _libc.sendmmsg(self._descriptor, first, ctypes.c_uint(count - done), ctypes.c_int(0))
