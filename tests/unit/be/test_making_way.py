"""What earlier connections left on a four-tuple that the agent is to have: it makes way, or stays where it is."""

from __future__ import annotations

import pytest

from tcpha.be.acceleration import ROUND_S
from tcpha.be.carried import TRIES
from tcpha.kernel.be_maps import Act, Carried, Rank, Whose, encode_tuple, seen_at
from tcpha.net import clock
from tcpha.net.sockdiag import TCP_TIME_WAIT
from tcpha.proto.messages import Closed, Identity
from tests.unit.be.programs import MARK, RANK, carried, identity, socket_of
from tests.unit.be.test_acceleration import CONFIG, EARLIER, FRONT_END, NOW, ONE, BackEnd, handoff

STALE_S = CONFIG.stale_time + 1.0


@pytest.fixture
def here() -> BackEnd:
    return BackEnd()


def test_socket_of_one_that_is_over_is_in_time_wait_it_makes_way(here: BackEnd) -> None:
    """Its answers would bear the mark, and never come to the agent."""
    here.programs.add(carried(EARLIER, Whose.OVER))
    here.sockets.present = [left := socket_of(EARLIER, state=TCP_TIME_WAIT)]
    assert here.gets(handoff()) == ([], handoff())
    assert here.sockets.destroyed == [left]


def test_socket_of_one_that_is_over_lives_where_the_ports_are_the_agents_it_makes_way(here: BackEnd) -> None:
    """A client's RST was seen, and never came to the socket; the note is of the HANDOFF that a program left here."""
    here.programs.add(carried(ONE, Whose.AGENT))
    here.sockets.present = [left := socket_of(EARLIER)]
    assert here.gets(handoff()) == ([], handoff())
    assert here.sockets.destroyed == [left]


@pytest.mark.parametrize(("mark", "destroyed"), [(MARK, 1), (0, 0)])
def test_socket_is_in_time_wait_where_the_ports_are_the_agents_the_programs_makes_way_its_own_stays(
    here: BackEnd, mark: int, destroyed: int
) -> None:
    """Its own answers a client that closes again; the programs' would answer the agent, and not be heard."""
    here.programs.add(carried(ONE, Whose.AGENT))
    here.sockets.present = [left := socket_of(EARLIER, mark=mark, state=TCP_TIME_WAIT)]
    assert here.gets(handoff()) == ([], handoff())
    assert here.sockets.destroyed == [left] * destroyed


def test_agent_runs_the_connection_no_socket_is_destroyed(here: BackEnd) -> None:
    here.programs.add(carried(ONE, Whose.AGENT))
    here.agent.on_message(FRONT_END, handoff(), 0.0, NOW)
    here.sockets.present = [socket_of(ONE)]
    here.gets(handoff())
    assert here.sockets.destroyed == []


# --- notes


def test_note_of_a_later_handoff_is_left_before_the_earlier_is_run_it_stays(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one waits in the agent's socket: no program may run a third meanwhile."""
    order = here.programs.order

    def late(act: Act, of: Identity, rank: Rank | None = None) -> bool:
        here.programs.add(carried(ONE, Whose.AGENT))
        return order(act, of, rank)

    monkeypatch.setattr(here.programs, "order", late)
    assert here.gets(handoff(EARLIER), RANK.sequence - 1) == ([], handoff(EARLIER))
    assert here.programs.entries[encode_tuple(ONE.key)] == carried(ONE, Whose.AGENT)


def test_stale_handoff_its_note_goes_and_nothing_else(here: BackEnd) -> None:
    """Else everything that comes for those ports would be the agent's until the search finds the note."""
    others = identity(2)
    here.programs.add(carried(ONE, Whose.AGENT), carried(others))
    for each in (handoff(), handoff(others), handoff(identity(3))):
        assert here.gets(each, age_s=STALE_S) == ([], each)
    assert (here.programs.whose(ONE), here.programs.whose(others)) == (None, Whose.PROGRAMS)


def test_stale_handoff_its_note_is_of_what_the_agent_runs_it_stays(here: BackEnd) -> None:
    here.gets(handoff())
    here.agent.on_message(FRONT_END, handoff(), 0.0, NOW)
    here.gets(handoff(), age_s=STALE_S)
    here.ticks(ROUND_S)
    assert here.programs.whose(ONE) is Whose.AGENT


def test_stale_handoff_agent_runs_an_earlier_connection_the_note_goes_with_that(here: BackEnd) -> None:
    here.gets(handoff(EARLIER))
    here.agent.on_message(FRONT_END, handoff(EARLIER), 0.0, NOW)
    here.programs.add(carried(ONE, Whose.AGENT, seen=seen_at(clock.now())))  # too young for the search
    here.gets(handoff(), age_s=STALE_S)
    here.ticks(ROUND_S)
    assert here.programs.whose(ONE) is Whose.AGENT
    here.agent.on_message(FRONT_END, Closed((EARLIER,)), 0.0, NOW)
    here.ticks(2 * ROUND_S)
    assert here.programs.entries == {}


# --- orders


@pytest.mark.parametrize("busy_times", [1, TRIES - 1])
@pytest.mark.parametrize("act", [Act.SILENCE, Act.END])
def test_front_end_takes_a_connection_back_a_program_changes_its_entry_meanwhile_it_is_ended(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch, act: Act, busy_times: int
) -> None:
    order = here.programs.order
    in_vain = iter([False] * busy_times)

    def busy(wanted: Act, of: Identity, rank: Rank | None = None) -> bool:
        return (wanted is not act or next(in_vain, True)) and order(wanted, of, rank)

    monkeypatch.setattr(here.programs, "order", busy)
    here.programs.add(carried(ONE))
    here.sockets.present = [its := socket_of(ONE)]
    here.gets(Closed((ONE,)))
    assert (here.sockets.destroyed, here.programs.entries) == ([its], {})


def test_front_end_takes_a_connection_back_its_entry_is_held_for_good_nothing_is_done(here: BackEnd) -> None:
    here.programs.busy_times = 2 * TRIES
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(ONE)]
    here.gets(Closed((ONE,)))
    assert here.programs.orders == [(Act.SILENCE, ONE)] * TRIES
    assert here.sockets.destroyed == []


@pytest.mark.parametrize("now_there", [carried(EARLIER), carried(ONE, Whose.OVER), carried(ONE, Whose.AGENT)])
def test_front_end_takes_a_connection_back_its_entry_is_not_its_own_by_now_it_is_left_alone(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch, now_there: Carried
) -> None:
    orders: list[Act] = []

    def taken(act: Act, of: Identity, rank: Rank | None = None) -> bool:
        orders.append(act)
        here.programs.add(now_there)
        return False

    monkeypatch.setattr(here.programs, "order", taken)
    here.programs.add(carried(ONE))
    here.gets(Closed((ONE,)))
    assert orders == [Act.SILENCE]
