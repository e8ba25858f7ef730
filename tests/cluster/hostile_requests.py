"""Requests that two readers may read in two ways: a table of known tricks, and as many more as wanted from a seed.

Each is what a client could send on one connection: a head, often some content, and `AFTER`, a request that shows where
a reader believes that the content ends. Must not know who reads them. The tricks are those that RFC 9112, 11.2 (request
smuggling) and 3.3 (where is the target's host?) warn of, and the places where RFC 9112, 2.2 to 6.3 lets a recipient
choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

AFTER = b"GET /after HTTP/1.1\r\nHost: after.example\r\n\r\n"
"""Nobody can read this in two ways."""
INNER = b"GET /inner HTTP/1.1\r\nHost: inner.example\r\n\r\n"
"""Content that is a request for who believes that there is no content."""

LINE = b"GET /a HTTP/1.1"
POST = b"POST /a HTTP/1.1"
HOST = b"Host: a.example"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nabcde\r\n0\r\n\r\n"
END_OF_CHUNKS = b"0\r\n\r\n"


def head(line: bytes, *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *fields)) + b"\r\n"


def length(octets: int) -> bytes:
    return b"Content-Length: %d" % octets


_TARGETS = {
    "origin": b"/a/b.html?c=d&e",
    "root": b"/",
    "question mark alone": b"/?",
    "two question marks": b"/a?b?c",
    "absolute": b"http://b.example/a",
    "absolute without path": b"http://b.example",
    "absolute without path but query": b"http://b.example?a/b",
    "absolute with port": b"http://b.example:8080/a",
    "absolute of the host": b"http://a.example/a",
    "absolute of the host with its port and a dot": b"http://A.EXAMPLE.:80/a",
    "absolute with empty port": b"http://b.example:/a",
    "absolute with port 0": b"http://b.example:0/a",
    "absolute with port too large": b"http://b.example:65536/a",
    "absolute with user": b"http://a.example@b.example/a",
    "absolute with user and password": b"http://a.example:80@b.example/a",
    "absolute upper case": b"HTTP://B.EXAMPLE/a",
    "absolute of another scheme": b"ws://b.example/a",
    "absolute of a scheme with digits": b"h2c+x://b.example/a",
    "absolute with dot at the end": b"http://b.example./a",
    "absolute with IPv6 literal": b"http://[2001:db8::B]:80/a",
    "absolute with underscore": b"http://b_b.example/a",
    "absolute with escape in host": b"http://b%2eexample/a",
    "absolute with backslash": rb"http://b.example\a.example/a",
    "absolute with empty host": b"http:///a",
    "absolute in the query": b"/?http://b.example/",
    "absolute behind a slash": b"/http://b.example/a",
    "scheme without slashes": b"http:/b.example/a",
    "authority": b"b.example:80",
    "asterisk": b"*",
    "asterisk as path": b"/*",
    "relative": b"a/b",
    "two slashes first": b"//b.example/a",
    "three slashes first": b"///a",
    "slashes inside": b"/a//b///c",
    "dot segments": b"/a/../b/./c",
    "dot segments above the root": b"/../../b",
    "dots that are no segment": b"/a/..b/.c./d..",
    "dot segment at the end": b"/a/..",
    "escaped dot segments": b"/a/%2e%2e/b",
    "escaped slash": b"/a%2fb",
    "escaped letter": b"/%61",
    "escape twice": b"/%2561",
    "escaped NUL": b"/a%00b",
    "escaped line end": b"/a%0d%0ab",
    "escaped question mark": b"/a%3fb",
    "escaped octets above 0x7e": b"/caf%c3%a9",
    "half an escape": b"/a%2",
    "escape of no digits": b"/a%zz",
    "backslash": rb"/a\..\b",
    "browser's characters": b'/<a>"`{b}|^[c]',
    "fragment": b"/a#b",
    "fragment behind query": b"/a?b#c",
    "plus and semicolon": b"/a+b;c=d",
    "octets above 0x7e": b"/caf\xc3\xa9",
    "NUL": b"/a\0b",
    "tab": b"/a\tb",
    "CR": b"/a\rb",
    "LF": b"/a\nb",
    "space": b"/a b",
    "version inside": b"/a HTTP/1.0",
    "long": b"/" + b"a" * 3000,
    "longer than one buffer": b"/" + b"a" * 9000,
    "longer than any": b"/" + b"a" * 20000,
}
_LINES = {
    "lower-case method": b"get /a HTTP/1.1",
    "unknown method": b"BREW /a HTTP/1.1",
    "method with hyphen": b"M-SEARCH /a HTTP/1.1",
    "method with underscore": b"GET_IT /a HTTP/1.1",
    "method with other characters": b"A!#$%&'*+.^`|~9 /a HTTP/1.1",
    "HEAD": b"HEAD /a HTTP/1.1",
    "TRACE": b"TRACE /a HTTP/1.1",
    "CONNECT": b"CONNECT b.example:80 HTTP/1.1",
    "CONNECT with path": b"CONNECT /a HTTP/1.1",
    "OPTIONS asterisk": b"OPTIONS * HTTP/1.1",
    "OPTIONS absolute": b"OPTIONS http://b.example HTTP/1.1",
    "two spaces": b"GET  /a HTTP/1.1",
    "two spaces before version": b"GET /a  HTTP/1.1",
    "tabs": b"GET\t/a\tHTTP/1.1",
    "space at the end": b"GET /a HTTP/1.1 ",
    "space first": b" GET /a HTTP/1.1",
    "vertical tab": b"GET\x0b/a HTTP/1.1",
    "no version": b"GET /a",
    "space for version": b"GET /a ",
    "HTTP/0.9": b"GET /a HTTP/0.9",
    "HTTP/1.0": b"GET /a HTTP/1.0",
    "HTTP/1.2": b"GET /a HTTP/1.2",
    "HTTP/1.9": b"GET /a HTTP/1.9",
    "HTTP/1.10": b"GET /a HTTP/1.10",
    "HTTP/01.1": b"GET /a HTTP/01.1",
    "HTTP/1": b"GET /a HTTP/1",
    "HTTP/1.": b"GET /a HTTP/1.",
    "HTTP/2.0": b"GET /a HTTP/2.0",
    "lower-case http": b"GET /a http/1.1",
    "HTTPS": b"GET /a HTTPS/1.1",
    "comma in version": b"GET /a HTTP/1,1",
    "NUL in method": b"G\0ET /a HTTP/1.1",
    "CR before version": b"GET /a\r HTTP/1.1",
}
_HOSTS: dict[str, tuple[bytes, ...]] = {
    "none": (),
    "empty": (b"Host:",),
    "blank": (b"Host:  \t",),
    "twice": (HOST, b"Host: b.example"),
    "twice the same": (HOST, HOST),
    "twice in other cases": (HOST, b"hOST: b.example"),
    "upper case": (b"HOST: A.EXAMPLE",),
    "port": (b"Host: a.example:8080",),
    "empty port": (b"Host: a.example:",),
    "port 0": (b"Host: a.example:0",),
    "port with zeros": (b"Host: a.example:00080",),
    "port too large": (b"Host: a.example:65536",),
    "port of letters": (b"Host: a.example:http",),
    "two ports": (b"Host: a.example:80:b.example",),
    "user": (b"Host: b.example@a.example",),
    "path": (b"Host: a.example/b",),
    "scheme": (b"Host: http://a.example",),
    "list": (b"Host: a.example, b.example",),
    "space inside": (b"Host: a.example b.example",),
    "tab inside": (b"Host: a.example\tb.example",),
    "tabs around": (b"Host:\ta.example\t ",),
    "no white space": (b"Host:a.example",),
    "dot at the end": (b"Host: a.example.",),
    "dot before the port": (b"Host: a.example.:80",),
    "two dots at the end": (b"Host: a.example..",),
    "two dots inside": (b"Host: a..example",),
    "dot first": (b"Host: .a.example",),
    "dot alone": (b"Host: .",),
    "dot alone with port": (b"Host: .:80",),
    "IPv4": (b"Host: 192.0.2.1",),
    "IPv6": (b"Host: [2001:DB8::a]:80",),
    "IPv6 with IPv4": (b"Host: [::ffff:192.0.2.1]",),
    "IPv6 with dot at the end": (b"Host: [::1].",),
    "IPv6 with zone": (b"Host: [fe80::1%25eth0]",),
    "IPv6 not closed": (b"Host: [::1",),
    "IPv6 without brackets": (b"Host: 2001:db8::1",),
    "IPvFuture": (b"Host: [v1.a]",),
    "escape": (b"Host: a%2eexample",),
    "escape of a letter": (b"Host: %41.example",),
    "sub-delimiters": (b"Host: a!$&'()*+,;=~_-.example",),
    "octets above 0x7e": (b"Host: \xe4.example",),
    "NUL": (b"Host: a.example\0b.example",),
    "bare CR": (b"Host: a.example\rb.example",),
    "bare LF": (b"Host: a.example\nHost: b.example",),
    "backslash": (rb"Host: a.example\b.example",),
    "underscore": (b"Host: a_b.example",),
    "space before colon": (b"Host : a.example",),
    "tab before colon": (b"Host\t: a.example",),
    "space before name": (b" Host: a.example",),
    "folded": (b"Host:", b" a.example"),
    "folded behind a value": (HOST, b" b.example"),
    "hidden behind a field": (b"A: b", b" Host: b.example", HOST),
    "another name": (HOST, b"X-Host: b.example", b"X-Forwarded-Host: b.example"),
    "underscore for hyphen": (HOST, b"HTTP_HOST: b.example"),
    "NUL in another": (HOST, b"A: b\0c"),
    "odd names": (HOST, b"A!#$%&'*+.^`|~: b", b"a_b: c"),
    "colon first": (HOST, b": b.example"),
    "no colon": (HOST, b"Host"),
    "last without space": (b"A:b", b"Host:a.example"),
    "quoted": (b'Host: "a.example"',),
    "long": (HOST, b"A: " + b"b" * 5000),
    "longer than a buffer": (HOST, b"A: " + b"b" * 9000),
    "many fields": (*(b"A%d: b" % number for number in range(200)), HOST),
}
_FRAMINGS: dict[str, tuple[bytes, ...]] = {
    "length": (length(len(INNER)),),
    "length 0": (length(0),),
    "length with zeros": (b"Content-Length: 00%d" % len(INNER),),
    "length twice": (length(len(INNER)), length(len(INNER))),
    "two lengths": (length(len(INNER)), length(0)),
    "two lengths the other way": (length(0), length(len(INNER))),
    "list of equal lengths": (b"Content-Length: %d, %d" % (len(INNER), len(INNER)),),
    "list of lengths": (b"Content-Length: 0, %d" % len(INNER),),
    "positive": (b"Content-Length: +%d" % len(INNER),),
    "negative": (b"Content-Length: -1",),
    "hexadecimal": (b"Content-Length: 0x2c",),
    "octal": (b"Content-Length: 0o54",),
    "underscore": (b"Content-Length: 4_4",),
    "exponent": (b"Content-Length: 1e1",),
    "decimal point": (b"Content-Length: 44.0",),
    "empty length": (b"Content-Length:",),
    "quoted length": (b'Content-Length: "44"',),
    "length with parameter": (b"Content-Length: 44;a",),
    "length of 2**63": (b"Content-Length: 9223372036854775808",),
    "length of 2**64 and 44": (b"Content-Length: 18446744073709551660",),
    "length of 2**32 and 44": (b"Content-Length: 4294967340",),
    "space before colon of length": (b"Content-Length : %d" % len(INNER),),
    "underscore for hyphen": (b"Content_Length: %d" % len(INNER),),
    "space inside length": (b"Content-Length: 4 4",),
    "NUL behind length": (b"Content-Length: 44\0",),
    "vertical tab before length": (b"Content-Length: \x0b44",),
    "folded length": (b"Content-Length:", b" 44"),
    "lower case": (b"content-length:44",),
    "chunked": (CHUNKED,),
    "chunked upper case": (b"TRANSFER-ENCODING: CHUNKED",),
    "chunked and length": (CHUNKED, length(len(INNER))),
    "length and chunked": (length(len(INNER)), CHUNKED),
    "chunked twice": (CHUNKED, CHUNKED),
    "list of chunked": (b"Transfer-Encoding: chunked, chunked",),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked",),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip",),
    "gzip": (b"Transfer-Encoding: gzip",),
    "identity": (b"Transfer-Encoding: identity",),
    "identity and length": (b"Transfer-Encoding: identity", length(len(INNER))),
    "identity, chunked": (b"Transfer-Encoding: identity, chunked",),
    "xchunked": (b"Transfer-Encoding: xchunked",),
    "chunked with parameter": (b"Transfer-Encoding: chunked;a=b",),
    "chunked with comma": (b"Transfer-Encoding: chunked,",),
    "comma first": (b"Transfer-Encoding: ,chunked",),
    "chunked quoted": (b'Transfer-Encoding: "chunked"',),
    "empty coding": (b"Transfer-Encoding:",),
    "empty coding and length": (b"Transfer-Encoding:", length(len(INNER))),
    "tab before chunked": (b"Transfer-Encoding:\tchunked\t",),
    "vertical tab before chunked": (b"Transfer-Encoding:\x0bchunked",),
    "space before colon of coding": (b"Transfer-Encoding : chunked",),
    "space before name of coding": (b" Transfer-Encoding: chunked",),
    "folded coding": (b"Transfer-Encoding:", b" chunked"),
    "underscore coding": (b"Transfer_Encoding: chunked",),
    "coding behind bare LF": (b"A: b\nTransfer-Encoding: chunked",),
    "coding behind bare CR": (b"A: b\rTransfer-Encoding: chunked",),
    "coding in another field": (b"TE: chunked",),
    "upgrade": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
    "hop by hop": (b"Connection: Content-Length, Host", length(len(INNER))),
    "expectation": (b"Expect: 100-continue", length(len(INNER))),
}  # fmt: skip
_CHUNKINGS = {
    "extension": b"5;a=b\r\nabcde\r\n0\r\n\r\n",
    "trailer": b"0\r\nHost: b.example\r\nContent-Length: 44\r\n\r\n",
    "upper case and zeros": b"00A\r\n0123456789\r\n000\r\n\r\n",
    "a request in a chunk": b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER),
    "bare LF": b"5\nabcde\n0\n\n",
    "sign": b"+5\r\nabcde\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "longer than said": b"5\r\nabcdef\r\n0\r\n\r\n",
    "not ended": b"5\r\nabcde\r\n",
    "size of 2**64": b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
}
_STARTS = {
    "one empty line": b"\r\n",
    "two empty lines": b"\r\n\r\n",
    "LF": b"\n",
    "CR": b"\r",
    "CR CR LF": b"\r\r\n",
    "NUL": b"\0",
    "byte order mark": b"\xef\xbb\xbf",
    "space and line end": b" \r\n",
}
_WHOLE = {
    "LF only": b"GET /a HTTP/1.1\nHost: a.example\n\n",
    "CR only": b"GET /a HTTP/1.1\rHost: a.example\r\r",
    "LF at the end": b"GET /a HTTP/1.1\r\nHost: a.example\r\n\n",
    "LF CR LF at the end": b"GET /a HTTP/1.1\r\nHost: a.example\n\r\n",
    "CR CR LF at the end": b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\r\n",
    "space in the empty line": b"GET /a HTTP/1.1\r\nHost: a.example\r\n \r\n\r\n",
    "GET with content": head(LINE, HOST, length(len(INNER))) + INNER,
    "GET with chunks": head(LINE, HOST, CHUNKED) + CHUNKS,
    "absolute-form without Host": head(b"GET http://b.example/a HTTP/1.1"),
    "absolute-form with two Hosts": head(b"GET http://b.example/a HTTP/1.1", HOST, HOST),
    "absolute-form with bad Host": head(b"GET http://b.example/a HTTP/1.1", b"Host: a/b"),
    "HTTP/1.0 without Host": head(b"GET /a HTTP/1.0", b"Connection: keep-alive"),
    "HTTP/1.0 kept": head(b"GET /a HTTP/1.0", HOST, b"Connection: keep-alive"),
    "HTTP/1.0 with chunks": head(b"POST /a HTTP/1.0", HOST, CHUNKED, b"Connection: keep-alive") + CHUNKS,
    "HTTP/1.0 with content": head(b"POST /a HTTP/1.0", HOST, length(len(INNER)), b"Connection: keep-alive") + INNER,
    "HTTP/1.2 with chunks": head(b"POST /a HTTP/1.2", HOST, CHUNKED) + CHUNKS,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def tricks() -> dict[str, bytes]:
    """By name: all that a client sends on one connection."""
    found = {f"target: {name}": head(b"GET %b HTTP/1.1" % target, HOST) for name, target in _TARGETS.items()}
    found |= {f"line: {name}": head(line, HOST) for name, line in _LINES.items()}
    found |= {f"Host: {name}": head(LINE, *fields) for name, fields in _HOSTS.items()}
    for name, fields in _FRAMINGS.items():
        found[f"framing: {name}, content a request"] = head(POST, HOST, *fields) + INNER
        found[f"framing: {name}, content chunks"] = head(POST, HOST, *fields) + CHUNKS
        found[f"framing: {name}, content the end of chunks"] = head(POST, *fields, HOST) + END_OF_CHUNKS
    found |= {f"chunks: {name}": head(POST, HOST, CHUNKED) + chunks for name, chunks in _CHUNKINGS.items()}
    found |= {f"start: {name}": start + head(LINE, HOST) for name, start in _STARTS.items()}
    found |= {f"whole: {name}": octets for name, octets in _WHOLE.items()}
    return {name: octets + AFTER for name, octets in found.items()}


def generated(seed: int, number: int) -> Iterator[bytes]:
    """So many connections, the same for the same seed: grammar first, then a few changes by chance."""
    chance = Random(seed)
    known = [octets for octets in tricks().values() if len(octets) < 1000]
    for _ in range(number):
        octets = chance.choice(known) if chance.random() < 0.3 else _composed(chance)
        for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 1, 2))):
            octets = _changed(chance, octets)
        yield octets


_METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"get", b"TRACE", b"CONNECT", b"M-SEARCH")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9", b"http/1.1", b"HTTP/2.0", b"HTTP/1.10")
_OTHER_FIELDS = (
    b"Accept: */*", b"Cookie: a=b; c", b"Connection: close", b"Connection: keep-alive", b"X-Host: b.example", b"A:",
    b"Connection: Transfer-Encoding", b"Expect: 100-continue", b"Range: bytes=0-0", b"If-Modified-Since: now",
    b"X: content-length: 3", b"Referer: http://b.example/", b"a_b: c", b"A: \xc3\xa9",
)  # fmt: skip
_PIECES = (
    *(bytes([octet]) for octet in b"\0\t\n\r\x0b\x0c \x1f\"#%,-./0:;?@A[\\]_a\x7f\x80\xa0\xff"),
    b"\r\n", b"\r\n ", b"\r\n\t", b"\n\n", b"\r\r\n", b"//", b"/../", b"/./", b"%2e", b"%2F", b"%00", b"http://b.example",
    b"b.example", b".:80", b":80", b":0", b"@", b"chunked", b", chunked", b", 3", b"0", b"00", b" HTTP/1.1",
    b"HTTP/1.0", b"\r\nHost: b.example", b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked", b"0\r\n\r\n",
    b"\r\n\r\n", INNER,
)  # fmt: skip


def _composed(chance: Random) -> bytes:
    """A request in which most things are right."""

    def mostly(usual: bytes, others: tuple[bytes, ...]) -> bytes:
        return usual if chance.random() < 0.9 else chance.choice(others)

    line = b" ".join(
        (
            mostly(b"GET", _METHODS),
            mostly(b"/a/b?c", tuple(target for target in _TARGETS.values() if len(target) < 100)),
            mostly(b"HTTP/1.1", _VERSIONS),
        )
    )
    hosts = chance.choice(tuple(_HOSTS.values())[:-3]) if chance.random() < 0.25 else (HOST,)
    content = chance.choice((b"", b"abc", INNER, CHUNKS, END_OF_CHUNKS, *_CHUNKINGS.values()))
    framing: tuple[bytes, ...] = (length(len(content)),) if content else ()
    if content.endswith(b"\n\r\n") and content is not INNER:
        framing = (CHUNKED,)
    if chance.random() < 0.3:
        framing = chance.choice(tuple(_FRAMINGS.values()))
    fields = [*hosts, *framing, *chance.choices(_OTHER_FIELDS, k=chance.randint(0, 2))]
    if chance.random() < 0.3:
        chance.shuffle(fields)
    return head(line, *fields) + content + AFTER


def _changed(chance: Random, octets: bytes) -> bytes:
    """One thing more is wrong, anywhere before `AFTER`."""
    end = max(1, octets.rfind(AFTER))
    at = chance.randrange(end)
    piece = chance.choice(_PIECES)
    match chance.randrange(7):
        case 0:  # in place of an octet
            return octets[:at] + piece + octets[at + 1 :]
        case 1:  # between two
            return octets[:at] + piece + octets[at:]
        case 2:  # beside something that separates
            places = [place for place, octet in enumerate(octets[:end]) if octet in b" :/\r\n,.;?"]
            at = chance.choice(places or [at]) + chance.randint(0, 1)
            return octets[:at] + piece + octets[at:]
        case 3:  # left out
            return octets[:at] + octets[at + chance.choice((1, 1, 2, 5)) :]
        case 4:  # in the other case
            return octets[:at] + octets[at : at + 12].swapcase() + octets[at + 12 :]
        case 5:  # a line twice, or somewhere else
            lines = octets[:end].splitlines(keepends=True)
            line = chance.choice(lines)
            if chance.random() < 0.5:
                lines.remove(line)
            lines.insert(chance.randint(0, len(lines)), line)
            return b"".join(lines) + octets[end:]
        case _:  # another end of a line
            return octets[:at] + octets[at:].replace(b"\r\n", chance.choice((b"\n", b"\r", b"\r\r\n", b"\r\n ")), 1)
