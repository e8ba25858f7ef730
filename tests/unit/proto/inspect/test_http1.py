"""The HTTP/1 reader: whole input, octet by octet, with what follows; every hostile head; limits."""

from __future__ import annotations

import pytest

from tcpha.proto.inspect import NEED_MORE, NOT_MINE, Cause, Inspection, NotMine, Protocol, Refusal, Request
from tcpha.proto.inspect.http1 import inspect

HOST = b"Host: www.example.com"


def head(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *(fields or (HOST,)))) + b"\r\n"


def read_in_cuts(octets: bytes, cuts: list[int], limit_octets: int = 16384) -> Inspection:
    """What a front end concludes that asks after each cut, each time with everything so far."""
    for cut in (*sorted(cuts), len(octets)):
        inspection = inspect(octets[:cut], limit_octets)
        if inspection is not NEED_MORE:
            return inspection
    return NEED_MORE


def read_three_ways(octets: bytes, limit_octets: int = 16384) -> Inspection:
    """Whole, octet by octet and with trailing octets; the three must agree."""
    whole = inspect(octets, limit_octets)
    assert read_in_cuts(octets, list(range(len(octets))), limit_octets) == whole
    for trailing in (b"\0\r\n\n", head(b"GET /next HTTP/1.1", b"Host: other.example")):
        assert inspect(octets + trailing, limit_octets) == whole
    return whole


STATUS = {Cause.MALFORMED: 400, Cause.TARGET_TOO_LONG: 414, Cause.HEAD_TOO_LONG: 431, Cause.VERSION: 505}


def accepted(octets: bytes) -> Request:
    for end in range(len(octets)):
        assert inspect(octets[:end]) is NEED_MORE
    request = read_three_ways(octets)
    assert isinstance(request, Request), request
    assert request.head_octets == len(octets)
    return request


def refused(octets: bytes, limit_octets: int = 16384) -> int:
    refusal = read_three_ways(octets, limit_octets)
    assert isinstance(refusal, Refusal), refusal
    return STATUS[refusal.cause]


BROWSER = head(
    b"GET /search?q=tcp%20handoff&x=[1]|{2} HTTP/1.1",
    HOST,
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    b"Accept:text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: \t de,en-US;q=0.7 \t",
    b"X-Latin: caf\xe9",
    b"X-Empty:",
    b'Cookie: a=1; b="2"',
)


def test_browser_head_whole_is_read() -> None:
    request = accepted(BROWSER)
    assert (request.protocol, request.method) == ("http/1", b"GET")
    assert request.target == b"/search?q=tcp%20handoff&x=[1]|{2}"
    assert request.authority == b"www.example.com"
    assert request.headers == (
        (b"host", b"www.example.com"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        (b"accept", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
        (b"accept-language", b"de,en-US;q=0.7"),
        (b"x-latin", b"caf\xe9"),
        (b"x-empty", b""),
        (b"cookie", b'a=1; b="2"'),
    )


@pytest.mark.parametrize(
    ("octets", "method", "target", "host"),
    [
        (head(b"GET / HTTP/1.0", b"A: b"), b"GET", b"/", b""),
        (b"GET / HTTP/1.0\r\n\r\n", b"GET", b"/", b""),
        (head(b"GET / HTTP/1.0"), b"GET", b"/", b"www.example.com"),
        (head(b"GET / HTTP/1.9"), b"GET", b"/", b"www.example.com"),
        (head(b"get /a HTTP/1.1"), b"get", b"/a", b"www.example.com"),
        (
            head(b"M-SEARCH!#$%&'*+.^_`|~09 //a//b?c?d HTTP/1.1"),
            b"M-SEARCH!#$%&'*+.^_`|~09",
            b"//a//b?c?d",
            b"www.example.com",
        ),
        (head(b"OPTIONS * HTTP/1.1"), b"OPTIONS", b"*", b"www.example.com"),
        (head(b"OPTIONS /a HTTP/1.1"), b"OPTIONS", b"/a", b"www.example.com"),
        (
            head(b"GET http://a.example:81/b?c HTTP/1.1", b"Host: A.example.:081"),
            b"GET",
            b"http://a.example:81/b?c",
            b"a.example:81",
        ),
        (head(b"GET HTTPS://a.example HTTP/1.1", b"Host: a.example:443"), b"GET", b"HTTPS://a.example", b"a.example"),
        (head(b"GET http://a.example?b/c HTTP/1.0", b"A: b"), b"GET", b"http://a.example?b/c", b"a.example"),
        (head(b"CONNECT a.example:443 HTTP/1.1"), b"CONNECT", b"a.example:443", b"a.example:443"),
        (head(b"CONNECT [2001:db8::1]:443 HTTP/1.1"), b"CONNECT", b"[2001:db8::1]:443", b"[2001:db8::1]:443"),
        (head(b"GET / HTTP/1.1", b"hOsT:192.0.2.1:8080"), b"GET", b"/", b"192.0.2.1:8080"),
        (head(b"GET / HTTP/1.1", b"A: b", b"Host: [::ffff:192.0.2.1]"), b"GET", b"/", b"[::ffff:192.0.2.1]"),
        (head(b"GET / HTTP/1.1", b"Host:\t a_b%2d~c!$&'()*+,;=: \t", b"A: b"), b"GET", b"/", b"a_b%2d~c!$&'()*+,;=:"),
        (head(b"GET / HTTP/1.1", b"X-Host: x", HOST, b"Hosts: y"), b"GET", b"/", b"www.example.com"),
        (head(b"GET / HTTP/1.1", HOST, b"A: ", b"B:"), b"GET", b"/", b"www.example.com"),
        (b"\r\n" + head(), b"GET", b"/", b"www.example.com"),
    ],
)
def test_legal_head_read_three_ways_is_that_request(octets: bytes, method: bytes, target: bytes, host: bytes) -> None:
    request = accepted(octets)
    assert (request.method, request.target, request.authority) == (method, target, host)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length: 0",
        b"content-length:\t9223372036854775807 ",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: gzip ,\tCHUNKED ",
        b"X-Transfer-Encoding: identity",
        b"X: content-length: 1",
    ],
)
def test_legal_framing_is_accepted(field: bytes) -> None:
    octets = head(b"POST / HTTP/1.1", HOST, field)
    assert accepted(octets).method == b"POST"


HOSTILE_STARTS = {
    "TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NOT_MINE),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3.1": (head(b"GET / HTTP/3.1"), 505),
    "HTTP/0.9 with version": (head(b"GET / HTTP/0.9"), 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/0.9 with space": (b"GET / \r\n", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", NOT_MINE),
    "RTSP": (head(b"DESCRIBE / RTSP/1.0"), 400),
    "lower-case http": (head(b"GET / http/1.1"), 400),
    "two-digit version": (head(b"GET / HTTP/1.10"), 400),
    "version without minor": (head(b"GET / HTTP/1"), 400),
    "space after version": (head(b"GET / HTTP/1.1 "), 400),
    "two empty lines": (b"\r\n\r\n" + head(), NOT_MINE),
    "LF first": (b"\n" + head(), NOT_MINE),
    "CR first": (b"\r" + head(), NOT_MINE),
    "space first": (b" " + head(), NOT_MINE),
    "NUL first": (b"\0" + head(), NOT_MINE),
    "colon in method": (head(b"GE:T / HTTP/1.1"), NOT_MINE),
    "octet above 0x7e in method": (head(b"GE\xc3 / HTTP/1.1"), NOT_MINE),
    "control in method": (head(b"G\x01T / HTTP/1.1"), NOT_MINE),
    "tab for space": (head(b"GET\t/ HTTP/1.1"), NOT_MINE),
    "two spaces before target": (head(b"GET  / HTTP/1.1"), NOT_MINE),
    "two spaces after target": (head(b"GET /  HTTP/1.1"), 400),
    "space in target": (head(b"GET /a b HTTP/1.1"), 400),
    "tab in target": (head(b"GET /a\tb HTTP/1.1"), 400),
    "NUL in target": (head(b"GET /a\0b HTTP/1.1"), 400),
    "DEL in target": (head(b"GET /a\x7f HTTP/1.1"), 400),
    "octet above 0x7e in target": (head(b"GET /caf\xe9 HTTP/1.1"), 400),
    "fragment": (head(b"GET /index#.png HTTP/1.1"), 400),
    "LF ends request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "CR ends request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
}


@pytest.mark.parametrize(("octets", "status"), HOSTILE_STARTS.values(), ids=HOSTILE_STARTS)
def test_hostile_start_is_refused_before_the_head_is_complete(octets: bytes, status: int | NotMine) -> None:
    verdict = read_three_ways(octets)
    assert (STATUS[verdict.cause] if isinstance(verdict, Refusal) else verdict) == status
    first_line_octets = octets.find(b"\n", 2) + 1 or len(octets)
    assert read_in_cuts(octets[:first_line_octets], []) == verdict


@pytest.mark.parametrize(
    ("octets", "last_good"),
    [
        (b"GET /a\x01b HTTP/1.1\r\n", 6),
        (b"GET / HTTP/1.1\n", 14),
        (b"GET / HTTX", 9),
        (b"GET / HTTP/1.1 ", 14),
        (b"GET /\r\n", 5),
        (b"GET / HTTP/1.1\r\nA: b\n", 20),
    ],
)
def test_hopeless_beginning_is_refused_at_the_octet_that_shows_it(octets: bytes, last_good: int) -> None:
    assert inspect(octets[:last_good]) is NEED_MORE
    assert isinstance(inspect(octets[: last_good + 1]), Refusal)


@pytest.mark.parametrize(
    ("octets", "last_good"),
    [
        (b"\x16\x03\x01", 0),
        (b"\r\n\r\n", 2),
        (b"G\0", 1),
        (b"SSH-2.0-x\r\n", 9),
        (b"PING\r\n", 4),
        (b"*1\r\n$4\r\nPING\r\n", 2),
        (b"get key\r\n", 7),
        (b"CONNECT {}\r\n", 10),
    ],
)
def test_octets_of_another_protocol_are_not_mine_at_the_octet_that_shows_it(octets: bytes, last_good: int) -> None:
    assert inspect(octets[:last_good]) is NEED_MORE
    for end in range(last_good + 1, len(octets) + 1):
        assert inspect(octets[:end]) is NOT_MINE


HOSTILE_TARGETS = {
    "empty authority": b"GET http:///a HTTP/1.1",
    "only a port": b"GET http://:80/a HTTP/1.1",
    "user information": b"GET http://user@a.example/ HTTP/1.1",
    "port too large": b"GET http://a.example:65536/ HTTP/1.1",
    "backslash in authority": rb"GET http://a.example\b/ HTTP/1.1",
    "no authority": b"GET urn:a HTTP/1.1",
    "scheme with digit first": b"GET 1http://a.example/ HTTP/1.1",
    "authority-form with GET": b"GET a.example:80 HTTP/1.1",
    "asterisk with GET": b"GET * HTTP/1.1",
    "asterisk and more": b"OPTIONS *a HTTP/1.1",
    "relative path": b"GET index.html HTTP/1.1",
    "CONNECT origin-form": b"CONNECT / HTTP/1.1",
    "CONNECT absolute-form": b"CONNECT http://a.example:80/ HTTP/1.1",
    "CONNECT without port": b"CONNECT a.example HTTP/1.1",
    "CONNECT digits without port": b"CONNECT 443 HTTP/1.1",
    "CONNECT empty port": b"CONNECT a.example: HTTP/1.1",
    "CONNECT port 0": b"CONNECT a.example:0 HTTP/1.1",
}


@pytest.mark.parametrize("line", HOSTILE_TARGETS.values(), ids=HOSTILE_TARGETS)
def test_target_form_that_does_not_fit_is_refused(line: bytes) -> None:
    assert refused(head(line)) == 400


HOSTILE_FIELDS = {
    "no Host": (b"A: b",),
    "two Hosts": (HOST, b"A: b", HOST),
    "two Hosts in a row": (HOST, b"host:b"),
    "empty Host": (b"Host:",),
    "blank Host": (b"Host: \t",),
    "Host with path": (b"Host: a/b",),
    "Host with user": (b"Host: u@a",),
    "Host with space": (b"Host: a b",),
    "Host with URI": (b"Host: http://a",),
    "Host with octet above 0x7e": (b"Host: \xe4.example",),
    "Host with half an escape": (b"Host: a%2",),
    "Host with letters for port": (b"Host: a:http",),
    "Host with two ports": (b"Host: a:1:2",),
    "Host with port too large": (b"Host: a:65536",),
    "Host with port 0": (b"Host: a:0",),
    "Host without closing bracket": (b"Host: [::1",),
    "Host no IPv6 address": (b"Host: [1::2::3]",),
    "Host IPv6 address with more": (b"Host: [::1]a",),
    "Host IPvFuture": (b"Host: [v1.a]",),
    "obs-fold": (HOST, b"A: b", b" c"),
    "obs-fold with tab": (HOST, b"A: b", b"\tc"),
    "obs-fold of Host": (b"Host:", b" a.example"),
    "white space before first field": (b" A: b", HOST),
    "space before colon": (HOST, b"A : b"),
    "tab before colon": (HOST, b"A\t: b"),
    "space before colon of Host": (b"Host : a",),
    "empty name": (HOST, b": a"),
    "no colon": (HOST, b"A"),
    "parenthesis in name": (HOST, b"A(: b"),
    "octet above 0x7e in name": (HOST, b"\xc4: b"),
    "control in name": (HOST, b"A\x01: b"),
    "NUL in name": (HOST, b"A\0: b"),
    "NUL in value": (HOST, b"A: b\0c"),
    "control in value": (HOST, b"A: b\x0bc"),
    "DEL in value": (HOST, b"A: b\x7f"),
    "bare CR in value": (HOST, b"A: b\rc"),
    "bare CR as end": (HOST, b"A: b\rB: c"),
    "bare LF as end": (HOST, b"A: b\nB: c"),
    "bare LF hides Host": (b"A: b\nHost: a",),
    "CR CR LF": (HOST, b"A: b\r"),
    "Content-Length and Transfer-Encoding": (HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    "Transfer-Encoding and Content-Length": (HOST, b"transfer-encoding: chunked", b"content-length: 1"),
    "two different lengths": (HOST, b"Content-Length: 1", b"Content-Length: 2"),
    "two equal lengths": (HOST, b"Content-Length: 1", b"Content-Length: 1"),
    "list of lengths": (HOST, b"Content-Length: 1, 1"),
    "empty length": (HOST, b"Content-Length:"),
    "positive length": (HOST, b"Content-Length: +1"),
    "negative length": (HOST, b"Content-Length: -1"),
    "hexadecimal length": (HOST, b"Content-Length: 0x1"),
    "length with underscore": (HOST, b"Content-Length: 1_0"),
    "length with space": (HOST, b"Content-Length: 1 0"),
    "length of 2**63": (HOST, b"Content-Length: 9223372036854775808"),
    "length of twenty digits": (HOST, b"Content-Length: 00000000000000000001"),
    "coding not chunked": (HOST, b"Transfer-Encoding: gzip"),
    "chunked not last": (HOST, b"Transfer-Encoding: chunked, gzip"),
    "chunked twice": (HOST, b"Transfer-Encoding: chunked, chunked"),
    "coding identity": (HOST, b"Transfer-Encoding: identity"),
    "coding not registered": (HOST, b"Transfer-Encoding: identity, chunked"),
    "coding almost chunked": (HOST, b"Transfer-Encoding: xchunked"),
    "coding in quotes": (HOST, b'Transfer-Encoding: "chunked"'),
    "chunked with parameter": (HOST, b"Transfer-Encoding: chunked;a=b"),
    "empty coding": (HOST, b"Transfer-Encoding:"),
    "empty element before chunked": (HOST, b"Transfer-Encoding: , chunked"),
    "empty element after chunked": (HOST, b"Transfer-Encoding: chunked,"),
    "two lines of codings": (HOST, b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "chunked in two lines": (HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "another coding behind chunked": (HOST, b"Transfer-Encoding: chunked", b"A: b", b"Transfer-Encoding: identity"),
}


@pytest.mark.parametrize("fields", HOSTILE_FIELDS.values(), ids=HOSTILE_FIELDS)
def test_hostile_field_is_refused(fields: tuple[bytes, ...]) -> None:
    assert refused(head(b"POST / HTTP/1.1", *fields)) == 400


def test_later_minor_version_without_host_is_refused() -> None:
    assert refused(head(b"GET / HTTP/1.2", b"A: b")) == 400


@pytest.mark.parametrize(
    "fields", [(HOST, HOST), (b"Host: a/b",), (b"Transfer-Encoding: chunked",), (b"Content-Length: a",)]
)
def test_hostile_field_in_http_1_0_is_refused(fields: tuple[bytes, ...]) -> None:
    assert refused(head(b"POST / HTTP/1.0", *fields)) == 400


@pytest.mark.parametrize("host", [(b"A: b",), (b"Host: a/b",), (HOST, HOST)])
def test_absolute_form_with_faulty_host_field_is_refused(host: tuple[bytes, ...]) -> None:
    assert refused(head(b"GET http://a.example/ HTTP/1.1", *host)) == 400


SAME = [("a.example", "A.EXAMPLE"), ("a.example:80", "a.example."), ("a.example:", "a.example"), ("[::1]", "[::1]:80")]
OTHER = [
    *(("a.example", "b.example"), ("a.example:8080", "a.example"), ("a.example", "a.example:443"), ("a", "a..")),
    *(("[::1]", "[::2]"), ("a.example:80", "a.example:8")),
]


@pytest.mark.parametrize(("one", "other"), [*SAME, *OTHER])
def test_absolute_form_and_host_are_read_only_if_they_name_the_same(one: str, other: str) -> None:
    for target, host in ((one, other), (other, one)):
        octets = head(f"GET http://{target}/ HTTP/1.1".encode(), f"Host: {host}".encode())
        if (one, other) in SAME:
            assert isinstance(read_three_ways(octets), Request)
        else:
            assert refused(octets) == 400


@pytest.mark.parametrize("octets", [BROWSER, head(), b"\r\n" + head(), b"GET / HTTP/1.0\r\n\r\n"])
def test_head_at_limit_is_read_and_one_octet_more_is_431(octets: bytes) -> None:
    assert isinstance(read_three_ways(octets, len(octets)), Request)
    assert refused(octets, len(octets) - 1) == 431


def test_unfinished_head_at_limit_is_431() -> None:
    octets = head(b"GET / HTTP/1.1", HOST, b"A: " + b"b" * 4000)[:1000]
    assert inspect(octets, 1001) is NEED_MORE
    assert (
        inspect(octets, 1000)
        == inspect(octets, 999)
        == Refusal(Protocol.HTTP1, Cause.HEAD_TOO_LONG, "request head exceeds the limit")
    )


@pytest.mark.parametrize("empty_line", [b"", b"\r\n"])
def test_request_line_at_limit_is_431_and_one_octet_more_is_414(empty_line: bytes) -> None:
    line = empty_line + b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n"
    octets = line + HOST + b"\r\n\r\n"
    assert refused(octets, len(line)) == 431
    assert refused(octets, len(line) - 1) == 414
    assert inspect(line[:200], 201) is NEED_MORE
    assert refused(line[:200], 200) == 414


def test_fault_beyond_the_limit_is_not_looked_at() -> None:
    assert refused(head(b"GET / HTTP/1.1", HOST, b"A: b\nC: d"), 40) == 431
    assert refused(b"GET /" + b"a" * 100 + b"\0", 40) == 414


@pytest.mark.parametrize(
    "octets", [b"", b"\r", b"\r\n", b"G", b"GET", b"GET ", b"GET /", b"GET / ", b"GET / HTTP/1.1\r"]
)
def test_beginning_of_request_line_needs_more(octets: bytes) -> None:
    assert inspect(octets) is NEED_MORE


def test_request_with_unread_headers_equals_and_hashes_like_one_with_headers() -> None:
    octets = head(b"GET / HTTP/1.1", b"Host: a", b"B: c")
    made = Request(Protocol.HTTP1, b"GET", b"/", b"a", ((b"host", b"a"), (b"b", b"c")), len(octets))
    assert inspect(octets) == made
    assert hash(inspect(octets)) == hash(made)
    assert repr(inspect(octets)) == repr(made)


@pytest.mark.parametrize(
    ("line", "path", "query", "host"),
    [
        (b"GET /a/b?x=1?y HTTP/1.1", b"/a/b", b"x=1?y", b"www.example.com"),
        (b"GET /? HTTP/1.1", b"/", b"", b"www.example.com"),
        (b"GET / HTTP/1.1", b"/", None, b"www.example.com"),
        (b"GET http://A.Example:8080/a?b HTTP/1.1", b"/a", b"b", b"a.example"),
        (b"GET http://a.example?b=/c HTTP/1.1", b"/", b"b=/c", b"a.example"),
        (b"GET http://[2001:DB8::1]:80 HTTP/1.1", b"/", None, b"[2001:db8::1]"),
        (b"OPTIONS * HTTP/1.1", b"*", None, b"www.example.com"),
        (b"CONNECT B.example:443 HTTP/1.1", None, None, b"b.example"),
    ],
)
def test_parts_of_a_target(line: bytes, path: bytes | None, query: bytes | None, host: bytes) -> None:
    named = b"WWW.example.COM:80" if b"://" not in line else line.partition(b"://")[2].partition(b" ")[0]
    request = accepted(head(line, b"Host: " + named.partition(b"/")[0].partition(b"?")[0]))
    assert (request.path, request.query, request.host) == (path, query, host)
    assert (request.sni, request.alpn) == (None, None)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"A.Example.", b"a.example"),
        (b"a.example.:80", b"a.example"),
        (b"192.0.2.1.", b"192.0.2.1"),
        (b"a.example..", b"a.example."),
        (b".a.example", b".a.example"),
        (b".:80", None),
    ],
)
def test_host_with_a_dot_at_its_end_is_the_host_without(authority: bytes, host: bytes | None) -> None:
    request = accepted(head(b"GET / HTTP/1.1", b"Host: " + authority))
    assert (request.host, request.authority, request.header(b"host")) == (host, authority, authority)
    assert accepted(head(b"GET http://" + authority + b"/ HTTP/1.1", b"Host: " + authority)).host == host


def test_request_of_http_1_0_without_host_has_none() -> None:
    assert accepted(b"GET / HTTP/1.0\r\n\r\n").host is None


def test_header_several_lines_are_joined_and_absent_is_none() -> None:
    request = accepted(head(b"GET / HTTP/1.1", HOST, b"X-A: 1", b"x-a:2 ", b"X-B:"))
    assert request.header(b"x-a") == b"1, 2"
    assert request.header(b"x-b") == b""
    assert request.header(b"x-c") is None


def test_cookie_the_first_of_its_name_counts() -> None:
    request = accepted(head(b"GET / HTTP/1.1", HOST, b"Cookie: a=1; bb=2;c", b"Cookie: a=3; d = x=y "))
    assert [request.cookie(name) for name in (b"a", b"bb", b"d")] == [b"1", b"2", b"x=y"]
    assert [request.cookie(name) for name in (b"b", b"c", b"A")] == [None, None, None]


def test_request_headers_are_split_once() -> None:
    request = inspect(head())
    assert isinstance(request, Request)
    assert request.headers is request.headers
