"""Kernel settings below net/, of the present network namespace.

/proc/sys/net shows the namespace of the task that opens a file in it, whatever mounted it, so nothing needs to be
switched. Names are paths below /proc/sys/net, with slashes: an interface's name may hold a dot ("eth0.7"), which would
be ambiguous in the dotted form. proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tcpha.errors import EdgeError

_ROOT = Path("/proc/sys/net")
_MOST_OCTETS = 4096


def read(name: str) -> str:
    """Return the setting, for instance of ``ipv4/conf/eth0/arp_ignore``.

    Raises: EdgeError if there is none, or it cannot be read.
    """
    try:
        # Not by a file object: some are read for as long as a process runs.
        descriptor = os.open(f"{_ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MOST_OCTETS).decode().strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise EdgeError(f"/proc/sys/net/{name}: {error.strerror}") from error


def may_write(name: str) -> bool:
    """May this process change the setting? Not in a container, most often."""
    return os.access(_ROOT / name, os.W_OK)


def write(name: str, value: str) -> None:
    """Change the setting.

    Raises: EdgeError if there is none, or it cannot be written (in a container /proc/sys may be read-only).
    """
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        raise EdgeError(f"/proc/sys/net/{name}: {value} cannot be written: {error.strerror}") from error


class Sysctls:
    """Changes settings and remembers what they were before the first change.

    originals: by name, shared with the caller, who keeps them where they outlive the process; `before_write` is called
    when an original was added and before the setting is written.
    """

    def __init__(self, originals: dict[str, str], before_write: Callable[[], None]) -> None:
        self._originals = originals
        self._before_write = before_write

    def change(self, name: str, value: str) -> None:
        """Set to `value`; nothing is written or remembered if it is that already.

        Raises: EdgeError.
        """
        present = read(name)
        if present == value:
            return
        if name not in self._originals:
            self._originals[name] = present
            self._before_write()
        write(name, value)

    def restore(self, name: str) -> None:
        """Write the original back and forget it; the setting of an interface that is gone is only forgotten.

        Raises: EdgeError if it cannot be written; then it is still remembered.
        """
        if (_ROOT / name).exists():
            write(name, self._originals[name])
        del self._originals[name]
