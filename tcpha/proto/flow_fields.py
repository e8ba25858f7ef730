"""Connections as CLOSED, FLOWS? and FLOWS carry them (docs/wire.md): one field FLOW for each.

Whoever gets them in this form, as from a program in the kernel, joins them to messages without making a value of each.
Layout: type 2, length 2, irs 4, iss 4, client port 2, VIP port 2, client address, virtual address (4 | 16); in network
order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tcpha.errors import HandoffFormatError
from tcpha.proto.ip import KEY_OCTETS_IPV4, KEY_OCTETS_IPV6, ConnectionKey
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import SeqNum

FLOW = 4
"""Type of the field."""
FIELD_OCTETS = FIELD_OCTETS_IPV4, FIELD_OCTETS_IPV6 = 24, 48
FIELDS_OCTETS = 1020 - 68
"""So many octets of fields have room in one message: 39 flows of IPv4, or 19 of IPv6."""

_TLV = struct.Struct("!HH")
_IDENTITY = struct.Struct("!II4s")  # the ports as they stand in a key


@dataclass(frozen=True, slots=True)
class Fields:
    """Connections of one family, one field behind the other."""

    each: int
    """Length of a field, in octets."""
    octets: bytes

    def messages(self) -> list[bytes]:
        """Return the fields of as few messages as hold them, in their order."""
        step = FIELDS_OCTETS - FIELDS_OCTETS % self.each
        return [self.octets[start : start + step] for start in range(0, len(self.octets), step)]

    def connections(self) -> Iterator[ConnectionKey]:
        """The four-tuples."""
        for start in range(0, len(self.octets), self.each):
            yield decode_field(self.octets[start : start + self.each]).key


def encode_identity(identity: Identity) -> bytes:
    """Value of the field. Raises: ValueError for a key of another length."""
    key = identity.key
    check_key(key)
    return _IDENTITY.pack(identity.irs, identity.iss, key[-4:]) + key[:-4]


def decode_identity(value: bytes) -> Identity:
    """The same read. Raises: HandoffFormatError."""
    if len(value) not in (_IDENTITY.size + 8, _IDENTITY.size + 32):
        raise HandoffFormatError(f"a flow of {len(value)} octets")
    irs, iss, ports = _IDENTITY.unpack_from(value)
    return Identity(ConnectionKey(value[_IDENTITY.size :] + ports), SeqNum(irs), SeqNum(iss))


def check_key(key: ConnectionKey) -> None:
    """Raises: ValueError for a key of no family's length."""
    if len(key) not in (KEY_OCTETS_IPV4, KEY_OCTETS_IPV6):
        raise ValueError(f"a connection key of {len(key)} octets")


def encode_field(identity: Identity) -> bytes:
    """The whole field. Raises: ValueError."""
    value = encode_identity(identity)
    return _TLV.pack(FLOW, len(value)) + value


def decode_field(field: bytes) -> Identity:
    """The same read. Raises: HandoffFormatError."""
    return decode_identity(field[_TLV.size :])
