"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

One's complement sums are residues modulo 65535, and 2**16 is 1 modulo 65535: a big integer read from the octets and
reduced once gives the sum of its 16-bit words, in C and without a loop. The same holds for the difference of two
32-bit fields, which makes the incremental update one addition.
"""

from __future__ import annotations


def ones_sum(octets: bytes | bytearray | memoryview) -> int:
    """Return the one's complement sum of the 16-bit words of `octets`, 0..65534; an odd octet is padded with zero."""
    total = int.from_bytes(octets, "big")
    return (total << 8 if len(octets) & 1 else total) % 0xFFFF


def finish(total: int) -> int:
    """Return the checksum field, 0..65534, for a sum of any size (65535 is written as 0, as hosts do)."""
    return -total % 0xFFFF


def internet_checksum(octets: bytes | bytearray | memoryview) -> int:
    """Return the checksum of `octets`, 0..65535 (RFC 1071)."""
    return finish(ones_sum(octets))


def update(checksum: int, change: int) -> int:
    """Return `checksum` after fields changed by `change` in total (RFC 1624, equation 3).

    `change` is the sum of new - old over the changed fields; a field of 16 or 32 bits at an even offset counts as it
    is, one at an odd offset counts 256 times.
    """
    return finish(0xFFFF - checksum + change)
