"""What the tests see of the running engine and of its hosts from outside: counters, rules, logs, sockets, memory.

Must not know what a test does. Counters come by SIGUSR1, on which a node logs them as one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conversation import Family, vip

_COUNTERS = re.compile(rb"counters (\{.*\})\n")
_COUNTERS_LIMIT_S = 10.0


def counters(node: Node) -> dict[str, Any]:
    """Every counter and table size of a node's running tcpha.fe or tcpha.be."""
    pid, log = node.engine.pid, node.engine.log
    assert pid is not None, f"{node.name}: no engine runs"
    offset = log.stat().st_size
    found: list[bytes] = []

    def has_answered() -> bool:
        with log.open("rb") as file:
            file.seek(offset)
            found[:] = _COUNTERS.findall(file.read())
        return bool(found)

    os.kill(pid, signal.SIGUSR1)
    assert wait_until(has_answered, _COUNTERS_LIMIT_S, 0.005), f"{node.name} does not log its counters"
    shown: dict[str, Any] = json.loads(found[-1])
    return shown


def packets_seen(node: Node) -> int:
    """Packets from clients that a node's engine has seen: those in its queue and, where the kernel helps, those taken.

    What the kernel passes up is in the queue, or in the program's ring.
    """
    shown = counters(node)
    by_kernel: dict[str, int] = shown.get("kernel", {})
    taken = sum(count for name, count in by_kernel.items() if not name.startswith("up_"))
    queued: int = shown["queue_packets"] if "queue_packets" in shown else shown["arriving_queue_packets"]
    return queued + taken + int(shown.get("ring_packets", 0))


def faults(lab: Lab) -> list[str]:
    """What must never be: counted faults of the running engines, and tracebacks and errors in any engine's log."""
    found = []
    for node in (lab.fe, *lab.backends):
        if node.engine.is_running:
            shown = counters(node)
            found += [f"{node.name}: {name} = {shown[name]}" for name in shown if "faults" in name and shown[name]]
        if node.engine.log.exists():
            lines = node.engine.log.read_text(errors="replace").splitlines()
            wrong = (line for line in lines if "Traceback" in line or " ERROR " in line or " CRITICAL " in line)
            found += [f"{node.name}: {line}" for line in wrong]
    return found


def live_flows(lab: Lab) -> dict[str, int]:
    """Live flows of every running engine, by node."""
    nodes = (lab.fe, *lab.backends)
    shown = {node.name: counters(node) for node in nodes if node.engine.is_running}
    return {name: int(each["flows"]) for name, each in shown.items()}


def adopted_by_kernel(node: Node) -> int:
    """How many connections the kernel of a back end has adopted so far."""
    return int(counters(node).get("kernel", {}).get("started", 0))


def adopted(node: Node) -> int:
    """How many connections a back end has adopted so far, its agent or its kernel."""
    return int(counters(node)["adopted"])


def await_no_flows(lab: Lab, limit_s: float = 5.0) -> None:
    assert wait_until(lambda: not any(live_flows(lab).values()), limit_s, 0.1), f"flows stay: {live_flows(lab)}"


def packets_from_vip(lab: Lab, family: Family) -> int:
    """Packets whose source is the virtual address that the front end's host has seen arrive."""
    program = "iptables-save" if family == "ipv4" else "ip6tables-save"
    saved = lab.fe.run([program, "-c", "-t", "raw"], check=True).stdout
    prefix = 32 if family == "ipv4" else 128
    rule = re.compile(
        rf"^\[(\d+):\d+\] -A PREROUTING -s {re.escape(vip(lab, family))}/{prefix} -p tcp .*tcpha fe", re.M
    )
    found = rule.findall(saved)
    assert len(found) == 1, saved
    return int(found[0])


def log_lines(node: Node, text: str) -> list[str]:
    """Lines of a node's access log that hold `text`."""
    return [line for line in node.access_log.read_text().splitlines() if text in line]


def await_logged(node: Node, text: str, limit_s: float = 5.0) -> list[str]:
    """The same, as soon as there is one: nginx writes the line after the answer."""
    assert wait_until(lambda: bool(log_lines(node, text)), limit_s), f"{node.name} logged no {text!r}"
    return log_lines(node, text)


def resident_octets(node: Node) -> int:
    """Memory of a node's engine (proc_pid_status(5), VmRSS)."""
    status = Path(f"/proc/{node.engine.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def retransmissions(node: Node) -> int:
    """Segments that the kernel of a node has sent again since its start (RFC 2012, tcpRetransSegs)."""
    with node.enter():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def sockets_at(node: Node) -> list[str]:
    """TCP sockets of a node, one line each (ss(8)), but those that listen or only wait for time to pass."""
    lines = node.run(["ss", "-Htan"], check=True).stdout.splitlines()
    return [line for line in lines if line.split()[0] not in ("LISTEN", "TIME-WAIT")]


def extended_count(node: Node, name: str) -> int:
    """One of the kernel's TcpExt counters of a node (nstat(8))."""
    with node.enter():
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index(name)])


def digest(lab: Lab, name: str) -> str:
    """SHA-256 of a document that the servers serve."""
    with (lab.documents / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_line(body: bytes) -> bytes:
    """What the sink answers to a POST of `body`."""
    return hashlib.sha256(body).hexdigest().encode() + b"\n"
