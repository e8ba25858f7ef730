"""Programs at the ingress and egress of an interface: as a tcx link (Linux 6.6), else as a filter of clsact.

A link ends with the process, unless it is pinned; a filter stays until it is removed. tcx runs before clsact, and
programs of others there stay as they are. Both know a program only by its descriptor.

Where links of an earlier process may be pinned, and what they do has to go on until others do it: `attach_for` each
place, then `pin_all`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tcpha.errors import EdgeError
from tcpha.net.bpf import BpfProgram, Owned
from tcpha.net.bpf_syscall import Command, call

Direction = Literal["ingress", "egress"]

_TCX = {"ingress": 46, "egress": 47}
_LINK_ATTR = struct.Struct("=IIII")  # program, interface, attach type, flags
_UPDATE_ATTR = struct.Struct("=IIII")  # link, program, flags, the program that must be there
_PATH_ATTR = struct.Struct("=QII")
_INFO_ATTR = struct.Struct("=IIQ")
_LINK_INFO = struct.Struct("=III4xII")  # type, id, program; interface, attach type
_CLSACT_PARENT = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_FILTER_PRIORITY = 0x7463  # ours: "tc"
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)
_NEW = "-new"  # a dot may be in no name of a bpf file system


class Link(Owned):
    """A tcx link: the program runs for as long as this, or a pin, holds it."""

    @classmethod
    def pinned(cls, place: Path) -> Link | None:
        """Open a pinned link, None if there is none. Raises: EdgeError."""
        path = ctypes.create_string_buffer(os.fsencode(place))
        try:
            return cls(call(Command.OBJ_GET, _PATH_ATTR.pack(ctypes.addressof(path), 0, 0), str(place)), str(place))
        except EdgeError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def iface_index(self) -> int:
        """Return the number of the interface, 0 if that is gone. Raises: EdgeError."""
        info = ctypes.create_string_buffer(_LINK_INFO.size)
        attr = _INFO_ATTR.pack(self.fd, _LINK_INFO.size, ctypes.addressof(info))
        call(Command.OBJ_GET_INFO_BY_FD, attr, self.name)
        return int(_LINK_INFO.unpack(info.raw)[3])

    def replace(self, program: BpfProgram) -> None:
        """Let another program run here from now on; no packet misses both. Raises: EdgeError."""
        call(Command.LINK_UPDATE, _UPDATE_ATTR.pack(self.fd, program.fd, 0, 0), self.name)

    def detach(self) -> None:
        """End it, unless it is pinned."""
        self.close()


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of clsact."""

    iface: str
    direction: Direction

    def detach(self) -> None:
        """Remove the filter; clsact stays, others may use it. Raises: EdgeError."""
        with IPRoute() as route:
            try:
                route.tc(
                    "del-filter", "bpf", socket.if_nametoindex(self.iface), parent=_CLSACT_PARENT[self.direction],
                    prio=_FILTER_PRIORITY,
                )  # fmt: skip
            except (NetlinkError, OSError) as error:
                code = error.code if isinstance(error, NetlinkError) else error.errno
                if code not in _GONE:
                    raise EdgeError(f"the filter at {self.iface} cannot be removed: {error}") from error


def attach(program: BpfProgram, iface: str, direction: Direction = "ingress") -> Link | Filter:
    """Let a program see what enters or leaves an interface of the present network namespace. Raises: EdgeError."""
    index = _ethernet_index(iface)
    try:
        return attach_tcx(program, iface, index, direction)
    except EdgeError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return attach_clsact(program, iface, index, direction)


def attach_for(place: Path, program: BpfProgram, iface: str, direction: Direction) -> Link:
    """The same by a link that can be pinned at `place`. Raises: EdgeError, with nothing changed.

    The one that is pinned there gets the program without a gap; where that one is at another interface it goes on, too,
    until `pin_all`.
    """
    found = Link.pinned(place)
    if found is not None:
        try:
            if found.iface_index() == _ethernet_index(iface):
                found.replace(program)
                return found
        except BaseException:
            found.close()
            raise
        found.close()
    attached = attach(program, iface, direction)
    if not isinstance(attached, Link):
        attached.detach()
        raise EdgeError(f"this kernel has no tcx at {iface}: what is there could not outlive the process")
    return attached


def pin_all(links: Collection[tuple[Link, Path]]) -> None:
    """Pin them, one after the other; what is pinned there ends, unless it is the same link.

    Raises: EdgeError, with no pin changed where a link cannot be pinned at all: first each gets a name beside its own.
    Where one cannot be renamed then, those before it are pinned.
    """
    fresh = [place.with_name(place.name + _NEW) for _, place in links]
    try:
        try:
            for (link, _), new in zip(links, fresh, strict=True):
                new.unlink(missing_ok=True)  # of a process that was killed here
                link.pin(new)
            for (_, place), new in zip(links, fresh, strict=True):
                new.replace(place)
        except BaseException:
            for new in fresh:
                new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EdgeError(f"links cannot be pinned in {fresh[0].parent}: {error.strerror}") from error


def attach_tcx(program: BpfProgram, iface: str, index: int, direction: Direction) -> Link:
    """The same as a link of tcx. Raises: EdgeError, chained to EINVAL where the kernel has none."""
    attr = _LINK_ATTR.pack(program.fd, index, _TCX[direction], 0)
    return Link(call(Command.LINK_CREATE, attr, f"{program.name} at {iface}"), f"{program.name}@{iface}")


def attach_clsact(program: BpfProgram, iface: str, index: int, direction: Direction) -> Filter:
    """The same as a filter; it takes the place of an earlier one of ours. Raises: EdgeError."""
    with IPRoute() as route:
        try:
            route.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise EdgeError(f"{iface} takes no clsact: {error}") from error
        try:
            route.tc(
                "replace-filter", "bpf", index, fd=program.fd, name=program.name, direct_action=True,
                parent=_CLSACT_PARENT[direction], prio=_FILTER_PRIORITY, handle=1, classid=1,
            )  # fmt: skip
        except NetlinkError as error:
            raise EdgeError(f"{iface} takes no filter: {error}") from error
    return Filter(iface, direction)


def _ethernet_index(iface: str) -> int:
    """Return the number of an interface whose packets begin with an Ethernet header. Raises: EdgeError."""
    try:
        index = socket.if_nametoindex(iface)
    except OSError as error:
        raise EdgeError(f"there is no interface {iface}") from error
    with IPRoute() as route:
        kind = route.get_links(index)[0]["ifi_type"]
    if kind not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
        raise EdgeError(f"{iface} is no Ethernet: packets there have no header that the programs know")
    return index
