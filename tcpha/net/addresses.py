"""Addresses of this host's interfaces: which there are, one put on, one taken off. Knows nothing of whose they are."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tcpha.errors import EdgeError

_IFA_F_NODAD = 0x02
_FOREVER_S = 0xFFFFFFFF
_GONE = (errno.ENODEV, errno.EADDRNOTAVAIL)  # the interface or the address went away by itself


def exists(iface: str) -> bool:
    """Is there such an interface?"""
    try:
        socket.if_nametoindex(iface)
    except OSError:
        return False
    return True


def held() -> dict[IPv4Address | IPv6Address, set[str]]:
    """Return every address of this host with the interfaces that hold it."""
    found: dict[IPv4Address | IPv6Address, set[str]] = {}
    with IPRoute() as route:
        for entry in route.get_addr():
            addr = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
            if addr is not None:
                found.setdefault(ip_address(addr), set()).add(socket.if_indextoname(entry["index"]))
    return found


def add(iface: str, addr: IPv4Address | IPv6Address) -> None:
    """Put an address of its own, /32 or /128, on an interface. Raises: EdgeError."""
    index = socket.if_nametoindex(iface)
    try:
        with IPRoute() as route:
            if addr.version == 4:
                route.addr("add", index=index, address=str(addr), prefixlen=32)
                return
            # Deprecated (RFC 4862, 5.5.4): answered, but never chosen as the source of this host's own connections.
            route.addr(
                "add",
                index=index,
                address=str(addr),
                prefixlen=128,
                flags=_IFA_F_NODAD,
                preferred_lft=0,
                valid_lft=_FOREVER_S,
            )
    except NetlinkError as error:
        raise EdgeError(f"{addr} cannot be put on {iface}: {error}") from error


def remove(iface: str, addr: str) -> None:
    """Take such an address off, if it is still there. Raises: EdgeError."""
    if not exists(iface):
        return
    prefix = 32 if ip_address(addr).version == 4 else 128
    try:
        with IPRoute() as route:
            route.addr("del", index=socket.if_nametoindex(iface), address=addr, prefixlen=prefix)
    except (NetlinkError, OSError) as error:
        if not isinstance(error, NetlinkError) or error.code not in _GONE:
            raise EdgeError(f"{addr} cannot be taken off {iface}: {error}") from error
