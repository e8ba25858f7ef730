"""The cluster's shared secret and the sub-keys made from it.

Text form, one key a line: ``NUMBER HEX`` (number 0..255, 64 hexadecimal digits = 32 octets); ``#`` begins a comment.
The first key signs, the first and the second verify, so that keys rotate without loss: add the new key second on all
nodes, then make it first, then drop the old one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

KEY_OCTETS = 32
VERIFYING_KEYS = 2


@dataclass(frozen=True, slots=True)
class Key:
    """One numbered key; its octets never show in a repr, hence in no log."""

    number: int
    octets: bytes = field(repr=False)

    def derive(self, purpose: bytes) -> bytes:
        """Return the sub-key of a purpose: BLAKE2s(purpose, key=secret), 32 octets (RFC 7693)."""
        return hashlib.blake2s(purpose, key=self.octets).digest()


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys in force, the signing one first."""

    keys: tuple[Key, ...]

    @property
    def signing(self) -> Key:
        """The key that seals messages and makes cookies."""
        return self.keys[0]


def parse_keyring(text: str) -> Keyring:
    """Read the text form. Raises: ValueError with a reason that holds no key material."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if words:
            keys.append(_parse_key(words, number))
    if not keys:
        raise ValueError("no key in it")
    if len(keys) > VERIFYING_KEYS:
        raise ValueError(f"{len(keys)} keys; one signs and one more may verify")
    if len({key.number for key in keys}) != len(keys):
        raise ValueError(f"key number {keys[0].number} stands twice")
    return Keyring(tuple(keys))


def _parse_key(words: list[str], line: int) -> Key:
    if len(words) != 2 or not words[0].isascii() or not words[0].isdigit() or int(words[0]) > 0xFF:
        raise ValueError(f"line {line} is not `NUMBER KEY` with a number 0..255")
    try:
        octets = bytes.fromhex(words[1])
    except ValueError:
        octets = b""
    if len(octets) != KEY_OCTETS:
        raise ValueError(f"line {line}: a key is {KEY_OCTETS * 2} hexadecimal digits")
    return Key(int(words[0]), octets)
