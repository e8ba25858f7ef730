"""The network of a lab: a bridge per segment, a veth pair from each node to it, a router between segments. veth(4).

Must not know about processes. No namespace gets a route out of the lab. Addresses are used at once: duplicate address
detection is off (RFC 4862, 5.4), router solicitation too. In a routed lab every node has a default route to the router
and the router has none.

A smaller MTU of the router is one of its route, not of its interface: the packets that are too big to be forwarded are
the same (RFC 1812, 4.2.2.6), and what arrives may still be longer, which a veth interface of a smaller MTU drops.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
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
    ROUTER,
    SWITCH,
    Place,
    Plan,
    Segment,
    namespace_of,
)
from tcpha.lab.waiting import wait_until

_IFA_F_NODAD = 2
_RTAX_MTU = 2
_RT_SCOPE_LINK = 253
_PRIORITY_OF_CONNECTED_IPV6 = 256
"""The kernel's own for the route that comes with an address; IPv4 has 0."""
_CARRIER_LIMIT_S = 10.0
_SETTINGS_OF_SWITCH = {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}
_SETTINGS_OF_BRIDGES = {f"bridge/bridge-nf-call-{family}": 0 for family in ("iptables", "ip6tables", "arptables")}
"""A switch asks no firewall about its frames. Only where the kernel has br_netfilter are there such settings."""
_SETTINGS_OF_NODE = {
    "ipv4/ip_forward": 0,  # a new namespace has the host's; before the others, for it sets some of them
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/router_solicitations": 0,
}
_SETTINGS_OF_ROUTER = {
    **_SETTINGS_OF_NODE,
    "ipv4/ip_forward": 1,  # in the same place as above
    "ipv6/conf/all/forwarding": 1,
    # A back end's answers come from the virtual address, which the router has on another segment.
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
}


def join(lab: str, plan: Plan) -> None:
    """Make the namespaces of a lab and connect them.

    Raises:
        OSError: a namespace or a setting of one cannot be made.
        StartError: the kernel refuses an interface, an address or a route, or the links do not come up.
    """
    nodes = [*(place.node for place in plan.places), *([ROUTER] if plan.is_routed else [])]
    for node in (SWITCH, *nodes):
        namespaces.create(namespace_of(lab, node))
    try:
        _configure(namespace_of(lab, SWITCH), _SETTINGS_OF_SWITCH)
        _configure(namespace_of(lab, SWITCH), _SETTINGS_OF_BRIDGES, may_be_missing=True)
        for node in nodes:
            _configure(namespace_of(lab, node), _SETTINGS_OF_ROUTER if node == ROUTER else _SETTINGS_OF_NODE)
            _bring_up(namespace_of(lab, node), "lo")
        for segment in plan.segments:
            _connect(lab, segment)
        _await_carrier(namespace_of(lab, SWITCH), plan)
    except NetlinkError as error:
        raise StartError(f"the kernel refuses a part of the network of lab {lab}: {error}") from error


def _configure(namespace: str, settings: dict[str, int], *, may_be_missing: bool = False) -> None:
    """Before there is any interface: each is born with them."""
    with namespaces.inside(namespace):
        for key, value in settings.items():
            setting = Path("/proc/sys/net", key)
            if not may_be_missing or setting.exists():
                setting.write_text(f"{value}\n")


def _bring_up(namespace: str, ifname: str) -> None:
    with namespaces.inside(namespace), IPRoute() as route:
        route.link("set", index=_index(route, ifname), state="up")


def _connect(lab: str, segment: Segment) -> None:
    gateway = segment.gateway
    _make_bridge(namespace_of(lab, SWITCH), segment.bridge)
    if gateway is not None:
        _plug_in(lab, segment.bridge, gateway, f"{ROUTER}-{gateway.iface}")
        if segment.mtu_octets < MTU_OCTETS:
            _narrow(namespace_of(lab, ROUTER), gateway, segment.mtu_octets)
    for place in segment.places:
        _plug_in(lab, segment.bridge, place, place.node)
        if gateway is not None:
            _route_by(namespace_of(lab, place.node), gateway)


def _make_bridge(switch: str, bridge: str) -> None:
    with namespaces.inside(switch), IPRoute() as route:
        # Snooping would need a querier; a segment this small is better flooded.
        route.link("add", ifname=bridge, kind="bridge", br_mcast_snooping=0)
        route.link("set", index=_index(route, bridge), state="up")


def _plug_in(lab: str, bridge: str, place: Place, port: str) -> None:
    """Make the pair in the switch, its far end born in the node's namespace: no name is ever taken on the host."""
    node = namespace_of(lab, place.node)
    with namespaces.inside(namespace_of(lab, SWITCH)), IPRoute() as route:
        far_end = {"ifname": place.iface, "mtu": MTU_OCTETS, "net_ns_fd": f"/run/netns/{node}"}
        route.link("add", ifname=port, kind="veth", mtu=MTU_OCTETS, peer=far_end)
        route.link("set", index=_index(route, port), master=_index(route, bridge), state="up")
    with namespaces.inside(node), IPRoute() as route:
        index = _index(route, place.iface)
        route.addr("add", index=index, address=str(place.ipv4), prefixlen=PREFIX_LENGTH_IPV4)
        route.addr("add", index=index, address=str(place.ipv6), prefixlen=PREFIX_LENGTH_IPV6, flags=_IFA_F_NODAD)
        route.link("set", index=index, state="up")


def _route_by(namespace: str, gateway: Place) -> None:
    with namespaces.inside(namespace), IPRoute() as route:
        for address in (gateway.ipv4, gateway.ipv6):
            route.route("add", dst="default", gateway=str(address), oif=_index(route, IFACE), family=_family(address))


def _narrow(router: str, gateway: Place, mtu_octets: int) -> None:
    """Give the routes into the gateway's segment an MTU, locked (ip-route(8)): nothing that is learned replaces it."""
    metrics = {"mtu": mtu_octets, "lock": 1 << _RTAX_MTU}
    subnet_ipv4 = IPv4Interface((gateway.ipv4, PREFIX_LENGTH_IPV4)).network
    subnet_ipv6 = IPv6Interface((gateway.ipv6, PREFIX_LENGTH_IPV6)).network
    with namespaces.inside(router), IPRoute() as route:
        own = {"oif": _index(route, gateway.iface), "metrics": metrics}
        route.route("replace", dst=str(subnet_ipv4), scope=_RT_SCOPE_LINK, prefsrc=str(gateway.ipv4), **own)
        route.route("replace", dst=str(subnet_ipv6), priority=_PRIORITY_OF_CONNECTED_IPV6, **own)


def _await_carrier(switch: str, plan: Plan) -> None:
    """A frame that is sent before its port forwards is lost, and address resolution repeats only after a second."""
    count = len(plan.segments) + len(plan.places) + len(plan.router)
    with namespaces.inside(switch), IPRoute() as route:

        def all_forward() -> bool:
            links = [link for link in route.get_links() if link.get("ifname") != "lo"]
            return len(links) == count and all(link.get("operstate") == "UP" for link in links)

        if not wait_until(all_forward, _CARRIER_LIMIT_S):
            raise StartError(f"the links of {switch} did not come up within {_CARRIER_LIMIT_S:g} s")


def _family(address: IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _index(route: Any, ifname: str) -> int:
    found = route.link_lookup(ifname=ifname)
    if not found:
        raise StartError(f"the interface {ifname} vanished while the lab was being built")
    return int(found[0])
