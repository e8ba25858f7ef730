"""The HTTP/1 reader on octets nobody thought of: one of three answers, the same in any cut, never against llhttp."""

from __future__ import annotations

import re

import httptools
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tcpha.proto.inspect import NEED_MORE, Cause, NeedMore, NotMine, Refusal, Request, http1
from tcpha.proto.inspect.http1 import inspect
from tests.llhttp import Reading

LEGAL = (
    b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n",
    b"\r\nPOST /a HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 12\r\n\r\nhello, world",
    b"PUT http://a.de/b HTTP/1.1\r\nHost: a.de\r\nTransfer-Encoding: gzip, chunked\r\nX:\t\xe9 y\t\r\n\r\n5\r\nhello",
    b"HEAD / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\nX-A: b\r\nX-A: c\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
)
PIECES = tuple(
    b"\r\n|\r|\n|\r\n\r\n| |\t|\0|\x16\x03|:|/|*|#|%|@|,|\xe9|\x7f"
    b"|GET |POST |CONNECT |PRI * |HTTP/1.1|HTTP/1.0|HTTP/2.0|HTTP/0.9|http://|a:80|a|-|0|?b=c|X-Y: z \r\n|X:\r\n"
    b"|Host: a\r\n|Host:|host : a\r\n|Content-Length: 5\r\n|Content-Length:"
    b"|Transfer-Encoding: chunked\r\n|Transfer-Encoding:|chunked|gzip, | folded\r\n|A: b\r\n".split(b"|")
)


@st.composite
def nearly_http(draw: st.DrawFn) -> bytes:
    """A legal head in which a few pieces were put in, taken out or replaced."""
    octets = draw(st.sampled_from(LEGAL))
    for _ in range(draw(st.integers(0, 3))):
        word_starts = [match.start() for match in re.finditer(rb"(?<![^ \r\n]).|\Z", octets)]
        start = draw(st.sampled_from(word_starts) | st.integers(0, len(octets)))
        end = min(start + draw(st.just(0) | st.integers(0, 8)), len(octets))
        octets = octets[:start] + draw(st.sampled_from((b"", *PIECES))) + octets[end:]
    return octets


anything = st.one_of(
    st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join), nearly_http()
)


@settings(deadline=None, max_examples=500)
@given(octets=anything, limit_octets=st.integers(1, 200))
def test_any_octets_are_request_or_refusal_or_need_more(octets: bytes, limit_octets: int) -> None:
    inspection = inspect(octets, limit_octets)
    assert isinstance(inspection, Request | Refusal | NeedMore | NotMine)
    event(type(inspection).__name__)
    if isinstance(inspection, Request):
        assert inspection.head_octets <= min(len(octets), limit_octets)
        assert octets[: inspection.head_octets].endswith(b"\r\n\r\n")
    elif isinstance(inspection, Refusal):
        assert inspection.cause in {Cause.MALFORMED, Cause.TARGET_TOO_LONG, Cause.HEAD_TOO_LONG, Cause.VERSION}
    elif inspection is NEED_MORE:
        assert len(octets) < limit_octets


@settings(deadline=None, max_examples=500)
@given(octets=anything, limit_octets=st.integers(1, 200))
@example(octets=b"\r\n\r\nGET / HTTP/1.1\r\n", limit_octets=200)
@example(octets=b"GET / HTTP/2.0 x\r\n", limit_octets=200)
@example(octets=b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", limit_octets=25)
def test_any_octets_in_any_cut_give_the_same(octets: bytes, limit_octets: int) -> None:
    """Once a beginning is decided, more octets never change it: then no cut and no order of calls can."""
    decided = None
    for end in range(len(octets) + 1):
        inspection = inspect(octets[:end], limit_octets)
        if decided is not None:
            assert inspection == decided
        elif inspection is not NEED_MORE:
            decided = inspection


def check_against_llhttp(request: Request, octets: bytes) -> None:
    reading = Reading(octets[: request.head_octets])
    assert reading.complete
    assert (reading.method, reading.target) == (request.method, request.target)
    assert tuple(reading.headers) == request.headers


@pytest.mark.parametrize("octets", LEGAL)
def test_legal_head_is_read_as_llhttp_reads_it(octets: bytes) -> None:
    request = inspect(octets)
    assert isinstance(request, Request)
    check_against_llhttp(request, octets)


@settings(deadline=None, max_examples=1000)
@given(octets=nearly_http())
def test_accepted_head_is_never_read_otherwise_by_llhttp(octets: bytes) -> None:
    """The oracle may refuse more (methods that it does not know), but it never sees another request."""
    request = inspect(octets)
    if not isinstance(request, Request):
        return
    try:
        check_against_llhttp(request, octets)
    except httptools.HttpParserError:
        event("refused by llhttp alone")
    else:
        event("read alike")


def mostly(usual: bytes, odd: bytes) -> st.SearchStrategy[bytes]:
    """One that is usual, or, not so often, one of those that `|` separates."""
    others = odd.split(b"|")
    return st.sampled_from((usual,) * 12 * len(others) + tuple(others))


METHOD = mostly(b"GET", b"POST|OPTIONS|CONNECT|CONNECTX|x!|PRI|")
TARGET = mostly(b"/a?b", b'/|/a.example:80|//a|*|http://a/b|http://a|a:80||/"^`{}|/\xe9|/#a')
VERSION = mostly(b"HTTP/1.1", b"HTTP/1.0|HTTP/1.7|HTTP/2.0|HTTP/0.9|http/1.1|HTTP/1.10|HTTP/1")
SPACE = mostly(b" ", b"  |\t|")
END = mostly(b"\r\n", b"\n|\r|\r\r\n| \r\n|\r\n ")
NAME = st.sampled_from(
    b"Host|HOST|hOsT|Content-Length|content-length|Transfer-Encoding|TRANSFER-ENCODING|transfer-encoding|Hosts|Hos|H"
    b"|Content-Lengths|Content-Type|Transfer-Encodin|X-Host|Host |X||Cookie|C|T|tE|User-Agent|Accept|Via".split(b"|")
)
VALUE = st.sampled_from(
    b"a|a.example|a:80|[::1]:8080||a:0|a b|a/|5|05|x|chunked|gzip, chunked|\xff|*/*|keep-alive".split(b"|")
)
AROUND = mostly(b"", b" |\t| \t ")
FIELD_LINE = st.tuples(NAME, st.just(b":"), AROUND, VALUE, AROUND, END).map(b"".join)
DAMAGE = st.sampled_from((b"", b"\r", b"\n", b" ", b":", b"\0", b"H", b"h", b"\xff"))


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head of which any part may be odd, and an octet damaged."""
    fields = draw(st.lists(FIELD_LINE, max_size=3))
    fields.insert(draw(st.integers(0, len(fields))), draw(mostly(b"Host: a\r\n", b"")))
    line = [draw(each) for each in (METHOD, SPACE, TARGET, SPACE, VERSION, END)]
    lead, end, behind = (
        draw(mostly(b"", b"\r\n|\n|\r\n\r\n")),
        draw(END),
        draw(mostly(b"", b"body|\r\n|GET / HTTP/1.1\r\n")),
    )
    octets = b"".join([lead, *line, *fields, end, behind])
    if draw(st.integers(0, 3)):
        return octets
    at = draw(st.integers(0, len(octets) - 1))
    return octets[:at] + draw(DAMAGE) + octets[at + 1 :]


@settings(deadline=None, max_examples=1500)
@given(octets=heads() | nearly_http(), limit_octets=st.just(16384) | st.just(16384) | st.integers(1, 200))
@example(octets=b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", limit_octets=16384)
@example(octets=b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", limit_octets=16384)
@example(octets=b"GET / HTTP/1.1\r\nX: y\r\nHost: a\r\nHost: b\r\n\r\n", limit_octets=16384)
@example(octets=b"GET / HTTP/1.1\r\nHost: a\r\ncontent-length: x\r\n\r\n", limit_octets=16384)
@example(octets=b"GET / HTTP/1.1\r\ntransfer-encoding: x\r\nHost: a\r\n\r\n", limit_octets=16384)
def test_ordinary_head_read_by_one_match_is_read_as_any_other(octets: bytes, limit_octets: int) -> None:
    by_one_match = inspect(octets, limit_octets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http1, "_ORDINARY_HEAD", re.compile(rb"(?!)"))
        step_by_step = inspect(octets, limit_octets)
    event("ordinary" if http1._ORDINARY_HEAD.match(octets, 0, limit_octets) else type(step_by_step).__name__)
    assert type(by_one_match) is type(step_by_step)
    assert by_one_match == step_by_step
    if isinstance(by_one_match, Request) and isinstance(step_by_step, Request):
        assert by_one_match._values() == step_by_step._values()
        assert by_one_match.octets == step_by_step.octets
        assert by_one_match.end_octets == step_by_step.end_octets
