"""The client's handshake, answered without remembering anything (RFC 4987, SYN cookies).

Whatever is decided here is decided from one segment and the cluster's secret: any front end can continue a handshake
that another one began.

Deviation: a SYN-ACK is not repeated if no acknowledgement comes (RFC 9293, 3.8.1): nobody remembers it. A client whose
SYN-ACK is lost repeats its SYN.

Deviation: each SYN is answered with a SYN-ACK, whatever was before, and ends nothing. A host that remembers echoes the
timestamp of the first SYN when it is repeated, and answers one of another number with an RST, one inside a connection
with a challenge ACK (RFC 9293, 3.10.7.4; RFC 5961, 4). Here a client that has lost its connection begins the next one
without that detour, and a stranger who forges a SYN does no harm: only octets behind the new handshake replace a flow.

Deviation: an RST before the request is not remembered; a request that follows it is served all the same. No client
sends one.

Deviation: a SYN-ACK that a client sends is dropped, where a host without the connection would answer an RST, one with
it a challenge ACK: a virtual address opens no connections, so only forgers send it one.

Deviation: what the front end itself sends over IPv6 has flow label 0 (RFC 6437, 3: a source should set one). It cannot
know the label that the server's host will choose for the rest of the connection.
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

        Data in the SYN is not taken, as a host without Fast Open does not either: the client sends it again. A window
        scale above 14 counts as 14 (RFC 7323, 2.3).

        Deviation: ECN is declined (RFC 3168, 6.1.1 leaves that to us): the cookie has no room for it.

        Deviation: the clock of the timestamps stands still from the SYN-ACK until a back end has the connection: the
        TSval is part of the cookie. It never goes back (RFC 7323, 5.4), and the client measures by its own clock.
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
        window = promise.offered(self._window_octets, ipv6, stamps is not None)
        return encode_segment(
            reverse_key(syn.key), iss, seq_add(syn.seg_seq, 1), SYN | ACK, window, encode_options(options)
        )

    def cookie_of(self, segment: Segment) -> Cookie | None:
        """Verify the cookie of a segment that begins at IRS + 1. Raises: OptionError.

        Deviation: before the request, only a segment that begins at IRS + 1 shows the number under which its cookie can
        be checked. Any other, the octets behind it or an RST inside the window, is neither taken nor acknowledged nor
        challenged: the client repeats what was octets.

        Deviation: a client that agreed on timestamps and then leaves them out is served without them and without what
        they guard (RFC 7323, 3.2 has the segment dropped): nobody remembers the agreement. No host does so.
        """
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
        """Return an answer to a connection whose request has not begun: an ACK, or FIN and ACK.

        Deviation: a keep-alive probe is answered with its own timestamp, not the last one in order (RFC 7323, 4.3), and
        without telling that its octet came twice (RFC 2883): nothing is remembered of the connection.

        Deviation: a FIN before the request is answered with our FIN, which is repeated when the client repeats its own,
        not by time: nothing is remembered here either.
        """
        options = b""
        if cookie.tsval is not None and (stamps := segment.timestamps) is not None:
            options = encode_timestamps(cookie.tsval, stamps[0])
        offered = self._promise.offered(
            self._window_octets, len(segment.key) == KEY_OCTETS_IPV6, cookie.tsval is not None
        )
        window = self._promise.window_field(offered, cookie.agreement.window_scale is not None)
        return encode_segment(reverse_key(segment.key), segment.seg_ack, ack, flags, window, options)

    def _check(self, segment: Segment, irs: SeqNum, iss: SeqNum) -> Cookie | None:
        stamps = segment.timestamps
        cookie = self._cookies.check(segment.key, irs, iss, None if stamps is None else stamps[1], self.utc_s)
        return cookie if cookie is not None and self._may_have_agreed(cookie.agreement) else None

    def _may_have_agreed(self, agreement: Agreement) -> bool:
        """The hash does not cover the agreement: an acknowledgement that is a little off tells another one."""
        promise = self._promise
        return (promise.sack or not agreement.sack) and (
            promise.window_scale is not None or agreement.window_scale is None
        )


def reset(segment: Segment) -> bytes:
    """Return the RST that answers a segment of no connection (RFC 9293, 3.10.7.1).

    Deviation: a RST of the front end is of the default service class, where Linux takes that of the segment it answers.
    """
    if segment.flags & ACK:
        return encode_segment(reverse_key(segment.key), segment.seg_ack, SeqNum(0), RST, 0)
    ack = seq_add(segment.seg_seq, segment.seg_len)
    return encode_segment(reverse_key(segment.key), SeqNum(0), ack, RST | ACK, 0)


def is_first(segment: Segment) -> bool:
    """May the segment be the first behind a handshake that carries anything?"""
    return bool(segment.flags & FIN) or segment.end > segment.payload_offset
