"""Every octet string that ever reached something new, or ever was a finding, once more: quick, and without a fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tcpha.be.counters import BackEndCounters
from tcpha.be.flows import FlowState as BackEndState
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.flows import FlowState as FrontEndState
from tests.fuzz.__main__ import replay
from tests.fuzz.back_end import Life as BackEndLife
from tests.fuzz.front_end import Life as FrontEndLife
from tests.fuzz.records import RECORD_OCTETS, Octets, mutate, records
from tests.fuzz.shorten import fault_of, shorten
from tests.fuzz.targets import CORPUS, MENDED, TARGETS, Target
from tests.fuzz.trace import tell

MOST = 0.85
"""A counter that is new need not be reached at once; a corpus that has become noise reaches few."""
EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@EVERY
def test_corpus_is_replayed_nothing_is_wrong(target: Target) -> None:
    function = target.load()
    files = list(target.inputs(CORPUS))
    assert files, "a target without a corpus is not replayed"
    faults = {path.name: fault for path in files if (fault := fault_of(function, path.read_bytes())) is not None}
    assert faults == {}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param(each, path, id=f"{each.name}-{path.name}")
        for each in TARGETS.values()
        for path in each.inputs(MENDED)
    ],
)
def test_mended_finding_is_replayed_nothing_is_wrong(target: Target, path: Path) -> None:
    target.load()(path.read_bytes())


def test_corpus_is_small_and_belongs_to_targets() -> None:
    files = [path for folder in (CORPUS, MENDED) for path in folder.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= TARGETS.keys()
    assert sum(path.stat().st_size for path in files) < 400_000
    assert all(
        path.stat().st_size <= TARGETS[path.parent.name].max_octets for path in files if path.parent.parent == CORPUS
    )


# --- the programs reach what they are for


def _reached(name: str, begin: Callable[[Octets], FrontEndLife | BackEndLife]) -> tuple[set[str], set[str]]:
    """States that flows were in after some event, and what was counted."""
    states: set[str] = set()
    counted: set[str] = set()
    for path in TARGETS[name].inputs(CORPUS):
        program = records(path.read_bytes())
        life = begin(next(program, Octets(b"")))
        for record in program:
            life.step(record)
            states |= {flow.state.name for flow in life.core.table.by_key.values()}
        counted |= {counter for counter, value in asdict(life.core.counters).items() if value}
    return states, counted


def test_programs_of_front_ends_reach_every_state_and_nearly_every_counter() -> None:
    states, counted = _reached("front_end", FrontEndLife)
    assert states == {state.name for state in FrontEndState}
    known = asdict(FrontEndCounters()).keys()
    assert len(counted) >= MOST * len(known), f"make fuzz FUZZ_TARGET=front_end; not reached: {known - counted}"


def test_programs_of_back_ends_reach_every_state_and_nearly_every_counter() -> None:
    states, counted = _reached("back_end", BackEndLife)
    assert states == {state.name for state in BackEndState}
    known = asdict(BackEndCounters()).keys()
    assert len(counted) >= MOST * len(known), f"make fuzz FUZZ_TARGET=back_end; not reached: {known - counted}"


# --- the tools


def _breaks_at_two_marks(octets: bytes) -> None:
    if octets.count(b"!") >= 2:
        raise ValueError("two marks")
    if b"?" in octets:
        raise KeyError("another fault")


def test_finding_is_shortened_only_what_matters_is_left() -> None:
    octets = b"much ! that ?does not! matter"
    assert isinstance(fault_of(_breaks_at_two_marks, octets), ValueError)
    assert shorten(_breaks_at_two_marks, octets, 10.0, is_program=False) == b"!!"


def test_finding_of_a_program_is_shortened_by_whole_records() -> None:
    octets = b"0000000!" + b"11111111" + b"2222222!"
    assert shorten(_breaks_at_two_marks, octets, 10.0, is_program=True) == b"\0\0\0\0\0\0\0!" * 2


def test_nothing_is_wrong_nothing_is_shortened() -> None:
    assert shorten(_breaks_at_two_marks, b"no mark", 10.0, is_program=False) == b"no mark"


def test_octets_read_beyond_their_end_are_zero() -> None:
    numbers = Octets(b"\x01\x02\x03")
    assert (numbers.number(2), numbers.number(4), numbers.number(), numbers.rest()) == (0x0102, 0x03000000, 0, b"")


def test_program_is_read_in_records() -> None:
    assert [record.rest() for record in records(bytes(range(20)))] == [
        bytes(range(8)),
        bytes(range(8, 16)),
        bytes(range(16, 20)),
    ]


def test_program_mutated_stays_within_its_length_and_is_the_same_for_the_same_seed() -> None:
    program = bytes(range(64))
    results = [mutate(program, 80, seed, lambda octets, _: octets) for seed in range(300)]
    assert results == [mutate(program, 80, seed, lambda octets, _: octets) for seed in range(300)]
    assert all(0 < len(result) <= 80 for result in results)
    assert len(set(results)) > 100
    kept = [result for result in results if result[:RECORD_OCTETS] == program[:RECORD_OCTETS]]
    assert len(kept) > 100


def test_finding_is_replayed_event_by_event_and_its_fault_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(octets: bytes) -> None:
        tell("reads", octets)
        _breaks_at_two_marks(octets)

    monkeypatch.setattr(Target, "load", lambda _: faulty)
    file = tmp_path / "crash"
    file.write_bytes(b"!!")
    assert replay(TARGETS["secret"], file) == 1
    shown = capsys.readouterr()
    assert "reads b'!!'" in shown.out
    assert "ValueError: two marks" in shown.err
    tell("this is seen by nobody")
    file.write_bytes(b"!")
    assert replay(TARGETS["secret"], file) == 0
    assert capsys.readouterr().out.splitlines() == ["reads b'!'", "secret: crash: nothing wrong"]
