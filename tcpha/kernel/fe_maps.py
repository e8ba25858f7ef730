"""What lies in the maps of the front end's program (fe.h), as values and octets; docs/kernel.md says what it means.

The program's own numbers are in the machine's order, what it writes into packets is in network order. Addresses have 16
octets, IPv4 ones in their IPv6 form. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tcpha.kernel.be_maps import decode_tuple, encode_endpoint
from tcpha.kernel.blake2s import chain_after_key
from tcpha.proto.cookie import AGREEMENTS, NO_WINDOW_SCALE, Cookie
from tcpha.proto.ip import KEY_OCTETS_IPV4, ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Identity
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import SeqNum

VERSION = 1
"""Of what lies in pinned maps, as that of `be_maps`."""
KEYS = 2
WAYS = 1024
COUNTS = (
    "syns", "handshakes", "forwarded", "tunnelled", "dropped_flags", "dropped_fault", "up_off", "up_form",
    "up_checksum", "up_unknown", "up_held", "up_reused", "up_way", "up_too_big", "up_kernel",
)  # fmt: skip
"""What the program counts, in the order of the map `counts`; names of `FrontEndCounters` mean what they mean there."""

MAC_OCTETS = 6
TUPLE_OCTETS = 36
FLOW_OCTETS = 40
RAISED_HEADER_OCTETS = 12
"""In front of a packet in the ring."""
NS = 1_000_000_000

_PURPOSE, _DIGEST_OCTETS = b"tcpha cookie", 8
_MAPPED = bytes(10) + b"\xff\xff"
_SACK, _TIMESTAMPS = 1, 2
_CONFIG = struct.Struct("!6sBB2H4H")
_TIMES = struct.Struct("=QQQII")
_KEY = struct.Struct("=32sI")
_WAY = struct.Struct("=6s6sHHI16s16s20s")
_FLOW = struct.Struct("=QIIIIIIHBBI")
_RAISED = struct.Struct("=IIBBBx")
_TUPLE_IPV4 = struct.Struct("=12s4s12s8s")
_BACKEND = struct.Struct("!16sHxx")

BackEnd = tuple[bytes, int]
"""A back end's packed address and port."""
Beginning = tuple[Identity, BackEnd, int, int, float, Sequence[int]]
"""A flow that begins: the arguments of `carry`, of whoever carries it, in that order."""


class WayKind(IntEnum):
    """How packets get to a back end."""

    NONE = 0
    NEIGHBOUR = 1
    TUNNEL_IPV4 = 2
    TUNNEL_IPV6 = 3


class Standing(IntEnum):
    """What the program does with the packets of a flow, but for its SYNs, which it answers."""

    FORWARDED = 1
    HELD = 2
    """All are passed up."""
    HANDED = 3
    """Those with octets are passed up, the others forwarded."""


@dataclass(frozen=True, slots=True)
class Way:
    """An entry of `ways`. What its kind does not need is empty."""

    kind: WayKind
    backend: BackEnd
    mac: bytes = b""
    """Of the neighbour."""
    own_mac: bytes = b""
    carried_octets: int = 0
    """The largest packet that fits into the tunnel."""
    source: bytes = b""
    """Packed addresses of the tunnel's ends."""
    destination: bytes = b""


@dataclass(frozen=True, slots=True)
class Carried:
    """An entry of `flows`."""

    identity: Identity
    period: int
    """Of its cookie, whole."""
    last_ack: SeqNum
    last_seen_s: float
    """By CLOCK_MONOTONIC."""
    noted: tuple[SeqNum, ...]
    """IRS + 1 of the last two SYNs seen."""
    way: int
    standing: Standing
    is_doubted: bool
    """A new connection may have begun on its ports: everything is passed up until it is written again, or a second."""

    @property
    def is_held(self) -> bool:
        """Is everything passed up but its SYNs?"""
        return self.standing is Standing.HELD

    @property
    def is_confirmed(self) -> bool:
        """Is everything forwarded?"""
        return self.standing is Standing.FORWARDED


def encode_config(mac: bytes, promise: Promise, window_octets: int) -> bytes:
    """`mac`: the interface's own. `promise`: what fits on the way to the back ends; see Handshake."""
    windows = [promise.offered(window_octets, ipv6, stamps) for ipv6 in (False, True) for stamps in (False, True)]
    return _CONFIG.pack(
        mac,
        NO_WINDOW_SCALE if promise.window_scale is None else promise.window_scale,
        (_SACK if promise.sack else 0) | (_TIMESTAMPS if promise.timestamps else 0),
        promise.mss_of(False),
        promise.mss_of(True),
        *windows,
    )


def encode_times(utc_minus_boot_ns: int, until_boot_ns: int, period_floor: int, read_until_boot_ns: int = 0) -> bytes:
    """Cookies of periods up to `period_floor` are neither made nor accepted; at `until_boot_ns` none are any more.

    At `read_until_boot_ns` nothing goes into the ring any more.
    """
    return _TIMES.pack(utc_minus_boot_ns, until_boot_ns, read_until_boot_ns, period_floor + 1, 0)


def encode_keys(keyring: Keyring) -> tuple[bytes, ...]:
    """The entries of `keys`, empty ones where there is no key."""
    found = [_KEY.pack(chain_after_key(key.derive(_PURPOSE), _DIGEST_OCTETS), 1) for key in keyring.keys[:KEYS]]
    return (*found, *[bytes(_KEY.size)] * (KEYS - len(found)))


def encode_way(way: Way, ident: int) -> bytes:
    """Value of `ways`. `ident`: of the next outer IPv4 packet."""
    backend = encode_endpoint(*way.backend)
    return _WAY.pack(
        way.mac, way.own_mac, way.kind, way.carried_octets, ident, way.source, way.destination, backend
    )  # fmt: skip


def decode_way(octets: bytes) -> tuple[BackEnd | None, int]:
    """Whom the way leads to, None if it was never used; and the number of the next outer packet."""
    *_, ident, _, _, backend = _WAY.unpack(octets)
    address, port = _BACKEND.unpack(backend)
    if not any(backend):
        return None, ident
    return (address[12:] if address.startswith(_MAPPED) else address, port), ident


def decode_raised(record: bytes) -> tuple[bytes, Cookie | None]:
    """A record of the ring `raised`: an IP packet with a TCP segment, whose checksums are right, and its cookie.

    A cookie is told only of what may be first octets, and only where it is valid.
    """
    period, tsecr, agreed, has_cookie, has_stamps = _RAISED.unpack_from(record)
    if not has_cookie:
        return record[RAISED_HEADER_OCTETS:], None
    return record[RAISED_HEADER_OCTETS:], Cookie(AGREEMENTS[agreed], period, tsecr if has_stamps else None)


def write_tuple(key: ConnectionKey, buffer: bytearray | memoryview, at: int = 0) -> None:
    """Write a key of `flows`, 36 octets, as the one numbered `at`."""
    start = at * TUPLE_OCTETS
    if len(key) == KEY_OCTETS_IPV4:
        _TUPLE_IPV4.pack_into(buffer, start, _MAPPED, key[:4], _MAPPED, key[4:])
    else:
        buffer[start : start + TUPLE_OCTETS] = key


def write_flow(
    identity: Identity,
    period: int,
    last_ack: int,
    last_seen_s: float,
    noted: Sequence[int],
    way: int,
    standing: Standing,
    buffer: bytearray | memoryview,
    at: int = 0,
) -> None:
    """Write a value of `flows`, 40 octets, of what `Carried` says, as the one numbered `at`; it is called often."""
    notes = len(noted)
    _FLOW.pack_into(
        buffer, at * FLOW_OCTETS, int(last_seen_s * NS), identity.irs, identity.iss, period & 0xFFFFFFFF, last_ack,
        noted[0] if notes else 0, noted[1] if notes > 1 else 0, way, standing, notes, 0,
    )  # fmt: skip


def decode_flow(four_tuple: bytes, value: bytes) -> Carried:
    """An entry of `flows`."""
    seen_ns, irs, iss, period, last_ack, first, second, way, state, notes, doubted_until = _FLOW.unpack(value)
    identity = Identity(decode_tuple(four_tuple), SeqNum(irs), SeqNum(iss))
    noted = (SeqNum(first), SeqNum(second))[:notes]
    return Carried(identity, period, SeqNum(last_ack), seen_ns / NS, noted, way, Standing(state), doubted_until != 0)
