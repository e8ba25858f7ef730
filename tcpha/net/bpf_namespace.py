"""What is pinned for a network namespace that is gone: told from all that lives by its loopback interface, and removed.

Pins know nothing of namespaces: what a process has pinned stays when its namespace goes, and nobody else looks there.
That the interface of a pinned link is gone proves nothing, for a process may live without it, or one come that makes it
anew. But a namespace's loopback interface can neither be removed nor moved: it goes with the namespace, and that has
neither processes nor sockets any more. So a program that does nothing stands there, by a link pinned beside the others.
Where there is none, or none that can be asked, nothing is removed.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.net import pins
from tcpha.net.bpf import BpfProgram, ProgramType
from tcpha.net.bpf_attach import Link, attach_tcx

PIN = "namespace"
LOOKED_AT = 1024
"""Directories at a time, at most."""

_LOOPBACK, _LOOPBACK_INDEX = "lo", 1
_GO_ON = bytes.fromhex("b7000000ffffffff 9500000000000000")
"""r0 = TC_ACT_UNSPEC; exit."""

_log = logging.getLogger(__name__)


def attach_mark() -> Link:
    """Attach what is to be pinned as `PIN` for the calling thread's network namespace. Raises: EdgeError."""
    with BpfProgram.load(PIN, ProgramType.SCHED_CLS, _GO_ON, "GPL") as program:
        return attach_tcx(program, _LOOPBACK, _LOOPBACK_INDEX, "ingress")


def remove_left(place: Path) -> int:
    """Remove the directories beside `place`, of either role, whose namespaces are gone; return how many were.

    What cannot be asked or removed stays.
    """
    removed = 0
    with suppress(OSError, EdgeError):
        for each in pins.beside(place, LOOKED_AT):
            with suppress(OSError, EdgeError):
                removed += _is_left(each) and _remove(each)
    if removed:
        _log.info("removed what was pinned for network namespaces that are gone: %d", removed)
    return removed


def _is_left(place: Path) -> bool:
    mark = Link.pinned(place / PIN)
    if mark is None:
        return False
    with mark:
        return mark.iface_index() == 0


def _remove(place: Path) -> bool:
    for each in place.iterdir():
        if each.name != PIN:  # the last one: who is killed here leaves what can be judged
            each.unlink()
    return pins.clear(place)
