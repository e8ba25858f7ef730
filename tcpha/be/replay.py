"""The replay: the client's handshake and request, played to the server's TCP (RFC 9293, 3.5, the client's side).

    SYN (the client's IRS, the agreed options)  ->
                                                <-  SYN-ACK: the server's ISS
    SYN again                                   ->
                                                <-  SYN-ACK again: its window scale, its clock
    ACK with the request octets                 ->

The SYN comes twice so that the server's TCP measures no round trip: the replay's own takes microseconds, the client's
may take a thousand times as long, and for what is measured too short the server pays with repetitions and, with BBR,
with nearly all of its rate. What was repeated is not measured (RFC 6298, section 3). Why: docs/adr/0007.

Deviation: until the client's first acknowledgement of the response has given it a round trip, the server repeats what
is not acknowledged after 1 s and then after 3 s, as Linux does behind its own SYN cookies, not after 0.2 s and more.

Any other answer than the expected SYN-ACK is read for what it says of the host's sockets. Pure: segments in, packets
and verdicts out.
"""

from __future__ import annotations

from enum import Enum, auto

from tcpha.be.flows import Flow
from tcpha.be.translator import Translation
from tcpha.proto.messages import Handoff
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.seqnum import MASK, SeqNum, seq_add
from tcpha.proto.tcp import ACK, PSH, RST, SYN, Segment, encode_segment

RETRY_AFTER_S = (0.03, 0.06, 0.12)
"""Silence after which the SYN is sent again; the backlog may have been full for a moment."""

REQUEST_RETRY_AFTER_S = 0.035
"""The same for the request: the accept queue may have room for a moment only, and what a client sends later takes it,
too, but leaves the server without the request."""

FIRST_SYNS = 4
"""So many SYNs that are played before one is answered differ in their timestamps."""

LEAST_COOKIE_MSS = 1220
"""A host that falls back to SYN cookies of its own knows few sizes of segments: it sends up to 536 octets over IPv4, up
to 1220 over IPv6, to a client whose MSS is smaller than that (Linux, net/ipv4/syncookies.c, net/ipv6/syncookies.c)."""


class Answer(Enum):
    """What a packet that leaves for a replayed SYN means."""

    EXPECTED = auto()
    """The SYN-ACK."""
    NO_LISTENER = auto()
    STALE = auto()
    """Another socket holds the four-tuple: a challenge ACK, TIME-WAIT, an older replay."""


def syn(handoff: Handoff, ticks_before: int = 0) -> bytes:
    """Return the client's SYN, played again with what was agreed on.

    The clock ticks between one and the next, so that the echo tells which one was answered; it stands at `ticks_before`
    0 when the SYN is played because it was answered. An older one than that never comes later.
    """
    agreement, identity = handoff.agreement, handoff.identity
    stamps = None if handoff.tsval_sent is None else ((handoff.tsval_client - ticks_before) & MASK, 0)
    options = Options(agreement.mss, agreement.window_scale, agreement.sack, stamps)
    # The window of a SYN is never scaled (RFC 7323, 2.2).
    window = min(handoff.window << (agreement.window_scale or 0), 0xFFFF)
    return encode_segment(identity.key, identity.irs, SeqNum(0), SYN, window, encode_options(options))


def read_answer(handoff: Handoff, segment: Segment) -> Answer:
    """Read what the host's TCP says to the replayed SYN."""
    fits = segment.flags & ACK and segment.seg_ack == seq_add(handoff.identity.irs, 1)
    if fits and segment.flags & SYN:
        return Answer.EXPECTED
    if fits and segment.flags & RST:
        return Answer.NO_LISTENER
    return Answer.STALE


def is_cookie(handoff: Handoff, granted: Options) -> bool:
    """Is the answer to the SYN that was played because it was answered a SYN cookie of the host's?

    A socket echoes the timestamp of the SYN that made it, a host that remembers none that of the very SYN.
    """
    return granted.timestamps is not None and granted.timestamps[1] == handoff.tsval_client


def keeps_timestamps(handoff: Handoff, granted: Options) -> bool:
    """Does the server's SYN-ACK grant timestamps if and only if the client was promised them?"""
    return (handoff.tsval_sent is None) == (granted.timestamps is None)


def translation_of(handoff: Handoff, server_iss: SeqNum, granted: Options) -> Translation:
    """Compare what was promised with what the server's SYN-ACK grants, which `keeps_timestamps`."""
    tsval_delta = None
    if handoff.tsval_sent is not None and granted.timestamps is not None:
        tsval_delta = (handoff.tsval_sent - granted.timestamps[0]) & MASK
    unscaled = granted.window_scale is None
    return Translation(
        seq_delta=(handoff.identity.iss - server_iss) & MASK,
        tsval_delta=tsval_delta,
        leaving_shift=(granted.window_scale or 0) - (handoff.promised_window_scale or 0),
        arriving_shift=(handoff.agreement.window_scale or 0) if unscaled else 0,
        mss=max(handoff.agreement.mss, LEAST_COOKIE_MSS),
    )


def first_segment(flow: Flow, handoff: Handoff) -> bytes:
    """Return the ACK that completes the replayed handshake, with the request octets; also their repetition."""
    options = b"" if handoff.tsval_sent is None else encode_timestamps(handoff.tsval_client, flow.tsecr)
    window = handoff.window
    if flow.translation is not None and flow.translation.arriving_shift:
        window = min(window << flow.translation.arriving_shift, 0xFFFF)
    return encode_segment(
        flow.key,
        seq_add(flow.identity.irs, 1),
        seq_add(flow.server_iss, 1),
        ACK | PSH if handoff.octets else ACK,
        window,
        options,
        handoff.octets,
    )
