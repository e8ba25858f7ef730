"""The front end's process where it decides by itself: what fits on the way to the back ends, and who is told."""

from __future__ import annotations

import logging
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from tcpha.budget import Budget
from tcpha.errors import StartError
from tcpha.fe.acceleration import Acceleration
from tcpha.fe.actions import Action
from tcpha.fe.dispatcher import Dispatcher
from tcpha.fe.service import ERRORS_A_SECOND, ERRORS_AT_ONCE, FrontEnd
from tcpha.net import clock, netlink
from tcpha.net.raw import RawSender
from tests.packet.fe_client import CLIENT, VIP
from tests.packet.fe_playbook import BE1, front_end

if TYPE_CHECKING:
    from netfilterqueue import Packet

MTU_OCTETS = 1500
CARRIED_OCTETS = 1480


def unopened(mtu_octets: int) -> FrontEnd:
    """A front end that nothing was opened for, at an interface."""
    made = FrontEnd.__new__(FrontEnd)
    made.iface, made.mtu_octets = "eth7", mtu_octets
    return made


# --- the MTU at start


@pytest.mark.parametrize(
    ("settings", "of_interface", "used"),
    [
        ("", 1500, 1500),
        ("mtu = 1400", 1500, 1400),
        ("mtu = 1600", 1500, 1500),
        ("", 1299, 1299),
        ("forward = tunnel", 1300, 1300),
        ("forward = tunnel\nmtu = 9000", 1300, 1300),
    ],
)
def test_mtu_used_is_the_smaller_of_file_and_interface(
    settings: str, of_interface: int, used: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert unopened(of_interface)._usable_mtu_octets(front_end(settings)) == used
    beyond = settings.rpartition("= ")[2]
    assert ("more than eth7 carries" in caplog.text) == (beyond.isdecimal() and int(beyond) > of_interface)


@pytest.mark.parametrize("settings", ["forward = tunnel", "forward = tunnel\nmtu = 1400"])
def test_interface_too_narrow_for_ipv6_in_a_tunnel_is_a_fault_at_start(settings: str) -> None:
    """As it is when the file says so: each link carries 1280 octets of IPv6 (RFC 8200, 5)."""
    with pytest.raises(
        StartError, match=r"^MTU of eth7: 1299 is less than 1300, which IPv6 in a tunnel over IPv4 needs"
    ):
        unopened(1299)._usable_mtu_octets(front_end(settings))


# --- packets that do not fit


class Sent:
    """Stands in for the raw socket."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.packets.append(packet)


@pytest.fixture
def frontend(monkeypatch: pytest.MonkeyPatch) -> FrontEnd:
    """One with a tunnel of which nothing but this decision stands, and a clock that stands still."""
    made = unopened(MTU_OCTETS)
    made._too_big = made._too_big_untold = 0
    made._errors_allowed = Budget(ERRORS_A_SECOND, ERRORS_AT_ONCE)
    made._raw = cast(RawSender, Sent())
    made._dispatcher = Dispatcher.__new__(Dispatcher)
    made._dispatcher.carried_octets = CARRIED_OCTETS
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    return made


def sent_by(frontend: FrontEnd) -> list[bytes]:
    return cast(Sent, frontend._raw).packets


def packet(family: int, layer: object) -> bytes:
    ip = IP(src=CLIENT[4], dst=VIP[4]) if family == 4 else IPv6(src=CLIENT[6], dst=VIP[6])
    header = ip / layer
    return bytes(header / Raw(bytes(CARRIED_OCTETS + 1 - len(header))))


@pytest.mark.parametrize("family", [4, 6])
def test_segment_too_big_for_the_tunnel_its_sender_is_told_how_much_fits(frontend: FrontEnd, family: int) -> None:
    frontend._send_through_tunnel(BE1, packet(family, TCP(sport=40000, dport=80)))
    (error,) = sent_by(frontend)
    if family == 4:
        assert (IP(error)[ICMP].type, IP(error)[ICMP].code, IP(error)[ICMP].nexthopmtu) == (3, 4, CARRIED_OCTETS)
    else:
        assert IPv6(error)[ICMPv6PacketTooBig].mtu == CARRIED_OCTETS


@pytest.mark.parametrize("family", [4, 6])
def test_segments_too_big_come_in_a_flood_answers_are_limited_and_counted(
    frontend: FrontEnd, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood, beyond = packet(family, TCP(sport=40000, dport=80)), 7
    for _ in range(ERRORS_AT_ONCE + beyond):
        frontend._send_through_tunnel(BE1, flood)
    assert len(sent_by(frontend)) == ERRORS_AT_ONCE
    assert (frontend._too_big, frontend._too_big_untold) == (ERRORS_AT_ONCE + beyond, beyond)
    monkeypatch.setattr(clock, "now", lambda: 1000.0 + 3.5 / ERRORS_A_SECOND)
    for _ in range(beyond):
        frontend._send_through_tunnel(BE1, flood)
    assert len(sent_by(frontend)) == ERRORS_AT_ONCE + 3


def test_error_too_big_for_the_tunnel_is_answered_by_none(frontend: FrontEnd) -> None:
    quoted = IP(src=VIP[4], dst=CLIENT[4]) / UDP()
    frontend._send_through_tunnel(BE1, packet(4, ICMP(type=3, code=4) / quoted))
    assert (sent_by(frontend), frontend._too_big, frontend._too_big_untold) == ([], 1, 0)


# --- clients that come by another interface than the program's

OWN, OTHER = 7, 8


def queued(flags: str, indev: int) -> Packet:
    octets = bytes(IP(src=CLIENT[4], dst=VIP[4]) / TCP(sport=40000, dport=80, flags=flags))
    return cast("Packet", SimpleNamespace(get_payload=lambda: octets, indev=indev))


@pytest.mark.parametrize("is_accelerated", [False, True])
def test_syns_come_by_another_interface_it_is_told_once_and_only_where_the_kernel_carries(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_accelerated: bool
) -> None:
    made = unopened(MTU_OCTETS)
    quiet = SimpleNamespace(on_segment=lambda *_: (), settle=lambda _: None)
    made._dispatcher = cast(Dispatcher, quiet)
    made._acceleration = cast(Acceleration, quiet) if is_accelerated else None
    made._queue = cast(Any, SimpleNamespace(drop_after_burst=lambda _: None))
    made._iface_index, made._sees_all = OWN, True
    monkeypatch.setattr(made, "send_posted", lambda: None)
    monkeypatch.setattr(netlink, "name_of", {OTHER: "eth8"}.__getitem__)
    for flags, indev in (("S", OWN), ("A", OTHER)):
        made._on_packet(queued(flags, indev))
    assert caplog.messages == []
    for _ in range(2):
        made._on_packet(queued("S", OTHER))
    told = "clients come by eth8, but the kernel carries at eth7 only: this process carries what comes by others"
    assert caplog.messages == ([told] if is_accelerated else [])


# --- the end, where the kernel carries


class LastWords:
    """In the place of `Acceleration`: what it is asked for, in order, and bursts that wait in the ring meanwhile."""

    def __init__(self, *bursts: int) -> None:
        self.asked: list[str] = []
        self.carriage = SimpleNamespace(size=3)
        self._bursts = list(bursts)

    def leave(self) -> None:
        self.asked.append("leave")

    def read(self) -> list[tuple[bytes, None]]:
        return [(b"", None)] * (self._bursts.pop(0) if self._bursts else 0)

    def on_raised(self, packet: bytes, cookie: None, now: float) -> tuple[Action, ...]:
        self.asked.append("decide")
        return ()

    def settle(self, now: float) -> None:
        """Nothing is carried."""


class Forgetful(LastWords):
    """One that cannot tell the kernel anything."""

    def settle(self, now: float) -> None:
        raise ZeroDivisionError


def test_process_leaves_the_kernel_alone_what_waits_in_the_ring_is_decided_after_nothing_comes_there_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front_end, kernel = unopened(MTU_OCTETS), LastWords(2, 1)
    front_end._acceleration, front_end._raised = cast(Acceleration, kernel), 0
    monkeypatch.setattr(front_end, "send_posted", lambda: None)
    assert front_end.on_leave() == 3
    assert kernel.asked == ["leave", "decide", "decide", "decide"]


def test_kernel_cannot_be_told_what_was_decided_the_messages_of_the_burst_leave(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    front_end, kernel, left = unopened(MTU_OCTETS), Forgetful(2), list[int]()
    front_end._acceleration, front_end._raised = cast(Acceleration, kernel), 0
    front_end._faults, front_end._fault_log_at = 0, -inf
    monkeypatch.setattr(front_end, "send_posted", lambda: left.append(1))
    front_end._on_raised()
    assert (kernel.asked, left, front_end._faults) == (["decide", "decide"], [1], 1)
    assert "the kernel was not told what was decided (1 so far)" in caplog.messages
