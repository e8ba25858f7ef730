"""Connections that a front end has taken back: no program runs them, and as little as can be is noted down for that."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tcpha.be.carried import CarriedConnections
from tcpha.kernel import be_maps
from tcpha.kernel.be_maps import Carried, Ran, encode_number, encode_tuple
from tests.kernel.frames import MARK, PERIOD, handoff
from tests.kernel.rehearsal import Rehearsal
from tests.kernel.test_be_handoff import leaving
from tests.unit.be.programs import Sockets

pytestmark = pytest.mark.kernel

HELD_AT = 44
"""In an entry of `flows`: who changes whose it is holds it."""


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


def set_held(programs: Rehearsal, is_held: bool) -> None:
    """As if a program on another processor had the connection's entry for itself, or let go of it."""
    flows, four_tuple = programs.adopter._maps["flows"], encode_tuple(handoff(programs.family).identity.key)
    value = bytearray(flows.lookup(four_tuple) or b"")
    value[HELD_AT : HELD_AT + 4] = encode_number(is_held)
    flows.update(four_tuple, bytes(value))


def test_connection_is_taken_back_while_a_program_holds_its_entry_it_is_ended_once_that_lets_go(
    programs: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = CarriedConnections(programs.adopter, cast(Any, Sockets()), MARK)
    programs.arrive(programs.datagram().frame())
    programs.leave(leaving(programs.family, 1))
    look_up = programs.adopter.look_up
    four_tuple = encode_tuple(handoff(programs.family).identity.key)
    carried = look_up(four_tuple)
    assert carried is not None
    set_held(programs, True)

    def looked_up(asked: bytes) -> Carried | None:
        set_held(programs, False)
        return look_up(asked)

    monkeypatch.setattr(programs.adopter, "look_up", looked_up)
    connections.end_silently(carried)
    assert (look_up(four_tuple), programs.adopter.live, programs.closed()) == (None, 0, [])
