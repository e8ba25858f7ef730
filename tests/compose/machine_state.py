"""What must be the same on a machine before and after an engine ran: network, mounts, control groups, programs."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster import host_state
from tests.compose.keeper import CGROUPS, OWN_VIEW, PREFIX

# Not runc: it comes and goes with every health check of whatever runs meanwhile; who keeps a container is its shim.
_PROGRAMS = ("dockerd", "containerd", "containerd-shim", "docker-proxy")


def of_machine() -> dict[str, object]:
    return {
        "network": host_state.of_machine(),
        "bridge filter": _bridge_filter(),
        "mounts": _mounts(),
        "control groups": sorted(str(path) for path in CGROUPS.glob("**/") if "docker" in path.name),
        "own places": {path: sorted(os.listdir(path)) if Path(path).is_dir() else None for path in OWN_VIEW},
        "programs": sorted(_running()),
    }


def _bridge_filter() -> dict[str, str | None]:
    """Whether br_netfilter is there, built in or loaded, and what it does."""
    loaded = Path("/sys/module/br_netfilter")
    settings = {str(path): path.read_text().strip() for path in Path("/proc/sys/net/bridge").glob("*")}
    return {str(loaded): "there" if loaded.exists() else None, **settings}


def _mounts() -> list[str]:
    """What an engine mounts; other programs mount and unmount what they like meanwhile."""
    marks = (*OWN_VIEW, PREFIX, " - overlay ")
    lines = (line.partition(" ")[2] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(line for line in lines if any(mark in line for mark in marks))


def _running() -> list[str]:
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:  # it ended meanwhile
            continue
        if name.startswith(_PROGRAMS):
            names.append(name)
    return names
