"""What the tests of the lab see of it from outside: its command, its traces on this machine, its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcpha.lab import documents, namespaces, residents
from tcpha.lab.addressing import MTU_OCTETS, split_namespace
from tcpha.lab.cluster import RUN_DIRECTORY, Lab, namespaces_of
from tcpha.lab.node import Node

COMMAND = [sys.executable, "-m", "tcpha.lab"]


def get(lab: Lab, url: str) -> str:
    return lab.client.run(["curl", "-sS", "--max-time", "10", url], check=True).stdout


def command(*arguments: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=limit_s, check=False)


def traces(name: str) -> list[str]:
    """Everything on this machine that speaks of a lab of this name, but its processes."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [target for target in targets if (split_namespace(Path(target).name) or ("",))[0] == name]
    paths = [RUN_DIRECTORY / name, documents.directory_in_memory(name)]
    return [*namespaces_of(name), *mounts, *(str(path) for path in paths if path.exists())]


def processes_naming(text: str) -> list[int]:
    """Processes whose command line holds `text`, zombies and the asking one not among them."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append(int(entry))
    return found


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a function for a signal (proc_pid_status(5), SigCgt)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def living_in(lab: Lab) -> tuple[int, ...]:
    identities = {namespaces.identity(node.namespace) for node in lab.nodes.values()}
    return residents.find({identity for identity in identities if identity is not None})


def get_octets(lab: Lab, path: str) -> bytes:
    url = f"http://{lab.backends[0].ipv4}{path}"
    return lab.client.run(["curl", "-sS", url], text=False, check=True).stdout


def path_mtu_octets(node: Node, whither: str) -> int:
    """What the kernel of a node knows of the way to an address; its interface's MTU if it has learned nothing."""
    (route,) = json.loads(node.run(["ip", "-j", "route", "get", whither], check=True).stdout)
    return int(next((metric["mtu"] for metric in route.get("metrics", []) if "mtu" in metric), MTU_OCTETS))


@contextmanager
def forgetting(node: Node) -> Iterator[None]:
    """What the node learns of its routes meanwhile is forgotten at the end."""
    try:
        yield
    finally:
        for version in ("-4", "-6"):
            node.run(["ip", version, "route", "flush", "cache"], check=True)
