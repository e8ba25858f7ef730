"""Names and addresses of a lab: which nodes there are, where they live, what is valid as a name. Pure.

Must not know that namespaces, interfaces or processes exist. The subnets are taken from the benchmarking block
198.18.0.0/15 (RFC 2544, appendix C.2.2) and from the unique local addresses fd00::/8 (RFC 4193); the host parts are
those of the example in the README of TCPHA-0.3. An IPv6 address ends in the hexadecimal digits that look like the
decimal number that ends the IPv4 address.

A flat lab is one segment, 198.18.0.0/24 and fd00:198:18::/64. A routed lab leaves that segment to the front end and its
virtual addresses; the back ends are in 198.18.1.0/24 and fd00:198:18:1::/64, the client in 198.18.2.0/24 and
fd00:198:18:2::/64, and the node `router`, .1 of each, joins the three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tcpha.errors import StartError

DEFAULT_NAME = "tcpha"
PREFIX_LENGTH_IPV4 = 24
PREFIX_LENGTH_IPV6 = 64
MTU_OCTETS = 1500
MTU_LEAST_OCTETS = 1280
"""Below it there is no IPv6 (RFC 8200, 5)."""
IFACE = "eth0"
SWITCH = "switch"
ROUTER = "router"
BACK_ENDS_MAX = 217
"""be217 is .253, the last host part below that of `uaddr`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_NAMESPACE = re.compile(rf"(?P<lab>{_NAME.pattern})-(?P<node>client|fe|be[1-9][0-9]{{0,2}}|{ROUTER}|{SWITCH})")
_ROUTER, _CLIENT, _FRONT_END, _VIRTUAL, _UNUSED = 1, 10, 23, 36, 254
_FIRST_BACK_ENDS = (33, 38)
_FURTHER_BACK_ENDS = 39


@dataclass(frozen=True, slots=True)
class Place:
    """A node's name and its addresses on a segment."""

    node: str
    """`client`, `fe`, `be1`, `be2`, ..., or `router`."""
    ipv4: IPv4Address
    ipv6: IPv6Address
    iface: str = IFACE
    """Its interface there: the router's bear the name of the segment, `fe0`, `be0`, `client0`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes that reach each other without a router."""

    bridge: str
    """Name of its bridge in the switch."""
    places: tuple[Place, ...]
    """All on it but the router."""
    gateway: Place | None = None
    """The router's place on it."""
    mtu_octets: int = MTU_OCTETS
    """The longest packet that the router sends into it; what its nodes send may be `MTU_OCTETS` long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a lab addresses."""

    segments: tuple[Segment, ...]
    """One, or those of front end, back ends, client."""
    client: Place
    fe: Place
    backends: tuple[Place, ...]
    """be1 first, at least one."""
    vip4: IPv4Address
    vip6: IPv6Address
    """Both on the front end's segment."""
    uaddr4: IPv4Address
    """An address of the back ends' segment that no node holds."""
    uaddr6: IPv6Address

    @property
    def places(self) -> tuple[Place, ...]:
        """Client, front end, back ends in their order."""
        return (self.client, self.fe, *self.backends)

    @property
    def router(self) -> tuple[Place, ...]:
        """The router's place on each segment; none in a flat lab."""
        return tuple(segment.gateway for segment in self.segments if segment.gateway is not None)

    @property
    def is_routed(self) -> bool:
        """Whether a router is between client, front end and back ends."""
        return bool(self.router)


def plan(
    backends: int,
    *,
    routed: bool = False,
    client_mtu_octets: int = MTU_OCTETS,
    backend_mtu_octets: int = MTU_OCTETS,
) -> Plan:
    """Lay out a lab with so many back ends.

    The router lets packets of so many octets pass towards the client and towards the back ends.

    Raises:
        StartError: not 1 to `BACK_ENDS_MAX` back ends, an MTU not `MTU_LEAST_OCTETS` to `MTU_OCTETS`, or a smaller one
            where there is no router.
    """
    if not 1 <= backends <= BACK_ENDS_MAX:
        raise StartError(f"a lab has 1 to {BACK_ENDS_MAX} back ends, not {backends}")
    _check_mtu("client", client_mtu_octets, routed)
    _check_mtu("back ends", backend_mtu_octets, routed)
    front, back, outer = (0, 1, 2) if routed else (0, 0, 0)
    hosts = (*_FIRST_BACK_ENDS, *range(_FURTHER_BACK_ENDS, _FURTHER_BACK_ENDS + backends))[:backends]
    servers = tuple(_place(back, f"be{number}", host) for number, host in enumerate(hosts, start=1))
    client, fe = _place(outer, "client", _CLIENT), _place(front, "fe", _FRONT_END)
    routed_segments = (
        _joined(front, "fe", MTU_OCTETS, fe),
        _joined(back, "be", backend_mtu_octets, *servers),
        _joined(outer, "client", client_mtu_octets, client),
    )
    return Plan(
        segments=routed_segments if routed else (Segment("br0", (client, fe, *servers)),),
        client=client,
        fe=fe,
        backends=servers,
        vip4=_ipv4(front, _VIRTUAL),
        vip6=_ipv6(front, _VIRTUAL),
        uaddr4=_ipv4(back, _UNUSED),
        uaddr6=_ipv6(back, _UNUSED),
    )


def check_name(name: str) -> str:
    """Return `name` if a lab may be called so.

    Raises:
        StartError: not 1 to 32 letters, digits, `-`, `_`, or the first is no letter or digit.
    """
    if _NAME.fullmatch(name) is None:
        raise StartError(f"{name!r} is no name for a lab: 1 to 32 of A-Z a-z 0-9 - _, the first a letter or a digit")
    return name


def namespace_of(lab: str, node: str) -> str:
    """Name of the network namespace in which a node of a lab lives."""
    return f"{lab}-{node}"


def split_namespace(namespace: str) -> tuple[str, str] | None:
    """Lab and node that a namespace's name stands for; None for a namespace that can be no lab's."""
    match = _NAMESPACE.fullmatch(namespace)
    return (match["lab"], match["node"]) if match else None


def _check_mtu(whither: str, mtu_octets: int, routed: bool) -> None:
    if not MTU_LEAST_OCTETS <= mtu_octets <= MTU_OCTETS:
        raise StartError(f"the MTU towards the {whither} is {MTU_LEAST_OCTETS} to {MTU_OCTETS}, not {mtu_octets}")
    if mtu_octets < MTU_OCTETS and not routed:
        raise StartError(f"an MTU of {mtu_octets} towards the {whither} needs a router: only a routed lab has one")


def _joined(subnet: int, name: str, mtu_octets: int, *places: Place) -> Segment:
    return Segment(f"br-{name}", places, _place(subnet, ROUTER, _ROUTER, f"{name}0"), mtu_octets)


def _place(subnet: int, node: str, host: int, iface: str = IFACE) -> Place:
    return Place(node, _ipv4(subnet, host), _ipv6(subnet, host), iface)


def _ipv4(subnet: int, host: int) -> IPv4Address:
    return IPv4Address(f"198.18.{subnet}.{host}")


def _ipv6(subnet: int, host: int) -> IPv6Address:
    return IPv6Address(f"fd00:198:18:{subnet}::{host}")
