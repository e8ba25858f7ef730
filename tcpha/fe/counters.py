"""What a front end counts; every limit has its number here."""

from __future__ import annotations

from dataclasses import dataclass

from tcpha.errors import WireError


@dataclass(slots=True)
class FrontEndCounters:
    """Counters since the start; the names are those that metrics show."""

    syns: int = 0
    """SYNs answered with a cookie."""
    handshakes: int = 0
    """Bare ACKs with a valid cookie."""
    short_cookies: int = 0
    """First segments without timestamps: only 24 bits of the cookie protect them."""
    keepalives: int = 0
    closed_early: int = 0
    """Clients that closed before they sent a request."""
    requests: int = 0
    """Request heads read to their end."""
    handoffs: int = 0
    """HANDOFFs sent for the first time, to whichever back end."""
    repeats: int = 0
    """HANDOFFs sent again."""
    adopted: int = 0
    refused: int = 0
    silent: int = 0
    """Handoffs given up because the back end did not answer."""
    orphaned: int = 0
    """Connections reset: octets we acknowledged could not be delivered, or the back end restarted."""
    answered: int = 0
    """Connections that the front end answered itself: the sum of the following."""
    answered_400: int = 0
    answered_408: int = 0
    answered_414: int = 0
    answered_431: int = 0
    answered_503: int = 0
    """Over HTTP/2, too."""
    answered_505: int = 0
    answered_alert: int = 0
    """By a TLS alert."""
    answered_goaway: int = 0
    """By an HTTP/2 GOAWAY alone, where no request was read."""
    answered_silently: int = 0
    """Closed without a word: the protocol has none, or the client closed inside its request head."""
    no_choice: int = 0
    """Requests for which no rule or no usable back end was found."""
    timed_out: int = 0
    """Requests and ClientHellos that stayed incomplete for too long."""
    forwarded: int = 0
    """Packets of known flows passed on."""
    icmp_errors: int = 0
    """ICMP errors about packets of known flows passed on."""
    closed: int = 0
    """Flows ended by a CLOSED."""
    ports_reused: int = 0
    older_generations: int = 0
    """Connections reset because their cookie is older than that of the live flow on the same ports."""
    late_duplicates: int = 0
    """First segments of connections that are over."""
    enquiries: int = 0
    """Unknown connections that the back ends were asked about."""
    learned: int = 0
    """Flows taken over from the back ends' answers."""
    resets: int = 0
    """Unknown connections that nobody held."""
    idle_dropped: int = 0
    unknown_dropped: int = 0
    """Segments of unknown connections beyond the limit of questions."""
    table_full: int = 0
    evicted: int = 0
    """Connections decided before they were complete because too many were being read."""
    dropped_flags: int = 0
    """Segments whose flags make no sense where they came."""
    fragments: int = 0
    """Fragments refused: this host does not put them together, as one does that tracks connections."""
    extra_headers: int = 0
    """Packets refused for IPv4 options or IPv6 extension headers."""
    malformed: int = 0
    """Packets that could not be decoded."""
    unexpected_messages: int = 0

    def answer(self, kind: str) -> None:
        """One more connection was answered: `kind` is what follows `answered_` in a counter's name."""
        name = f"answered_{kind}"
        setattr(self, name, getattr(self, name) + 1)
        self.answered += 1

    def refuse(self, error: WireError) -> None:
        """One more packet could not be read."""
        setattr(self, error.counter, getattr(self, error.counter) + 1)
