"""Named network namespaces of this machine: make, enter, remove. network_namespaces(7), ip-netns(8).

Must not know what a lab is. A name is a file in /run/netns on which the namespace is mounted, as `ip netns` does it, so
that `ip netns` and `nsenter --net` work on a lab. Neither /sys nor any other mount is changed by entering one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Identity = tuple[int, int]
"""Device and inode of a namespace: equal for the same namespace only."""

_DIRECTORY = Path("/run/netns")
_OWN = Path("/proc/thread-self/ns/net")
_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def create(name: str) -> None:
    """Make a network namespace and give it a name.

    Raises:
        OSError: the name is taken, or this process may not make one.
    """
    path = _DIRECTORY / name
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    _share_directory()
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    _in_a_thread_of_its_own(lambda: _mount_own(path))


def remove(name: str) -> None:
    """Take the name away, whether a namespace is mounted on it or not; the namespace ends with its last process.

    Raises:
        OSError: it cannot be removed.
    """
    path = _DIRECTORY / name
    _unmount_all(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _in_a_thread_of_its_own(lambda: _unlink_where_nothing_is_mounted(name))


def names() -> tuple[str, ...]:
    """Every name in use on this machine, sorted."""
    with suppress(FileNotFoundError):
        return tuple(sorted(os.listdir(_DIRECTORY)))
    return ()


def identity(name: str) -> Identity | None:
    """Identity of a named namespace; None if nothing, or no namespace, bears the name."""
    found = _identity_at(_DIRECTORY / name)
    own = _identity_at(_OWN)
    return found if found and own and found[0] == own[0] else None


def identity_of_process(pid: int) -> Identity | None:
    """Identity of the namespace a process lives in; None for one that is gone, a zombie, or hidden."""
    return _identity_at(Path(f"/proc/{pid}/ns/net"))


def own_identity() -> Identity | None:
    """Identity of the namespace the calling thread is in."""
    return _identity_at(_OWN)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the calling thread inside a namespace, and only this thread.

    Sockets opened meanwhile belong to it for good; processes started meanwhile are born there.

    Raises:
        OSError: there is no such namespace, or it may not be entered.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _enter(_DIRECTORY / name)
            yield
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "setns")
    finally:
        os.close(home)


def fault() -> str | None:
    """Why no namespaces can be made here, in words for a person; None if they can be."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        _in_a_thread_of_its_own(lambda: _check(_libc.unshare(_CLONE_NEWNET), "unshare"))
    except OSError as error:
        return f"network namespaces are not available: {error.strerror}"
    return None


def _enter(path: Path) -> None:
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(target, _CLONE_NEWNET), str(path))
    finally:
        os.close(target)


def _mount_own(path: Path) -> None:
    _check(_libc.unshare(_CLONE_NEWNET), "unshare")
    _check(_libc.mount(os.fsencode(_OWN), os.fsencode(path), b"none", _MS_BIND, None), str(path))


def _share_directory() -> None:
    """Make the directory a shared mount, as the first `ip netns add` since boot does, and under the same lock.

    Who did so later would mount the directory over the names that are mounted in it by then. Where it is forbidden
    they are mounted all the same: `remove` finds them.
    """
    lock = os.open(_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = os.fsencode(_DIRECTORY)
        if _libc.mount(b"none", directory, b"none", _MS_SHARED | _MS_REC, None) == 0:
            return
        if ctypes.get_errno() == errno.EINVAL:  # no mount yet
            _libc.mount(directory, directory, b"none", _MS_BIND | _MS_REC, None)
            _libc.mount(b"none", directory, b"none", _MS_SHARED | _MS_REC, None)
    finally:
        os.close(lock)


def _unmount_all(path: Path) -> None:
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass


def _unlink_where_nothing_is_mounted(name: str) -> None:
    """Unlink a name whose mount is hidden by one of the directory, or comes only now; with it go all its mounts.

    What is a mount point in the caller's mount namespace cannot be unlinked (unlink(2), EBUSY), what is one in others
    can. So the thread takes a copy for itself, in which the directory and the name are mounted no more.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "/")
    directory = os.open(_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _unmount_all(_DIRECTORY)
        _unmount_all(_DIRECTORY / name)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)


def _identity_at(path: Path) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _in_a_thread_of_its_own(work: Callable[[], None]) -> None:
    """A namespace that is unshared belongs to the thread: it ends with it, and nobody has to find the way home."""
    faults: list[OSError] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            faults.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if faults:
        raise faults[0]


def _check(status: int, what: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
