"""tools/bootstrap: whose directory it empties or removes. Nothing is installed: what it could call are stubs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[2] / "tools" / "bootstrap"
HARMLESS = ("cat", "cksum", "cmp", "dirname", "find", "ls", "mkdir", "rm", "sort")
REQUIRED = ("gcc", "iptables", "ip6tables", "ip", "sysctl")
PYTHON = """#!/bin/sh
case "$*" in
-) cat >/dev/null; echo "$0" ;;
-V) echo "Python 3.11" ;;
"-m venv "*) echo x >"$3/half"; exit 1 ;;
esac
"""
"""An interpreter that fails in the middle of a build."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH without apt-get and pip."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in HARMLESS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name in REQUIRED:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    (folder / "python3").write_text(PYTHON)
    (folder / "python3").chmod(0o755)
    return folder


@pytest.fixture
def bootstrap(programs: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": str(programs)}
        command = ["/bin/sh", str(BOOTSTRAP), *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def as_absent(target: Path) -> None:
    pass


def as_empty(target: Path) -> None:
    target.mkdir()


def as_begun(target: Path) -> None:
    target.mkdir()
    (target / "tcpha.stamp").touch()
    (target / "half").touch()


def as_foreign(target: Path) -> None:
    target.mkdir()
    (target / "theirs").write_text("precious")


def as_hidden(target: Path) -> None:
    target.mkdir()
    (target / ".theirs").write_text("precious")


def as_file(target: Path) -> None:
    target.write_text("precious")


def as_link_to_foreign(target: Path) -> None:
    as_foreign(target.parent / "elsewhere")
    target.symlink_to(target.parent / "elsewhere")


def as_dangling_link(target: Path) -> None:
    target.symlink_to(target.parent / "nowhere")


def as_another_environment(target: Path) -> None:
    target.mkdir()
    (target / "pyvenv.cfg").write_text("home = /usr/bin\n")


FOREIGN = [as_foreign, as_hidden, as_file, as_link_to_foreign, as_dangling_link, as_another_environment]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in folder.rglob("*")
        if "bin" not in path.parts
    }


@pytest.mark.parametrize("make", [as_absent, as_empty, as_begun])
def test_directory_is_absent_empty_or_ours_it_may_be_built(
    bootstrap: Run, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "target")
    before = contents(tmp_path)
    done = bootstrap("check", tmp_path / "target")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["check", "service", "lab", "bench", "kernel", "fuzz", "remove"])
@pytest.mark.parametrize("make", FOREIGN)
def test_directory_is_of_others_it_is_refused_and_left_as_it_is(
    bootstrap: Run, tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / "target")
    before = contents(tmp_path)
    done = bootstrap(kind, tmp_path / "target")
    assert done.returncode == 1
    assert done.stderr.startswith(f"bootstrap: {tmp_path / 'target'} is no")
    assert contents(tmp_path) == before
    assert os.path.lexists(tmp_path / "target")


def test_build_is_interrupted_the_directory_is_still_ours_and_is_built_again(bootstrap: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert bootstrap("service", target).returncode == 1
    assert sorted(path.name for path in target.iterdir()) == ["half", "tcpha.stamp"]
    assert bootstrap("check", target).returncode == 0
    (target / "older").mkdir()
    (target / "older" / "file").touch()
    done = bootstrap("service", target)
    assert "building" in done.stdout
    assert sorted(path.name for path in target.iterdir()) == ["half", "tcpha.stamp"]


@pytest.mark.parametrize(("kind", "wanted"), [("lab", None), ("bench", "wrk"), ("kernel", "clang")])
def test_what_one_purpose_needs_is_wanted_only_for_it(
    bootstrap: Run, tmp_path: Path, kind: str, wanted: str | None
) -> None:
    done = bootstrap(kind, tmp_path / "target")
    missing = done.stderr.partition("commands not found:")[2].split()
    assert "curl" in missing
    assert {"wrk", "clang"} & set(missing) == ({wanted} if wanted else set())


def test_ours_is_removed(bootstrap: Run, tmp_path: Path) -> None:
    as_begun(tmp_path / "target")
    assert bootstrap("remove", tmp_path / "target").returncode == 0
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("make", [as_absent, as_empty])
def test_nothing_of_ours_nothing_is_removed(bootstrap: Run, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "target")
    before = contents(tmp_path)
    assert bootstrap("remove", tmp_path / "target").returncode == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize("words", [(), ("service",), ("service", ""), ("remove", ""), ("service", "a", "b")])
def test_no_directory_is_named_status_1(bootstrap: Run, words: tuple[str, ...]) -> None:
    done = bootstrap(*words)
    assert done.returncode == 1
    assert "usage: tools/bootstrap" in done.stderr
