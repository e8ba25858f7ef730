"""What follows where something of a process is not on its host any more: `Upkeep`, told what a look found."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from tcpha.upkeep import PACE_S, Follow, Interface, Loss, LostAddress, LostSetting, PutBack, Upkeep, Warn

NOW = 100.0
ETH0 = Interface(7, b"\2\0\0\0\0\1", is_up=True)
OTHER = replace(ETH0, index=8)
ON_LO, ON_ETH0 = LostAddress("192.0.2.1", "lo"), LostAddress("2001:db8::1", "eth0")
ARP = LostSetting("ipv4/conf/eth0/arp_ignore")


@pytest.fixture
def upkeep() -> Upkeep:
    return Upkeep("eth0", ETH0)


def test_all_is_there_nothing_follows(upkeep: Upkeep) -> None:
    assert upkeep.on_look(ETH0, [], NOW) == []
    assert (upkeep.next_deadline(), upkeep.repairs, upkeep.obstacle) == (inf, 0, None)


def test_losses_are_put_back_settings_before_addresses(upkeep: Upkeep) -> None:
    assert upkeep.on_look(ETH0, [ON_LO, ON_ETH0, ARP], NOW) == [PutBack(ARP), PutBack(ON_LO), PutBack(ON_ETH0)]


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (ON_ETH0, "2001:db8::1 was taken off eth0 by somebody: put back"),
        (LostAddress("192.0.2.1", "lo", "eth0"), "192.0.2.1 was put on eth0 by somebody: put back"),
        (ARP, "net.ipv4.conf.eth0.arp_ignore is not what it has to be any more: put back"),
    ],
)
def test_put_back_is_counted_and_told(upkeep: Upkeep, loss: Loss, told: str) -> None:
    (action,) = upkeep.on_look(ETH0, [loss], NOW)
    assert isinstance(action, PutBack)
    assert upkeep.on_done(action, None, NOW) == Warn(told)
    assert upkeep.repairs == 1


@pytest.mark.parametrize("fault", [None, "no room"])
def test_same_is_lost_again_it_waits_for_its_turn_and_others_do_not(upkeep: Upkeep, fault: str | None) -> None:
    (action,) = upkeep.on_look(ETH0, [ON_LO], NOW)
    assert isinstance(action, PutBack)
    upkeep.on_done(action, fault, NOW)
    assert upkeep.on_look(ETH0, [ON_LO, ARP], NOW + PACE_S - 0.1) == [PutBack(ARP)]
    assert upkeep.next_deadline() == NOW + PACE_S
    assert upkeep.on_look(ETH0, [ON_LO], NOW + PACE_S) == [PutBack(ON_LO)]


def test_cannot_be_put_back_says_so_counts_nothing_and_is_tried_again(upkeep: Upkeep) -> None:
    (action,) = upkeep.on_look(ETH0, [ON_LO], NOW)
    assert isinstance(action, PutBack)
    said = upkeep.on_done(action, "no room", NOW)
    assert said == Warn("192.0.2.1 was taken off lo by somebody: it cannot be put back: no room; tried every 10 s")
    assert (upkeep.repairs, upkeep.next_deadline()) == (0, NOW + PACE_S)


@pytest.mark.parametrize("interface", [None, replace(ETH0, is_up=False)])
def test_interface_holds_nothing_now_its_addresses_wait_and_others_do_not(
    upkeep: Upkeep, interface: Interface | None
) -> None:
    actions = upkeep.on_look(interface, [ON_LO, ON_ETH0], NOW)
    assert [each for each in actions if isinstance(each, PutBack)] == [PutBack(ON_LO)]
    assert PutBack(ON_ETH0) in upkeep.on_look(ETH0, [ON_ETH0], NOW + 1), "at once when it is up"


def test_interface_is_gone_is_told_once_and_nothing_is_accelerated_until_it_is_back(upkeep: Upkeep) -> None:
    told = Warn("eth0 is gone: nothing comes or leaves there until it is made again")
    assert upkeep.on_look(None, [], NOW) == [told]
    assert upkeep.on_look(None, [], NOW + 1) == []
    assert upkeep.obstacle == "eth0 is gone"
    assert upkeep.on_look(ETH0, [], NOW + 2) == []
    assert upkeep.obstacle is None
    assert upkeep.on_look(None, [], NOW + 3) == [told]


def test_interface_is_another_one_it_is_followed_before_anything_is_put_back(upkeep: Upkeep) -> None:
    first, *others = upkeep.on_look(OTHER, [ON_LO], NOW)
    assert (first, others) == (Follow(OTHER, is_other=True), [PutBack(ON_LO)])
    assert isinstance(first, Follow)
    assert upkeep.on_done(first, None, NOW) == Warn("eth0 is another interface than at the start: followed")
    assert (upkeep.repairs, upkeep.obstacle) == (1, None)
    assert upkeep.on_look(OTHER, [], NOW + 1) == []


def test_interface_cannot_be_followed_that_is_why_nothing_is_accelerated_and_is_tried_again(upkeep: Upkeep) -> None:
    upkeep.on_look(None, [], NOW)
    (action,) = upkeep.on_look(OTHER, [], NOW + 1)
    assert isinstance(action, Follow)
    said = upkeep.on_done(action, "no Ethernet", NOW + 1)
    what = "eth0 is another interface than at the start"
    assert said.text == f"{what}, and cannot be followed: no Ethernet; restart tcpha if that goes on"
    assert upkeep.obstacle == f"{what}: no Ethernet"
    assert upkeep.on_look(OTHER, [], NOW + PACE_S) == []
    assert upkeep.next_deadline() == NOW + 1 + PACE_S
    assert upkeep.on_look(OTHER, [], NOW + 1 + PACE_S) == [action]
    upkeep.on_done(action, None, NOW + 1 + PACE_S)
    assert upkeep.obstacle is None


def test_another_interface_is_down_it_is_followed_when_it_is_up(upkeep: Upkeep) -> None:
    upkeep.on_look(None, [], NOW)
    assert upkeep.on_look(replace(OTHER, is_up=False), [], NOW + 1) == []
    assert upkeep.obstacle == "eth0 is another interface than at the start"
    assert upkeep.on_look(OTHER, [], NOW + 2) == [Follow(OTHER, is_other=True)]


def test_interface_has_another_mac_it_is_followed_and_still_accelerated(upkeep: Upkeep) -> None:
    other = replace(ETH0, mac=b"\2\0\0\0\0\2")
    (action,) = upkeep.on_look(other, [], NOW)
    assert action == Follow(other, is_other=False)
    assert isinstance(action, Follow)
    assert upkeep.on_done(action, "no map", NOW).text.startswith("eth0 has another MAC, and cannot be followed: no map")
    assert upkeep.obstacle is None
    (action,) = upkeep.on_look(other, [], NOW + PACE_S)
    assert isinstance(action, Follow)
    assert upkeep.on_done(action, None, NOW + PACE_S) == Warn("eth0 has another MAC: followed")
    assert upkeep.on_look(other, [], NOW + PACE_S + 1) == []
