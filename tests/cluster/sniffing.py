"""Every packet that passes a node's eth0 meanwhile, in the order in which its kernel saw it, as scapy dissects it.

Must not know what is looked for. packet(7): the node's kernel and its firewall come behind what is heard here, so also
packets that they drop are among it. What a kernel hands to the link in one piece (GSO) is one packet.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from tcpha.lab.addressing import IFACE
from tcpha.lab.node import Node

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_BUFFER_OCTETS = 64 << 20
_LARGEST_OCTETS = 1 << 17
_LAYERS = {0x0800: IP, 0x86DD: IPv6}


class Sniffed:
    """What was heard so far: `hear` takes in what has come since, and so does the end of the block."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.both: list[tuple[bool, Any]] = []
        """All packets: whether it arrived, and the packet."""

    @property
    def arrived(self) -> list[Any]:
        return [packet for arrived, packet in self.both if arrived]

    def hear(self) -> list[Any]:
        """What has arrived up to now."""
        while True:
            try:
                octets, (_, protocol, kind, *_) = self._link.recvfrom(_LARGEST_OCTETS)
            except BlockingIOError:
                return self.arrived
            if protocol in _LAYERS:
                self.both.append((kind != socket.PACKET_OUTGOING, _LAYERS[protocol](octets)))


@contextmanager
def sniffing(node: Node) -> Iterator[Sniffed]:
    with node.enter():
        link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with link:
        link.setblocking(False)
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        link.bind((IFACE, _ETH_P_ALL))
        found = Sniffed(link)
        try:
            yield found
        finally:
            found.hear()
