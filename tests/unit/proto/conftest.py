"""Values for the tests of the codecs: keys, a seal that does not use the package, and hypothesis strategies."""

from __future__ import annotations

import hashlib
import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import settings
from hypothesis import strategies as st

from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope
from tcpha.proto.ip import ConnectionKey, connection_key
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

# The machine is shared: how long one example takes says nothing.
settings.register_profile("proto", deadline=None)
settings.load_profile("proto")

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(100, 132))
KEYRING = Keyring((Key(1, SECRET),))
OTHER_KEYRING = Keyring((Key(1, OTHER_SECRET),))

CLIENT_IPV4, VIP_IPV4 = IPv4Address("198.18.0.10"), IPv4Address("198.18.0.36")
CLIENT_IPV6, VIP_IPV6 = IPv6Address("2001:db8::a"), IPv6Address("2001:db8::24")
KEY_IPV4 = connection_key(CLIENT_IPV4, 40000, VIP_IPV4, 80)
KEY_IPV6 = connection_key(CLIENT_IPV6, 40000, VIP_IPV6, 80)
ENVELOPE = Envelope(23, 0xA1B2C3D4, 9)


def sub_key(purpose: bytes, secret: bytes = SECRET) -> bytes:
    return hashlib.blake2s(purpose, key=secret, digest_size=32).digest()


def tag(contents: bytes, secret: bytes = SECRET) -> bytes:
    """The tag as docs/wire.md describes it."""
    return hashlib.blake2s(contents, key=sub_key(b"tcpha handoff", secret), digest_size=16).digest()


def seal(contents: bytes, secret: bytes = SECRET) -> bytes:
    return tag(contents, secret) + contents


def identity(irs: int = 0x11223344, iss: int = 0x55667788, key: ConnectionKey = KEY_IPV4) -> Identity:
    return Identity(key, SeqNum(irs), SeqNum(iss))


u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
seqnums = u32.map(SeqNum)
shift_counts = st.integers(0, 14)
keys_ipv4 = st.binary(min_size=12, max_size=12).map(ConnectionKey)
keys_ipv6 = st.binary(min_size=36, max_size=36).map(ConnectionKey)
keys = keys_ipv4 | keys_ipv6
identities = st.builds(Identity, keys, seqnums, seqnums)
envelopes = st.builds(Envelope, u16, u32, u32)


@st.composite
def handoffs(draw: st.DrawFn) -> Handoff:
    is_scaled = draw(st.booleans())
    return Handoff(
        draw(identities),
        Agreement(draw(u16), draw(shift_counts) if is_scaled else None, draw(st.booleans())),
        draw(shift_counts) if is_scaled else None,
        window=draw(u16),
        period=draw(u16),
        tsval_sent=draw(st.none() | u32),
        tsval_client=draw(u32),
        confirm=draw(st.booleans()),
        acknowledged=draw(st.none() | seqnums),
        octets=draw(st.binary(max_size=1400)),
    )


capabilities = st.builds(Capabilities, st.none() | shift_counts, st.booleans(), st.booleans(), u16)
servers = st.builds(
    Server, st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), u16, st.sampled_from(ServerState)
)
statuses = st.builds(
    Status,
    st.integers(0, 2**64 - 1),
    u32,
    st.sampled_from(NodeState),
    u32,
    st.binary(min_size=16, max_size=16),
    st.none() | capabilities,
    st.lists(servers, max_size=5).map(tuple),
)
messages: st.SearchStrategy[Message] = st.one_of(
    handoffs(),
    st.builds(Adopted, identities, seqnums),
    st.builds(Refused, identities, st.sampled_from(Reason)),
    st.builds(Moved, identities, u16),
    st.builds(Closed, st.lists(identities, max_size=19).map(tuple)),
    st.builds(FlowsQuery, st.lists(keys, max_size=19).map(tuple)),
    st.builds(Flows, st.lists(identities, max_size=9).map(tuple), st.lists(keys, max_size=10).map(tuple)),
    statuses,
)


_VALUES = {1: (4,), 2: (4,), 3: (1,), 4: (20, 44), 5: (20, 44), 6: (8,), 7: (4,), 8: (4,), 9: (8,), 10: (8, 20),
           11: (16,), 12: (8,), 13: (2,)}  # fmt: skip
"""How long the values of the TLVs are, by docs/wire.md."""
_CARRIED = {1: (2,), 2: (1,), 3: (3,), 4: (13,), 5: (4,), 6: (6, 7, 9, 11, 8, 10), 7: (4,), 8: (4, 5)}
"""Which TLVs the messages carry."""

seldom = st.integers(0, 9).map(lambda number: number == 0)


@st.composite
def _tlvs(draw: st.DrawFn, number: int) -> bytes:
    """A TLV that is mostly as it should be."""
    octets = draw(st.integers(0, 24) if draw(seldom) else st.sampled_from(_VALUES.get(number, (0, 3, 9))))
    value = draw(st.binary(min_size=octets, max_size=octets))
    if value and number in (3, 8, 9, 10):  # they begin with a number from a list, or a shift count
        value = bytes((draw(st.integers(0, 16) if draw(seldom) else st.integers(1, 3)),)) + value[1:]
    length = draw(st.integers(0, 50)) if draw(seldom) else len(value)
    return struct.pack("!HH", number, length) + value + bytes(-len(value) & 3)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """What might stand behind a tag: a message that is wrong in none, some or many places; the key's number is 1."""
    kind = draw(st.integers(0, 9)) if draw(seldom) else draw(st.integers(1, 8))
    numbers = [number for number in _CARRIED.get(kind, ()) if not draw(seldom)]
    numbers += draw(st.lists(st.integers(0, 14), max_size=3)) if draw(st.booleans()) else []
    fields = b"".join(draw(_tlvs(number)) for number in numbers)
    is_ipv6 = draw(st.booleans())
    words = draw(u8) if draw(seldom) else (60 + (32 if is_ipv6 else 8) + len(fields)) // 4 & 0xFF
    flags = draw(st.integers(0, 0x7F)) << 1 | is_ipv6
    scales = 0xFF if draw(seldom) else draw(u8)
    head = struct.pack("!HBBBBBB", 0x5448, 1, kind, words, flags, scales, 1)
    octets = head + draw(st.binary(min_size=36, max_size=36)) + bytes(32 if is_ipv6 else 8) + fields
    octets += draw(st.binary(max_size=20)) if draw(st.booleans()) else b""
    return octets[: draw(st.integers(0, len(octets)))] if draw(seldom) else octets
