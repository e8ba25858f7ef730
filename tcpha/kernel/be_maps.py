"""What lies in the maps of the back end's programs (be.h), as values and octets; docs/kernel.md says what it means.

The programs' own numbers are in the machine's order, what they compare with packets is in network order. Addresses have
16 octets, IPv4 ones in their IPv6 form. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from tcpha.kernel.blake2s import chain_after_key
from tcpha.proto.flow_fields import decode_field
from tcpha.proto.handoff import TAG_OCTETS
from tcpha.proto.ip import KEY_OCTETS_IPV4, ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import AGREEMENT_BITS, Identity
from tcpha.proto.seqnum import SeqNum

VERSION = 1
"""Of what lies in pinned maps. Another one whenever an entry of before would be misread: shapes are compared anyway,
but not what a flag means, or in what units a time is.
"""
KEYS = 2
TABLES = 128
"""Tables of 4096 sequence numbers; a peer's epoch has one."""
GENERATIONS = 8
COUNTS = (
    "adopted", "repeated", "told_again", "recycled", "up_form", "up_off", "up_stranger", "up_epoch", "up_replay",
    "up_target", "up_period", "up_tag", "up_ran", "up_older", "up_owned", "up_busy", "up_full", "up_live",
    "up_no_listener", "up_time_wait", "up_kernel", "dropped_race", "dropped_fault", "segments", "guarded",
    "events_lost", "started", "silenced", "ended",
)  # fmt: skip
"""What the programs count, in the order of the map `counts`."""

CLOSED, HELD = ("closed_ipv4", "closed_ipv6"), ("held_ipv4", "held_ipv6")
"""Journals, in the order of the map `progress`: of connections whose socket is gone, or that front ends asked about."""
ASKED = ("asked_ipv4", "asked_ipv6")
"""For each entry of `HELD` the sender id of the front end that asked."""

_PURPOSE = b"tcpha handoff"
_TUPLE_OCTETS = 36
_MAPPED = bytes(10) + b"\xff\xff"
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_PORT = struct.Struct("!Hxx")
_CONFIG = struct.Struct("=20sIIHHQQ")
_KEY = struct.Struct("=32sII")
_PEER = struct.Struct("=IIHxx")
_NAME = struct.Struct("=36sII")
_FLOW = struct.Struct("=IIIIHHI8sIIIIIIIHH")
_FLAGS_AND_SEEN = struct.Struct("=20xI16xI20x")
_NUMBERS_AND_FLAGS = struct.Struct("=II12xI40x")
_ORDER = struct.Struct("=36sIIIIHHII")
_ANSWER_HEAD = struct.Struct("=II")
PROGRESS = struct.Struct("=QQQ")
"""How far a journal is: entries taken, written, and read by the agent, ever."""
RUNG_AT = 4 * PROGRESS.size
"""In the map `progress`: the agent has been woken, and has not looked yet (8 octets)."""
STARTED_AND_ENDED = struct.Struct("=QQ")
STARTED_AND_ENDED_AT = RUNG_AT + 8
"""In the same: connections whose socket was seen, and those of them that are over, ever."""
ADOPTED_AND_UNMADE = struct.Struct("=QQ")
ADOPTED_AND_UNMADE_AT = STARTED_AND_ENDED_AT + STARTED_AND_ENDED.size
"""In the same, behind them: connections that were adopted, and those of them that never had a socket, ever."""
LIVING = 1 << 18
"""So many connections live in the programs' care, whatever room the agent has."""
LEASE = struct.Struct("=QQ")
LEASE_AT = 32
"""In the map `config`: the end of the lease, and for how many living connections there is room."""
_CLAIM = struct.Struct("=IIII")
_TYPE_AT = 1  # of a field: the low octet of its type in network order, 0 where the programs have struck it out
_SEEN_SHIFT = 30  # it counts CLOCK_MONOTONIC in units of 2^30 ns
_CARRIED, _STARTED, _OVER, _SILENT, _FIN_LEAVING = 1, 2, 4, 32, 1024
_AGREED = (1 << AGREEMENT_BITS) - 1


class Ran(IntEnum):
    """What `ran` says of a connection."""

    ADOPTING = 1
    """The programs adopt it; no packet of its socket has been seen."""
    RAN = 2
    AGENT = 3
    """The agent has run it, refused it, or never will."""


class Act(IntEnum):
    """What the agent has done with a four-tuple, if it is still that of the connection it means."""

    TAKE = 0
    """It becomes the agent's, unless a connection of the programs lives there."""
    RELEASE = 1
    """It is the agent's no longer."""
    ASK = 2
    """The next packet of its socket is to be told, to the front end of the rank if there is one."""
    SILENCE = 3
    """Nothing may leave its socket any more."""
    END = 4
    """Its socket is gone."""
    FORGET = 5
    """It is over, or never began."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A front end asked once more about a connection, and a packet of its socket has left since; or its client has sent
    an RST, and nobody knows what became of that.
    """

    identity: Identity
    sender: int
    """Sender id of the front end; 0: the RST."""
    rcv_nxt: SeqNum
    """The server's TCP acknowledged everything before it."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Which HANDOFF it was, and so which of two connections on one four-tuple is the later."""

    sender: int
    epoch: int
    sequence: int
    period: int
    """The period of its cookie, the low 16 bits."""

    def is_before(self, other: Rank) -> bool:
        """Is this of an earlier generation? What came of two front ends, or under two epochs, the period orders."""
        if (self.sender, self.epoch) == (other.sender, other.epoch):
            return self.sequence < other.sequence
        return 0 < (other.period - self.period) & 0xFFFF < 0x8000


class Whose(Enum):
    """Who has a four-tuple."""

    AGENT = auto()
    """The agent, or it will have it as soon as it reads what came for it."""
    UNSEEN = auto()
    """The programs; no packet of its socket has been seen."""
    PROGRAMS = auto()
    OVER = auto()
    """It was the programs', and has no socket any more, or one in TIME-WAIT."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The connection that was handed over last on a four-tuple."""

    identity: Identity
    rank: Rank
    whose: Whose
    cookie: bytes
    """What tells its socket from all others (8 octets, as socket diagnostics show it); zeros before a packet left."""
    is_silent: bool = False
    """The agent was about to end it."""
    is_closing: bool = False
    """The server has closed, and its client's next packet may acknowledge it."""
    seen: int = field(default=0, compare=False)
    """When a packet passed last, as `seen_at` tells times: not what is known of it."""
    rcv_nxt: SeqNum = field(default=SeqNum(0), compare=False)
    """What the server has acknowledged, by the last packet of its that passed."""
    snd_nxt: SeqNum = field(default=SeqNum(0), compare=False)
    """What it has sent, by the same."""

    @property
    def lives(self) -> bool:
        """Is there a socket, as far as is known?"""
        return self.whose is Whose.PROGRAMS


@dataclass(frozen=True, slots=True)
class Entries:
    """Some of `flows`, one behind the other: most of them nobody wants to know of, so no value is made of each."""

    keys: bytes
    values: bytes

    def __len__(self) -> int:
        return len(self.values) // _FLOW.size

    def living(self) -> list[Identity]:
        """The connections that live, as `Carried.lives` tells them, and that the agent is not about to end."""
        told = enumerate(_NUMBERS_AND_FLAGS.iter_unpack(self.values))
        return [
            Identity(decode_tuple(self._four_tuple(at)), SeqNum(irs), SeqNum(iss))
            for at, (irs, iss, flags) in told
            if flags & (_CARRIED | _STARTED | _OVER | _SILENT) == _CARRIED | _STARTED
        ]

    def quiet_since(self, seen: int, seen_if_over: int) -> tuple[list[bytes], list[bytes]]:
        """Four-tuples of which no packet has passed since `seen`; and, of those that are over, since `seen_if_over`."""
        told = enumerate(_FLAGS_AND_SEEN.iter_unpack(self.values))
        found = [(at, flags) for at, (flags, last) in told if last <= (seen_if_over if flags & _OVER else seen)]
        others = [self._four_tuple(at) for at, flags in found if not flags & _OVER]
        return others, [self._four_tuple(at) for at, flags in found if flags & _OVER]

    def _four_tuple(self, at: int) -> bytes:
        return self.keys[at * _TUPLE_OCTETS : (at + 1) * _TUPLE_OCTETS]


def encode_address(packed: bytes) -> bytes:
    """Return 16 octets for a packed address of 4 or 16."""
    return packed if len(packed) == 16 else _MAPPED + packed


def encode_endpoint(packed: bytes, port: int) -> bytes:
    """Key of `peers` and `targets`: an address and a port."""
    return encode_address(packed) + _PORT.pack(port)


def encode_config(
    own: bytes, mark: int, retry_mark: int, period_from: int, periods: int, until_ns: int, room: int
) -> bytes:  # fmt: skip
    """`own`: the agent's endpoint. Periods are accepted from `period_from` on, so many; none: nothing is adopted.

    Nor is anything after `until_ns` (CLOCK_MONOTONIC), or while `room` connections live.
    """
    return _CONFIG.pack(own, mark, retry_mark, period_from & 0xFFFF, periods, until_ns, room)


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


def encode_order(act: Act, identity: Identity, rank: Rank | None = None) -> bytes:
    """Context of be_order. `rank`: of what is taken, or has asked."""
    sender, epoch, sequence, period = (
        (0, 0, 0, 0) if rank is None else (rank.sender, rank.epoch, rank.sequence, rank.period)
    )
    four_tuple = encode_tuple(identity.key)
    return _ORDER.pack(four_tuple, identity.irs, identity.iss, epoch, sequence, period, sender, act, 0)


def decode_order(context: bytes) -> bool:
    """Was it done?"""
    return bool(_ORDER.unpack(context)[-1])


def decode_answer(record: bytes) -> Answer | None:
    """A record of `events`; None: it has only woken the agent."""
    if len(record) == _ANSWER_HEAD.size:
        return None
    sender, rcv_nxt = _ANSWER_HEAD.unpack_from(record)
    return Answer(decode_field(record[_ANSWER_HEAD.size :]), sender, SeqNum(rcv_nxt))


def by_sender(fields: bytes, octets: int, senders: bytes) -> dict[int, bytes]:
    """Fields of so many octets, by the front end that asked; those that have no type are left out.

    `senders`: for each, its sender id in 8 octets of the machine's own order.
    """
    types, first = fields[_TYPE_AT::octets], senders[:8]
    if not any(types):
        return {}
    each = struct.iter_unpack(f"{octets}s", fields)
    if senders == first * len(types):
        kept = fields if all(types) else b"".join([one for (one,), kind in zip(each, types, strict=True) if kind])
        return {_U64.unpack(first)[0]: kept}
    found: dict[int, list[bytes]] = {}
    for (one,), (sender,), kind in zip(each, _U64.iter_unpack(senders), types, strict=True):
        if kind:
            found.setdefault(sender, []).append(one)
    return {sender: b"".join(fields) for sender, fields in found.items()}


def seen_at(monotonic_s: float) -> int:
    """A time of CLOCK_MONOTONIC as `seen` of a flow tells it."""
    return max(int(monotonic_s * 1_000_000_000), 0) >> _SEEN_SHIFT


def decode_flow(four_tuple: bytes, value: bytes | memoryview) -> Carried:
    """An entry of `flows`."""
    irs, iss, epoch, sequence, period, sender, flags, cookie, _, _, seen, _, _, rcv_nxt, snd_nxt, *_ = _FLOW.unpack(
        value
    )
    identity = Identity(decode_tuple(four_tuple), SeqNum(irs), SeqNum(iss))
    if not flags & _CARRIED:
        whose = Whose.AGENT
    elif flags & _OVER:
        whose = Whose.OVER
    else:
        whose = Whose.PROGRAMS if flags & _STARTED else Whose.UNSEEN
    return Carried(
        identity,
        Rank(sender, epoch, sequence, period),
        whose,
        cookie,
        bool(flags & _SILENT),
        bool(flags & _FIN_LEAVING),
        seen,
        SeqNum(rcv_nxt),
        SeqNum(snd_nxt),
    )


def decode_tuple(four_tuple: bytes) -> ConnectionKey:
    """The four-tuple of a key of `flows`."""
    if four_tuple[:12] == four_tuple[16:28] == _MAPPED:
        return ConnectionKey(four_tuple[12:16] + four_tuple[28:])
    return ConnectionKey(four_tuple)
