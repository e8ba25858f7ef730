"""Datagrams between nodes of a lab and what becomes of them on the way: hops used, ICMP errors. ip(7), ipv6(7).

Must not know how a lab is wired. What arrives has its hop limit with it; what does not is on the sender's error queue.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conversation import Family

PORT = 9000
HOP_LIMIT = 64
UDP_HEADER_OCTETS = 8
IP_HEADER_OCTETS = {"ipv4": 20, "ipv6": 40}
_LIMIT_S = 5.0

# Names that Python's socket module lacks: linux/in.h, linux/in6.h, linux/errqueue.h.
_IP_MTU_DISCOVER, _IP_RECVERR, _IP_RECVTTL = 10, 11, 12
_IPV6_MTU_DISCOVER, _IPV6_RECVERR = 23, 25
_PMTUDISC_PROBE = 3
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
"""struct sock_extended_err: errno, origin, type, code, info, data; the sockaddr of who reports it follows."""
_OFFENDER_OFFSET = {"ipv4": _EXTENDED_ERROR.size + 4, "ipv6": _EXTENDED_ERROR.size + 8}


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error that came back for a datagram."""

    icmp_type: int
    code: int
    reporter: str
    mtu_octets: int
    """0 unless it says that a packet was too big."""


class Datagrams:
    """A UDP socket of a node that never fragments, whatever path MTU its kernel has learned."""

    def __init__(self, node: Node, family: Family, address: str = "", port: int = 0) -> None:
        self._family = family
        is_ipv4 = family == "ipv4"
        with node.enter():
            self.socket = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.settimeout(_LIMIT_S)
        self._level = socket.IPPROTO_IP if is_ipv4 else socket.IPPROTO_IPV6
        self._hop_limit = socket.IP_TTL if is_ipv4 else socket.IPV6_UNICAST_HOPS
        options = {
            _IP_RECVTTL if is_ipv4 else socket.IPV6_RECVHOPLIMIT: 1,
            _IP_RECVERR if is_ipv4 else _IPV6_RECVERR: 1,
            _IP_MTU_DISCOVER if is_ipv4 else _IPV6_MTU_DISCOVER: _PMTUDISC_PROBE,
        }
        for option, value in options.items():
            self.socket.setsockopt(self._level, option, value)
        self.socket.bind((address, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, address: str, *, packet_octets: int = 100, hop_limit: int = HOP_LIMIT) -> None:
        """Send a packet of so many octets, IP and UDP headers included, to `PORT` of an address."""
        self.socket.setsockopt(self._level, self._hop_limit, hop_limit)
        payload = bytes(packet_octets - IP_HEADER_OCTETS[self._family] - UDP_HEADER_OCTETS)
        self.socket.sendto(payload, (address, PORT))

    def received(self) -> tuple[str, int, int]:
        """Wait for a packet: its source, its length in octets, how often it was forwarded. Raises TimeoutError."""
        payload, notes, _, source = self.socket.recvmsg(65536, 256)
        (hop_limit,) = (struct.unpack("i", note)[0] for _, _, note in notes)
        octets = len(payload) + IP_HEADER_OCTETS[self._family] + UDP_HEADER_OCTETS
        return str(source[0]), octets, HOP_LIMIT - hop_limit

    def error(self) -> IcmpError:
        """Wait for an ICMP error about something sent before."""
        found: list[bytes] = []

        def has_come() -> bool:
            try:
                _, notes, _, _ = self.socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return False
            found.extend(note for _, _, note in notes if len(note) > _EXTENDED_ERROR.size)  # not the hop limit's
            return bool(found)

        assert wait_until(has_come, _LIMIT_S), "no ICMP error came"
        _, _, icmp_type, code, info, _ = _EXTENDED_ERROR.unpack_from(found[0])
        offset = _OFFENDER_OFFSET[self._family]
        packed = found[0][offset : offset + (4 if self._family == "ipv4" else 16)]
        reporter = socket.inet_ntop(self.socket.family, packed)
        return IcmpError(icmp_type, code, reporter, info)
