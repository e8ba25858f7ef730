"""A walk through the programs' map, piece by piece: what the octets of many entries say is what each of them says."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tcpha.kernel.be_maps import Whose, encode_tuple
from tcpha.net.bpf_table import Table
from tests.kernel.frames import handoff
from tests.kernel.rehearsal import Rehearsal

pytestmark = pytest.mark.kernel

ENTRIES = 3200
"""More than one system call reads."""
UNSEEN, AGENTS, SILENT = (1,), (8,), (1 | 2 | 32,)
LIVING, OVER = (1 | 2, 1 | 2 | 16 | 1024), (1 | 2 | 4, 1 | 4, 1 | 2 | 4 | 32)
FLAGS = (*UNSEEN, *LIVING, *OVER, *AGENTS, *SILENT)
_VALUE = struct.Struct("=IIIIHHI8sIIIIIIIHH")


@pytest.fixture
def filled(programs: Rehearsal) -> Iterator[Rehearsal]:
    """Each entry has numbers of its own, and was seen at another time."""
    entries = []
    for number in range(ENTRIES):
        key = handoff(programs.family, client_port=1024 + number).identity.key
        flags, seen = FLAGS[number % len(FLAGS)], number
        value = _VALUE.pack(number, number + 7, 0, 0, 0, 0, flags, bytes(8), 0, 0, seen, 0, 0, 0, 0, 0, 0)
        entries.append((encode_tuple(key), value))
    assert Table(programs.adopter._maps["flows"]).update_all(entries) == ENTRIES
    yield programs
    programs.begin()


def test_many_are_known_those_that_live_are_found_each_once(filled: Rehearsal) -> None:
    pieces = list(filled.adopter.walk())
    assert len(pieces) > 1
    assert sum(map(len, pieces)) == ENTRIES
    found = [each for piece in pieces for each in piece.living()]
    wanted = {carried.identity for _, carried in filled.adopter.flows() if carried.lives and not carried.is_silent}
    assert len(found) == ENTRIES * len(LIVING) // len(FLAGS)
    assert set(found) == wanted


def test_many_are_known_those_that_are_quiet_are_told_from_those_that_are_over_for_long(filled: Rehearsal) -> None:
    pieces = [piece.quiet_since(2000, 1000) for piece in filled.adopter.walk()]
    known = dict(filled.adopter.flows())
    over = {key for key, each in known.items() if each.whose is Whose.OVER}
    assert {key for quiet, _ in pieces for key in quiet} == {
        key for key in known.keys() - over if known[key].seen <= 2000
    }
    assert {key for _, old in pieces for key in old} == {key for key in over if known[key].seen <= 1000}
