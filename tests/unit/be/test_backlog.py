"""Front ends take many connections back: so many are ended at a time, all of them in their order."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from tcpha.be import backlog
from tcpha.be.actions import Send
from tcpha.be.backlog import AT_ONCE, PAUSE_S, RETRY_S, TRIES, Backlog
from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Act, Rank, Whose, encode_tuple
from tcpha.net.sockdiag import TcpSocket, connection_of
from tcpha.proto.messages import Closed, Flows, FlowsQuery, Identity
from tests.unit.be.programs import carried, identity, socket_of
from tests.unit.be.test_acceleration import FRONT_END, NOW, BackEnd

MANY = [identity(port) for port in range(1, 3 * AT_ONCE + 1)]


@pytest.fixture
def here() -> BackEnd:
    """All of them live."""
    made = BackEnd()
    made.programs.add(*map(carried, MANY))
    return made


def ended(here: BackEnd) -> list[Identity]:
    return [each for act, each in here.programs.orders if act is Act.END]


def taken(waiting: Backlog, now: float) -> list[Identity]:
    return [each for each, _ in waiting.take(now)]


def test_many_are_taken_back_in_one_burst_so_many_are_ended_and_the_others_a_little_later(here: BackEnd) -> None:
    for at in range(0, len(MANY), 8):
        here.gets(Closed(tuple(MANY[at : at + 8])))
    assert ended(here) == MANY[:AT_ONCE]
    assert here.kernel.next_deadline() == NOW + PAUSE_S
    here.kernel.on_tick(NOW + PAUSE_S / 2)
    assert ended(here) == MANY[:AT_ONCE]
    here.kernel.on_tick(NOW + PAUSE_S)
    assert ended(here) == MANY[: 2 * AT_ONCE]
    here.kernel.on_tick(NOW + 2 * PAUSE_S)
    assert ended(here) == MANY
    assert here.kernel.next_deadline() > NOW + 2 * PAUSE_S


def test_process_leaves_what_waits_is_ended(here: BackEnd) -> None:
    here.gets(Closed(tuple(MANY)))
    here.kernel.on_leave()
    assert ended(here) == MANY


def test_process_stops_what_waits_is_ended_without_a_word_and_only_others_are_reset(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.programs.add(carried(other := identity(len(MANY) + 1)))
    here.sockets.present = [socket_of(each) for each in (*MANY, other)]
    destroy, heard = here.sockets.destroy, list[TcpSocket]()

    def destroyed(found: TcpSocket) -> bool:
        known = here.programs.look_up(encode_tuple(connection_of(found)))
        if known is None or not known.is_silent:
            heard.append(found)
        return destroy(found)

    here.gets(Closed(tuple(MANY)))
    monkeypatch.setattr(here.sockets, "destroy", destroyed)
    assert here.kernel.end_all() == 1
    assert (heard, here.sockets.present) == ([socket_of(other)], [])


def test_front_end_asks_what_waits_is_not_held_any_more(here: BackEnd) -> None:
    here.programs.add(carried(other := identity(len(MANY) + 1)))
    here.gets(Closed(tuple(MANY)))
    waiting = MANY[-1]
    assert here.programs.whose(waiting) is Whose.PROGRAMS
    actions, rest = here.gets(FlowsQuery((waiting.key, other.key)))
    assert (actions, rest) == ([Send(FRONT_END, Flows((other,)))], FlowsQuery((waiting.key,)))
    here.gets(FlowsQuery(()))
    assert here.sent == [(FRONT_END, Flows((other,)))]


def test_later_connection_is_on_the_ports_of_one_that_waits_it_is_held(here: BackEnd) -> None:
    here.gets(Closed(tuple(MANY)))
    here.programs.add(carried(later := identity(len(MANY), iss=9)))
    assert here.gets(FlowsQuery((later.key,))) == ([Send(FRONT_END, Flows((later,)))], None)
    here.gets(FlowsQuery(()))
    assert here.sent == [(FRONT_END, Flows((later,)))]


class Kernel:
    """Says no to some orders."""

    def __init__(
        self, here: BackEnd, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Act, Identity], bool]
    ) -> None:
        self._order = here.programs.order
        self.refuses = refuses
        self.refused = 0
        monkeypatch.setattr(here.programs, "order", self._obey)

    def _obey(self, act: Act, of: Identity, rank: Rank | None = None) -> bool:
        if self.refuses(act, of):
            self.refused += 1
            raise EdgeError("the kernel says no")
        return self._order(act, of, rank)


@pytest.mark.parametrize("act", [Act.SILENCE, Act.END])
def test_kernel_says_no_to_one_the_others_are_ended_and_that_one_later(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    kernel = Kernel(here, monkeypatch, lambda asked, of: (asked, of) == (act, MANY[1]))
    assert here.gets(Closed(tuple(MANY[:3]))) == ([], Closed(tuple(MANY[:3]))), "the agent has some of them, too"
    assert ended(here) == [MANY[0], MANY[2]]
    assert here.gets(FlowsQuery((MANY[1].key,))) == ([], FlowsQuery((MANY[1].key,)))
    kernel.refuses = lambda *_: False
    here.kernel.on_tick(NOW + RETRY_S)
    assert ended(here) == [MANY[0], MANY[2], MANY[1]]
    assert (kernel.refused, here.kernel._taken_back.given_up) == (1, 0)


@pytest.mark.parametrize("leaves", [False, True])
def test_kernel_says_no_every_time_it_is_counted_and_told(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, leaves: bool
) -> None:
    kernel = Kernel(here, monkeypatch, lambda _, of: of == MANY[1])
    here.gets(Closed(tuple(MANY[:3])))
    for turn in range(1, 2 * TRIES):
        if leaves:
            here.kernel.on_leave()
        else:
            here.kernel.on_tick(NOW + 2 * RETRY_S * turn)
    assert (kernel.refused, ended(here)) == (TRIES, [MANY[0], MANY[2]])
    assert here.kernel._taken_back.given_up == 1
    assert caplog.messages == ["1 connections that a front end has taken back cannot be ended: the kernel says no"]


def test_too_many_wait_they_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "WAITING", AT_ONCE)
    waiting = Backlog()
    waiting.add(MANY)
    assert taken(waiting, NOW) == MANY[:-AT_ONCE]
    assert taken(waiting, NOW) == []
    assert taken(waiting, NOW + PAUSE_S) == MANY[-AT_ONCE:]


def test_one_is_taken_back_twice_it_is_ended_once() -> None:
    waiting = Backlog()
    waiting.add(MANY[:2])
    waiting.add(MANY[:3])
    assert taken(waiting, NOW) == MANY[:3]


def test_kernel_says_no_all_wait_and_what_was_tried_comes_behind_the_others() -> None:
    waiting = Backlog()
    waiting.add(MANY[: AT_ONCE + 1])
    tried = list(waiting.take(NOW))
    assert waiting.put_back(tried[:2], NOW) == 0
    assert waiting.next_deadline() == NOW + RETRY_S
    assert taken(waiting, NOW + RETRY_S / 2) == []
    assert taken(waiting, NOW + RETRY_S) == [MANY[AT_ONCE], *MANY[:2]]


def test_kernel_says_no_every_time_one_is_given_up_after_so_many() -> None:
    waiting = Backlog()
    waiting.add(MANY[:1])
    given_up = []
    while (now := max(waiting.next_deadline(), NOW)) < inf:
        given_up.append(waiting.put_back(list(waiting.take(now)), now))
    assert given_up == [0] * (TRIES - 1) + [1]
    assert (len(waiting), waiting.next_deadline()) == (0, inf)
