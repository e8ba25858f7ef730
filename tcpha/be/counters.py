"""What a back end counts; every limit has its number here."""

from __future__ import annotations

from dataclasses import dataclass

from tcpha.errors import WireError


@dataclass(slots=True)
class BackEndCounters:
    """Counters since the start; the names are those that metrics show."""

    handoffs: int = 0
    """HANDOFFs that began a replay."""
    repeats: int = 0
    """HANDOFFs of a connection that is already here."""
    late_duplicates: int = 0
    """HANDOFFs and first segments of a connection that is over."""
    stale: int = 0
    """HANDOFFs that lay too long in the socket and were dropped unread."""
    adopted: int = 0
    refused: int = 0
    retries: int = 0
    """SYNs replayed again."""
    cleared: int = 0
    """Sockets of the host destroyed because they held a four-tuple."""
    arriving: int = 0
    """Packets from clients translated."""
    leaving: int = 0
    """Packets to clients translated."""
    icmp_errors: int = 0
    """ICMP errors about packets to clients, translated."""
    held: int = 0
    """Packets that came before their HANDOFF or before the replay was complete."""
    hold_full: int = 0
    hold_expired: int = 0
    """Held packets dropped because no HANDOFF came."""
    replaced: int = 0
    """Live flows replaced by a newer connection on the same four-tuple."""
    closed: int = 0
    """Flows that ended."""
    destroyed: int = 0
    """Flows destroyed because the front end gave them to another."""
    unknown_leaving: int = 0
    """Packets the server sent for no flow, dropped."""
    dropped_flags: int = 0
    table_full: int = 0
    fragments: int = 0
    """Fragments refused: this host does not put them together, as one does that tracks connections."""
    extra_headers: int = 0
    """Packets refused for IPv4 options or IPv6 extension headers."""
    malformed: int = 0
    """Packets that could not be decoded."""
    unexpected_messages: int = 0

    def refuse(self, error: WireError) -> None:
        """One more packet could not be read."""
        setattr(self, error.counter, getattr(self, error.counter) + 1)
