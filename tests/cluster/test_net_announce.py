"""Announcements: a neighbour that knew the address elsewhere learns where it lives now."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpha.net.announce import announce
from tcpha.net.netlink import Neighbours
from tests.unit.net.namespaces import Host, pair, pump

pytestmark = pytest.mark.cluster


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


def ended(child: subprocess.Popen[bytes]) -> int:
    """Its exit status, collected by nobody else than the thread that announce() started."""
    pump(lambda: child.returncode is not None, [])
    return int(child.returncode)


def test_announce_neighbour_replaces_the_old_mac_for_both_families(hosts: tuple[Host, Host]) -> None:
    host, neighbour = hosts
    for addr in (host.addr4, host.addr6):
        neighbour.run(f"ip neigh add {addr} lladdr 02:00:00:00:00:99 dev {neighbour.iface} nud stale")
    words = host.run(f"ip -o link show {host.iface}").split()
    mac = bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))
    with neighbour.inside():
        table = Neighbours(neighbour.iface)
    with closing(table):
        with host.inside():
            child = announce(host.iface, [host.addr4, host.addr6])
        pump(lambda: table.mac(host.addr4) == table.mac(host.addr6) == mac, [(table, table.read)])
    assert ended(child) == 0


def test_announce_on_a_missing_interface_is_logged(hosts: tuple[Host, Host], caplog: pytest.LogCaptureFixture) -> None:
    with hosts[0].inside():
        child = announce("nowhere0", [hosts[0].addr4])
    assert ended(child) == 1
    pump(lambda: "nowhere0: No such device" in caplog.text, [])
