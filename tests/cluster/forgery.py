"""Packets that no kernel of the lab would send by itself, made with scapy and sent from the client or the router.

Must not use the engine's codec: what is forged here is an independent opinion of how a packet looks.
"""

from __future__ import annotations

import socket
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tests.cluster.conversation import Family, client_address, vip


def mac_of(node: Node, iface: str = IFACE) -> str:
    return node.run(["ip", "-o", "link", "show", iface], check=True).stdout.split("link/ether ")[1].split()[0]


def segment(lab: Lab, family: Family, **fields: Any) -> Any:
    """A TCP segment from the client to the virtual address, as scapy has it; `fields` are those of scapy's TCP."""
    source, target = client_address(lab, family), vip(lab, family)
    network = IP(src=source, dst=target) if family == "ipv4" else IPv6(src=source, dst=target)
    return network / TCP(dport=80, **fields)


def send(lab: Lab, packets: list[Any], to: Node) -> None:
    """Send packets from the client node to the hardware address of `to`, past the client's own kernel."""
    _send(lab.client, IFACE, packets, mac_of(to))


def send_to_router(lab: Lab, packets: list[Any]) -> None:
    """Send packets from the client node of a routed lab for the router to forward."""
    _send(lab.client, IFACE, packets, mac_of(lab.router, "client0"))


def send_from_router(lab: Lab, packets: list[Any], to: Node) -> None:
    """Send packets from the router of a routed lab to a node, past the router's own kernel."""
    (iface,) = (
        each.gateway.iface
        for each in lab.plan.segments
        if each.gateway is not None and to.name in {place.node for place in each.places}
    )
    _send(lab.router, iface, packets, mac_of(to))


def _send(source: Node, iface: str, packets: list[Any], mac: str) -> None:
    ether = Ether(src=mac_of(source, iface), dst=mac)
    with source.enter():
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with link:
        link.bind((iface, 0))
        for packet in packets:
            link.send(bytes(ether / packet))


def forged_packet_sent(lab: Lab, family: Family) -> None:
    """Send a packet to the front end that looks like a server's answer: its source is the virtual address."""
    place = lab.plan.fe
    source, target = vip(lab, family), str(place.ipv4 if family == "ipv4" else place.ipv6)
    network = IP(src=source, dst=target) if family == "ipv4" else IPv6(src=source, dst=target)
    packets = [network / TCP(sport=80, dport=9, flags="A")]
    if lab.plan.is_routed:
        send_from_router(lab, packets, lab.fe)
    else:
        send(lab, packets, lab.fe)
