"""The lab's server of a protocol that no inspector knows: an unmodified Redis. Pure but for finding the program.

Must not know that handoff exists. It keeps everything in memory: each back end has data of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PORT = 6379


def find_program() -> str | None:
    """Path of redis-server; None if it is not installed."""
    return shutil.which("redis-server")


def command(program: str, directory: Path) -> list[str]:
    """Arguments that run it in the foreground on every address of the node, open to all, writing nothing."""
    options = {
        "--port": [str(PORT)],
        "--bind": ["0.0.0.0", "::"],  # noqa: S104 - inside the network namespace of the node
        "--protected-mode": ["no"],
        "--daemonize": ["no"],
        "--save": [""],
        "--appendonly": ["no"],
        "--dir": [str(directory)],
    }
    return [program, *(word for option, values in options.items() for word in (option, *values))]
