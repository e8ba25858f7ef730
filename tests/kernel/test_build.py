"""The objects in the repository are what clang makes of the sources beside them, wherever that is done."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tcpha.be.closing import LATE_OCTETS
from tcpha.kernel import be_maps
from tcpha.net.bpf_object import ObjectFile
from tcpha.proto.flow_fields import FIELD_OCTETS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tcpha" / "kernel"
ATOMIC, FETCH = (0xC3, 0xDB), 1
"""Operations of 32 and 64 bits (BPF_STX | BPF_ATOMIC), and the bit by which they return what was there."""
CLANG_VERSION = "14."
"""Debian 12's: another one makes other octets of the same sources."""


def missing_tool() -> str | None:
    for tool in ("make", "clang", "llvm-strip", "llvm-objcopy"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    told = subprocess.run(["clang", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()
    return None if told.startswith(CLANG_VERSION) else f"clang {told}: the objects were made by clang {CLANG_VERSION}x"


@pytest.mark.skipif(missing_tool() is not None, reason=f"the objects cannot be made here: {missing_tool()}")
def test_sources_are_compiled_in_two_places_objects_are_those_of_the_repository(tmp_path: Path) -> None:
    for place in (tmp_path / "a", tmp_path / "somewhere" / "else"):
        shutil.copytree(SOURCES, place / "tcpha" / "kernel", ignore=shutil.ignore_patterns("*.o", "__pycache__"))
        shutil.copy(ROOT / "Makefile", place)
        subprocess.run(["make", "-s", "kernel"], cwd=place, check=True)
        for source in SOURCES.glob("*.bpf.c"):
            name = source.with_suffix(".o").name
            made = (place / "tcpha" / "kernel" / name).read_bytes()
            assert made == (SOURCES / name).read_bytes(), f"{name} is not of its source: make kernel"


def test_object_is_small_and_names_no_place() -> None:
    octets = (SOURCES / "be.bpf.o").read_bytes()
    assert len(octets) < 130_000
    assert str(ROOT).encode() not in octets


def test_atomic_operations_are_in_order_with_what_was_written_before() -> None:
    """Those that do not return what was there are not, on ARM64 (Documentation/bpf/standardization/instruction-set)."""
    code = b"".join(
        each.octets for each in ObjectFile(SOURCES / "be.bpf.o")._sections if each.name in ("tc", "syscall")
    )
    instructions = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    atomic = [immediate for operation, _, _, immediate in instructions if operation in ATOMIC]
    assert len(atomic) > 30
    assert all(immediate & FETCH for immediate in atomic)


def test_counts_have_the_names_of_the_source() -> None:
    source = (SOURCES / "be.h").read_text()
    listed = re.search(r"enum count \{([^}]*)COUNTS", source)
    assert listed is not None
    assert tuple(word.lower() for word in re.findall(r"\w+", listed[1])) == be_maps.COUNTS


def test_late_is_as_far_for_the_programs_as_for_the_agent() -> None:
    defined = re.search(r"^#define FAR_OCTETS \((\d+) << (\d+)\)$", (SOURCES / "be.h").read_text(), re.MULTILINE)
    assert defined is not None
    assert int(defined[1]) << int(defined[2]) == LATE_OCTETS


def test_maps_have_the_sizes_that_python_writes() -> None:
    shapes = {each.name: each for each in ObjectFile(SOURCES / "be.bpf.o").maps}
    endpoint = be_maps.encode_endpoint(bytes(4), 80)
    assert len(be_maps.encode_config(endpoint, 1, 2, 3, 4, 5, 6)) == shapes["config"].shape.value_octets
    assert len(endpoint) == shapes["peers"].shape.key_octets == shapes["targets"].shape.key_octets
    assert len(be_maps.encode_peer(1, 2, 3)) == shapes["peers"].shape.value_octets
    assert shapes["counts"].shape.max_entries == len(be_maps.COUNTS)
    assert shapes["seen"].shape.max_entries == be_maps.TABLES * 4096
    remembered = sum(shapes[name].shape.max_entries for name in be_maps.CLOSED)
    assert shapes["flows"].shape.max_entries - remembered - be_maps.LIVING >= 1 << 16, "of the agent's"
    assert shapes["ran"].shape.max_entries == be_maps.GENERATIONS
    assert shapes["keys"].shape.max_entries == be_maps.KEYS
    journals = (*be_maps.CLOSED, *be_maps.HELD)
    assert [shapes[name].shape.value_octets for name in journals] == [*FIELD_OCTETS, *FIELD_OCTETS]
    assert shapes["progress"].shape.value_octets == be_maps.ADOPTED_AND_UNMADE_AT + be_maps.ADOPTED_AND_UNMADE.size
    pinned = {name for name, each in shapes.items() if each.is_pinned}
    assert pinned == {"flows", "ran", "events", "counts", "progress", *journals, *be_maps.ASKED}
