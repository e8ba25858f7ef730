"""The health check: the kernel's tables -> well, or what is wrong. The lines are those of a real kernel."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tcpha.container import health
from tcpha.container.health import Look, Wanted, check, fault_of

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  221: 172412C6:029A 00000000:0000 07 00000000:{waiting:08X} 00:00000000 00000000   999        0 5 2 0000000000000000 0
"""
UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
    1: 000000FD0000000000000000{last}:029A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000
"""
QUEUES = (
    "  664    182 {arriving}  2 65531     0 {lost} {last}  1\n  665 1200182     0  2 65535     0     0       97  1\n"
)
BACK_END = Wanted("198.18.36.23", 666, (664, 665))

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the lines below are of such a machine")


def look(*, octets: int = 0, arriving: int = 0, last: int = 41, lost: int = 0) -> Look:
    """Octets wait at the socket, packets in the first queue, whose last had this id; so many its reader lost."""
    return Look(UDP.format(waiting=octets), QUEUES.format(arriving=arriving, last=last, lost=lost))


def test_everything_is_read_nothing_is_wrong() -> None:
    assert fault_of(BACK_END, [look()]) is None


def test_messages_wait_it_is_told_how_much() -> None:
    fault = fault_of(BACK_END, [look(octets=0x900)])
    assert fault == "messages wait unread on 198.18.36.23 port 666 (2304 octets)"


@pytest.mark.parametrize("wanted", [Wanted("198.18.36.24", 666, ()), Wanted("198.18.36.23", 667, ())])
def test_socket_is_another_nobody_listens(wanted: Wanted) -> None:
    fault = fault_of(wanted, [look()])
    assert fault == f"nobody listens for messages on {wanted.address} port {wanted.port}"


def test_packets_wait_the_queue_is_named() -> None:
    fault = fault_of(BACK_END, [look(arriving=12)])
    assert fault == "12 packets wait unread in queue 664"


def test_queue_is_missing_it_is_named() -> None:
    first = look().queues.splitlines()[0]
    assert fault_of(BACK_END, [look(), Look(look().udp, first)]) == "nobody reads packet queue 665"


def test_address_is_ipv6_it_is_found_as_the_kernel_spells_it() -> None:
    wanted = Wanted("fd00::102:304", 666, ())
    assert fault_of(wanted, [Look(UDP6.format(last="04030201"), "")]) is None
    assert fault_of(wanted, [Look(UDP6.format(last="05030201"), "")]) is not None


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET if "." in request.param else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.bind((request.param, 0))
        yield made


def test_socket_is_real_the_kernels_own_table_tells(listener: socket.socket) -> None:
    address, port = listener.getsockname()[:2]
    table = Path("/proc/self/net", "udp" if ip_address(address).version == 4 else "udp6")
    wanted = Wanted(address, port, ())
    assert fault_of(wanted, [Look(table.read_text(), "")]) is None
    listener.sendto(b"x", listener.getsockname())
    fault = fault_of(wanted, [Look(table.read_text(), "")])
    assert fault is not None
    assert "wait unread" in fault
    listener.recv(1)
    assert fault_of(wanted, [Look(table.read_text(), "")]) is None


BUSY = [
    [look(arriving=5, last=41), look(arriving=5, last=60)],
    [look(octets=9, arriving=5), look(octets=0, arriving=5), look(octets=9, arriving=4)],
    [look(octets=9), look(arriving=5), look(octets=9, arriving=5)],
]


@pytest.mark.parametrize("looks", BUSY)
def test_each_is_read_at_some_moment_though_never_all_are_empty_at_once_all_is_well(looks: list[Look]) -> None:
    assert [fault_of(BACK_END, [each]) is None for each in looks] == [False] * len(looks)
    assert fault_of(BACK_END, looks) is None


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([look(arriving=5, last=41), look(arriving=9, last=45)], "9 packets wait unread in queue 664"),
        ([look(arriving=5, last=41), look(arriving=5, last=60, lost=19)], "5 packets wait unread in queue 664"),
        ([look(octets=9), look(octets=8)], "messages wait unread on 198.18.36.23 port 666 (8 octets)"),
        ([look(octets=9, arriving=5), look(arriving=5)], "5 packets wait unread in queue 664"),
        ([look(), Look("\n", look().queues)], "nobody listens for messages on 198.18.36.23 port 666"),
    ],
)
def test_one_of_them_is_not_read_from_first_look_to_last_that_is_told(looks: list[Look], said: str) -> None:
    assert fault_of(BACK_END, looks) == said


def test_what_waits_is_read_a_moment_later_all_is_well() -> None:
    looks = iter([look(octets=9), look()])
    assert check(BACK_END, lambda: next(looks), limit_s=60) is None


def test_what_waits_is_never_read_the_last_fault_is_told() -> None:
    looked: list[int] = []

    def full() -> Look:
        looked.append(1)
        return look(octets=len(looked))

    fault = check(BACK_END, full, limit_s=0.2)
    assert fault == f"messages wait unread on 198.18.36.23 port 666 ({len(looked)} octets)"
    assert len(looked) > 1


def test_nothing_was_prepared_the_check_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.main(tmp_path) == 1
    assert capsys.readouterr().err == f"{tmp_path}/health.json: {os.strerror(2)}\n"


def test_nobody_listens_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tmp_path / "net"
    (net / "netfilter").mkdir(parents=True)
    (net / "udp").write_text(look().udp)
    (net / "netfilter/nfnetlink_queue").write_text(look().queues)
    monkeypatch.setattr(health, "_NET", net)
    monkeypatch.setattr(health, "LIMIT_S", 0.0)
    described = {"address": "198.18.36.23", "port": 666, "queues": [664, 665]}
    (tmp_path / "health.json").write_text(json.dumps(described))
    assert health.main(tmp_path) == 0
    (tmp_path / "health.json").write_text(json.dumps(described | {"queues": [1]}))
    assert health.main(tmp_path) == 1
    assert capsys.readouterr().err == "nobody reads packet queue 1\n"
