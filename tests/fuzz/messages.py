"""Targets: the handoff channel's datagrams."""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

from tcpha.errors import HandoffAuthError, WireError
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Key, Keyring
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
from tcpha.proto.seqnum import SeqNum
from tests.fuzz.records import Octets

KEYRING = Keyring((Key(1, bytes(range(32))), Key(7, bytes(range(100, 132)))))
CODEC = HandoffCodec(KEYRING)
STRANGE_CODEC = HandoffCodec(Keyring((Key(1, bytes(range(64, 96))),)))
"""Of another cluster: its secret seals nothing here."""
KEY_NUMBER_AT = 7
"""In what the tag covers."""
_STATES = {
    key.number: hashlib.blake2s(key=hashlib.blake2s(b"tcpha handoff", key=key.octets).digest(), digest_size=16)
    for key in KEYRING.keys
}


def seal(covered: bytes) -> bytes:
    """A datagram with the tag that belongs to it, under the key it names, or under the first."""
    if len(covered) <= KEY_NUMBER_AT:
        return bytes(16) + covered
    number = covered[KEY_NUMBER_AT] if covered[KEY_NUMBER_AT] in _STATES else 1
    covered = covered[:KEY_NUMBER_AT] + bytes((number,)) + covered[KEY_NUMBER_AT + 1 :]
    tag = _STATES[number].copy()
    tag.update(covered)
    return tag.digest() + covered


def datagram(octets: bytes) -> None:
    """Octets from a stranger: nobody but the holder of the secret gets behind the tag."""
    try:
        STRANGE_CODEC.decode(octets)
    except WireError:
        return
    raise AssertionError("a datagram without the secret was believed")


def sealed(octets: bytes) -> None:
    """Octets behind a right tag: read, written and read again, with one octet changed no more."""
    found = seal(octets)
    try:
        envelope, message = CODEC.decode(found)
    except HandoffAuthError as error:
        raise AssertionError("a right tag was not believed") from error
    except WireError:
        return
    assert CODEC.decode(CODEC.encode(envelope, message)) == (envelope, message)
    _refuses(found[:-1] + bytes((found[-1] ^ 1,)))
    _refuses(bytes((found[0] ^ 128,)) + found[1:])


def message(octets: bytes) -> None:
    """A message of any values: what can be written is read as it was written."""
    numbers = Octets(octets)
    said = _message(numbers)
    envelope = Envelope(numbers.number(2), numbers.number(4), numbers.number(4))
    try:
        written = CODEC.encode(envelope, said)
    except ValueError:
        return
    assert CODEC.decode(written) == (envelope, _as_read(said))


def _refuses(forged: bytes) -> None:
    try:
        CODEC.decode(forged)
    except WireError:
        return
    raise AssertionError("a forged datagram was believed")


# --- values from octets


def _message(numbers: Octets) -> Message:
    match numbers.number() % 8:
        case 0:
            return _handoff(numbers)
        case 1:
            return Adopted(_identity(numbers), SeqNum(numbers.number(4)))
        case 2:
            return Refused(_identity(numbers), numbers.choose(list(Reason)))
        case 3:
            return Moved(_identity(numbers), numbers.number(2))
        case 4:
            return Closed(tuple(_identity(numbers) for _ in range(numbers.number() % 64)))
        case 5:
            return FlowsQuery(tuple(_key(numbers) for _ in range(numbers.number() % 64)))
        case 6:
            held = tuple(_identity(numbers) for _ in range(numbers.number() % 32))
            return Flows(held, tuple(_key(numbers) for _ in range(numbers.number() % 32)))
        case _:
            return _status(numbers)


def _handoff(numbers: Octets) -> Handoff:
    client, promised = numbers.number() % 18, numbers.number() % 18
    return Handoff(
        _identity(numbers),
        Agreement(numbers.number(2), client if client < 16 else None, numbers.flag()),
        promised if promised < 16 else None,
        numbers.number(2),
        numbers.number(2),
        numbers.number(4) if numbers.flag() else None,
        numbers.number(4),
        numbers.flag(),
        SeqNum(numbers.number(4)) if numbers.flag() else None,
        numbers.piece(numbers.number(2)),
    )


def _status(numbers: Octets) -> Status:
    scale = numbers.number() % 18
    stack = Capabilities(scale if scale < 16 else None, numbers.flag(), numbers.flag(), numbers.number(2))
    return Status(
        numbers.number(8),
        numbers.number(4),
        numbers.choose(list(NodeState)),
        numbers.number(4),
        numbers.piece(16).ljust(16 - numbers.number() % 2, b"\0"),
        stack if numbers.flag() else None,
        tuple(_server(numbers) for _ in range(numbers.number() % 64)),
    )


def _server(numbers: Octets) -> Server:
    address = numbers.piece(numbers.choose((4, 16, 16, 5)))
    return Server(address, numbers.number(2), numbers.choose(list(ServerState)))


def _identity(numbers: Octets) -> Identity:
    return Identity(_key(numbers), SeqNum(numbers.number(4)), SeqNum(numbers.number(4)))


def _key(numbers: Octets) -> ConnectionKey:
    octets = numbers.choose((12, 36, 12, 13))
    return ConnectionKey(numbers.piece(octets).ljust(octets, b"\0"))


def _as_read(said: Message) -> Message:
    """What a reader must find; the period's low 16 bits are all that a HANDOFF carries."""
    return replace(said, period=said.period & 0xFFFF) if isinstance(said, Handoff) else said
