"""What is put on, with a switch, rules and queues of the kernel that are none: order, and what is told of faults."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpha.errors import StartError
from tcpha.lab import impairments, netem
from tcpha.lab.addressing import SWITCH
from tcpha.lab.aftermath import told
from tcpha.lab.daemon import Daemon, DaemonError
from tcpha.lab.impairment import Impairment, Way
from tcpha.lab.impairments import QUEUE_NEEDS, Impairments
from tcpha.lab.node import Node
from tcpha.lab.switch_ports import Port
from tcpha.net import firewall
from tcpha.net.firewall import Rule

LOSS = Impairment(loss=0.5)


class StubNode(Node):
    """A node without a namespace."""

    @contextmanager
    def enter(self) -> Iterator[None]:
        yield


class Kernel:
    """What was asked of it; faults that it is to have, the next first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Path) -> None:
        self.rules: list[Sequence[Rule]] = []
        self.netem: list[Sequence[netem.Share]] = []
        self.faults_of_rules: list[str | None] = []
        self.faults_of_netem: list[str] = []
        monkeypatch.setattr(firewall, "replace", self._replace)
        monkeypatch.setattr(firewall, "tidy", lambda *_: None)
        monkeypatch.setattr(netem, "obstacle", lambda _switch: None)
        monkeypatch.setattr(netem, "arrange", self._arrange)
        monkeypatch.setattr(impairments, "ports_of", lambda _switch, node: (Port(f"{node.name}0", "br", "02::1"),))
        monkeypatch.setattr(impairments, "_BRIDGE_SETTINGS", settings)

    def _replace(self, _role: str, rules: Sequence[Rule]) -> int:
        fault = self.faults_of_rules.pop(0) if self.faults_of_rules else None
        if fault is not None:
            raise StartError(fault)
        self.rules.append(rules)
        return 0

    def _arrange(self, _switch: Node, _port: str, shares: Sequence[netem.Share]) -> str | None:
        self.netem.append(shares)
        return self.faults_of_netem.pop(0) if self.faults_of_netem else None


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    directory = tmp_path / "bridge"
    directory.mkdir()
    for family in ("iptables", "ip6tables"):
        (directory / f"bridge-nf-call-{family}").write_text("1\n")
    return directory


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, settings: Path) -> Kernel:
    return Kernel(monkeypatch, settings)


@pytest.fixture
def those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Impairments]:
    nodes = {name: StubNode(name, name, tmp_path, None, None) for name in ("be1", "fe", SWITCH)}
    own = Impairments._new_daemon

    def new_daemon(owner: Impairments, name: str, arguments: tuple[str, ...]) -> Daemon:
        daemon = own(owner, name, arguments)
        words = ["sh", "-c", "echo ready; exec sleep 60"]
        object.__setattr__(daemon.program, "arguments", words)
        return daemon

    monkeypatch.setattr(Impairments, "_new_daemon", new_daemon)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    yield Impairments(nodes)
    for daemon in nodes[SWITCH].daemons.values():
        daemon.kill()


def test_netem_alone_impairs_no_rule_is_needed(kernel: Kernel, those: Impairments, settings: Path) -> None:
    for setting in settings.iterdir():
        setting.unlink()  # a kernel without br_netfilter
    those.put(Way("be1"), LOSS, "netem")
    assert [share.impairment for share in kernel.netem[-1]] == [LOSS]
    assert not any(kernel.rules)


def test_program_impairs_beside_netem_what_netem_has_passes_the_rules(kernel: Kernel, those: Impairments) -> None:
    those.put(Way("fe"), LOSS, "netem")
    those.put(Way("be1"), LOSS, "queue")
    assert {rule.target.split()[1] for rule in kernel.rules[-1]} == {"ACCEPT", "NFQUEUE"}


def test_bridges_bring_packets_to_rules_only_while_there_are_rules(
    kernel: Kernel, those: Impairments, settings: Path
) -> None:
    def shown() -> set[str]:
        return {setting.read_text() for setting in settings.iterdir()}

    way = those.put(Way("be1"), LOSS, "queue")
    assert shown() == {"1\n"}
    way.end()
    assert shown() == {"0\n"}
    those.put(Way("be1"), LOSS, "queue")
    assert shown() == {"1\n"}


def test_program_is_taken_away_no_record_of_its_process_stays(
    kernel: Kernel, those: Impairments, tmp_path: Path
) -> None:
    way = those.put(Way("be1"), LOSS, "queue")
    record = tmp_path / "impair-be1.pid"
    assert record.exists()
    way.end()
    assert not record.exists()


def test_program_had_died_and_is_taken_away_no_record_of_its_process_stays(
    kernel: Kernel, those: Impairments, tmp_path: Path
) -> None:
    way = those.put(Way("be1"), LOSS, "queue")
    (tmp_path / "impair-be1.pid").write_text("999999999\n")
    those.daemon(way.standing)._child = None
    way.end()
    assert not (tmp_path / "impair-be1.pid").exists()


def test_bridges_bring_nothing_to_rules_what_the_kernel_needs_is_told(
    kernel: Kernel, those: Impairments, settings: Path
) -> None:
    (settings / "bridge-nf-call-iptables").unlink()
    with pytest.raises(StartError, match="br_netfilter is missing") as raised:
        those.put(Way("be1"), LOSS, "queue")
    assert str(raised.value).endswith(f"the kernel needs {QUEUE_NEEDS}")
    assert those.standing() == ()


def test_rules_are_refused_what_the_kernel_needs_is_told(kernel: Kernel, those: Impairments) -> None:
    kernel.faults_of_rules = ["iptables-restore failed: No such file"]
    with pytest.raises(StartError) as raised:
        those.put(Way("be1"), LOSS, "queue")
    assert "iptables-restore failed: No such file" in str(raised.value)
    assert QUEUE_NEEDS in str(raised.value)


def test_clean_up_fails_too_the_first_fault_is_told_first(kernel: Kernel, those: Impairments) -> None:
    kernel.faults_of_rules = ["the first", "the second"]
    with pytest.raises(StartError) as raised:
        those.put(Way("be1"), LOSS, "queue")
    said = told(raised.value)
    assert said.index("the first") < said.index("while that was cleaned up: the second")
    assert those._switch.daemons == {}, "the program is ended all the same"


def test_netem_fails_then_the_program_does_both_are_told(kernel: Kernel, those: Impairments) -> None:
    kernel.faults_of_netem = ["the kernel's refusal"]
    kernel.faults_of_rules = [None, None, "the program's fault"]
    with pytest.raises(StartError) as raised:
        those.put(Way("be1"), LOSS)
    said = told(raised.value)
    assert "the program's fault" in said
    assert "netem was tried before: netem cannot be used: the kernel's refusal" in said


def test_netem_fails_where_it_is_wanted_the_program_does_not_step_in(kernel: Kernel, those: Impairments) -> None:
    kernel.faults_of_netem = ["the kernel's refusal"]
    with pytest.raises(StartError, match="netem cannot be used: the kernel's refusal"):
        those.put(Way("be1"), LOSS, "netem")
    assert those.standing() == ()


def test_program_does_not_start_and_its_rules_cannot_be_removed_both_are_told(
    kernel: Kernel, those: Impairments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_daemon: Daemon) -> None:
        raise DaemonError("the program's fault")

    monkeypatch.setattr(Daemon, "start", fail)
    kernel.faults_of_rules = ["the rules' fault"]
    with pytest.raises(DaemonError) as raised:
        those.put(Way("be1"), LOSS, "queue")
    assert told(raised.value) == "the program's fault\nand then, while that was cleaned up: the rules' fault"
