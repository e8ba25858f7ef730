"""A client's first segment that comes again, or part of it: the server's TCP gets it without the octets that it has.

A host that answers SYNs with SYN cookies of its own takes the first segment behind the handshake, as long as its cookie
is valid, for the end of a handshake (RFC 4987, 3.6): where the connection is over, its request would run once more. It
recognises that segment by where it begins, so none that begins there reaches a host which has acknowledged the first
octet, or to which the back end itself plays it. What is left says the same to a connection that lives; of one that is
over, the host says what it says of any segment that nobody waits for. Pure.

Deviation: the duplicate SACK that answers a first segment which came again begins four octets later than its octets do
(RFC 2883, 4): the server's TCP was not shown those four.
"""

from __future__ import annotations

from tcpha.be.flows import Flow, FlowState
from tcpha.be.translator import Translation, translate_arriving
from tcpha.proto.seqnum import MASK, seq_add
from tcpha.proto.tcp import FIN, RST, TCP_HEADER_OCTETS, Segment, decode_segment, encode_segment

CUT_OCTETS = 4
"""How far from the first octet a segment must begin. The index of one of four sizes of segments is the last addend of
Linux's cookies, the first sequence number another: a segment that begins up to three octets beside the first has a
valid cookie, too, of another size (Linux, net/ipv4/syncookies.c)."""


def has_first_octet(flow: Flow) -> bool:
    """Has the server's TCP acknowledged the first octet, or gets it from the replay, or is the connection over?"""
    is_played = flow.state is FlowState.ACK_SENT and flow.handoff is not None and bool(flow.handoff.octets)
    return is_played or flow.is_over or flow.rcv_nxt != flow.first


def is_repetition(flow: Flow, segment: Segment) -> bool:
    """Does a segment bring again what the connection began with, or does it begin so little behind that?"""
    behind = (segment.seg_seq - flow.first) & MASK
    if behind >= CUT_OCTETS or segment.flags & RST:
        return False
    return has_first_octet(flow) if behind == 0 else _has_all_cut_octets(flow)


def _has_all_cut_octets(flow: Flow) -> bool:
    """Can a segment that begins behind the first octet bring nothing new before `CUT_OCTETS`?

    Otherwise it may be what the client really sends next, because the first one was so short.
    """
    if flow.is_over or (flow.rcv_nxt - flow.first) & MASK >= CUT_OCTETS:
        return True
    return flow.state is FlowState.ACK_SENT and flow.handoff is not None and len(flow.handoff.octets) >= CUT_OCTETS


def without_first_octets(flow: Flow, translation: Translation, segment: Segment) -> bytes:
    """Return a client's repetition as the server's TCP may see it. Raises: WireError, also for a wrong checksum."""
    segment.check_checksum()
    return shortened(translate_arriving(translation, segment), (segment.seg_seq - flow.first) & MASK)


def shortened(packet: bytes, behind: int = 0) -> bytes:
    """Return a packet, already in the server's numbers, without those of the first octets that it holds.

    `behind`: how many octets behind the first it begins, less than `CUT_OCTETS`.

    Where nothing is left it is a keep-alive probe (RFC 9293, 3.8.4), which the server's TCP acknowledges as it would
    have acknowledged the octets. If it has not all that are cut off, its acknowledgement makes the client send them
    again, and then they begin elsewhere.
    """
    seen = decode_segment(packet)
    options = packet[seen.tcp_offset + TCP_HEADER_OCTETS : seen.payload_offset]
    cut = CUT_OCTETS - behind
    rest = seen.payload[cut:]
    is_left = rest or (seen.flags & FIN and seen.payload_octets)
    seq = seq_add(seen.seg_seq, min(cut, seen.payload_octets) if is_left else -behind - CUT_OCTETS)
    flags = seen.flags if is_left else seen.flags & ~FIN
    return encode_segment(seen.key, seq, seen.seg_ack, flags, seen.seg_wnd, options, rest)
