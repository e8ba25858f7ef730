"""Whom the front end refused or decided early, and why: one line for the operator now and then, however many.

Must not know how a client is answered; a reason is a short text of ours, never what a client sent.
"""

from __future__ import annotations

from math import inf

from tcpha.fe.actions import Note
from tcpha.proto.ip import ConnectionKey, key_text

NOTE_INTERVAL_S = 10.0
REASONS_SHOWN = 6
"""The most frequent ones; of the others only their number is told."""


class Refusals:
    """Counts by reason until they are told; of each reason the last client is remembered."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._last: dict[str, ConnectionKey] = {}
        self._told_at = -inf

    def add(self, reason: str, key: ConnectionKey) -> None:
        """One more connection was refused, or a limit concerned it."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._last[reason] = key

    def on_timer(self, now: float) -> list[Note]:
        """Return what came together since the last line, unless that is too recent."""
        if not self._counts or now < self._told_at + NOTE_INTERVAL_S:
            return []
        self._told_at = now
        note = Note(self._text())
        self._counts.clear()
        self._last.clear()
        return [note]

    def _text(self) -> str:
        often = sorted(self._counts, key=self._counts.__getitem__, reverse=True)
        told = [f"{_times(self._counts[each])} {each}, last {key_text(self._last[each])}" for each in often]
        others = sum(self._counts[each] for each in often[REASONS_SHOWN:])
        if others:
            told[REASONS_SHOWN:] = [f"{_times(others)} for other reasons"]
        return f"refusals and limits: {'; '.join(told)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
