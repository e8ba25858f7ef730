"""What the kernel's counters are read as."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import cpu
from tcpha.lab.node import Node

TICK_S = 0.01
DEV = """\
Inter-|   Receive                                         |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  100       1    0    0    0     0          0         0   100       1    0    0    0     0       0          0
  eth0: 2500      20    0    0    0     0          0         0  4000      30    0    0    0     0       0          0
"""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpu, "_PROC", tmp_path)
    monkeypatch.setattr(cpu, "_TICK_S", TICK_S)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_machine_is_the_first_line_and_guests_do_not_count_twice(proc: Path) -> None:
    write(proc / "stat", "cpu  100 20 30 400 5 6 7 80 50 9\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n")
    found = cpu.of_machine()
    assert found.busy_s == pytest.approx(1.63)  # user, nice, system, irq, softirq
    assert found.idle_s == pytest.approx(4.05)  # and iowait
    assert found.steal_s == pytest.approx(0.8)
    assert found.capacity_s == pytest.approx(6.48)


def test_shares_are_of_what_came_between() -> None:
    between = cpu.Machine(13.0, 26.0, 1.5).since(cpu.Machine(10.0, 20.0, 0.5))
    assert between.busy_share == pytest.approx(0.3)
    assert between.steal_share == pytest.approx(0.1)


def test_nothing_came_between_there_is_no_division_by_it() -> None:
    assert cpu.Machine(0.0, 0.0, 0.0).busy_share == 0.0


def test_group_is_found_behind_a_name_with_brackets_and_blanks(proc: Path) -> None:
    write(proc / "7" / "stat", "7 (a) b (c) S 1 42 42 0 -1\n")
    write(proc / "8" / "stat", "8 (nginx) S 7 43 42 0 -1\n")
    write(proc / "self" / "stat", "9 (x) S 1 42 42 0 -1\n")
    assert cpu.group_of(42) == (7,)


def test_processes_are_all_their_threads_and_those_that_are_gone_nothing(proc: Path) -> None:
    write(proc / "7" / "task" / "7" / "schedstat", "1500000000 5 6\n")
    write(proc / "7" / "task" / "9" / "schedstat", "500000000 5 6\n")
    assert cpu.of_processes([7, 8]) == pytest.approx(2.0)


def test_lab_counts_whoever_came_meanwhile_and_not_who_went() -> None:
    before = cpu.Lab(1.0, {1: 5.0, 2: 3.0})
    assert cpu.Lab(1.5, {1: 6.0, 3: 0.25}).since(before) == pytest.approx(1.75)


def test_threads_for_softirq_work_are_known_by_their_names(proc: Path) -> None:
    for pid, name in ((3, "ksoftirqd/0"), (4, "ksoftirqd/1"), (5, "nginx")):
        write(proc / str(pid) / "comm", f"{name}\n")
    assert sorted(cpu.softirq_threads()) == [3, 4]


def test_memory_is_the_proportional_share(proc: Path) -> None:
    write(proc / "7" / "smaps_rollup", "Rss:  9000 kB\nPss:  100 kB\nPss_Dirty:  50 kB\n")
    assert cpu.memory_octets([7, 8]) == 100 * 1024


def node(monkeypatch: pytest.MonkeyPatch, text: str) -> Node:
    monkeypatch.setattr("bench.cpu.Path.read_text", lambda _file: text)
    return cast(Node, SimpleNamespace(name="fe", enter=nullcontext))


def test_interface_is_received_and_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.interface_octets(node(monkeypatch, DEV), "eth0") == 6500


def test_no_such_interface_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="fe has no interface eth1"):
        cpu.interface_octets(node(monkeypatch, DEV), "eth1")


def test_sockets_in_use_are_those_of_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "sockets: used 9\nTCP: inuse 12 orphan 0 tw 3 alloc 14 mem 2\nUDP: inuse 4 mem 1\n"
    assert cpu.sockets_in_use(node(monkeypatch, text)) == 12
