"""A front end whose packets the kernel is to carry: what it does where the kernel cannot, and what it leaves behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import DaemonError
from tcpha.net import pins
from tests.cluster import host_state
from tests.cluster.conftest import engine_lab, unique_name
from tests.cluster.conversation import FAMILIES, Conversation, get
from tests.cluster.engine_sight import counters, digest
from tests.cluster.kernel_sight import attached, pinned
from tests.cluster.lab_sight import command, traces

pytestmark = pytest.mark.cluster

WITHOUT = {
    "CAP_BPF": "-bpf,-sys_admin",
    "CAP_PERFMON": "-perfmon,-sys_admin",
    "bpf file system": "-sys_admin",
}
"""What is missed, and which capabilities then are not there. A bpf file system has to be mounted by somebody."""


@pytest.fixture(scope="module")
def bare_lab(_machine: None) -> Iterator[Lab]:
    """Back ends that run, and a front end that does not yet."""
    with engine_lab(Settings(fe=("accelerate = auto",), be=("accelerate = off",)), engine=False) as standing:
        for node in standing.backends:
            node.engine.start()
        yield standing


@contextmanager
def mounted_already(lab: Lab, missing: str) -> Iterator[None]:
    """The file system is there where not that is what is missed; in the end nothing is in it."""
    state = lab.fe.directory / "state"
    with lab.fe.enter():
        if not missing.startswith("bpf"):
            pins.directory("fe", state)
    yield
    with lab.fe.enter():
        assert not pins.remove("fe", state)
    assert (attached(lab.fe), pinned(lab.fe)) == (0, [])


@contextmanager
def accelerate(lab: Lab, how: str, *before: str) -> Iterator[None]:
    """The front end's file says so, and a command stands before the program's."""
    engine, file = lab.fe.engine, lab.fe.directory / "tcphafe.conf"
    usual, text = engine.program, file.read_text()
    file.write_text(text.replace("accelerate = auto", f"accelerate = {how}"))
    engine.program = replace(usual, arguments=[*before, *usual.arguments])
    try:
        yield
    finally:
        engine.stop()
        engine.program = usual
        file.write_text(text)


def said(lab: Lab) -> list[str]:
    """What the log of the front end's last start says about acceleration."""
    lines = lab.fe.engine.log.read_text().splitlines()
    return [line.partition("tcpha.fe: ")[2] for line in lines if "accelerated" in line]


def serves(lab: Lab) -> bool:
    for family in FAMILIES:
        with Conversation.open(lab, family) as client:
            if client.ask(get("/100k.jpg", "Connection: close")).sha256 != digest(lab, "100k"):
                return False
    return True


@pytest.mark.parametrize("how", ["auto", "require"])
def test_kernel_can_one_line_of_the_log_says_so_and_nothing_is_left_at_the_end(bare_lab: Lab, how: str) -> None:
    before = host_state.of_node(bare_lab.fe)
    bare_lab.fe.engine.log.unlink(missing_ok=True)
    with accelerate(bare_lab, how):
        bare_lab.fe.engine.start()
        assert serves(bare_lab)
        assert said(bare_lab) == ["accelerated: the kernel answers SYNs and carries what is handed over, at eth0"]
        assert attached(bare_lab.fe) == 1
        assert {"flows", "link", "ways"} <= {name.rpartition("/")[2] for name in pinned(bare_lab.fe)}
        assert bare_lab.fe.engine.stop() == 0
    assert (attached(bare_lab.fe), pinned(bare_lab.fe)) == (0, [])
    assert host_state.of_node(bare_lab.fe) == before
    assert [file.suffix for file in (bare_lab.fe.directory / "state").iterdir()] == [".lock"]


def test_acceleration_is_off_nothing_is_said_attached_or_pinned(bare_lab: Lab) -> None:
    bare_lab.fe.engine.log.unlink(missing_ok=True)
    with accelerate(bare_lab, "off"):
        bare_lab.fe.engine.start()
        assert serves(bare_lab)
        assert (said(bare_lab), attached(bare_lab.fe), pinned(bare_lab.fe)) == ([], 0, [])
        assert "kernel" not in counters(bare_lab.fe)


@pytest.mark.parametrize("missing", WITHOUT)
def test_kernel_may_not_auto_says_why_and_serves_without(bare_lab: Lab, missing: str) -> None:
    bare_lab.fe.engine.log.unlink(missing_ok=True)
    masked = f"--bounding-set={WITHOUT[missing]}"
    with mounted_already(bare_lab, missing), accelerate(bare_lab, "auto", "setpriv", masked):
        bare_lab.fe.engine.start()
        assert serves(bare_lab)
        (line,) = said(bare_lab)
        assert line.startswith("not accelerated, this process carries all packets: ")
        assert missing in line
        assert bare_lab.fe.engine.stop() == 0


@pytest.mark.parametrize("missing", WITHOUT)
def test_kernel_may_not_require_ends_with_the_reason_and_leaves_nothing(bare_lab: Lab, missing: str) -> None:
    before = host_state.of_node(bare_lab.fe)
    bare_lab.fe.engine.log.unlink(missing_ok=True)
    masked = f"--bounding-set={WITHOUT[missing]}"
    with mounted_already(bare_lab, missing), accelerate(bare_lab, "require", "setpriv", masked):
        with pytest.raises(DaemonError, match="ended with exit status 2"):
            bare_lab.fe.engine.start()
        last = bare_lab.fe.engine.log.read_text().splitlines()[-1]
        assert last.startswith("fe: accelerate = require: ")
        assert missing in last
        bare_lab.fe.engine.forget()
    assert host_state.of_node(bare_lab.fe) == before


@pytest.mark.parametrize("next_one", ["off", "clean"])
def test_accelerated_front_end_was_killed_the_next_one_without_it_takes_everything_away(
    bare_lab: Lab, next_one: str
) -> None:
    before = host_state.of_node(bare_lab.fe)
    with accelerate(bare_lab, "require"):
        bare_lab.fe.engine.start()
        bare_lab.fe.engine.kill()
        assert attached(bare_lab.fe) == 1
    if next_one == "clean":
        done = bare_lab.fe.run([*bare_lab.fe.engine.program.arguments, "--clean"])
        assert "fe: removed programs of the kernel fast path and what they knew" in done.stdout.splitlines()
    else:
        with accelerate(bare_lab, "off"):
            bare_lab.fe.engine.start()
            assert attached(bare_lab.fe) == 0
            assert serves(bare_lab)
    assert (attached(bare_lab.fe), pinned(bare_lab.fe)) == (0, [])
    assert host_state.of_node(bare_lab.fe) == before


@pytest.mark.usefixtures("_machine")
def test_accelerated_front_end_was_killed_and_the_lab_is_taken_down_nothing_is_left() -> None:
    lab = Lab(unique_name())
    with lab:
        lab.up(settings=Settings(fe=("accelerate = require",)))
        name, state = lab.name, str(lab.directory)
        lab.fe.engine.kill()
        assert attached(lab.fe) == 1
        done = command("down", "--name", name)
        assert (done.returncode, done.stderr) == (0, "")
    assert traces(name) == []
    assert state not in subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
