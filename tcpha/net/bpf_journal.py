"""What the back end's programs write down for the agent: entries of one length, one behind the other, read as they lie.

A program takes a place, writes, and says that it has written; so what is between taken and written may be half an
entry, and is read the next time. Layout: arrays that are mapped (BPF_F_MMAPABLE), and `progress`
(tcpha.kernel.be_maps). Knows nothing of what the entries mean.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import PROGRESS, RUNG_AT, STARTED_AND_ENDED, STARTED_AND_ENDED_AT
from tcpha.net.bpf import BpfMap

_READ = struct.Struct("=Q")  # the last of PROGRESS, and the only one that is ours to write


@dataclass(frozen=True, slots=True)
class Piece:
    """Entries that follow one another in a journal; `place`: of the first, in the journal."""

    octets: bytes
    place: int


class MappedArray:
    """An array whose memory is shared with the programs."""

    def __init__(self, of: BpfMap) -> None:
        """Raises: EdgeError."""
        self.memory = map_memory(of)
        self._octets = of.shape.value_octets + 7 & ~7

    def read_at(self, place: int, count: int) -> bytes:
        """Return so many entries from a place on."""
        return self.memory[place * self._octets : (place + count) * self._octets]

    def close(self) -> None:
        """Let go of the memory; the map stays."""
        self.memory.close()


class Progress(MappedArray):
    """How far all journals are; the memory is shared with the programs."""

    def look(self) -> None:
        """From now on the next entry wakes the agent again."""
        self.memory[RUNG_AT : RUNG_AT + 8] = bytes(8)

    def live(self) -> int:
        """Return how many connections have been seen to begin, and not to end."""
        started, ended = STARTED_AND_ENDED.unpack_from(self.memory, STARTED_AND_ENDED_AT)
        return int(started) - int(ended)


class Journal(MappedArray):
    """One journal, of which there is one reader. Its entries have a multiple of 8 octets."""

    def __init__(self, entries: BpfMap, progress: Progress, number: int) -> None:
        """`number`: which one it is in `progress`. Raises: EdgeError."""
        super().__init__(entries)
        self._size = entries.shape.max_entries
        self._progress = progress.memory
        self._at = number * PROGRESS.size

    def has_more(self) -> bool:
        """Was something written since it was read?"""
        _, written, read = PROGRESS.unpack_from(self._progress, self._at)
        return bool(written != read)

    def end(self) -> int:
        """Return how many have been written: the number of the one that follows them."""
        return int(PROGRESS.unpack_from(self._progress, self._at)[1])

    def read(self, end: int | None = None) -> tuple[list[Piece], int]:
        """Return what was written since the last call, oldest first, and how many entries were overwritten before.

        Nothing while an entry is being written. `end`: only those before the entry of this number.
        """
        # In this order: what was written before all was taken is whole. The programs see to the order of what they
        # write; on this side there is more between two reads than a processor reorders.
        _, written, read = PROGRESS.unpack_from(self._progress, self._at)
        taken, _, _ = PROGRESS.unpack_from(self._progress, self._at)
        end = written if end is None else min(end, written)
        if taken != written or end <= read:
            return [], 0
        lost = min(max(written - read - self._size, 0), end - read)
        first, count = (read + lost) % self._size, end - read - lost
        until_wrap = min(count, self._size - first)
        pieces = [self._piece(place, some) for place, some in ((first, until_wrap), (0, count - until_wrap)) if some]
        _READ.pack_into(self._progress, self._at + PROGRESS.size - _READ.size, end)
        return pieces, lost

    def _piece(self, first: int, count: int) -> Piece:
        return Piece(self.read_at(first, count), first)


def map_memory(of: BpfMap) -> mmap.mmap:
    """Return the memory of an array that may be mapped. Raises: EdgeError."""
    octets = (of.shape.value_octets + 7 & ~7) * of.shape.max_entries
    try:
        return mmap.mmap(of.fd, octets)
    except OSError as error:
        raise EdgeError(f"map {of.name}: {error}") from error
