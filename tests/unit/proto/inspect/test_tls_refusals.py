"""Hellos that are not served, each with the alert that says so; and the alerts themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpha.proto.inspect import NEED_MORE, Cause, Protocol, Refusal
from tcpha.proto.inspect.tls import Alert, ClientHello, answer, inspect
from tests.unit.proto.inspect.hellos import (
    ALPN,
    SERVER_NAME,
    Hello,
    alpn,
    chrome,
    extension,
    message,
    name_entry,
    noise,
    old,
    record,
    records,
    server_name,
    sni,
    u16,
    vector,
)
from tests.unit.proto.inspect.tls_reading import accepted, refused

HELLO = Hello(sni(b"www.example.com") + alpn(b"h2"))
MESSAGE = HELLO.message


def alert_of(octets: bytes) -> str:
    """Refused as malformed, in any cut, with this alert."""
    refusal, description = refused(octets)
    assert (refusal.protocol, refusal.cause) == (Protocol.TLS, Cause.MALFORMED)
    assert refusal.reason
    return Alert(description).name


def alert_of_extensions(extensions: bytes) -> str:
    return alert_of(Hello(extensions).record)


# records


@pytest.mark.parametrize("kind", [20, 21, 23])
@pytest.mark.parametrize("minor", [0, 1, 3, 4])
def test_first_record_other_than_handshake_is_unexpected_at_its_version(kind: int, minor: int) -> None:
    octets = record(b"\1\0", kind, 0x0300 | minor)
    assert alert_of(octets) == "UNEXPECTED_MESSAGE"
    assert inspect(octets[:2]) is NEED_MORE
    assert isinstance(inspect(octets[:3]), Refusal)
    assert alert_of(record(MESSAGE, kind)) == "UNEXPECTED_MESSAGE"


@pytest.mark.parametrize("kind", [0, 20, 21, 23, 24, 0x47, 0x80, 255])
@pytest.mark.parametrize("before", [1, 3, 4, 50])
def test_other_record_inside_hello_is_unexpected_at_its_first_octet(kind: int, before: int) -> None:
    octets = record(MESSAGE[:before]) + record(MESSAGE[before:], kind)
    assert alert_of(octets) == "UNEXPECTED_MESSAGE"
    assert inspect(octets[: 5 + before]) is NEED_MORE
    assert isinstance(inspect(octets[: 6 + before]), Refusal)


@pytest.mark.parametrize("before", [0, 1, 4, 50])
def test_empty_record_inside_hello_is_refused_at_its_header(before: int) -> None:
    octets = (record(MESSAGE[:before]) if before else b"") + record(b"")
    assert alert_of(octets + record(MESSAGE[before:])) == "DECODE_ERROR"
    assert inspect(octets[:-1]) is NEED_MORE
    assert isinstance(inspect(octets), Refusal)


def test_empty_record_behind_hello_is_not_looked_at() -> None:
    assert accepted(HELLO.record) == inspect(HELLO.record + record(b""))


@pytest.mark.parametrize("before", [0, 1, 4, 50])
def test_record_above_its_largest_length_overflows(before: int) -> None:
    start = record(MESSAGE[:before]) if before else b""
    for length in (0x4001, 0x4100, 0xFFFF):
        octets = start + b"\x16\x03\x01" + u16(length)
        assert alert_of(octets + MESSAGE[before:]) == "RECORD_OVERFLOW"
        assert isinstance(inspect(octets), Refusal)


def test_record_above_its_largest_length_overflows_below_any_limit() -> None:
    largest = HELLO.padded(16384).message
    assert isinstance(inspect(record(largest), 65536), ClientHello)
    longer = record(HELLO.padded(16385).message)
    assert refused(longer[:20], 65536) == refused(longer[:5], 65536)
    assert inspect(longer, 65536) == inspect(longer[:5], 65536) == inspect(record(bytes(16385)))


@pytest.mark.parametrize("kind", [0, 2, 4, 8, 11, 16, 20, 24, 254, 255])
def test_other_message_is_unexpected_at_its_first_octet(kind: int) -> None:
    octets = record(message(HELLO.body, kind))
    assert alert_of(octets) == "UNEXPECTED_MESSAGE"
    assert inspect(octets[:5]) is NEED_MORE
    assert isinstance(inspect(octets[:6]), Refusal)


@pytest.mark.parametrize(
    "octets",
    [
        record(MESSAGE + b"\0"),
        record(MESSAGE + MESSAGE),
        record(MESSAGE[:3]) + record(MESSAGE[3:] + b"\0"),
        record(MESSAGE[:60]) + record(MESSAGE[60:] + b"\0"),
        record(message(b"") + b"\0"),
    ],
)
def test_hello_that_ends_inside_its_record_is_unexpected(octets: bytes) -> None:
    assert alert_of(octets) == "UNEXPECTED_MESSAGE"


# lengths at every level


def test_body_cut_anywhere_is_refused() -> None:
    body = HELLO.body
    bare = replace(HELLO, extensions=None).body
    for end in range(len(body)):
        if end == len(bare):  # a hello without extensions is one
            assert accepted(record(message(body[:end]))).sni is None
        else:
            assert alert_of(record(message(body[:end]))) == "DECODE_ERROR"


def test_body_followed_by_an_octet_is_refused() -> None:
    for hello in (HELLO, replace(HELLO, extensions=b""), replace(HELLO, extensions=None)):
        assert alert_of(record(message(hello.body + b"\0"))) == "DECODE_ERROR"


def test_session_id_above_32_octets_is_refused() -> None:
    assert accepted(replace(HELLO, session_id=noise(32)).record).sni
    assert alert_of(replace(HELLO, session_id=noise(33)).record) == "DECODE_ERROR"
    assert alert_of(replace(HELLO, session_id=noise(255)).record) == "DECODE_ERROR"


@pytest.mark.parametrize("octets", [0, 1, 3, 7, 65535])
def test_cipher_suites_none_or_half_are_refused(octets: int) -> None:
    body = u16(0x0303) + noise(32) + b"\0" + u16(octets) + bytes(min(octets, 300)) + b"\1\0" + vector(sni(b"a"))
    assert alert_of(record(message(body))) == "DECODE_ERROR"


def test_no_compression_method_is_refused() -> None:
    assert alert_of(replace(HELLO, methods=b"").record) == "DECODE_ERROR"
    assert accepted(replace(HELLO, methods=b"\1\0").record).sni


def changed(octets: bytes, at: int, by: int) -> bytes:
    """With another length of two octets at one place."""
    return octets[:at] + u16(int.from_bytes(octets[at : at + 2], "big") + by) + octets[at + 2 :]


def places_of_lengths() -> dict[str, int]:
    """Where in HELLO's body the lengths of its extensions stand."""
    extensions = len(replace(HELLO, extensions=None).body)
    name = extensions + 2
    names = name + len(sni(b"www.example.com"))
    return {
        "all extensions": extensions,
        "server_name": name + 2,
        "list of server names": name + 4,
        "server name": name + 7,
        "ALPN": names + 2,
        "list of protocol names": names + 4,
    }


@pytest.mark.parametrize("at", places_of_lengths().values(), ids=places_of_lengths())
@pytest.mark.parametrize("by", [-2, -1, 1, 5, 0x1000])
def test_length_that_does_not_add_up_is_refused(at: int, by: int) -> None:
    assert alert_of(record(message(changed(HELLO.body, at, by)))) == "DECODE_ERROR"


@pytest.mark.parametrize("length", [0, 1, 3, 255])
def test_length_of_protocol_name_that_does_not_add_up_is_refused(length: int) -> None:
    body = HELLO.body[:-3] + bytes((length,)) + HELLO.body[-2:]
    assert alert_of(record(message(body))) == "DECODE_ERROR"


@pytest.mark.parametrize("data", [b"", b"abc", noise(200)])
def test_last_extension_longer_than_what_is_left_is_refused(data: bytes) -> None:
    for kind in (0x1234, SERVER_NAME, ALPN):
        for more in (1, 0x0100, 0x8000):
            last = u16(kind, len(data) + more) + data
            assert alert_of_extensions(last) == "DECODE_ERROR"
            assert alert_of_extensions(extension(0x2345) + last) == "DECODE_ERROR"


@pytest.mark.parametrize("left_over", [1, 2, 3])
def test_extensions_with_octets_left_over_are_refused(left_over: int) -> None:
    assert alert_of_extensions(sni(b"a.example") + bytes(left_over)) == "DECODE_ERROR"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        vector(b""),
        vector(b"\0"),
        vector(b"\0\0"),
        vector(name_entry(b"")),
        vector(name_entry(b"a") + b"\1\0"),
        vector(name_entry(b"a")) + b"\0",
        vector(name_entry(b"a") + name_entry(b"")),
    ],
)
def test_server_names_whose_lengths_do_not_add_up_are_refused(data: bytes) -> None:
    """An empty list and an empty name are none, too (RFC 6066, 3)."""
    assert alert_of_extensions(extension(SERVER_NAME, data)) == "DECODE_ERROR"
    assert alert_of_extensions(extension(SERVER_NAME, data) + extension(0x1234, noise(9))) == "DECODE_ERROR"


@pytest.mark.parametrize(
    "data", [b"", b"\0", vector(b""), vector(b"\0"), vector(b"\2h2\0"), vector(b"\2h2\5h"), vector(b"\2h2") + b"\0"]
)
def test_protocol_names_whose_lengths_do_not_add_up_are_refused(data: bytes) -> None:
    """An empty list and an empty name are none, too (RFC 7301, 3.1)."""
    assert alert_of_extensions(extension(ALPN, data)) == "DECODE_ERROR"
    assert alert_of_extensions(extension(ALPN, data) + extension(0x1234, noise(9))) == "DECODE_ERROR"


# what the syntax allows


@pytest.mark.parametrize(
    "extensions",
    [
        sni(b"a.example") + sni(b"b.example"),
        sni(b"a.example") + sni(b"a.example"),
        sni(b"a.example") + alpn(b"h2") + alpn(b"h2"),
        extension(0x7A7A) + sni(b"a.example") + extension(0x7A7A),
        (chrome().extensions or b"") + extension(0xFE0D),
    ],
)
def test_extension_twice_is_illegal(extensions: bytes) -> None:
    assert alert_of_extensions(extensions) == "ILLEGAL_PARAMETER"


@pytest.mark.parametrize(
    "entries",
    [
        (name_entry(b"a.example"), name_entry(b"b.example")),
        (name_entry(b"a.example"), name_entry(b"a.example")),
        (name_entry(b"x", 3), name_entry(b"a.example"), name_entry(b"y", 3)),
    ],
)
def test_two_names_of_one_type_are_illegal(entries: tuple[bytes, ...]) -> None:
    assert alert_of_extensions(server_name(*entries)) == "ILLEGAL_PARAMETER"


@pytest.mark.parametrize(
    "name",
    [
        b"\0",
        b"a.example\0",
        b"a.example\0.b.example",
        b".",
        b"..",
        b".a.example",
        b"a..example",
        b"a.example..",
        b"a example",
        b"a.example\n",
        b"a.example:443",
        b"a/b",
        b"*.example",
        b"user@a.example",
        b"2001:db8::1",
        b"[2001:db8::1]",
        b"b\xc3\xbccher.example",
        b"\xff",
        b"a,b",
        b"a" * 256,
        b"a." * 128,
        b"a." * 1000 + b"a",
    ],
)
def test_name_that_no_host_can_have_is_illegal(name: bytes) -> None:
    assert alert_of_extensions(sni(name)) == "ILLEGAL_PARAMETER"


@pytest.mark.parametrize("version", [0x0300, 0x02FF, 0x0200, 0x0002, 0x0000])
def test_version_before_tls_1_0_is_refused_as_such(version: int) -> None:
    refusal, description = refused(replace(old(None), version=version, extensions=None).record)
    assert (refusal.cause, Alert(description).name) == (Cause.VERSION, "PROTOCOL_VERSION")
    assert refused(records(replace(chrome(), version=version).message, [90]))[0] == refusal


REASONS = {
    "a record other than handshake": record(b"\1", 20),
    "an empty handshake record": record(b""),
    "a record of more than 2^14 octets": b"\x16\x03\x01\x40\x01",
    "a handshake message other than ClientHello": record(message(b"", 0)),
    "ClientHello does not end with its record": record(MESSAGE + b"\0"),
    "ClientHello too short": record(message(bytes(40))),
    "SSL": replace(HELLO, version=0x0300).record,
    "invalid length of session id": replace(HELLO, session_id=bytes(33)).record,
    "invalid length of cipher suites": replace(HELLO, suites=b"").record,
    "invalid length of compression methods": record(message(replace(HELLO, extensions=None).body[:-2] + b"\2\0")),
    "lengths of extensions do not add up": Hello(b"\0").record,
    "an extension twice": Hello(2 * alpn(b"h2")).record,
    "lengths of server names do not add up": Hello(sni(b"")).record,
    "two server names of one type": Hello(server_name(name_entry(b"a"), name_entry(b"a"))).record,
    "server name is no host name": Hello(sni(b".")).record,
    "lengths of protocol names do not add up": Hello(alpn(b"")).record,
}


@pytest.mark.parametrize(("reason", "octets"), REASONS.items(), ids=REASONS)
def test_refusal_says_what_is_wrong(reason: str, octets: bytes) -> None:
    assert refused(octets)[0].reason == reason


# the alerts

NAMED = accepted(HELLO.record)
ASKED = {"a name": NAMED, "no name": accepted(Hello(alpn(b"h2")).record), "nothing read": None}


@pytest.mark.parametrize(
    ("cause", "asked", "alert"),
    [
        (Cause.MALFORMED, "nothing read", 50),
        (Cause.TARGET_TOO_LONG, "nothing read", 47),
        (Cause.HEAD_TOO_LONG, "nothing read", 47),
        (Cause.VERSION, "nothing read", 70),
        (Cause.UNAVAILABLE, "a name", 80),
        (Cause.UNAVAILABLE, "no name", 80),
        (Cause.UNROUTED, "a name", 112),
        (Cause.UNROUTED, "no name", 40),
        (Cause.UNROUTED, "nothing read", 40),
    ],
)
def test_answer_is_one_fatal_alert_in_a_record_of_its_own(cause: Cause, asked: str, alert: int) -> None:
    octets = answer(cause, ASKED[asked])
    assert octets == b"\x15\x03\x03\x00\x02\x02" + bytes((alert,))
    assert answer(cause, ASKED[asked]) is octets


@pytest.mark.parametrize("alert", Alert)
def test_answer_to_refusal_with_a_code_is_that_alert(alert: Alert) -> None:
    assert answer(Cause.MALFORMED, None, int(alert)) == b"\x15\x03\x03\x00\x02\x02" + bytes((alert,))


def test_answer_with_a_code_that_is_no_alert_of_ours_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="255"):
        answer(Cause.MALFORMED, None, 255)


def test_answer_to_silence_is_the_close_alone() -> None:
    for asked in (None, NAMED):
        assert answer(Cause.TIMED_OUT, asked) == answer(Cause.TIMED_OUT, asked, Alert.DECODE_ERROR) == b""


def test_answer_any_other_cause_has_an_alert() -> None:
    assert {len(answer(cause, asked)) for cause in Cause for asked in (NAMED, None)} == {0, 7}
    assert [cause for cause in Cause if not answer(cause)] == [Cause.TIMED_OUT]
