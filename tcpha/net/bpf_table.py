"""A map that changes with every connection: its system calls are prepared, and many entries are one call.

Keys and values are written into `key` and `value` in place; then `update`, `delete` or `lookup` is called. Knows
nothing of what they mean. Layouts: union bpf_attr (linux/bpf.h).
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence

from tcpha.errors import EdgeError
from tcpha.net.bpf import BpfMap
from tcpha.net.bpf_syscall import Command, PreparedCall, call

_ELEMENT_ATTR = struct.Struct("=IxxxxQQQ")  # map, key, value, flags
_BATCH_ATTR = struct.Struct("=QQQQIIQQ")  # where to begin, where it ended, keys, values, count, map, flags twice
_COUNT_AT = 32
_COUNT = struct.Struct("=I")
_TOKEN_OCTETS = 8
_AT_ONCE = 1024
PLACES = 64
"""So many entries are set by one call, at most."""


class Table:
    """One hash map.

    `keys` and `values` have room for `PLACES` entries, one behind the other, of which `key` and `value` are the first.
    """

    def __init__(self, inner: BpfMap) -> None:
        """The map stays the caller's. Raises: EdgeError."""
        self._map = inner
        self._keys = ctypes.create_string_buffer(PLACES * inner.shape.key_octets)
        self._values = ctypes.create_string_buffer(PLACES * inner.shape.value_octets)
        self.keys = memoryview(self._keys).cast("B")
        self.values = memoryview(self._values).cast("B")
        self.key = self.keys[: inner.shape.key_octets]
        self.value = self.values[: inner.shape.value_octets]
        key, value = ctypes.addressof(self._keys), ctypes.addressof(self._values)
        entry = ctypes.create_string_buffer(_ELEMENT_ATTR.pack(inner.fd, key, value, 0), _ELEMENT_ATTR.size)
        alone = ctypes.create_string_buffer(_ELEMENT_ATTR.pack(inner.fd, key, 0, 0), _ELEMENT_ATTR.size)
        self._update = PreparedCall(Command.MAP_UPDATE_ELEM, entry, inner.name)
        self._delete = PreparedCall(Command.MAP_DELETE_ELEM, alone, inner.name)
        self._lookup = PreparedCall(Command.MAP_LOOKUP_ELEM, entry, inner.name)
        self._first = self._batch(0, 0, key, value, 0)
        self._update_first = PreparedCall(Command.MAP_UPDATE_BATCH, self._first, inner.name)

    def update(self) -> bool:
        """Set the value; False: the map is full. Raises: EdgeError."""
        return self._update(errno.E2BIG)

    def update_first(self, count: int) -> int:
        """Set the first `count` of `keys`, in their order; return how many found room. Raises: EdgeError."""
        _COUNT.pack_into(self._first, _COUNT_AT, count)
        self._update_first(errno.E2BIG)
        return int(_COUNT.unpack_from(self._first, _COUNT_AT)[0])

    def delete(self) -> bool:
        """Remove the entry; was there one? Raises: EdgeError."""
        return self._delete(errno.ENOENT)

    def lookup(self) -> bool:
        """Read the value; was there one? Raises: EdgeError."""
        return self._lookup(errno.ENOENT)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value; while the map changes, some may be missed or seen twice. Raises: EdgeError."""
        k, v = self._map.shape.key_octets, self._map.shape.value_octets
        for keys, values in self.pieces():
            for index in range(len(keys) // k):
                yield keys[index * k : (index + 1) * k], values[index * v : (index + 1) * v]

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """The same, some at a time: their keys one behind the other, and their values. Raises: EdgeError."""
        shape = self._map.shape
        room = _AT_ONCE
        keys, values = (ctypes.create_string_buffer(room * octets) for octets in (shape.key_octets, shape.value_octets))
        token = ctypes.create_string_buffer(max(_TOKEN_OCTETS, shape.key_octets))
        begun = is_last = False
        while not is_last:
            begin = ctypes.addressof(token) if begun else 0
            attr = self._batch(begin, ctypes.addressof(token), ctypes.addressof(keys), ctypes.addressof(values), room)
            try:
                call(Command.MAP_LOOKUP_BATCH, attr, self._map.name)
            except EdgeError as error:
                code = _errno_of(error)
                if code == errno.ENOSPC:  # one bucket holds more than there is room for
                    room *= 2
                    keys, values = (
                        ctypes.create_string_buffer(room * octets) for octets in (shape.key_octets, shape.value_octets)
                    )
                    continue
                if code != errno.ENOENT:
                    raise
                is_last = True
            begun = True
            count = _count_of(attr)
            yield keys.raw[: count * shape.key_octets], values.raw[: count * shape.value_octets]

    def delete_all(self, keys: Sequence[bytes]) -> int:
        """Remove entries; return how many there were. Raises: EdgeError."""
        deleted = 0
        octets = self._map.shape.key_octets
        joined = ctypes.create_string_buffer(b"".join(keys), max(len(keys) * octets, 1))
        at = 0
        while at < len(keys):
            attr = self._batch(0, 0, ctypes.addressof(joined) + at * octets, 0, len(keys) - at)
            try:
                call(Command.MAP_DELETE_BATCH, attr, self._map.name)
            except EdgeError as error:
                if _errno_of(error) != errno.ENOENT:
                    raise
                at += 1  # the one that was not there
            done = _count_of(attr)
            deleted += done
            at += done
        return deleted

    def update_all(self, entries: Sequence[tuple[bytes, bytes]]) -> int:
        """Set values; return how many found room. Raises: EdgeError."""
        keys = ctypes.create_string_buffer(b"".join(key for key, _ in entries) or b"\0")
        values = ctypes.create_string_buffer(b"".join(value for _, value in entries) or b"\0")
        if not entries:
            return 0
        attr = self._batch(0, 0, ctypes.addressof(keys), ctypes.addressof(values), len(entries))
        try:
            call(Command.MAP_UPDATE_BATCH, attr, self._map.name)
        except EdgeError as error:
            if _errno_of(error) != errno.E2BIG:
                raise
        return _count_of(attr)

    def _batch(self, begin: int, end: int, keys: int, values: int, count: int) -> ctypes.Array[ctypes.c_char]:
        attr = _BATCH_ATTR.pack(begin, end, keys, values, count, self._map.fd, 0, 0)
        return ctypes.create_string_buffer(attr, len(attr))


def _count_of(attr: ctypes.Array[ctypes.c_char]) -> int:
    return int(_COUNT.unpack_from(attr, _COUNT_AT)[0])


def _errno_of(error: EdgeError) -> int | None:
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None
