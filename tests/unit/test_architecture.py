"""The layers as docs/architecture.md describes them: who may import what, and what the package does not contain."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.module_list import DOCUMENT, PACKAGE, ROOT, first_sentence, module_files, with_list

MAX_LINES = 450
MAX_LINES_OF_C = 400

LAYERS: dict[str, set[str]] = {
    # layer: the layers that it may import, itself included where it has several files
    "errors": set(),
    "proto": {"errors", "proto"},
    "rules": {"errors", "rules"},
    "config": {"errors", "rules", "config"},
    "tables": {"errors", "proto", "tables"},
    "peers": {"errors", "proto"},
    "fe": {"errors", "proto", "rules", "config", "tables", "peers", "kernel", "fe"},
    "be": {"errors", "proto", "rules", "config", "tables", "peers", "kernel", "be"},
    "kernel": {"proto", "kernel"},
    "upkeep": set(),
    "net": {"errors", "proto", "kernel", "upkeep", "net"},
    "process": {"tcpha", "errors", "proto", "rules", "config", "peers", "upkeep", "net", "process"},
    "fe process": {"errors", "proto", "rules", "config", "tables", "peers", "net", "fe", "process", "fe process"},
    "be process": {
        "errors",
        "proto",
        "rules",
        "config",
        "peers",
        "kernel",
        "net",
        "be",
        "process",
        "be process",
    },
    "lab": {"tcpha", "errors", "proto", "lab", "lab line", "lab model", "lab packets"},
    "lab line": {"errors", "lab line"},
    "lab model": {"lab model"},
    "lab packets": {"tcpha", "errors", "net", "process", "lab", "lab line", "lab packets"},
    "command": {"tcpha", "errors", "proto", "rules", "config", "command"},
    "container": {"tcpha", "errors", "proto", "config", "process", "container", "container core"},
    "container core": {"errors", "config", "container core"},
    "tcpha": set(),
}
PURE = {"errors", "proto", "kernel", "rules", "tables", "peers", "upkeep", "fe", "be", "lab line", "lab model"}
"""No clock, socket, file, random source, process, log."""
TOOLS = {"tcpha.proto.dissect", "tcpha.proto.wiredoc"}
"""Beside the codec, for captures, tests and documents; no process imports them."""
_LAYER_OF = {
    "tcpha.__main__": "command",
    "tcpha.route": "command",
    "tcpha.route_text": "command",
    "tcpha.container.settings": "container core",
    "tcpha.container.signals": "container core",
    "tcpha.container.supervision": "container core",
    "tcpha.balance": "rules",
    "tcpha.conditions": "rules",
    "tcpha.everything": "rules",
    "tcpha.fields": "rules",
    "tcpha.patterns": "rules",
    "tcpha.rule_text": "rules",
    "tcpha.rule_mistakes": "config",
    "tcpha.rule_warnings": "config",
    "tcpha.config_checks": "config",
    "tcpha.config_file": "config",
    "tcpha.config_load": "config",
    "tcpha.config_values": "config",
    "tcpha.budget": "tables",
    "tcpha.deadlines": "tables",
    "tcpha.finished": "tables",
    "tcpha.flowtable": "tables",
    "tcpha.invocation": "tcpha",
    "tcpha.caretaker": "process",
    "tcpha.eventloop": "process",
    "tcpha.node": "process",
    "tcpha.program": "process",
    "tcpha.secret": "process",
    "tcpha.fe.acceleration": "fe process",
    "tcpha.fe.service": "fe process",
    "tcpha.fe.__main__": "fe process",
    "tcpha.be.acceleration": "be process",
    "tcpha.be.carried": "be process",
    "tcpha.be.left_behind": "be process",
    "tcpha.be.listing": "be process",
    "tcpha.be.search": "be process",
    "tcpha.be.taken_back": "be process",
    "tcpha.be.service": "be process",
    "tcpha.be.__main__": "be process",
    "tcpha.lab.capacity": "lab model",
    "tcpha.lab.capacity_text": "lab model",
    "tcpha.lab.impaired_line": "lab line",
    "tcpha.lab.impairment": "lab line",
    "tcpha.lab.impairer": "lab packets",
    "tcpha.lab.impairments": "lab packets",
    "tcpha.lab.pinned": "lab packets",
    "tcpha.lab.traffic": "lab model",
}

PURE_LIBRARY = {
    "__future__", "array", "bisect", "collections", "collections.abc", "dataclasses", "enum", "functools", "hashlib",
    "heapq", "hmac", "hpack", "ipaddress", "itertools", "math", "msgspec", "msgspec.structs", "operator", "re", "regex",
    "struct", "typing",
}  # fmt: skip
"""What a pure module may import of other people's: nothing that reaches outside."""
EFFECTS = {
    "asyncio", "ctypes", "fcntl", "logging", "multiprocessing", "netfilterqueue", "os", "pyroute2", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
EFFECTS_OF_PROCESS = {
    "tcpha.invocation": {"os", "signal"},
    "tcpha.caretaker": {"logging"},
    "tcpha.eventloop": {"logging", "os", "select", "signal"},
    "tcpha.container.__main__": {"signal"},
    "tcpha.container.command": {"os"},
    "tcpha.container.health": {"time"},
    "tcpha.container.preparation": {"os", "secrets", "shutil"},
    "tcpha.container.process": {"os", "signal", "time"},
    "tcpha.container.signals": {"signal"},
    "tcpha.container.supervision": {"signal"},
    "tcpha.node": {"logging", "secrets", "signal"},
    "tcpha.program": {"logging"},
    "tcpha.secret": {"os"},
    "tcpha.fe.acceleration": {"logging"},
    "tcpha.fe.service": {"logging"},
    "tcpha.be.acceleration": {"logging"},
    "tcpha.be.carried": {"logging"},
    "tcpha.be.left_behind": {"logging"},
    "tcpha.be.service": {"logging"},
    "tcpha.be.taken_back": {"logging"},
}
"""Which of them each file outside net/ and lab/ uses; all others none."""


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in module_files()}


def layer_of(module: str) -> str:
    if module in _LAYER_OF:
        return _LAYER_OF[module]
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "tcpha"


def imports_of(file: Path, *, of_types: bool = False) -> set[str]:
    """Every module that a file imports, anywhere in it; those for annotations only if asked for."""
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types and not of_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(below & MODULES.keys() if below & MODULES.keys() else {str(node.module)})
    return found


def outside(file: Path) -> set[str]:
    return {name for name in imports_of(file) if name.partition(".")[0] != "tcpha"}


def nodes_of(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text()))


EVERY = pytest.mark.parametrize("module", MODULES)
KERNEL = PACKAGE / "kernel"
C_SOURCES = pytest.mark.parametrize("source", [each.name for each in sorted(KERNEL.glob("*.[ch]"))])


@EVERY
def test_module_imports_only_the_layers_below(module: str) -> None:
    own = [name for name in imports_of(MODULES[module], of_types=True) if name.partition(".")[0] == "tcpha"]
    assert {layer_of(name) for name in own} <= LAYERS[layer_of(module)]


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) in PURE and module not in TOOLS])
def test_pure_module_imports_nothing_that_reaches_outside(module: str) -> None:
    allowed = PURE_LIBRARY | ({"pathlib"} if module == "tcpha.errors" else set())  # a path in a message
    assert outside(MODULES[module]) <= allowed


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module).split()[0] not in ("net", "lab")])
def test_module_outside_net_and_lab_uses_only_its_share_of_the_system(module: str) -> None:
    used = {name.partition(".")[0] for name in outside(MODULES[module])} & EFFECTS
    assert used == EFFECTS_OF_PROCESS.get(module, set())


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) != "net"])
def test_module_outside_net_has_no_packet_queue_and_no_netlink(module: str) -> None:
    allowed = {"pyroute2"} if layer_of(module) == "lab" else set()
    assert {name.partition(".")[0] for name in outside(MODULES[module])} & {"netfilterqueue", "pyroute2"} <= allowed


@EVERY
def test_scapy_is_for_captures_and_for_announcing_only(module: str) -> None:
    uses = any(name.partition(".")[0] == "scapy" for name in imports_of(MODULES[module]))
    may = module in ("tcpha.proto.dissect", "tcpha.net.announce") or layer_of(module) == "lab"
    assert may or not uses


@pytest.mark.parametrize("role", ["fe", "be"])
def test_process_is_loaded_it_holds_neither_scapy_nor_the_other_role_nor_tools(role: str) -> None:
    code = f"import json, sys, tcpha.{role}.__main__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout))
    other = {"fe": "be", "be": "fe"}[role]
    assert f"tcpha.{role}.service" in loaded
    unwanted = ("scapy", f"tcpha.{other}", "tcpha.lab", "pytest", "hypothesis", *TOOLS)
    assert [name for name in loaded if name.startswith(unwanted)] == []


@EVERY
def test_module_has_no_assert_statement(module: str) -> None:
    assert [node.lineno for node in nodes_of(MODULES[module]) if isinstance(node, ast.Assert)] == []


@EVERY
def test_module_is_short_enough_to_be_read(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@EVERY
def test_module_says_what_it_is(module: str) -> None:
    assert len(first_sentence(MODULES[module])) > 20


def first_comment(source: str) -> str:
    """The one behind the licence, without its stars."""
    licence, _, rest = source.partition("\n")
    found = re.match(r"/\*(.*?)\*/\n(?:#ifndef|#include|\n)", rest, re.DOTALL)
    return " ".join(found[1].replace("\n *", " ").split()) if found and "SPDX-License-Identifier" in licence else ""


@C_SOURCES
def test_c_source_is_short_enough_to_be_read(source: str) -> None:
    assert len((KERNEL / source).read_text().splitlines()) <= MAX_LINES_OF_C


@C_SOURCES
def test_c_source_says_what_it_is(source: str) -> None:
    assert len(first_comment((KERNEL / source).read_text())) > 20


def test_document_of_the_kernel_lists_every_c_source() -> None:
    rows = re.findall(r"(?m)^\| `([\w.]+\.[ch])` \| .{10,} \|$", (ROOT / "docs" / "kernel.md").read_text())
    assert sorted(rows) == [each.name for each in sorted(KERNEL.glob("*.[ch]"))]


def test_module_names_say_what_is_in_them() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "misc", "base", "core", "data"}
    assert [module for module in MODULES if vague & set(module.rpartition(".")[2].split("_"))] == []


def test_every_layer_is_in_use() -> None:
    assert {layer_of(module) for module in MODULES} == LAYERS.keys()
    assert MODULES.keys() >= _LAYER_OF.keys() | EFFECTS_OF_PROCESS.keys() | TOOLS
    assert PACKAGE.is_dir()


# docs/architecture.md


def test_document_lists_every_module_with_its_docstring() -> None:
    document = DOCUMENT.read_text()
    assert document == with_list(document), "write the list again: python -m tests.unit.module_list"


def test_document_names_keys_and_counters_that_exist() -> None:
    from tcpha.be.counters import BackEndCounters
    from tcpha.config import BackEndConfig, FrontEndConfig
    from tcpha.fe.counters import FrontEndCounters
    from tcpha.fe.flows import Flow
    from tcpha.flowtable import FlowTable

    table_of_flows: FlowTable[Flow] = FlowTable(1, 1, 1.0)
    keys = FrontEndConfig.model_fields.keys() | BackEndConfig.model_fields.keys()
    counters = set(FrontEndCounters.__dataclass_fields__) | set(BackEndCounters.__dataclass_fields__)
    counters |= table_of_flows.sizes().keys()
    for role in ("fe", "be"):  # a service adds what others count
        counters |= set(re.findall(r'(?m)^ {12}"(\w+)":', (PACKAGE / role / "service.py").read_text()))
    table = DOCUMENT.read_text().partition("## Limits")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    assert len(rows) >= 8
    for key_cell, _, counter_cell in rows:
        assert {key.strip("` ") for key in key_cell.split(",")} <= keys
        named = set(re.findall(r"`(\w+)`", counter_cell))
        assert named
        assert named <= counters


def test_document_names_files_that_exist() -> None:
    text = DOCUMENT.read_text().partition("## Every module")[0]
    paths = set(re.findall(r"`([\w./]+\.(?:py|md))`", text)) - {"service.py"}  # each role has one
    assert len(paths) >= 10
    assert [path for path in paths if not ((ROOT / path).exists() or (PACKAGE / path).exists())] == []
