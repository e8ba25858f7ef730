"""BLAKE2s (RFC 7693) up to the point where a program in the kernel goes on: the chain behind the key block.

`hashlib` does not show its inner state, so the compression function stands here once more. It runs once a key; every
digest of Python's own comes from `hashlib`. Pure.
"""

from __future__ import annotations

import struct

CHAIN_OCTETS = 32
_BLOCK_OCTETS = 64
_MASK = 0xFFFFFFFF
_BLOCK = struct.Struct("<16I")
_CHAIN = struct.Struct("<8I")
_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_SIGMA = tuple(
    tuple(int(digit, 16) for digit in row)
    for row in (
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
        "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
    )
)  # fmt: skip
_COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def chain_after_key(key: bytes, digest_octets: int) -> bytes:
    """Return the chain of BLAKE2s after the block that holds the key: 8 little-endian words, 32 octets.

    Raises: ValueError for a key that is not of 1..32 octets, or a digest that is not.
    """
    if not (1 <= len(key) <= 32 and 1 <= digest_octets <= 32):
        raise ValueError("a key and a digest have 1 to 32 octets")
    first = _IV[0] ^ 0x01010000 ^ len(key) << 8 ^ digest_octets
    return _CHAIN.pack(*_compress((first, *_IV[1:]), key.ljust(_BLOCK_OCTETS, b"\0"), _BLOCK_OCTETS, is_last=False))


def digest_from(chain: bytes, message: bytes, digest_octets: int) -> bytes:
    """Return the keyed digest of a message of at least one octet, from `chain_after_key`: what the programs compute."""
    words = _CHAIN.unpack(chain)
    for start in range(0, len(message), _BLOCK_OCTETS):
        block = message[start : start + _BLOCK_OCTETS]
        counted = _BLOCK_OCTETS + start + len(block)
        is_last = start + _BLOCK_OCTETS >= len(message)
        words = _compress(words, block.ljust(_BLOCK_OCTETS, b"\0"), counted, is_last=is_last)
    return _CHAIN.pack(*words)[:digest_octets]


def _compress(chain: tuple[int, ...], block: bytes, counted: int, *, is_last: bool) -> tuple[int, ...]:
    """The compression function F (RFC 7693, 3.2)."""
    words = _BLOCK.unpack(block)
    v = [*chain, *_IV]
    v[12] ^= counted
    if is_last:
        v[14] ^= _MASK
    for row in _SIGMA:
        for number, (a, b, c, d) in enumerate(_COLUMNS_AND_DIAGONALS):
            for word, right_d, right_b in ((words[row[2 * number]], 16, 12), (words[row[2 * number + 1]], 8, 7)):
                v[a] = (v[a] + v[b] + word) & _MASK
                v[d] = _turn(v[d] ^ v[a], right_d)
                v[c] = (v[c] + v[d]) & _MASK
                v[b] = _turn(v[b] ^ v[c], right_b)
    return tuple(chain[index] ^ v[index] ^ v[index + 8] for index in range(8))


def _turn(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & _MASK
