"""When a process looks at its host, and what it does and says about what it finds there."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from unittest.mock import MagicMock

import pytest

from tcpha import caretaker
from tcpha.caretaker import LOOK_S, PAUSE_S, WHOLE_LOOK_S, Caretaker
from tcpha.errors import EdgeError
from tcpha.net.footprint import Plan
from tcpha.net.restoring import RestoringFootprint
from tcpha.upkeep import Interface, Loss, LostAddress, LostSetting

NOW = 100.0
PLAN = Plan("eth0", (), (), 660, 1)
LOST = LostAddress("192.0.2.1", "lo")


class Host:
    """What is seen of it, and how often it was asked."""

    def __init__(self) -> None:
        self.seen: Interface | None = Interface(7, bytes(6), is_up=True)
        self.addresses: list[Loss] = []
        self.settings: list[Loss] = []
        self.looks = self.whole_looks = 0
        self.concerned = True

    def interface(self) -> Interface | None:
        return self.seen

    def lost_settings(self) -> list[Loss]:
        self.looks += 1
        return self.settings

    def lost_addresses(self) -> list[Loss]:
        self.whole_looks += 1
        return self.addresses

    def read(self) -> bool:
        return self.concerned


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(caretaker, "HostWatch", lambda _role, _plan: made)
    return made


@pytest.fixture
def footprint() -> MagicMock:
    return MagicMock(spec=RestoringFootprint("fe", Path("/nowhere")))


@pytest.fixture
def follow() -> MagicMock:
    return MagicMock()


@pytest.fixture
def on_addresses() -> MagicMock:
    return MagicMock()


@pytest.fixture
def made(host: Host, footprint: MagicMock, follow: MagicMock, on_addresses: MagicMock) -> Caretaker:
    return Caretaker("fe", cast(RestoringFootprint, footprint), PLAN, follow, on_addresses)


def test_nothing_is_told_settings_are_read_once_an_interval_and_addresses_seldom(made: Caretaker, host: Host) -> None:
    at = NOW
    while at < NOW + WHOLE_LOOK_S:
        again_at = made.on_tick(at)
        assert again_at > at
        at = again_at
    assert (host.looks, host.whole_looks) == (WHOLE_LOOK_S / LOOK_S, 1)


def test_much_is_told_a_look_follows_at_once_and_then_no_more_often_than_the_pause(made: Caretaker, host: Host) -> None:
    for step in range(1000):
        made.on_change(NOW + step / 1000)
        made.on_tick(NOW + step / 1000)
    assert host.looks == pytest.approx(1 / PAUSE_S, abs=1)
    assert host.whole_looks == host.looks


def test_what_others_have_changed_is_told_no_look_follows(made: Caretaker, host: Host) -> None:
    made.on_tick(NOW)
    host.concerned = False
    made.on_change(NOW + PAUSE_S)
    assert host.looks == 1


def test_change_comes_within_the_pause_it_is_looked_at_behind_it(made: Caretaker, host: Host) -> None:
    made.on_tick(NOW)
    made.on_change(NOW + PAUSE_S / 2)
    assert host.looks == 1
    assert made.on_tick(NOW + PAUSE_S / 2) == NOW + PAUSE_S
    made.on_tick(NOW + PAUSE_S)
    assert host.looks == 2


def test_addresses_are_lost_they_are_put_back_announced_together_and_told(
    made: Caretaker, host: Host, footprint: MagicMock, on_addresses: MagicMock, caplog: pytest.LogCaptureFixture
) -> None:
    host.addresses = [LOST, LostAddress("192.0.2.2", "lo")]
    made.on_change(NOW)
    assert footprint.put_back_address.call_count == 2
    on_addresses.assert_called_once_with([LOST.addr, "192.0.2.2"])
    assert caplog.messages == [f"192.0.2.{at} was taken off lo by somebody: put back" for at in (1, 2)]
    assert made.repairs == 2


@pytest.mark.parametrize("fault", [EdgeError("no room"), OSError("no room")])
def test_setting_cannot_be_put_back_that_is_told_and_tried_again(
    made: Caretaker, host: Host, footprint: MagicMock, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    host.settings = [LostSetting("ipv4/conf/eth0/arp_ignore")]
    footprint.put_back_settings.side_effect = fault
    at = NOW
    while at < NOW + 25:
        at = made.on_tick(at)
    assert footprint.put_back_settings.call_count == 3
    assert [each for each in caplog.messages if "it cannot be put back: no room" in each] == caplog.messages
    assert (len(caplog.messages), made.repairs) == (3, 0)


def test_interface_is_another_one_it_is_prepared_and_then_followed(
    made: Caretaker, host: Host, footprint: MagicMock, follow: MagicMock
) -> None:
    both = MagicMock()
    both.attach_mock(footprint.prepare_interface, "prepare")
    both.attach_mock(follow, "follow")
    host.seen = Interface(8, bytes(6), is_up=True)
    made.on_change(NOW)
    assert [name for name, *_ in both.mock_calls] == ["prepare", "follow"]
    follow.assert_called_once_with(True)
    assert made.obstacle is None


def test_addresses_cannot_be_asked_for_settings_are_looked_after(
    made: Caretaker, host: Host, footprint: MagicMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "lost_addresses", MagicMock(side_effect=EdgeError("no answer")))
    host.settings = [LostSetting("ipv4/conf/eth0/arp_ignore")]
    made.on_change(NOW)
    footprint.put_back_settings.assert_called_once_with(PLAN)


def test_interface_is_gone_at_the_start_nothing_is_kept(host: Host, footprint: MagicMock, follow: MagicMock) -> None:
    host.seen = None
    monkey = MagicMock()
    host.close = monkey  # type: ignore[attr-defined]
    with pytest.raises(EdgeError, match="eth0 is gone"):
        Caretaker("fe", cast(RestoringFootprint, footprint), PLAN, follow, follow)
    monkey.assert_called_once()
