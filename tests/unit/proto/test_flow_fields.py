"""Connections in the form of CLOSED and FLOWS, joined without values of their own: the same datagrams as of values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.errors import HandoffFormatError
from tcpha.proto.flow_fields import FIELD_OCTETS, Fields, decode_field, encode_field
from tcpha.proto.handoff import HandoffCodec, Type
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Closed, Flows, Identity
from tcpha.proto.seqnum import SeqNum
from tests.unit.proto.conftest import ENVELOPE, KEYRING

CODEC = HandoffCodec(KEYRING)
_KEY_OCTETS = (12, 36)
_u32 = st.integers(0, 0xFFFFFFFF).map(SeqNum)


def identities(family: int, max_size: int = 100) -> st.SearchStrategy[list[Identity]]:
    octets = _KEY_OCTETS[family]
    keys = st.binary(min_size=octets, max_size=octets).map(ConnectionKey)
    return st.lists(st.builds(Identity, keys, _u32, _u32), max_size=max_size)


def joined(family: int, connections: list[Identity]) -> Fields:
    return Fields(FIELD_OCTETS[family], b"".join(map(encode_field, connections)))


@given(st.data(), st.sampled_from([0, 1]))
def test_fields_are_joined_datagram_is_the_one_of_values(data: st.DataObject, family: int) -> None:
    connections = data.draw(identities(family, 19))
    fields = joined(family, connections)
    for message in fields.messages():
        assert CODEC.encode_flows(ENVELOPE, Type.CLOSED, message) == CODEC.encode(ENVELOPE, Closed(tuple(connections)))
        assert CODEC.encode_flows(ENVELOPE, Type.FLOWS, message) == CODEC.encode(ENVELOPE, Flows(tuple(connections)))


@given(st.data(), st.sampled_from([0, 1]))
def test_fields_are_many_each_is_in_one_message_and_in_order(data: st.DataObject, family: int) -> None:
    connections = data.draw(identities(family))
    told: list[Identity] = []
    for message in joined(family, connections).messages():
        _, decoded = CODEC.decode(CODEC.encode_flows(ENVELOPE, Type.CLOSED, message))
        assert isinstance(decoded, Closed)
        told += decoded.identities
    assert told == connections


@pytest.mark.parametrize(("family", "most"), [(0, 39), (1, 19)])
def test_message_is_full_the_next_one_begins(family: int, most: int) -> None:
    one = Identity(ConnectionKey(bytes(_KEY_OCTETS[family])), SeqNum(1), SeqNum(2))
    assert [len(each) for each in joined(family, [one] * (most + 1)).messages()] == [
        most * FIELD_OCTETS[family],
        FIELD_OCTETS[family],
    ]


@given(st.data(), st.sampled_from([0, 1]))
def test_field_is_read_it_is_the_connection(data: st.DataObject, family: int) -> None:
    connections = data.draw(identities(family, 5))
    assert [decode_field(encode_field(each)) for each in connections] == connections
    assert list(joined(family, connections).connections()) == [each.key for each in connections]


def test_field_is_cut_it_is_refused() -> None:
    one = Identity(ConnectionKey(bytes(12)), SeqNum(1), SeqNum(2))
    with pytest.raises(HandoffFormatError):
        decode_field(encode_field(one)[:-1])
