"""What a connection that is open and idle costs its balancer in memory.

Must not know how the balancer keeps it. Only memory of processes is counted (PSS); the kernel's own, for the sockets
of a proxy, is not, so their number is told beside it. The contender was just started: memory that a process kept from
earlier connections would hide the cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from bench import cpu
from bench.arena import Stand
from bench.checking_client import Tally, held

_WARM_UP = 50
_SETTLE_S = 1.0


def measure(stand: Stand, count: int) -> tuple[dict[str, float], Tally]:
    """Figures with so many idle connections, and what came of opening them."""
    enter, document = stand.lab.client.enter, stand.document("/1k.html")
    with held(enter, stand.target, document, _WARM_UP):
        time.sleep(_SETTLE_S)
        pids = stand.pids()
        before = {role: _memory(found) for role, found in pids.items()}
        sockets = cpu.sockets_in_use(stand.lab.fe)
        with held(enter, stand.target, document, count) as tally:
            time.sleep(_SETTLE_S)
            each = {role: grown(before[role], _memory(found)) / count for role, found in pids.items()}
            opened = cpu.sockets_in_use(stand.lab.fe) - sockets
    figures: dict[str, float] = {f"octets_per_connection_{role}": octets for role, octets in each.items()}
    if each:
        figures["octets_per_connection"] = sum(each.values())
    return figures | {"connections": float(count), "front_sockets_per_connection": opened / count}, tally


def grown(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Octets by which processes grew, by process id. One that ended does not count: an engine that was just started
    has a child announce its addresses for some seconds.
    """
    return sum(octets - before[pid] for pid, octets in after.items() if octets)


def _memory(pids: Iterable[int]) -> dict[int, int]:
    return {pid: cpu.memory_octets([pid]) for pid in pids}
