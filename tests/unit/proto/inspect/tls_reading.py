"""The TLS reader asked in every way in which octets can arrive; all of them must agree."""

from __future__ import annotations

from collections.abc import Iterable

from tcpha.proto.inspect import NEED_MORE, Inspection, Refusal
from tcpha.proto.inspect.tls import ClientHello, answer, inspect
from tests.unit.proto.inspect.hellos import chrome, record

LIMIT_OCTETS = 16384
TRAILING = (
    record(b"early", 23),
    record(b"\1", 20),
    chrome(b"other.example").record,
    b"\x16",
    b"GET / HTTP/1.1\r\n\r\n",
)


def read_in_cuts(octets: bytes, cuts: Iterable[int], limit_octets: int = LIMIT_OCTETS) -> Inspection:
    """What a front end concludes that asks after each cut, each time with everything so far."""
    for cut in (*sorted(cuts), len(octets)):
        inspection = inspect(octets[:cut], limit_octets)
        if inspection is not NEED_MORE:
            return inspection
    return NEED_MORE


def read_three_ways(octets: bytes, limit_octets: int = LIMIT_OCTETS) -> Inspection:
    """Whole, octet by octet and with trailing octets."""
    whole = inspect(octets, limit_octets)
    assert read_in_cuts(octets, range(len(octets)), limit_octets) == whole
    for trailing in TRAILING:
        assert inspect(octets + trailing, limit_octets) == whole
    return whole


def accepted(octets: bytes, limit_octets: int = LIMIT_OCTETS) -> ClientHello:
    hello = read_three_ways(octets, limit_octets)
    assert isinstance(hello, ClientHello), hello
    assert hello.head_octets == len(octets)
    return hello


def refused(octets: bytes, limit_octets: int = LIMIT_OCTETS) -> tuple[Refusal, int]:
    """The refusal and the description of the alert that goes with it."""
    refusal = read_three_ways(octets, limit_octets)
    assert isinstance(refusal, Refusal), refusal
    return refusal, answer(refusal.cause, None, refusal.code)[6]
