"""The TLS reader: hellos of every kind, in records of every size, whole, octet by octet, with what follows; limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpha.proto.inspect import NEED_MORE, NOT_MINE, Cause, Protocol, Refusal
from tcpha.proto.inspect.tls import MOST_RECORDS, Alert, ClientHello, inspect
from tests.unit.proto.inspect.hellos import (
    ECH,
    RFC_8448,
    Hello,
    alpn,
    chrome,
    extension,
    firefox,
    message,
    name_entry,
    noise,
    old,
    one_octet_records,
    record,
    records,
    resumption,
    server_name,
    sni,
    ssl_2,
    u16,
    vector,
    versions,
)
from tests.unit.proto.inspect.tls_reading import LIMIT_OCTETS, TRAILING, accepted, read_in_cuts, refused

BROWSERS = {"chrome": chrome(), "firefox": firefox(), "resumption with early data": resumption()}


def named(*entries: bytes) -> bytes | None:
    return accepted(Hello(server_name(*entries)).record).sni


# what is read


@pytest.mark.parametrize("hello", BROWSERS.values(), ids=BROWSERS)
def test_browser_hello_is_read(hello: Hello) -> None:
    found = accepted(hello.record)
    assert (found.sni, found.alpn) == (b"www.example.com", b"h2,http/1.1")


def test_hello_of_rfc_8448_is_read() -> None:
    found = accepted(RFC_8448)
    assert (found.sni, found.alpn, found.head_octets) == (b"server", None, 201)


def test_smallest_hello_is_read() -> None:
    smallest = Hello(None, session_id=b"", suites=u16(0x002F))
    assert len(smallest.body) == 41
    assert accepted(smallest.record).sni is None


def test_hello_of_tls_1_0_is_read() -> None:
    assert accepted(old().record).sni == b"www.example.com"


def test_hello_has_every_attribute_and_none_of_http() -> None:
    hello = inspect(chrome().record + b"more")
    assert isinstance(hello, ClientHello)
    assert (hello.protocol, hello.protocol.value, hello.idempotent) == (Protocol.TLS, "tls", True)
    assert hello.octets == chrome().record + b"more"
    assert [hello.method, hello.target, hello.path, hello.query, hello.host] == [None] * 5
    assert (hello.header(b"host"), hello.cookie(b"a")) == (None, None)
    assert repr(hello) == "<ClientHello to b'www.example.com' for b'h2,http/1.1'>"


def test_hellos_are_equal_if_rules_see_the_same_in_as_many_octets() -> None:
    one = accepted(chrome().record)
    for same in (chrome().record + b"more", replace(chrome(), version=0x0302).record):
        assert inspect(same) == one
        assert hash(inspect(same)) == hash(one)
    only_h2 = Hello(sni(b"www.example.com") + alpn(b"h2")).padded(len(chrome().message))
    for other in (chrome(b"xww.example.com").record, records(chrome().message, [9]), only_h2.record):
        assert inspect(other) != one
    assert one != b"www.example.com"


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        ((b"h2",), b"h2"),
        ((b"h2", b"http/1.1"), b"h2,http/1.1"),
        ((b"http/1.1", b"h2"), b"http/1.1,h2"),
        ((b"\x5a\x5a", b"h2", b"\0"), b"\x5a\x5a,h2,\0"),
        ((b"a" * 255, b"b"), b"a" * 255 + b",b"),
    ],
)
def test_protocol_names_are_joined_in_the_order_offered(names: tuple[bytes, ...], joined: bytes) -> None:
    hello = accepted(Hello(alpn(*names)).record)
    assert (hello.alpn, hello.sni) == (joined, None)


@pytest.mark.parametrize(
    "extensions",
    [None, b"", extension(0xFF01, b"\0"), server_name(name_entry(b"anything", 7), name_entry(b"", 8))],
    ids=["none at all", "an empty list", "others", "names of other types"],
)
def test_hello_without_name_has_none(extensions: bytes | None) -> None:
    hello = accepted(Hello(extensions).record)
    assert (hello.sni, hello.alpn) == (None, None)


def test_encrypted_hello_shows_the_outer_name() -> None:
    outer = sni(b"public.example") + extension(ECH, b"\0" + u16(1, 1) + b"\7" + vector(noise(32)) + vector(noise(2500)))
    assert accepted(Hello(outer).record).sni == b"public.example"


# names


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        (b"a", b"a"),
        (b"localhost", b"localhost"),
        (b"WWW.Example.COM", b"www.example.com"),
        (b"www.example.com.", b"www.example.com"),
        (b"xn--bcher-kva.example", b"xn--bcher-kva.example"),
        (b"r3---sn-4g5e.example", b"r3---sn-4g5e.example"),
        (b"_dmarc.my_host.example", b"_dmarc.my_host.example"),
        (b"192.0.2.1", b"192.0.2.1"),
        (b"1.example", b"1.example"),
        (b"a." * 127 + b"a", b"a." * 127 + b"a"),
        (b"a." * 127, b"a." * 126 + b"a"),
    ],
)
def test_name_is_in_lower_case_without_the_last_dot(name: bytes, seen: bytes) -> None:
    assert named(name_entry(name)) == seen


def test_name_among_names_of_other_types_is_found() -> None:
    assert named(name_entry(b"x", 9), name_entry(b"a.example"), name_entry(b"", 255)) == b"a.example"


# records


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 50, 100])
@pytest.mark.parametrize("hello", [old(), Hello(), Hello(None)], ids=["old", "named", "bare"])
def test_hello_in_records_of_one_size_is_read_like_one(hello: Hello, size: int) -> None:
    octets = records(hello.message, [size] * min(len(hello.message) // size, MOST_RECORDS - 1))
    found = accepted(octets)
    whole = inspect(hello.record)
    assert isinstance(whole, ClientHello)
    assert (found.sni, found.alpn) == (whole.sni, whole.alpn)


def test_hello_in_one_octet_records_and_one_more_is_read() -> None:
    octets = records(Hello().message, [1] * (MOST_RECORDS - 1))
    for end in range(len(octets)):
        assert inspect(octets[:end]) is NEED_MORE
    found = inspect(octets + b"\x17")
    assert isinstance(found, ClientHello)
    assert (found.sni, found.head_octets) == (b"www.example.com", len(octets))


def test_post_quantum_hello_in_as_many_records_as_may_be_is_read() -> None:
    message = chrome().message
    octets = records(message, [7] * (MOST_RECORDS - 1))  # and the rest in the last
    assert inspect(octets[:-1]) is NEED_MORE
    assert accepted(octets).head_octets == len(message) + 5 * MOST_RECORDS
    octets = records(message, [1] * (MOST_RECORDS - 1))
    assert accepted(octets).head_octets == len(message) + 5 * MOST_RECORDS


def test_record_too_many_is_refused_at_its_first_octet() -> None:
    octets = records(chrome().message, [1] * MOST_RECORDS)
    assert inspect(octets[: 6 * MOST_RECORDS]) is NEED_MORE
    refusal, alert = refused(octets)
    assert (refusal.cause, refusal.reason) == (Cause.HEAD_TOO_LONG, "ClientHello in too many records")
    assert alert == Alert.ILLEGAL_PARAMETER
    assert inspect(octets[: 6 * MOST_RECORDS + 1]) == refusal


class Watched(bytes):
    """Octets that know how often somebody has looked at some of them."""

    looks: int

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def test_hostile_records_cost_no_more_than_so_many_looks_however_much_has_come() -> None:
    most = 0
    octets = one_octet_records(Hello().padded(16384).message)
    for end in range(1, len(octets), 501):
        watched = Watched(octets[:end])
        watched.looks = 0
        inspect(watched)
        most = max(most, watched.looks)
    assert 3 * MOST_RECORDS < most <= 5 * MOST_RECORDS + 10, "it does walk them"


def test_hello_in_segments_of_an_ethernet_is_read_at_the_last() -> None:
    octets = resumption().record
    assert read_in_cuts(octets, [1448, 2896]) == inspect(octets)
    assert inspect(octets[:2896]) is NEED_MORE


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0303, 0x0304, 0x037F, 0x03FF])
def test_minor_version_of_first_record_is_ignored(version: int) -> None:
    assert accepted(record(Hello().message, version=version)).sni == b"www.example.com"


def test_version_of_later_records_is_ignored() -> None:
    message = Hello().message
    assert accepted(record(message[:40]) + record(message[40:], version=0xA1B2)).sni == b"www.example.com"


@pytest.mark.parametrize("version", [0x0301, 0x0302, 0x0303, 0x0304, 0x03FF, 0x0400, 0xFFFF])
def test_version_of_hello_from_tls_1_0_on_is_accepted(version: int) -> None:
    assert accepted(replace(chrome(), version=version).record).sni == b"www.example.com"


def test_versions_offered_are_left_to_the_server() -> None:
    assert accepted(Hello(sni(b"a") + versions(0x0A0A, 0x7F1C, 0x0300)).record).sni == b"a"


@pytest.mark.parametrize("trailing", TRAILING)
@pytest.mark.parametrize("octets", [chrome().record, records(old().message, [7, 1])], ids=["a record", "records"])
def test_octets_behind_the_hello_are_not_looked_at(octets: bytes, trailing: bytes) -> None:
    hello = inspect(octets + trailing)
    assert isinstance(hello, ClientHello)
    assert (hello.sni, hello.head_octets) == (b"www.example.com", len(octets))


@pytest.mark.parametrize("hello", BROWSERS.values(), ids=BROWSERS)
def test_every_beginning_of_a_hello_needs_more(hello: Hello) -> None:
    for octets in (hello.record, records(hello.message, [1, 2, 1, 1, 300])):
        assert {inspect(octets[:end]) for end in range(len(octets))} == {NEED_MORE}


# what is not TLS


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",  # PostgreSQL's SSLRequest
        b"\x12\x01\x00\x2f",  # TDS
        b"\x18\x03\x03\0\1",  # a heartbeat
        b"\x16\x02\x00\x00\x05\x01",
        b"\x16\x04\x03\x00\x05\x01",
        b"\x16\xfe\xff",  # DTLS
        b"\x17\x03\x05",
        b"\x15\x04",
        b"\x14\x03\xff",
        record(chrome().message, version=0x0403),
        record(chrome().message, version=0x0203),
        ssl_2(),
        ssl_2(0x0002),
    ],
)
def test_other_protocol_is_not_mine_in_any_cut(octets: bytes) -> None:
    seen = [inspect(octets[:end]) for end in range(len(octets) + 1)]
    first = seen.index(NOT_MINE)
    assert first <= 3
    assert seen == [NEED_MORE] * first + [NOT_MINE] * (len(seen) - first)


def test_hello_of_ssl_2_is_not_mine_at_its_first_octet() -> None:
    assert inspect(ssl_2()[:1]) is NOT_MINE


def test_nothing_needs_more() -> None:
    assert inspect(b"") is NEED_MORE


# limits


@pytest.mark.parametrize("cut", [[], [4000, 4000]], ids=["one record", "three records"])
def test_message_of_the_limit_is_read(cut: list[int]) -> None:
    octets = records(Hello().padded(LIMIT_OCTETS).message, cut)
    hello = inspect(octets)
    assert isinstance(hello, ClientHello)
    assert (hello.sni, hello.head_octets) == (b"www.example.com", LIMIT_OCTETS + 5 * (len(cut) + 1))
    assert inspect(octets[:-1]) is NEED_MORE


def test_message_above_the_limit_is_refused_at_its_length() -> None:
    message = Hello().padded(301).message
    refusal, _ = refused(record(message), 300)
    assert refusal == Refusal(Protocol.TLS, Cause.HEAD_TOO_LONG, "ClientHello exceeds the limit")
    assert inspect(record(message)[:8], 300) is NEED_MORE
    assert inspect(record(message)[:9], 300) == refusal
    assert refused(one_octet_records(message), 300) == refused(record(message), 300)
    assert inspect(one_octet_records(message)[:24], 300) == refusal
    assert accepted(record(message), 301).sni == b"www.example.com"


def test_message_of_16_mib_is_refused() -> None:
    assert refused(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", 65536)[0].cause is Cause.HEAD_TOO_LONG


@pytest.mark.parametrize("limit_octets", [1, 2, 3, 4, 5, 44])
def test_any_message_is_above_a_limit_that_none_can_keep(limit_octets: int) -> None:
    refusal, _ = refused(old().record, limit_octets)
    assert refusal.reason == "ClientHello exceeds the limit"


def test_limit_above_a_record_is_reached_by_several() -> None:
    message = Hello().padded(40000).message
    hello = inspect(records(message, [16384, 16384]), 40000)
    assert isinstance(hello, ClientHello)
    assert hello.sni == b"www.example.com"


def test_headers_of_records_are_bounded_by_the_limit() -> None:
    message = old().message
    assert len(message) == 100
    within = records(message, [1] * 19)  # and the rest in the twentieth: 100 octets of headers
    assert accepted(within, 100).head_octets == 200
    refusal, _ = refused(records(message, [1] * 20), 100)
    assert refusal.cause is Cause.HEAD_TOO_LONG
    beyond = records(message, [1] * 20)
    assert inspect(beyond[:120], 100) is NEED_MORE
    assert inspect(beyond[:121], 100) == refusal


@pytest.mark.parametrize("limit_octets", range(1, 60))
def test_no_more_is_asked_for_than_twice_the_limit(limit_octets: int) -> None:
    """A reader with that much room never waits for octets that it cannot hold."""
    for octets in (
        one_octet_records(message(bytes(300))),
        record(message(bytes(300))),
        records(old().message, [9] * 9),
    ):
        needed = next(end for end in range(len(octets) + 1) if inspect(octets[:end], limit_octets) is not NEED_MORE)
        assert needed <= max(2 * limit_octets, limit_octets + 9)
