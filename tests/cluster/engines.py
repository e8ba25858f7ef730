"""Which engines carry the packets of the labs that tests bring up, Python's, the kernel's, or one of each; and on which
cables.

`TCPHA_ENGINES`, `TCPHA_OFFLOADS` (on or off) and `TCPHA_MTU` (octets) say so for a whole run (`make test-all` runs all
of them, `tests.matrix`); a test that is about one engine names it in its own settings.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

import pytest

from tcpha.lab.addressing import MTU_OCTETS
from tcpha.lab.cables import OFFLOADS, Cables, Offload
from tcpha.lab.configuration import Settings

ENGINES = {
    # name: `accelerate` of the front end, of the back ends
    "python": ("off", "off"),
    "kernel": ("require", "require"),
    "kernel-fe": ("require", "off"),
    "kernel-be": ("off", "require"),
}
CHOSEN = os.environ.get("TCPHA_ENGINES", "python")
CHOSEN_OFFLOADS = {"": None, "on": frozenset(OFFLOADS), "off": frozenset[Offload]()}[
    os.environ.get("TCPHA_OFFLOADS", "")
]
CHOSEN_MTU = os.environ.get("TCPHA_MTU", "")


def with_engines(settings: Settings | None, chosen: str = CHOSEN) -> Settings:
    """Settings with the chosen engines, where they do not name any themselves."""
    wanted = settings or Settings()
    if any(line.startswith("accelerate") for line in (*wanted.both, *wanted.fe, *wanted.be)):
        return wanted
    fe, be = ENGINES[chosen]
    return replace(wanted, fe=(*wanted.fe, f"accelerate = {fe}"), be=(*wanted.be, f"accelerate = {be}"))


def needs_python(role: Literal["fe", "be"], reason: str) -> None:
    """Skip a test that looks at what only Python's engine has, where a run lets the kernel carry packets of a role."""
    if ENGINES[CHOSEN][("fe", "be").index(role)] == "require":
        pytest.skip(f"the kernel carries packets of the {role}: {reason}")


def some_overtake() -> bool:
    """Do packets that the kernel of the front end forwards overtake those that its process does?

    Nothing is lost by it; but of octets that the client repeats, the later copy may come first, and a server's TCP
    refuses the earlier one by its timestamp (PAWSEstab).
    """
    return ENGINES[CHOSEN][0] == "require"


def kernel_adopts() -> bool:
    """Does a back end's kernel make its sockets of HANDOFFs, and not of SYNs that its agent replays?"""
    return ENGINES[CHOSEN][1] == "require"


def link_mtu_octets() -> int:
    """What an interface of a lab that is not routed takes in one packet."""
    return int(CHOSEN_MTU or MTU_OCTETS)


def cables_of(routed: bool = False) -> Cables | None:
    """The chosen ones, None where nothing is chosen. A routed lab's tests are about MTUs of their own."""
    mtu_octets = int(CHOSEN_MTU) if CHOSEN_MTU and not routed else None
    return None if (mtu_octets, CHOSEN_OFFLOADS) == (None, None) else Cables(mtu_octets, CHOSEN_OFFLOADS)
