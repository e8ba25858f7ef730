"""Faults at start: one clear line on standard error, exit status 2, no traceback, and the host stays as it was."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster import host_state
from tests.cluster.conftest import MakeLab, engine_lab
from tests.cluster.conversation import Conversation, get
from tests.cluster.engine_sight import counters

pytestmark = pytest.mark.cluster

NODES = ("fe", "be1")
_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} ")


@pytest.fixture(scope="module")
def quiet_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose engine does not run."""
    with engine_lab(server=None, engine=False) as standing:
        yield standing


def configuration(node: Node) -> Path:
    return node.directory / f"tcpha{'fe' if node.name == 'fe' else 'be'}.conf"


def changed(node: Node, tmp_path: Path, old: str, new: str) -> Path:
    """The node's configuration with one text in place of another."""
    text = configuration(node).read_text()
    assert old in text
    file = tmp_path / "changed.conf"
    file.write_text(text.replace(old, new))
    return file


def run(node: Node, file: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the node's program to its end; it must not change the host."""
    program = node.engine.program
    arguments = [*before, sys.executable, *program.arguments[1:3], "-c", str(file)]
    state = host_state.of_node(node)
    done = node.run(arguments, environment=program.environment, limit_s=10.0)
    assert host_state.of_node(node) == state
    return done


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line, beside warnings and the log, in which a program says what is wrong."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if ": warning: " not in line and not _LOGGED.match(line)]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("name", NODES)
def test_configuration_is_missing_is_told(quiet_lab: Lab, name: str) -> None:
    said = complaint(run(quiet_lab.node(name), Path("/nonexistent/tcpha.conf")))
    assert "/nonexistent/tcpha.conf: " in said


@pytest.mark.parametrize("name", NODES)
def test_rule_names_an_unknown_server_is_told_with_file_and_line(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    file = changed(node, tmp_path, "rule = 198.18.0.33 .*", "rule = 198.18.0.99 .*")
    line = 1 + file.read_text().splitlines().index("rule = 198.18.0.99 .*")
    said = complaint(run(node, file))
    assert f"{file}:{line}: " in said
    assert "198.18.0.99" in said


@pytest.mark.parametrize("name", NODES)
def test_pattern_is_none_is_told_with_file_and_line(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    file = changed(node, tmp_path, "jpg$", "(jpg$")
    line = 1 + file.read_text().splitlines().index("rule = 198.18.0.38 (jpg$")
    assert f"{file}:{line}: " in complaint(run(node, file))


@pytest.mark.parametrize("name", NODES)
def test_handoff_port_is_in_use_is_told(quiet_lab: Lab, name: str) -> None:
    node = quiet_lab.node(name)
    holder = f"import socket; s = socket.socket(2, 2); s.bind(('{node.ipv4}', 666)); print('held', flush=True); input()"
    pipe = subprocess.PIPE
    with node.popen([sys.executable, "-c", holder], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        said = complaint(run(node, configuration(node)))
        child.kill()
    assert str(node.ipv4) in said
    assert "666" in said
    assert "in use" in said


@pytest.mark.parametrize("name", NODES)
def test_address_of_the_node_is_on_no_interface_is_told(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    file = changed(node, tmp_path, f"raddr = {node.ipv4}", "raddr = 198.18.0.77")
    assert "198.18.0.77" in complaint(run(node, file))


@pytest.mark.parametrize("name", NODES)
def test_interface_does_not_exist_is_told(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    assert "nic7" in complaint(run(node, changed(node, tmp_path, "iface = eth0", "iface = nic7")))


@pytest.mark.parametrize("right", ["net_admin", "net_raw", "net_bind_service"])
@pytest.mark.parametrize("name", NODES)
def test_right_is_missing_is_told(quiet_lab: Lab, name: str, right: str) -> None:
    node = quiet_lab.node(name)
    without = ["setpriv", f"--bounding-set=-{right}", f"--inh-caps=-{right}"]
    said = complaint(run(node, configuration(node), without))
    assert f"CAP_{right.upper()} is missing" in said


@pytest.mark.parametrize("name", NODES)
def test_all_rights_are_missing_is_told(quiet_lab: Lab, name: str) -> None:
    node = quiet_lab.node(name)
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    assert "the right CAP_NET_" in complaint(run(node, configuration(node), without))


@pytest.mark.parametrize("name", NODES)
def test_iptables_is_missing_is_told(quiet_lab: Lab, name: str) -> None:
    """The programs are hidden in a mount namespace that ends with the program."""
    node = quiet_lab.node(name)
    hide = (
        "for each in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do "
        'for file in $(which -a $each); do mount --bind /dev/null "$(readlink -f "$file")"; done; done; exec "$@"'
    )
    said = complaint(run(node, configuration(node), ["unshare", "--mount", "sh", "-c", hide, "hidden"]))
    assert said.endswith("iptables-save is missing: install the package iptables")


@pytest.mark.parametrize("name", NODES)
def test_secret_is_missing_is_told_with_the_command_that_makes_one(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    secret = quiet_lab.directory / "secret"
    absent = tmp_path / "absent"
    said = complaint(run(node, changed(node, tmp_path, f"secret = {secret}", f"secret = {absent}")))
    assert str(absent) in said
    node.run(["sh", "-c", said.partition("with: ")[2]], check=True)
    assert absent.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9]+ [0-9a-f]{64}\n", absent.read_text())


@pytest.mark.parametrize("name", NODES)
def test_secret_is_readable_by_others_is_told(quiet_lab: Lab, tmp_path: Path, name: str) -> None:
    node = quiet_lab.node(name)
    secret, shown = quiet_lab.directory / "secret", tmp_path / "shown"
    shown.write_text(secret.read_text())
    shown.chmod(0o644)
    said = complaint(run(node, changed(node, tmp_path, f"secret = {secret}", f"secret = {shown}")))
    assert str(shown) in said


@pytest.mark.parametrize("name", NODES)
def test_check_of_a_sound_configuration_is_ok(quiet_lab: Lab, name: str) -> None:
    node = quiet_lab.node(name)
    program = node.engine.program
    done = node.run([*program.arguments, "--check"], environment=program.environment)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{configuration(node)}: ok")


@pytest.mark.parametrize("name", NODES)
def test_second_process_starts_is_told_and_the_first_goes_on(lab: Lab, name: str) -> None:
    node = lab.node(name)
    program = node.engine.program
    done = node.run(program.arguments, environment=program.environment, limit_s=10.0)
    assert complaint(done)
    with Conversation.open(lab, "ipv4") as client:
        assert client.ask(get("/client")).node == "be1"


def test_back_end_has_another_secret_is_not_used_and_both_say_why(make_lab: MakeLab) -> None:
    lab = make_lab(engine=False)
    stranger, file = lab.backends[0], configuration(lab.backends[0])
    other = stranger.directory / "other-secret"
    other.touch(mode=0o600)
    other.write_text(f"1 {'5a' * 32}\n")
    file.write_text(file.read_text().replace(f"secret = {lab.directory / 'secret'}", f"secret = {other}"))
    for node in (*lab.backends, lab.fe):
        node.engine.launch()
    for node in (lab.fe, stranger):
        assert wait_until(lambda log=node.engine.log: "same secret" in log.read_text(), 5.0)  # type: ignore[misc]
    assert wait_until(lambda: counters(lab.fe)["peers"] == {"198.18.0.33": "down", "198.18.0.38": "up"}, 5.0)
    with Conversation.open(lab, "ipv4") as client:
        assert client.ask(get("/client")).status == 503
    with Conversation.open(lab, "ipv4") as client:
        assert client.ask(get("/1k.jpg")).node == "be2"


def test_back_end_has_other_rules_both_go_on_and_the_front_end_says_so(make_lab: MakeLab) -> None:
    lab = make_lab(engine=False)
    odd, file = lab.backends[0], configuration(lab.backends[0])
    file.write_text(file.read_text().replace("jpg$", "png$"))
    for node in (*lab.backends, lab.fe):
        node.engine.launch()
    said = f"be {odd.ipv4}: its servers, rules, virtual addresses or promises are not those of this front end"
    assert wait_until(lambda: said in lab.fe.engine.log.read_text(), 5.0)
