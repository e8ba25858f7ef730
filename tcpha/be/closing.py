"""How a connection ends, watched from outside: each side's FIN, and the other side's acknowledgement of it.

The back end only watches. A FIN is believed when the host's TCP has acknowledged it, a client's RST when the host's
socket is gone: what a stranger forges ends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from tcpha.be.actions import Send
from tcpha.be.flows import Flow
from tcpha.proto.handoff import FLOWS_A_MESSAGE, by_message
from tcpha.proto.messages import Closed, Identity
from tcpha.proto.seqnum import SeqNum, seq_add, seq_diff, seq_lt
from tcpha.proto.tcp import ACK, FIN, RST, Segment
from tcpha.rules import Endpoint

FAREWELL_DELAY_S = 0.05
"""How long ended flows are collected, so that many share one CLOSED."""


LATE_OCTETS = 1 << 24
"""How far behind the server's RCV.NXT a packet of a finished connection may begin.

RFC 7323 allows windows of 2^30 octets; this is twice the largest one that a front end with the default `window_scale`
promises. FAR_OCTETS in tcpha/kernel/be.h is the same.
"""


def watch_arriving(flow: Flow, segment: Segment) -> None:
    """Look for the client's FIN or RST, and for its acknowledgement of the server's FIN.

    Nothing follows a FIN, so only its very number acknowledges it: one beyond it is a stranger's.
    """
    if segment.flags & RST:
        flow.rst_arriving = True
    if segment.flags & FIN:
        end = seq_add(segment.seg_seq, segment.seg_len)
        if seq_lt(flow.rcv_nxt, end):
            flow.fin_arriving = end
            flow.busy = True
    if flow.fin_leaving is not None and segment.flags & ACK and segment.seg_ack == flow.fin_leaving:
        flow.fin_leaving_acked = True


def watch_leaving(flow: Flow, segment: Segment) -> None:
    """Look for the server's FIN, and for its acknowledgement of the client's. `flow.rcv_nxt` is already renewed."""
    if segment.flags & FIN and flow.translation is not None:
        flow.fin_leaving = seq_add(segment.seg_seq, flow.translation.seq_delta + segment.seg_len)
        flow.busy = True
    if segment.flags & ACK:
        if segment.seg_ack == flow.fin_arriving:
            flow.fin_acked = segment.seg_ack
        # Octets may take its place: then the server's TCP has not believed it.
        flow.fin_arriving_acked = segment.seg_ack == flow.fin_acked
        if flow.fin_arriving is not None and seq_lt(flow.fin_arriving, segment.seg_ack):
            flow.fin_arriving = None


def is_late(flow: Flow, segment: Segment) -> bool:
    """May a packet belong to a connection that is over, rather than to the next one on the same ports?"""
    if flow.translation is None:
        return False
    return is_late_at(flow.rcv_nxt, seq_add(flow.server_seq, flow.translation.seq_delta), segment)


def is_late_at(rcv_nxt: SeqNum, snd_nxt: SeqNum, segment: Segment) -> bool:
    """The same, where the server has acknowledged and sent so far; `is_late` in tcpha/kernel/be_segments.h."""
    if not 0 <= seq_diff(rcv_nxt, segment.seg_seq) < LATE_OCTETS:
        return False
    # The next one may begin there, too, if much was sent in a short time. It acknowledges other octets.
    distance = seq_diff(segment.seg_ack, snd_nxt)
    return not segment.flags & ACK or -LATE_OCTETS < distance < LATE_OCTETS


def has_ended(flow: Flow) -> bool:
    """Have both sides closed, and know it of each other?"""
    return flow.fin_arriving_acked and flow.fin_leaving_acked


class Farewells:
    """Collects identities for CLOSED messages to all front ends."""

    def __init__(self, frontends: Iterable[Endpoint]) -> None:
        self._frontends = tuple(frontends)
        self._identities: list[Identity] = []
        self._due = inf

    def add(self, identity: Identity, now: float) -> None:
        """One more connection is over."""
        self._identities.append(identity)
        self._due = now if len(self._identities) >= FLOWS_A_MESSAGE else min(self._due, now + FAREWELL_DELAY_S)

    def hasten(self, now: float) -> None:
        """Somebody waits: collect no longer."""
        if self._identities:
            self._due = now

    def on_timer(self, now: float) -> list[Send]:
        """Return the messages that are due."""
        if now < self._due:
            return []
        identities, self._identities, self._due = self._identities, [], inf
        return [Send(frontend, Closed(each)) for each in by_message(identities) for frontend in self._frontends]

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called."""
        return self._due
