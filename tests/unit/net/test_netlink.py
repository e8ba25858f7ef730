from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tcpha.net.netlink import (
    NLMSG_ERROR,
    Message,
    decode_attributes,
    decode_messages,
    encode_attribute,
    encode_message,
    error_of,
)

messages = st.builds(
    Message,
    kind=st.integers(0, 0xFFFF),
    flags=st.integers(0, 0xFFFF),
    sequence=st.integers(0, 0xFFFFFFFF),
    body=st.binary(max_size=50),
)


@given(st.lists(messages, max_size=5))
def test_messages_decode_returns_what_was_encoded(given_messages: list[Message]) -> None:
    assert list(decode_messages(b"".join(map(encode_message, given_messages)))) == given_messages


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20), max_size=5), st.binary(max_size=8))
def test_attributes_decode_returns_what_was_encoded(attributes: dict[int, bytes], header: bytes) -> None:
    octets = header + b"".join(encode_attribute(kind, value) for kind, value in attributes.items())
    assert decode_attributes(octets, len(header)) == attributes


@given(st.binary(max_size=100))
def test_any_octets_decode_ends(octets: bytes) -> None:
    for message in decode_messages(octets):
        decode_attributes(message.body, 0)
        error_of(message)


@given(messages, st.data())
def test_message_cut_off_is_not_returned(message: Message, data: st.DataObject) -> None:
    whole = encode_message(message)
    length = 16 + len(message.body)
    cut = data.draw(st.integers(0, length - 1))
    assert list(decode_messages(whole[:cut])) == []


def test_message_layout_is_that_of_the_kernel() -> None:
    octets = encode_message(Message(kind=20, flags=5, sequence=9, body=b"abc"))
    assert octets == struct.pack("=IHHII", 19, 20, 5, 9, 0) + b"abc\0"


def test_attribute_flags_are_no_part_of_its_type() -> None:
    assert decode_attributes(struct.pack("=HH", 6, 0x8000 | 7) + b"xy\0\0", 0) == {7: b"xy"}


def test_error_of_returns_the_errno() -> None:
    assert error_of(Message(NLMSG_ERROR, 0, 1, struct.pack("=i", -16))) == 16
    assert error_of(Message(NLMSG_ERROR, 0, 1, struct.pack("=i", 0))) == 0
    assert error_of(Message(NLMSG_ERROR, 0, 1, b"")) == 0
