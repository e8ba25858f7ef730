"""Interfaces, neighbours, and the netlink messages that no package offers.

Addresses and links are asked for through pyroute2. The neighbour table is followed on a socket of our own, because a
service waits on its file descriptor and has to know when notifications were lost. `NetlinkSocket` and the codec around
it serve the other files of this folder where pyroute2 has only dumps (socket diagnostics) or no flags (nf_tables).
Knows nothing of TCP or of handoffs. Format: RFC 3549, section 2.3; linux/netlink.h, rtnetlink.h, neighbour.h.

pyroute2 (0.9) runs an event loop of its own inside every call: the functions here must not be called from a coroutine.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from pyroute2 import IPRoute

from tcpha.errors import EdgeError, StartError

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_NONREC = 0x100
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_RTMGRP_NEIGH = 1 << 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_USE, _NTF_PROXY = 0x01, 0x08
# REACHABLE, STALE, DELAY, PROBE, PERMANENT: the states whose link-layer address the kernel itself would send to.
_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
_MAC_OCTETS = 6

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_NDMSG = struct.Struct("=BBHiHBB")  # ndmsg: family, pad, pad, ifindex, state, flags, type
_ERRNO = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE_OCTETS = 1 << 16
_ANSWER_S = 5.0
_DUMPS = 8  # attempts to get a table that did not change meanwhile; the last one is used as it is


class Message(NamedTuple):
    """One netlink message: nlmsghdr without its length, and what follows the header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def encode_message(message: Message) -> bytes:
    """Layout: nlmsghdr (16 octets, host byte order), then the body, padded to 4 octets."""
    length = _HEADER.size + len(message.body)
    header = _HEADER.pack(length, message.kind, message.flags, message.sequence, 0)
    return header + message.body + bytes(-length & 3)


def encode_attribute(kind: int, value: bytes) -> bytes:
    """Layout: nlattr (4 octets, host byte order), then the value, padded to 4 octets."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length & 3)


def decode_messages(octets: bytes) -> Iterator[Message]:
    """Yield the messages of one read; what is cut off or impossible ends the walk."""
    offset = 0
    while offset + _HEADER.size <= len(octets):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(octets, offset)
        if length < _HEADER.size or offset + length > len(octets):
            return
        yield Message(kind, flags, sequence, octets[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def notifications(descriptor: socket.socket, burst: int) -> Iterator[Message | None]:
    """Yield what at most `burst` notifications that wait say; None: the kernel has lost some. Raises: OSError."""
    for _ in range(burst):
        try:
            octets = descriptor.recv(_RECEIVE_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None
        else:
            yield from decode_messages(octets)


def decode_attributes(octets: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes from `offset` on by type, flags of the type removed; a repeated type keeps the last."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, offset)
        if length < _ATTRIBUTE.size or offset + length > len(octets):
            break
        found[kind & _TYPE_MASK] = octets[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def error_of(message: Message) -> int:
    """Return the errno of an NLMSG_ERROR or of the end of a dump (0: success)."""
    return -int(_ERRNO.unpack_from(message.body)[0]) if len(message.body) >= _ERRNO.size else 0


class NetlinkSocket:
    """One netlink socket for questions and their answers, in the network namespace of the thread that makes it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_S)
        self._sequence = 0

    def request(self, kind: int, flags: int, body: bytes) -> list[Message]:
        """Send one request and return the messages that answer it, without the acknowledgement that ends them.

        Raises: OSError with the errno of the kernel's answer; TimeoutError after 5 s without one.
        """
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        message = Message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, body)
        self._socket.send(encode_message(message))
        answers: list[Message] = []
        while True:
            for answer in decode_messages(self._socket.recv(_RECEIVE_OCTETS)):
                if answer.sequence != self._sequence:
                    continue
                if answer.kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(answer)
                elif code := error_of(answer):
                    raise OSError(code, os.strerror(code))
                else:
                    return answers

    def transaction(self, messages: list[Message]) -> None:
        """Send several messages as one datagram and wait for the acknowledgement of each that asks for one.

        Raises: OSError with the errno of the first message that failed.
        """
        wanted = {message.sequence for message in messages if message.flags & NLM_F_ACK}
        self._socket.send(b"".join(map(encode_message, messages)))
        while wanted:
            for answer in decode_messages(self._socket.recv(_RECEIVE_OCTETS)):
                if answer.kind == NLMSG_ERROR:
                    if code := error_of(answer):
                        raise OSError(code, os.strerror(code))
                    wanted.discard(answer.sequence)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def interface_of(addr: IPv4Address | IPv6Address) -> str:
    """Return the name of the interface that holds `addr`.

    Raises: StartError if none does.
    """
    with IPRoute() as route:
        for entry in route.get_addr(family=socket.AF_INET if addr.version == 4 else socket.AF_INET6):
            # IPv4 puts the peer of a point-to-point link into IFA_ADDRESS; IPv6 has no IFA_LOCAL without a peer.
            held = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
            if held is not None and ip_address(held) == addr:
                return socket.if_indextoname(entry["index"])
    raise StartError(f"no interface of this host holds the address {addr}")


def mtu(iface: str) -> int:
    """Return the largest IP packet that `iface` sends, in octets.

    Raises: StartError if there is no such interface.
    """
    with IPRoute() as route:
        for link in route.get_links(index_of(iface)):
            return int(link.get_attr("IFLA_MTU"))
    raise StartError(f"there is no interface {iface}")


def index_of(iface: str) -> int:
    """Return the number of an interface. Raises: StartError if there is none."""
    try:
        return socket.if_nametoindex(iface)
    except OSError as error:
        raise StartError(f"there is no interface {iface}") from error


def name_of(index: int) -> str:
    """Return the name of an interface, or its index in words if there is none any more."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"


class Neighbours:
    """The kernel's neighbour table of one interface, both address families, kept current by its notifications.

    Wait for `fileno()` to become readable, then call `read()`. Counters: `overruns` (notifications were lost and the
    table was asked for again), `errors` (the kernel refused a solicitation).
    """

    def __init__(self, iface: str) -> None:
        """Raises: StartError if there is no such interface; EdgeError if the kernel does not answer."""
        self.overruns = 0
        self.errors = 0
        self._iface = iface
        self._index = index_of(iface)
        self._usable: dict[bytes, bytes] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _RTMGRP_NEIGH))
            self._dump()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when the table changed."""
        return self._socket.fileno()

    def read(self, burst: int = 256) -> bool:
        """Take in at most `burst` of the notifications that wait; return whether an address or its MAC changed.

        While more wait the descriptor stays readable: somebody who floods the segment with ARP holds nobody up.
        Raises: EdgeError if the table was lost and the kernel does not give it again.
        """
        changed = False
        try:
            for message in notifications(self._socket, burst):
                if message is not None:
                    changed |= self._take(message, self._usable)
                else:
                    self.overruns += 1
                    changed |= self._dump()
        except OSError as error:
            raise EdgeError(f"neighbour table: {error}") from error
        return changed

    def follow(self) -> None:
        """Look at the interface that has this name now. Raises: StartError if there is none; EdgeError as `read`."""
        self._index = index_of(self._iface)
        self._dump()

    def mac(self, addr: IPv4Address | IPv6Address) -> bytes | None:
        """Return the 6 octets that the neighbour answers to, or None while they are not known.

        Also None: addresses of this host and addresses that are not on the link, which are nobody's neighbours. What
        was returned holds until `read()` returns True, so a caller may keep it that long.
        """
        return self._usable.get(addr.packed)

    def solicit(self, addr: IPv4Address | IPv6Address) -> None:
        """Make the kernel find or confirm the neighbour, as a packet sent to it would (NTF_USE).

        The answer arrives through `read()`. The kernel gives up after a few seconds, so call again while `mac` returns
        None; to call too often does no harm. Nothing is raised: what the kernel refuses is counted in `errors`.
        """
        family = socket.AF_INET if addr.version == 4 else socket.AF_INET6
        body = _NDMSG.pack(family, 0, 0, self._index, 0, _NTF_USE, 0) + encode_attribute(_NDA_DST, addr.packed)
        try:
            self._socket.send(encode_message(Message(_RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE, 0, body)))
        except OSError:
            self.errors += 1

    def close(self) -> None:
        """Close the subscription."""
        self._socket.close()

    def _take(self, message: Message, usable: dict[bytes, bytes]) -> bool:
        if message.kind == NLMSG_ERROR and error_of(message):
            self.errors += 1
        if message.kind not in (_RTM_NEWNEIGH, _RTM_DELNEIGH) or len(message.body) < _NDMSG.size:
            return False
        _, _, _, index, state, flags, _ = _NDMSG.unpack_from(message.body)
        attributes = decode_attributes(message.body, _NDMSG.size)
        addr = attributes.get(_NDA_DST)
        if index != self._index or flags & _NTF_PROXY or addr is None:
            return False
        lladdr = attributes.get(_NDA_LLADDR, b"")
        if message.kind == _RTM_DELNEIGH or not state & _NUD_USABLE or len(lladdr) != _MAC_OCTETS:
            return usable.pop(addr, None) is not None
        before = usable.get(addr)
        usable[addr] = lladdr
        return before != lladdr

    def _dump(self) -> bool:
        """Ask for the whole table; notifications that arrive meanwhile are newer and are applied in their order."""
        before = self._usable
        try:
            self._socket.settimeout(_ANSWER_S)
            for _ in range(_DUMPS):
                self._usable, whole = self._dump_once()
                if whole:
                    break
            self._socket.settimeout(0)
        except OSError as error:
            raise EdgeError(f"neighbour table: {error}") from error
        return self._usable != before

    def _dump_once(self) -> tuple[dict[bytes, bytes], bool]:
        """Return the table and whether it is whole: unchanged while it was written, no notification lost."""
        fresh: dict[bytes, bytes] = {}
        whole = True
        body = _NDMSG.pack(socket.AF_UNSPEC, 0, 0, self._index, 0, 0, 0)
        self._socket.send(encode_message(Message(_RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, body)))
        while True:
            try:
                octets = self._socket.recv(_RECEIVE_OCTETS)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                whole = False
                continue
            for message in decode_messages(octets):
                whole &= not message.flags & NLM_F_DUMP_INTR
                if message.kind == NLMSG_DONE:
                    return fresh, whole
                self._take(message, fresh)
