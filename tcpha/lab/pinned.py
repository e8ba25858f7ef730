"""What the engines of a lab pinned in the kernel: removed with the lab, whoever was killed before.

Must not know what is pinned. To be called while the namespaces stand: they are part of the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tcpha.errors import EdgeError, StartError
from tcpha.lab import namespaces
from tcpha.net import pins

_ROLES = ("fe", "be")


def remove(namespace_of: Iterable[tuple[str, str]], directory: Path) -> None:
    """Remove it for nodes and their namespaces; `directory` is the lab's. Raises: StartError."""
    for node, namespace in namespace_of:
        with suppress(OSError), namespaces.inside(namespace):  # a name without a namespace holds nothing
            for role in _ROLES:
                try:
                    pins.remove(role, directory / node / "state")
                except EdgeError as error:
                    raise StartError(f"{node}: {error}") from error
