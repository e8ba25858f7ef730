"""The handoff channel's datagrams (docs/wire.md is generated from the tables here).

One message, one UDP datagram, network byte order, naturally aligned: a fixed header that every message shares, the
two addresses, type-length-value fields padded to four octets, and in a HANDOFF the request octets. What a message
does not use is zero. A keyed BLAKE2s-128 tag (RFC 7693) covers everything behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TypeVar, assert_never

from msgspec import Struct

from tcpha.errors import HandoffAuthError, HandoffFormatError, HandoffVersionError, TruncatedError
from tcpha.proto.cookie import NO_WINDOW_SCALE, Agreement
from tcpha.proto.flow_fields import check_key, decode_identity, encode_identity
from tcpha.proto.ip import KEY_OCTETS_IPV4, ConnectionKey
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import (
    Adopted,
    Capabilities,
    Closed,
    Flows,
    FlowsQuery,
    Handoff,
    Identity,
    Message,
    Moved,
    NodeState,
    Reason,
    Refused,
    Server,
    ServerState,
    Status,
)
from tcpha.proto.options import MAX_WINDOW_SCALE
from tcpha.proto.seqnum import SeqNum

MAGIC = 0x5448  # "TH"
VERSION = 1
TAG_OCTETS = 16
FIXED_OCTETS = 60
HEADER_OCTETS_IPV4 = FIXED_OCTETS + 8
HEADER_OCTETS_IPV6 = FIXED_OCTETS + 32
ACKNOWLEDGED_TLV_OCTETS = 8
FLOWS_A_MESSAGE = 19
"""Flows one CLOSED, FLOWS? or FLOWS carries at most: 19 of IPv6 fit into a header of 1020 octets."""
SERVERS_A_MESSAGE = 37
"""Servers one STATUS carries at most: 37 of IPv6 fit into a header of 1020 octets."""

_PURPOSE = b"tcpha handoff"
_FlowT = TypeVar("_FlowT")
_FIXED = struct.Struct("!16sHBBBBBBHHHHIIIIII4s")  # the last are the ports, as they stand in a key
_FIXED_BEHIND_TAG = struct.Struct("!HBBBBBBHHHHIIIIII4s")
_TLV = struct.Struct("!HH")
_TLV_OF_U32 = struct.Struct("!HHI")
_U32 = struct.Struct("!I")
_FLOW_IPV4 = struct.Struct("!HHII4s8s")  # a whole field, header and all
_CAPABILITIES = struct.Struct("!BBH")
_STATE = struct.Struct("!BxxxI")
_SERVER = struct.Struct("!BxH")


class Type(IntEnum):
    """The octet at 19."""

    HANDOFF = 1
    ADOPTED = 2
    REFUSED = 3
    MOVED = 4
    CLOSED = 5
    STATUS = 6
    FLOWS_QUERY = 7
    FLOWS = 8


class Flag(IntEnum):
    """Bits of the octet at 21 (an IntEnum: the operators of IntFlag cost a microsecond each)."""

    IPV6 = 1
    TIMESTAMPS = 2
    SACK = 4
    WINDOW_SCALE = 8
    RESERVED = 16
    CONFIRM = 32


class Tlv(IntEnum):
    """Type numbers of the fields behind the addresses."""

    RCV_NXT = 1
    ACKNOWLEDGED = 2
    REASON = 3
    FLOW = 4
    ABSENT = 5
    NONCE = 6
    EPOCH = 7
    CAPABILITIES = 8
    STATE = 9
    SERVER = 10
    DIGEST = 11
    ORIGIN = 12
    OWNER = 13


class Envelope(Struct, frozen=True, gc=False):
    """What stands around every message."""

    sender: int
    """Sender id, 1..65535."""
    epoch: int
    """The epoch the receiver keeps for the sender, 0 if unknown."""
    sequence: int
    """Grows with each message of the sender to this receiver."""


_NO_IDENTITY = Identity(ConnectionKey(bytes(KEY_OCTETS_IPV4)), SeqNum(0), SeqNum(0))

# The same numbers as plain integers: to fetch a member of an enumeration costs more than what is done with it here.
_HANDOFF, _ADOPTED, _CLOSED, _FLOWS = map(int, (Type.HANDOFF, Type.ADOPTED, Type.CLOSED, Type.FLOWS))
_OF_FLOWS = (_CLOSED, _FLOWS)
_RCV_NXT, _ACKNOWLEDGED, _FLOW = map(int, (Tlv.RCV_NXT, Tlv.ACKNOWLEDGED, Tlv.FLOW))
_IPV6, _TIMESTAMPS, _SACK, _WINDOW_SCALE, _CONFIRM = map(
    int, (Flag.IPV6, Flag.TIMESTAMPS, Flag.SACK, Flag.WINDOW_SCALE, Flag.CONFIRM)
)


@dataclass(slots=True)
class _Body:
    """What differs between all messages but HANDOFF, before it is laid out."""

    type: int
    identity: Identity = _NO_IDENTITY
    fields: tuple[tuple[int, bytes], ...] = ()


class HandoffCodec:
    """Seals and opens datagrams with the keys of a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        # Keyed states are prepared once, as in `cookie`.
        self._states = {
            key.number: hashlib.blake2s(key=key.derive(_PURPOSE), digest_size=TAG_OCTETS) for key in keyring.keys
        }
        self._signing = keyring.signing.number

    def encode(self, envelope: Envelope, message: Message) -> bytes:
        """Return the sealed datagram. Raises: ValueError for a value that does not fit its field."""
        try:
            if isinstance(message, Handoff):
                return self.encode_handoff(envelope.sender, envelope.epoch, envelope.sequence, message)
            if isinstance(message, Adopted):
                fields = _TLV_OF_U32.pack(_RCV_NXT, 4, message.rcv_nxt)
                covered = self._lay_out(envelope, _ADOPTED, message.identity, fields)
            else:
                body = _body(message)
                covered = self._lay_out(envelope, body.type, body.identity, b"".join(map(_encode_field, body.fields)))
        except (struct.error, OverflowError) as error:
            raise ValueError(str(error)) from None
        return self._tag(self._signing, covered) + covered

    def encode_flows(self, envelope: Envelope, type_number: Type, fields: bytes) -> bytes:
        """Return the sealed CLOSED or FLOWS with these fields (`flow_fields`), as they stand there.

        Whoever gets connections in this form need not make a value of each.
        """
        covered = self._lay_out(envelope, type_number, _NO_IDENTITY, fields)
        return self._tag(self._signing, covered) + covered

    def encode_handoff(self, sender: int, epoch: int, sequence: int, message: Handoff) -> bytes:
        """As `encode`, of what its envelope would say. Raises: ValueError for a value that does not fit its field."""
        identity, acknowledged, tsval_sent = message.identity, message.acknowledged, message.tsval_sent
        flags, scales, mss = _encode_agreement(message.agreement, message.promised_window_scale)
        if tsval_sent is None:
            tsval_sent = 0
        else:
            flags |= _TIMESTAMPS
        if message.confirm:
            flags |= _CONFIRM
        key = identity.key
        family = 0 if len(key) == KEY_OCTETS_IPV4 else _family_of(key)
        try:
            fields = b"" if acknowledged is None else _TLV_OF_U32.pack(_ACKNOWLEDGED, 4, acknowledged)
            words = FIXED_OCTETS + len(key) - 4 + len(fields) >> 2
            fixed = _FIXED_BEHIND_TAG.pack(
                MAGIC, VERSION, _HANDOFF, words, flags | family, scales, self._signing, sender, mss, message.window,
                message.period & 0xFFFF, epoch, sequence, identity.irs, identity.iss, tsval_sent, message.tsval_client,
                key[-4:],
            )  # fmt: skip
        except struct.error as error:
            raise ValueError(str(error)) from None
        covered = b"".join((fixed, key[:-4], fields, message.octets))
        hashed = self._states[self._signing].copy()
        hashed.update(covered)
        return hashed.digest() + covered

    def _lay_out(self, envelope: Envelope, type_number: int, identity: Identity, fields: bytes) -> bytes:
        """Return everything that the tag covers of a message other than HANDOFF."""
        key = identity.key
        words = FIXED_OCTETS + len(key) - 4 + len(fields) >> 2
        if words > 0xFF:
            raise ValueError("message header over 1020 octets")
        fixed = _FIXED_BEHIND_TAG.pack(
            MAGIC, VERSION, type_number, words, _family_of(key), 0, self._signing, envelope.sender, 0, 0, 0,
            envelope.epoch, envelope.sequence, identity.irs, identity.iss, 0, 0, key[-4:],
        )  # fmt: skip
        return b"".join((fixed, key[:-4], fields))

    def decode(self, datagram: bytes) -> tuple[Envelope, Message]:
        """Open a datagram.

        Raises: TruncatedError, HandoffFormatError, HandoffVersionError; HandoffAuthError for a wrong tag or key.
        """
        if len(datagram) < HEADER_OCTETS_IPV4:
            raise TruncatedError("shorter than any message", len(datagram))
        (tag, magic, version, type_number, words, flags, scales, key_number, sender, mss, window, period, epoch,
         sequence, irs, iss, tsval_sent, tsval_client, ports) = _FIXED.unpack_from(datagram)  # fmt: skip
        if magic != MAGIC:
            raise HandoffFormatError("not a handoff message", 16)
        if version != VERSION:
            raise HandoffVersionError(f"version {version}", 18)
        if key_number not in self._states:
            raise HandoffAuthError(f"key number {key_number} is not known", 23)
        if not hmac.compare_digest(tag, self._tag(key_number, datagram[TAG_OCTETS:])):
            raise HandoffAuthError("wrong tag", 0)
        addresses_end = HEADER_OCTETS_IPV6 if flags & _IPV6 else HEADER_OCTETS_IPV4
        header_end = words * 4
        if not addresses_end <= header_end <= len(datagram):
            raise HandoffFormatError("header length does not fit", 20)
        key = ConnectionKey(datagram[FIXED_OCTETS:addresses_end] + ports)
        identity = Identity(key, SeqNum(irs), SeqNum(iss))
        envelope = Envelope(sender, epoch, sequence)
        if type_number == _HANDOFF:
            return envelope, Handoff(
                identity,
                *_decode_agreement(flags, scales, mss),
                window,
                period,
                tsval_sent if flags & _TIMESTAMPS else None,
                tsval_client,
                bool(flags & _CONFIRM),
                _decode_acknowledged(datagram, addresses_end, header_end) if addresses_end < header_end else None,
                datagram[header_end:],
            )
        if type_number == _ADOPTED and header_end - addresses_end == _TLV_OF_U32.size:
            field, length, rcv_nxt = _TLV_OF_U32.unpack_from(datagram, addresses_end)
            if field == _RCV_NXT and length == _U32.size:
                return envelope, Adopted(identity, SeqNum(rcv_nxt))
        if type_number in _OF_FLOWS and addresses_end < header_end:
            identities = _decode_flows_ipv4(datagram[addresses_end:header_end])
            if identities is not None:
                return envelope, Closed(identities) if type_number == _CLOSED else Flows(identities)
        if type_number not in _DECODERS:
            raise HandoffFormatError(f"message type {type_number}", 19)
        body = _Body(type_number, identity, tuple(_decode_fields(datagram, addresses_end, header_end)))
        try:
            return envelope, _DECODERS[type_number](body)
        except ValueError as error:  # a number that its enumeration does not know
            raise HandoffFormatError(str(error)) from None

    def _tag(self, key_number: int, covered: bytes) -> bytes:
        hashed = self._states[key_number].copy()
        hashed.update(covered)
        return hashed.digest()


def _family_of(key: ConnectionKey) -> int:
    """Return the flag that tells the family of a key. Raises: ValueError if it is none."""
    if len(key) == KEY_OCTETS_IPV4:
        return 0
    check_key(key)
    return _IPV6


@lru_cache(maxsize=256)  # there are no more agreements in a cookie, and one promise
def _encode_agreement(agreement: Agreement, promised: int | None) -> tuple[int, int, int]:
    """Return flags, window scales and MSS. Raises: ValueError."""
    client = agreement.window_scale
    flags = _SACK if agreement.sack else 0
    if client is None and promised is None:
        return flags, 0, agreement.mss
    if client is None or promised is None:
        raise ValueError("window scaling is agreed on by both or by none")
    if not (0 <= client <= MAX_WINDOW_SCALE and 0 <= promised <= MAX_WINDOW_SCALE):
        raise ValueError(f"window scales {client}, {promised}")
    return flags | _WINDOW_SCALE, client << 4 | promised, agreement.mss


def _encode_field(field: tuple[int, bytes]) -> bytes:
    number, value = field
    return _TLV.pack(number, len(value)) + value + bytes(-len(value) & 3)


def _decode_fields(datagram: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    while offset < end:
        number, length = _TLV.unpack_from(datagram, offset)
        offset += _TLV.size
        if offset + length > end:
            raise HandoffFormatError(f"field {number} of {length} octets", offset)
        yield number, datagram[offset : offset + length]
        offset += length + (-length & 3)


# --- values to bodies


def _body(message: Refused | Moved | Closed | FlowsQuery | Flows | Status) -> _Body:
    match message:
        case Refused(identity, reason):
            return _Body(Type.REFUSED, identity, ((Tlv.REASON, bytes((reason,))),))
        case Moved(identity, owner):
            return _Body(Type.MOVED, identity, ((Tlv.OWNER, owner.to_bytes(2, "big")),))
        case Closed(identities):
            return _Body(Type.CLOSED, fields=tuple([(Tlv.FLOW, encode_identity(each)) for each in identities]))
        case FlowsQuery(keys):
            return _Body(Type.FLOWS_QUERY, fields=tuple((Tlv.FLOW, _encode_key(key)) for key in keys))
        case Flows(held, absent):
            fields = [(Tlv.FLOW, encode_identity(each)) for each in held]
            fields += [(Tlv.ABSENT, _encode_key(key)) for key in absent]
            return _Body(Type.FLOWS, fields=tuple(fields))
        case Status():
            return _status_body(message)
        case _:
            assert_never(message)


def _status_body(message: Status) -> _Body:
    if len(message.digest) != 16 or any(len(each.address) not in (4, 16) for each in message.servers):
        raise ValueError("a digest has 16 octets, an address 4 or 16")
    fields = [
        (Tlv.NONCE, message.nonce.to_bytes(8, "big")),
        (Tlv.EPOCH, _U32.pack(message.epoch)),
        (Tlv.STATE, _STATE.pack(message.state, message.flows)),
        (Tlv.DIGEST, message.digest),
    ]
    if (stack := message.capabilities) is not None:
        scale = NO_WINDOW_SCALE if stack.window_scale is None else stack.window_scale
        if stack.window_scale is not None and not 0 <= scale <= MAX_WINDOW_SCALE:
            raise ValueError(f"window scale {scale}")
        fields.append((Tlv.CAPABILITIES, _CAPABILITIES.pack(scale, stack.sack | stack.timestamps << 1, stack.mss)))
    fields += [(Tlv.SERVER, _SERVER.pack(each.state, each.port) + each.address) for each in message.servers]
    return _Body(Type.STATUS, fields=tuple(fields))


def _encode_key(key: ConnectionKey) -> bytes:
    return encode_identity(Identity(key, SeqNum(0), SeqNum(0)))


def by_message(flows: Sequence[_FlowT]) -> Iterator[tuple[_FlowT, ...]]:
    """Share out identities or four-tuples over as few CLOSED, FLOWS? or FLOWS as can carry them."""
    return (tuple(flows[start : start + FLOWS_A_MESSAGE]) for start in range(0, len(flows), FLOWS_A_MESSAGE))


# --- bodies to values


def _decode_flows_ipv4(fields: bytes) -> tuple[Identity, ...] | None:
    """Decode fields that are all FLOW and of IPv4, as they nearly always are; None for any others."""
    if len(fields) % _FLOW_IPV4.size:
        return None
    found = []
    octets = _FLOW_IPV4.size - _TLV.size
    for number, length, irs, iss, ports, addresses in _FLOW_IPV4.iter_unpack(fields):
        if number != _FLOW or length != octets:
            return None
        found.append(Identity(addresses + ports, irs, iss))
    return tuple(found)


def _flows(body: _Body, number: Tlv) -> tuple[Identity, ...]:
    return tuple(decode_identity(value) for kind, value in body.fields if kind == number)


def _optional(body: _Body, number: Tlv, octets: int) -> bytes | None:
    for kind, value in body.fields:
        if kind == number:
            if len(value) != octets:
                raise HandoffFormatError(f"{number.name} of {len(value)} octets")
            return value
    return None


def _required(body: _Body, number: Tlv, octets: int) -> bytes:
    value = _optional(body, number, octets)
    if value is None:
        raise HandoffFormatError(f"{Type(body.type).name} without {number.name}")
    return value


def _decode_agreement(flags: int, scales: int, mss: int) -> tuple[Agreement, int | None]:
    """Return what was agreed on, and the promised window scale."""
    sack = bool(flags & _SACK)
    if not flags & _WINDOW_SCALE:
        return Agreement(mss, None, sack), None
    client, promised = scales >> 4, scales & 15
    if client > MAX_WINDOW_SCALE or promised > MAX_WINDOW_SCALE:
        raise HandoffFormatError("window scale 15", 22)
    return Agreement(mss, client, sack), promised


def _decode_acknowledged(datagram: bytes, offset: int, end: int) -> SeqNum | None:
    body = _Body(_HANDOFF, fields=tuple(_decode_fields(datagram, offset, end)))
    value = _optional(body, Tlv.ACKNOWLEDGED, 4)
    return None if value is None else SeqNum(_U32.unpack(value)[0])


def _decode_status(body: _Body) -> Status:
    state, flows = _STATE.unpack(_required(body, Tlv.STATE, _STATE.size))
    stack = _optional(body, Tlv.CAPABILITIES, _CAPABILITIES.size)
    return Status(
        int.from_bytes(_required(body, Tlv.NONCE, 8), "big"),
        _U32.unpack(_required(body, Tlv.EPOCH, 4))[0],
        NodeState(state),
        flows,
        _required(body, Tlv.DIGEST, 16),
        None if stack is None else _decode_capabilities(stack),
        tuple(_decode_server(value) for kind, value in body.fields if kind == Tlv.SERVER),
    )


def _decode_capabilities(value: bytes) -> Capabilities:
    scale, flags, mss = _CAPABILITIES.unpack(value)
    if scale > NO_WINDOW_SCALE:
        raise HandoffFormatError(f"window scale {scale}")
    return Capabilities(None if scale == NO_WINDOW_SCALE else scale, bool(flags & 1), bool(flags & 2), mss)


def _decode_server(value: bytes) -> Server:
    if len(value) not in (_SERVER.size + 4, _SERVER.size + 16):
        raise HandoffFormatError(f"a server of {len(value)} octets")
    state, port = _SERVER.unpack_from(value)
    return Server(value[_SERVER.size :], port, ServerState(state))


_DECODERS: dict[int, Callable[[_Body], Message]] = {  # of all but HANDOFF
    Type.ADOPTED: lambda body: Adopted(body.identity, SeqNum(_U32.unpack(_required(body, Tlv.RCV_NXT, 4))[0])),
    Type.REFUSED: lambda body: Refused(body.identity, Reason(_required(body, Tlv.REASON, 1)[0])),
    Type.MOVED: lambda body: Moved(body.identity, int.from_bytes(_required(body, Tlv.OWNER, 2), "big")),
    Type.CLOSED: lambda body: Closed(_flows(body, Tlv.FLOW)),
    Type.STATUS: _decode_status,
    Type.FLOWS_QUERY: lambda body: FlowsQuery(tuple(each.key for each in _flows(body, Tlv.FLOW))),
    Type.FLOWS: lambda body: Flows(_flows(body, Tlv.FLOW), tuple(each.key for each in _flows(body, Tlv.ABSENT))),
}
