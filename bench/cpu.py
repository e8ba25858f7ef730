"""CPU, memory and traffic as the kernel counts them: proc(5), proc_pid_stat(5), proc_pid_smaps(5).

Must not know whose processes they are. A process is charged for what it executes, in user space and in the kernel, also
for the softirq work that is done on its behalf or merely while it runs: on virtual links that is the receiver's TCP,
too. What the kernel's own threads do (ksoftirqd) is charged to nobody; the whole machine's CPU contains it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcpha.lab.node import Node

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_NS_PER_S = 1e9
_GROUP = 2
"""Index of the process group among the fields of /proc/PID/stat that follow the name."""


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU of the machine since it started, in seconds over all its processors."""

    busy_s: float
    """In use by anybody here."""
    idle_s: float
    steal_s: float
    """Taken by the machine's own host."""

    def since(self, before: Machine) -> Machine:
        """What came between."""
        return Machine(self.busy_s - before.busy_s, self.idle_s - before.idle_s, self.steal_s - before.steal_s)

    @property
    def capacity_s(self) -> float:
        """Of all processors, used or not."""
        return self.busy_s + self.idle_s + self.steal_s

    @property
    def busy_share(self) -> float:
        """Of all processors, 0 to 1."""
        return self.busy_s / max(_TICK_S, self.capacity_s)

    @property
    def steal_share(self) -> float:
        """Of all processors, 0 to 1."""
        return self.steal_s / max(_TICK_S, self.capacity_s)


def of_machine() -> Machine:
    """The first line of /proc/stat; guests are contained in user and nice."""
    line = (_PROC / "stat").read_text().partition("\n")[0]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) * _TICK_S for field in line.split()[1:9])
    return Machine(user + nice + system + irq + softirq, idle + iowait, steal)


def group_of(pid: int) -> tuple[int, ...]:
    """Process ids of a process group: a daemon of the lab and its workers."""
    return tuple(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and _group(entry) == pid)


def _group(entry: Path) -> int | None:
    with suppress(OSError):
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        return int(fields[_GROUP])
    return None


@dataclass(frozen=True, slots=True)
class Lab:
    """CPU of a lab's processes, of this one and of its children that ended, of the kernel's threads, in seconds."""

    own_s: float
    others_s: dict[int, float]
    """By process id."""

    def since(self, before: Lab) -> float:
        """What came between; a process that ended meanwhile counts nothing."""
        return (
            self.own_s
            - before.own_s
            + sum(used_s - before.others_s.get(pid, 0.0) for pid, used_s in self.others_s.items())
        )


def of_lab(residents: Collection[int]) -> Lab:
    """CPU of everybody in a lab: its processes, this one with what it ran, and `softirq_threads`."""
    times = os.times()
    own_s = times.user + times.system + times.children_user + times.children_system
    return Lab(own_s, {pid: of_processes([pid]) for pid in (*residents, *softirq_threads())})


def softirq_threads() -> tuple[int, ...]:
    """Process ids of the kernel's threads for softirq work that nobody's time is left for."""
    return tuple(
        int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and _name(entry).startswith("ksoftirqd/")
    )


def _name(entry: Path) -> str:
    with suppress(OSError):
        return (entry / "comm").read_text().strip()
    return ""


def of_processes(pids: Collection[int]) -> float:
    """CPU in seconds of all threads that these processes have now; those that are gone count nothing."""
    total_ns = 0
    for pid in pids:
        with suppress(OSError):
            for task in (_PROC / str(pid) / "task").iterdir():
                with suppress(OSError):
                    total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / _NS_PER_S


def memory_octets(pids: Collection[int]) -> int:
    """Memory of these processes, what they share with others in proportion (PSS); those that are gone have none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def interface_octets(node: Node, ifname: str) -> int:
    """What an interface of a node sent and received since it is there."""
    with node.enter():
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    for line in lines:
        name, _, counters = line.partition(":")
        if name.strip() == ifname:
            fields = counters.split()
            return int(fields[0]) + int(fields[8])
    raise OSError(f"{node.name} has no interface {ifname}")


def sockets_in_use(node: Node) -> int:
    """TCP sockets of a node that are not closed, listening ones included."""
    with node.enter():
        lines = Path("/proc/thread-self/net/sockstat").read_text().splitlines()
    words = next(line.split() for line in lines if line.startswith("TCP:"))
    return int(words[words.index("inuse") + 1])


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]
