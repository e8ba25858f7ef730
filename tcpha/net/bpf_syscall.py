"""The system call bpf(2), and in words why it failed: what is missing here, so that a process can go on without."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TypeVar

from tcpha.errors import EdgeError

ATTR_OCTETS = 152
"""As many of union bpf_attr as are used; the kernel takes what it does not get for zero."""
CAP_PERFMON = 38
_CAP_SYS_ADMIN = 21
_CAPABILITIES = {12: "CAP_NET_ADMIN", 39: "CAP_BPF"}
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361}
_ATTEMPTS = 5
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM)
"""What may be otherwise a moment later: a signal came, or a burst needed the memory."""
_PAUSES_S = (0.1, 0.4)
"""Before what failed by such an error is tried again: what calls for it three times at a start waits for 1.5 s."""

ResultT = TypeVar("ResultT")

_libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """enum bpf_cmd, as far as it is used."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    ENABLE_STATS = 32


class PreparedCall:
    """The system call with attributes that stay where they are: for what is done very often."""

    def __init__(self, command: Command, attr: ctypes.Array[ctypes.c_char], what: str) -> None:
        """Raises: EdgeError on a machine for which there are no programs."""
        self._attr = attr  # kept: the kernel reads it at each call
        self._what = f"bpf {command.name.lower()}, {what}"
        self._arguments = (
            ctypes.c_long(_syscall_number()), ctypes.c_long(command), ctypes.c_void_p(ctypes.addressof(attr)),
            ctypes.c_long(ctypes.sizeof(attr)),
        )  # fmt: skip

    def __call__(self, excused: int) -> bool:
        """Did it succeed? False: no, for this error number. Raises: EdgeError for any other."""
        if _libc.syscall(*self._arguments) >= 0:
            return True
        code = ctypes.get_errno()
        if code == excused:
            return False
        error = OSError(code, os.strerror(code))
        raise EdgeError(f"{self._what}: {_reason(error)}") from error


def call(command: Command, attr: bytes | ctypes.Array[ctypes.c_char], what: str) -> int:
    """Make the system call. Raises: EdgeError, chained to the OSError, that says what of `what` failed and why."""
    number = _syscall_number()
    buffer = attr if isinstance(attr, ctypes.Array) else ctypes.create_string_buffer(attr, ATTR_OCTETS)
    for _ in range(_ATTEMPTS):
        result = int(_libc.syscall(number, int(command), buffer, ctypes.sizeof(buffer)))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    error = OSError(code, os.strerror(code))
    raise EdgeError(f"bpf {command.name.lower()}, {what}: {_reason(error)}") from error


def tried_again(attempt: Callable[[], ResultT]) -> ResultT:
    """Return what `attempt` does. Where it fails by what may pass it is tried twice more, after 0.1 s and 0.4 s.

    For what is done once, at a start, and would decide about what an earlier process left. Raises: EdgeError.
    """
    for pause_s in _PAUSES_S:
        try:
            return attempt()
        except EdgeError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _PASSING:
                raise
        time.sleep(pause_s)
    return attempt()


@cache
def _syscall_number() -> int:
    number = _SYSCALL.get(os.uname().machine)
    if number is None or sys.byteorder != "little":
        raise EdgeError(f"no programs for the kernel of this machine ({os.uname().machine})")
    return number


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "this kernel is built without bpf(2)"
    if error.errno == errno.E2BIG:
        return "no room (E2BIG)"
    if error.errno != errno.EPERM:
        return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
    if missing := _missing_capabilities():
        return f"not permitted: {' and '.join(missing)} missing"
    try:
        if "[confidentiality]" in _LOCKDOWN.read_text():
            return "not permitted: the kernel is locked down (confidentiality)"
    except OSError:
        pass
    return "not permitted (EPERM): a security module or a container forbids bpf(2)"


def _missing_capabilities() -> list[str]:
    return [name for bit, name in _CAPABILITIES.items() if not holds(bit)]


def holds(capability: int) -> bool:
    """Has the calling thread this capability, or the one that holds it?"""
    status = Path("/proc/thread-self/status").read_text()
    held = int(status.partition("CapEff:")[2].split(maxsplit=1)[0], 16)
    return bool(held & (1 << capability | 1 << _CAP_SYS_ADMIN))
