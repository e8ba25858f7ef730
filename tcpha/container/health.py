"""Is the agent of this container well? ``python -m tcpha.container.health``: status 0, or 1 and the reason.

It is, if it reads what comes in: the socket of the handoff channel, on which its peers' messages arrive four times a
second, is empty at some moment of the check, and so is each of its packet queues, or packets were taken from it between
the first look and the last. A process that hangs, or was stopped, lets them fill; a busy one never lets all be empty at
once. The kernel's tables tell (proc_pid_net(5)), so nothing is sent and the agent is not disturbed. Must not
import the configuration: a check runs every few seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

RUN: Final = Path("/run/tcpha")
LIMIT_S: Final = 1.0
_PAUSE_S: Final = 0.05
_NET: Final = Path("/proc/self/net")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be there: a UDP socket bound to an address and port, NFQUEUE numbers."""

    address: str
    port: int
    queues: Sequence[int]


@dataclass(frozen=True, slots=True)
class Look:
    """The kernel's tables at one moment.

    udp: /proc/net/udp or udp6, by the family of the address. queues: /proc/net/netfilter/nfnetlink_queue.
    """

    udp: str
    queues: str


@dataclass(frozen=True, slots=True)
class _Queue:
    """Packets that wait in a queue, and how many were ever taken out of it."""

    waiting: int
    taken: int


def fault_of(wanted: Wanted, looks: Sequence[Look]) -> str | None:
    """Return what was wrong all the time from the first look to the last, None if nothing was."""
    return next(filter(None, (_fault_of_socket(wanted, looks), *_faults_of_queues(wanted, looks))), None)


def _fault_of_socket(wanted: Wanted, looks: Sequence[Look]) -> str | None:
    waiting = [_waiting_octets(look.udp, wanted.address, wanted.port) for look in looks]
    if waiting[-1] is None:
        return f"nobody listens for messages on {wanted.address} port {wanted.port}"
    if 0 in waiting:
        return None
    return f"messages wait unread on {wanted.address} port {wanted.port} ({waiting[-1]} octets)"


def _faults_of_queues(wanted: Wanted, looks: Sequence[Look]) -> Iterator[str]:
    tables = [_queues(look.queues) for look in looks]
    for number in wanted.queues:
        seen = [table[number] for table in tables if number in table]
        if number not in tables[-1]:
            yield f"nobody reads packet queue {number}"
        elif all(queue.waiting for queue in seen) and seen[0].taken == seen[-1].taken:
            yield f"{seen[-1].waiting} packets wait unread in queue {number}"


def _waiting_octets(table: str, address: str, port: int) -> int | None:
    """Return the octets in a socket's receive queue, None without such a socket."""
    local = f"{_hexadecimal(address)}:{port:04X}"
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1] == local:
            return int(fields[4].partition(":")[2], 16)
    return None


def _queues(table: str) -> dict[int, _Queue]:
    """Columns: number, port, waiting, copy mode, copy range, dropped, dropped at the reader's socket, last id, 1."""
    rows = ([int(field) for field in line.split()] for line in table.splitlines())
    return {row[0]: _Queue(waiting=row[2], taken=row[7] - row[6] - row[2]) for row in rows}


def _hexadecimal(address: str) -> str:
    """Spell an address as the kernel does: each of its 32-bit words in the order of this machine's octets."""
    packed = ip_address(address).packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def check(wanted: Wanted, look: Callable[[], Look], limit_s: float = LIMIT_S) -> str | None:
    """Look until nothing is wrong, for `limit_s` at most; return the last fault, None if all is well."""
    ends_at = time.monotonic() + limit_s
    looks: list[Look] = []
    while True:
        looks.append(look())
        fault = fault_of(wanted, looks)
        if fault is None or time.monotonic() >= ends_at:
            return fault
        time.sleep(_PAUSE_S)


def main(run: Path = RUN) -> int:
    """Check this container; return the exit status."""
    try:
        wanted = Wanted(**json.loads((run / "health.json").read_text()))
        table = _NET / ("udp" if ip_address(wanted.address).version == 4 else "udp6")
        queues = _NET / "netfilter" / "nfnetlink_queue"
        fault = check(wanted, lambda: Look(table.read_text(), queues.read_text()))
    except OSError as error:
        fault = f"{error.filename}: {error.strerror}"
    if fault is not None:
        sys.stderr.write(f"{fault}\n")
    return 0 if fault is None else 1


if __name__ == "__main__":
    sys.exit(main())
