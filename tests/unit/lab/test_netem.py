"""What tc is told. That the kernel does it is tested in tests/cluster/test_lab_impair.py, where it has netem."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tcpha.lab import netem
from tcpha.lab.impairment import Impairment
from tcpha.lab.netem import Share
from tcpha.lab.node import Node

MAC = "02:00:00:00:00:01"


def test_netem_of_a_whole_node_spares_neighbour_discovery_and_takes_the_rest() -> None:
    whole = Share((), Impairment(loss=0.02, duplicate=0.01, delay_s=0.02), True)
    assert netem.commands("fe", [whole]) == [
        "qdisc add dev fe root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "qdisc add dev fe parent 1:2 netem limit 20000 loss 2.000000% duplicate 1.000000% delay 20000us",
        "filter add dev fe parent 1: prio 1 protocol ipv6 "
        "u32 match ip6 protocol 58 0xff match u8 0x84 0xfc at 40 flowid 1:1",
        "filter add dev fe parent 1: prio 2 protocol ipv6 "
        "u32 match ip6 protocol 58 0xff match u8 0x88 0xfe at 40 flowid 1:1",
        "filter add dev fe parent 1: prio 3 protocol ip u32 match u32 0 0 flowid 1:2",
        "filter add dev fe parent 1: prio 4 protocol ipv6 u32 match u32 0 0 flowid 1:2",
    ]


def test_netem_of_a_peers_datagrams_asks_for_both() -> None:
    found = netem.commands("be1", [Share((MAC,), Impairment(loss=0.1, only="udp"), True)])
    assert found[-2:] == [
        f"filter add dev be1 parent 1: prio 3 protocol ip "
        f"u32 match ether src {MAC} match ip protocol 17 0xff flowid 1:2",
        f"filter add dev be1 parent 1: prio 4 protocol ipv6 "
        f"u32 match ether src {MAC} match ip6 protocol 17 0xff flowid 1:2",
    ]


def test_netem_of_connections_asks_for_tunnels_too() -> None:
    found = netem.commands("be1", [Share((), Impairment(loss=0.1, only="tcp"), True)])
    assert [line.split("protocol ")[-1] for line in found[4:]] == [
        f"{protocol} 0xff flowid 1:2" for protocol in (6, 4, 41, 6, 4, 41)
    ]


def test_netem_beside_a_peer_that_another_impairs_lets_the_peers_packets_pass() -> None:
    found = netem.commands("fe", [Share((MAC,), Impairment(), False), Share((), Impairment(loss=1.0), True)])
    assert [line for line in found if "netem" in line] == [
        "qdisc add dev fe parent 1:3 netem limit 20000 loss 100.000000%"
    ]
    assert [line.rpartition(" ")[2] for line in found if MAC in line] == ["1:1", "1:1"]
    assert [line.rpartition(" ")[2] for line in found[-2:]] == ["1:3", "1:3"]


def test_netem_for_nobody_does_nothing() -> None:
    assert netem.commands("fe", []) == netem.commands("fe", [Share((), Impairment(loss=1.0), False)]) == []


@pytest.mark.parametrize(
    ("impairment", "can"),
    [
        (Impairment(loss=0.1, duplicate=0.1, delay_s=0.1, only="tcp"), True),
        (Impairment(reorder=0.1), False),
        (Impairment(loss=0.1, seed=1), False),
    ],
)
def test_netem_is_for_what_it_can_do_exactly(impairment: Impairment, can: bool) -> None:
    assert (netem.misfit(impairment) is None) is can


def switch(monkeypatch: pytest.MonkeyPatch, refuses: str | None) -> tuple[Node, list[str]]:
    """A switch without a kernel: what tc was told, and the word at which it refuses."""
    told: list[str] = []

    def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        told.append(" ".join(words))
        refused = refuses is not None and refuses in words
        return subprocess.CompletedProcess(words, 2 if refused else 0, "", "Error: no\n" if refused else "")

    made = Node("switch", "lab-switch", Path("/run/lab/switch"), None, None)
    monkeypatch.setattr(made, "run", run)
    return made, told


def test_netem_is_arranged_what_was_there_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = switch(monkeypatch, None)
    share = Share((), Impairment(loss=0.5), True)
    assert netem.arrange(made, "fe", [share]) is None
    assert told == ["tc qdisc del dev fe root", *(f"tc {line}" for line in netem.commands("fe", [share]))]


def test_netem_is_refused_by_the_kernel_the_reason_is_told_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = switch(monkeypatch, "netem")
    reason = netem.obstacle(made)
    assert reason is not None
    assert reason.startswith("tc qdisc add dev lo parent 1:2 netem")
    assert reason.endswith(f"Error: no\nthe kernel needs {netem.NEEDS}")
    assert told[-1] == "tc qdisc del dev lo root"


def test_netem_of_more_ways_than_a_port_has_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = switch(monkeypatch, None)
    shares = [Share((MAC,), Impairment(loss=0.5), True)] * (netem.WAYS_MAX + 1)
    assert netem.arrange(made, "fe", shares) == "16 impairments at fe are more than 15"
    assert told == ["tc qdisc del dev fe root"]


def test_netem_without_tc_is_no_means(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = switch(monkeypatch, None)

    def absent(_words: Sequence[str]) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(made, "run", absent)
    assert netem.obstacle(made) == f"tc cannot be run: No such file or directory\nthe kernel needs {netem.NEEDS}"
