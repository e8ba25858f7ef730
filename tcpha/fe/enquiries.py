"""Segments of connections this front end does not know: whose are they?

A restarted front end, or one that took over the virtual address, meets connections in full flight. It asks the back
ends (FLOWS?); the holder gets the packets from then on, and what nobody holds is reset as any host would.

One case must not be reset: a segment that overtook the first of a request looks exactly the same, be it the second, or
the bare ACK with which a client answers a SYN-ACK that came twice (RFC 9293, 3.10.7.4). Only a segment that cannot be
that is reset at once (one that completes a handshake of ours too old to be accepted); anything else only when it is
still unknown `PATIENCE_S` after it was first seen, when a client would long have repeated what was missing: a bare ACK,
which nobody repeats, by the clock, the rest when it is seen again. Why: docs/adr/0001.

Deviation: what belongs to no connection is answered with an RST (RFC 9293, 3.10.7.1) only after `PATIENCE_S`, octets
and a FIN only when they are repeated then: an RST for what overtook its predecessor would kill a healthy connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from tcpha.budget import Budget
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.tcp import Segment
from tcpha.rules import Endpoint

ANSWER_TIME_S = 0.3
"""How long back ends may take to answer."""
PATIENCE_S = 3.0
MEMORY_S = 12.0
"""How long an unknown connection is remembered after it was first seen."""


@dataclass(eq=False, slots=True)
class Enquiry:
    """One unknown connection."""

    key: ConnectionKey
    since: float
    segment: Segment
    may_reset_at_once: bool
    bare: bool
    """It carries nothing, so nobody repeats it."""
    waiting: set[Endpoint]
    """Back ends that have not answered; those that are not heard are never asked."""
    everybody_asked: bool
    ends_at: float = inf


class Enquiries:
    """The bounded table of unknown connections, and how often a question may be asked."""

    def __init__(self, limit: int, rate: float) -> None:
        self._limit = limit
        self._budget = Budget(rate, rate)
        self._table: dict[ConnectionKey, Enquiry] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, key: ConnectionKey) -> bool:
        return key in self._table

    def get(self, key: ConnectionKey) -> Enquiry | None:
        """Return what is known of an unknown connection."""
        return self._table.get(key)

    def may_ask(self, now: float) -> bool:
        """Take one question out of the budget."""
        return self._budget.take(now)

    def open(
        self,
        segment: Segment,
        *,
        may_reset_at_once: bool,
        bare: bool,
        asked: list[Endpoint],
        everybody_asked: bool,
        now: float,
    ) -> None:
        """Begin or renew an enquiry. Where the table is full the oldest goes: strangers cannot fill it for long."""
        known = self._table.pop(segment.key, None)
        if known is None and len(self._table) >= self._limit:
            del self._table[next(iter(self._table))]
        since = known.since if known is not None else now
        self._table[segment.key] = Enquiry(
            segment.key, since, segment, may_reset_at_once, bare, set(asked), everybody_asked, now + ANSWER_TIME_S
        )

    def close(self, key: ConnectionKey) -> Enquiry | None:
        """Forget an enquiry, because somebody holds the connection or it was reset."""
        return self._table.pop(key, None)

    def on_absent(self, backend: Endpoint, key: ConnectionKey, now: float) -> Enquiry | None:
        """One back end does not hold it. Return the enquiry if the segment is to be reset now."""
        enquiry = self._table.get(key)
        if enquiry is None:
            return None
        enquiry.waiting.discard(backend)
        if enquiry.waiting:
            return None
        patient = now - enquiry.since >= PATIENCE_S
        if patient or (enquiry.may_reset_at_once and enquiry.everybody_asked):
            return self._table.pop(key)
        return None

    def on_timer(self, now: float) -> list[Enquiry]:
        """Forget old enquiries; return those whose bare ACK is to be reset now."""
        due = [
            each
            for each in self._table.values()
            if each.bare and each.everybody_asked and not each.waiting and now - each.since >= PATIENCE_S
        ]
        for enquiry in due:
            del self._table[enquiry.key]
        for key in [key for key, each in self._table.items() if now - each.since > MEMORY_S]:
            del self._table[key]
        return due
