"""Interfaces and neighbours as the kernel knows them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tcpha.errors import StartError
from tcpha.net.netlink import Neighbours, interface_of, mtu
from tests.unit.net.namespaces import Host, pair, pump

pytestmark = pytest.mark.cluster


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


def neighbours_of(host: Host) -> Neighbours:
    with host.inside():
        return Neighbours(host.iface)


def link_address(host: Host) -> str:
    words = host.run(f"ip -o link show {host.iface}").split()
    return words[words.index("link/ether") + 1]


def test_interface_of_finds_the_holder_of_either_family(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with left.inside():
        assert interface_of(left.addr4) == left.iface
        assert interface_of(left.addr6) == left.iface
        assert interface_of(IPv4Address("127.0.0.1")) == "lo"
        assert interface_of(IPv6Address("::1")) == "lo"
        with pytest.raises(StartError, match=r"10\.77\.0\.2"):
            interface_of(right.addr4)


def test_mtu_is_that_of_the_interface(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    left.run(f"ip link set {left.iface} mtu 1400")
    with left.inside():
        assert mtu(left.iface) == 1400
        with pytest.raises(StartError, match="nowhere0"):
            mtu("nowhere0")


@pytest.mark.parametrize("family", [4, 6])
def test_solicit_unknown_neighbour_is_resolved_by_the_kernel(hosts: tuple[Host, Host], family: int) -> None:
    left, right = hosts
    addr = right.addr4 if family == 4 else right.addr6
    with closing(neighbours_of(left)) as neighbours:
        assert neighbours.mac(addr) is None
        neighbours.solicit(addr)
        changes: list[bool] = []
        pump(lambda: neighbours.mac(addr) is not None, [(neighbours, lambda: changes.append(neighbours.read()))])
        mac = neighbours.mac(addr)
    assert mac is not None
    assert mac.hex(":") == link_address(right)
    assert any(changes)
    assert neighbours.errors == 0


def test_neighbour_known_before_is_in_the_first_table(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    left.run(f"ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev {left.iface} nud permanent")
    left.run(f"ip neigh add fd77::9 lladdr 02:00:00:00:00:0a dev {left.iface} nud stale")
    with closing(neighbours_of(left)) as neighbours:
        assert neighbours.mac(ip_address("10.77.0.9")) == bytes.fromhex("020000000009")
        assert neighbours.mac(ip_address("fd77::9")) == bytes.fromhex("02000000000a")


def test_neighbour_that_changes_or_goes_is_followed(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    addr = ip_address("10.77.0.9")
    with closing(neighbours_of(left)) as neighbours:
        for octets in ("020000000001", "020000000002"):
            mac = bytes.fromhex(octets)
            left.run(f"ip neigh replace {addr} lladdr {mac.hex(':')} dev {left.iface} nud reachable")
            pump(lambda mac=mac: neighbours.mac(addr) == mac, [(neighbours, neighbours.read)])  # type: ignore[misc]
        left.run(f"ip neigh replace {addr} lladdr 02:00:00:00:00:02 dev {left.iface} nud failed")
        pump(lambda: neighbours.mac(addr) is None, [(neighbours, neighbours.read)])


def test_neighbour_repeated_without_change_read_returns_false(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    with closing(neighbours_of(left)) as neighbours:
        answers: list[bool] = []
        for state in ("reachable", "stale"):
            left.run(f"ip neigh replace 10.77.0.9 lladdr 02:00:00:00:00:09 dev {left.iface} nud {state}")
            answers.append(neighbours.read())
    assert answers == [True, False]


@pytest.mark.parametrize("state", ["incomplete", "noarp", "none"])
def test_neighbour_in_an_unusable_state_is_unknown(hosts: tuple[Host, Host], state: str) -> None:
    left, _ = hosts
    left.run(f"ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev {left.iface} nud {state}")
    with closing(neighbours_of(left)) as neighbours:
        assert neighbours.mac(ip_address("10.77.0.9")) is None


def test_neighbour_on_another_interface_and_own_address_are_unknown(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    left.run("ip link add other type veth peer name other2")
    left.run("ip link set other up")
    left.run("ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev other nud permanent")
    with closing(neighbours_of(left)) as neighbours:
        assert neighbours.mac(ip_address("10.77.0.9")) is None
        assert neighbours.mac(left.addr4) is None
        assert neighbours.mac(left.addr6) is None


def test_interface_is_made_again_its_table_is_that_of_the_new_one(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    left.run(f"ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev {left.iface} nud permanent")
    with closing(neighbours_of(left)) as neighbours, left.inside():
        left.run(f"ip link delete {left.iface}")
        left.run(f"ip link add {left.iface} type veth peer name other")
        left.run(f"ip link set {left.iface} up")
        left.run(f"ip neigh add 10.77.0.8 lladdr 02:00:00:00:00:08 dev {left.iface} nud permanent")
        neighbours.follow()
        assert neighbours.mac(ip_address("10.77.0.9")) is None
        assert neighbours.mac(ip_address("10.77.0.8")) == bytes.fromhex("020000000008")
        left.run(f"ip neigh add 10.77.0.7 lladdr 02:00:00:00:00:07 dev {left.iface} nud permanent")
        pump(lambda: neighbours.mac(ip_address("10.77.0.7")) is not None, [(neighbours, neighbours.read)])


def test_notifications_lost_table_is_asked_for_again(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    with closing(neighbours_of(left)) as neighbours:
        batch = "".join(
            f"neigh replace 10.77.{n >> 8}.{n & 255} lladdr 02:00:00:00:{n >> 8:02x}:{n & 255:02x}"
            f" dev {left.iface} nud permanent\n"
            for n in range(256, 4096)
        )
        with left.inside():
            subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        neighbours.read()
        assert neighbours.overruns > 0
        for n in (256, 2000, 4095):
            addr = ip_address(f"10.77.{n >> 8}.{n & 255}")
            assert neighbours.mac(addr) == bytes((2, 0, 0, 0, n >> 8, n & 255))


def test_more_notifications_than_a_burst_the_rest_waits_for_the_next_read(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    addr = ip_address("10.77.0.9")
    with closing(neighbours_of(left)) as neighbours:
        for number in range(1, 6):
            left.run(f"ip neigh replace {addr} lladdr 02:00:00:00:00:{number:02x} dev {left.iface} nud permanent")
        assert neighbours.read(burst=2)
        assert neighbours.mac(addr) == bytes((2, 0, 0, 0, 0, 2))
        assert neighbours.read(burst=2)
        assert neighbours.read(burst=2)
        assert neighbours.mac(addr) == bytes((2, 0, 0, 0, 0, 5))
        assert not neighbours.read(burst=2)


def test_solicit_that_the_kernel_refuses_is_counted(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    with closing(neighbours_of(left)) as neighbours:
        left.run(f"ip link delete {left.iface}")
        neighbours.solicit(right.addr4)
        pump(lambda: neighbours.errors > 0, [(neighbours, neighbours.read)])


def test_neighbours_of_a_missing_interface_is_a_start_error(hosts: tuple[Host, Host]) -> None:
    with hosts[0].inside(), pytest.raises(StartError, match="nowhere0"):
        Neighbours("nowhere0")
