"""What is seen of a host that others change: addresses, settings, interfaces; and what it tells without being asked."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.net import sysctl
from tcpha.net.footprint import Role
from tcpha.net.host_watch import HostWatch
from tcpha.net.restoring import RestoringFootprint
from tcpha.upkeep import LostAddress, LostSetting
from tests.unit.net.footprints import ROLES, VIP4, VIP6, plan_of, traces_of
from tests.unit.net.namespaces import Host, pair, until

pytestmark = pytest.mark.cluster

MARK = 0x7C0B


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as (first, _):
        yield first


@contextmanager
def watched(host: Host, role: Role, state: Path) -> Iterator[tuple[HostWatch, RestoringFootprint]]:
    """All is installed, and what that caused is read. In the end all is taken away."""
    plan = replace(plan_of(host), kernel_mark=MARK)
    footprint = RestoringFootprint(role, state)
    with host.inside():
        footprint.install(plan)
        with closing(HostWatch(role, plan)) as watch:
            assert watch.interface() is not None
            yield watch, footprint
        footprint.remove()


@pytest.mark.parametrize("room", [0, 1, 2])
def test_no_descriptor_is_left_the_fault_says_what_is_not_told_and_none_stays_open(host: Host, room: int) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    with host.inside():
        before, (soft, hard) = opened(), resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(0) for _ in range(20)]  # whatever is free below them: beneath the limit `room` is left
        for each in taken[:room]:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
        try:
            with pytest.raises(EdgeError, match="are not told"):
                HostWatch("be", plan_of(host))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in taken[room:]:
                os.close(each)
        assert opened() == before


@pytest.mark.parametrize("role", ROLES)
def test_all_is_there_nothing_is_lost(host: Host, tmp_path: Path, role: Role) -> None:
    with watched(host, role, tmp_path) as (watch, _):
        assert (watch.lost_addresses(), watch.lost_settings(), watch.read()) == ([], [], False)


@pytest.mark.parametrize("role", ROLES)
def test_addresses_are_taken_off_that_is_told_they_are_put_back_and_the_host_is_as_before(
    host: Host, tmp_path: Path, role: Role
) -> None:
    before = traces_of(host)
    holder = host.iface if role == "fe" else "lo"
    with watched(host, role, tmp_path) as (watch, footprint):
        during = traces_of(host)
        host.run(f"ip addr del {VIP4}/32 dev lo")
        host.run(f"ip addr del {VIP6}/128 dev {holder}")
        assert watch.read()
        assert watch.lost_addresses() == [LostAddress(str(VIP4), "lo"), LostAddress(str(VIP6), holder)]
        for addr in (VIP4, VIP6):
            footprint.put_back_address(plan_of(host), str(addr))
        assert sorted(traces_of(host).splitlines()) == sorted(during.splitlines())
        assert watch.lost_addresses() == []
    assert traces_of(host) == before


def test_front_ends_ipv4_address_is_elsewhere_that_will_do(host: Host, tmp_path: Path) -> None:
    with watched(host, "fe", tmp_path) as (watch, _):
        host.run(f"ip addr del {VIP4}/32 dev lo")
        host.run(f"ip addr add {VIP4}/32 dev {host.iface}")
        assert watch.lost_addresses() == []


def test_back_ends_address_is_put_where_arp_is_answered_that_is_told_and_named(host: Host, tmp_path: Path) -> None:
    with watched(host, "be", tmp_path) as (watch, _):
        host.run(f"ip addr add {VIP4}/32 dev {host.iface}")
        assert watch.read()
        assert watch.lost_addresses() == [LostAddress(str(VIP4), "lo", host.iface)]


def test_back_ends_settings_are_written_they_are_put_back_and_the_host_is_as_before(host: Host, tmp_path: Path) -> None:
    names = [*(f"ipv4/conf/{host.iface}/arp_{each}" for each in ("ignore", "announce")), "ipv4/tcp_fwmark_accept"]
    before = traces_of(host), host.run("sysctl net.ipv4.tcp_fwmark_accept")
    with watched(host, "be", tmp_path) as (watch, footprint):
        for name in names:
            sysctl.write(name, "0")
        assert watch.lost_settings() == [LostSetting(name) for name in names]
        footprint.put_back_settings(replace(plan_of(host), kernel_mark=MARK))
        assert watch.lost_settings() == []
    assert (traces_of(host), host.run("sysctl net.ipv4.tcp_fwmark_accept")) == before


def test_interface_changes_that_is_told_and_seen(host: Host, tmp_path: Path) -> None:
    with watched(host, "be", tmp_path) as (watch, _):
        before = watch.interface()
        assert before is not None
        host.run(f"ip link set {host.iface} address 02:00:5e:00:53:17")
        assert watch.read()
        assert watch.interface() == replace(before, mac=bytes.fromhex("02005e005317"))
        host.run(f"ip link set {host.iface} down")
        assert watch.read()
        host.run(f"ip link delete {host.iface}")
        assert watch.read()
        assert (watch.interface(), watch.lost_settings()) == (None, [])
        host.run(f"ip link add {host.iface} type veth peer name other0")
        assert watch.read()
        after = watch.interface()
        assert after is not None
        assert after.index != before.index
        assert not after.is_up
        assert LostSetting(f"ipv4/conf/{host.iface}/arp_ignore") in watch.lost_settings()


def test_others_change_what_is_theirs_nothing_is_told(host: Host, tmp_path: Path) -> None:
    with watched(host, "fe", tmp_path) as (watch, _):

        def is_told_nothing() -> bool:
            """Of the interface itself the kernel may tell late that it is up."""
            host.run("ip link add other0 type veth peer name other1")
            host.run("ip link delete other0")
            host.run(f"ip addr add 10.77.9.9/32 dev {host.iface}")
            host.run(f"ip addr del 10.77.9.9/32 dev {host.iface}")
            return not watch.read()

        until(is_told_nothing)


def test_so_much_changes_that_some_is_lost_that_is_told(host: Host, tmp_path: Path) -> None:
    with watched(host, "fe", tmp_path) as (watch, _):
        lines = tmp_path / "lines"
        add = [
            f"addr {what} 10.99.{at >> 8}.{at & 255}/32 dev {host.iface}\n"
            for at in range(4096)
            for what in ("add", "del")
        ]
        lines.write_text("".join(add))
        host.run(f"ip -batch {lines}")
        until(watch.read)
