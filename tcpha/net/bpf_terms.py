"""What a process that pins notes down beside its pins, so that the next one knows whether it can go on with them.

A map is found again by its shape. Whether what lies in it still means the same, and which mark the sockets bear that it
knows of, the shape does not tell. A pinned array with one entry does: `Terms`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.net.bpf import BpfMap, MapShape, MapType

_NAME = "terms"
_TERMS = struct.Struct("=II")
_SHAPE = MapShape(MapType.ARRAY, 4, _TERMS.size, 1)
_FIRST = bytes(4)


@dataclass(frozen=True, slots=True)
class Terms:
    """version: of what lies in pinned maps. mark: of the sockets that they know of."""

    version: int
    mark: int


def is_any_pinned(places: Iterable[Path]) -> bool:
    """Is anything in one of these directories? Nobody knows of those that cannot be read."""
    with suppress(OSError):
        return any(any(each.iterdir()) for each in places if each.is_dir())
    return False


def left(pins: Path) -> Terms | None:
    """What was noted down there, if anything. Raises: EdgeError."""
    found = BpfMap.pinned(pins / _NAME, _NAME, _SHAPE)
    if found is None:
        return None
    with found:
        return Terms(*_TERMS.unpack(found.lookup(_FIRST) or bytes(_TERMS.size)))


def agree(pins: Path, terms: Terms) -> None:
    """Go on with what is pinned there, or begin to pin.

    Raises: EdgeError, also where the terms are others, or none were noted down.
    """
    found = left(pins)
    if found == terms:
        return
    if found is not None:
        raise EdgeError(f"{pins}: pinned on other terms ({found}, not {terms})")
    try:
        is_empty = not any(pins.iterdir())
    except OSError as error:
        raise EdgeError(f"{pins}: {error.strerror}") from error
    if not is_empty:
        raise EdgeError(f"{pins}: pinned by another version")
    with BpfMap.create(_NAME, _SHAPE) as noted:
        noted.update(_FIRST, _TERMS.pack(terms.version, terms.mark))
        noted.pin(pins / _NAME)
