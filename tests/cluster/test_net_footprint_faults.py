"""A footprint that cannot be made or removed as planned, and what others left or changed meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

import pytest

from tcpha.errors import EdgeError, StartError
from tcpha.net import firewall, link, occupancy, pins, sysctl
from tcpha.net.footprint import Footprint, Plan, Role
from tests.unit.net.footprints import (
    MARK,
    ROLES,
    VIP4,
    install_and_kill,
    plan_of,
    rules_of,
    traces_of,
)
from tests.unit.net.namespaces import Host, pair

pytestmark = pytest.mark.cluster

SQUAT = """
import socket, sys
held = socket.socket(socket.AF_UNIX)
held.bind("\\0tcpha fe")
askers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
if sys.argv[1] != "unheard":
    held.listen(0 if sys.argv[1] == "full" else 8)
if sys.argv[1] == "full":
    for each in askers:
        each.setblocking(False)
        each.connect_ex("\\0tcpha fe")
print("held", flush=True)
sys.stdin.read()
"""
"""Who does not listen is asked in vain, and so is who has been asked too often."""


@contextmanager
def squatting(manner: str, *, uid: int) -> Iterator[int]:
    """A process of `uid` holds the front end's name; its process number."""
    words = ["setpriv", f"--reuid={uid}", "--clear-groups", sys.executable, "-c", SQUAT, manner]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as squatter:
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == "held\n"
            yield squatter.pid
        finally:
            squatter.kill()


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


def test_failure_half_way_everything_is_rolled_back(host: Host, state: Path) -> None:
    host.run("sysctl -w net.ipv6.conf.lo.disable_ipv6=1")
    before = traces_of(host)
    with host.inside(), pytest.raises(StartError, match="fd77::100 cannot be put on lo"):
        Footprint("be", state).install(plan_of(host))
    assert traces_of(host) == before
    assert not list(state.glob("*.json"))


def test_iptables_missing_is_a_start_error_that_names_the_package(
    host: Host, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = traces_of(host)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with host.inside(), pytest.raises(StartError, match="install the package iptables"):
        Footprint("fe", state).install(plan_of(host))
    monkeypatch.undo()
    assert traces_of(host) == before


def test_rule_that_iptables_refuses_is_a_start_error_with_its_words(host: Host, state: Path) -> None:
    before = traces_of(host)
    with host.inside(), pytest.raises(StartError, match=r"iptables-restore failed: .*70000"):
        Footprint("fe", state).install(Plan(host.iface, (VIP4,), (70000,), 660, MARK))
    assert traces_of(host) == before


def test_interface_missing_is_a_start_error(host: Host, state: Path) -> None:
    with host.inside(), pytest.raises(StartError, match="no interface nowhere0"):
        Footprint("fe", state).install(Plan("nowhere0", (VIP4,), (80,), 660, MARK))


def test_back_end_whose_address_is_on_an_interface_is_a_start_error(host: Host, state: Path) -> None:
    host.run(f"ip addr add {VIP4}/24 dev {host.iface}")
    with host.inside(), pytest.raises(StartError, match="must hold it on lo only"):
        Footprint("be", state).install(plan_of(host))


def test_back_end_where_all_interfaces_answer_arp_is_a_start_error(host: Host, state: Path) -> None:
    host.run("sysctl -w net.ipv4.conf.all.arp_ignore=3")
    before = traces_of(host)
    with host.inside(), pytest.raises(StartError, match="arp_ignore = 3"):
        Footprint("be", state).install(plan_of(host))
    assert traces_of(host) == before


def test_second_process_in_the_same_role_is_refused_until_the_first_lets_go(host: Host, state: Path) -> None:
    first, second = Footprint("fe", state), Footprint("fe", state)
    with host.inside():
        first.install(plan_of(host))
        during = traces_of(host)
        with pytest.raises(StartError, match="another process"):
            second.install(plan_of(host))
        with pytest.raises(StartError, match="another process"):
            second.remove()
        assert traces_of(host) == during
        first.release()
        assert traces_of(host) == during
        second.remove()
    assert str(VIP4) not in traces_of(host)


def test_other_process_with_another_state_runs_here_nothing_is_changed_until_it_lets_go(
    hosts: tuple[Host, Host], state: Path
) -> None:
    """Rules, addresses and pins are the network namespace's, not the state directory's."""
    host, neighbour = hosts
    first, second = Footprint("fe", state), Footprint("fe", state.parent / "other")
    complaint = f"another process in this role runs in this network namespace: process {os.getpid()}$"
    with host.inside():
        first.install(plan_of(host))
        during = traces_of(host)
        for attempt in (lambda: second.install(plan_of(host, VIP4)), second.remove):
            with pytest.raises(StartError, match=complaint):
                attempt()
        assert traces_of(host) == during
        with neighbour.inside():
            assert second.remove() == ()
        first.release()
        second.install(plan_of(host))
        with pytest.raises(StartError, match=complaint):
            first.remove()
        second.remove()


def test_process_with_another_state_was_killed_the_next_one_starts(host: Host, state: Path) -> None:
    install_and_kill(host, "be", state, VIP4)
    footprint = Footprint("be", state.parent / "other")
    with host.inside():
        footprint.install(plan_of(host, VIP4))
        footprint.remove()


def test_state_is_lost_what_is_pinned_is_still_taken_away(
    host: Host, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "SHARED", state.parent / "shared")
    with host.inside():
        place, _ = pins.places("be", state)
        place.mkdir(parents=True)
        (place / "flows").symlink_to("by a process")
        assert Footprint("be", state).remove() == ("programs of the kernel fast path and what they knew",)
        assert not place.exists()
        assert Footprint("be", state).remove() == ()


@pytest.mark.parametrize(
    ("manner", "holder"), [("open", "process {}"), ("unheard", "a process"), ("full", "a process")]
)
def test_name_of_the_role_is_held_by_another_user_a_warning_says_whose_it_is_and_nothing_is_refused(
    host: Host, state: Path, caplog: pytest.LogCaptureFixture, manner: str, holder: str
) -> None:
    before = traces_of(host)
    first, second = Footprint("fe", state), Footprint("fe", state)
    told = "{} of user 65534 holds the name @tcpha fe: going on without it, so another process in this role is refused"
    with host.inside(), squatting(manner, uid=65534) as pid:
        first.install(plan_of(host))
        assert [each.split(" only ")[0] for each in caplog.messages] == [told.format(holder.format(pid))]
        with pytest.raises(StartError, match=f"another process in this role holds {state}"):
            second.install(plan_of(host))
        first.release()
        second.remove()
    assert traces_of(host) == before


@pytest.mark.parametrize("manner", ["open", "unheard", "full"])
def test_name_of_the_role_is_held_by_root_nothing_is_changed(host: Host, state: Path, manner: str) -> None:
    """However many have asked who it is, and also in the moment before it listens."""
    before = traces_of(host)
    with host.inside(), squatting(manner, uid=0) as pid:
        told = "another process in this role runs in this network namespace"
        for attempt in (lambda: Footprint("fe", state).install(plan_of(host)), Footprint("fe", state).remove):
            with pytest.raises(StartError) as refusal:
                attempt()
            assert str(refusal.value) == (f"{told}: process {pid}" if manner == "open" else told)
    assert traces_of(host) == before


def test_name_of_the_role_is_held_by_nobody_knows_whom_nothing_is_refused(
    host: Host, state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that lists no such sockets (UNIX_DIAG)."""

    def refuse(protocol: int) -> NoReturn:
        raise OSError(errno.EPROTONOSUPPORT, f"protocol {protocol}")

    monkeypatch.setattr(occupancy, "NetlinkSocket", refuse)
    with host.inside(), squatting("unheard", uid=65534):
        Footprint("fe", state).install(plan_of(host))
    assert caplog.messages[0].startswith("a process of nobody knows which user holds the name @tcpha fe: ")


def test_process_ended_just_when_it_was_asked_for_the_next_one_has_the_name(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (occupancy.Occupancy("fe") for _ in range(3))
    asked = occupancy._holder

    def end(name: bytes) -> occupancy._Holder:
        first.give_up()
        return asked(name)

    monkeypatch.setattr(occupancy, "_holder", end)
    with host.inside():
        first.take()
        second.take()
        with pytest.raises(StartError, match="another process"):
            third.take()
    assert not caplog.messages


def test_two_roles_on_one_host_the_last_one_takes_the_tables_away(host: Host, state: Path) -> None:
    for order in (("fe", "be"), ("be", "fe")):
        before = traces_of(host)
        front, back = Footprint("fe", state), Footprint("be", state)
        with host.inside():
            front.install(plan_of(host, VIP4))
            back.install(Plan(host.iface, (IPv4Address("10.77.0.101"),), (80,), 664, MARK))
            for role in order:
                {"fe": front, "be": back}[role].remove()
        assert traces_of(host) == before


def test_rule_of_others_in_a_table_we_made_stays(host: Host, state: Path) -> None:
    footprint = Footprint("be", state)
    with host.inside():
        footprint.install(plan_of(host, VIP4))
        host.restore_rules(4, "*mangle", "-A INPUT -s 192.0.2.7/32 -j DROP", "COMMIT")
        host.restore_rules(4, "*raw", ":PREROUTING DROP [0:0]", "COMMIT")
        footprint.remove()
    left = rules_of(host)
    assert "-A INPUT -s 192.0.2.7/32 -j DROP" in left
    assert ":PREROUTING DROP" in left
    assert "tcpha" not in left


def test_chain_of_others_in_use_is_not_deleted_even_if_asked(host: Host) -> None:
    """The kernel's own check, for a rule that comes between our look and our request."""
    host.restore_rules(4, "*raw", "-A OUTPUT -s 192.0.2.7/32 -j DROP", "COMMIT")
    before = rules_of(host)
    with host.inside():
        firewall._delete(4, "raw", ["PREROUTING", "OUTPUT"], whole=True)
    assert rules_of(host) == before


def test_removal_that_fails_is_reported_and_can_be_repeated(
    host: Host, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = traces_of(host)
    footprint = Footprint("be", state)

    def refuse(name: str, value: str) -> None:
        raise EdgeError("read-only")

    with host.inside():
        footprint.install(plan_of(host))
        monkeypatch.setattr(sysctl, "write", refuse)
        with pytest.raises(EdgeError, match="read-only"):
            footprint.remove()
        monkeypatch.undo()
        assert str(VIP4) not in host.run("ip -o addr")
        assert "tcpha" not in rules_of(host)
        footprint.remove()
    assert traces_of(host) == before


def test_interface_that_went_away_is_forgotten(host: Host, state: Path) -> None:
    footprint = Footprint("fe", state)
    with host.inside():
        footprint.install(plan_of(host))
        host.run(f"ip link delete {host.iface}")
        footprint.remove()
    assert "tcpha" not in rules_of(host)
    assert str(VIP4) not in host.run("ip -o addr")


@pytest.mark.skipif(shutil.which("iptables-legacy-save") is None, reason="no legacy variant of iptables here")
@pytest.mark.parametrize("role", ROLES)
def test_legacy_iptables_rules_go_and_empty_tables_stay(
    host: Host, state: Path, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(firewall._PROGRAM, 4, "iptables-legacy")
    before = traces_of(host)
    footprint = Footprint(role, state)
    with host.inside():
        footprint.install(plan_of(host, VIP4))
        during = host.run("iptables-legacy-save")
        footprint.remove()
    assert f'--comment "tcpha {role}"' in during
    after = host.run("iptables-legacy-save")
    assert "*raw" in after
    assert not [line for line in after.splitlines() if line.startswith("-A")]
    assert traces_of(host) == before


def test_receive_offload_is_off_while_installed(host: Host, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interface of this kind can be made in a namespace, so the interface's answer is played."""
    merging = {host.iface: True}
    monkeypatch.setattr(link, "merges_on_receive", lambda iface: merging[iface])
    monkeypatch.setattr(link, "set_merges_on_receive", merging.__setitem__)
    with host.inside():
        Footprint("fe", state).install(plan_of(host, VIP4))
        assert merging == {host.iface: False}
        assert json.loads((state / "footprint-fe.json").read_text())["merging"] == [host.iface]


@pytest.mark.parametrize("content", ["", "{}", '{"host": 1', "[]", '"text"'])
def test_state_file_that_cannot_be_read_is_a_start_error_that_names_it(host: Host, state: Path, content: str) -> None:
    state.mkdir(mode=0o700)
    (state / "footprint-fe.json").write_text(content)
    with host.inside(), pytest.raises(StartError, match=r"footprint-fe\.json"):
        Footprint("fe", state).install(plan_of(host))


def test_state_directory_is_private_and_must_be(host: Host, state: Path) -> None:
    footprint = Footprint("fe", state)
    with host.inside():
        footprint.install(plan_of(host, VIP4))
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "footprint-fe.json").stat().st_mode & 0o777 == 0o600
        footprint.remove()
        state.chmod(0o777)
        with pytest.raises(StartError, match="written by other users"):
            Footprint("fe", state).install(plan_of(host, VIP4))
    assert str(VIP4) not in traces_of(host)


def test_settings_are_those_of_the_namespace_of_the_caller(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    name = "ipv4/conf/lo/arp_ignore"
    with left.inside():
        sysctl.write(name, "1")
        assert sysctl.read(name) == "1"
        with right.inside():
            assert sysctl.read(name) == "0"
        with pytest.raises(EdgeError, match=right.iface):
            sysctl.read(f"ipv4/conf/{right.iface}/arp_ignore")
    assert left.run("sysctl -n net.ipv4.conf.lo.arp_ignore") == "1\n"
    assert right.run("sysctl -n net.ipv4.conf.lo.arp_ignore") == "0\n"
