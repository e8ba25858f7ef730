"""Connections that a front end has taken back: no program runs them, and as little as can be is noted down for that."""

from __future__ import annotations

import pytest

from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import Ran, encode_number
from tests.kernel.frames import PERIOD, handoff
from tests.kernel.rehearsal import Rehearsal

pytestmark = pytest.mark.kernel


def known(programs: Rehearsal) -> set[int]:
    """In which periods the connection is noted down."""
    name = be_maps.encode_name(handoff(programs.family).identity)
    generations = programs.adopter._generations
    return {each for each, generation in generations.items() if generation.lookup(name) == encode_number(Ran.AGENT)}


def test_connection_is_taken_back_that_nobody_knows_no_program_runs_it(programs: Rehearsal) -> None:
    programs.adopter.remember(handoff(programs.family).identity)
    assert known(programs) == set(range(PERIOD - 2, PERIOD + 2)), "whose cookies are accepted"
    assert programs.arrive(programs.datagram().frame()).counts == {"up_ran": 1}


def test_connection_is_taken_back_its_period_is_known_it_is_noted_there_alone(programs: Rehearsal) -> None:
    programs.adopter.remember(handoff(programs.family).identity, PERIOD & 0xFFFF)
    assert known(programs) == {PERIOD}
    assert programs.arrive(programs.datagram().frame()).counts == {"up_ran": 1}


def test_connection_is_taken_back_its_period_is_over_nothing_is_noted(programs: Rehearsal) -> None:
    programs.adopter.remember(handoff(programs.family).identity, PERIOD - 8 & 0xFFFF)
    assert known(programs) == set()


def test_some_periods_are_void_nothing_is_noted_there(programs: Rehearsal) -> None:
    programs.adopter.renew(PERIOD, PERIOD - 1)
    programs.adopter.remember(handoff(programs.family).identity)
    assert known(programs) == {PERIOD, PERIOD + 1}


def test_agent_is_full_for_a_while_what_is_taken_back_meanwhile_does_not_run_later(programs: Rehearsal) -> None:
    programs.adopter.hold()
    programs.adopter.remember(handoff(programs.family).identity)
    programs.adopter.renew(PERIOD)
    assert programs.arrive(programs.datagram().frame()).counts == {"up_ran": 1}
