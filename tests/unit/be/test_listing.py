"""A front end asks for every connection: what the programs carry is named piece by piece."""

from __future__ import annotations

import pytest

from tcpha.be.listing import ENTRIES, INTERVAL_S, NAMED
from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Whose
from tcpha.proto.handoff import FLOWS_A_MESSAGE
from tcpha.proto.messages import Flows, FlowsQuery, Identity, Message
from tcpha.rules import Endpoint
from tests.unit.be.programs import PIECE, carried, identity
from tests.unit.be.test_acceleration import FRONT_END, NOW, ONE, OTHER_FRONT_END, BackEnd

ALL = FlowsQuery(())


@pytest.fixture
def here() -> BackEnd:
    return BackEnd()


def named(here: BackEnd, frontend: Endpoint = FRONT_END) -> list[Identity]:
    """To a front end, since it was asked for here."""
    flows = [message for to, message in here.sent if to == frontend]
    here.sent = [each for each in here.sent if each[0] != frontend]
    assert all(isinstance(each, Flows) and not each.absent for each in flows)
    return [each for message in flows if isinstance(message, Flows) for each in message.held]


def asks(here: BackEnd, frontend: Endpoint = FRONT_END, now: float = NOW) -> Message | None:
    return here.kernel.on_message(frontend, ALL, 0.0, now)[1]


def test_few_are_here_those_that_live_are_named_at_once_and_the_agent_names_its_own(here: BackEnd) -> None:
    here.programs.add(carried(ONE), carried(identity(2), Whose.OVER), carried(identity(3), Whose.UNSEEN))
    here.programs.add(carried(identity(4), Whose.AGENT), carried(identity(5)))
    assert asks(here) == ALL
    assert named(here) == [ONE, identity(5)]
    assert here.kernel._listing.next_deadline() > NOW + 1.0


def test_many_are_over_so_many_are_read_at_a_time_and_every_one_that_lives_is_named(here: BackEnd) -> None:
    here.programs.add(*(carried(identity(port), Whose.OVER) for port in range(1, 3 * ENTRIES + 1)))
    here.programs.add(carried(ONE), carried(identity(65_000)))
    asks(here)
    read = [here.programs.pieces_read]
    while here.kernel._listing.next_deadline() < NOW + 1.0:
        here.kernel._listing.on_timer(here.kernel._listing.next_deadline())
        read.append(here.programs.pieces_read)
    assert max(later - before for before, later in zip([0, *read], read, strict=False)) == ENTRIES // PIECE
    assert named(here) == [ONE, identity(65_000)]


def test_many_live_so_many_are_named_at_a_time_each_once(here: BackEnd) -> None:
    living = [identity(port) for port in range(1, 3 * NAMED + 1)]
    here.programs.add(*(carried(each) for each in living))
    asks(here)
    pieces = [named(here)]
    while (at := here.kernel._listing.next_deadline()) < NOW + 1.0:
        here.kernel.on_tick(at)
        assert all(len(message.held) <= FLOWS_A_MESSAGE for _, message in here.sent if isinstance(message, Flows))
        pieces.append(named(here))
    assert [len(each) for each in pieces] == [NAMED, NAMED, NAMED, 0]
    assert [each for piece in pieces for each in piece] == living


def test_two_ask_at_once_they_take_turns(here: BackEnd) -> None:
    living = [identity(port) for port in range(1, 2 * NAMED + 1)]
    here.programs.add(*(carried(each) for each in living))
    asks(here)
    asks(here, OTHER_FRONT_END)
    told = [(len(named(here)), len(named(here, OTHER_FRONT_END)))]
    for turn in range(1, 5):
        here.kernel._listing.on_timer(NOW + turn * INTERVAL_S)
        told.append((len(named(here)), len(named(here, OTHER_FRONT_END))))
    assert told == [(NAMED, 0), (NAMED, 0), (0, NAMED), (0, 0), (0, NAMED)]


def test_front_end_asks_again_it_is_told_anew_once(here: BackEnd) -> None:
    living = [identity(port) for port in range(1, 2 * NAMED + 1)]
    here.programs.add(*(carried(each) for each in living))
    asks(here)
    named(here)
    asks(here)
    while (at := here.kernel._listing.next_deadline()) < NOW + 1.0:
        here.kernel._listing.on_timer(at)
    assert named(here) == living


def test_kernel_says_no_the_rest_is_left_out_and_nothing_is_due(here: BackEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> object:
        raise EdgeError("no")
        yield

    monkeypatch.setattr(here.programs, "walk", fails)
    with pytest.raises(EdgeError):
        asks(here)
    assert here.kernel._listing.next_deadline() > NOW + 1.0
