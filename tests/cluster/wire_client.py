"""A client that is no kernel: it sends the packets that it is given and hears those that come, and answers nothing.

It lives in the client node under addresses of the segment that no node holds, so that no kernel speaks for it. The
nodes know its hardware address for good: nobody asks for it. What it sends leaves as it is, past the node's kernel.
What it hears is what would be on a wire: the link to the client node sums and cuts nothing for the servers' kernels
(packet(7), ethtool(8)). Packets are scapy's, which shares no code with the engine. Knows nothing of connections.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.lab.addressing import IFACE, SWITCH
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tests.cluster import forgery
from tests.cluster.conversation import Family

ADDRESSES: dict[Family, str] = {"ipv4": "198.18.0.11", "ipv6": "fd00:198:18::11"}
_ETH_P_ALL = 3
_LAYERS = {b"\x08\x00": IP, b"\x86\xdd": IPv6}
_ETHERNET_OCTETS = 14
_FRAME_OCTETS = 65536 + _ETHERNET_OCTETS
_BUFFER_OCTETS = 8 << 20


@dataclass(frozen=True, slots=True)
class Heard:
    """One IP packet for the client."""

    packet: Any
    """As scapy dissects it."""
    octets: bytes
    """As it came, without what the link may have added behind it."""
    at: float
    """When it was read: seconds, monotonic."""


class WireClient:
    """The client's end of a lab's segment. As a context manager it closes its end."""

    def __init__(self, lab: Lab) -> None:
        """Make the nodes know the client, and open its end of the link."""
        self._macs = {node.name: forgery.mac_of(node) for node in (lab.client, lab.fe, *lab.backends)}
        for node in (lab.fe, *lab.backends):
            for address in ADDRESSES.values():
                entry = [address, "lladdr", self._macs[lab.client.name], "dev", IFACE, "nud", "permanent"]
                node.run(["ip", "neigh", "replace", *entry], check=True)
        lab.node(SWITCH).run(["ethtool", "-K", lab.client.name, "tx", "off"], check=True)
        with lab.client.enter():
            self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._link.bind((IFACE, _ETH_P_ALL))
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        self._link.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the end of the link; the nodes keep what they know of the client until the lab goes."""
        self._link.close()

    def frame(self, packet: Any, to: Node) -> bytes:
        """The frame that brings an IP packet of scapy's to a node."""
        return bytes(Ether(src=self._macs["client"], dst=self._macs[to.name]) / packet)

    def send(self, *frames: bytes) -> None:
        """Send frames, one right behind the other."""
        for frame in frames:
            self._link.send(frame)

    def hear(self, limit_s: float) -> list[Heard]:
        """All that has come; if nothing has, wait for it, `limit_s` seconds at most."""
        select.select([self._link], (), (), max(limit_s, 0.0))
        heard: list[Heard] = []
        while True:
            try:
                frame, origin = self._link.recvfrom(_FRAME_OCTETS)
            except BlockingIOError:
                return heard
            if origin[2] != socket.PACKET_OUTGOING and (found := _dissect(frame)) is not None:
                heard.append(found)


def _dissect(frame: bytes) -> Heard | None:
    """The packet in a frame if it is for the client."""
    layer = _LAYERS.get(frame[12:14])
    if layer is None:
        return None
    octets = frame[_ETHERNET_OCTETS:]
    packet = layer(octets)
    if packet.dst not in ADDRESSES.values():
        return None
    length = packet.len if layer is IP else packet.plen + 40
    return Heard(layer(octets[:length]), octets[:length], time.monotonic())
