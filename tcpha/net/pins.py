"""Where a process pins what has to outlive it in the kernel: a directory of its own in a bpf file system.

Each network namespace, and each role in it, has its own directory at /sys/fs/bpf; without a file system there (a
container, mostly) one is mounted in the directory of the process's state. Either is found again, by a later process or
by who cleans up, without any record. Knows nothing of what is pinned. Light to import: who takes a lab down needs it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import socket
import stat
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path

from tcpha.errors import EdgeError

SHARED = Path("/sys/fs/bpf")
"""Where systemd mounts the bpf file system of a host."""
_SO_NETNS_COOKIE = 71
_MNT_DETACH = 2
_MODE = 0o700
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
"""The kernel writes a space, a tab, a line's end and a backslash so, and all other octets as they are."""
_libc = ctypes.CDLL(None, use_errno=True)

_log = logging.getLogger(__name__)


def directory(role: str, state: Path) -> Path:
    """Return the directory of the calling thread's network namespace, and make it.

    `state`: the process's own directory. Raises: EdgeError if there is no bpf file system and none can be mounted.
    """
    place, beside = places(role, state)
    try:
        if not _is_mounted(SHARED):
            place, mounted = beside, beside.parent
            mounted.mkdir(mode=_MODE, parents=True, exist_ok=True)
            if not _is_mounted(mounted):
                _mount(mounted)
                _warn_of_own_mounts(mounted)
        for each in (place.parent, place):
            each.mkdir(mode=_MODE, exist_ok=True)
            _check_owner(each)
    except OSError as error:
        raise EdgeError(f"nothing can be pinned in {place}: {error.strerror}") from error
    return place


def _check_owner(place: Path) -> None:
    """Who may write there decides about our connections. Raises: EdgeError; OSError."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EdgeError(f"nothing is pinned in {place}: it is no directory of our own that nobody else may write to")


def places(role: str, state: Path) -> tuple[Path, Path]:
    """Return where the directory of the calling thread's network namespace is, or else would be."""
    # Where a file system is mounted only for this the kernel puts files of its own beside the directory.
    return SHARED / "tcpha" / f"{role}-{namespace()}", state / f"pins-{role}" / "tcpha"


def beside(place: Path, at_most: int) -> list[Path]:
    """Return the directories beside one of `places`, so many. Raises: OSError; EdgeError if others may write there."""
    _check_owner(place.parent)
    return [each for each in islice(place.parent.iterdir(), at_most) if each != place and each.is_dir()]


def remove(role: str, state: Path) -> bool:
    """Remove what is pinned, and what was made for it; was there anything? Raises: EdgeError.

    A process that may not unmount leaves its own file system, empty.
    """
    shared, beside = places(role, state)
    own = beside.parent
    try:
        found = clear(shared) | clear(beside)
        if own.exists() and _unmount(own):
            own.rmdir()
        if shared.parent.exists() and not any(shared.parent.iterdir()):
            shared.parent.rmdir()
    except OSError as error:
        raise EdgeError(f"what is pinned in {shared} or {own} cannot be removed: {error.strerror}") from error
    return found


def namespace() -> str:
    """Return what tells the calling thread's network namespace from all others of this boot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            return str(int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder))
        except OSError:  # before Linux 5.14
            return f"inode {os.stat('/proc/thread-self/ns/net').st_ino}"


def bpffs_of(path: Path) -> Path | None:
    """Return where the bpf file system that holds `path` is mounted, None if it is on another one. proc(5)."""
    best: tuple[int, Path | None] = (-1, None)
    parents = {str(parent) for parent in (path.resolve(), *path.resolve().parents)}
    for line in os.fsdecode(_MOUNTS.read_bytes()).split("\n")[:-1]:
        words = line.split(" ")
        place = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), words[4])
        if place in parents and len(place) >= best[0]:
            best = (len(place), Path(place) if words[words.index("-") + 1] == "bpf" else None)
    return best[1]


def _is_mounted(place: Path) -> bool:
    """Is a bpf file system mounted at exactly this place?"""
    return bpffs_of(place) == place.resolve()


def _mount(place: Path) -> None:
    if _libc.mount(b"tcpha", os.fsencode(place), b"bpf", 0, b"mode=0700"):
        code = ctypes.get_errno()
        cure = f" (it takes CAP_SYS_ADMIN; or before: mount -t bpf bpf {SHARED})" if code == errno.EPERM else ""
        raise OSError(code, f"mount of a bpf file system: {os.strerror(code)}{cure}")


def _warn_of_own_mounts(place: Path) -> None:
    """Where nobody else sees the mounts of this process they go with it, and what is pinned with them."""
    for other in (1, os.getppid()):
        with suppress(OSError):  # not everybody may look at process 1
            if os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{other}/ns/mnt"):
                _log.warning("what is pinned in %s ends with this process: its mount namespace is its own", place)
            return


def _unmount(place: Path) -> bool:
    """Take a file system away; is there none now? Raises: OSError."""
    if _is_mounted(place) and _libc.umount2(os.fsencode(place), _MNT_DETACH):
        code = ctypes.get_errno()
        if code != errno.EPERM:
            raise OSError(code, os.strerror(code))
        return False
    return True


def clear(place: Path) -> bool:
    """Remove a directory of pins, and with it what nothing else holds; was there any? Raises: OSError."""
    if not place.is_dir():
        return False
    pinned = list(place.iterdir())
    for each in pinned:
        each.unlink()
    place.rmdir()
    return bool(pinned)
