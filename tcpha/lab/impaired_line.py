"""The line on which packets are lost, doubled, delayed and overtaken: who leaves it, when, how often. Pure.

Must not know what a packet is, nor what time it is: both are told, and the random numbers come from a generator that is
handed in. Draws happen in the order of arrival, so the same arrivals with the same seed fare the same.

A packet goes through it in this order: it is lost or not; it will leave once or twice; it waits for the delay, all for
the same, so that nobody overtakes anybody there; a chosen one then waits until a drawn number of packets that followed
it have left, or `REORDER_LIMIT_S` has passed. With tc-netem(8) it is the chosen ones that overtake, as many as the
delay holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from tcpha.lab.impairment import Impairment

if TYPE_CHECKING:
    from random import Random

PacketT = TypeVar("PacketT")

HELD_MAX = 20_000
"""Packets that may be held at once; a further one is lost, as by a router whose queue is full."""
REORDER_LIMIT_S = 0.01
"""A packet that nobody overtakes, or too few, leaves after so long."""

Departure = tuple[PacketT, int]
"""A packet and how often it arrives: 0 (lost), 1 or 2."""


@dataclass(slots=True)
class LineCounters:
    """What happened so far."""

    packets: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    """Overtaken by one packet at least."""
    overflowed: int = 0
    """Lost because `HELD_MAX` others were held."""
    held_most: int = 0


class _Delayed(NamedTuple, Generic[PacketT]):
    due_s: float
    packet: PacketT
    times: int
    depth: int


@dataclass(slots=True)
class _HeldBack(Generic[PacketT]):
    packet: PacketT
    times: int
    depth: int
    """By how many it is to be overtaken."""
    until: int
    """It was overtaken by so many when this is how many have passed."""
    limit_s: float


class ImpairedLine(Generic[PacketT]):
    """One line. Every packet that is put in comes out exactly once, of `on_packet`, `on_time` or `drain`."""

    def __init__(self, impairment: Impairment, draws: Random) -> None:
        self.counters = LineCounters()
        self._loss = impairment.loss
        self._duplicate = impairment.duplicate
        self._reorder = impairment.reorder
        self._depth = impairment.reorder_depth
        self._delay_s = impairment.delay_s
        self._draw = draws.random
        self._delayed: deque[_Delayed[PacketT]] = deque()
        self._held_back: list[_HeldBack[PacketT]] = []  # in the order of arrival
        self._passed = 0  # packets that were not held back: each overtook all who are
        self._next_until: float = inf  # the least `until` of those held back

    @property
    def held(self) -> int:
        """Packets that are still to leave."""
        return len(self._delayed) + len(self._held_back)

    @property
    def deadline_s(self) -> float:
        """When `on_time` has something to do, at the latest; infinity if nothing is held."""
        delayed_s = self._delayed[0].due_s if self._delayed else inf
        return min(delayed_s, self._held_back[0].limit_s) if self._held_back else delayed_s

    def on_packet(self, packet: PacketT, now_s: float) -> list[Departure[PacketT]]:
        """Take one packet; who leaves now, in order: it, others, or nobody."""
        self.counters.packets += 1
        if self._loss and self._draw() < self._loss:
            self.counters.lost += 1
            return [(packet, 0)]
        times = 2 if self._duplicate and self._draw() < self._duplicate else 1
        depth = 1 + int(self._draw() * self._depth) if self._reorder and self._draw() < self._reorder else 0
        if self._delay_s or depth:
            held = self.held
            if held >= HELD_MAX:
                self.counters.overflowed += 1
                return [(packet, 0)]
            self.counters.held_most = max(self.counters.held_most, held + 1)
        self.counters.duplicated += times - 1
        if self._delay_s:
            self._delayed.append(_Delayed(now_s + self._delay_s, packet, times, depth))
            return []
        leaving: list[Departure[PacketT]] = []
        self._pass(leaving, packet, times, depth, now_s)
        return leaving

    def on_time(self, now_s: float) -> list[Departure[PacketT]]:
        """Who leaves because of the time, in order."""
        leaving: list[Departure[PacketT]] = []
        while self._delayed and self._delayed[0].due_s <= now_s:
            _, packet, times, depth = self._delayed.popleft()
            self._pass(leaving, packet, times, depth, now_s)
        while self._held_back and self._held_back[0].limit_s <= now_s:
            self._release(leaving, 0)
        return leaving

    def drain(self) -> list[Departure[PacketT]]:
        """All who are held leave, in the order of arrival."""
        leaving = [(held.packet, held.times) for held in self._held_back]
        leaving += [(held.packet, held.times) for held in self._delayed]
        self._held_back.clear()
        self._delayed.clear()
        self._next_until = inf
        return leaving

    def _pass(self, leaving: list[Departure[PacketT]], packet: PacketT, times: int, depth: int, now_s: float) -> None:
        """A packet has waited for the delay: it leaves, or is held back until `depth` others have overtaken it."""
        if depth:
            until = self._passed + depth
            self._held_back.append(_HeldBack(packet, times, depth, until, now_s + REORDER_LIMIT_S))
            self._next_until = min(self._next_until, until)
            return
        leaving.append((packet, times))
        self._passed += 1
        self._release_overtaken(leaving)

    def _release_overtaken(self, leaving: list[Departure[PacketT]]) -> None:
        """Let those go who were overtaken by enough, the first that arrived first."""
        while self._passed >= self._next_until:
            enough = (place for place, held in enumerate(self._held_back) if held.until <= self._passed)
            self._release(leaving, next(enough))

    def _release(self, leaving: list[Departure[PacketT]], place: int) -> None:
        held = self._held_back.pop(place)
        self.counters.reordered += held.until - held.depth < self._passed
        leaving.append((held.packet, held.times))
        for earlier in self._held_back[:place]:
            earlier.until -= 1
        self._next_until = min((other.until for other in self._held_back), default=inf)
