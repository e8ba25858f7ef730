"""TCP options (RFC 9293, 3.1; RFC 7323 window scale and timestamps; RFC 2018 selective acknowledgement).

Knows octets only: what a connection agreed on is the business of `cookie` and `handoff`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

from tcpha.errors import OptionError

END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8

MAX_WINDOW_SCALE = 14
"""Larger shift counts are taken as 14 (RFC 7323, 2.3)."""

ALIGNED_TIMESTAMPS = b"\x01\x01\x08\x0a"
"""NOP NOP timestamps(10): how nearly every stack begins the options of a segment (RFC 7323, appendix A)."""
ALIGNED_TIMESTAMPS_OCTETS = 12
MAX_OPTIONS_OCTETS = 40

_LENGTHS = {MSS: 4, WINDOW_SCALE: 3, SACK_PERMITTED: 2, TIMESTAMPS: 10}
_TIMESTAMPS = struct.Struct("!II")
_ALIGNED = struct.Struct("!4sII")
_MSS = struct.Struct("!BBH")
_SACK_BLOCK = struct.Struct("!II")
# How Linux lays out the options of a SYN or SYN-ACK with scaled windows and timestamps: MSS, SACK permitted or two NOP
# before the timestamps, NOP and window scale. Four words of kinds and lengths, read and written in one piece.
_LINUX = struct.Struct("!HHIIIHBB")
_LINUX_OCTETS = _LINUX.size
_MSS_KIND, _SCALE_KIND, _SCALE_OCTETS = MSS << 8 | 4, NOP << 8 | WINDOW_SCALE, 3
_STAMPS_KIND = NOP << 24 | NOP << 16 | TIMESTAMPS << 8 | 10
_SACK_AND_STAMPS_KIND = SACK_PERMITTED << 24 | 2 << 16 | TIMESTAMPS << 8 | 10


class Options(Struct, frozen=True, gc=False):
    """The options of one segment that this package knows; None or False where absent."""

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None
    """TSval and TSecr."""


def find_options(octets: bytes | bytearray, start: int, end: int) -> list[tuple[int, int, int]]:
    """Return (kind, offset, length) of each option in ``octets[start:end]``, without NOP.

    Deviation: a segment with an option of impossible length is dropped, as RFC 9293 (MUST-7) allows; Linux takes the
    options before it.

    Raises: OptionError for such a length.
    """
    found = []
    offset = start
    while offset < end:
        kind = octets[offset]
        if kind == END:
            break
        if kind == NOP:
            offset += 1
            continue
        length = octets[offset + 1] if offset + 1 < end else 0
        if length < 2 or offset + length > end or _LENGTHS.get(kind, length) != length:
            raise OptionError(f"length {length} of option {kind}", offset)
        found.append((kind, offset, length))
        offset += length
    return found


def decode_options(octets: bytes | bytearray, start: int, end: int) -> Options:
    """Decode ``octets[start:end]``. Raises: OptionError."""
    if end - start == _LINUX_OCTETS:
        mss_kind, size, kind, tsval, tsecr, scale_kind, length, shift = _LINUX.unpack_from(octets, start)
        if (
            mss_kind == _MSS_KIND
            and kind in (_SACK_AND_STAMPS_KIND, _STAMPS_KIND)
            and scale_kind == _SCALE_KIND
            and length == _SCALE_OCTETS
        ):
            return Options(size, min(shift, MAX_WINDOW_SCALE), kind == _SACK_AND_STAMPS_KIND, (tsval, tsecr))
    return _decode_any_options(octets, start, end)


def _decode_any_options(octets: bytes | bytearray, start: int, end: int) -> Options:
    mss, scale, sack, stamps = None, None, False, None
    for kind, offset, _ in find_options(octets, start, end):
        if kind == MSS:
            mss = octets[offset + 2] << 8 | octets[offset + 3]
        elif kind == WINDOW_SCALE:
            scale = min(octets[offset + 2], MAX_WINDOW_SCALE)
        elif kind == SACK_PERMITTED:
            sack = True
        elif kind == TIMESTAMPS:
            stamps = _TIMESTAMPS.unpack_from(octets, offset + 2)
    return Options(mss, scale, sack, stamps)


def decode_timestamps(octets: bytes | bytearray, start: int, end: int) -> tuple[int, int] | None:
    """Return TSval and TSecr of ``octets[start:end]``, or None. Raises: OptionError."""
    if end - start >= 12 and octets[start : start + 4] == ALIGNED_TIMESTAMPS:
        return _TIMESTAMPS.unpack_from(octets, start + 4)
    if end == start:
        return None
    return decode_options(octets, start, end).timestamps


def encode_timestamps(tsval: int, tsecr: int) -> bytes:
    """Return the aligned timestamps option, 12 octets."""
    return _ALIGNED.pack(ALIGNED_TIMESTAMPS, tsval, tsecr)


def encode_sack(blocks: Sequence[tuple[int, int]], room_octets: int) -> bytes:
    """Return an aligned SACK option (RFC 2018) of as many blocks as fit into `room_octets`; nothing if none does."""
    fitting = blocks[: max((room_octets - 4) // 8, 0)]
    if not fitting:
        return b""
    return bytes((NOP, NOP, SACK, 2 + 8 * len(fitting))) + b"".join(_SACK_BLOCK.pack(*block) for block in fitting)


def encode_options(options: Options) -> bytes:
    """Return `options` padded to a multiple of four octets, in the order in which Linux sends them."""
    mss, scale, stamps = options.mss, options.window_scale, options.timestamps
    if mss is not None and scale is not None and stamps is not None:
        kind = _SACK_AND_STAMPS_KIND if options.sack_permitted else _STAMPS_KIND
        return _LINUX.pack(_MSS_KIND, mss, kind, *stamps, _SCALE_KIND, _SCALE_OCTETS, scale)
    return _encode_any_options(options)


def _encode_any_options(options: Options) -> bytes:
    parts = []
    if options.mss is not None:
        parts.append(_MSS.pack(MSS, 4, options.mss))
    if options.timestamps is not None:
        lead = bytes((SACK_PERMITTED, 2)) if options.sack_permitted else bytes((NOP, NOP))
        parts.append(lead + bytes((TIMESTAMPS, 10)) + _TIMESTAMPS.pack(*options.timestamps))
    elif options.sack_permitted:
        parts.append(bytes((NOP, NOP, SACK_PERMITTED, 2)))
    if options.window_scale is not None:
        parts.append(bytes((NOP, WINDOW_SCALE, 3, options.window_scale)))
    return b"".join(parts)
