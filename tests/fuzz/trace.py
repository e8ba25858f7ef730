"""What a program of events does, in words; silent unless somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tcpha.proto.ip import key_text
from tcpha.proto.tcp import Segment, decode_segment

_is_shown = False


@contextmanager
def shown() -> Iterator[None]:
    """Print what is told inside."""
    global _is_shown
    before, _is_shown = _is_shown, True
    try:
        yield
    finally:
        _is_shown = before


def tell(*words: object) -> None:
    """One line."""
    if _is_shown:
        print(*words)


def in_words(what: object) -> str:
    """A packet, or an action with one, so that a person can read it; anything else as it is."""
    if not _is_shown:
        return ""
    if isinstance(what, bytes):
        return in_words(decode_segment(what))
    if isinstance(what, Segment):
        flags = "".join(letter for bit, letter in enumerate("FSRPAU") if what.flags >> bit & 1)
        numbers = f"{flags} seq {what.seg_seq:08x} ack {what.seg_ack:08x}"
        return f"{key_text(what.key)} {numbers} {what.payload[:60]!r} ({what.payload_octets})"
    packet = getattr(what, "packet", None)
    return f"{type(what).__name__} {in_words(packet)}" if isinstance(packet, bytes) else repr(what)
