"""Which patterns match whatever their field may hold.

Knows fields and patterns, no rule. That can only be tried out: a pattern does if it is found in each of some 450
samples (every octet that may stand there, alone and repeated, all forms of RFC 9112 3.2, one of 16 KB), and holds no
negative look-around or conditional, which could except something that is no sample, and no count, which could end
beyond the longest. So ``.*``, ``.``, ``x*``, ``^`` and ``()`` match every target; ``/`` and ``^/`` do not
(``OPTIONS *``), nor does ``...`` (shorter targets).
"""

from __future__ import annotations

from typing import Final

from tcpha.fields import Kind
from tcpha.patterns import CompiledPattern

PROBE_TIME_S: Final = 0.05


def _targets() -> tuple[bytes, ...]:
    """Targets of many kinds: every octet that may stand in one, alone and often, and a very long one."""
    octets = [bytes((octet,)) for octet in (*range(0x21, 0x7F), *range(0x80, 0x100))]
    often = [b"/a" + octet + b"/b" + octet + b".c" + octet + b"9" + octet for octet in octets]
    forms = [b"example.com:443", b"http://example.com:8080/a/b.jpg?x=1&y=%20", b"/" + b"a" * 16383]
    return (*octets, *often, *forms)


_TARGETS: Final = _targets()
FIRST_OCTETS: Final = (*_TARGETS, *(bytes((octet,)) * count for octet in range(256) for count in (1, 64)))
_NOT_TO_BE_TRIED: Final = ("(?!", "(?<!", "(?(", "{")
_IN_ANY: Final = frozenset((".*", "^", "^.*"))


def takes_every(kind: Kind, pattern: str, compiled: CompiledPattern) -> bool:
    """Return whether a pattern is found in whatever a field of this kind may hold."""
    if pattern in _IN_ANY:
        return True
    if kind not in (Kind.TARGET, Kind.METHOD, Kind.OCTETS) or any(each in pattern for each in _NOT_TO_BE_TRIED):
        return False
    samples = FIRST_OCTETS if kind is Kind.OCTETS else _TARGETS
    try:
        return all(compiled.search(sample, timeout=PROBE_TIME_S) is not None for sample in samples)
    except TimeoutError:
        return False
