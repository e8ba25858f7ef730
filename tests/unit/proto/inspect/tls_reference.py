"""A second reader of ClientHellos, slow and plain: it takes one octet after the other and never looks back.

So it cannot depend on how the octets arrived, and what it says first is final by construction. What it accepts follows
RFC 8446, 5.1 and 4.1.2, RFC 6066, 3 and RFC 7301, 3.1. It shares only the names of verdicts with the package.
"""

from __future__ import annotations

import string
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from tcpha.proto.inspect import NEED_MORE, NOT_MINE, Cause, NeedMore, NotMine

MOST_RECORDS = 64
HOST_CHARACTERS = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True)
class Found:
    """A hello."""

    sni: bytes | None
    alpn: bytes | None
    head_octets: int


Verdict: TypeAlias = Found | Cause | NeedMore | NotMine
Octet: TypeAlias = Generator[None, int, int]


class Fault(Exception):
    """Not served."""

    def __init__(self, cause: Cause = Cause.MALFORMED) -> None:
        super().__init__(cause)
        self.cause = cause


class Strange(Exception):
    """No TLS."""


def read(octets: bytes, limit_octets: int = 16384) -> Verdict:
    """What the octets are, told at the first octet that shows it."""
    reading = _Reading(limit_octets)
    steps = reading.hello()
    next(steps)
    for octet in octets:
        try:
            steps.send(octet)
        except StopIteration as end:
            found: Found = end.value
            return found
        except Strange:
            return NOT_MINE
        except Fault as fault:
            return fault.cause
    return NEED_MORE


class _Reading:
    def __init__(self, limit_octets: int) -> None:
        self.limit_octets = limit_octets
        self.taken = 0
        self.records = 0
        self.left_in_record = 0

    def octet(self) -> Octet:
        value = yield
        self.taken += 1
        return value

    def header(self) -> Generator[None, int, None]:
        kind = yield from self.octet()
        if self.records == 0:
            yield from self.first_version(kind)
        else:
            if kind != 22:
                raise Fault
            if self.records == MOST_RECORDS or 5 * (self.records + 1) > self.limit_octets:
                raise Fault(Cause.HEAD_TOO_LONG)
            yield from self.octet()
            yield from self.octet()
        self.records += 1
        high = yield from self.octet()
        low = yield from self.octet()
        self.left_in_record = 256 * high + low
        if self.left_in_record == 0 or self.left_in_record > 16384:
            raise Fault

    def first_version(self, kind: int) -> Generator[None, int, None]:
        if kind not in (20, 21, 22, 23):
            raise Strange
        if (yield from self.octet()) != 3:
            raise Strange
        minor = yield from self.octet()
        if kind != 22:
            raise Fault if minor in (0, 1, 2, 3, 4) else Strange

    def of_message(self) -> Octet:
        if self.left_in_record == 0:
            yield from self.header()
        self.left_in_record -= 1
        return (yield from self.octet())

    def hello(self) -> Generator[None, int, Found]:
        if (yield from self.of_message()) != 1:
            raise Fault
        missing = 0
        for _ in range(3):
            missing = 256 * missing + (yield from self.of_message())
        if missing + 4 > self.limit_octets:
            raise Fault(Cause.HEAD_TOO_LONG)
        body = []
        while True:
            if self.left_in_record > missing:
                raise Fault
            if missing == 0:
                break
            if self.left_in_record == 0:
                yield from self.header()
                continue
            body.append((yield from self.of_message()))
            missing -= 1
        sni, alpn = _Body(body).hello()
        return Found(sni, alpn, self.taken)


class _Body:
    """A list of octets that is taken apart from the front; whatever is asked for and not there is a fault."""

    def __init__(self, octets: list[int]) -> None:
        self.octets = octets

    def take(self, number: int) -> list[int]:
        if number > len(self.octets):
            raise Fault
        taken, self.octets = self.octets[:number], self.octets[number:]
        return taken

    def number(self, octets: int) -> int:
        return int.from_bytes(bytes(self.take(octets)), "big")

    def vector(self, length_octets: int, at_least: int = 0) -> _Body:
        number = self.number(length_octets)
        if number < at_least:
            raise Fault
        return _Body(self.take(number))

    def hello(self) -> tuple[bytes | None, bytes | None]:
        if len(self.octets) < 41:
            raise Fault
        if self.number(2) <= 0x0300:
            raise Fault(Cause.VERSION)
        self.take(32)
        if len(self.vector(1).octets) > 32 or len(self.vector(2, 2).octets) % 2:
            raise Fault
        self.vector(1, 1)
        if not self.octets:
            return None, None
        extensions = self.vector(2)
        if self.octets:
            raise Fault
        by_kind: dict[int, _Body] = {}
        while extensions.octets:
            kind = extensions.number(2)
            if kind in by_kind:
                raise Fault
            by_kind[kind] = extensions.vector(2)
        return (
            by_kind[0].server_name() if 0 in by_kind else None,
            by_kind[16].protocol_names() if 16 in by_kind else None,
        )

    def only_list(self) -> _Body:
        names = self.vector(2, 1)
        if self.octets:
            raise Fault
        return names

    def server_name(self) -> bytes | None:
        names = self.only_list()
        by_kind: dict[int, str] = {}
        while names.octets:
            kind = names.number(1)
            if kind in by_kind:
                raise Fault
            by_kind[kind] = bytes(names.vector(2, 1 if kind == 0 else 0).octets).decode("latin-1")
        if 0 not in by_kind:
            return None
        name = by_kind[0]
        if len(name) > 255:
            raise Fault
        labels = name.removesuffix(".").split(".")
        if not all(labels) or any(letter not in HOST_CHARACTERS for label in labels for letter in label):
            raise Fault
        return ".".join(labels).lower().encode()

    def protocol_names(self) -> bytes:
        names, found = self.only_list(), []
        while names.octets:
            found.append(bytes(names.vector(1, 1).octets))
        return b",".join(found)
