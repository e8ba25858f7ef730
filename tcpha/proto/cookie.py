"""SYN cookies (RFC 4987, 3.6): the front end answers SYNs without storing anything.

The initial sequence number ISS carries what the handshake agreed on, under a keyed hash:

    bits 31..8   24 bits of the hash
    bits  7..0   agreement octet XOR 8 bits of the hash: MSS class (3), window scale (4, 15 = none), SACK (1)

With timestamps the SYN-ACK's TSval is 32 more bits of the hash, never 0: no clock is needed, and the request's TSecr
must echo it. That protects connections which carry timestamps. It does not stop a forger, who leaves them out: a
segment without timestamps is checked against the 24 bits only, in any of 3 periods and under any key (one or two), so
one guess in 2**24 / (3 * keys) is right. Segments without timestamps are counted (`short_cookies` of the front end).

Hashed is one 64-octet block with keyed BLAKE2s (digest of 8 octets, RFC 7693), network byte order:

     0 16 client address (IPv4 mapped)   16 16 virtual address (IPv4 mapped)
    32  2 client port    34 2 VIP port   36  4 IRS    40 4 period    44 20 zero

Deviation: the client's MSS is rounded down to one of 8 sizes, so segments may be smaller than it allows, as with SYN
cookies everywhere. One below 88 counts as 88: over no link in use is that too much.

The period counts 32-second steps of UTC. A cookie of the current period, the one before and the one after (another
front end's clock may be ahead) is accepted.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right

from msgspec import Struct

from tcpha.proto.ip import KEY_OCTETS_IPV4, ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.seqnum import SeqNum

PERIOD_SHIFT = 5
PERIOD_S = 1 << PERIOD_SHIFT
LIFE_S = 2 * PERIOD_S
"""No cookie is accepted for longer than this after it was made (the clocks of front ends agreeing)."""

MSS_CLASSES = (88, 536, 1220, 1360, 1400, 1440, 1460, 8960)
NO_WINDOW_SCALE = 15
_PURPOSE = b"tcpha cookie"
_MAPPED = bytes(10) + b"\xff\xff"
_V4 = struct.Struct("!12s4s12s8sII20x")
_V6 = struct.Struct("!36sII20x")
_DIGEST = struct.Struct("!II")
_HASH_BITS = 0xFFFFFF00


class Agreement(Struct, frozen=True, gc=False):
    """What the handshake agreed on, as the cookie can carry it."""

    mss: int
    """The client's MSS, rounded down to one of `MSS_CLASSES`."""
    window_scale: int | None
    """The client's shift count, 0..14, None if windows are not scaled."""
    sack: bool


class Cookie(Struct, frozen=True, gc=False):
    """A cookie that was verified."""

    agreement: Agreement
    period: int
    tsval: int | None
    """The TSval the front end sent, None if timestamps were not agreed on."""


def mss_class(mss: int) -> int:
    """Return the index of the largest class that does not exceed `mss` (the smallest class for less)."""
    return max(bisect_right(MSS_CLASSES, mss) - 1, 0)


def _encode_agreement(agreement: Agreement) -> int:
    scale = NO_WINDOW_SCALE if agreement.window_scale is None else agreement.window_scale
    return mss_class(agreement.mss) << 5 | scale << 1 | agreement.sack


AGREEMENTS = tuple(
    Agreement(MSS_CLASSES[octet >> 5], None if octet >> 1 & 15 == NO_WINDOW_SCALE else octet >> 1 & 15, bool(octet & 1))
    for octet in range(256)
)
"""What the handshake agreed on, by the octet in the cookie that says it."""


class SynCookies:
    """Makes and verifies cookies. `period_floor` refuses that period and all before it (see `tcpha.finished`)."""

    def __init__(self, keyring: Keyring) -> None:
        # A keyed state is prepared once: the key block is not hashed again for each packet.
        self._states = [hashlib.blake2s(key=key.derive(_PURPOSE), digest_size=8) for key in keyring.keys]
        self.period_floor = -1

    def make(self, key: ConnectionKey, irs: SeqNum, agreement: Agreement, utc_s: float) -> tuple[SeqNum, int]:
        """Return ISS and TSval for a SYN that travelled along `key`."""
        high, low = self._digest(0, key, irs, int(utc_s) >> PERIOD_SHIFT)
        return SeqNum(high ^ _encode_agreement(agreement)), low or 1

    def check(
        self, key: ConnectionKey, irs: SeqNum, iss: SeqNum, tsecr: int | None, utc_s: float
    ) -> Cookie | None:  # fmt: skip
        """Verify the cookie that a segment along `key` acknowledges; `tsecr` None if it has no timestamps."""
        now = int(utc_s) >> PERIOD_SHIFT
        for period in (now, now - 1, now + 1):
            if (found := self._check_period(key, irs, iss, tsecr, period)) is not None:
                return found if period > self.period_floor else None
        return None

    def is_expired(self, key: ConnectionKey, irs: SeqNum, iss: SeqNum, utc_s: float, periods: int) -> bool:
        """Was this a cookie of ours in one of the last `periods` periods that are no longer accepted?

        One hash a period and key: for segments that are rare or rate-limited, never for every packet.
        """
        newest = (int(utc_s) >> PERIOD_SHIFT) - 2
        return any(
            ((self._digest(state, key, irs, period)[0] ^ iss) & _HASH_BITS) == 0
            for period in range(newest, newest - periods, -1)
            for state in range(len(self._states))
        )

    def _check_period(
        self, key: ConnectionKey, irs: SeqNum, iss: SeqNum, tsecr: int | None, period: int
    ) -> Cookie | None:
        for state in range(len(self._states)):
            high, low = self._digest(state, key, irs, period)
            agreed = high ^ iss
            if agreed & _HASH_BITS == 0 and (tsecr is None or tsecr == (low or 1)):
                return Cookie(AGREEMENTS[agreed], period, None if tsecr is None else tsecr)
        return None

    def _digest(self, state: int, key: ConnectionKey, irs: SeqNum, period: int) -> tuple[int, int]:
        if len(key) == KEY_OCTETS_IPV4:
            block = _V4.pack(_MAPPED, key[:4], _MAPPED, key[4:], irs, period & 0xFFFFFFFF)
        else:
            block = _V6.pack(key, irs, period & 0xFFFFFFFF)
        hashed = self._states[state].copy()
        hashed.update(block)
        high, low = _DIGEST.unpack(hashed.digest())
        return high, low
