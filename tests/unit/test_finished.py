from __future__ import annotations

import pytest

from tcpha.finished import MEMORY_S, FinishedIdentities, full_period
from tcpha.proto.cookie import PERIOD_S
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import SeqNum

UTC = 1_600_000_000.0
PERIOD = int(UTC) // PERIOD_S
NOW = 100.0


def identity(number: int) -> Identity:
    return Identity(ConnectionKey(bytes(12)), SeqNum(number), SeqNum(0))


def test_added_is_known_until_its_cookie_is_surely_invalid() -> None:
    finished = FinishedIdentities(9)
    finished.add(identity(1), PERIOD, UTC, NOW)
    finished.expire(NOW + MEMORY_S - 0.001)
    assert identity(1) in finished
    finished.expire(NOW + MEMORY_S)
    assert (identity(1) in finished, len(finished), finished.period_floor) == (False, 0, -1)


@pytest.mark.parametrize(("age", "kept"), [(-1, True), (0, True), (2, True), (3, False), (PERIOD, False)])
def test_added_with_an_old_cookie_is_not_worth_remembering(age: int, kept: bool) -> None:
    finished = FinishedIdentities(9)
    finished.add(identity(1), PERIOD - age, UTC, NOW)
    assert (identity(1) in finished) == kept


def test_full_forgets_the_oldest_and_raises_the_floor_to_its_period() -> None:
    finished = FinishedIdentities(2)
    finished.add(identity(1), PERIOD - 1, UTC, NOW)
    finished.add(identity(2), PERIOD, UTC, NOW)
    finished.add(identity(3), PERIOD, UTC, NOW)
    assert [identity(number) in finished for number in (1, 2, 3)] == [False, True, True]
    assert finished.period_floor == PERIOD - 1
    finished.add(identity(4), PERIOD, UTC, NOW)
    assert finished.period_floor == PERIOD


def test_full_floor_never_sinks() -> None:
    finished = FinishedIdentities(1)
    finished.add(identity(1), PERIOD + 1, UTC, NOW)
    finished.add(identity(2), PERIOD, UTC, NOW)
    finished.add(identity(3), PERIOD, UTC, NOW)
    assert finished.period_floor == PERIOD + 1


def test_full_of_expired_makes_room_without_a_floor() -> None:
    finished = FinishedIdentities(1)
    finished.add(identity(1), PERIOD, UTC, NOW)
    finished.add(identity(2), PERIOD + 3, UTC + MEMORY_S, NOW + MEMORY_S)
    assert (len(finished), finished.period_floor) == (1, -1)


def test_added_again_changes_nothing() -> None:
    finished = FinishedIdentities(2)
    for now in (NOW, NOW + 50):
        finished.add(identity(1), PERIOD, UTC, now)
    assert len(finished) == 1
    finished.expire(NOW + MEMORY_S)
    assert len(finished) == 0


@pytest.mark.parametrize("offset", [-0x7FFF, -70, -1, 0, 1, 70, 0x7FFF])
@pytest.mark.parametrize("utc", [UTC, 0xFFFF * PERIOD_S, 0x1_0000 * PERIOD_S, 0x3_0001 * PERIOD_S])
def test_full_period_is_the_nearest(offset: int, utc: float) -> None:
    period = int(utc) // PERIOD_S + offset
    assert full_period(period & 0xFFFF, utc) == period


def test_repetition_that_acknowledges_a_little_more_is_known() -> None:
    """Its cookie is valid, of another agreement, and must not make another connection of it."""
    finished = FinishedIdentities(9)
    key = ConnectionKey(bytes(12))
    finished.add(Identity(key, SeqNum(1), SeqNum(0x1234_5610)), PERIOD, UTC, NOW)
    assert Identity(key, SeqNum(1), SeqNum(0x1234_56FF)) in finished
    assert Identity(key, SeqNum(1), SeqNum(0x1234_5710)) not in finished
    assert Identity(key, SeqNum(2), SeqNum(0x1234_5610)) not in finished
