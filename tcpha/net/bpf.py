"""Maps, programs and what is pinned, as objects that own their descriptors.

Knows nothing of the programs of this package. Layouts are those of union bpf_attr (linux/bpf.h); every field that is
not named stays zero. Needs CAP_BPF, for programs that see packets CAP_NET_ADMIN, for large ones CAP_PERFMON: what is
missing stands in the error, so that a process can go on without.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tcpha.errors import EdgeError
from tcpha.net.bpf_syscall import ATTR_OCTETS, CAP_PERFMON, Command, call, holds
from tcpha.net.pins import bpffs_of

_NAME_OCTETS = 15
_LOG_OCTETS = 1 << 20
_LOG_LINES = 6
_POSSIBLE = Path("/sys/devices/system/cpu/possible")

_MAP_CREATE_ATTR = struct.Struct("=IIIIIII16s")  # type, key, value, entries, flags, inner map, NUMA node, name
_ELEMENT_ATTR = struct.Struct("=IxxxxQQQ")  # map, key, value or next key, flags
_PROGRAM_ATTR = struct.Struct("=IIQQIIQII16sII")
_PATH_ATTR = struct.Struct("=QII")
_RUN_ATTR = struct.Struct("=IIIIQQIIIIQQIII")
_INFO_ATTR = struct.Struct("=IIQ")
_MAP_INFO = struct.Struct("=IIIIII16s")  # type, id, key, value, entries, flags, name
_PROGRAM_INFO_OCTETS = 232
_VERIFIED_AT = 216
_U32 = struct.Struct("=I")


class MapType(IntEnum):
    """enum bpf_map_type, as far as it is used."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    RINGBUF = 27


_A_VALUE_PER_CPU = {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH}


class ProgramType(IntEnum):
    """enum bpf_prog_type, as far as it is used."""

    SCHED_CLS = 3
    XDP = 6
    SOCK_OPS = 13
    SYSCALL = 31


@dataclass(frozen=True, slots=True)
class MapShape:
    """What makes two maps interchangeable. Sizes in octets; those of a ring buffer are 0, its entries are octets."""

    kind: int
    key_octets: int
    value_octets: int
    max_entries: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave: the program's return value, data and context behind it, mean time of a run."""

    returned: int
    octets: bytes
    context: bytes
    duration_ns: int


class Closable(ABC):
    """What is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Owned(Closable):
    """A descriptor that is closed once."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    def pin(self, path: Path) -> None:
        """Keep it alive under a name in a bpf file system. Raises: EdgeError."""
        mounted = bpffs_of(path)
        if mounted is None:
            raise EdgeError(f"{path}: no bpf file system is mounted there (mount -t bpf bpf {path.parent})")
        place = ctypes.create_string_buffer(os.fsencode(path))
        call(Command.OBJ_PIN, _PATH_ATTR.pack(ctypes.addressof(place), self.fd, 0), f"{self.name} to {path}")

    def close(self) -> None:
        """Let go of it; what is pinned or attached by a pin lives on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class BpfMap(Owned):
    """One map. Keys and values are octets in the machine's own order, of exactly the shape's sizes."""

    def __init__(self, fd: int, name: str, shape: MapShape) -> None:
        super().__init__(fd, name)
        self.shape = shape
        self._cpus = possible_cpus() if shape.kind in _A_VALUE_PER_CPU else 0
        value_octets = (shape.value_octets + 7 & ~7) * self._cpus if self._cpus else shape.value_octets
        self._key = ctypes.create_string_buffer(max(shape.key_octets, 1))
        self._value = ctypes.create_string_buffer(max(value_octets, 1))
        self._value_octets = value_octets

    @classmethod
    def create(cls, name: str, shape: MapShape, inner: BpfMap | None = None) -> BpfMap:
        """Make a map; `inner` is what the maps in a map of maps look like. Raises: EdgeError."""
        attr = _MAP_CREATE_ATTR.pack(
            shape.kind, shape.key_octets, shape.value_octets, shape.max_entries, shape.flags,
            0 if inner is None else inner.fd, 0, name.encode()[:_NAME_OCTETS],
        )  # fmt: skip
        return cls(call(Command.MAP_CREATE, attr, f"map {name}"), name, shape)

    @classmethod
    def pinned(cls, path: Path, name: str, shape: MapShape) -> BpfMap | None:
        """Open a pinned map, None if there is none. Raises: EdgeError, also if it has another shape."""
        place = ctypes.create_string_buffer(os.fsencode(path))
        try:
            found = cls(call(Command.OBJ_GET, _PATH_ATTR.pack(ctypes.addressof(place), 0, 0), str(path)), name, shape)
        except EdgeError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        present = found.shape_in_kernel()
        if present != shape:
            found.close()
            raise EdgeError(f"{path} holds a map of another shape ({present}, not {shape}): of another version?")
        return found

    def shape_in_kernel(self) -> MapShape:
        """Return what the kernel says of the map. Raises: EdgeError."""
        kind, _, key, value, entries, flags, _ = _MAP_INFO.unpack(_info(self.fd, _MAP_INFO.size, self.name))
        return MapShape(kind, key, value, entries, flags)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value, None if there is none; of a map with a value per CPU the values of all CPUs, each padded to
        8 octets. Raises: EdgeError.
        """
        self._set_key(key)
        return self._value.raw[: self._value_octets] if self._element(Command.MAP_LOOKUP_ELEM, self._value) else None

    def lookup_sum(self, key: bytes) -> int:
        """Return the sum over all CPUs of a 64-bit number, 0 if there is none. Raises: EdgeError."""
        found = self.lookup(key)
        return sum(struct.unpack(f"={len(found) // 8}Q", found)) if found else 0

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value. Raises: EdgeError, also if the map is full."""
        self._set(key, value)
        self._element(Command.MAP_UPDATE_ELEM, self._value)

    def insert(self, key: bytes, value: bytes) -> bool:
        """Set the value unless there is one; was there none? Atomic. Raises: EdgeError, also if the map is full."""
        self._set(key, value)
        return self._element(Command.MAP_UPDATE_ELEM, self._value, flags=1, excused=errno.EEXIST)

    def delete(self, key: bytes) -> bool:
        """Remove an entry; was there one? Raises: EdgeError."""
        self._set_key(key)
        return self._element(Command.MAP_DELETE_ELEM, None)

    def keys(self) -> Iterator[bytes]:
        """Every key. While others change the map, keys may be missed or seen twice. Raises: EdgeError."""
        following = ctypes.create_string_buffer(self.shape.key_octets)
        start: ctypes.Array[ctypes.c_char] | None = None
        while self._call_element(Command.MAP_GET_NEXT_KEY, start, following):
            key = following.raw
            yield key
            start = ctypes.create_string_buffer(key, len(key))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value. Raises: EdgeError."""
        for key in self.keys():
            if (value := self.lookup(key)) is not None:
                yield key, value

    def freeze(self) -> None:
        """Let nobody in user space change it any more. Raises: EdgeError."""
        call(Command.MAP_FREEZE, _U32.pack(self.fd), self.name)

    def _set_key(self, key: bytes) -> None:
        if len(key) != self.shape.key_octets:
            raise ValueError(f"{self.name}: a key of {len(key)} octets, not {self.shape.key_octets}")
        ctypes.memmove(self._key, key, len(key))

    def _set(self, key: bytes, value: bytes) -> None:
        self._set_key(key)
        if len(value) != self._value_octets:
            raise ValueError(f"{self.name}: a value of {len(value)} octets, not {self._value_octets}")
        ctypes.memmove(self._value, value, len(value))

    def _element(
        self, command: Command, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0, excused: int = errno.ENOENT
    ) -> bool:
        return self._call_element(command, self._key, value, flags, excused)

    def _call_element(
        self,
        command: Command,
        key: ctypes.Array[ctypes.c_char] | None,
        value: ctypes.Array[ctypes.c_char] | None,
        flags: int = 0,
        excused: int = errno.ENOENT,
    ) -> bool:
        attr = _ELEMENT_ATTR.pack(self.fd, _address(key), _address(value), flags)
        try:
            call(command, attr, f"map {self.name}")
        except EdgeError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == excused:
                return False
            raise
        return True


class BpfProgram(Owned):
    """One loaded program."""

    @classmethod
    def load(
        cls,
        name: str,
        kind: ProgramType,
        instructions: bytes,
        licence: str,
        *,
        flags: int = 0,
        expected_attach_type: int = 0,
    ) -> BpfProgram:
        """Let the kernel verify and compile instructions.

        Raises: EdgeError with the end of the verifier's words, or with the capability that is missing.
        """
        code = ctypes.create_string_buffer(instructions, len(instructions))
        terms = ctypes.create_string_buffer(licence.encode())
        log = ctypes.create_string_buffer(_LOG_OCTETS)

        def load(level: int) -> int:
            attr = _PROGRAM_ATTR.pack(
                kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(terms), level,
                len(log) if level else 0, ctypes.addressof(log) if level else 0, 0, flags,
                name.encode()[:_NAME_OCTETS], 0, expected_attach_type,
            )  # fmt: skip
            return call(Command.PROG_LOAD, attr, f"program {name}")

        try:
            return cls(load(0), name)
        except EdgeError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EPERM:
                raise
        try:
            return cls(load(1), name)
        except EdgeError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.EACCES and not holds(CAP_PERFMON):
                # The verifier forbids more without it: what it says is about the program, which is not at fault.
                raise EdgeError(f"{error}, CAP_PERFMON missing") from cause
            raise EdgeError(_with_log(str(error), log.value)) from cause

    def run(self, octets: bytes = b"", context: bytes = b"", *, repeat: int = 0, room_octets: int = 256) -> TestRun:
        """Run it once, or `repeat` times in a row, on a packet of its own (BPF_PROG_TEST_RUN).

        The packet has the loopback device of the caller's network namespace. `room_octets`: how much longer than
        before the packet may become. A `ProgramType.SYSCALL` program takes a context and no packet. Raises: EdgeError.
        """
        data = ctypes.create_string_buffer(octets, len(octets)) if octets else None
        data_out = ctypes.create_string_buffer(len(octets) + room_octets) if octets else None
        ctx = ctypes.create_string_buffer(context, len(context)) if context else None
        # A program that is called like a system call changes its context in place.
        ctx_out = ctypes.create_string_buffer(len(context)) if context and octets else None
        attr = bytearray(ATTR_OCTETS)
        _RUN_ATTR.pack_into(
            attr, 0, self.fd, 0, len(octets), 0 if data_out is None else len(data_out), _address(data),
            _address(data_out), repeat, 0, len(context), 0 if ctx_out is None else len(ctx_out), _address(ctx),
            _address(ctx_out), 0, 0, 0,
        )  # fmt: skip
        filled = ctypes.create_string_buffer(bytes(attr), len(attr))
        call(Command.PROG_TEST_RUN, filled, f"program {self.name}")
        (_, returned, _, octets_out, _, _, _, duration, _, context_out, *_) = _RUN_ATTR.unpack_from(filled.raw)
        after = ctx_out.raw[:context_out] if ctx_out is not None else b"" if ctx is None else ctx.raw
        return TestRun(returned, b"" if data_out is None else data_out.raw[:octets_out], after, duration)

    def verified_instructions(self) -> int:
        """Return how many instructions the verifier walked through: a million is the limit. 0 before Linux 5.16."""
        info = _info(self.fd, _PROGRAM_INFO_OCTETS, self.name)
        return int(_U32.unpack_from(info, _VERIFIED_AT)[0])


def possible_cpus() -> int:
    """Return for how many CPUs a map with a value per CPU has values."""
    return int(_POSSIBLE.read_text().strip().rpartition(",")[2].rpartition("-")[2]) + 1


def _info(fd: int, octets: int, what: str) -> bytes:
    info = ctypes.create_string_buffer(octets)
    call(Command.OBJ_GET_INFO_BY_FD, _INFO_ATTR.pack(fd, octets, ctypes.addressof(info)), what)
    return info.raw


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _with_log(reason: str, log: bytes) -> str:
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line and not line.startswith("processed")]
    return f"{reason}; the verifier says: {' | '.join(lines[-_LOG_LINES:])}" if lines else reason
