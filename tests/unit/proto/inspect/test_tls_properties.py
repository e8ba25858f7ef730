"""The TLS reader on octets nobody thought of: it never raises, no cut changes it, and other readers agree."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import TypeVar

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tcpha.proto.inspect import NEED_MORE, Cause, Inspection, Refusal
from tcpha.proto.inspect.tls import MOST_RECORDS, Alert, ClientHello, answer, inspect
from tests.unit.proto.inspect import tls_reference
from tests.unit.proto.inspect.hellos import (
    ALPN,
    RFC_8448,
    SERVER_NAME,
    Hello,
    alpn,
    chrome,
    extension,
    firefox,
    message,
    name_entry,
    old,
    record,
    records,
    server_name,
    sni,
    ssl_2,
    u16,
    vector,
)
from tests.unit.proto.inspect.tls_reference import Found

T = TypeVar("T")
LEGAL = (
    old().message,
    old(None).message,
    replace(old(), extensions=None).message,
    chrome().message,
    firefox().message,
    RFC_8448[5:],
    Hello(alpn(b"h2", b"http/1.1") + server_name(name_entry(b"x", 1), name_entry(b"A.example."))).message,
)
PIECES = (
    b"", b"\0", b"\1", b"\2", b"\3", b"\xff", b".", b"A", b"\0\0", b"\0\1", b"\1\0", b"\0\4", b"\xff\xff", b"\0\0\0\0",
    sni(b"other.example"), sni(b""), alpn(b"h3"), extension(SERVER_NAME), extension(ALPN), extension(0x0A0A),
    name_entry(b"b.example"), name_entry(b"", 1), vector(b"h2", 1), vector(b""),
)  # fmt: skip


class Maker:
    """Makes messages and streams in which few things are wrong, so that most of them are read far; by chance alone."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def mostly(self, good: T, *bad: T) -> T:
        return good if self._chance.random() < 0.93 else self._chance.choice(bad)

    def some(self, at_most: int) -> range:
        return range(self._chance.randint(0, at_most))

    def vector(self, octets: bytes, length_octets: int = 2) -> bytes:
        """Its length may be wrong."""
        length = max(0, len(octets) + self.mostly(0, -1, 1, 2, 9, 300)) % (1 << 8 * length_octets)
        return length.to_bytes(length_octets, "big") + octets

    def server_name(self) -> bytes:
        names = (
            b"B.Example.",
            b"",
            b".",
            b"a..b",
            b"a_b\0",
            b"192.0.2.1",
            b"::1",
            b"a" * 255,
            b"a" * 256,
            b"b" * 255 + b".",
        )
        kinds = self.mostly([0], [1], [0, 9], [0, 0], [7, 7, 0], [])
        entries = [bytes((kind,)) + self.vector(self.mostly(b"a.example", *names)) for kind in kinds]
        return self.mostly(self.vector(b"".join(entries)), b"", b"\0", self.vector(b"".join(entries)) + b"\0")

    def protocols(self) -> bytes:
        names = [self.vector(self.mostly(b"h2", b"", b"http/1.1", b"\0"), 1) for _ in self.some(3)]
        return self.mostly(self.vector(b"".join(names)), b"", b"\0")

    def extensions(self) -> bytes:
        kinds = [self._chance.choice((SERVER_NAME, ALPN, 0x0A0A, 43)) for _ in self.some(4)]
        made = []
        for kind in self.mostly(list(dict.fromkeys(kinds)), kinds + kinds[:1]):
            data = {SERVER_NAME: self.server_name, ALPN: self.protocols}.get(kind, lambda: bytes(len(self.some(5))))()
            made.append(u16(kind) + self.vector(data))
        return b"".join(made) + self.mostly(b"", b"\0", b"\0\0\0")

    def message(self) -> bytes:
        body = u16(self.mostly(0x0303, 0x0304, 0x0301, 0x0300)) + bytes(32)
        body += self.vector(self.mostly(b"", bytes(32), bytes(33)), 1)
        body += self.vector(self.mostly(u16(0x1301), b"", b"\0", bytes(3)))
        body += self.vector(self.mostly(b"\0", b"\1\0", b""), 1)
        return message(body + self.mostly(self.vector(self.extensions()), b"") + self.mostly(b"", b"\0"))

    def mutated(self) -> bytes:
        """A few octets put in, taken out or replaced; mostly near the end, where the extensions are."""
        octets = self._chance.choice((*LEGAL, self.message()))
        for _ in self.some(3):
            start = self._chance.randint(self._chance.choice((0, max(0, len(octets) - 60))), len(octets))
            end = min(start + self._chance.choice((0, 0, 1, 2, 8)), len(octets))
            octets = octets[:start] + self._chance.choice(PIECES) + octets[end:]
        return self.mostly(message(octets[4:]), octets)

    def any_message(self) -> bytes:
        return self._chance.choice((self.message, self.mutated))()

    def sizes(self) -> list[int]:
        longest = self._chance.choice((1, 3, 50, 600))
        return [self._chance.randint(1, longest) for _ in self.some(self._chance.choice((0, 3, 30, 400)))]

    def header(self) -> tuple[int, int]:
        """Type and version of a record."""
        return self.mostly(22, 20, 21, 23, 19), self.mostly(0x0301, 0x0300, 0x0304, 0x0305, 0x0403, 0x0203)

    def stream(self) -> tuple[bytes, int]:
        """A message in records, sometimes with a fault in the records themselves, and something behind; and a limit."""
        octets = self.any_message()
        fragments, at = [], 0
        for size in (*self.sizes(), len(octets)):
            fragments.append(octets[at : at + size])
            at += size
        fragments = [fragment + self.mostly(b"", b"\0") for fragment in fragments if fragment]
        if self._chance.random() < 0.1:
            fragments.insert(self._chance.randint(0, len(fragments)), b"")
        faulty = self._chance.randint(0, len(fragments))
        headers = [self.header() if index == faulty else (22, 0x0301) for index in range(len(fragments))]
        stream = b"".join(record(fragment, *header) for fragment, header in zip(fragments, headers, strict=True))
        limit_octets = self._chance.choice((16384, 16384, len(octets), len(octets) - 1, 5 * len(fragments) - 1, 300))
        behind = self._chance.choice((b"", b"\0", record(b"early", 23), RFC_8448))
        return stream[: self.mostly(len(stream), self._chance.randint(0, len(stream)))] + behind, max(limit_octets, 1)


makers = st.integers(0, 2**64 - 1).map(lambda seed: Maker(Random(seed)))
messages = makers.map(Maker.any_message)
sizes = makers.map(Maker.sizes) | st.lists(st.integers(1, 20), max_size=30) | st.just([1] * 4000)

strange = st.tuples(
    st.builds(
        lambda start, rest: start + rest,
        st.sampled_from((b"", b"\x16\x03", b"\x16\x03\x01\0", b"\x15\x03", b"\x14", b"\x17\x03\x03", b"GET ", ssl_2())),
        st.binary(max_size=80),
    ),
    st.integers(1, 100),
)
streams = makers.map(Maker.stream) | strange
"""Octets and a limit."""


def in_short(inspection: Inspection) -> object:
    """In the second reader's words."""
    if isinstance(inspection, ClientHello):
        return Found(inspection.sni, inspection.alpn, inspection.head_octets)
    return inspection.cause if isinstance(inspection, Refusal) else inspection


@settings(deadline=None, max_examples=1500)
@given(octets=messages)
def test_any_message_is_what_the_second_reader_says(octets: bytes) -> None:
    octets = record(octets)
    inspection = inspect(octets)
    assert in_short(inspection) == tls_reference.read(octets)
    event(inspection.reason if isinstance(inspection, Refusal) else type(inspection).__name__)


@settings(deadline=None, max_examples=2000)
@given(stream=streams)
@example(stream=(RFC_8448, 200))
@example(stream=(record(chrome().message, version=0x03FF), 16384))
def test_any_octets_are_what_the_second_reader_says(stream: tuple[bytes, int]) -> None:
    inspection = inspect(*stream)
    assert in_short(inspection) == tls_reference.read(*stream)
    event(type(inspection).__name__)


@settings(deadline=None, max_examples=400)
@given(stream=streams)
def test_any_octets_in_any_cut_give_the_same(stream: tuple[bytes, int]) -> None:
    """Once a beginning is decided, more octets never change it: then no cut and no order of calls can."""
    octets, limit_octets = stream
    step = max(1, len(octets) // 400)
    decided = None
    for end in [*range(0, len(octets), step), len(octets)]:
        inspection = inspect(octets[:end], limit_octets)
        if decided is not None:
            assert inspection == decided
        elif inspection is not NEED_MORE:
            decided = inspection


def records_of(octets: bytes, sizes: list[int]) -> int:
    """How many `records` makes."""
    ends = [end for end in accumulate(sizes) if end < len(octets)]
    return len(ends) + 1


@settings(deadline=None, max_examples=150)
@given(octets=messages, sizes=sizes, trailing=st.binary(max_size=9))
def test_any_message_in_any_records_is_read_alike(octets: bytes, sizes: list[int], trailing: bytes) -> None:
    octets = message(octets[4:])
    whole, cut = inspect(record(octets)), records(octets, sizes)
    inspection = inspect(cut + trailing)
    if records_of(octets, sizes) > MOST_RECORDS:
        assert isinstance(inspection, Refusal)
    elif isinstance(whole, ClientHello):
        assert isinstance(inspection, ClientHello)
        assert (inspection.sni, inspection.alpn) == (whole.sni, whole.alpn)
        assert inspection.head_octets == len(cut)
    else:
        assert inspection == whole


@settings(deadline=None, max_examples=150)
@given(stream=streams)
def test_any_refusal_has_a_reason_and_an_alert(stream: tuple[bytes, int]) -> None:
    refusal = inspect(*stream)
    if isinstance(refusal, Refusal):
        assert refusal.reason.isprintable()
        alert = answer(refusal.cause, None, refusal.code)
        event(f"{refusal.cause.name} {Alert(alert[6]).name}")
        assert refusal.cause in (Cause.MALFORMED, Cause.VERSION, Cause.HEAD_TOO_LONG)


class Server:
    """OpenSSL, as far as the name for which it would choose a certificate."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        self._context.set_ciphers("ALL:@SECLEVEL=0")
        self._context.sni_callback = self._on_name
        self._names: list[str | None] = []

    def _on_name(self, _connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._names.append(name)

    def names_in(self, octets: bytes) -> list[str | None]:
        """One name, or None for a hello without; nothing if it is refused before that."""
        self._names.clear()
        arriving = ssl.MemoryBIO()
        arriving.write(octets)
        connection = self._context.wrap_bio(arriving, ssl.MemoryBIO(), server_side=True)
        with contextlib.suppress(ssl.SSLError):
            connection.do_handshake()
        return list(self._names)


SERVER = Server()


@settings(deadline=None, max_examples=400)
@given(message=messages, sizes=sizes)
def test_hello_is_never_read_otherwise_by_openssl(message: bytes, sizes: list[int]) -> None:
    """Either may refuse what the other one takes, but never do they see two names."""
    octets = records(message, sizes)
    hello = inspect(octets)
    if not isinstance(hello, ClientHello):
        return
    names = SERVER.names_in(octets)
    event(f"{len(names)} names")
    seen = None if hello.sni is None else hello.sni.decode()
    assert [name and name.lower().removesuffix(".") for name in names] in ([], [seen])
