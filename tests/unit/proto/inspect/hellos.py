"""ClientHellos made by hand, so that every length and every octet of them can be wrong; and some of well-known clients.

Shares nothing with the package. Keys and other random octets are made up, but of the right length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

SERVER_NAME, STATUS_REQUEST, GROUPS, POINT_FORMATS, SIGNATURES = 0, 5, 10, 11, 13
ALPN, TIMESTAMPS, PADDING, MASTER_SECRET, COMPRESS_CERTIFICATE, RECORD_SIZE = 16, 18, 21, 23, 27, 28
DELEGATED, TICKET, PRE_SHARED_KEY, EARLY_DATA, VERSIONS, KEY_MODES, KEY_SHARE = 34, 35, 41, 42, 43, 45, 51
APPLICATION_SETTINGS, ECH, RENEGOTIATION = 0x44CD, 0xFE0D, 0xFF01
X25519, P256, P384, P521, X25519MLKEM768 = 0x001D, 0x0017, 0x0018, 0x0019, 0x11EC
MLKEM768_SHARE_OCTETS = 1184 + 32

RFC_8448 = bytes.fromhex(
    "16030100c4010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000"
    "910000000b0009000006736572766572ff01000100000a00140012001d0017001800190100010101020103010400230000003300260024"
    "001d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d0020001e040305030603"
    "020308040805080604010501060102010402050206020202002d00020101001c00024001"
)
"""The ClientHello record of RFC 8448, section 3."""


def u16(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def vector(octets: bytes, length_octets: int = 2) -> bytes:
    """Octets behind their number (RFC 8446, 3.4)."""
    return len(octets).to_bytes(length_octets, "big") + octets


def noise(number: int) -> bytes:
    """Octets of all values that stand for keys, always the same ones."""
    return bytes((at * 37 + at // 256 * 11 + 5) & 0xFF for at in range(number))


def extension(kind: int, octets: bytes = b"") -> bytes:
    return u16(kind) + vector(octets)


def name_entry(name: bytes, kind: int = 0) -> bytes:
    return bytes((kind,)) + vector(name)


def server_name(*entries: bytes) -> bytes:
    return extension(SERVER_NAME, vector(b"".join(entries)))


def sni(name: bytes) -> bytes:
    return server_name(name_entry(name))


def alpn(*names: bytes) -> bytes:
    return extension(ALPN, vector(b"".join(vector(name, 1) for name in names)))


def key_share(*shares: tuple[int, int]) -> bytes:
    """Groups and the lengths of their keys."""
    return extension(KEY_SHARE, vector(b"".join(u16(group) + vector(noise(octets)) for group, octets in shares)))


def numbers(kind: int, *values: int) -> bytes:
    """An extension that is a list of 16-bit numbers."""
    return extension(kind, vector(u16(*values)))


def versions(*values: int) -> bytes:
    return extension(VERSIONS, vector(u16(*values), 1))


def ech_outer(payload_octets: int) -> bytes:
    """ECHClientHello.outer: type, HKDF and AEAD, config id, enc of an X25519 key, payload; GREASE looks the same."""
    return extension(ECH, b"\0" + u16(1, 1) + b"\x2a" + vector(noise(32)) + vector(noise(payload_octets)))


@dataclass(frozen=True, slots=True)
class Hello:
    """The fields of RFC 8446, 4.1.2. `extensions` None: not even their length."""

    extensions: bytes | None = sni(b"www.example.com")
    version: int = 0x0303
    session_id: bytes = noise(32)
    suites: bytes = u16(0x1301, 0x1302, 0xC02F)
    methods: bytes = b"\0"

    @property
    def body(self) -> bytes:
        fixed = u16(self.version) + noise(32) + vector(self.session_id, 1) + vector(self.suites)
        return fixed + vector(self.methods, 1) + (b"" if self.extensions is None else vector(self.extensions))

    @property
    def message(self) -> bytes:
        return message(self.body)

    @property
    def record(self) -> bytes:
        return record(self.message)

    def padded(self, message_octets: int) -> Hello:
        """With an extension (RFC 7685) that makes the message so long."""
        extensions = self.extensions or b""
        missing = message_octets - len(replace(self, extensions=extensions).message) - 4
        return replace(self, extensions=extensions + extension(PADDING, bytes(missing)))


def message(body: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(body, 3)


def record(fragment: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return bytes((kind,)) + u16(version) + vector(fragment)


def records(octets: bytes, sizes: Iterable[int]) -> bytes:
    """Cut a message into fragments of these sizes; what is left over is the last one."""
    cut, at = [], 0
    for size in sizes:
        cut.append(octets[at : at + size])
        at += size
    return b"".join(record(fragment) for fragment in (*cut, octets[at:]) if fragment)


def one_octet_records(octets: bytes) -> bytes:
    return records(octets, [1] * len(octets))


def chrome(name: bytes = b"www.example.com") -> Hello:
    """Chrome since 131: GREASE (RFC 8701) in every list, X25519MLKEM768, ECH or its GREASE; it shuffles extensions."""
    suites = (0x5A5A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014)
    return Hello(
        suites=u16(*suites, 0x009C, 0x009D, 0x002F, 0x0035),
        extensions=extension(0x3A3A)
        + extension(KEY_MODES, b"\x01\x01")
        + key_share((0xDADA, 1), (X25519MLKEM768, MLKEM768_SHARE_OCTETS), (X25519, 32))
        + alpn(b"h2", b"http/1.1")
        + ech_outer(208)
        + extension(MASTER_SECRET)
        + extension(APPLICATION_SETTINGS, vector(vector(b"h2", 1)))
        + sni(name)
        + extension(POINT_FORMATS, b"\x01\x00")
        + numbers(GROUPS, 0xDADA, X25519MLKEM768, X25519, P256, P384)
        + versions(0xCACA, 0x0304, 0x0303)
        + extension(RENEGOTIATION, b"\0")
        + extension(TICKET)
        + extension(TIMESTAMPS)
        + extension(STATUS_REQUEST, b"\x01\0\0\0\0")
        + numbers(SIGNATURES, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
        + extension(COMPRESS_CERTIFICATE, b"\x02\x00\x02")
        + extension(0xFAFA, b"\0"),
    )


def firefox(name: bytes = b"www.example.com") -> Hello:
    """Firefox since 132."""
    suites = (0x1301, 0x1303, 0x1302, 0xC02B, 0xC02F, 0xCCA9, 0xCCA8, 0xC02C, 0xC030, 0xC00A, 0xC009, 0xC013, 0xC014)
    signatures = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201)
    return Hello(
        suites=u16(*suites, 0x009C, 0x009D, 0x002F, 0x0035),
        extensions=sni(name)
        + extension(MASTER_SECRET)
        + extension(RENEGOTIATION, b"\0")
        + numbers(GROUPS, X25519MLKEM768, X25519, P256, P384, P521, 0x0100, 0x0101)
        + extension(POINT_FORMATS, b"\x01\x00")
        + extension(TICKET)
        + alpn(b"h2", b"http/1.1")
        + extension(STATUS_REQUEST, b"\x01\0\0\0\0")
        + numbers(DELEGATED, 0x0403, 0x0503, 0x0603, 0x0203)
        + extension(TIMESTAMPS)
        + key_share((X25519MLKEM768, MLKEM768_SHARE_OCTETS), (X25519, 32), (P256, 65))
        + versions(0x0304, 0x0303)
        + numbers(SIGNATURES, *signatures)
        + extension(KEY_MODES, b"\x01\x01")
        + extension(RECORD_SIZE, u16(0x4001))
        + extension(COMPRESS_CERTIFICATE, b"\x06\x00\x01\x00\x02\x00\x03")
        + ech_outer(239),
    )


def resumption(name: bytes = b"www.example.com", ticket_octets: int = 2048) -> Hello:
    """With early data behind it and a long ticket: the pre-shared key stands last (RFC 8446, 4.2.11)."""
    identities = vector(vector(noise(ticket_octets)) + bytes(4))
    return replace(
        firefox(name),
        extensions=(firefox(name).extensions or b"")
        + extension(EARLY_DATA)
        + extension(PRE_SHARED_KEY, identities + vector(vector(noise(32), 1))),
    )


def old(name: bytes | None = b"www.example.com") -> Hello:
    """A client of TLS 1.0: short, no session, no signature algorithms."""
    extensions = extension(RENEGOTIATION, b"\0") + numbers(GROUPS, P256, P384) + extension(POINT_FORMATS, b"\x01\x00")
    return Hello(
        version=0x0301,
        session_id=b"",
        suites=u16(0xC014, 0xC013, 0x0035, 0x002F, 0x000A),
        extensions=extensions if name is None else sni(name) + extensions,
    )


def ssl_2(version: int = 0x0303) -> bytes:
    """The hello of SSL 2.0, which may offer anything (RFC 5246, E.2)."""
    body = b"\x01" + u16(version, 6, 0, 16) + b"\x00\x00\x2f\x00\x00\x0a" + noise(16)
    return u16(0x8000 | len(body)) + body
