"""Which protocol is it? Decided by the octets alone, however they were cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.proto.inspect import NEED_MORE, Cause, FirstOctets, Inspected, Protocol, Refusal
from tcpha.proto.inspect.first import answer, inspect, suspected
from tests.unit.proto.inspect.test_http2 import usual

HTTP1 = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
LIMIT = 16384
STRANGE = [
    b"SSH-2.0-x\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"PING\r\n",
    b"\n",
]


@pytest.mark.parametrize(
    ("octets", "protocol"), [(HTTP1, Protocol.HTTP1), (POST, Protocol.HTTP1), (usual(), Protocol.HTTP2)]
)
@pytest.mark.parametrize("raw", [False, True])
def test_known_protocol_is_told_whatever_the_rules(octets: bytes, protocol: Protocol, raw: bool) -> None:
    for end in range(1, len(octets) - (octets == POST)):
        assert inspect(octets[:end], LIMIT, raw=raw) is NEED_MORE
    found = inspect(octets, LIMIT, raw=raw)
    assert isinstance(found, Inspected)
    assert (found.protocol, found.octets) == (protocol, octets)


@pytest.mark.parametrize("octets", STRANGE)
def test_unknown_protocol_is_octets_where_rules_want_them_and_bad_http_elsewhere(octets: bytes) -> None:
    found = inspect(octets, LIMIT, raw=True)
    assert isinstance(found, FirstOctets)
    assert (found.protocol, found.octets, found.head_octets) == (Protocol.OCTETS, octets, len(octets))
    assert not found.idempotent
    assert (found.target, found.method, found.host, found.sni, found.alpn) == (None,) * 5
    assert (found.path, found.query, found.header(b"host"), found.cookie(b"a")) == (None,) * 4
    refused = inspect(octets, LIMIT, raw=False)
    assert isinstance(refused, Refusal)
    assert (refused.protocol, refused.cause) == (Protocol.HTTP1, Cause.MALFORMED)


def test_http2_preface_that_goes_wrong_is_http_of_another_version() -> None:
    refused = inspect(b"PRI * HTTP/2.0\r\n\r\nSN", LIMIT, raw=True)
    assert isinstance(refused, Refusal)
    assert (refused.protocol, refused.cause) == (Protocol.HTTP1, Cause.VERSION)


@settings(deadline=None)
@given(st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from([*STRANGE, HTTP1, usual()])), st.booleans())
def test_any_cut_leads_to_the_same_protocol(octets: bytes, raw: bool) -> None:
    decided = None
    for end in range(1, len(octets) + 1):
        found = inspect(octets[:end], LIMIT, raw=raw)
        if found is NEED_MORE:
            assert decided is None
            continue
        assert isinstance(found, Inspected | Refusal)
        assert decided in (None, found.protocol)
        decided = found.protocol


@pytest.mark.parametrize(
    ("octets", "protocol"),
    [
        (b"G", Protocol.HTTP1),
        (b"PRI", Protocol.HTTP1),
        (b"PRI * HTTP", Protocol.HTTP2),
        (usual()[:30], Protocol.HTTP2),
        (b"\x16", Protocol.TLS),
        (b"\x16\x03\x01\x01", Protocol.TLS),
    ],
)
def test_beginning_suggests_a_protocol(octets: bytes, protocol: Protocol) -> None:
    assert suspected(octets, LIMIT) is protocol


def test_answers_are_in_the_words_of_the_protocol() -> None:
    assert answer(Protocol.HTTP1, Cause.UNAVAILABLE).startswith(b"HTTP/1.1 503 ")
    assert answer(Protocol.HTTP2, Cause.UNAVAILABLE)[3] == 4, "SETTINGS come first"
    assert answer(Protocol.TLS, Cause.UNAVAILABLE)[0] == 21, "an alert"
    assert answer(Protocol.OCTETS, Cause.UNAVAILABLE) == b""
