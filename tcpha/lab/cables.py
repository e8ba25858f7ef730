"""What the cables of a lab are like: how long packets may be, and what interfaces leave to each other. ethtool(8).

Must not know what the nodes do. A veth interface computes nothing itself: with checksum offload (`tx`) packets arrive
without a checksum, with segmentation offload (`tso`, `gso`) they arrive larger than the MTU; the receiver believes that
(`rx`), or joins what belongs together (`gro`). Without, every packet is as on a wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tcpha.lab.addressing import SWITCH
from tcpha.lab.node import Node

Offload = Literal["tx", "rx", "tso", "gso", "gro"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Cables:
    """All of a lab; None leaves what is as it is."""

    mtu_octets: int | None = None
    offloads: frozenset[Offload] | None = None
    """Those that are on; all others are off."""

    def lay(self, nodes: Mapping[str, Node]) -> None:
        """Change every interface of these nodes, the switch's among them, one after another.

        Raises: subprocess.CalledProcessError where an interface refuses, OSError if there is no ethtool.
        """
        # A port of the bridge first: a node's packets must not be too long for it.
        for name in sorted(nodes, key=lambda name: name != SWITCH):
            node = nodes[name]
            for interface in _interfaces(node):
                if self.mtu_octets is not None:
                    node.run(["ip", "link", "set", interface, "mtu", str(self.mtu_octets)], check=True)
                if self.offloads is not None:
                    node.run(["ethtool", "-K", interface, *_switches(self.offloads)], check=True)


def _switches(wanted: frozenset[Offload]) -> Iterator[str]:
    for each in OFFLOADS:
        yield from (each, "on" if each in wanted else "off")


def _interfaces(node: Node) -> list[str]:
    """A bridge's ports before the bridge: its MTU cannot be longer than theirs."""
    shown = node.run(["ip", "-oneline", "link", "show"], check=True).stdout.splitlines()
    names = [line.split()[1].rstrip(":").partition("@")[0] for line in shown]
    return sorted((name for name in names if name != _LOOPBACK), key=lambda name: name.startswith("br"))
