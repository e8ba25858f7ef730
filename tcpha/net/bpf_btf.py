"""BTF, the type information of the kernel and of compiled programs, as far as loading a program needs it.

Two questions are answered: which number the kernel gives to one of its functions, and what the maps look like that a
program declares. Reads octets only. Format: the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tcpha.errors import EdgeError
from tcpha.net.bpf import MapShape

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_ARRAY = struct.Struct("=III")
_VARIABLE = struct.Struct("=III")
_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION, _TYPEDEF = 1, 2, 3, 4, 5, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _VAR, _DATASEC, _ENUM = 9, 10, 11, 12, 14, 15, 6
_POINTER_OCTETS = 8
# What follows a type: a fixed number of octets, and octets for each of its members.
_TAIL = {_INT: 4, _ARRAY_KIND: 12, _VAR: 4, 17: 4}
_TAIL_PER_MEMBER = {_STRUCT: 12, _UNION: 12, _ENUM: 8, 13: 8, _DATASEC: 12, 19: 12}


@dataclass(frozen=True, slots=True)
class MapDeclaration:
    """A map as a program declares it; `inner` is what the maps in a map of maps look like."""

    name: str
    shape: MapShape
    inner: MapShape | None = None
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class _Type:
    name: int
    kind: int
    members: int
    size_or_type: int
    tail: int


class Btf:
    """One body of type information."""

    def __init__(self, octets: bytes) -> None:
        """Raises: EdgeError if it is none, or of the other byte order."""
        if len(octets) < _HEADER.size or _HEADER.unpack_from(octets)[0] != _MAGIC:
            raise EdgeError("no BTF of this byte order")
        _, _, _, header, types, types_octets, strings, strings_octets = _HEADER.unpack_from(octets)
        self._types = octets[header + types : header + types + types_octets]
        self._strings = octets[header + strings : header + strings + strings_octets]

    def function(self, name: str) -> int | None:
        """Return the number of a function, None if it is not known."""
        wanted = b"\0" + name.encode() + b"\0"
        starts = set()
        at = self._strings.find(wanted)
        while at >= 0:
            starts.add(at + 1)
            at = self._strings.find(wanted, at + 1)
        if not starts:
            return None
        unpack, types, end, offset, number = _TYPE.unpack_from, self._types, len(self._types), 0, 1
        while offset < end:  # a hundred thousand types: no object is made for each
            name_at, info, _ = unpack(types, offset)
            kind = info >> 24 & 0x1F
            if kind == _FUNC and name_at in starts:
                return number
            offset += 12 + _TAIL.get(kind, 0) + _TAIL_PER_MEMBER.get(kind, 0) * (info & 0xFFFF)
            number += 1
        return None

    def maps(self) -> Iterator[MapDeclaration]:
        """Every map that is declared in the section .maps. Raises: EdgeError."""
        known: list[_Type] = [_Type(0, 0, 0, 0, 0)]
        offset = 0
        while offset < len(self._types):
            name, info, size_or_type = _TYPE.unpack_from(self._types, offset)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            known.append(_Type(name, kind, members, size_or_type, offset + _TYPE.size))
            offset += _TYPE.size + _TAIL.get(kind, 0) + _TAIL_PER_MEMBER.get(kind, 0) * members
        for section in known:
            if section.kind == _DATASEC and self._text(section.name) == ".maps":
                for index in range(section.members):
                    variable = known[_VARIABLE.unpack_from(self._types, section.tail + 12 * index)[0]]
                    yield self._declaration(known, self._text(variable.name), known[variable.size_or_type])

    def _declaration(self, known: list[_Type], name: str, declared: _Type) -> MapDeclaration:
        numbers: dict[str, int] = {}
        inner: MapShape | None = None
        for index in range(declared.members):
            name_at, type_number, _ = _MEMBER.unpack_from(self._types, declared.tail + 12 * index)
            member, kind = self._text(name_at), known[type_number]
            if member == "values":  # an array of pointers to what the inner maps look like
                pointer = known[_ARRAY.unpack_from(self._types, kind.tail)[0]]
                inner = self._declaration(known, f"{name} inner", known[pointer.size_or_type]).shape
            elif member in ("key", "value"):
                numbers[f"{member}_size"] = self._octets(known, kind.size_or_type)
            else:  # a pointer to an array of as many elements as the number says
                numbers[member] = _ARRAY.unpack_from(self._types, known[kind.size_or_type].tail)[2]
        if inner is not None:
            numbers.setdefault("key_size", 4)
            numbers.setdefault("value_size", 4)
        if "type" not in numbers:
            raise EdgeError(f"map {name} has no type")
        shape = MapShape(
            numbers["type"], numbers.get("key_size", 0), numbers.get("value_size", 0), numbers.get("max_entries", 0),
            numbers.get("map_flags", 0),
        )  # fmt: skip
        return MapDeclaration(name, shape, inner, bool(numbers.get("pinning", 0)))

    def _octets(self, known: list[_Type], number: int) -> int:
        """Return the size of a type."""
        found = known[number]
        if found.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT):
            return self._octets(known, found.size_or_type)
        if found.kind == _PTR:
            return _POINTER_OCTETS
        if found.kind == _ARRAY_KIND:
            element, _, count = _ARRAY.unpack_from(self._types, found.tail)
            return self._octets(known, element) * int(count)
        return found.size_or_type

    def _text(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()
