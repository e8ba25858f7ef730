"""Where results go: those of full runs to their tracked files, those of partial runs to bench/partial.

Must not know what the results are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tcpha.errors import StartError

FULL: Final = Path(__file__).parent
PARTIAL: Final = FULL / "partial"
"""Not tracked."""


def require_writable(files: Iterable[Path]) -> None:
    """See to it that files can be written, before anything is measured: their directories are made.

    Raises:
        StartError: one cannot be.
    """
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists():
                file.open("r+b").close()
            else:
                tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            raise StartError(f"{file} cannot be written: {error.strerror}") from error
