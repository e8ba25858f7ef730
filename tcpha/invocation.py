"""How a person runs a program of this package: with the interpreter that runs now, wherever it was installed.

Must not know what the programs do.
"""

from __future__ import annotations

import shlex
import sys
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
