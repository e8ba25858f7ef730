"""The tables of docs/wire.md against the codec, against the scapy layers, and against the file."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tcpha.config import BackEndConfig, FrontEndConfig
from tcpha.errors import WireError
from tcpha.proto import dissect, handoff, wiredoc
from tcpha.proto.cookie import MSS_CLASSES, Agreement, SynCookies
from tcpha.proto.dissect import HandoffMessage
from tcpha.proto.handoff import Envelope, Flag, HandoffCodec, Tlv, Type
from tcpha.proto.ip import ConnectionKey, key_text
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
from tcpha.proto.wiredoc import ADDRESSES, COOKIE_BLOCK, FIXED, FLAGS, MESSAGES, TLVS, Row, TlvRow, length_octets
from tests.unit.proto.conftest import KEY_IPV4, SECRET, seal, sub_key

# One message of each type with everything in it, and every value recognisable by its octets.
KEY = ConnectionKey(bytes.fromhex("a1a2a3a4 b1b2b3b4 c1c2 d1d2"))
KEY_LONG = ConnectionKey(bytes.fromhex("a1" * 16 + "b1" * 16 + "c1c2 d1d2"))
IDENTITY = Identity(KEY, SeqNum(0xE1E2E3E4), SeqNum(0xF1F2F3F4))
IDENTITY_LONG = replace(IDENTITY, key=KEY_LONG)
ENVELOPE = Envelope(sender=0x2122, epoch=0x31323334, sequence=0x41424344)
HANDOFF = Handoff(
    IDENTITY, Agreement(0x5152, 6, sack=True), promised_window_scale=9, window=0x6162, period=0x7172,
    tsval_sent=0x81828384, tsval_client=0x91929394, confirm=True, acknowledged=SeqNum(0x12131415), octets=b"GET /",
)  # fmt: skip
STATUS = Status(
    nonce=0x0102030405060708, epoch=0x22232425, state=NodeState.UP, flows=0x32333435, digest=bytes(range(16)),
    capabilities=Capabilities(11, sack=True, timestamps=True, mss=0x4243),
    servers=(
        Server(bytes.fromhex("a5a6a7a8"), 0x5253, ServerState.SILENT),
        Server(bytes.fromhex("a5" * 16), 0x5253, ServerState.SILENT),
    ),
)  # fmt: skip
FULL: dict[Type, Message] = {
    Type.HANDOFF: HANDOFF,
    Type.ADOPTED: Adopted(IDENTITY, SeqNum(0x16171819)),
    Type.REFUSED: Refused(IDENTITY, Reason.OLDER_GENERATION),
    Type.MOVED: Moved(IDENTITY, owner=0x6263),
    Type.CLOSED: Closed((IDENTITY, IDENTITY_LONG)),
    Type.STATUS: STATUS,
    Type.FLOWS_QUERY: FlowsQuery((KEY, KEY_LONG)),
    Type.FLOWS: Flows((IDENTITY, IDENTITY_LONG), (KEY, KEY_LONG)),
}
HEADER_VALUES = {
    "magic": 0x5448, "version": 1, "type": 1, "words": 19, "flags": 2 + 4 + 8 + 32, "scales": 0x69, "key": 200,
    "sender": 0x2122, "mss": 0x5152, "window": 0x6162, "period": 0x7172, "epoch": 0x31323334, "sequence": 0x41424344,
    "irs": 0xE1E2E3E4, "iss": 0xF1F2F3F4, "tsval_sent": 0x81828384, "tsval_client": 0x91929394,
    "client_port": 0xC1C2, "vip_port": 0xD1D2,
}  # fmt: skip
TLV_VALUES: dict[Tlv, dict[str, int]] = {
    Tlv.RCV_NXT: {"rcv_nxt": 0x16171819},
    Tlv.ACKNOWLEDGED: {"acknowledged": 0x12131415},
    Tlv.REASON: {"reason": 6},
    Tlv.FLOW: {"irs": 0xE1E2E3E4, "iss": 0xF1F2F3F4, "client_port": 0xC1C2, "vip_port": 0xD1D2},
    Tlv.ABSENT: {"irs": 0, "iss": 0, "client_port": 0xC1C2, "vip_port": 0xD1D2},
    Tlv.NONCE: {"nonce": 0x0102030405060708},
    Tlv.EPOCH: {"epoch": 0x22232425},
    Tlv.CAPABILITIES: {"window_scale": 11, "flags": 3, "mss": 0x4243},
    Tlv.STATE: {"state": 2, "flows": 0x32333435},
    Tlv.SERVER: {"state": 3, "port": 0x5253},
    Tlv.DIGEST: {"digest": 0x000102030405060708090A0B0C0D0E0F},
    Tlv.OWNER: {"owner": 0x6263},
}
ADDRESS_VALUES = {
    ("client_address", 4): 0xA1A2A3A4, ("client_address", 16): int("a1" * 16, 16),
    ("virtual_address", 4): 0xB1B2B3B4, ("virtual_address", 16): int("b1" * 16, 16),
    ("address", 4): 0xA5A6A7A8, ("address", 16): int("a5" * 16, 16),
}  # fmt: skip
CODEC = HandoffCodec(Keyring((Key(200, SECRET),)))
LAYOUTS = [(tlv, layout) for tlv in TLVS for layout in tlv.layouts]
NAME = attrgetter("name")
every_layout = pytest.mark.parametrize(
    ("tlv", "layout"), LAYOUTS, ids=[f"{tlv.number.name} {length_octets(layout)}" for tlv, layout in LAYOUTS]
)


def at(row: Row, octets: bytes) -> int:
    return int.from_bytes(octets[row.offset : row.offset + row.octets], "big")


def tlvs_of(datagram: bytes) -> list[tuple[int, bytes]]:
    """Walk the TLVs as docs/wire.md says."""
    offset, found = 92 if datagram[21] & 1 else 68, []
    while offset < datagram[20] * 4:
        number, length = struct.unpack_from("!HH", datagram, offset)
        found.append((number, datagram[offset + 4 : offset + 4 + length]))
        offset += 4 + (length + 3) // 4 * 4
    return found


# --- the tables in themselves


@pytest.mark.parametrize(
    "rows", [(*FIXED, *ADDRESSES[4]), (*FIXED, *ADDRESSES[6]), COOKIE_BLOCK, *(layout for _, layout in LAYOUTS)]
)
def test_block_its_rows_follow_one_another_without_gap(rows: Sequence[Row]) -> None:
    end = 0
    for row in rows:
        assert row.offset == end
        assert row.octets > 0
        end += row.octets


@pytest.mark.parametrize("row", [row for row in FIXED if row.octets in (2, 4)], ids=NAME)
def test_field_of_the_header_is_naturally_aligned(row: Row) -> None:
    assert row.offset % row.octets == 0


def test_header_ends_where_the_code_says() -> None:
    assert length_octets(FIXED) == handoff.FIXED_OCTETS == handoff._FIXED.size
    assert length_octets(ADDRESSES[4]) == handoff.HEADER_OCTETS_IPV4
    assert length_octets(ADDRESSES[6]) == handoff.HEADER_OCTETS_IPV6


def test_every_type_flag_and_tlv_is_described_once_in_order() -> None:
    assert [number for number, *_ in MESSAGES] == list(Type)
    assert [flag for flag, _ in FLAGS] == list(Flag)
    assert [tlv.number for tlv in TLVS] == list(Tlv)


# --- the header


@pytest.mark.parametrize("row", FIXED[1:], ids=NAME)
def test_field_of_the_header_codec_writes_it_where_the_table_says(row: Row) -> None:
    assert at(row, CODEC.encode(ENVELOPE, HANDOFF)) == HEADER_VALUES[row.name]


CHANGED: dict[str, tuple[Envelope, Handoff]] = {
    "sender": (replace(ENVELOPE, sender=0xDEDD), HANDOFF),
    "epoch": (replace(ENVELOPE, epoch=0xCECDCCCB), HANDOFF),
    "sequence": (replace(ENVELOPE, sequence=0xBEBDBCBB), HANDOFF),
    "scales": (ENVELOPE, replace(HANDOFF, promised_window_scale=10)),
    "mss": (ENVELOPE, replace(HANDOFF, agreement=Agreement(0xAEAD, 6, sack=True))),
    "window": (ENVELOPE, replace(HANDOFF, window=0x9E9D)),
    "period": (ENVELOPE, replace(HANDOFF, period=0x8E8D)),
    "irs": (ENVELOPE, replace(HANDOFF, identity=replace(IDENTITY, irs=SeqNum(0x1E1D1C1B)))),
    "iss": (ENVELOPE, replace(HANDOFF, identity=replace(IDENTITY, iss=SeqNum(0x0E0D0C0B)))),
    "tsval_sent": (ENVELOPE, replace(HANDOFF, tsval_sent=0x7E7D7C7B)),
    "tsval_client": (ENVELOPE, replace(HANDOFF, tsval_client=0x6E6D6C6B)),
    "flags": (ENVELOPE, replace(HANDOFF, confirm=False)),
}


@pytest.mark.parametrize("name", CHANGED)
def test_value_changed_only_the_octets_of_its_row_and_the_tag_differ(name: str) -> None:
    row = next(row for row in FIXED if row.name == name)
    before, after = CODEC.encode(ENVELOPE, HANDOFF), CODEC.encode(*CHANGED[name])
    changed = [offset for offset in range(16, len(before)) if before[offset] != after[offset]]
    assert changed == list(range(row.offset, row.offset + row.octets))


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_codec_writes_them_where_the_table_says(family: int) -> None:
    message = HANDOFF if family == 4 else replace(HANDOFF, identity=IDENTITY_LONG)
    datagram = CODEC.encode(ENVELOPE, message)
    client, vip = ADDRESSES[family]
    key = message.identity.key
    assert (
        datagram[client.offset : client.offset + client.octets] + datagram[vip.offset : length_octets((vip,))]
        == key[:-4]
    )


def differing(layer: Any, other: Any) -> set[str]:
    return {name for name in other.fields if layer.getfieldval(name) != other.getfieldval(name)}


STEERING = ("magic", "words", "flags")
"""Rows whose value decides how the rest is read."""


@pytest.mark.parametrize("row", [row for row in FIXED if row.name not in STEERING], ids=NAME)
def test_field_of_the_header_scapy_layer_reads_it_where_the_table_says(row: Row) -> None:
    blank = bytes(16) + b"TH" + bytes(50)
    octets = blank[: row.offset] + b"\xff" * row.octets + blank[row.offset + row.octets :]
    names = {"client_scale", "promised_scale"} if row.name == "scales" else {row.name}
    assert differing(HandoffMessage(octets), HandoffMessage(blank)) == names


@pytest.mark.parametrize("row", [row for row in FIXED if row.name in STEERING], ids=NAME)
def test_field_that_steers_scapy_layer_writes_it_where_the_table_says(row: Row) -> None:
    blank = bytes(HandoffMessage(magic=0, words=0, flags=0))
    value = (1 << 8 * row.octets) - 2  # even, so that the addresses stay those of IPv4
    octets = bytes(HandoffMessage(**({"magic": 0, "words": 0, "flags": 0} | {row.name: value})))
    assert octets == blank[: row.offset] + value.to_bytes(row.octets, "big") + blank[row.offset + row.octets :]


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_scapy_layer_has_them_where_the_table_says(family: int) -> None:
    address = "198.51.100.7" if family == 4 else "2001:db8:1:2:3:4:5:6"
    flags = "" if family == 4 else "ipv6"
    for row in ADDRESSES[family]:
        datagram = bytes(HandoffMessage(flags=flags, **{row.name: address}))
        other = bytes(HandoffMessage(flags=flags))
        changed = [offset for offset in range(len(other)) if datagram[offset] != other[offset]]
        assert (changed[0], changed[-1]) == (row.offset, row.offset + row.octets - 1)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (Flag.IPV6, replace(HANDOFF, identity=IDENTITY_LONG)),
        (Flag.TIMESTAMPS, replace(HANDOFF, tsval_sent=None, tsval_client=0)),
        (Flag.SACK, replace(HANDOFF, agreement=Agreement(0x5152, 6, sack=False))),
        (Flag.WINDOW_SCALE, replace(HANDOFF, agreement=Agreement(0x5152, None, sack=True), promised_window_scale=None)),
        (Flag.CONFIRM, replace(HANDOFF, confirm=False)),
    ],
)
def test_flag_codec_changes_it_and_no_other(flag: Flag, message: Handoff) -> None:
    assert CODEC.encode(ENVELOPE, HANDOFF)[21] ^ CODEC.encode(ENVELOPE, message)[21] == flag


@pytest.mark.parametrize(("flag", "meaning"), FLAGS)
def test_flag_scapy_layer_names_it_alike(flag: Flag, meaning: str) -> None:
    assert meaning
    assert bytes(HandoffMessage(flags=flag.name.lower()))[21] == flag


# --- messages and TLVs


@pytest.mark.parametrize("number", Type)
def test_full_message_its_tlvs_are_those_of_the_table(number: Type) -> None:
    _, _, has_flow, described, _ = next(row for row in MESSAGES if row[0] is number)
    datagram = CODEC.encode(ENVELOPE, FULL[number])
    assert datagram[19] == number
    assert {Tlv(kind).name for kind, _ in tlvs_of(datagram)} == {name.rstrip("?*") for name in described.split()}
    assert (datagram[40:48] + datagram[56:68] != bytes(20)) is has_flow


@pytest.mark.parametrize("number", Type)
def test_tlv_taken_out_only_one_that_must_stand_is_missed(number: Type) -> None:
    described = next(row[3] for row in MESSAGES if row[0] is number).split()
    datagram = CODEC.encode(ENVELOPE, FULL[number])
    for name in described:
        rest = [(kind, value) for kind, value in tlvs_of(datagram) if kind != Tlv[name.rstrip("?*")]]
        octets = b"".join(struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4) for kind, value in rest)
        covered = bytearray(datagram[16:68] + octets)
        covered[4] = (68 + len(octets)) // 4
        if name.endswith(("?", "*")):
            assert type(CODEC.decode(seal(bytes(covered)))[1]) is type(FULL[number])
        else:
            with pytest.raises(WireError, match=f"without {name}"):
                CODEC.decode(seal(bytes(covered)))


def value_of(tlv: TlvRow, octets: int) -> bytes:
    """The TLV of that length as some message of the codec bears it."""
    for message in FULL.values():
        for kind, value in tlvs_of(CODEC.encode(ENVELOPE, message)):
            if kind == tlv.number and len(value) == octets:
                return value
    pytest.fail(f"no message bears {tlv.number.name} of {octets} octets")


@every_layout
def test_tlv_codec_writes_its_values_where_the_table_says(tlv: TlvRow, layout: tuple[Row, ...]) -> None:
    value = value_of(tlv, length_octets(layout))
    seen = {row.name: at(row, value) for row in layout}
    addresses = {row.name: ADDRESS_VALUES[row.name, row.octets] for row in layout if "address" in row.name}
    zero = {row.name: 0 for row in layout if row.name == "zero"}
    assert seen == TLV_VALUES[tlv.number] | addresses | zero


@every_layout
def test_tlv_scapy_layer_has_its_values_where_the_table_says(tlv: TlvRow, layout: tuple[Row, ...]) -> None:
    head = struct.pack("!HH", tlv.number, length_octets(layout))
    layer: Any = dissect._LAYERS[tlv.number]
    blank = bytes(length_octets(layout))
    padding = bytes(-len(blank) % 4)
    for row in layout:
        value = blank[: row.offset] + b"\xff" * row.octets + blank[row.offset + row.octets :]
        name = "unused" if row.name == "zero" else row.name
        assert differing(layer(head + value + padding), layer(head + blank + padding)) == {name}


def test_numbers_of_types_and_tlvs_scapy_layers_have_the_same() -> None:
    assert {int(tlv.number): tlv.number.name for tlv in TLVS} == dissect._TLVS
    assert {int(number): wiredoc._type_name(number) for number, *_ in MESSAGES} == dissect._TYPES


@pytest.mark.parametrize(("meaning", "default", "unit", "key"), wiredoc.TIMES)
def test_default_is_that_of_the_configuration(meaning: str, default: int, unit: str, key: str) -> None:
    fields = FrontEndConfig.model_fields | BackEndConfig.model_fields
    assert fields[key].default == (default / 1000 if unit == "ms" else default), meaning


# --- the cookie


def test_block_built_from_the_table_hashes_to_the_cookie() -> None:
    values = {
        "client address": bytes(10) + b"\xff\xff" + KEY_IPV4[:4],
        "virtual address": bytes(10) + b"\xff\xff" + KEY_IPV4[4:8],
        "client port": KEY_IPV4[8:10],
        "VIP port": KEY_IPV4[10:12],
        "irs": wiredoc.EXAMPLE_IRS.to_bytes(4, "big"),
        "period": (wiredoc.EXAMPLE_UTC_S // 32).to_bytes(4, "big"),
        "zero": bytes(20),
    }
    block = bytearray(length_octets(COOKIE_BLOCK))
    for row in COOKIE_BLOCK:
        assert len(values[row.name]) == row.octets
        block[row.offset : row.offset + row.octets] = values[row.name]
    digest = hashlib.blake2s(block, key=sub_key(b"tcpha cookie"), digest_size=8).digest()

    front_end = SynCookies(Keyring((wiredoc.EXAMPLE_SECRET,)))
    iss, tsval = front_end.make(KEY_IPV4, wiredoc.EXAMPLE_IRS, Agreement(88, 0, sack=False), wiredoc.EXAMPLE_UTC_S)
    assert (iss, tsval) == struct.unpack("!II", digest)


# --- the document


def test_document_of_the_repository_is_up_to_date() -> None:
    assert wiredoc.main(["--check"]) == 0


def test_document_written_is_what_check_accepts(tmp_path: Path) -> None:
    document = tmp_path / "wire.md"
    assert wiredoc.main([str(document)]) == 0
    assert document.read_text(encoding="utf-8") == wiredoc.render()
    assert wiredoc.main(["--check", str(document)]) == 0


def test_document_that_differs_or_is_missing_check_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "wire.md"
    assert wiredoc.main(["--check", str(document)]) == 1
    document.write_text(wiredoc.render() + "\n", encoding="utf-8")
    assert wiredoc.main(["--check", str(document)]) == 1
    assert capsys.readouterr().err.count("not up to date") == 2
    assert document.read_text(encoding="utf-8") == wiredoc.render() + "\n"


def test_document_its_tables_have_as_many_cells_in_each_line() -> None:
    lines = wiredoc.render().splitlines()
    tables = [line.count("|") if line.startswith("|") else 0 for line in lines]
    for before, here in itertools.pairwise(tables):
        assert 0 in (before, here) or before == here
    assert sum(cells > 0 for cells in tables) > 100


def test_document_example_opens_and_stands_there_whole() -> None:
    envelope, message = wiredoc.example()
    datagram = wiredoc.example_datagram()
    assert HandoffCodec(Keyring((wiredoc.EXAMPLE_SECRET,))).decode(datagram) == (envelope, message)
    dump = wiredoc.render().split("The whole datagram:")[1]
    assert bytes.fromhex(dump) == datagram
    assert seal(datagram[16:]) == datagram
    assert key_text(message.identity.key) in (document := wiredoc.render())
    assert f"iss = {message.identity.iss:#010x}, TSval = {message.tsval_sent:#010x}" in document


def test_document_example_its_cookie_is_accepted() -> None:
    _, message = wiredoc.example()
    found = SynCookies(Keyring((wiredoc.EXAMPLE_SECRET,))).check(
        message.identity.key, message.identity.irs, message.identity.iss, message.tsval_sent, wiredoc.EXAMPLE_UTC_S
    )
    assert found is not None
    assert found.agreement == message.agreement
    assert found.period & 0xFFFF == message.period


def test_document_lists_every_number_of_the_enumerations() -> None:
    document = wiredoc.render()
    for enumeration in (Reason, ServerState):
        assert ", ".join(f"{each.value} {each.text}" for each in enumeration) in document
    assert "1 starting, 2 up, 3 draining" in document
    assert all(f"{index} = {mss}" in document for index, mss in enumerate(MSS_CLASSES))
