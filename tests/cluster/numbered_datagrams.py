"""Numbered datagrams from one node of a lab to another: which arrive, how often, in which order, how late.

Must not know why some do not. The receiver's buffer holds all of them, so none is lost there.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass

from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.conversation import Family

PORT = 7
_NUMBERED = struct.Struct("!Id")  # number, when it was sent
_BUFFER_OCTETS = 16 << 20
_SO_RCVBUFFORCE = 33
_QUIET_S = 0.1
_SETTLE_S = 10.0
_PACE = 64


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived, in order."""

    numbers: tuple[int, ...]
    late_s: tuple[float, ...]
    """How long each was on its way."""

    @property
    def copies(self) -> int:
        return len(self.numbers) - len(set(self.numbers))

    @property
    def most_copies(self) -> int:
        return max(Counter(self.numbers).values(), default=0)

    def overtaken(self) -> dict[int, int]:
        """Of each that was overtaken, by how many."""
        order = list(dict.fromkeys(self.numbers))
        found = {
            number: sum(other > number for other in order[max(0, place - 100) : place])
            for place, number in enumerate(order)
        }
        return {number: count for number, count in found.items() if count}


def address(node: Node, family: Family) -> str:
    return str(node.ipv4 if family == "ipv4" else node.ipv6)


def exchange(sender: Node, receiver: Node, family: Family, count: int) -> Received:
    """Send so many; what has arrived when nothing has come for a while."""
    kind = socket.AF_INET if family == "ipv4" else socket.AF_INET6
    with receiver.enter():
        inlet = socket.socket(kind, socket.SOCK_DGRAM)
    with sender.enter():
        outlet = socket.socket(kind, socket.SOCK_DGRAM)
    with inlet, outlet:
        inlet.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        inlet.setblocking(False)
        inlet.bind((address(receiver, family), PORT))
        outlet.connect((address(receiver, family), PORT))
        found: list[tuple[int, float]] = []
        for number in range(count):
            outlet.send(_NUMBERED.pack(number, time.monotonic()))
            if number % _PACE == 0:
                _read(inlet, found)
        _await_quiet(inlet, found)
    return Received(tuple(number for number, _ in found), tuple(late_s for _, late_s in found))


def _await_quiet(inlet: socket.socket, found: list[tuple[int, float]]) -> None:
    seen, since_s = len(found), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since_s
        _read(inlet, found)
        if len(found) != seen:
            seen, since_s = len(found), time.monotonic()
        return time.monotonic() - since_s > _QUIET_S

    assert wait_until(is_quiet, _SETTLE_S, 0.002), "datagrams keep coming"


def _read(inlet: socket.socket, found: list[tuple[int, float]]) -> None:
    while True:
        try:
            octets = inlet.recv(64)
        except BlockingIOError:
            return
        number, sent_s = _NUMBERED.unpack(octets)
        found.append((number, time.monotonic() - sent_s))
