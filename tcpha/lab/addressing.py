"""Names and addresses of a lab: which nodes there are, where they live, what is valid as a name. Pure.

Must not know that namespaces, interfaces or processes exist. The subnets are taken from the benchmarking block
198.18.0.0/15 (RFC 2544, appendix C.2.2) and from the unique local addresses fd00::/8 (RFC 4193); the host parts are
those of the example in the README of TCPHA-0.3. An IPv6 address ends in the hexadecimal digits that look like the
decimal number that ends the IPv4 address.
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
IFACE = "eth0"
SWITCH = "switch"
BACK_ENDS_MAX = 217
"""be217 is .253, the last host part below that of `uaddr`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_NAMESPACE = re.compile(rf"(?P<lab>{_NAME.pattern})-(?P<node>client|fe|be[1-9][0-9]{{0,2}}|{SWITCH})")
_CLIENT, _FRONT_END, _VIRTUAL, _UNUSED = 10, 23, 36, 254
_FIRST_BACK_ENDS = (33, 38)
_FURTHER_BACK_ENDS = 39


@dataclass(frozen=True, slots=True)
class Place:
    """A node's name and its addresses on the lab's only segment."""

    node: str
    """`client`, `fe` or `be1`, `be2`, ..."""
    ipv4: IPv4Address
    ipv6: IPv6Address


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a lab addresses."""

    client: Place
    fe: Place
    backends: tuple[Place, ...]
    """be1 first, at least one."""
    vip4: IPv4Address
    vip6: IPv6Address
    uaddr4: IPv4Address
    """An address of the segment that no node holds."""
    uaddr6: IPv6Address

    @property
    def places(self) -> tuple[Place, ...]:
        """Client, front end, back ends in their order."""
        return (self.client, self.fe, *self.backends)


def plan(backends: int) -> Plan:
    """Lay out a lab with so many back ends.

    Raises:
        StartError: not 1 to `BACK_ENDS_MAX` back ends.
    """
    if not 1 <= backends <= BACK_ENDS_MAX:
        raise StartError(f"a lab has 1 to {BACK_ENDS_MAX} back ends, not {backends}")
    hosts = (*_FIRST_BACK_ENDS, *range(_FURTHER_BACK_ENDS, _FURTHER_BACK_ENDS + backends))[:backends]
    return Plan(
        client=_place("client", _CLIENT),
        fe=_place("fe", _FRONT_END),
        backends=tuple(_place(f"be{number}", host) for number, host in enumerate(hosts, start=1)),
        vip4=_ipv4(_VIRTUAL),
        vip6=_ipv6(_VIRTUAL),
        uaddr4=_ipv4(_UNUSED),
        uaddr6=_ipv6(_UNUSED),
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


def _place(node: str, host: int) -> Place:
    return Place(node, _ipv4(host), _ipv6(host))


def _ipv4(host: int) -> IPv4Address:
    return IPv4Address(f"198.18.0.{host}")


def _ipv6(host: int) -> IPv6Address:
    return IPv6Address(f"fd00:198:18::{host}")
