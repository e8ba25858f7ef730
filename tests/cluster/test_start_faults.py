"""Faults at start that need a host: rights, what others hold, what others put in the way, signals.

Every time: one line on standard error that says what is wrong, exit status 2, no traceback, and the host is as before.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

import tcpha
from tcpha.net.footprint import Role
from tcpha.net.nfqueue import PacketQueue
from tests.unit.net.footprints import ROLES, VIP4, VIP6, traces_of
from tests.unit.net.namespaces import Host, pair, until

pytestmark = pytest.mark.cluster

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_LOGGED = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2},\d{3} (?:INFO|WARNING|ERROR) ")
_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Post:
    """A host, and the files of a process that is to run there."""

    host: Host
    role: Role
    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def file(self) -> Path:
        return self.directory / f"tcpha{self.role}.conf"

    def write(
        self, *lines: str, vaddrs: Sequence[IPv4Address | IPv6Address] = (VIP4, VIP6), state: Path | None = None
    ) -> None:
        """Write the configuration and, for everybody to read at first, the secret."""
        own, other = f"{self.host.addr4} 666", "10.77.0.77 666"
        server = other if self.role == "fe" else own
        unused = [f"uaddr = {'fd77::99' if isinstance(vaddr, IPv6Address) else '10.77.0.99'}" for vaddr in vaddrs]
        secret = self.directory / "secret"
        secret.write_text("1 " + "ab" * 32 + "\n")
        secret.chmod(0o600)
        written = [
            f"raddr = {self.host.addr4}",
            f"server = {server}",
            f"rule = {server.split()[0]} .*",
            *([f"fe = {other}", *unused] if self.role == "be" else []),
            *(f"vaddr = {vaddr}" for vaddr in vaddrs),
            f"secret = {secret}",
            f"state = {state or self.state}",
            "accelerate = off",  # a process that is killed would leave a file system mounted in the test's directory
            *lines,
        ]
        self.file.write_text("".join(f"{line}\n" for line in written))
        self.file.chmod(0o644)

    def start(self, *arguments: str, before: Sequence[str] = (), path: str | None = None) -> subprocess.Popen[str]:
        package = str(Path(tcpha.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": package, **({} if path is None else {"PATH": path})}
        words = [*before, sys.executable, "-m", f"tcpha.{self.role}", "-c", str(self.file), *arguments]
        with self.host.inside():
            return subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd="/",
                start_new_session=True,
            )

    def run(
        self, *arguments: str, before: Sequence[str] = (), path: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end what must end by itself and leave the host as it is."""
        traces = traces_of(self.host)
        with ended(self.start(*arguments, before=before, path=path)) as process:
            stdout, stderr = process.communicate(timeout=_LIMIT_S)
        assert traces_of(self.host) == traces
        assert "Traceback" not in stderr
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def complaint(self, before: Sequence[str] = (), path: str | None = None) -> str:
        """Run what cannot start; the one line beside the log in which it says why."""
        done = self.run(before=before, path=path)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not _LOGGED.match(line)]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith(f"{self.role}: ")
        return lines[0].partition(": ")[2]

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        """A process that has everything in place."""
        with ended(self.start()) as process:
            until(lambda: process.poll() is not None or str(VIP4) in self.host.run("ip -o addr show dev lo"))
            assert process.poll() is None, process.communicate()[1]
            yield process


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever happens, the process does not outlive the test."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may enter: pytest keeps its own to itself."""
    with tempfile.TemporaryDirectory(prefix="tcpha-start-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(params=ROLES)
def post(hosts: tuple[Host, Host], request: pytest.FixtureRequest, directory: Path) -> Post:
    made = Post(hosts[0], request.param, directory)
    made.write()
    return made


# Rights


def test_configuration_unreadable_for_the_user_is_told(post: Post) -> None:
    post.file.chmod(0o600)
    assert post.complaint(NOBODY) == f"{post.file}: cannot be read: Permission denied"


def test_secret_unreadable_for_the_user_is_told(post: Post) -> None:
    said = post.complaint(NOBODY)
    assert said == f"{post.directory / 'secret'}: the secret cannot be read: Permission denied"


def test_user_without_rights_is_told_which(post: Post) -> None:
    os.chown(post.directory / "secret", 65534, 65534)
    assert "CAP_NET_BIND_SERVICE" in post.complaint(NOBODY)
    post.write("port = 5666")
    os.chown(post.directory / "secret", 65534, 65534)
    assert "CAP_NET_RAW" in post.complaint(NOBODY)


def test_check_by_a_user_without_rights_is_ok_with_a_warning_and_touches_nothing(post: Post) -> None:
    done = post.run("--check", before=NOBODY)
    assert (done.returncode, done.stdout) == (0, f"{post.file}: ok\n")
    assert [line for line in done.stderr.splitlines() if "secret" in line] == [
        f"{post.file}: warning: {post.directory / 'secret'}: the secret cannot be read: Permission denied"
    ]
    assert not post.state.exists()


def test_check_says_whether_the_kernel_could_carry_by_the_rights_of_who_asks(post: Post) -> None:
    post.file.write_text(post.file.read_text().replace("accelerate = off", "accelerate = auto"))
    said = post.run("--check", before=NOBODY).stdout.splitlines()
    assert said[0] == f"{post.file}: ok"
    assert said[1].startswith(f"{post.file}: not accelerated here: ")
    assert "missing" in said[1]
    post.file.write_text(post.file.read_text().replace("raddr = 10.77.0.1", "raddr = 10.77.0.9"))
    said = post.run("--check").stdout.splitlines()
    assert said == []


def test_check_of_another_hosts_configuration_warns_instead_of_ok(post: Post) -> None:
    post.file.write_text(post.file.read_text().replace("raddr = 10.77.0.1", "raddr = 10.77.0.9"))
    done = post.run("--check")
    assert (done.returncode, done.stdout) == (0, "")
    reason = "no interface of this host holds the address 10.77.0.9"
    assert f"{post.file}: warning: a start here ends with status 2: {reason}" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("iface = eth9", "there is no interface eth9"),
        (
            "accelerate = require\niface = lo",
            "accelerate = require: lo is the loopback interface, and no client's packet comes by it: set `iface`",
        ),
    ],
)
def test_check_where_a_start_ends_says_what_that_says(post: Post, line: str, reason: str) -> None:
    post.file.write_text(post.file.read_text().replace("accelerate = off", line))
    assert post.complaint() == reason
    done = post.run("--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"{post.role}: {reason}"
    done = post.run("--check", before=NOBODY)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{post.file}: warning: a start here ends with status 2: {reason}" in done.stderr.splitlines()


@pytest.mark.usefixtures("_adopting")
def test_check_on_a_host_whose_kernel_can_carry_says_so_and_leaves_nothing(post: Post) -> None:
    post.file.write_text(post.file.read_text().replace("accelerate = off", "accelerate = auto"))
    assert post.run("--check").stdout == f"{post.file}: ok\n{post.file}: this host can be accelerated\n"
    post.file.write_text(post.file.read_text() + "iface = lo\n")
    assert "not accelerated here: lo is the loopback interface" in post.run("--check").stdout
    assert not post.state.exists()


# What others hold


@pytest.mark.parametrize("beside", [0, 1])
def test_queue_is_in_use_is_told(post: Post, beside: int) -> None:
    number = 660 if post.role == "fe" else 664 + beside
    with post.host.inside(), closing(PacketQueue(number, lambda packet: packet.drop(), length=16)):
        assert f"NFQUEUE number {number} is in use" in post.complaint()


def test_virtual_address_is_on_the_back_ends_interface_is_told(hosts: tuple[Host, Host], directory: Path) -> None:
    post = Post(hosts[0], "be", directory)
    for vaddr, prefix in ((VIP4, 24), (VIP6, 64)):
        post.write(vaddrs=[vaddr])
        post.host.run(f"ip addr add {vaddr}/{prefix} dev {post.host.iface}")
        said = post.complaint()
        assert said == f"{vaddr} is on {post.host.iface}: a back end must hold it on lo only"
        assert not list(post.state.glob("*.json"))


def test_virtual_address_is_on_the_front_end_already_is_used_and_stays(
    hosts: tuple[Host, Host], directory: Path
) -> None:
    post = Post(hosts[0], "fe", directory)
    post.write(vaddrs=[VIP4])
    post.host.run(f"ip addr add {VIP4}/32 dev lo")
    traces = traces_of(post.host)
    with ended(post.start()) as process:
        until(lambda: "tcpha fe" in post.host.run("iptables-save") or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_LIMIT_S) == 0
    assert traces_of(post.host) == traces


def test_interface_is_too_narrow_for_ipv6_in_a_tunnel_is_told(hosts: tuple[Host, Host], directory: Path) -> None:
    post = Post(hosts[0], "fe", directory)
    post.write("forward = tunnel")
    post.host.run(f"ip link set dev {post.host.iface} mtu 1299")
    said = post.complaint()
    assert said == f"MTU of {post.host.iface}: 1299 is less than 1300, which IPv6 in a tunnel over IPv4 needs"


def test_host_answers_arp_for_all_its_addresses_is_told(hosts: tuple[Host, Host], directory: Path) -> None:
    post = Post(hosts[0], "be", directory)
    post.write()
    post.host.run("sysctl -w net.ipv4.conf.all.arp_ignore=3")
    assert "net.ipv4.conf.all.arp_ignore = 3" in post.complaint()


def test_second_process_on_the_host_is_told_and_the_first_goes_on(post: Post) -> None:
    with post.serving() as first:
        said = post.complaint()
        assert said == f"another process in this role runs in this network namespace: process {first.pid}"
        assert first.poll() is None


def test_port_is_anothers_is_told(post: Post) -> None:
    with post.host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((str(post.host.addr4), 666))
        assert post.complaint() == f"{post.host.addr4}:666 is in use"


def test_second_process_with_the_same_state_directory_is_told_and_the_first_goes_on(
    post: Post, hosts: tuple[Host, Host], directory: Path
) -> None:
    (directory / "second").mkdir()
    second = Post(hosts[1], post.role, directory / "second")
    second.write(state=post.state)
    traces = traces_of(post.host)
    with post.serving() as first:
        assert second.complaint() == f"another process in this role holds {post.state}"
        first.send_signal(signal.SIGTERM)
        assert first.wait(_LIMIT_S) == 0
    assert traces_of(post.host) == traces


# What others put in the way


def test_state_directory_is_writable_for_others_is_told(post: Post) -> None:
    post.state.mkdir()
    post.state.chmod(0o777)
    assert post.complaint() == f"{post.state} can be written by other users"


def test_state_directory_is_a_file_is_told(post: Post) -> None:
    post.state.write_text("")
    assert post.complaint() == f"state = {post.state} is no directory"


def test_state_file_is_damaged_is_told_with_the_remedy(post: Post) -> None:
    post.state.mkdir(mode=0o700)
    damaged = post.state / f"footprint-{post.role}.json"
    damaged.write_text("{")
    said = post.complaint()
    assert said.startswith(f"{damaged} cannot be read")
    assert "remove it" in said
    assert damaged.read_text() == "{"


@pytest.mark.parametrize("program", ["iptables-restore", "ip6tables-restore"])
def test_iptables_refuses_is_told_in_its_words(post: Post, directory: Path, program: str) -> None:
    """The second refusal comes when the rules of the first address family are in place already."""
    stub = directory / "bin" / program
    stub.parent.mkdir()
    # What undoes the half of it must work: only new rules are refused.
    real = f"/usr/sbin/{program}"
    stub.write_text(
        f'#!/bin/sh\nrules=$(cat)\ncase $rules in *"-A "*) echo "no luck" >&2; exit 4;; esac\n'
        f'printf "%s\\n" "$rules" | exec {real} "$@"\n'
    )
    stub.chmod(0o755)
    said = post.complaint(path=f"{stub.parent}:{os.environ['PATH']}")
    assert said == f"{program} failed: no luck"


# Signals


TERM_AND_INT = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize(
    ("moment", "number"),
    # SIGINT at once interrupts the interpreter before the program is loaded.
    [("at once", signal.SIGTERM), *itertools.product(("port", "state", "rules", "address"), TERM_AND_INT)],
)
def test_signal_during_the_start_host_is_as_before(post: Post, moment: str, number: signal.Signals) -> None:
    traces = traces_of(post.host)
    moments: dict[str, Callable[[], bool]] = {
        "at once": lambda: True,
        "port": lambda: ":666 " in post.host.run("ss -Hlun"),
        "state": lambda: (post.state / f"footprint-{post.role}.json").exists(),
        "rules": lambda: f"tcpha {post.role}" in post.host.run("iptables-save"),
        "address": lambda: str(VIP4) in post.host.run("ip -o addr show dev lo"),
    }
    reached = moments[moment]
    with ended(post.start()) as process:
        until(lambda: reached() or process.poll() is not None)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=_LIMIT_S)
    # Before it catches signals it has changed nothing, and ends as any program does.
    assert process.returncode in ((0, -signal.SIGTERM) if number == signal.SIGTERM else (0, 130)), stderr
    if moment not in ("at once", "port"):
        assert process.returncode == 0
    assert "Traceback" not in stderr
    assert traces_of(post.host) == traces
    assert not list(post.state.glob("*.json"))


def test_interrupted_again_and_again_while_it_stops_the_host_is_as_before(post: Post) -> None:
    """As by Ctrl-C at a terminal: the whole process group gets the signal, iptables too."""
    traces = traces_of(post.host)
    with post.serving() as process:

        def is_clean_after_one_more() -> bool:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            return process.returncode is not None

        until(is_clean_after_one_more)
        _, stderr = process.communicate(timeout=_LIMIT_S)
    assert "Traceback" not in stderr
    assert "fe stopped" in stderr or "be stopped" in stderr
    assert traces_of(post.host) == traces
