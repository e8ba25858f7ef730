"""What the kernel fast path needs, taken away one at a time: `auto` names it in one line of the log, and Python serves;
`require` ends with status 2 and the same words.

Everything is masked for the one process: capabilities by setpriv(1), mounts in a mount namespace of its own, system
calls by seccomp(2), the machine by its personality. Only settings of the kernel are the node's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tcpha.lab.addressing import IFACE
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import DaemonError
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tcpha.net.bpf_adopter import PROGRAMS
from tcpha.net.bpf_object import KERNEL_BTF, ObjectFile
from tcpha.net.bpf_syscall import Command
from tests.cluster import forbid_bpf, host_state
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, get
from tests.cluster.engine_sight import await_no_flows, digest
from tests.cluster.kernel_sight import attached

pytestmark = pytest.mark.cluster

PATIENCE_S = 10.0
WITH_PINS = "mount -t bpf bpf /sys/fs/bpf"
WITHOUT_PINS = "umount -q /sys/fs/bpf || true"
(ADOPTS,) = ObjectFile(PROGRAMS).kernel_functions()


@dataclass(frozen=True, slots=True)
class Mask:
    """Something that is not there."""

    said: str
    """How the log names it."""
    mounts: str = WITH_PINS
    """What a shell does in the process's own mount namespace."""
    before: tuple[str, ...] = ()
    """Words before the program's."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of the node's kernel, below /proc/sys/net."""
    python_serves: bool = True
    """Whether the agent can do without: its server's connections, too, have the options that were promised."""
    iface: str = IFACE
    """At which the program has to work; another one is a tunnel without Ethernet."""


def without(*capabilities: str) -> tuple[str, ...]:
    names = ",".join(f"-{each}" for each in (*capabilities, "sys_admin"))
    return ("setpriv", f"--bounding-set={names}")


def forbidding(error: str, command: Command | None = None) -> tuple[str, ...]:
    which = "all" if command is None else str(int(command))
    return (sys.executable, str(Path(forbid_bpf.__file__)), error, which)


BOTH = {
    "CAP_BPF": Mask("CAP_BPF missing", before=without("bpf")),
    "CAP_PERFMON": Mask("CAP_PERFMON missing", before=without("perfmon")),
    "bpf file system": Mask(
        "bpf file system: Operation not permitted (it takes CAP_SYS_ADMIN; or before: mount -t bpf bpf /sys/fs/bpf)",
        WITHOUT_PINS,
        without(),
    ),
    "CAP_BPF, so that a file system is of no use": Mask("CAP_BPF missing", WITHOUT_PINS, without("bpf")),
    "bpf(2) by seccomp": Mask("a security module or a container forbids bpf(2)", before=forbidding("EPERM")),
    "bpf(2) at all": Mask("this kernel is built without bpf(2)", before=forbidding("ENOSYS")),
    "tcx": Mask("this kernel has no tcx at eth0", before=forbidding("EINVAL", Command.LINK_CREATE)),
    "programs for the machine": Mask("no programs for the kernel of this machine (i686)", before=("linux32",)),
}
MASKS = {
    "fe": BOTH,
    "be": {
        **BOTH,
        "BTF": Mask("a kernel built without BTF", f"{WITH_PINS}; mount -t tmpfs none {KERNEL_BTF.parent}"),
        "new kernel": Mask(
            f"this kernel has no {ADOPTS}: it is too old", f"{WITH_PINS}; mount --bind $OLD {KERNEL_BTF}"
        ),
        "syncookies": Mask("tcp_syncookies is 0", settings={"ipv4/tcp_syncookies": "0"}),
        "timestamps": Mask("tcp_timestamps is 0", settings={"ipv4/tcp_timestamps": "0"}, python_serves=False),
        "SACK": Mask("tcp_sack is 0", settings={"ipv4/tcp_sack": "0"}, python_serves=False),
        "Ethernet": Mask("tun0 is no Ethernet", python_serves=False, iface="tun0"),
        "window scaling": Mask(
            "tcp_window_scaling is 0", settings={"ipv4/tcp_window_scaling": "0"}, python_serves=False
        ),
    },
}
"""By role. The front end's program calls no function of the kernel, and makes no sockets; without Ethernet there is no
front end, accelerated or not.
"""
CASES = [(role, missing) for role, masks in MASKS.items() for missing in masks]
NEVER_ACCELERATED = {
    "fe": "not accelerated, this process carries all packets: ",
    "be": "not accelerated, this process adopts all connections: ",
}
REFUSED = {role: f"{role}: accelerate = require: " for role in MASKS}


@pytest.fixture(scope="module")
def lab(_machine: None) -> Iterator[Lab]:
    """All run, and Python carries, but for the node that a test is about."""
    with engine_lab(Settings(both=("accelerate = off",)), engine=False) as standing:
        yield standing


@pytest.fixture(scope="module")
def old_types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's types as a kernel has them that lacks the function: it bears another name."""
    file = tmp_path_factory.mktemp("types") / "vmlinux"
    name = ADOPTS.encode()
    file.write_bytes(KERNEL_BTF.read_bytes().replace(b"\0" + name + b"\0", b"\0" + name[::-1] + b"\0"))
    return file


def masked(lab: Lab, role: str) -> Node:
    """The front end, or the back end that answers; all others run."""
    chosen = lab.fe if role == "fe" else lab.backends[0]
    chosen.engine.stop()
    for node in (*lab.backends, lab.fe):
        if node is not chosen and not node.engine.is_running:
            node.engine.start()
    return chosen


@contextmanager
def accelerate(node: Node, role: str, how: str, mask: Mask, old_types: Path | None = None) -> Iterator[None]:
    """The node's file says so, and its program is run with the mask on; in the end the node is as before."""
    engine, file = node.engine, node.directory / f"tcpha{role}.conf"
    before = host_state.of_node(node)
    usual, text = engine.program, file.read_text()
    engine.log.unlink(missing_ok=True)
    told = text.replace("accelerate = off", f"accelerate = {how}")
    file.write_text(told.replace(f"iface = {IFACE}", f"iface = {mask.iface}"))
    script = f'OLD={old_types}; {mask.mounts}; exec "$@"'
    words = ["unshare", "--mount", "sh", "-ec", script, "sh", *mask.before, *usual.arguments]
    engine.program = replace(usual, arguments=words)
    try:
        with changed(node, mask.settings), having(node, mask.iface):
            yield
            engine.stop()
    finally:
        engine.stop()
        engine.forget()
        engine.program = usual
        file.write_text(text)
    assert (attached(node), filters(node)) == (0, "")
    assert host_state.of_node(node) == before


@contextmanager
def having(node: Node, iface: str) -> Iterator[None]:
    """The node has this interface meanwhile: its own, or a tunnel (ip-tuntap(8))."""
    if iface == IFACE:
        yield
        return
    node.run(["ip", "tuntap", "add", "mode", "tun", iface], check=True)
    try:
        node.run(["ip", "link", "set", iface, "up"], check=True)
        yield
    finally:
        node.run(["ip", "link", "delete", iface], check=True)


@contextmanager
def changed(node: Node, settings: dict[str, str]) -> Iterator[None]:
    """Settings of a node's kernel, for a while."""
    with node.enter():
        files = {Path("/proc/sys/net", name): value for name, value in settings.items()}
        usual = {file: file.read_text() for file in files}
        for file, value in files.items():
            file.write_text(value)
    try:
        yield
    finally:
        with node.enter():
            for file, value in usual.items():
                file.write_text(value)


def said(node: Node) -> list[str]:
    """What the log says about acceleration, behind time and name."""
    lines = node.engine.log.read_text().splitlines()
    return [line.partition(": ")[2] if " tcpha." in line else line for line in lines if "accelerate" in line]


def filters(node: Node) -> str:
    """What tc(8) shows of filters of clsact, which a kernel without tcx has in its place."""
    ways = ("ingress", "egress")
    return "".join(node.run(["tc", "filter", "show", "dev", IFACE, way]).stdout for way in ways)


def serves(lab: Lab) -> bool:
    for family in FAMILIES:
        with Conversation.open(lab, family) as client:
            answer = client.ask(get("/1k.html", "Connection: close"))
        if (answer.status, answer.sha256) != (200, digest(lab, "1k.html")):
            return False
    return True


@pytest.mark.parametrize(("role", "missing"), [each for each in CASES if MASKS[each[0]][each[1]].python_serves])
def test_something_is_missing_auto_names_it_in_one_line_and_python_serves(
    lab: Lab, old_types: Path, role: str, missing: str
) -> None:
    mask = MASKS[role][missing]
    node = masked(lab, role)
    with accelerate(node, role, "auto", mask, old_types):
        node.engine.start()
        assert wait_until(lambda: serves(lab), PATIENCE_S)
        (line,) = said(node)
        assert line.startswith(NEVER_ACCELERATED[role])
        assert mask.said in line
        assert attached(node) == 0
        await_no_flows(lab)
        assert node.engine.stop() == 0


@pytest.mark.parametrize(("role", "missing"), CASES)
def test_something_is_missing_require_ends_with_status_2_and_names_it(
    lab: Lab, old_types: Path, role: str, missing: str
) -> None:
    mask = MASKS[role][missing]
    node = masked(lab, role)
    with accelerate(node, role, "require", mask, old_types):
        with pytest.raises(DaemonError, match="ended with exit status 2"):
            node.engine.start()
        (line,) = said(node)
        assert line.startswith(REFUSED[role])
        assert mask.said in line


NOT_NEEDED = {
    "fe without BTF": ("fe", MASKS["be"]["BTF"]),
    "fe without settings": ("fe", Mask("", settings={"ipv4/tcp_syncookies": "0", "ipv4/tcp_timestamps": "0"})),
    "fe with no more than the units give": ("fe", Mask("", before=("setpriv", "--bounding-set=-sys_admin"))),
    "be with no more than the units give": ("be", Mask("", before=("setpriv", "--bounding-set=-sys_admin"))),
}


@pytest.mark.parametrize("missing", NOT_NEEDED)
def test_what_is_missing_is_not_needed_the_kernel_carries(lab: Lab, missing: str) -> None:
    role, mask = NOT_NEEDED[missing]
    node = masked(lab, role)
    with accelerate(node, role, "require", mask):
        node.engine.start()
        assert wait_until(lambda: serves(lab), PATIENCE_S)
        (line,) = said(node)
        assert line.startswith("accelerated: ")
        assert attached(node) > 0
        await_no_flows(lab)
