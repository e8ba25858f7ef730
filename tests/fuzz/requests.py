"""Targets: what reads a connection's first octets. One verdict whatever the cut, and never another than a peer's.

Whole, octet by octet and with trailing octets must agree; what is read can be looked at from every side; a refusal has
an answer in the client's words. HTTP/1 that is accepted is read alike by llhttp, HTTP/2 by h2; what TLS is, a second
reader says of all octets.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.exceptions import ProtocolError

from tcpha.proto.inspect import NEED_MORE, Cause, Inspected, Inspection, Refusal, Request, first
from tcpha.proto.inspect import http1 as http1_reader
from tcpha.proto.inspect import http2 as http2_reader
from tcpha.proto.inspect import tls as tls_reader
from tests.llhttp import Reading
from tests.unit.proto.inspect import tls_reference

LIMIT_OCTETS = 300
CUTS = 24
"""In longer octets only some of the cuts are tried."""
TRAILERS = (b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", bytes(2 * LIMIT_OCTETS))
Inspect = Callable[[bytes, int], Inspection]


def http1(octets: bytes) -> None:
    limit, octets = _limited(octets, 1)
    found = _verdict(http1_reader.inspect, octets, limit)
    if isinstance(found, Request):
        assert found.head_octets <= limit
        assert octets[: found.head_octets].endswith(b"\r\n\r\n")
        _check_against_llhttp(found, octets)
        names = [name for name, _ in found.headers]
        assert names.count(b"host") <= 1
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, "two ways to find the end"


def http2(octets: bytes) -> None:
    """The preface is put in front, unless the octets begin like it: all else is seen at once."""
    limit, octets = _limited(octets, 64)
    octets = octets if octets.startswith(b"PR") else http2_reader.PREFACE + octets
    found = _verdict(http2_reader.inspect, octets, limit)
    if isinstance(found, Request):
        assert found.method
        assert found.head_octets <= len(octets)
        _check_against_h2(found, octets)


def tls(octets: bytes) -> None:
    limit, octets = _limited(octets, 1)
    found = _verdict(tls_reader.inspect, octets, limit)
    in_short: object = found.cause if isinstance(found, Refusal) else found
    if isinstance(found, Inspected):
        in_short = tls_reference.Found(found.sni, found.alpn, found.head_octets)
    assert in_short == tls_reference.read(octets, limit)


def first_octets(octets: bytes) -> None:
    """All inspectors together, as a front end asks them: served, refused, or waited for."""
    limit, octets = _limited(octets, 64)
    if not octets:
        return
    for raw in (False, True):

        def inspect(some: bytes, most: int, raw: bool = raw) -> Inspection:
            return first.inspect(some, most, raw=raw) if some else NEED_MORE

        _verdict(inspect, octets, limit, is_raw=raw)
    for cause in Cause:
        assert isinstance(first.answer(first.suspected(octets, limit), cause), bytes)


def _limited(octets: bytes, least: int) -> tuple[int, bytes]:
    """The first octet says how much of a limit there is, so that it is met."""
    if not octets or octets[0] < 128:
        return LIMIT_OCTETS, octets[1:]
    return max(octets[0] - 127, least), octets[1:]


def _verdict(inspect: Inspect, octets: bytes, limit: int, *, is_raw: bool = False) -> Inspection:
    """Ask for every beginning; return the verdict on the whole."""
    whole = inspect(octets, limit)
    _check(whole, octets)
    step = max(1, len(octets) // CUTS)
    decided: Inspection | None = None
    for end in [*range(0, len(octets), step), len(octets)]:
        found = inspect(octets[:end], limit)
        if decided is not None:
            assert _same(found, decided), "more octets changed the verdict"
        elif found is not NEED_MORE:
            decided = found
    if decided is not None:
        for trailer in TRAILERS:
            assert _same(inspect(octets + trailer, limit), decided), "what follows changed the verdict"
    elif not is_raw:
        assert len(octets) < 2 * limit + 5, "it waits for octets beyond the limit"
    return whole


def _same(one: Inspection, other: Inspection) -> bool:
    """Equal values; of octets that nobody knows there are simply more."""
    if isinstance(one, Inspected) and isinstance(other, Inspected) and one.protocol == "octets":
        return other.protocol == "octets"
    return one == other


def _check(found: Inspection, octets: bytes) -> None:
    if isinstance(found, Refusal):
        assert isinstance(first.answer(found.protocol, found.cause, None, found.code), bytes)
        assert all(" " <= character <= "~" for character in found.reason)
    elif isinstance(found, Inspected):
        assert 0 < found.head_octets <= len(octets)
        values = [found.method, found.target, found.path, found.query, found.host, found.sni, found.alpn]
        values += [found.header(b"host"), found.header(b"cookie"), found.cookie(b"a"), found.octets]
        assert all(value is None or isinstance(value, bytes) for value in values)
        for cause in (Cause.UNAVAILABLE, Cause.UNROUTED, Cause.TIMED_OUT):
            assert isinstance(first.answer(found.protocol, cause, found), bytes)


def _check_against_llhttp(request: Request, octets: bytes) -> None:
    """It may refuse more than we do, but what it reads must be the same."""
    try:
        reading = Reading(octets[: request.head_octets])
    except httptools.HttpParserError:
        return
    assert reading.complete
    assert (reading.method, reading.target) == (request.method, request.target)
    assert tuple(reading.headers) == request.headers


def _check_against_h2(request: Request, octets: bytes) -> None:
    """It may refuse more than we do, but what it reads must be the same."""
    peer = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    try:
        events = peer.receive_data(octets[: request.head_octets])
    except ProtocolError:
        return
    fields = dict(next(tuple(event.headers) for event in events if isinstance(event, RequestReceived)))
    assert (request.method, request.target) == (fields[b":method"], fields.get(b":path", request.target))
    assert request.authority == fields.get(b":authority", fields.get(b"host", b""))
