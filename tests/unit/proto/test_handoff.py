from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tcpha.errors import (
    HandoffAuthError,
    HandoffFormatError,
    HandoffVersionError,
    TruncatedError,
    WireError,
)
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import FLOWS_A_MESSAGE, SERVERS_A_MESSAGE, Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import (
    Adopted,
    Capabilities,
    Closed,
    Flows,
    FlowsQuery,
    Handoff,
    Message,
    Moved,
    Server,
    ServerState,
)
from tcpha.proto.seqnum import SeqNum
from tests.unit.proto.conftest import (
    ENVELOPE,
    KEY_IPV4,
    KEY_IPV6,
    KEYRING,
    OTHER_KEYRING,
    OTHER_SECRET,
    SECRET,
    VIP_IPV6,
    contents,
    envelopes,
    identity,
    messages,
    seal,
    tag,
)
from tests.unit.proto.vectors import HANDOFF, IPV4, IPV6, MALFORMED, STATUS, VECTORS, with_fields

CODEC = HandoffCodec(KEYRING)


@pytest.mark.parametrize("name", VECTORS)
def test_message_encoded_and_decoded_is_its_vector(name: str) -> None:
    message, octets, pinned_tag = VECTORS[name]
    covered = bytes.fromhex(octets)
    assert CODEC.encode(ENVELOPE, message).hex() == (tag(covered) + covered).hex()
    assert tag(covered).hex() == pinned_tag
    assert CODEC.decode(tag(covered) + covered) == (ENVELOPE, message)


# --- round trips


@given(envelopes, messages)
def test_any_message_encoded_and_decoded_is_the_same(envelope: Envelope, message: Message) -> None:
    datagram = CODEC.encode(envelope, message)
    assert CODEC.decode(datagram) == (envelope, message)
    assert datagram[:16] == tag(datagram[16:])


def test_period_encoded_keeps_its_low_16_bits() -> None:
    _, decoded = CODEC.decode(CODEC.encode(ENVELOPE, replace(HANDOFF, period=53_125_000)))
    assert isinstance(decoded, Handoff)
    assert decoded.period == 53_125_000 & 0xFFFF


@pytest.mark.parametrize("key", [KEY_IPV4, KEY_IPV6], ids=["IPv4", "IPv6"])
def test_as_many_flows_as_a_message_carries_fit_and_pass(key: ConnectionKey) -> None:
    flows = tuple(identity(irs=number, key=key) for number in range(FLOWS_A_MESSAGE))
    absent = tuple(each.key for each in flows)
    for message in (Closed(flows), FlowsQuery(absent), Flows(flows[:9], absent[9:])):
        datagram = CODEC.encode(ENVELOPE, message)
        assert len(datagram) <= 1020
        assert CODEC.decode(datagram) == (ENVELOPE, message)


def test_one_flow_more_does_not_fit_with_ipv6() -> None:
    with pytest.raises(ValueError, match="1020"):
        CODEC.encode(ENVELOPE, Closed((IPV6,) * (FLOWS_A_MESSAGE + 1)))


def test_as_many_servers_as_a_status_carries_fit_and_one_more_does_not() -> None:
    servers = (Server(VIP_IPV6.packed, 80, ServerState.ANSWERS),) * SERVERS_A_MESSAGE
    message = replace(STATUS, servers=servers)
    assert CODEC.decode(CODEC.encode(ENVELOPE, message)) == (ENVELOPE, message)
    with pytest.raises(ValueError, match="1020"):
        CODEC.encode(ENVELOPE, replace(STATUS, servers=(*servers, servers[0])))


# --- what does not fit its field


@pytest.mark.parametrize(
    "message",
    [
        Adopted(IPV4, SeqNum(2**32)),
        Adopted(IPV4, SeqNum(-1)),
        Adopted(identity(irs=2**32), SeqNum(0)),
        Adopted(identity(key=ConnectionKey(bytes(13))), SeqNum(0)),
        Adopted(identity(key=ConnectionKey(b"")), SeqNum(0)),
        Moved(IPV4, owner=65536),
        Moved(IPV4, owner=-1),
        Closed((identity(iss=2**32),)),
        Closed((identity(key=ConnectionKey(bytes(16))),)),
        FlowsQuery((ConnectionKey(bytes(35)),)),
        replace(HANDOFF, window=65536),
        replace(HANDOFF, tsval_client=2**32),
        replace(HANDOFF, acknowledged=SeqNum(2**32)),
        replace(HANDOFF, promised_window_scale=16),
        replace(HANDOFF, promised_window_scale=15),
        replace(HANDOFF, promised_window_scale=-1),
        replace(HANDOFF, promised_window_scale=None),
        replace(HANDOFF, agreement=Agreement(1460, None, sack=True)),
        replace(HANDOFF, agreement=Agreement(1460, 15, sack=True)),
        replace(HANDOFF, agreement=Agreement(65536, 7, sack=True)),
        replace(STATUS, nonce=2**64),
        replace(STATUS, epoch=2**32),
        replace(STATUS, flows=-1),
        replace(STATUS, digest=bytes(15)),
        replace(STATUS, capabilities=Capabilities(15, sack=True, timestamps=True, mss=1460)),
        replace(STATUS, capabilities=Capabilities(7, sack=True, timestamps=True, mss=65536)),
        replace(STATUS, servers=(Server(bytes(5), 80, ServerState.ANSWERS),)),
        replace(STATUS, servers=(Server(bytes(4), 65536, ServerState.ANSWERS),)),
    ],
    ids=str,
)
def test_value_that_does_not_fit_its_field_is_a_value_error(message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        CODEC.encode(ENVELOPE, message)


@pytest.mark.parametrize("envelope", [Envelope(65536, 0, 0), Envelope(1, 2**32, 0), Envelope(1, 0, -1)])
@pytest.mark.parametrize("message", [HANDOFF, Adopted(IPV4, SeqNum(0)), STATUS], ids=lambda each: type(each).__name__)
def test_envelope_that_does_not_fit_is_a_value_error(envelope: Envelope, message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        CODEC.encode(envelope, message)


@pytest.mark.parametrize("number", ["window", "tsval_client", "acknowledged"])
def test_handoff_that_does_not_fit_is_a_value_error_however_it_is_sealed(number: str) -> None:
    for value in (2**32, -1):
        with pytest.raises(ValueError, match=r"."):
            CODEC.encode_handoff(1, 0, 0, replace(HANDOFF, **{number: value}))


# --- the tag


@pytest.mark.parametrize("name", VECTORS)
def test_any_single_bit_flipped_is_refused(name: str) -> None:
    datagram = CODEC.encode(ENVELOPE, VECTORS[name][0])
    for bit in range(len(datagram) * 8):
        flipped = bytearray(datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            CODEC.decode(bytes(flipped))


@pytest.mark.parametrize("name", VECTORS)
def test_cut_anywhere_or_prolonged_is_refused(name: str) -> None:
    datagram = CODEC.encode(ENVELOPE, VECTORS[name][0])
    for octets in range(len(datagram)):
        with pytest.raises(TruncatedError if octets < 68 else HandoffAuthError):
            CODEC.decode(datagram[:octets])
    with pytest.raises(HandoffAuthError, match="wrong tag"):
        CODEC.decode(datagram + b"\0")


def test_other_secret_under_the_same_number_is_refused() -> None:
    with pytest.raises(HandoffAuthError, match="wrong tag"):
        CODEC.decode(HandoffCodec(OTHER_KEYRING).encode(ENVELOPE, HANDOFF))


def test_cookie_sub_key_does_not_seal() -> None:
    covered = CODEC.encode(ENVELOPE, HANDOFF)[16:]
    secret_of_cookies = Key(1, SECRET).derive(b"tcpha cookie")
    with pytest.raises(HandoffAuthError, match="wrong tag"):
        CODEC.decode(seal(covered, secret_of_cookies))


def test_unknown_key_number_is_refused() -> None:
    codec = HandoffCodec(Keyring((Key(9, SECRET),)))
    with pytest.raises(HandoffAuthError, match="key number 9 is not known"):
        CODEC.decode(codec.encode(ENVELOPE, HANDOFF))


def test_keys_rotated_each_side_opens_what_the_other_seals() -> None:
    old, new = Key(1, SECRET), Key(2, OTHER_SECRET)
    before, after = HandoffCodec(Keyring((old, new))), HandoffCodec(Keyring((new, old)))
    assert before.encode(ENVELOPE, HANDOFF)[23] == 1
    assert after.encode(ENVELOPE, HANDOFF)[23] == 2
    for maker, opener in ((before, after), (after, before), (before, before), (after, after)):
        assert opener.decode(maker.encode(ENVELOPE, HANDOFF)) == (ENVELOPE, HANDOFF)


def test_key_number_of_the_other_key_is_refused() -> None:
    codec = HandoffCodec(Keyring((Key(1, SECRET), Key(2, OTHER_SECRET))))
    covered = bytearray(codec.encode(ENVELOPE, HANDOFF)[16:])
    covered[23 - 16] = 2
    with pytest.raises(HandoffAuthError, match="wrong tag"):
        codec.decode(seal(bytes(covered)))
    assert codec.decode(seal(bytes(covered), OTHER_SECRET)) == (ENVELOPE, HANDOFF)


# --- octets that are no message, under a right tag


def changed(message: Message, offset: int, octets: bytes) -> bytes:
    """The message with other octets at an offset of the datagram, sealed again."""
    datagram = bytearray(CODEC.encode(ENVELOPE, message))
    datagram[offset : offset + len(octets)] = octets
    return seal(bytes(datagram[16:]))


@pytest.mark.parametrize(
    ("datagram", "error", "offset"),
    [
        (b"", TruncatedError, 0),
        (bytes(67), TruncatedError, 67),
        (bytes(68), HandoffFormatError, 16),
        (changed(HANDOFF, 16, b"\x54\x49"), HandoffFormatError, 16),
        (changed(HANDOFF, 18, b"\x00"), HandoffVersionError, 18),
        (changed(HANDOFF, 18, b"\x02"), HandoffVersionError, 18),
        (changed(HANDOFF, 19, b"\x00"), HandoffFormatError, 19),
        (changed(HANDOFF, 19, b"\x09"), HandoffFormatError, 19),
        (changed(HANDOFF, 20, b"\x10"), HandoffFormatError, 20),
        (changed(HANDOFF, 20, b"\xff"), HandoffFormatError, 20),
        (changed(FlowsQuery(()), 21, b"\x01"), HandoffFormatError, 20),
        (changed(HANDOFF, 22, b"\xf9"), HandoffFormatError, 22),
        (changed(HANDOFF, 22, b"\x7f"), HandoffFormatError, 22),
        (changed(HANDOFF, 23, b"\x02"), HandoffAuthError, 23),
        (changed(HANDOFF, 70, b"\x00\x05"), HandoffFormatError, 72),
    ],
)
def test_malformed_header_is_refused_where_it_is_wrong(datagram: bytes, error: type[WireError], offset: int) -> None:
    with pytest.raises(error) as raised:
        CODEC.decode(datagram)
    assert raised.value.offset == offset


@pytest.mark.parametrize(("name", "fields", "reason"), MALFORMED)
def test_malformed_fields_are_refused(name: str, fields: Sequence[tuple[int, bytes]], reason: str) -> None:
    with pytest.raises(HandoffFormatError, match=reason):
        CODEC.decode(with_fields(name, *fields))


@pytest.mark.parametrize("number", [2, 14])
def test_field_of_the_wanted_length_but_another_number_does_not_take_its_place(number: int) -> None:
    with pytest.raises(HandoffFormatError, match="ADOPTED without RCV_NXT"):
        CODEC.decode(with_fields("ADOPTED", (number, bytes(4))))


@pytest.mark.parametrize("foreign", [(0, b""), (3, bytes(9)), (12, bytes(8)), (14, b"x"), (65535, bytes(40))])
def test_field_that_the_message_does_not_use_is_passed_over(foreign: tuple[int, bytes]) -> None:
    message = Adopted(IPV4, SeqNum(0x01020304))
    field = (1, bytes.fromhex("01020304"))
    assert CODEC.decode(with_fields("ADOPTED", foreign, field)) == (ENVELOPE, message)
    assert CODEC.decode(with_fields("ADOPTED", field, foreign)) == (ENVELOPE, message)


def test_field_that_stands_twice_the_first_is_read() -> None:
    fields = (1, bytes.fromhex("01020304")), (1, bytes(4))
    _, decoded = CODEC.decode(with_fields("ADOPTED", *fields))
    assert decoded == Adopted(IPV4, SeqNum(0x01020304))


def test_capabilities_without_window_scaling_are_kept_apart_from_scale_zero() -> None:
    for scale in (None, 0):
        message = replace(STATUS, capabilities=Capabilities(scale, sack=False, timestamps=False, mss=88))
        assert CODEC.decode(CODEC.encode(ENVELOPE, message)) == (ENVELOPE, message)


def test_timestamps_agreed_on_with_a_tsval_of_zero_stay_agreed_on() -> None:
    message = replace(HANDOFF, tsval_sent=0)
    assert CODEC.decode(CODEC.encode(ENVELOPE, message)) == (ENVELOPE, message)


@given(st.binary(max_size=200))
def test_any_octets_only_wire_error_is_raised(octets: bytes) -> None:
    with pytest.raises(WireError):
        CODEC.decode(octets)


@given(contents())
def test_any_contents_under_a_right_tag_give_a_message_or_wire_error(covered: bytes) -> None:
    try:
        envelope, message = CODEC.decode(seal(covered))
    except WireError:
        return
    assert CODEC.decode(CODEC.encode(envelope, message)) == (envelope, message)


@given(st.binary(max_size=200))
def test_any_octets_behind_a_right_magic_under_a_right_tag_only_wire_error_is_raised(octets: bytes) -> None:
    covered = bytes.fromhex("544801") + octets[:4] + b"\x01" + octets[4:]
    try:
        CODEC.decode(seal(covered))
    except HandoffAuthError:
        pytest.fail("the tag was right")
    except WireError:
        return
