from __future__ import annotations

from ipaddress import ip_address

from tcpha.be.actions import Announce, Inject
from tcpha.be.probe import _FIRST_PORT, _PORTS, Probe
from tcpha.proto.ip import key_addresses, key_ports
from tcpha.proto.messages import ServerState
from tcpha.proto.tcp import decode_segment

UNUSED, VIP4, VIP6 = (ip_address(each) for each in ("192.0.2.9", "192.0.2.1", "2001:db8::1"))


def syns(actions: list[object]) -> list[bytes]:
    return [action.packet for action in actions if isinstance(action, Inject)]


def test_target_of_a_family_without_source_stays_unknown() -> None:
    probe = Probe([UNUSED], [VIP4, VIP6], [80], 1.0)
    announced = 0
    for tenth in range(50):
        actions = probe.on_timer(tenth / 10)
        assert all(packet[0] >> 4 == 4 for packet in syns([*actions]))
        announced += sum(isinstance(action, Announce) for action in actions)
    assert [server.state for server in probe.servers] == [ServerState.SILENT, ServerState.UNKNOWN]
    assert announced == 1


def test_first_source_of_a_family_is_used() -> None:
    probe = Probe([ip_address("192.0.2.7"), UNUSED], [VIP4], [80], 1.0)
    (packet,) = syns([*probe.on_timer(0.0)])
    assert key_addresses(decode_segment(packet).key)[0] == ip_address("192.0.2.7").packed


def test_every_address_and_port_is_asked() -> None:
    probe = Probe([UNUSED], [VIP4, ip_address("192.0.2.2")], [80, 8080], 1.0)
    keys = [decode_segment(packet).key for packet in syns([*probe.on_timer(0.0)])]
    assert [(str(ip_address(key_addresses(key)[1])), key_ports(key)[1]) for key in keys] == [
        ("192.0.2.1", 80),
        ("192.0.2.1", 8080),
        ("192.0.2.2", 80),
        ("192.0.2.2", 8080),
    ]


def test_ports_cycle_and_stay_valid() -> None:
    probe = Probe([UNUSED], [VIP4], [80], 0.05)
    ports = []
    probe._round = _PORTS - 3
    for number in range(6):
        ports += [key_ports(decode_segment(packet).key)[0] for packet in syns([*probe.on_timer(number * 0.05)])]
    last = _FIRST_PORT + _PORTS - 1
    assert ports == [last - 1, last, _FIRST_PORT, _FIRST_PORT + 1, _FIRST_PORT + 2, _FIRST_PORT + 3]
    assert last < 1 << 16


def test_deadline_is_the_end_of_waiting_then_the_next_round() -> None:
    probe = Probe([UNUSED], [VIP4], [80], 1.0)
    assert probe.next_deadline() == 0.0
    probe.on_timer(10.0)
    assert probe.next_deadline() == 10.25
    probe.on_timer(10.25)
    assert probe.next_deadline() == 11.0


def test_short_interval_waits_for_half_of_it() -> None:
    probe = Probe([UNUSED], [VIP4], [80], 0.1)
    probe.on_timer(0.0)
    assert probe.next_deadline() == 0.05


def test_late_timer_counts_the_miss_before_the_next_round() -> None:
    probe = Probe([UNUSED], [VIP4], [80], 1.0)
    probe.on_timer(0.0)
    probe.on_timer(5.0)
    assert [type(action) for action in probe.on_timer(10.0)] == [Announce, Inject]
    assert probe.servers[0].state is ServerState.SILENT
