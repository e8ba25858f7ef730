"""What a lab was asked to be, written into its directory so that a later process finds it. Pure but for that file.

Must not know how it is built. A lab whose blueprint is lost can still be entered and taken down, but not repaired.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tcpha.errors import StartError
from tcpha.lab import addressing
from tcpha.lab.addressing import MTU_OCTETS, Plan

NGINX = "nginx"
_FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The choices of `up` that outlive it."""

    backends: int
    server: str | None
    """`nginx`: the lab's own; None: no server; else a command line."""
    documents: str = ""
    """The directory of the documents that are served."""
    routed: bool = False
    """Whether a router joins segments of the front end, the back ends and the client; False: they share one."""
    client_mtu_octets: int = MTU_OCTETS
    """The longest packet that the router sends towards the client."""
    backend_mtu_octets: int = MTU_OCTETS
    """The longest packet that the router sends towards the back ends."""
    protocols: bool = False
    """Whether the back ends speak more than HTTP/1: TLS, HTTP/2, WebSocket, and what no inspector knows."""

    def plan(self) -> Plan:
        """Every address of such a lab. Raises StartError if there can be none."""
        return addressing.plan(
            self.backends,
            routed=self.routed,
            client_mtu_octets=self.client_mtu_octets,
            backend_mtu_octets=self.backend_mtu_octets,
        )

    def write(self, directory: Path) -> None:
        """Put it into the directory of its lab."""
        (directory / _FILE).write_text(json.dumps(asdict(self)) + "\n")


def read(directory: Path) -> Blueprint | None:
    """The blueprint in the directory of a lab; None if it is lost, unreadable, or of a lab that cannot be."""
    try:
        found = Blueprint(**json.loads((directory / _FILE).read_text()))
        found.plan()
    except (OSError, ValueError, TypeError, StartError):
        return None
    return found
