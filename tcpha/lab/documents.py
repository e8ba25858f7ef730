"""The documents every server of a lab serves: random octets, so that one misplaced octet shows in a digest.

Must not know which server reads them. Sizes are decimal, in octets: /0 is empty, /1 a single octet, /1k 1000, /100k
100000, /1m 1000000, /10m 10000000, /100m 100000000. Each has twins with the same octets, /1k.jpg and /1k.html.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SIZES_OCTETS = {
    "0": 0,
    "1": 1,
    "1k": 1_000,
    "100k": 100_000,
    "1m": 1_000_000,
    "10m": 10_000_000,
    "100m": 100_000_000,
}
TWINS = (".jpg", ".html")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made below it
_PIECE_OCTETS = 1 << 20
_HEADROOM_OCTETS = 64 << 20


def make(directory: Path) -> None:
    """Write all documents into a new directory, the twins as hard links.

    Raises:
        OSError: it exists, or there is no room.
    """
    directory.mkdir(parents=True)
    for name, size_octets in SIZES_OCTETS.items():
        document = directory / name
        with document.open("wb") as file:
            for offset in range(0, size_octets, _PIECE_OCTETS):
                file.write(os.urandom(min(_PIECE_OCTETS, size_octets - offset)))
        for twin in TWINS:
            document.with_name(name + twin).hardlink_to(document)


def remove(directory: Path) -> None:
    """Remove the documents; nothing happens where there are none."""
    shutil.rmtree(directory, ignore_errors=True)


def directory_in_memory(lab: str) -> Path:
    """Where the documents of a lab are if they are in memory."""
    return _SHARED_MEMORY / f"tcpha-lab-{lab}"


def choose_directory(lab: str, otherwise: Path) -> Path:
    """In memory if /dev/shm is a tmpfs with room for them, else `otherwise`."""
    need_octets = sum(SIZES_OCTETS.values()) + _HEADROOM_OCTETS
    if _is_tmpfs(_SHARED_MEMORY) and shutil.disk_usage(_SHARED_MEMORY).free >= need_octets:
        return directory_in_memory(lab)
    return otherwise


def _is_tmpfs(path: Path) -> bool:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return any(fields[1:3] == [str(path), "tmpfs"] for fields in mounts)
