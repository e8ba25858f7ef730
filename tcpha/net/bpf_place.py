"""Whether programs could stand at an interface and outlive their process: found out without putting anything there.

Knows nothing of what they do. What only loading them tells, `obstacle` of `bpf_adopter` and `bpf_forwarder` tells.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.net import pins
from tcpha.net.bpf_syscall import Command, call, holds

_CAP_SYS_ADMIN = 21
_TCX_INGRESS = 46
_QUERY_ATTR = struct.Struct("=IIIIQI")  # interface, attach type, two flags, room for program ids, how many


def no_way_in(iface: str) -> str | None:
    """Why nothing comes to programs at an interface; None if something may."""
    return "lo is the loopback interface, and no client's packet comes by it: set `iface`" if iface == "lo" else None


def obstacle_at(iface: str, role: str, state: Path) -> str | None:
    """Why programs could not stand at `iface`, or leave nothing behind, in words; None if nothing speaks against it."""
    if (reason := no_way_in(iface)) is not None:
        return reason
    if all(pins.bpffs_of(place) is None for place in pins.places(role, state)) and not holds(_CAP_SYS_ADMIN):
        return f"no bpf file system at {pins.SHARED}, and CAP_SYS_ADMIN missing to mount another"
    try:
        _ask_for_programs(iface)
    except EdgeError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EINVAL:
            return f"this kernel has no tcx at {iface}: it is older than Linux 6.6"
        return str(error)
    return None


def _ask_for_programs(iface: str) -> None:
    """Raises: EdgeError where the kernel cannot say which programs of tcx are there; EINVAL where it knows no tcx."""
    try:
        index = socket.if_nametoindex(iface)
    except OSError as error:
        raise EdgeError(f"there is no interface {iface}") from error
    ids = ctypes.create_string_buffer(64)
    attr = _QUERY_ATTR.pack(index, _TCX_INGRESS, 0, 0, ctypes.addressof(ids), 16)
    try:
        call(Command.PROG_QUERY, ctypes.create_string_buffer(attr, 64), iface)
    except EdgeError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENOSPC:
            raise  # there are more than the room is for
