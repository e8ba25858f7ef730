"""What lies in the maps of the back end's programs (be.bpf.c), as values and octets; docs/kernel.md says what it means.

The programs' own numbers are in the machine's order, what they compare with packets is in network order. Addresses have
16 octets, IPv4 ones in their IPv6 form. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tcpha.kernel.blake2s import chain_after_key
from tcpha.proto.handoff import TAG_OCTETS
from tcpha.proto.ip import KEY_OCTETS_IPV4, ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import AGREEMENT_BITS, Identity
from tcpha.proto.seqnum import SeqNum

KEYS = 2
TABLES = 128
"""Tables of 4096 sequence numbers; a peer's epoch has one."""
GENERATIONS = 8
COUNTS = (
    "adopted", "repeated", "recycled", "up_form", "up_off", "up_stranger", "up_epoch", "up_replay", "up_target",
    "up_period", "up_tag", "up_ran", "up_full", "up_live", "up_no_listener", "up_time_wait", "up_kernel",
    "dropped_race", "dropped_fault", "segments", "guarded", "events_lost", "started", "silenced",
)  # fmt: skip
"""What the programs count, in the order of the map `counts`."""

ADOPTING, RAN, AGENT = 1, 2, 3
"""What `ran` says of a connection: the programs adopt it; a packet of its socket left; it is the agent's."""

_PURPOSE = b"tcpha handoff"
_MAPPED = bytes(10) + b"\xff\xff"
_U32 = struct.Struct("=I")
_PORT = struct.Struct("!Hxx")
_CONFIG = struct.Struct("=20sIIHHQ")
_KEY = struct.Struct("=32sII")
_PEER = struct.Struct("=IIHxx")
_NAME = struct.Struct("=36sII")
_FLOW = struct.Struct("=IIHHI8s")
_EVENT = struct.Struct("=36sIIIHHI")
_CLAIM = struct.Struct("=IIII")
_STARTED, _WANTS_ANSWER, _SILENT, _RESET, _REPLACED = 1, 2, 4, 8, 16
_AGREED = (1 << AGREEMENT_BITS) - 1


@dataclass(frozen=True, slots=True)
class Adoption:
    """A connection whose socket has sent a packet after an ADOPTED was asked for, or which is over."""

    identity: Identity
    rcv_nxt: SeqNum
    """The server's TCP acknowledged everything before it."""
    period: int
    """The period of its cookie, the low 16 bits."""
    sender: int
    """Sender id of the front end."""
    confirm: bool
    """An ADOPTED is wanted."""
    over: bool
    """The packet was an RST, or there was none and another connection has the four-tuple: the socket is gone."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The connection that was adopted last on a four-tuple."""

    identity: Identity
    period: int
    """The period of its cookie, the low 16 bits."""
    has_started: bool
    """A packet of its socket left."""
    cookie: bytes
    """What tells its socket from all others (8 octets, as socket diagnostics show it); zeros before that."""


def encode_address(packed: bytes) -> bytes:
    """Return 16 octets for a packed address of 4 or 16."""
    return packed if len(packed) == 16 else _MAPPED + packed


def encode_endpoint(packed: bytes, port: int) -> bytes:
    """Key of `peers` and `targets`: an address and a port."""
    return encode_address(packed) + _PORT.pack(port)


def encode_config(own: bytes, mark: int, retry_mark: int, period_from: int, periods: int, until_ns: int) -> bytes:
    """`own`: the agent's endpoint. Periods are accepted from `period_from` on, so many; none: nothing is adopted.

    Nor is anything after `until_ns` (CLOCK_MONOTONIC).
    """
    return _CONFIG.pack(own, mark, retry_mark, period_from & 0xFFFF, periods, until_ns)


def encode_keys(keyring: Keyring) -> tuple[bytes, ...]:
    """The entries of `keys`, empty ones where there is no key."""
    found = [_KEY.pack(chain_after_key(key.derive(_PURPOSE), TAG_OCTETS), key.number, 1) for key in keyring.keys[:KEYS]]
    return (*found, *[bytes(_KEY.size)] * (KEYS - len(found)))


def encode_peer(epoch: int, table: int, sender: int) -> bytes:
    """Value of `peers`. `table`: 0 .. TABLES - 1, another one for each epoch of a peer."""
    return _PEER.pack(epoch, table, sender)


def encode_tuple(key: ConnectionKey) -> bytes:
    """Key of `flows`: a four-tuple, the client's direction."""
    if len(key) == KEY_OCTETS_IPV4:
        return _MAPPED + key[:4] + _MAPPED + key[4:]
    return bytes(key)


def encode_name(identity: Identity) -> bytes:
    """Key of the maps in `ran`: what the hash of the connection's cookie covers."""
    return _NAME.pack(encode_tuple(identity.key), identity.irs, identity.iss & ~_AGREED)


def encode_number(number: int) -> bytes:
    """A 32-bit index or value."""
    return _U32.pack(number)


def decode_number(octets: bytes) -> int:
    """The same read."""
    return int(_U32.unpack(octets)[0])


def encode_claim(table: int, epoch: int, sequence: int) -> bytes:
    """Context of be_claim."""
    return _CLAIM.pack(table, epoch, sequence, 0)


def decode_claim(context: bytes) -> bool:
    """May the message be run?"""
    return bool(_CLAIM.unpack(context)[3])


def decode_event(octets: bytes) -> Adoption:
    """A record of `events`."""
    four_tuple, irs, iss, rcv_nxt, period, sender, flags = _EVENT.unpack(octets)
    identity = Identity(decode_tuple(four_tuple), SeqNum(irs), SeqNum(iss))
    confirm = flags & _WANTS_ANSWER and not flags & _REPLACED
    return Adoption(identity, SeqNum(rcv_nxt), period, sender, bool(confirm), bool(flags & (_RESET | _REPLACED)))


def is_of(value: bytes | memoryview, identity: Identity) -> bool:
    """Is an entry of `flows` this connection's?"""
    irs, iss, *_ = _FLOW.unpack(value)
    return (irs, iss) == (identity.irs, identity.iss)


def decode_flow(four_tuple: bytes, value: bytes | memoryview) -> Carried:
    """An entry of `flows`."""
    irs, iss, period, _sender, flags, cookie = _FLOW.unpack(value)
    identity = Identity(decode_tuple(four_tuple), SeqNum(irs), SeqNum(iss))
    return Carried(identity, period, bool(flags & _STARTED), cookie)


def asking(value: bytes) -> bytes:
    """The same entry, with the next packet of its socket to be told."""
    return _with_flag(value, _WANTS_ANSWER)


def silent(value: bytes) -> bytes:
    """The same entry, with nothing to leave its socket any more."""
    return _with_flag(value, _SILENT)


def _with_flag(value: bytes, flag: int) -> bytes:
    *known, flags, cookie = _FLOW.unpack(value)
    return _FLOW.pack(*known, flags | flag, cookie)


def decode_tuple(four_tuple: bytes) -> ConnectionKey:
    """The four-tuple of a key of `flows`."""
    if four_tuple[:12] == four_tuple[16:28] == _MAPPED:
        return ConnectionKey(four_tuple[12:16] + four_tuple[28:])
    return ConnectionKey(four_tuple)
