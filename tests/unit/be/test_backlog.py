"""Front ends take many connections back: so many are ended at a time, all of them in their order."""

from __future__ import annotations

import pytest

from tcpha.be import backlog
from tcpha.be.backlog import AT_ONCE, PAUSE_S, Backlog
from tcpha.kernel.be_maps import Act
from tcpha.proto.messages import Closed, Identity
from tests.unit.be.programs import carried, identity
from tests.unit.be.test_acceleration import NOW, BackEnd

MANY = [identity(port) for port in range(1, 3 * AT_ONCE + 1)]


@pytest.fixture
def here() -> BackEnd:
    """All of them live."""
    made = BackEnd()
    made.programs.add(*map(carried, MANY))
    return made


def ended(here: BackEnd) -> list[Identity]:
    return [each for act, each in here.programs.orders if act is Act.END]


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


def test_too_many_wait_they_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "WAITING", AT_ONCE)
    waiting = Backlog()
    waiting.add(MANY)
    assert list(waiting.take(NOW)) == MANY[:-AT_ONCE]
    assert list(waiting.take(NOW)) == []
    assert list(waiting.take(NOW + PAUSE_S)) == MANY[-AT_ONCE:]
