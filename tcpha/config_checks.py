"""Whether the values of a configuration fit together.

Pure: knows the meaning of the keys, but no file, no line and no model. A misfit is a `Fault` that names the keys at
fault; who read the file turns them into a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tcpha.balance import Address, Endpoint
from tcpha.rule_text import Rule

_IPV6_MINIMUM_MTU = 1280

Place: TypeAlias = tuple[str, int]
"""A key, and which of its lines (from 0)."""


class Fault(ValueError):
    """Values that do not fit together. `places`: where to look, the likeliest first; a file may hold only some."""

    def __init__(self, reason: str, *places: Place) -> None:
        super().__init__(reason)
        self.places = places


@dataclass(frozen=True, slots=True)
class Named:
    """An address and the line it stands in."""

    key: str
    index: int
    addr: Address

    @property
    def place(self) -> Place:
        """The line it stands in."""
        return (self.key, self.index)


def default_id(raddr: Address) -> int:
    """Return the id of a node that sets none: the low 16 bits of its address (0..65535; 0 is no id)."""
    return int(raddr) & 0xFFFF


def each(key: str, addresses: Iterable[Address]) -> tuple[Named, ...]:
    """Give every address of the lines of one key its place."""
    return tuple(Named(key, index, addr) for index, addr in enumerate(addresses))


def check_distinct(key: str, values: Sequence[object]) -> None:
    """Raises: Fault if a value of a key that may repeat is given twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise Fault(f"{value} is given twice", (key, index))


def check_virtual(vaddr: Sequence[Address], nodes: Sequence[Named]) -> None:
    """Raises: Fault if a virtual address is loopback, or the own address of a node."""
    own = {node.addr: node for node in nodes}
    for virtual in each("vaddr", vaddr):
        if virtual.addr.is_loopback:
            raise Fault(f"{virtual.addr} is a loopback address: no client reaches it", virtual.place)
        if virtual.addr in own:
            raise Fault(f"{virtual.addr} is also {own[virtual.addr].key}: it must belong to no node", virtual.place)


def check_families(raddr: Address, nodes: Sequence[Named]) -> None:
    """Raises: Fault if a node cannot be reached from `raddr`: the handoff channel has one address family."""
    for node in nodes:
        if node.addr.version != raddr.version:
            reason = f"{node.addr} is IPv{node.addr.version}, but raddr {raddr} is IPv{raddr.version}"
            raise Fault(reason, node.place)


def check_rules(rules: Sequence[Rule], servers: Sequence[Endpoint]) -> None:
    """Raises: Fault if a rule names an address that is in no server line."""
    known = {server.addr for server in servers}
    for index, rule in enumerate(rules):
        for number, addr in enumerate(rule.servers):
            if addr not in known:
                raise Fault(f"{addr} is in no server line{_column(rule.servers[:number])}", ("rule", index))


def _column(before: Sequence[Address]) -> str:
    """Say where in a rule an address stands; behind an IPv6 address, which has many spellings, nobody knows."""
    if any(each.version == 6 for each in before):
        return ""
    return f" (column {1 + sum(len(str(each)) + 1 for each in before)})"


def check_roles(front_ends: Sequence[Named], back_ends: Sequence[Named]) -> None:
    """Raises: Fault if one node is front end and back end: both would claim the same packets."""
    servers = {node.addr for node in back_ends}
    for node in front_ends:
        if node.addr in servers:
            raise Fault(f"{node.addr} is also a server: a node is front end or back end, not both", node.place)


def check_ids(own: Named, own_id: int, is_set: bool, others: Sequence[Named]) -> None:
    """Raises: Fault if two nodes would have the same id.

    A file knows the `id` of its own node only. Once it sets one, the nodes are numbered by hand, and what the others'
    addresses would give is compared with the own id only.
    """
    taken = {own_id: own}
    for other in others:
        if other.addr == own.addr:
            continue
        number = default_id(other.addr)
        first = taken.get(number)
        if first is None:
            if not is_set:
                taken[number] = other
            continue
        if first is own and is_set:
            raise Fault(f"{own_id} is the default id of {other.key} {other.addr}", ("id", 0))
        reason = f"{other.addr} and {first.key} {first.addr} have the same default id {number}: set `id` on both nodes"
        raise Fault(reason, other.place)


def check_unused(uaddr: Sequence[Address], vaddr: Sequence[Address], others: Sequence[Named]) -> None:
    """Raises: Fault if an address said to be unused is used, or is of a family no virtual address has."""
    check_distinct("uaddr", uaddr)
    taken = {other.addr: other.key for other in (*others, *each("vaddr", vaddr))}
    families = {virtual.version for virtual in vaddr}
    for unused in each("uaddr", uaddr):
        if unused.addr in taken:
            raise Fault(f"{unused.addr} is also {taken[unused.addr]}: it must be used by nobody", unused.place)
        if unused.addr.version not in families:
            raise Fault(f"{unused.addr} is IPv{unused.addr.version}, but no vaddr is", unused.place)


def check_tunnel_mtu(mtu: int, raddr: Address, vaddr: Sequence[Address]) -> None:
    """Raises: Fault if an IPv6 packet of 1280 octets, which every link carries (RFC 8200, 5), would not fit.

    `mtu`: of the way to the back ends, be it the one that a file says or that of the interface, octets.
    """
    least = _IPV6_MINIMUM_MTU + (20 if raddr.version == 4 else 40)
    if mtu < least and any(virtual.version == 6 for virtual in vaddr):
        raise Fault(f"{mtu} is less than {least}, which IPv6 in a tunnel over IPv{raddr.version} needs", ("mtu", 0))


def check_longer(longer: tuple[str, float], shorter: tuple[str, float]) -> None:
    """Raises: Fault unless the first key's time is greater than the second's (both in seconds)."""
    if longer[1] <= shorter[1]:
        reason = f"{longer[0]} ({longer[1]:g} s) must be longer than {shorter[0]} ({shorter[1]:g} s)"
        raise Fault(reason, (longer[0], 0), (shorter[0], 0))


def check_differ(one: tuple[str, int], other: tuple[str, int]) -> None:
    """Raises: Fault if the two keys have the same value."""
    if one[1] == other[1]:
        raise Fault(f"{one[0]} and {other[0]} must differ", (one[0], 0), (other[0], 0))
