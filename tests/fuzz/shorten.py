"""A finding made short: what is left out without changing the fault was no part of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator

from tests.fuzz.records import RECORD_OCTETS

Function = Callable[[bytes], None]


def fault_of(function: Function, octets: bytes) -> BaseException | None:
    """What the function raises."""
    try:
        function(octets)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:
        return fault
    return None


def _place(fault: BaseException | None) -> object:
    """The kind of a fault and the line where it was raised: what makes two of them the same."""
    if fault is None:
        return None
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return type(fault), last.filename, last.lineno


def shorten(function: Function, octets: bytes, limit_s: float, *, is_program: bool) -> bytes:
    """Return as short a part of `octets` as is found within `limit_s` that raises the same."""
    wanted = _place(fault_of(function, octets))
    if wanted is None:
        return octets
    end = time.monotonic() + limit_s
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in _candidates(octets, RECORD_OCTETS if is_program else 1):
            if time.monotonic() > end:
                return octets
            if _place(fault_of(function, candidate)) == wanted:
                octets, is_shorter = candidate, True
                break
    return octets


def _candidates(octets: bytes, unit: int) -> Iterator[bytes]:
    """`octets` with a part left out, great parts first; then with an octet made zero."""
    units = -(-len(octets) // unit)
    size = max(units // 2, 1)
    while size:
        for start in range(0, units, size):
            yield octets[: start * unit] + octets[(start + size) * unit :]
        size //= 2
    for at, octet in enumerate(octets):
        if octet:
            yield octets[:at] + b"\0" + octets[at + 1 :]
