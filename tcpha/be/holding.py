"""Packets that arrived before the HANDOFF they belong to: held for a moment, in order, bounded."""

from __future__ import annotations

from math import inf

from tcpha.proto.ip import ConnectionKey
from tcpha.proto.tcp import Segment

PACKETS_A_FLOW = 64


class Holding:
    """Early packets of flows nobody has handed over yet."""

    def __init__(self, limit: int, time_s: float) -> None:
        self._limit = limit
        self._time_s = time_s
        # Every entry is held equally long, so the dictionary's insertion order is the order of expiry.
        self._entries: dict[ConnectionKey, tuple[float, list[Segment]]] = {}
        self._packets = 0

    def __len__(self) -> int:
        return self._packets

    def add(self, segment: Segment, now: float) -> bool:
        """Hold a packet; False if there is no room for it."""
        if self._packets >= self._limit:
            return False
        _, segments = self._entries.setdefault(segment.key, (now + self._time_s, []))
        if len(segments) >= PACKETS_A_FLOW:
            return False
        segments.append(segment)
        self._packets += 1
        return True

    def take(self, key: ConnectionKey) -> list[Segment]:
        """Return what is held of one flow, in order of arrival."""
        _, segments = self._entries.pop(key, (0.0, []))
        self._packets -= len(segments)
        return segments

    def expire(self, now: float) -> int:
        """Drop what nobody has asked for in time; return how many packets that were."""
        dropped = 0
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key][0] > now:
                break
            dropped += len(self.take(key))
        return dropped

    def next_deadline(self) -> float:
        """Return when the oldest entry expires, `math.inf` if nothing is held."""
        return next((deadline for deadline, _ in self._entries.values()), inf)
