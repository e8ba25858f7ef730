"""A compiled file of programs (ELF) -> the kernel: maps made or found again, addresses filled in, programs loaded.

What libbpf does for such a file, without libbpf (docs/adr/0010): maps that are declared in .maps, constants in .rodata,
calls of functions in the same file and of functions of the kernel (found by name in /sys/kernel/btf/vmlinux). Not
supported, and refused: global variables, functions that the kernel calls back (bpf_loop), and accesses to structures
that depend on the kernel's version.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tcpha.errors import EdgeError
from tcpha.net.bpf import BpfMap, BpfProgram, Closable, MapShape, MapType, ProgramType
from tcpha.net.bpf_btf import Btf, MapDeclaration

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_ELF = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_BPF_MACHINE = 247
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_INSTRUCTION = struct.Struct("<BBhi")  # operation, registers (source in the high nibble), offset, immediate
_SYMTAB, _REL = 2, 9
_FUNCTION = 2
_R_BPF_64_64, _R_BPF_64_32 = 1, 10
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE, _PSEUDO_CALL, _PSEUDO_KFUNC = 1, 2, 1, 2
_LOAD_64, _CALL, _MOVE_TO_R0 = 0x18, 0x85, 0xB7
_F_RDONLY_PROG = 0x80
_F_SLEEPABLE = 0x10
_KINDS = {
    "tc": (ProgramType.SCHED_CLS, 0, 0),
    "tcx": (ProgramType.SCHED_CLS, 0, 0),
    "xdp": (ProgramType.XDP, 0, 0),
    "sockops": (ProgramType.SOCK_OPS, 0, 3),
    "syscall": (ProgramType.SYSCALL, _F_SLEEPABLE, 0),
}
"""By the first part of a section's name: type, flags, expected attach type."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    octets: bytes
    info: int
    """Of relocations: the section that they are for."""


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    is_function: bool
    section: int
    """0: it is defined elsewhere."""
    value: int
    octets: int


@dataclass(slots=True)
class _Code:
    """A program as it grows: its own instructions, then those of the functions that it calls."""

    octets: bytearray = field(default_factory=bytearray)
    starts: dict[_Symbol, int] = field(default_factory=dict)


class ObjectFile:
    """The file, read; nothing of the kernel is touched yet."""

    def __init__(self, path: Path) -> None:
        """Raises: EdgeError if it is missing or no such file."""
        self.path = path
        try:
            self._octets = path.read_bytes()
        except OSError as error:
            raise EdgeError(f"{path}: {error.strerror}") from error
        if self._octets[:6] != _ELF or struct.unpack_from("<H", self._octets, 18)[0] != _BPF_MACHINE:
            raise EdgeError(f"{path}: no file of programs for the kernel")
        self._sections = self._read_sections()
        self._symbols = self._read_symbols()
        by_name = {section.name: section for section in self._sections}
        self.licence = by_name["license"].octets.rstrip(b"\0").decode() if "license" in by_name else ""
        self.maps: tuple[MapDeclaration, ...] = (
            tuple(Btf(by_name[".BTF"].octets).maps()) if ".BTF" in by_name and ".maps" in by_name else ()
        )
        self._relocations = self._read_relocations()

    def programs(self) -> dict[str, str]:
        """Return the names of the programs, with those of their sections."""
        return {
            symbol.name: self._sections[symbol.section].name
            for symbol in self._symbols
            if symbol.is_function and self._sections[symbol.section].name.partition("/")[0] in _KINDS
        }

    def kernel_functions(self) -> set[str]:
        """Return the names of the kernel's functions that programs call."""
        return {
            symbol.name
            for of_section in self._relocations.values()
            for kind, symbol in of_section.values()
            if kind == _R_BPF_64_32 and symbol.section == 0
        }

    def constants(self) -> dict[str, bytes]:
        """Return the sections that hold constants."""
        return {each.name: each.octets for each in self._sections if each.name.startswith(".rodata") and each.octets}

    def code(self, name: str, maps: Mapping[str, BpfMap], results: Mapping[str, int]) -> bytes:
        """Return the instructions of a program for this kernel. Raises: EdgeError."""
        code = _Code()
        self._append(
            code, next(each for each in self._symbols if each.is_function and each.name == name), maps, results
        )
        return bytes(code.octets)

    def _append(self, code: _Code, function: _Symbol, maps: Mapping[str, BpfMap], results: Mapping[str, int]) -> None:
        base = len(code.octets)
        code.starts[function] = base
        section = self._sections[function.section]
        code.octets += section.octets[function.value : function.value + function.octets]
        relocations = self._relocations.get(function.section, {})
        for offset in range(function.value, function.value + function.octets, _INSTRUCTION.size):
            operation, registers, _, immediate = _INSTRUCTION.unpack_from(section.octets, offset)
            if operation == _CALL and registers >> 4 == _PSEUDO_CALL and offset not in relocations:
                # Of a function in the same section: the compiler has filled the distance in.
                target = self._function_in(function.section, offset + (immediate + 1) * _INSTRUCTION.size)
                at = base + offset - function.value
                distance = (self._start(code, target, maps, results) - at) // _INSTRUCTION.size - 1
                _INSTRUCTION.pack_into(code.octets, at, operation, registers, 0, distance)
        for offset, (kind, symbol) in sorted(relocations.items()):
            if not function.value <= offset < function.value + function.octets:
                continue
            at = base + offset - function.value
            operation, registers, _, immediate = _INSTRUCTION.unpack_from(code.octets, at)
            if kind == _R_BPF_64_64 and operation == _LOAD_64:
                self._point(code, at, registers, immediate, symbol, maps)
            elif kind == _R_BPF_64_32 and symbol.section:
                target = self._function_at(symbol, (immediate + 1) * 8)
                to = self._start(code, target, maps, results)
                _INSTRUCTION.pack_into(code.octets, at, operation, _PSEUDO_CALL << 4, 0, (to - at) // 8 - 1)
            elif kind == _R_BPF_64_32 and symbol.name in results:
                _INSTRUCTION.pack_into(code.octets, at, _MOVE_TO_R0, 0, 0, results[symbol.name])
            elif kind == _R_BPF_64_32:
                number = kernel_function(symbol.name)
                _INSTRUCTION.pack_into(code.octets, at, operation, _PSEUDO_KFUNC << 4, 0, number)
            else:
                raise EdgeError(f"{self.path}: {symbol.name or 'something'} cannot be filled in ({section.name})")

    def _point(
        self, code: _Code, at: int, registers: int, immediate: int, symbol: _Symbol, maps: Mapping[str, BpfMap]
    ) -> None:
        """Fill in the address of a map or of a constant."""
        section = self._sections[symbol.section].name
        register = registers & 0x0F
        if section == ".maps":
            parts = (_PSEUDO_MAP_FD, maps[symbol.name].fd, 0)
        elif section in maps:
            parts = (_PSEUDO_MAP_VALUE, maps[section].fd, symbol.value + immediate)
        else:
            raise EdgeError(f"{self.path}: what lies in {section} is not supported")
        _INSTRUCTION.pack_into(code.octets, at, _LOAD_64, register | parts[0] << 4, 0, parts[1])
        _INSTRUCTION.pack_into(code.octets, at + 8, 0, 0, 0, parts[2])

    def _start(self, code: _Code, function: _Symbol, maps: Mapping[str, BpfMap], results: Mapping[str, int]) -> int:
        """Return where in the program a function begins; what is not in use is not in the program."""
        if function not in code.starts:
            self._append(code, function, maps, results)
        return code.starts[function]

    def _function_at(self, symbol: _Symbol, addend: int) -> _Symbol:
        return symbol if symbol.is_function else self._function_in(symbol.section, symbol.value + addend)

    def _function_in(self, section: int, at: int) -> _Symbol:
        for each in self._symbols:
            if each.is_function and each.section == section and each.value == at:
                return each
        raise EdgeError(f"{self.path}: no function at {at:#x} of {self._sections[section].name}")

    def _read_sections(self) -> list[_Section]:
        (offset,) = struct.unpack_from("<Q", self._octets, 0x28)
        count, names = struct.unpack_from("<HH", self._octets, 0x3C)
        rows = [_SECTION.unpack_from(self._octets, offset + _SECTION.size * index) for index in range(count)]
        return [
            _Section(self._text(rows[names][4] + row[0]), row[1], self._octets[row[4] : row[4] + row[5]], row[7])
            for row in rows
        ]

    def _read_symbols(self) -> list[_Symbol]:
        strings = {each.name: each for each in self._sections}[".strtab"].octets
        table = next(each for each in self._sections if each.kind == _SYMTAB)
        return [
            _Symbol(strings[name : strings.index(b"\0", name)].decode(), info & 15 == _FUNCTION, section, value, size)
            for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.octets)
        ]

    def _read_relocations(self) -> dict[int, dict[int, tuple[int, _Symbol]]]:
        found: dict[int, dict[int, tuple[int, _Symbol]]] = {}
        for section in self._sections:
            if section.kind == _REL and not self._sections[section.info].name.startswith(".BTF"):
                found[section.info] = {
                    offset: (info & 0xFFFFFFFF, self._symbols[info >> 32])
                    for offset, info in _RELOCATION.iter_unpack(section.octets)
                }
        return found

    def _text(self, at: int) -> str:
        return self._octets[at : self._octets.index(b"\0", at)].decode()


class Loaded(Closable):
    """Maps and programs of one file, in the kernel for as long as this object, a pin or an attachment holds them."""

    def __init__(self, maps: dict[str, BpfMap], programs: dict[str, BpfProgram]) -> None:
        self.maps = maps
        self.programs = programs

    def close(self) -> None:
        """Let go of everything."""
        for each in (*self.programs.values(), *self.maps.values()):
            each.close()


def load(
    path: Path,
    *,
    pins: Path | None = None,
    entries: Mapping[str, int] | None = None,
    results: Mapping[str, int] | None = None,
) -> Loaded:
    """Put a file's maps and programs into the kernel; nothing is attached yet.

    pins: directory in a bpf file system where the maps that ask for it (`pinning`) are found again, or pinned. entries:
    max_entries of maps by name, where they differ from what the file says. results: functions of the kernel that are
    not called: their result is this number instead (so that tests can see what comes behind).

    Raises: EdgeError that names what is missing.
    """
    file = ObjectFile(path)
    with ExitStack() as undo:
        maps: dict[str, BpfMap] = {}
        for declared in file.maps:
            maps[declared.name] = undo.enter_context(_open_map(declared, pins, (entries or {}).get(declared.name)))
        for name, octets in file.constants().items():
            maps[name] = undo.enter_context(_constants(name, octets))
        programs: dict[str, BpfProgram] = {}
        for name, section in file.programs().items():
            kind, flags, attach_type = _KINDS[section.partition("/")[0]]
            code = file.code(name, maps, results or {})
            loaded = BpfProgram.load(name, kind, code, file.licence, flags=flags, expected_attach_type=attach_type)
            programs[name] = undo.enter_context(loaded)
        undo.pop_all()
    return Loaded(maps, programs)


@cache
def kernel_function(name: str) -> int:
    """Return the number of a function of the kernel. Raises: EdgeError: the kernel is too old, or tells no types."""
    known = _kernel_types()
    number = known.function(name)
    if number is None:
        raise EdgeError(f"this kernel has no {name}: it is too old, or built without it")
    return number


@cache
def _kernel_types() -> Btf:
    try:
        return Btf(KERNEL_BTF.read_bytes())
    except OSError as error:
        raise EdgeError(
            f"{KERNEL_BTF}: {error.strerror}: a kernel built without BTF (CONFIG_DEBUG_INFO_BTF)"
        ) from error


def _open_map(declared: MapDeclaration, pins: Path | None, entries: int | None) -> BpfMap:
    shape = declared.shape
    if entries is not None:
        shape = MapShape(shape.kind, shape.key_octets, shape.value_octets, entries, shape.flags)
    if not declared.is_pinned or pins is None:
        return _new_map(declared, shape)
    place = pins / declared.name
    found = BpfMap.pinned(place, declared.name, shape)
    if found is None:
        found = _new_map(declared, shape)
        try:
            found.pin(place)
        except EdgeError:
            found.close()
            raise
    return found


def _new_map(declared: MapDeclaration, shape: MapShape) -> BpfMap:
    if declared.inner is None:
        return BpfMap.create(declared.name, shape)
    with BpfMap.create(f"{declared.name}_in", declared.inner) as inner:
        return BpfMap.create(declared.name, shape, inner)


def _constants(name: str, octets: bytes) -> BpfMap:
    made = BpfMap.create("rodata", MapShape(MapType.ARRAY, 4, len(octets), 1, _F_RDONLY_PROG))
    made.name = name
    made.update(bytes(4), octets)
    made.freeze()
    return made
