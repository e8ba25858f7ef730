"""The handoff channel's datagrams (docs/wire.md is generated from the tables here).

One message, one UDP datagram, network byte order, naturally aligned: a fixed header that every message shares, the
two addresses, type-length-value fields padded to four octets, and in a HANDOFF the request octets. What a message
does not use is zero. A keyed BLAKE2s-128 tag (RFC 7693) covers everything behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from tcpha.errors import HandoffAuthError, HandoffFormatError, HandoffVersionError, TruncatedError
from tcpha.proto.cookie import NO_WINDOW_SCALE, Agreement
from tcpha.proto.ip import KEY_OCTETS_IPV4, KEY_OCTETS_IPV6, ConnectionKey, key_ports
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
_FIXED = struct.Struct("!16sHBBBBBBHHHHIIIIIIHH")
_FIXED_WITHOUT_PORTS = struct.Struct("!16sHBBBBBBHHHHIIIIII")
_TLV = struct.Struct("!HH")
_U32 = struct.Struct("!I")
_IDENTITY = struct.Struct("!IIHH")
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


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around every message."""

    sender: int
    """Sender id, 1..65535."""
    epoch: int
    """The epoch the receiver keeps for the sender, 0 if unknown."""
    sequence: int
    """Grows with each message of the sender to this receiver."""


_NO_IDENTITY = Identity(ConnectionKey(bytes(KEY_OCTETS_IPV4)), SeqNum(0), SeqNum(0))


@dataclass(slots=True)
class _Body:
    """What differs between messages, before it is laid out."""

    type: int
    identity: Identity = _NO_IDENTITY
    flags: int = 0
    scales: int = 0
    mss: int = 0
    window: int = 0
    period: int = 0
    tsval_sent: int = 0
    tsval_client: int = 0
    fields: tuple[tuple[int, bytes], ...] = ()
    octets: bytes = b""


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
            covered = self._lay_out(envelope, _body(message))
        except (struct.error, OverflowError) as error:
            raise ValueError(str(error)) from None
        return self._tag(self._signing, covered) + covered

    def _lay_out(self, envelope: Envelope, body: _Body) -> bytes:
        """Return everything that the tag covers."""
        identity, key = body.identity, body.identity.key
        flags = body.flags | (Flag.IPV6 if len(key) == KEY_OCTETS_IPV6 else 0)
        fields = b"".join(map(_encode_field, body.fields)) if body.fields else b""
        words = (FIXED_OCTETS + len(key) - 4 + len(fields)) >> 2
        if words > 0xFF:
            raise ValueError("message header over 1020 octets")
        fixed = _FIXED.pack(
            b"", MAGIC, VERSION, body.type, words, flags, body.scales, self._signing,
            envelope.sender, body.mss, body.window, body.period, envelope.epoch, envelope.sequence,
            identity.irs, identity.iss, body.tsval_sent, body.tsval_client, *_ports(key),
        )  # fmt: skip
        return b"".join((fixed[TAG_OCTETS:], key[:-4], fields, body.octets))

    def decode(self, datagram: bytes) -> tuple[Envelope, Message]:
        """Open a datagram.

        Raises: TruncatedError, HandoffFormatError, HandoffVersionError; HandoffAuthError for a wrong tag or key.
        """
        if len(datagram) < HEADER_OCTETS_IPV4:
            raise TruncatedError("shorter than any message", len(datagram))
        (tag, magic, version, type_number, words, flags, scales, key_number, sender, mss, window, period, epoch,
         sequence, irs, iss, tsval_sent, tsval_client) = _FIXED_WITHOUT_PORTS.unpack_from(datagram)  # fmt: skip
        if magic != MAGIC:
            raise HandoffFormatError("not a handoff message", 16)
        if version != VERSION:
            raise HandoffVersionError(f"version {version}", 18)
        if key_number not in self._states:
            raise HandoffAuthError(f"key number {key_number} is not known", 23)
        if not hmac.compare_digest(tag, self._tag(key_number, datagram[TAG_OCTETS:])):
            raise HandoffAuthError("wrong tag", 0)
        addresses_end = HEADER_OCTETS_IPV6 if flags & Flag.IPV6 else HEADER_OCTETS_IPV4
        header_end = words * 4
        if not addresses_end <= header_end <= len(datagram):
            raise HandoffFormatError("header length does not fit", 20)
        key = ConnectionKey(datagram[FIXED_OCTETS:addresses_end] + datagram[56:60])
        if type_number not in _DECODERS:
            raise HandoffFormatError(f"message type {type_number}", 19)
        fields = tuple(_decode_fields(datagram, addresses_end, header_end)) if addresses_end < header_end else ()
        body = _Body(
            type_number, Identity(key, SeqNum(irs), SeqNum(iss)), flags, scales, mss, window, period,
            tsval_sent, tsval_client, fields, datagram[header_end:],
        )  # fmt: skip
        try:
            return Envelope(sender, epoch, sequence), _DECODERS[type_number](body)
        except ValueError as error:  # a number that its enumeration does not know
            raise HandoffFormatError(str(error)) from None

    def _tag(self, key_number: int, covered: bytes) -> bytes:
        hashed = self._states[key_number].copy()
        hashed.update(covered)
        return hashed.digest()


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


def _body(message: Message) -> _Body:
    match message:
        case Handoff():
            return _handoff_body(message)
        case Adopted(identity, rcv_nxt):
            return _Body(Type.ADOPTED, identity, fields=((Tlv.RCV_NXT, _U32.pack(rcv_nxt)),))
        case Refused(identity, reason):
            return _Body(Type.REFUSED, identity, fields=((Tlv.REASON, bytes((reason,))),))
        case Moved(identity, owner):
            return _Body(Type.MOVED, identity, fields=((Tlv.OWNER, owner.to_bytes(2, "big")),))
        case Closed(identities):
            return _Body(Type.CLOSED, fields=tuple((Tlv.FLOW, _encode_identity(each)) for each in identities))
        case FlowsQuery(keys):
            return _Body(Type.FLOWS_QUERY, fields=tuple((Tlv.FLOW, _encode_key(key)) for key in keys))
        case Flows(held, absent):
            fields = [(Tlv.FLOW, _encode_identity(each)) for each in held]
            fields += [(Tlv.ABSENT, _encode_key(key)) for key in absent]
            return _Body(Type.FLOWS, fields=tuple(fields))
        case Status():
            return _status_body(message)
        case _:
            assert_never(message)


def _handoff_body(message: Handoff) -> _Body:
    agreement = message.agreement
    client, promised = agreement.window_scale, message.promised_window_scale
    if (client is None) != (promised is None):
        raise ValueError("window scaling is agreed on by both or by none")
    flags = (
        (0 if message.tsval_sent is None else Flag.TIMESTAMPS)
        | (Flag.SACK if agreement.sack else 0)
        | (0 if client is None else Flag.WINDOW_SCALE)
        | (Flag.CONFIRM if message.confirm else 0)
    )
    acknowledged = message.acknowledged
    return _Body(
        Type.HANDOFF, message.identity, flags, _scale(client) << 4 | _scale(promised), agreement.mss, message.window,
        message.period & 0xFFFF, message.tsval_sent or 0, message.tsval_client,
        () if acknowledged is None else ((Tlv.ACKNOWLEDGED, _U32.pack(acknowledged)),), message.octets,
    )  # fmt: skip


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
        scale = NO_WINDOW_SCALE if stack.window_scale is None else _scale(stack.window_scale)
        fields.append((Tlv.CAPABILITIES, _CAPABILITIES.pack(scale, stack.sack | stack.timestamps << 1, stack.mss)))
    fields += [(Tlv.SERVER, _SERVER.pack(each.state, each.port) + each.address) for each in message.servers]
    return _Body(Type.STATUS, fields=tuple(fields))


def _scale(shift_count: int | None) -> int:
    if shift_count is not None and not 0 <= shift_count <= MAX_WINDOW_SCALE:
        raise ValueError(f"window scale {shift_count}")
    return shift_count or 0


def _encode_key(key: ConnectionKey) -> bytes:
    return _encode_identity(Identity(key, SeqNum(0), SeqNum(0)))


def _encode_identity(identity: Identity) -> bytes:
    return _IDENTITY.pack(identity.irs, identity.iss, *_ports(identity.key)) + identity.key[:-4]


def _ports(key: ConnectionKey) -> tuple[int, int]:
    if len(key) not in (KEY_OCTETS_IPV4, KEY_OCTETS_IPV6):
        raise ValueError(f"a connection key of {len(key)} octets")
    return key_ports(key)


# --- bodies to values


def _decode_identity(value: bytes) -> Identity:
    if len(value) not in (_IDENTITY.size + 8, _IDENTITY.size + 32):
        raise HandoffFormatError(f"a flow of {len(value)} octets")
    irs, iss, _, _ = _IDENTITY.unpack_from(value)
    return Identity(ConnectionKey(value[_IDENTITY.size :] + value[8:12]), SeqNum(irs), SeqNum(iss))


def _flows(body: _Body, number: Tlv) -> tuple[Identity, ...]:
    return tuple(_decode_identity(value) for kind, value in body.fields if kind == number)


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


def _decode_handoff(body: _Body) -> Handoff:
    flags = body.flags
    scaled = bool(flags & Flag.WINDOW_SCALE)
    if scaled and max(body.scales >> 4, body.scales & 15) > MAX_WINDOW_SCALE:
        raise HandoffFormatError("window scale 15", 22)
    acknowledged = _optional(body, Tlv.ACKNOWLEDGED, 4) if body.fields else None
    return Handoff(
        body.identity,
        Agreement(body.mss, body.scales >> 4 if scaled else None, bool(flags & Flag.SACK)),
        body.scales & 15 if scaled else None,
        body.window,
        body.period,
        body.tsval_sent if flags & Flag.TIMESTAMPS else None,
        body.tsval_client,
        bool(flags & Flag.CONFIRM),
        None if acknowledged is None else SeqNum(_U32.unpack(acknowledged)[0]),
        body.octets,
    )


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


_DECODERS: dict[int, Callable[[_Body], Message]] = {
    Type.HANDOFF: _decode_handoff,
    Type.ADOPTED: lambda body: Adopted(body.identity, SeqNum(_U32.unpack(_required(body, Tlv.RCV_NXT, 4))[0])),
    Type.REFUSED: lambda body: Refused(body.identity, Reason(_required(body, Tlv.REASON, 1)[0])),
    Type.MOVED: lambda body: Moved(body.identity, int.from_bytes(_required(body, Tlv.OWNER, 2), "big")),
    Type.CLOSED: lambda body: Closed(_flows(body, Tlv.FLOW)),
    Type.STATUS: _decode_status,
    Type.FLOWS_QUERY: lambda body: FlowsQuery(tuple(each.key for each in _flows(body, Tlv.FLOW))),
    Type.FLOWS: lambda body: Flows(_flows(body, Tlv.FLOW), tuple(each.key for each in _flows(body, Tlv.ABSENT))),
}
