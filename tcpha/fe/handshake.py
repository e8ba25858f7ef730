"""The client's handshake, answered without remembering anything (RFC 4987, SYN cookies).

Whatever is decided here is decided from one segment and the cluster's secret: any front end can continue a handshake
that another one began.
"""

from __future__ import annotations

from tcpha.proto.cookie import PERIOD_S, Agreement, Cookie, SynCookies
from tcpha.proto.ip import KEY_OCTETS_IPV6, reverse_key
from tcpha.proto.options import Options, encode_options, encode_timestamps
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment, encode_segment

DEFAULT_MSS_IPV4 = 536
DEFAULT_MSS_IPV6 = 1220
"""The client's MSS if its SYN names none (RFC 9293, 3.7.1)."""

EXPIRED_PERIODS = 64
"""How far back, in cookie periods of 32 s, an expired handshake is told from a segment of nobody."""


class Handshake:
    """Answers SYNs, recognises what follows them, and speaks for connections that never sent a request."""

    def __init__(self, cookies: SynCookies, promise: Promise, window_octets: int) -> None:
        self._cookies = cookies
        self._promise = promise
        self._window_octets = window_octets
        self.utc_s = 0.0

    def syn_ack(self, syn: Segment) -> bytes:
        """Return the SYN-ACK for a SYN. Raises: OptionError.

        Deviation: ECN is declined (RFC 3168, 6.1.1 leaves that to us), data in a SYN is not taken (it is sent again),
        and a window scale above 14 counts as 14 (RFC 7323, 2.3).
        """
        offered, promise = syn.options, self._promise
        ipv6 = len(syn.key) == KEY_OCTETS_IPV6
        scaled = offered.window_scale is not None and promise.window_scale is not None
        sack = offered.sack_permitted and promise.sack
        mss = offered.mss or (DEFAULT_MSS_IPV6 if ipv6 else DEFAULT_MSS_IPV4)
        agreement = Agreement(mss, offered.window_scale if scaled else None, sack)
        # Where cookies of this period are refused for want of memory, the next period's are accepted already.
        made_at = max(self.utc_s, (self._cookies.period_floor + 1) * PERIOD_S)
        iss, tsval = self._cookies.make(syn.key, syn.seg_seq, agreement, made_at)
        stamps = (tsval, offered.timestamps[0]) if offered.timestamps and promise.timestamps else None
        options = Options(promise.mss_of(ipv6), promise.window_scale if scaled else None, sack, stamps)
        return encode_segment(
            reverse_key(syn.key), iss, seq_add(syn.seg_seq, 1), SYN | ACK, self._window_octets, encode_options(options)
        )

    def cookie_of(self, segment: Segment) -> Cookie | None:
        """Verify the cookie of a segment that begins at IRS + 1. Raises: OptionError."""
        return self._check(segment, seq_add(segment.seg_seq, -1), seq_add(segment.seg_ack, -1))

    def cookie_of_probe(self, segment: Segment) -> Cookie | None:
        """Verify the cookie of a keep-alive probe, which begins one before what is expected. Raises: OptionError."""
        return self._check(segment, segment.seg_seq, seq_add(segment.seg_ack, -1))

    def is_last_of_close(self, segment: Segment) -> bool:
        """Does the segment acknowledge our FIN, sent to a client that closed before a request? Raises: OptionError."""
        return self._check(segment, seq_add(segment.seg_seq, -2), seq_add(segment.seg_ack, -2)) is not None

    def is_expired(self, segment: Segment) -> bool:
        """Does the segment complete a handshake of ours that is too old?"""
        irs, iss = seq_add(segment.seg_seq, -1), seq_add(segment.seg_ack, -1)
        return self._cookies.is_expired(segment.key, irs, iss, self.utc_s, EXPIRED_PERIODS)

    def acknowledge(self, segment: Segment, cookie: Cookie, ack: SeqNum, flags: int = ACK) -> bytes:
        """Return an answer to a connection whose request has not begun: an ACK, or FIN and ACK."""
        options = b""
        if cookie.tsval is not None and (stamps := segment.timestamps) is not None:
            options = encode_timestamps(cookie.tsval, stamps[0])
        window = self._promise.window_field(self._window_octets, cookie.agreement.window_scale is not None)
        return encode_segment(reverse_key(segment.key), segment.seg_ack, ack, flags, window, options)

    def _check(self, segment: Segment, irs: SeqNum, iss: SeqNum) -> Cookie | None:
        stamps = segment.timestamps
        return self._cookies.check(segment.key, irs, iss, None if stamps is None else stamps[1], self.utc_s)


def reset(segment: Segment) -> bytes:
    """Return the RST that answers a segment of no connection (RFC 9293, 3.10.7.1)."""
    if segment.flags & ACK:
        return encode_segment(reverse_key(segment.key), segment.seg_ack, SeqNum(0), RST, 0)
    ack = seq_add(segment.seg_seq, segment.seg_len)
    return encode_segment(reverse_key(segment.key), SeqNum(0), ack, RST | ACK, 0)


def is_first(segment: Segment) -> bool:
    """May the segment be the first behind a handshake that carries anything?"""
    return bool(segment.flags & FIN) or segment.end > segment.payload_offset
