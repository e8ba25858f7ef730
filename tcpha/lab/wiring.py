"""The network of a lab: one bridge, and a veth pair from each node's eth0 to it. veth(4), RFC 826, RFC 4861.

Must not know about processes. No namespace gets a route out of the segment. Addresses are used at once: duplicate
address detection is off (RFC 4862, 5.4), router solicitation too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tcpha.errors import StartError
from tcpha.lab import namespaces
from tcpha.lab.addressing import (
    IFACE,
    MTU_OCTETS,
    PREFIX_LENGTH_IPV4,
    PREFIX_LENGTH_IPV6,
    SWITCH,
    Place,
    namespace_of,
)
from tcpha.lab.waiting import wait_until

_BRIDGE = "br0"
_IFA_F_NODAD = 2
_CARRIER_LIMIT_S = 10.0
_IPV6_OF_NODE = {
    "all/disable_ipv6": 0,
    "default/disable_ipv6": 0,
    "default/accept_dad": 0,
    "default/accept_ra": 0,
    "default/router_solicitations": 0,
}
_IPV6_OF_SWITCH = {"all/disable_ipv6": 1, "default/disable_ipv6": 1}


def join(lab: str, places: Iterable[Place]) -> None:
    """Make the namespaces of a lab and connect them.

    Raises:
        OSError: a namespace or a setting of one cannot be made.
        StartError: the kernel refuses an interface or an address, or the links do not come up.
    """
    nodes = tuple(places)
    for node in (SWITCH, *(place.node for place in nodes)):
        namespaces.create(namespace_of(lab, node))
    try:
        _connect(lab, nodes)
    except NetlinkError as error:
        raise StartError(f"the kernel refuses an interface or an address of lab {lab}: {error}") from error


def _connect(lab: str, nodes: tuple[Place, ...]) -> None:
    _make_bridge(namespace_of(lab, SWITCH))
    for place in nodes:
        _plug_in(lab, place)
        _address(namespace_of(lab, place.node), place)
    _await_carrier(namespace_of(lab, SWITCH), len(nodes))


def _make_bridge(switch: str) -> None:
    with namespaces.inside(switch):
        _configure_ipv6(_IPV6_OF_SWITCH)
        with IPRoute() as route:
            # Snooping would need a querier; a segment this small is better flooded.
            route.link("add", ifname=_BRIDGE, kind="bridge", br_mcast_snooping=0)
            route.link("set", index=_index(route, _BRIDGE), state="up")


def _plug_in(lab: str, place: Place) -> None:
    """Make the pair in the switch, its far end born in the node's namespace: no name is ever taken on the host."""
    node = namespace_of(lab, place.node)
    with namespaces.inside(node):
        _configure_ipv6(_IPV6_OF_NODE)
    with namespaces.inside(namespace_of(lab, SWITCH)), IPRoute() as route:
        far_end = {"ifname": IFACE, "mtu": MTU_OCTETS, "net_ns_fd": f"/run/netns/{node}"}
        route.link("add", ifname=place.node, kind="veth", mtu=MTU_OCTETS, peer=far_end)
        route.link("set", index=_index(route, place.node), master=_index(route, _BRIDGE), state="up")


def _address(namespace: str, place: Place) -> None:
    with namespaces.inside(namespace), IPRoute() as route:
        route.link("set", index=_index(route, "lo"), state="up")
        eth0 = _index(route, IFACE)
        route.addr("add", index=eth0, address=str(place.ipv4), prefixlen=PREFIX_LENGTH_IPV4)
        route.addr("add", index=eth0, address=str(place.ipv6), prefixlen=PREFIX_LENGTH_IPV6, flags=_IFA_F_NODAD)
        route.link("set", index=eth0, state="up")


def _await_carrier(switch: str, ports: int) -> None:
    """A frame that is sent before its port forwards is lost, and address resolution repeats only after a second."""
    with namespaces.inside(switch), IPRoute() as route:

        def all_forward() -> bool:
            links = [link for link in route.get_links() if link.get("ifname") != "lo"]
            return len(links) == ports + 1 and all(link.get("operstate") == "UP" for link in links)

        if not wait_until(all_forward, _CARRIER_LIMIT_S):
            raise StartError(f"the links of {switch} did not come up within {_CARRIER_LIMIT_S:g} s")


def _configure_ipv6(settings: dict[str, int]) -> None:
    """Write settings of the namespace the thread is in."""
    for key, value in settings.items():
        Path("/proc/sys/net/ipv6/conf", key).write_text(f"{value}\n")


def _index(route: Any, ifname: str) -> int:
    found = route.link_lookup(ifname=ifname)
    if not found:
        raise StartError(f"the interface {ifname} vanished while the lab was being built")
    return int(found[0])
