"""The command lines of tcpha.fe and tcpha.be: options, messages, exit status. Nothing is opened: the node is a stub."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tcpha import __version__, program
from tcpha.config import FrontEndConfig, load_back_end, load_front_end
from tcpha.errors import EdgeError, StartError, TcphaError
from tcpha.invocation import command
from tcpha.net import netlink
from tcpha.net.footprint import Footprint, Plan, Role
from tcpha.program import main
from tcpha.proto.keyring import Keyring

LINES = (
    "raddr = 192.0.2.23",
    "vaddr = 192.0.2.36",
    "server = 192.0.2.33 666",
    "rule = 192.0.2.33 .*",
)


class Stub:
    """A node that notes what is asked of it."""

    def __init__(self, fault_at_run: BaseException | None = None) -> None:
        self.plan = Plan("eth0", (IPv4Address("192.0.2.36"),), (80,), 660, 1)
        self.built: list[tuple[FrontEndConfig, Keyring]] = []
        self.runs: list[tuple[Plan, bool]] = []
        self._fault = fault_at_run
        self.obstacle: str | StartError | None = None

    def build(self, config: FrontEndConfig, keyring: Keyring) -> Stub:
        self.built.append((config, keyring))
        return self

    def obstacle_here(self, config: FrontEndConfig) -> str | None:
        if isinstance(self.obstacle, StartError):
            raise self.obstacle
        return self.obstacle

    def run(self, plan: Plan, keep: bool) -> None:
        self.runs.append((plan, keep))
        if self._fault is not None:
            raise self._fault


class Asked:
    """The name of the role, which somebody may hold."""

    holder: str | None = None

    def __init__(self, role: str) -> None:
        assert role in ("fe", "be")

    def take(self) -> None:
        if self.holder is not None:
            raise StartError(f"another process in this role runs in this network namespace: {self.holder}")

    def give_up(self) -> None:
        """It was held for a moment."""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration's host, and root."""
    monkeypatch.setattr(program, "is_address_here", lambda _: True)
    monkeypatch.setattr(program, "holds", lambda _: True)
    monkeypatch.setattr(program, "Occupancy", Asked)
    monkeypatch.setattr(netlink, "interface_of", lambda _: "eth0")
    monkeypatch.setattr(netlink, "index_of", {"eth0": 2}.__getitem__)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("1 " + "ab" * 32 + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def file(tmp_path: Path, secret: Path) -> Path:
    return written(tmp_path, secret)


def written(tmp_path: Path, secret: Path, *lines: str, instead_of: str | None = None) -> Path:
    """A configuration of these lines, but for the one that begins with a text, and further ones."""
    path = tmp_path / "tcphafe.conf"
    kept = [line for line in LINES if instead_of is None or not line.startswith(instead_of)]
    path.write_text("".join(f"{line}\n" for line in (*kept, f"secret = {secret}", *lines)))
    return path


def run(stub: Stub, *arguments: str | Path) -> int:
    return main(
        "fe", "/etc/tcpha/tcphafe.conf", load_front_end, stub.build, stub.obstacle_here, list(map(str, arguments))
    )


def only_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


# Running


@pytest.mark.parametrize("keep", [False, True])
def test_sound_configuration_node_is_built_and_run_status_0(file: Path, keep: bool) -> None:
    stub = Stub()
    assert run(stub, "-c", file, *(["--keep"] if keep else [])) == 0
    assert stub.runs == [(stub.plan, keep)]
    assert stub.built[0][0].raddr == IPv4Address("192.0.2.23")
    assert stub.built[0][1].signing.number == 1


def test_warnings_are_said_and_the_node_runs(tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, secret, "rule = 192.0.2.33 jpg$", instead_of="rule")
    stub = Stub()
    assert run(stub, "-c", file) == 0
    assert only_line(capsys.readouterr().err).startswith(f"{file}: warning: ")
    assert stub.runs


@pytest.mark.parametrize(
    ("fault", "status"), [(StartError("666 is in use"), 2), (EdgeError("666 is in use"), 1), (KeyboardInterrupt(), 130)]
)
def test_fault_at_run_is_said_in_one_line_with_its_status(
    file: Path, capsys: pytest.CaptureFixture[str], fault: BaseException, status: int
) -> None:
    assert run(Stub(fault), "-c", file) == status
    assert capsys.readouterr().err == ("" if status == 130 else "fe: 666 is in use\n")


@pytest.mark.parametrize("fault", [StartError("no such thing"), EdgeError("no such thing")])
def test_fault_while_opening_is_a_fault_at_start(
    file: Path, capsys: pytest.CaptureFixture[str], fault: TcphaError
) -> None:
    def build(_config: FrontEndConfig, _keyring: Keyring) -> Stub:
        raise fault

    assert main("fe", "/nowhere", load_front_end, build, Stub().obstacle_here, ["-c", str(file)]) == 2
    assert capsys.readouterr().err == "fe: no such thing\n"


def test_fault_while_opening_where_another_process_of_the_role_runs_that_one_is_told(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_config: FrontEndConfig, _keyring: Keyring) -> Stub:
        raise StartError("192.0.2.23:666 is in use")

    monkeypatch.setattr(Asked, "holder", "process 7")
    assert main("fe", "/nowhere", load_front_end, build, Stub().obstacle_here, ["-c", str(file)]) == 2
    assert capsys.readouterr().err == "fe: another process in this role runs in this network namespace: process 7\n"


def test_interrupted_while_opening_says_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def build(_config: FrontEndConfig, _keyring: Keyring) -> Stub:
        raise KeyboardInterrupt

    assert main("fe", "/nowhere", load_front_end, build, Stub().obstacle_here, ["-c", str(file)]) == 130
    assert capsys.readouterr().err == ""


def test_no_file_named_the_default_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    default = tmp_path / "absent.conf"
    assert main("be", str(default), load_back_end, lambda *_: Stub(), lambda _: None, []) == 2
    assert only_line(capsys.readouterr().err) == f"be: {default}: cannot be read: No such file or directory"


# Faults of the file


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("line", "instead_of", "number", "reason"),
    [
        ("vport = 70000", None, 6, "vport: "),
        ("vports = 80", None, 6, "unknown key 'vports': did you mean vport?"),
        ("no equals sign", None, 6, "not of the form `key = value`"),
        ("hold_time = 1", None, 6, "hold_time is a key of the back end's file only"),
        ("raddr = 192.0.2.300", "raddr", 5, "raddr: "),
        ("raddr = 192.0.2.24", None, 6, "raddr is given twice, first in line 1"),
        ("vaddr = 192.0.2.36", None, 6, "vaddr: 192.0.2.36 is given twice"),
        ("vaddr = 192.0.2.33", "vaddr", 5, "vaddr: 192.0.2.33 is also server"),
        ("server = 192.0.2.33", "server", 5, "server: no port after 192.0.2.33: write 192.0.2.33 666"),
        ("rule = 192.0.2.99 .*", None, 6, "rule: 192.0.2.99 is in no server line (column 1)"),
        ("rule = 192.0.2.33 (jpg", None, 6, "rule: "),
        ("rule =", None, 6, "rule: no value"),
        ("log = loud", None, 6, "log: "),
        ("dead_time = 0.1", None, 6, "dead_time (0.1 s) must be longer than status_time"),
        ("state = run", None, 6, "state: "),
        ("mss = 20", None, 6, "is less than 88, the least allowed"),
        ("# only a comment", "raddr", None, "raddr: missing"),
        ("# only a comment", "rule", None, "rule: missing"),
    ],
)
def test_fault_of_a_line_is_said_with_file_and_line(
    tmp_path: Path,
    secret: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    instead_of: str | None,
    number: int | None,
    reason: str,
    check: bool,
) -> None:
    file = written(tmp_path, secret, line, instead_of=instead_of)
    stub = Stub()
    assert run(stub, "-c", file, *(["--check"] if check else [])) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    where = f"fe: {file}: " if number is None else f"fe: {file}:{number}: "
    said = only_line(captured.err)
    assert said.startswith(where)
    assert reason in said
    assert not stub.built


def as_directory(path: Path) -> None:
    path.mkdir()


def as_image(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def as_nothing(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("make", "reason"),
    [(as_directory, "Is a directory"), (as_image, "not UTF-8"), (as_nothing, "missing: the file must have this key")],
)
def test_path_of_another_thing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "thing"
    make(path)
    assert run(Stub(), "-c", path) == 2
    said = only_line(capsys.readouterr().err)
    assert said.startswith(f"fe: {path}:")
    assert reason in said


def test_secret_is_unusable_nothing_is_opened(file: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret.chmod(0o644)
    stub = Stub()
    assert run(stub, "-c", file) == 2
    assert only_line(capsys.readouterr().err).startswith(f"fe: {secret}: others may read")
    assert not stub.built


# Options


def test_check_of_a_sound_configuration_says_ok_and_opens_nothing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    assert run(stub, "--check", "-c", file) == 0
    assert capsys.readouterr() == (f"{file}: ok\n{file}: this host can be accelerated\n", "")
    assert not stub.built


def test_check_where_the_kernel_could_not_carry_says_why_and_is_ok(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    stub.obstacle = "CAP_BPF missing"
    assert run(stub, "--check", "-c", file) == 0
    assert capsys.readouterr() == (f"{file}: ok\n{file}: not accelerated here: CAP_BPF missing\n", "")


IN_THE_WAY = {
    "accelerate = require": "accelerate = require: CAP_BPF missing",
    "iface = eth9": "there is no interface eth9",
    "state = /dev/null": "state = /dev/null is no directory",
    "state = /dev/null/tcpha": "state = /dev/null/tcpha: /dev/null is no directory",
}


@pytest.fixture(params=IN_THE_WAY)
def in_the_way(tmp_path: Path, secret: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is in the way of a start on this host; the file has the line."""

    def index_of(iface: str) -> int:
        raise StartError(f"there is no interface {iface}")

    monkeypatch.setattr(netlink, "index_of", index_of)
    written(tmp_path, secret, request.param)
    return IN_THE_WAY[request.param]


def checked(file: Path) -> int:
    stub = Stub()
    stub.obstacle = "CAP_BPF missing"
    return run(stub, "--check", "-c", file)


def test_check_where_a_start_would_end_says_so_as_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_the_way: str
) -> None:
    assert checked(tmp_path / "tcphafe.conf") == 2
    assert capsys.readouterr() == ("", f"fe: {in_the_way}\n")


@pytest.mark.parametrize("question", ["is_address_here", "holds"])
def test_check_on_another_host_or_without_rights_warns_that_a_start_would_end(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    in_the_way: str,
    question: str,
) -> None:
    monkeypatch.setattr(program, question, lambda _: False)
    file = tmp_path / "tcphafe.conf"
    assert checked(file) == 0
    out, err = capsys.readouterr()
    assert out == ""
    told = in_the_way
    if question == "is_address_here" and not told.startswith("there is"):
        told = "192.0.2.23 is no address of this host"
    assert only_line(err) == f"{file}: warning: a start here ends with status 2: {told}"


def test_state_is_no_directory_it_is_told_by_its_key_and_nothing_is_opened_or_cleaned(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub, file = Stub(), written(tmp_path, secret, "state = /dev/null")
    for words in ((), ("--clean",)):
        assert run(stub, "-c", file, *words) == 2
        assert capsys.readouterr() == ("", "fe: state = /dev/null is no directory\n")
    assert not stub.built


def test_state_is_a_link_to_nowhere_it_is_no_directory(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert run(Stub(), "-c", written(tmp_path, secret, f"state = {link}")) == 2
    assert capsys.readouterr().err == f"fe: state = {link} is no directory\n"


def test_check_of_a_configuration_that_is_not_to_be_accelerated_does_not_look(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, secret, "accelerate = off")
    stub = Stub()
    stub.obstacle = "never asked for"
    assert run(stub, "--check", "-c", file) == 0
    assert capsys.readouterr() == (f"{file}: ok\n", "")


@pytest.mark.parametrize(("forward", "warns"), [("direct", True), ("tunnel", False)])
def test_check_of_an_mtu_warns_where_the_way_to_the_back_ends_is_the_segment(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str], forward: str, warns: bool
) -> None:
    file = written(tmp_path, secret, "mtu = 1400", f"forward = {forward}")
    assert run(Stub(), "--check", "-c", file) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{file}: ok\n")
    assert (f"{file}: warning: mtu 1400 is for forward = tunnel" in captured.err) is warns


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.chmod(0o644), lambda path: path.write_text("x")])
def test_check_with_an_unusable_secret_warns_and_is_ok(
    file: Path, secret: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object]
) -> None:
    spoil(secret)
    assert run(Stub(), "--check", "-c", file) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{file}: ok\n")
    assert only_line(captured.err).startswith(f"{file}: warning: {secret}: ")


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(Stub(), "--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tcpha {__version__}\n"


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (
            ("192.0.2.36 from lo", "3 packet filter rules"),
            "fe: removed 192.0.2.36 from lo\nfe: removed 3 packet filter rules\n",
        ),
        ((), "fe: nothing was left on this host\n"),
    ],
)
def test_clean_takes_away_what_was_left_says_what_and_opens_nothing(
    file: Path,
    secret: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    removed: tuple[str, ...],
    said: str,
) -> None:
    secret.unlink()
    monkeypatch.setattr(Footprint, "remove", lambda _self: removed)
    stub = Stub()
    assert run(stub, "--clean", "-c", file) == 0
    assert capsys.readouterr() == (said, "")
    assert not stub.built


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (None, 0, ("fe: ended connections that the kernel carried: 2\nfe: removed rules\n", "")),
        (EdgeError("sockets are not told"), 1, ("fe: removed rules\n", "fe: sockets are not told\n")),
    ],
)
def test_clean_ends_connections_before_it_takes_their_addresses_away(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: EdgeError | None,
    status: int,
    said: tuple[str, str],
) -> None:
    done: list[str] = []

    def end_left(_config: FrontEndConfig) -> int:
        done.append("ended")
        if fault is not None:
            raise fault
        return 2

    def remove(_footprint: Footprint) -> tuple[str, ...]:
        done.append("removed")
        return ("rules",)

    monkeypatch.setattr(Footprint, "remove", remove)
    words = ["--clean", "-c", str(file)]
    assert main("fe", "", load_front_end, Stub().build, Stub().obstacle_here, words, end_left) == status
    assert (done, tuple(capsys.readouterr())) == (["ended", "removed"], said)


@pytest.mark.parametrize(("fault", "status"), [(StartError("another process"), 2), (EdgeError("not everything"), 1)])
def test_clean_that_fails_is_said_in_one_line_with_its_status(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: TcphaError,
    status: int,
) -> None:
    def fail(_footprint: Footprint) -> tuple[str, ...]:
        raise fault

    monkeypatch.setattr(Footprint, "remove", fail)
    assert run(Stub(), "--clean", "-c", file) == status
    assert capsys.readouterr() == ("", f"fe: {fault}\n")


@pytest.mark.parametrize("name", ["fe", "be"])
def test_help_names_every_option_and_what_check_does(name: Role, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(name, f"/etc/tcpha/tcpha{name}.conf", load_front_end, Stub().build, Stub().obstacle_here, ["--help"])
    assert ended.value.code == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for text in (
        "--config FILE",
        "--check",
        "--keep",
        "--clean",
        "--version",
        f"/etc/tcpha/tcpha{name}.conf",
        "warns if the secret",
    ):
        assert text in said


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-c"], ["file.conf"], ["--check", "--clean"]])
def test_usage_fault_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(Stub(), *arguments)
    assert ended.value.code == 2
    assert f"usage: {command('tcpha.fe')}" in capsys.readouterr().err
