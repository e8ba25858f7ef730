"""TLS 1.0 to 1.3: the first octets of a connection -> a ClientHello (RFC 8446, 4.1.2 and 5.1; RFC 5246; RFC 6066, 3).

Pure, and blind to everything but these octets. TLS stays end to end: the server terminates it, the hello goes to it
unchanged, and nothing here can decrypt. So only that is read which tells where the connection should go, the server's
name and the application protocols (RFC 7301), and checked is what makes sure that the server finds the same ones
there: every length on the way to them, and that nothing stands there twice. All else (cipher suites, key shares, other
extensions, whether the protocol versions are served) the server judges itself. Of an encrypted hello (ECH, extension
0xfe0d) the outer name is seen, which is what it is for.

Mine is what begins with the octets 22 and 3, a handshake record; its minor version is ignored (RFC 5246, E.1), in later
records the whole version is (RFC 8446, 5.1). A first record of another type, of a version there is, is mine, too, and
refused. Not mine is the hello of SSL 2.0, even one that offers TLS: RFC 8446, D.5 advises against taking it, it is no
TLS record, and its first octet says too little to keep other protocols waiting for the next ones.

A hello may be cut into `MOST_RECORDS` records of any size, down to one octet each. `limit_octets` counts the handshake
message with its type and length; the headers of the records may take as many octets again, so a reader needs room for
twice the limit. The records are walked in order, at each call from the first one, and a fault in them is seen at the
first octet that shows it, so no cut into segments changes the verdict; the message is read once it is complete. A
ClientHello ends with its record (RFC 8446, 5.1); what follows in others, as early data does, is not looked at.

Deviation: RFC 8446, 5.1 limits the number of records nowhere. No client uses more than a few for its hello, and whoever
cut it into thousands, and those into segments, would make a reader walk them all again with each.

Deviation: an IPv4 address as server name, which RFC 6066 does not permit, is taken as a name like any other, as servers
take it; likewise an underscore, and one dot at the end, which is left off. Other names that no host can have are
refused: rules and logs see letters, digits, ``-``, ``_`` and single dots only, at most 255 octets as sent.
Deviation: names of a type that RFC 6066 does not know are passed over, by the length that it prescribes for them.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import Final

from tcpha.proto.inspect import (
    NEED_MORE,
    NOT_MINE,
    Cause,
    Inspected,
    Inspection,
    NeedMore,
    NotMine,
    Protocol,
    Refusal,
)

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23  # RFC 8446, 5.1
_CLIENT_HELLO: Final = 1  # RFC 8446, 4
_SERVER_NAME: Final = 0  # RFC 6066, 3
_ALPN: Final = 16  # RFC 7301, 3.1
_HOST_NAME: Final = 0  # RFC 6066, 3
_FATAL: Final = 2  # RFC 8446, 6

MOST_RECORDS: Final = 64
"""Records that a ClientHello may be cut into."""

_RECORD_HEADER_OCTETS: Final = 5
_MESSAGE_HEADER_OCTETS: Final = 4
_LARGEST_FRAGMENT_OCTETS: Final = 1 << 14
_SMALLEST_BODY_OCTETS: Final = 41  # no session, one cipher suite, one compression method, no extensions
_LARGEST_SESSION_ID_OCTETS: Final = 32
_LARGEST_NAME_OCTETS: Final = 255  # RFC 1123, 2.1
_SSL_3_0: Final = 0x0300

_BOTH_HEADERS: Final = struct.Struct("!BBxHI")  # type, major version, length of the fragment; type and length
_EXTENSION: Final = struct.Struct("!HH")
_HOST: Final = re.compile(rb"([0-9A-Za-z_-]++(?:\.[0-9A-Za-z_-]++)*+)\.?")


class Alert(IntEnum):
    """Descriptions of the alerts that are sent (RFC 8446, 6)."""

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    UNRECOGNIZED_NAME = 112


def _malformed(reason: str, alert: Alert = Alert.DECODE_ERROR) -> Refusal:
    return Refusal(Protocol.TLS, Cause.MALFORMED, reason, alert)


_OTHER_RECORD: Final = _malformed("a record other than handshake", Alert.UNEXPECTED_MESSAGE)  # RFC 8446, 5
_EMPTY_RECORD: Final = _malformed("an empty handshake record")
_LONG_RECORD: Final = _malformed("a record of more than 2^14 octets", Alert.RECORD_OVERFLOW)  # RFC 8446, 5.1
_OTHER_MESSAGE: Final = _malformed("a handshake message other than ClientHello", Alert.UNEXPECTED_MESSAGE)
_NOT_AT_RECORD_END: Final = _malformed("ClientHello does not end with its record", Alert.UNEXPECTED_MESSAGE)
_SHORT: Final = _malformed("ClientHello too short")
_SESSION_ID: Final = _malformed("invalid length of session id")
_CIPHER_SUITES: Final = _malformed("invalid length of cipher suites")
_COMPRESSION: Final = _malformed("invalid length of compression methods")
_EXTENSIONS: Final = _malformed("lengths of extensions do not add up")
_NAMES: Final = _malformed("lengths of server names do not add up")
_PROTOCOL_NAMES: Final = _malformed("lengths of protocol names do not add up")
# the syntax is right in these three (RFC 8446, 6.2)
_EXTENSION_REPEATED: Final = _malformed("an extension twice", Alert.ILLEGAL_PARAMETER)
_NAME_REPEATED: Final = _malformed("two server names of one type", Alert.ILLEGAL_PARAMETER)
_NAME: Final = _malformed("server name is no host name", Alert.ILLEGAL_PARAMETER)
_SSL: Final = Refusal(Protocol.TLS, Cause.VERSION, "SSL")
_MESSAGE_TOO_LONG: Final = Refusal(Protocol.TLS, Cause.HEAD_TOO_LONG, "ClientHello exceeds the limit")
_TOO_MANY_RECORDS: Final = Refusal(Protocol.TLS, Cause.HEAD_TOO_LONG, "ClientHello in too many records")
_HEADERS_TOO_LONG: Final = Refusal(Protocol.TLS, Cause.HEAD_TOO_LONG, "headers of ClientHello's records exceed it")


class ClientHello(Inspected):
    """What a ClientHello says about where it wants to go."""

    __slots__ = ("_protocol_names", "sni")

    sni: bytes | None
    """In lower case, without a dot at its end; None if no name is sent. With ECH the outer name."""

    def __init__(self, sni: bytes | None, protocol_names: bytes | None, head_octets: int, octets: bytes = b"") -> None:
        """`protocol_names`: each behind an octet with its length (RFC 7301, 3.1), already checked; None: none sent."""
        self.sni = sni
        self._protocol_names = protocol_names
        self.head_octets = head_octets
        self.octets = octets

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientHello) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[object, ...]:
        return (self.sni, self._protocol_names, self.head_octets)

    def __repr__(self) -> str:
        return f"<ClientHello to {self.sni!r} for {self.alpn!r}>"

    @property
    def protocol(self) -> Protocol:
        """TLS."""
        return Protocol.TLS

    @property
    def idempotent(self) -> bool:
        """Always: who has read it has promised nothing yet, and early data is what may be repeated (RFC 8446, 8)."""
        return True

    @property
    def alpn(self) -> bytes | None:
        """The names in the order offered, most wanted first, joined by commas, which registered names do not hold."""
        if self._protocol_names is None:
            return None
        names, at = [], 0
        while at < len(self._protocol_names):
            end = at + 1 + self._protocol_names[at]
            names.append(self._protocol_names[at + 1 : end])
            at = end
        return b",".join(names)


def inspect(octets: bytes, limit_octets: int = 16384) -> Inspection:
    """Read the ClientHello in everything that has arrived, from the connection's first octet on.

    `limit_octets` (>= 1) bounds the handshake message: one of exactly that many is read. The records' headers are
    bounded by the same number.

    Never raises. Refused as VERSION: SSL 3.0 and before (RFC 8446, D.5); HEAD_TOO_LONG: message or headers exceed the
    limit, seen at the message's length or at the header that is one too many, or there are more than `MOST_RECORDS`
    records; MALFORMED: everything else.
    """
    if len(octets) >= _RECORD_HEADER_OCTETS + _MESSAGE_HEADER_OCTETS:
        kind, major, fragment_octets, head = _BOTH_HEADERS.unpack_from(octets)
        end = _RECORD_HEADER_OCTETS + fragment_octets
        if (
            kind == _HANDSHAKE
            and major == 3
            and head == _CLIENT_HELLO << 24 | fragment_octets - _MESSAGE_HEADER_OCTETS
            and fragment_octets <= limit_octets
            and fragment_octets <= _LARGEST_FRAGMENT_OCTETS
            and end <= len(octets)
        ):  # one record holds it all: nearly always so, and there is nothing to bring together
            return _hello(octets, _RECORD_HEADER_OCTETS + _MESSAGE_HEADER_OCTETS, end, end, octets)
    return _first_fault(octets) or _inspect_records(octets, limit_octets)


def answer(cause: Cause, asked: Inspected | None = None, code: int | None = None) -> bytes:
    """Return a fatal alert in a record of its own (RFC 8446, 6), or nothing: then the connection is just closed.

    Identical octets at every call. `asked` is the ClientHello, if one was read: with a name in it UNROUTED is
    unrecognized_name (RFC 6066, 3), else handshake_failure; missing_extension would say that a name helps, which
    nobody knows: rules look at other things, too. `code` is that of the refusal, an `Alert`; it tells what is malformed
    more precisely than decode_error.

    HEAD_TOO_LONG is illegal_parameter, as OpenSSL answers a message longer than it takes: the length can be read, but
    is not accepted (decode_error would deny the one, internal_error the other). TIMED_OUT has no alert: there is none
    for it, who stops inside a hello hardly reads one, and close_notify would say that all is well.

    Raises:
        ValueError: `code` is no `Alert`.
    """
    if cause is Cause.TIMED_OUT:
        return b""
    if code is not None:
        return _RECORDS[Alert(code)]
    if cause is Cause.UNROUTED and asked is not None and asked.sni is not None:
        return _RECORDS[Alert.UNRECOGNIZED_NAME]
    return _RECORDS[_ALERTS[cause]]


# Nobody knows yet which version will be spoken: RFC 8446, 5.1 wants this one in the record, and clients of older
# versions look at the major version only as long as they have no ServerHello.
_RECORDS: Final = {alert: bytes((_ALERT, 3, 3, 0, 2, _FATAL, alert)) for alert in Alert}
_ALERTS: Final = {
    Cause.MALFORMED: Alert.DECODE_ERROR,
    Cause.TARGET_TOO_LONG: Alert.ILLEGAL_PARAMETER,
    Cause.HEAD_TOO_LONG: Alert.ILLEGAL_PARAMETER,
    Cause.VERSION: Alert.PROTOCOL_VERSION,
    Cause.UNAVAILABLE: Alert.INTERNAL_ERROR,
    Cause.UNROUTED: Alert.HANDSHAKE_FAILURE,
}


def _first_fault(octets: bytes) -> NeedMore | NotMine | Refusal | None:
    """Is the beginning that of a TLS record? None: of a handshake record."""
    kind, version = octets[:1], octets[1:3]
    if kind == b"\x16":
        if not version:
            return NEED_MORE
        return None if version[0] == 3 else NOT_MINE
    if not kind:
        return NEED_MORE
    if kind[0] not in (_CHANGE_CIPHER_SPEC, _ALERT, _APPLICATION_DATA) or version[:1] not in (b"", b"\3"):
        return NOT_MINE
    if len(version) < 2:
        return NEED_MORE
    return _OTHER_RECORD if version[1] <= 4 else NOT_MINE  # 3.4 is TLS 1.3; its records say 3.3 or 3.1


def _inspect_records(octets: bytes, limit_octets: int) -> Inspection:
    """Bring the message together from its records, or say what is wrong with them, in the order of the octets."""
    arrived = len(octets)
    fragments: list[bytes] = []
    told = 0  # octets of the message in the records so far, by their own lengths
    message_octets = 0  # not known yet
    at = 0
    while at < arrived:
        if octets[at] != _HANDSHAKE:
            return _OTHER_RECORD
        if len(fragments) == MOST_RECORDS:
            return _TOO_MANY_RECORDS
        start = at + _RECORD_HEADER_OCTETS
        if start - told > limit_octets and at:
            return _HEADERS_TOO_LONG
        if start > arrived:
            return NEED_MORE
        fragment_octets = octets[start - 2] << 8 | octets[start - 1]
        if not 0 < fragment_octets <= _LARGEST_FRAGMENT_OCTETS:
            return _LONG_RECORD if fragment_octets else _EMPTY_RECORD
        at = start + fragment_octets
        fragments.append(octets[start:at])
        told += fragment_octets
        if told < message_octets:
            continue
        if message_octets == 0:
            found = _message_octets(b"".join(fragments), limit_octets)
            if not isinstance(found, int):
                return found
            message_octets = found
        if told > message_octets > 0:
            return _NOT_AT_RECORD_END
        if told == message_octets and at <= arrived:
            return _hello(b"".join(fragments), _MESSAGE_HEADER_OCTETS, message_octets, at, octets)
    return NEED_MORE


def _message_octets(beginning: bytes, limit_octets: int) -> int | Refusal:
    """Return the length of the message that begins so, its header included; 0: not known yet."""
    if beginning and beginning[0] != _CLIENT_HELLO:
        return _OTHER_MESSAGE
    if len(beginning) < _MESSAGE_HEADER_OCTETS:
        return 0
    message_octets = _MESSAGE_HEADER_OCTETS + int.from_bytes(beginning[1:_MESSAGE_HEADER_OCTETS], "big")
    return message_octets if message_octets <= limit_octets else _MESSAGE_TOO_LONG


def _hello(message: bytes, start: int, end: int, head_octets: int, octets: bytes) -> ClientHello | Refusal:
    """Read the body of a complete ClientHello (RFC 8446, 4.1.2), which is `message` from `start` to `end`."""
    if end - start < _SMALLEST_BODY_OCTETS:
        return _SHORT
    if message[start] << 8 | message[start + 1] <= _SSL_3_0:
        return _SSL
    at = start + 34  # behind the version and the random
    session_id_octets = message[at]
    at += 1 + session_id_octets
    if session_id_octets > _LARGEST_SESSION_ID_OCTETS or at + 2 > end:
        return _SESSION_ID
    cipher_suites_octets = message[at] << 8 | message[at + 1]
    at += 2 + cipher_suites_octets
    if cipher_suites_octets == 0 or cipher_suites_octets & 1 or at >= end:
        return _CIPHER_SUITES
    methods_octets = message[at]
    at += 1 + methods_octets
    if methods_octets == 0 or at > end:
        return _COMPRESSION
    if at == end:  # RFC 5246, 7.4.1.2: a hello may have no extensions
        return ClientHello(None, None, head_octets, octets)
    if at + 2 > end or at + 2 + (message[at] << 8 | message[at + 1]) != end:
        return _EXTENSIONS
    return _extensions(message, at + 2, end, head_octets, octets)


def _extensions(message: bytes, at: int, end: int, head_octets: int, octets: bytes) -> ClientHello | Refusal:
    """Read the two extensions that are of use, once it is sure where each one stands (RFC 8446, 4.2)."""
    unpack_from = _EXTENSION.unpack_from
    last = end - 4
    starts: dict[int, int] = {}
    count = 0
    while at <= last:
        kind, extension_octets = unpack_from(message, at)
        at += 4
        starts[kind] = at
        at += extension_octets
        count += 1
    if at != end:
        return _EXTENSIONS
    if len(starts) != count:
        return _EXTENSION_REPEATED
    sni = _server_name(message, starts[_SERVER_NAME]) if _SERVER_NAME in starts else None
    if isinstance(sni, Refusal):
        return sni
    protocol_names = _protocol_names(message, starts[_ALPN]) if _ALPN in starts else None
    if isinstance(protocol_names, Refusal):
        return protocol_names
    return ClientHello(sni, protocol_names, head_octets, octets)


def _list_end(message: bytes, at: int) -> int:
    """Return the end of the list that fills the extension with its data at `at`; 0: it does not, or it is empty."""
    extension_octets = message[at - 2] << 8 | message[at - 1]
    if extension_octets <= 2 or message[at] << 8 | message[at + 1] != extension_octets - 2:
        return 0
    return at + extension_octets


def _server_name(message: bytes, at: int) -> bytes | Refusal | None:
    """Read a ServerNameList (RFC 6066, 3); None: it has no host name."""
    end = _list_end(message, at)
    if not end:
        return _NAMES
    at += 2
    names: dict[int, bytes] = {}
    while at < end:
        start = at + 3
        if start > end:
            return _NAMES
        kind = message[at]
        at = start + (message[at + 1] << 8 | message[at + 2])
        if at > end or (at == start and kind == _HOST_NAME):
            return _NAMES
        if kind in names:
            return _NAME_REPEATED
        names[kind] = message[start:at]
    if _HOST_NAME not in names:
        return None
    match = _HOST.fullmatch(names[_HOST_NAME])
    return _NAME if match is None or len(match[0]) > _LARGEST_NAME_OCTETS else match[1].lower()


def _protocol_names(message: bytes, at: int) -> bytes | Refusal:
    """Check a ProtocolNameList (RFC 7301, 3.1) and return it without its length."""
    end = _list_end(message, at)
    if not end:
        return _PROTOCOL_NAMES
    start = at = at + 2
    while at < end:
        if message[at] == 0:
            return _PROTOCOL_NAMES
        at += 1 + message[at]
    return message[start:end] if at == end else _PROTOCOL_NAMES
