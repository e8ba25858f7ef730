"""How a person runs a program of this package: with which interpreter, and who reads what it prints.

Must not know what the programs do.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def command(program: str) -> str:
    """Return the command line of `program` (``tcpha.lab``), ready to be pasted into a shell.

    An interpreter below the working directory is named from there: ``.venv/bin/python``.
    """
    interpreter = sys.executable or "python3"
    with suppress(ValueError, OSError):  # it is elsewhere, or the directory is gone
        interpreter = str(Path(interpreter).relative_to(Path.cwd()))
    return f"{shlex.quote(interpreter)} -m {program}"


def status_of(program: Callable[[], int]) -> int:
    """Run a program that prints; its exit status, or that of one which SIGPIPE ended if its reader went (`| head`)."""
    try:
        status = program()
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # the interpreter flushes once more
        return 128 + signal.SIGPIPE
    return status
