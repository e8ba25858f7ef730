"""What a lab was asked to be, written into its directory so that a later process finds it. Pure but for that file.

Must not know how it is built. A lab whose blueprint is lost can still be entered and taken down, but not repaired.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NGINX = "nginx"
_FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The choices of `up` that outlive it."""

    backends: int
    server: str | None
    """`nginx`: the lab's own; None: no server; else a command line."""
    documents: str
    """The directory of the documents that are served."""

    def write(self, directory: Path) -> None:
        """Put it into the directory of its lab."""
        (directory / _FILE).write_text(json.dumps(asdict(self)) + "\n")


def read(directory: Path) -> Blueprint | None:
    """The blueprint in the directory of a lab; None if it is lost or unreadable."""
    try:
        return Blueprint(**json.loads((directory / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
