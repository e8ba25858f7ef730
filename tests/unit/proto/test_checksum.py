from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tcpha.proto.checksum import finish, internet_checksum, ones_sum, update


def by_the_book(octets: bytes) -> int:
    """RFC 1071, 4.1: word by word, carries folded in."""
    total = 0
    for at in range(0, len(octets), 2):
        total += octets[at] << 8 | (octets[at + 1] if at + 1 < len(octets) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize(
    ("octets", "checksum"),
    [
        ("0001 f203 f4f5 f6f7", 0x220D),  # RFC 1071, 3
        ("4500 0073 0000 4000 4011 0000 c0a8 0001 c0a8 00c7", 0xB861),
        ("01", 0xFEFF),
        ("0001 02", 0xFDFE),
        ("ffff", 0x0000),
    ],
)
def test_known_octets_checksum_is_the_published_one(octets: str, checksum: int) -> None:
    assert internet_checksum(bytes.fromhex(octets)) == checksum == by_the_book(bytes.fromhex(octets))


def test_zero_octets_checksum_is_zero_too() -> None:
    """A header is never all zero, so 65535 is never right and 0 is written for both zeros."""
    assert internet_checksum(bytes(20)) == internet_checksum(b"") == 0


@given(st.binary(min_size=1, max_size=200))
def test_any_octets_checksum_is_that_of_the_book(octets: bytes) -> None:
    assume(any(octets))
    assert internet_checksum(octets) == by_the_book(octets)


@given(st.binary(max_size=99).filter(lambda octets: len(octets) % 2 == 1))
def test_odd_length_sum_is_that_with_a_zero_behind(octets: bytes) -> None:
    assert ones_sum(octets) == ones_sum(octets + b"\0")


@given(st.binary(max_size=100))
def test_any_buffer_type_sum_is_the_same(octets: bytes) -> None:
    assert ones_sum(bytearray(octets)) == ones_sum(memoryview(octets)) == ones_sum(octets)


@given(st.binary(min_size=2, max_size=100).filter(lambda octets: len(octets) % 2 == 0 and any(octets)))
def test_octets_with_their_checksum_sum_is_zero(octets: bytes) -> None:
    assert ones_sum(octets + internet_checksum(octets).to_bytes(2, "big")) == 0


@given(st.integers(-(2**40), 2**40))
def test_any_sum_finished_is_a_field_that_never_reads_65535(total: int) -> None:
    assert 0 <= finish(total) <= 0xFFFE
    assert (total + finish(total)) % 0xFFFF == 0


def test_field_changed_update_is_the_example_of_rfc_1624() -> None:
    assert update(0xDD2F, 0x3285 - 0x5555) == 0x0000


@given(st.data())
def test_field_at_any_offset_changed_update_equals_recomputation(data: st.DataObject) -> None:
    before = data.draw(st.binary(min_size=8, max_size=80))
    octets = data.draw(st.sampled_from((2, 4)))
    offset = data.draw(st.integers(0, len(before) - octets))
    field = data.draw(st.binary(min_size=octets, max_size=octets))
    after = before[:offset] + field + before[offset + octets :]

    change = int.from_bytes(field, "big") - int.from_bytes(before[offset : offset + octets], "big")
    if offset % 2:
        change *= 256

    assert update(internet_checksum(before), change) == internet_checksum(after)


@given(st.binary(min_size=20, max_size=20), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 0xFFFF)), max_size=5))
def test_several_fields_changed_one_update_equals_recomputation(before: bytes, changes: list[tuple[int, int]]) -> None:
    after, total = bytearray(before), 0
    for word, value in changes:
        total += value - int.from_bytes(after[2 * word : 2 * word + 2], "big")
        after[2 * word : 2 * word + 2] = value.to_bytes(2, "big")
    assert update(internet_checksum(before), total) == internet_checksum(after)
