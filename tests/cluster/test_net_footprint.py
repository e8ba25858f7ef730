"""What a process puts on a host and takes away again, on hosts that are compared before and after."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tcpha.net import bpf_namespace, pins, sysctl
from tcpha.net.footprint import Footprint, Plan, Role
from tcpha.net.netlink import Neighbours
from tests.unit.net.footprints import (
    MARK,
    ROLES,
    VIP4,
    VIP6,
    install_and_kill,
    plan_of,
    rules_of,
    traces_of,
    with_others_on_it,
)
from tests.unit.net.namespaces import Host, pair, pump, until

pytestmark = pytest.mark.cluster


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@pytest.fixture
def host(hosts: tuple[Host, Host]) -> Host:
    return hosts[0]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_install_then_remove_host_is_as_before(host: Host, state: Path, role: Role, others: bool) -> None:
    if others:
        with_others_on_it(host)
    before = traces_of(host)
    footprint = Footprint(role, state)
    with host.inside():
        footprint.install(plan_of(host))
        during = traces_of(host)
        footprint.install(plan_of(host))
        assert traces_of(host) == during
        footprint.remove()
        assert traces_of(host) == before
        footprint.remove()
    assert traces_of(host) == before
    assert f'--comment "tcpha {role}"' in during
    assert str(VIP4) in during
    assert str(VIP6) in during
    assert not list(state.glob("*.json"))


@pytest.mark.parametrize("recorded", [True, False])
def test_remove_takes_away_what_is_pinned_for_namespaces_that_are_gone(
    host: Host, state: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """Containers share the bpf file system of their host, which may have nothing else of theirs."""
    looked: list[Path] = []

    def remove_left(place: Path) -> int:
        looked.append(place)
        return 2

    monkeypatch.setattr(bpf_namespace, "remove_left", remove_left)
    with host.inside():
        own, _ = pins.places("fe", state)
        footprint = Footprint("fe", state)
        if recorded:
            footprint.install(plan_of(host))
        assert "what was pinned for network namespaces that are gone: 2" in footprint.remove()
    assert looked == [own]


def test_front_end_rules_in_their_order(host: Host, state: Path) -> None:
    with host.inside():
        Footprint("fe", state).install(plan_of(host, VIP4))
    ours = [line for line in rules_of(host).splitlines() if line.startswith("-A")]
    assert ours == [
        '-A PREROUTING -s 10.77.0.100/32 -p tcp -m comment --comment "tcpha fe"',
        '-A PREROUTING -d 10.77.0.100/32 ! -i lo -p tcp -m tcp --dport 80 -m comment --comment "tcpha fe"'
        " -j NFQUEUE --queue-num 660",
        '-A PREROUTING -d 10.77.0.100/32 ! -i lo -p tcp -m tcp --dport 443 -m comment --comment "tcpha fe"'
        " -j NFQUEUE --queue-num 660",
        *(
            f"-A PREROUTING -d 10.77.0.100/32 ! -i lo -p icmp -m icmp --icmp-type {kind}"
            ' -m comment --comment "tcpha fe" -j NFQUEUE --queue-num 660'
            for kind in (3, 11, 12)
        ),
        '-A OUTPUT -s 10.77.0.100/32 -p tcp -m tcp --sport 80 -m comment --comment "tcpha fe" -j CT --notrack',
        '-A OUTPUT -s 10.77.0.100/32 -p tcp -m tcp --sport 443 -m comment --comment "tcpha fe" -j CT --notrack',
        '-A OUTPUT -s 10.77.0.100/32 -p icmp -m icmp --icmp-type 3/4 -m comment --comment "tcpha fe" -j CT --notrack',
    ]


def test_back_end_rules_leave_marked_packets_and_lo_alone(host: Host, state: Path) -> None:
    with host.inside():
        Footprint("be", state).install(Plan(host.iface, (VIP6,), (80,), 664, MARK))
    ours = [line for line in rules_of(host).splitlines() if line.startswith("-A")]
    assert ours == [
        "-A POSTROUTING -s fd77::100/128 ! -o lo -p tcp -m tcp --sport 80 -m mark ! --mark 0x7c0a"
        ' -m comment --comment "tcpha be" -j NFQUEUE --queue-num 665',
        "-A PREROUTING -d fd77::100/128 ! -i lo -p tcp -m tcp --dport 80 -m mark ! --mark 0x7c0a"
        ' -m comment --comment "tcpha be" -j NFQUEUE --queue-num 664',
        *(
            f"-A PREROUTING -d fd77::100/128 ! -i lo -p ipv6-icmp -m icmp6 --icmpv6-type {kind}"
            ' -m mark ! --mark 0x7c0a -m comment --comment "tcpha be" -j NFQUEUE --queue-num 664'
            for kind in (1, 2, 3, 4)
        ),
    ]


def test_front_end_counts_packets_from_the_virtual_address(hosts: tuple[Host, Host], state: Path) -> None:
    host, neighbour = hosts
    with host.inside():
        Footprint("fe", state).install(plan_of(host, VIP4))
    neighbour.run(f"ip addr add {VIP4}/32 dev lo")
    # Else it asks for our MAC in the name of an address that we hold, and is not answered.
    neighbour.run(f"sysctl -w net.ipv4.conf.{neighbour.iface}.arp_announce=2")
    with neighbour.inside(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as source:
        source.setblocking(False)
        source.bind((str(VIP4), 0))
        source.connect_ex((str(host.addr4), 80))
        until(lambda: re.search(r"\[[1-9]\d*:\d+\] -A PREROUTING -s 10", host.run("iptables-save -c")) is not None)


@pytest.mark.parametrize("role", ROLES)
def test_killed_process_next_footprint_removes_what_it_left(host: Host, state: Path, role: Role) -> None:
    with_others_on_it(host)
    before = traces_of(host)
    install_and_kill(host, role, state, VIP4, VIP6)
    assert traces_of(host) != before
    with host.inside():
        Footprint(role, state).remove()
    assert traces_of(host) == before


@pytest.mark.parametrize("role", ROLES)
def test_killed_process_next_run_keeps_what_is_right_and_restores_the_true_originals(
    host: Host, state: Path, role: Role
) -> None:
    with_others_on_it(host)
    before = traces_of(host)
    install_and_kill(host, role, state, VIP4, VIP6)
    left = traces_of(host)
    with host.inside():
        # Whoever reads this hears of every address that goes or comes meanwhile.
        with subprocess.Popen(["ip", "monitor", "addr"], stdout=subprocess.PIPE, text=True) as monitor:
            try:
                footprint = Footprint(role, state)
                footprint.install(plan_of(host))
                assert traces_of(host) == left
                host.run(f"ip addr add 10.77.0.55/32 dev {host.iface}")
                host.run(f"ip addr del 10.77.0.55/32 dev {host.iface}")
                assert monitor.stdout is not None
                assert "10.77.0.55" in monitor.stdout.readline()
            finally:
                monitor.kill()
        footprint.remove()
    assert traces_of(host) == before


@pytest.mark.parametrize("role", ROLES)
def test_killed_process_next_run_with_another_plan_removes_what_is_not_in_it(
    host: Host, state: Path, role: Role
) -> None:
    before = traces_of(host)
    install_and_kill(host, role, state, VIP4, VIP6, IPv4Address("10.77.0.101"))
    other = IPv4Address("10.77.0.102")
    with host.inside():
        footprint = Footprint(role, state)
        footprint.install(plan_of(host, other))
        during = traces_of(host)
        footprint.remove()
    assert "10.77.0.102" in during
    for gone in ("10.77.0.100", "10.77.0.101", "fd77::100"):
        assert gone not in during
    assert traces_of(host) == before


def test_state_of_another_namespace_is_not_believed(hosts: tuple[Host, Host], state: Path) -> None:
    host, neighbour = hosts
    install_and_kill(neighbour, "be", state, VIP4)
    host.run(f"ip addr add {VIP4}/32 dev lo")
    before = traces_of(host)
    with host.inside():
        Footprint("be", state).remove()
    assert traces_of(host) == before


@pytest.mark.parametrize("role", ROLES)
def test_address_that_was_there_before_stays(host: Host, state: Path, role: Role) -> None:
    host.run(f"ip addr add {VIP4}/32 dev lo")
    host.run(f"ip addr add {VIP6}/128 dev {'lo' if role == 'be' else host.iface} nodad")
    before = traces_of(host)
    with host.inside():
        footprint = Footprint(role, state)
        footprint.install(plan_of(host))
        assert host.run("ip -o addr").count(str(VIP4)) == 1
        assert host.run("ip -o addr").count(f"{VIP6}/") == 1
        footprint.remove()
    assert traces_of(host) == before


def test_front_ends_address_was_there_before_a_warning_says_so_unless_a_killed_process_left_it(
    host: Host, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install_and_kill(host, "fe", state, VIP4, VIP6)
    host.run(f"ip addr add 10.77.0.101/24 dev {host.iface}")
    with host.inside():
        Footprint("fe", state).install(plan_of(host, VIP4, VIP6, IPv4Address("10.77.0.101")))
    told = f"10.77.0.101 is on {host.iface} already, where it stays in the end: tcpha would put it there itself"
    assert caplog.messages == [told]


@pytest.mark.parametrize(("first", "second", "whose"), [("be", "fe", "back end"), ("fe", "be", "front end")])
def test_address_is_the_other_roles_a_warning_says_that_it_goes_with_that_one(
    host: Host, state: Path, caplog: pytest.LogCaptureFixture, first: Role, second: Role, whose: str
) -> None:
    before = traces_of(host)
    theirs, own = Footprint(first, state), Footprint(second, state)
    with host.inside():
        theirs.install(plan_of(host, VIP4))
        own.install(plan_of(host, VIP4))
        told = f"{VIP4} is on lo already, by this host's {whose}: "
        told += "it is gone when that ends, until this process starts again"
        assert caplog.messages == [told]
        theirs.remove()
        assert str(VIP4) not in host.run("ip -o addr")
        own.install(plan_of(host, VIP4))
        assert caplog.messages == [told]
        assert str(VIP4) in host.run("ip -o addr")
        own.remove()
    assert traces_of(host) == before


def test_front_end_answers_for_its_addresses(hosts: tuple[Host, Host], state: Path) -> None:
    host, neighbour = hosts
    words = host.run(f"ip -o link show {host.iface}").split()
    mac = bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))
    with neighbour.inside():
        table = Neighbours(neighbour.iface)
    with closing(table):
        with host.inside():
            Footprint("fe", state).install(plan_of(host))
        for vip in (VIP4, VIP6):
            table.solicit(vip)
            pump(lambda vip=vip: table.mac(vip) == mac, [(table, table.read)])  # type: ignore[misc]


@pytest.mark.parametrize("role", ROLES)
def test_ipv6_address_is_no_source_of_the_hosts_own_connections(host: Host, state: Path, role: Role) -> None:
    with host.inside():
        Footprint(role, state).install(plan_of(host))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            # Of two addresses on the link, the one with more bits in common would be taken otherwise.
            probe.connect(("fd77::101", 9))
            assert probe.getsockname()[0] == str(host.addr6)
    assert f"{VIP6}/128 scope global nodad deprecated" in host.run("ip -o -6 addr show")


def test_back_end_neither_answers_arp_for_addresses_of_lo_nor_asks_in_their_name(host: Host, state: Path) -> None:
    name = f"ipv4/conf/{host.iface}/arp_"
    with host.inside():
        sysctl.write(name + "announce", "1")
        footprint = Footprint("be", state)
        footprint.install(plan_of(host))
        assert (sysctl.read(name + "ignore"), sysctl.read(name + "announce")) == ("1", "2")
        footprint.remove()
        assert (sysctl.read(name + "ignore"), sysctl.read(name + "announce")) == ("0", "1")


def test_back_ends_interface_is_lo_nothing_is_set_there_and_a_warning_says_what_that_means(
    host: Host, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = host.run("sysctl net.ipv4.conf.lo.arp_ignore net.ipv4.conf.lo.arp_announce")
    with host.inside():
        Footprint("be", state).install(Plan("lo", (VIP4,), (80,), 660, MARK))
    assert host.run("sysctl net.ipv4.conf.lo.arp_ignore net.ipv4.conf.lo.arp_announce") == before
    assert [line for line in caplog.messages if "keeps other interfaces from answering ARP" in line]


def test_back_end_keeps_a_setting_that_is_silent_already(host: Host, state: Path) -> None:
    with host.inside():
        sysctl.write(f"ipv4/conf/{host.iface}/arp_ignore", "8")
        Footprint("be", state).install(plan_of(host))
        assert sysctl.read(f"ipv4/conf/{host.iface}/arp_ignore") == "8"


def test_all_interfaces_are_silent_already_back_end_changes_none(host: Host, state: Path) -> None:
    """In a container only who starts it can set anything, and nothing of a single interface."""
    with host.inside():
        sysctl.write("ipv4/conf/all/arp_ignore", "1")
        sysctl.write("ipv4/conf/all/arp_announce", "2")
        Footprint("be", state).install(plan_of(host))
        for name in ("ignore", "announce"):
            assert sysctl.read(f"ipv4/conf/{host.iface}/arp_{name}") == "0"


@pytest.mark.parametrize(("before", "during"), [("9", "14"), ("0", "0"), ("12", "12")])
def test_back_ends_packets_are_large_below_16_ms_unless_somebody_chose_otherwise(
    before: str, during: str, host: Host, state: Path
) -> None:
    with host.inside():
        sysctl.write("ipv4/tcp_tso_rtt_log", before)
        footprint = Footprint("be", state)
        footprint.install(plan_of(host))
        assert sysctl.read("ipv4/tcp_tso_rtt_log") == during
        footprint.release()  # as a killed process leaves it
        footprint = Footprint("be", state)
        footprint.install(plan_of(host))
        assert sysctl.read("ipv4/tcp_tso_rtt_log") == during
        footprint.remove()
        assert sysctl.read("ipv4/tcp_tso_rtt_log") == before


def test_front_end_leaves_the_size_of_packets_alone(host: Host, state: Path) -> None:
    with host.inside():
        sysctl.write("ipv4/tcp_tso_rtt_log", "9")
        Footprint("fe", state).install(plan_of(host))
        assert sysctl.read("ipv4/tcp_tso_rtt_log") == "9"


def test_back_end_is_silent_about_its_addresses(hosts: tuple[Host, Host], state: Path) -> None:
    host, neighbour = hosts
    with host.inside():
        Footprint("be", state).install(plan_of(host))
    with neighbour.inside():
        table = Neighbours(neighbour.iface)
    with closing(table):
        for vip in (VIP4, VIP6):
            table.solicit(vip)
            # The kernel asks three times and gives up.
            until(lambda vip=vip: "FAILED" in neighbour.run(f"ip neigh show to {vip}"))  # type: ignore[misc]
            table.read()
            assert table.mac(vip) is None
