"""Keeps a container engine apart from the machine, and takes every trace away: ``python -m tests.compose.keeper``.

The engine and all that it starts live in a process and a mount namespace whose first process is a child of this one:
when it dies the kernel ends them all, and their mounts and network namespaces go with them; no directory of the machine
is a mount point of theirs that another could remove under them. What is left then are control groups and files below
one directory, which this process removes. It does so when its standard input ends, so also when the tests are killed.
If it is killed itself, the engine ends too, and the next run removes what is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tcpha.lab.waiting import wait_until

PREFIX = "tcpha-compose-"
ROOT = Path("/var/tmp")
"""On a disk: the engine's layers can be too much for a /tmp in memory."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_VIEW = ("/etc/docker", "/run/containerd", "/run/docker", "/var/lib/docker", "/opt/containerd")
"""Where an engine writes whatever it is told: empty inside, untouched outside."""
_LIMIT_S = 20.0


def name_of(pid: int) -> str:
    """The name of what a keeper keeps, by its process id: of its directory and its control groups."""
    return f"{PREFIX}{pid}"


def directory_of(name: str) -> Path:
    return ROOT / name


def view_of(name: str) -> Path:
    """What is seen only inside: own places, and `bin` with what stands in for the machine's programs."""
    return directory_of(name) / "view"


def remains() -> list[str]:
    """What keepers left: directories, control groups, of those whose keeper is alive too."""
    groups = [str(group) for group in _groups(PREFIX + "*")]
    return sorted([*map(str, ROOT.glob(PREFIX + "*")), *groups])


def left() -> list[str]:
    """Those of them that no living keeper has, of these tests or of others that run at the same time."""
    return [path for path in remains() if not _is_kept(Path(path).name)]


def sweep() -> None:
    """Remove what killed keepers left."""
    for name in {Path(path).name for path in left()}:
        _remove(name)


def _is_kept(name: str) -> bool:
    try:
        words = Path("/proc", name.removeprefix(PREFIX), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"tests.compose.keeper" in words


def _groups(pattern: str) -> Iterator[Path]:
    """Control groups at the top of every hierarchy (version 1 has several, version 2 one)."""
    yield from CGROUPS.glob(pattern)
    yield from CGROUPS.glob(f"*/{pattern}")


def _remove(name: str) -> None:
    for group in list(_groups(name)):
        wait_until(lambda group=group: _remove_group(group), _LIMIT_S)  # type: ignore[misc]
    shutil.rmtree(directory_of(name), ignore_errors=True)


def _remove_group(group: Path) -> bool:
    """A group can be removed a moment after its last process ended."""
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
    return not group.exists()


OWN_TREES = ("/etc", "/opt", "/run", "/var/lib")
"""Where they are: seen inside as they are outside, but what is written there stays inside."""
_VIEW = r"""
set -e
mount -t tmpfs tcpha "$1"
for tree in $2; do
    [ -d "$tree" ] || continue
    mkdir -p "$1/upper$tree" "$1/work$tree"
    mount -t overlay -o "lowerdir=$tree,upperdir=$1/upper$tree,workdir=$1/work$tree" tcpha "$tree"
done
for path in $3; do
    mkdir -p "$path"
    mount -t tmpfs tcpha "$path"
done
# An engine asks for br_netfilter: that would be the whole machine's, and send all its bridged packets by its rules.
mkdir "$1/bin" "$1/real"
cat >"$1/bin/modprobe" <<END
#!/bin/sh
for word do shift; [ "\$word" = br_netfilter ] || set -- "\$@" "\$word"; done
[ ! -e "$1/real/modprobe" ] || exec "$1/real/modprobe" "\$@"
END
chmod 755 "$1/bin/modprobe"
if modprobe=$(command -v modprobe); then
    modprobe=$(readlink -f "$modprobe")
    : >"$1/real/modprobe"
    mount --bind "$modprobe" "$1/real/modprobe"
    mount --bind "$1/bin/modprobe" "$modprobe"
fi
echo mounted
exec tini -- sleep infinity
"""
"""The script of the first process: a directory, trees, places."""


def _first_process(directory: Path) -> subprocess.Popen[bytes]:
    apart = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    arguments = [str(directory), " ".join(OWN_TREES), " ".join(OWN_VIEW)]
    words = ["setpriv", "--pdeathsig", "KILL", *apart, "sh", "-c", _VIEW, "-", *arguments]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def main() -> int:
    name = name_of(os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    directory_of(name).mkdir(mode=0o700)
    view = view_of(name)
    view.mkdir()
    outer = _first_process(view)
    try:
        if outer.stdout is None or outer.stdout.readline() != b"mounted\n":
            said = outer.stderr.read().decode(errors="replace") if outer.stderr is not None else ""
            print("-", " ".join(said.split()), flush=True)
            return 1
        print(_child_of(outer.pid), flush=True)
        sys.stdin.read()
    finally:
        outer.kill()
        outer.wait()
        _remove(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
