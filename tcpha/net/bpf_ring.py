"""A ring buffer of the kernel's, read where it lies (BPF_MAP_TYPE_RINGBUF, Documentation/bpf/ringbuf.rst).

Its descriptor becomes readable when a record comes. Layout: a page with the reader's position, a page with the
writer's, then the records, mapped twice in a row so that none is cut.
"""

from __future__ import annotations

import mmap
import struct

from tcpha.errors import EdgeError
from tcpha.net.bpf import BpfMap

_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")
_HEADER_OCTETS = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class RingReader:
    """The one reader of a ring buffer."""

    def __init__(self, ring: BpfMap) -> None:
        """Raises: EdgeError."""
        octets = ring.shape.max_entries
        try:
            self._read = mmap.mmap(ring.fd, mmap.PAGESIZE)
            self._written = mmap.mmap(ring.fd, mmap.PAGESIZE + 2 * octets, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
        except OSError as error:
            raise EdgeError(f"ring buffer {ring.name}: {error}") from error
        self._fd = ring.fd
        self._mask = octets - 1

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when records wait."""
        return self._fd

    def read(self, limit: int = 256) -> list[bytes]:
        """Return at most `limit` records, oldest first."""
        records: list[bytes] = []
        (at,) = _POSITION.unpack_from(self._read)
        (end,) = _POSITION.unpack_from(self._written)
        written, mask, page = self._written, self._mask, mmap.PAGESIZE
        while at < end and len(records) < limit:
            start = page + (at & mask)
            (length,) = _LENGTH.unpack_from(written, start)
            if length & _BUSY:
                break
            start += _HEADER_OCTETS
            octets = length & ~_DISCARDED
            if octets == length:
                records.append(written[start : start + octets])
            at += _HEADER_OCTETS + octets + 7 & ~7
        _POSITION.pack_into(self._read, 0, at)
        return records

    def close(self) -> None:
        """Let go of the memory; the map stays."""
        self._read.close()
        self._written.close()
