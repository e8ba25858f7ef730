"""Which ports of a lab's switch lead to which node, and from whom a node can receive. ip-link(8), veth(4).

Must not know how the network was laid out: it asks the kernel.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tcpha.errors import StartError
from tcpha.lab.node import Node


@dataclass(frozen=True, slots=True)
class Port:
    """Where one interface of a node is plugged in."""

    name: str
    bridge: str
    mac: str
    """Of the node's interface."""


def ports_of(switch: Node, node: Node) -> tuple[Port, ...]:
    """The ports that lead to a node, one an interface.

    Raises:
        StartError: there is none, or the program `ip` cannot be run.
    """
    sockets = {link["ifindex"]: link for link in _links(switch)}
    found = []
    for link in _links(node):
        port = sockets.get(link.get("link_index"))
        if port is not None and port.get("link_index") == link["ifindex"] and "master" in port:
            found.append(Port(port["ifname"], port["master"], link["address"]))
    if not found:
        raise StartError(f"no port of the switch leads to {node.name}")
    return tuple(found)


def shared(ports: tuple[Port, ...], peers: tuple[Port, ...]) -> tuple[tuple[Port, Port], ...]:
    """Pairs of ports, of a node and of a peer, that are on the same bridge."""
    return tuple((port, peer) for port in ports for peer in peers if port.bridge == peer.bridge)


def _links(node: Node) -> list[dict[str, Any]]:
    try:
        links: list[dict[str, Any]] = json.loads(node.run(["ip", "-j", "link"], check=True).stdout)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StartError(f"the links of {node.name} cannot be listed: {error}") from error
    return links
