"""Fields: their names, and where each is found in what a client sends."""

from __future__ import annotations

import pytest

from tcpha.fields import Connection, Field, Kind, Seen, parse_field, reader_of
from tcpha.patterns import RuleError
from tests.unit.seen import connection, first, hello, request

REQUEST = request(b"/a/b.jpg?x=1", b"PUT", b"WWW.Example.com:8080", user_agent="curl", cookie="a=1; id=7", x_empty="")
HELLO = hello(b"www.example.com", b"h2", b"http/1.1")
CONNECTION = connection("198.51.100.7", 443)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        *((kind.value, Field(kind)) for kind in Kind if kind not in (Kind.HEADER, Kind.COOKIE)),
        ("header.User-Agent", Field(Kind.HEADER, "user-agent")),
        ("header.x", Field(Kind.HEADER, "x")),
        ("cookie.ID", Field(Kind.COOKIE, "ID")),
        ("cookie..AspNet.Session", Field(Kind.COOKIE, ".AspNet.Session")),
        ("cookie.__Host-a~b!", Field(Kind.COOKIE, "__Host-a~b!")),
    ],
)
def test_listed_name_is_a_field_and_is_written_as_such(text: str, field: Field) -> None:
    assert parse_field(text) == field
    assert parse_field(str(field)) == field


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "Host",
        "hosts",
        "host ",
        "header",
        "cookie",
        "header.*",
        "cookie.a+",
        "header.a$",
        "sni.x",
        "x.header.a",
    ],
)
def test_other_name_is_no_field(text: str) -> None:
    assert parse_field(text) is None


@pytest.mark.parametrize(("text", "column"), [("header.", 8), ("cookie.", 8)])
def test_missing_name_raises_where_it_should_stand(text: str, column: int) -> None:
    with pytest.raises(RuleError, match="a name is missing") as raised:
        parse_field(text)
    assert raised.value.column == column


@pytest.mark.parametrize(
    ("name", "seen", "octets"),
    [
        ("method", REQUEST, b"PUT"),
        ("target", REQUEST, b"/a/b.jpg?x=1"),
        ("path", REQUEST, b"/a/b.jpg"),
        ("query", REQUEST, b"x=1"),
        ("query", request(b"/a"), None),
        ("host", REQUEST, b"www.example.com"),
        ("host", request(), None),
        ("header.user-agent", REQUEST, b"curl"),
        ("header.User-Agent", REQUEST, b"curl"),
        ("header.x-empty", REQUEST, b""),
        ("header.accept", REQUEST, None),
        ("cookie.id", REQUEST, b"7"),
        ("cookie.ID", REQUEST, None),
        ("sni", HELLO, b"www.example.com"),
        ("sni", hello(), None),
        ("alpn", HELLO, b"h2,http/1.1"),
        ("alpn", hello(b"x"), None),
        ("octets", first(b"SSH-2.0"), b"SSH-2.0"),
        ("octets", HELLO, b"\x16\x03\x01"),
        ("port", HELLO, b"443"),
        ("client", HELLO, b"\xc6\x33\x64\x07"),
        *((name, HELLO, None) for name in ("method", "target", "path", "query", "host", "header.a", "cookie.a")),
        *((name, REQUEST, None) for name in ("sni", "alpn")),
        *((name, first(b"GET"), None) for name in ("method", "target", "host", "header.a", "cookie.a", "sni", "alpn")),
    ],
)
def test_field_is_read_where_it_stands_and_is_none_where_it_is_not(name: str, seen: Seen, octets: bytes | None) -> None:
    field = parse_field(name)
    assert field is not None
    assert reader_of(field)(seen, CONNECTION) == octets


@pytest.mark.parametrize("name", ["port", "client"])
def test_connection_is_unknown_its_fields_are_none(name: str) -> None:
    field = parse_field(name)
    assert field is not None
    assert reader_of(field)(HELLO, None) is None


def test_octets_behind_the_head_are_none_of_the_field() -> None:
    seen = request(b"/")
    head = seen.octets
    seen.octets += b"a body, as far as it has arrived"
    assert reader_of(Field(Kind.OCTETS))(seen, None) == head


def test_connection_is_a_value() -> None:
    assert Connection(b"\xc6\x33\x64\x07", 443) == CONNECTION
    assert Connection(b"\xc6\x33\x64\x07", 80) != CONNECTION
