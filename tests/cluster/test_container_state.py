"""A container in its host's network, killed: who starts next takes its traces away, if the record of them outlived it.

The container is process 1 of namespaces with a /run of its own, in the network of a host that is compared.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.net.footprints import ROLES, traces_of
from tests.unit.net.namespaces import Host, pair

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0
CONTAINER = """
set -e
mount -t tmpfs tcpha /run
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
exec "$2" -P -m tcpha.container "$3"
"""
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", CONTAINER, "-")


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as (one, _):
        yield one


@contextmanager
def container(host: Host, role: str, directory: Path, state: Path) -> Iterator[subprocess.Popen[str]]:
    """A container whose agent is ready; the kernel ends all of it with its outer process."""
    # The image's user; here, where the package may lie in a directory of root's, by another name for root.
    for name in ("passwd", "group"):
        own = Path("/etc", name).read_text()
        line = "tcpha:x:0:0::/:/bin/sh\n" if name == "passwd" else "tcpha:x:0:\n"
        (directory / name).write_text(own + line)
    variables = {
        "TCPHA_RADDR": str(host.addr4),
        "TCPHA_VADDR": "10.77.0.100",
        "TCPHA_SECRET_FILE": str(directory / "secret"),
        "TCPHA_MAKE_SECRET": "yes",
        "TCPHA_STATE": str(state),
        "TCPHA_SERVERS": "10.77.0.2" if role == "fe" else str(host.addr4),
    }
    variables |= {"TCPHA_RULES": f"{variables['TCPHA_SERVERS']} .*"}
    variables |= {"TCPHA_FE": "10.77.0.2"} if role == "be" else {}
    words = [*APART, str(directory), sys.executable, role]
    with (
        host.inside(),
        subprocess.Popen(
            words,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if f" {role} ready" in line:
                    break
            assert said, "it ended without a word"
            assert f" {role} ready" in said[-1], "".join(said)
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str]) -> int:
    """As an engine does."""
    first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(first, signal.SIGTERM)
    process.communicate(timeout=LIMIT_S)
    return process.returncode


@pytest.mark.parametrize("role", ROLES)
def test_container_is_killed_the_next_one_with_the_same_state_leaves_the_host_as_before(
    host: Host, tmp_path: Path, role: str
) -> None:
    before = traces_of(host)
    state = tmp_path / "state"
    with container(host, role, tmp_path, state):
        during = traces_of(host)
        assert during != before
    assert traces_of(host) == during
    assert (state / f"footprint-{role}.json").exists()
    with container(host, role, tmp_path, state) as second:
        assert stop(second) == 0
    assert traces_of(host) == before
