from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from tcpha.errors import OptionError
from tcpha.proto.options import (
    ALIGNED_TIMESTAMPS,
    MSS,
    NOP,
    SACK,
    SACK_PERMITTED,
    TIMESTAMPS,
    WINDOW_SCALE,
    Options,
    _decode_any_options,
    _encode_any_options,
    decode_options,
    decode_timestamps,
    encode_options,
    encode_sack,
    encode_timestamps,
    find_options,
)
from tests.unit.proto.conftest import shift_counts, u16, u32

options = st.builds(Options, st.none() | u16, st.none() | shift_counts, st.booleans(), st.none() | st.tuples(u32, u32))
LINUX_SYN = bytes.fromhex("020405b4 0402080a 01020304 00000000 01030307")


def decoded(octets: bytes) -> Options:
    return decode_options(octets, 0, len(octets))


def test_options_of_a_linux_syn_are_read() -> None:
    assert decoded(LINUX_SYN) == Options(1460, 7, True, (0x01020304, 0))


def test_options_written_stand_as_linux_writes_them() -> None:
    assert encode_options(Options(1460, 7, True, (0x01020304, 0))) == LINUX_SYN


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (Options(), ""),
        (Options(mss=536), "02040218"),
        (Options(window_scale=0), "01030300"),
        (Options(sack_permitted=True), "01010402"),
        (Options(timestamps=(1, 2)), "0101080a 00000001 00000002"),
    ],
)
def test_single_option_written_is_padded_in_front(value: Options, octets: str) -> None:
    assert encode_options(value) == bytes.fromhex(octets)


@given(options)
def test_any_options_written_and_read_are_the_same(value: Options) -> None:
    octets = encode_options(value)
    assert len(octets) % 4 == 0
    assert len(octets) <= 40
    assert decoded(octets) == value
    assert decode_timestamps(octets, 0, len(octets)) == value.timestamps


@given(options)
def test_any_options_written_in_one_piece_are_those_written_one_by_one(value: Options) -> None:
    assert encode_options(value) == _encode_any_options(value)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 255)), max_size=3), st.binary(max_size=4))
def test_options_that_resemble_those_of_linux_are_read_as_any_others(
    changes: list[tuple[int, int]], behind: bytes
) -> None:
    octets = bytearray(LINUX_SYN) + behind
    for offset, octet in changes:
        octets[offset] = octet
    try:
        expected = _decode_any_options(octets, 0, len(LINUX_SYN))
    except OptionError:
        with pytest.raises(OptionError):
            decode_options(octets, 0, len(LINUX_SYN))
    else:
        assert decode_options(octets, 0, len(LINUX_SYN)) == expected


@given(options)
def test_any_options_written_scapy_reads_the_same(value: Options) -> None:
    segment = bytes(TCP(dataofs=5 + len(encode_options(value)) // 4))[:20] + encode_options(value)
    found = {name: content for name, content in TCP(segment).options if name not in ("NOP", "EOL")}
    expected = {"MSS": value.mss, "WScale": value.window_scale, "Timestamp": value.timestamps}
    assert found == {name: content for name, content in expected.items() if content is not None} | (
        {"SAckOK": b""} if value.sack_permitted else {}
    )


@given(st.binary(max_size=40))
def test_any_octets_only_option_error_is_raised(octets: bytes) -> None:
    for read in (find_options, decode_options, decode_timestamps):
        try:
            read(octets, 0, len(octets))
        except OptionError as error:
            assert 0 <= error.offset < len(octets)  # noqa: PT017 - whether it is raised depends on the octets


@given(st.binary(max_size=20), st.binary(max_size=40), st.binary(max_size=20))
def test_octets_around_the_options_are_not_looked_at(before: bytes, octets: bytes, behind: bytes) -> None:
    start, end = len(before), len(before) + len(octets)
    try:
        alone = find_options(octets, 0, len(octets))
    except OptionError:
        with pytest.raises(OptionError):
            find_options(before + octets + behind, start, end)
    else:
        shifted = [(kind, start + offset, length) for kind, offset, length in alone]
        assert find_options(before + octets + behind, start, end) == shifted


@pytest.mark.parametrize(
    ("octets", "offset"),
    [
        ("02", 0),  # no length
        ("0200", 0),
        ("0201", 0),
        ("020405", 0),  # runs over the end
        ("0101 0203ff", 2),  # MSS of three octets
        ("030405b4", 0),  # window scale of four
        ("040300", 0),
        ("080b" + "00" * 9, 0),
        ("fe01", 0),
        ("020405b4 fe", 4),
    ],
)
def test_impossible_length_is_refused_where_it_stands(octets: str, offset: int) -> None:
    with pytest.raises(OptionError) as raised:
        decoded(bytes.fromhex(octets))
    assert raised.value.offset == offset


def test_unknown_option_is_found_and_passed_over() -> None:
    octets = bytes.fromhex("fe06aabbccdd 01 020405b4")
    assert find_options(octets, 0, len(octets)) == [(0xFE, 0, 6), (MSS, 7, 4)]
    assert decoded(octets) == Options(mss=1460)


def test_octets_behind_end_of_options_are_not_read() -> None:
    assert decoded(bytes.fromhex("020405b4 00 0303")) == Options(mss=1460)


def test_sack_blocks_at_an_odd_offset_are_found() -> None:
    octets = bytes((NOP,)) + bytes.fromhex("050a 00000001 00000002") + bytes((NOP,))
    assert find_options(octets, 0, len(octets)) == [(SACK, 1, 10)]


@pytest.mark.parametrize("written", [15, 255])
def test_window_scale_above_14_counts_as_14(written: int) -> None:
    assert decoded(bytes((WINDOW_SCALE, 3, written))).window_scale == 14


@given(u32, u32)
def test_aligned_timestamps_written_and_read_are_the_same(tsval: int, tsecr: int) -> None:
    octets = encode_timestamps(tsval, tsecr)
    assert octets[:4] == ALIGNED_TIMESTAMPS
    assert decode_timestamps(octets, 0, 12) == decoded(octets).timestamps == (tsval, tsecr)


def test_timestamps_not_aligned_are_found() -> None:
    octets = bytes.fromhex("0402 080a 00000007 00000008 020405b4")
    assert decode_timestamps(octets, 0, len(octets)) == (7, 8)


def test_no_timestamps_none_is_returned() -> None:
    assert decode_timestamps(b"", 0, 0) is None
    assert decode_timestamps(bytes.fromhex("020405b4"), 0, 4) is None


def test_timestamps_with_sack_blocks_behind_are_read() -> None:
    octets = encode_timestamps(7, 8) + bytes.fromhex("0101 050a 00000001 00000002")
    assert decode_timestamps(octets, 0, len(octets)) == (7, 8)
    assert [kind for kind, _, _ in find_options(octets, 0, len(octets))] == [TIMESTAMPS, SACK]


def test_sack_permitted_and_timestamps_share_a_word() -> None:
    octets = encode_options(Options(sack_permitted=True, timestamps=(7, 8)))
    assert octets[0] == SACK_PERMITTED
    assert len(octets) == 12


@pytest.mark.parametrize(("room_octets", "blocks"), [(11, 0), (12, 1), (28, 3), (40, 4)])
def test_sack_has_as_many_blocks_as_fit(room_octets: int, blocks: int) -> None:
    edges = [(0xFFFFFFFF, 5), (10, 20), (30, 40), (50, 60), (70, 80)]
    octets = encode_sack(edges, room_octets)
    assert len(octets) in (0, 4 + 8 * blocks)
    flat = tuple(edge for block in edges[:blocks] for edge in block)
    read = TCP(bytes(12) + bytes([(20 + len(octets)) << 2]) + bytes(7) + octets).options
    assert [value for name, value in read if name == "SAck"] == ([flat] if blocks else [])


def test_sack_of_nothing_is_no_option() -> None:
    assert encode_sack([], 40) == b""
