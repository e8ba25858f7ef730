"""Sequence numbers: arithmetic modulo 2**32 (RFC 9293, 3.4).

The only place where sequence numbers, acknowledgement numbers and timestamp values (RFC 7323, 5.2 uses the same
comparison) are added or compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    SeqNum = NewType("SeqNum", int)
else:
    SeqNum = int  # the same value at run time, without a Python-level call on the packet path

MASK = 0xFFFFFFFF
_HALF = 0x80000000


def seq_add(seq: SeqNum, octets: int) -> SeqNum:
    """Return the number `octets` after `seq` (before it if negative)."""
    return SeqNum((seq + octets) & MASK)


def seq_diff(a: SeqNum, b: SeqNum) -> int:
    """Return the signed distance from `b` to `a`, in -2**31 .. 2**31 - 1."""
    return ((a - b + _HALF) & MASK) - _HALF


def seq_lt(a: SeqNum, b: SeqNum) -> bool:
    """Is `a` before `b`?"""
    return ((a - b) & MASK) >= _HALF


def seq_le(a: SeqNum, b: SeqNum) -> bool:
    """Is `a` before or equal to `b`?"""
    return ((b - a) & MASK) < _HALF
