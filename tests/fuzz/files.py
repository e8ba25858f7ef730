"""Files that are octets, so that a target needs no file system."""

from __future__ import annotations

import io
from pathlib import PosixPath
from typing import Any


class OctetsFile(PosixPath):
    """A path whose file holds given octets."""

    octets = b""

    @classmethod
    def holding(cls, octets: bytes) -> OctetsFile:
        made = cls("/etc/tcpha/file")
        made.octets = octets
        return made

    def open(self, *_: Any, **__: Any) -> Any:
        return io.BytesIO(self.octets)

    def read_text(self, *_: Any, **__: Any) -> str:
        return self.octets.decode()
