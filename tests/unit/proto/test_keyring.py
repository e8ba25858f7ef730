from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.proto.keyring import Key, Keyring, parse_keyring

ZEROS, ONES, TWOS = "00" * 32, "11" * 32, "22" * 32


def test_one_line_is_one_key() -> None:
    assert parse_keyring(f"7 {ONES}\n") == Keyring((Key(7, bytes.fromhex(ONES)),))


def test_two_lines_first_key_signs() -> None:
    keyring = parse_keyring(f"7 {ONES}\n0 {ZEROS}\n")
    assert [key.number for key in keyring.keys] == [7, 0]
    assert keyring.signing == Key(7, bytes.fromhex(ONES))


@pytest.mark.parametrize(
    "text",
    [
        f"# made today\n\n  255\t{ONES.upper()}   # the key\n\n",
        f"255 {ONES}",
        f"255 {ONES}\r\n",
    ],
)
def test_comments_blanks_and_case_do_not_matter(text: str) -> None:
    assert parse_keyring(text).signing.number == 255
    assert parse_keyring(text).signing.octets == bytes.fromhex(ONES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key in it"),
        ("# nothing\n\n", "no key in it"),
        (f"{ONES}\n", "line 1 is not"),
        (f"# key\n\n256 {ONES}\n", "line 3 is not"),
        (f"-1 {ONES}\n", "line 1 is not"),
        (f"one {ONES}\n", "line 1 is not"),
        (f"\u0661 {ONES}\n", "line 1 is not"),
        (f"1 {ONES} 2\n", "line 1 is not"),
        (f"1 {ONES[:-2]}\n", "line 1: a key is 64"),
        (f"1 {ONES}11\n", "line 1: a key is 64"),
        (f"1 {ONES[:-1]}\n", "line 1: a key is 64"),
        (f"1 {ONES[:-1]}g\n", "line 1: a key is 64"),
        (f"1 {ONES}\n1 {TWOS}\n", "key number 1 stands twice"),
        (f"1 {ONES}\n2 {TWOS}\n3 {ZEROS}\n", "3 keys"),
    ],
)
def test_unusable_text_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        parse_keyring(text)
    assert "1111" not in str(raised.value)


@given(st.text(max_size=200) | st.text("0123456789abcdef #\n", max_size=200))
def test_any_text_only_value_error_is_raised(text: str) -> None:
    try:
        keyring = parse_keyring(text)
    except ValueError:
        return
    assert 1 <= len(keyring.keys) <= 2


def test_key_printed_hides_its_octets() -> None:
    keyring = parse_keyring(f"7 {ONES}\n")
    for text in (repr(keyring), str(keyring), f"{keyring.signing}", repr(keyring.signing)):
        assert "7" in text
        assert "1111" not in text
        assert "x11" not in text


def test_sub_key_is_the_keyed_hash_of_its_purpose() -> None:
    key = Key(7, bytes(range(32)))
    assert key.derive(b"tcpha cookie") == hashlib.blake2s(b"tcpha cookie", key=bytes(range(32))).digest()
    assert len(key.derive(b"")) == 32


def test_sub_keys_pinned_octet_by_octet() -> None:
    key = Key(1, bytes(range(32)))
    assert key.derive(b"tcpha cookie").hex() == "9c7cf41633092bc0265e615613adb7bcf80ba3097f3fc3de2514dd296f4bbe9e"
    assert key.derive(b"tcpha handoff").hex() == "7637313a46920998278551758fb627d2af1779883bffbdda7d194911014cb8a6"


def test_sub_keys_of_two_purposes_or_two_keys_differ() -> None:
    a, b = Key(1, bytes(32)), Key(1, bytes.fromhex(ONES))
    assert len({a.derive(b"x"), a.derive(b"y"), b.derive(b"x"), b.derive(b"y")}) == 4
