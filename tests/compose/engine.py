"""A container engine of the tests' own: dockerd beside the machine's, or where there is none.

It runs twice over the same data: to build images, in the machine's network namespace and told to leave the network
alone, since a build fetches packages; then, for the cluster, in a network namespace of its own that leads nowhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tcpha.lab.waiting import wait_until
from tests.compose import keeper

READY_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
_ROOT = Path(__file__).parents[2]
_TO_BUILD = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
_REFUSALS = ("operation not permitted", "permission denied", "read-only file system")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
"""The distribution's programs first: a client of another make elsewhere may not fit its engine."""


class EngineError(Exception):
    """The engine or a command of its failed; the end of what it said."""


class RefusedError(EngineError):
    """The system does not let an engine run: one that is itself in a container, without the rights for it."""


def find(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def obstacle() -> str | None:
    """Why no engine can run here; None if one can."""
    if os.geteuid() != 0:
        return "a container engine needs root"
    missing = [name for name in ("dockerd", "docker", "unshare", "nsenter", "setpriv", "tini") if find(name) is None]
    return f"there is no container engine: {', '.join(missing)} not installed" if missing else None


class Engine:
    """One engine and its clients. `close`, or the end of this process, takes everything away."""

    def __init__(self) -> None:
        self._daemon: subprocess.Popen[bytes] | None = None
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.compose.keeper"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.name = keeper.name_of(self._keeper.pid)
        self.directory = keeper.directory_of(self.name)
        said = self._keeper.stdout.readline() if self._keeper.stdout is not None else ""
        if not said.strip().isdecimal():
            self._keeper.wait()
            raise RefusedError(f"namespaces cannot be made here: {said[1:].strip()}")
        self._first_process = int(said)
        self.log = self.directory / "dockerd.log"
        unsaid = ("DOCKER_BUILDKIT", "COMPOSE_DOCKER_CLI_BUILD")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in unsaid},
            "PATH": f"{keeper.view_of(self.name)}/bin:{_PATH}",
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": str(self.directory / "client"),
            "COMPOSE_PROJECT_NAME": "tcpha",
        }

    @property
    def keeper_pid(self) -> int:
        return self._keeper.pid

    def close(self) -> None:
        """End everything that runs inside, and remove what was made."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait(timeout=60)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()

    def start_to_build(self) -> None:
        """Run the engine in the machine's network, of which it changes nothing."""
        self._start([], _TO_BUILD)

    def start_apart(self) -> None:
        """Run the engine as on a machine of its own, without any network."""
        self._start(["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "-"], ())

    def stop(self) -> None:
        """Stop the engine; images and containers stay."""
        if self._daemon is None:
            return
        pid = (self.directory / "dockerd.pid").read_text()
        self.inside(["kill", pid])
        self._daemon.wait(STOP_LIMIT_S)
        self._daemon = None

    def docker(self, *words: str, limit_s: float = 60.0, stdin: Path | None = None) -> str:
        """Run the engine's client; what it wrote. Raises: EngineError."""
        return self._run(["docker", *words], limit_s=limit_s, stdin=stdin)

    def run(self, words: Sequence[str], *, limit_s: float, cwd: Path = _ROOT) -> str:
        """Run a client of the engine; what it wrote. Raises: EngineError."""
        return self._run(words, limit_s=limit_s, cwd=cwd)

    def inside(self, words: Sequence[str], *, limit_s: float = 60.0) -> str:
        """Run any program as the engine runs: it ends with it. What it wrote. Raises: EngineError."""
        return self._run([*self._entered(), *words], limit_s=limit_s)

    def _entered(self) -> list[str]:
        return ["nsenter", f"--target={self._first_process}", "--mount", "--pid", "--"]

    def _start(self, around: Sequence[str], options: Sequence[str]) -> None:
        words = [
            *(*self._entered(), *around),
            *("dockerd", f"--host=unix://{self.directory}/docker.sock", f"--pidfile={self.directory}/dockerd.pid"),
            *(f"--data-root={self.directory}/data", f"--exec-root={self.directory}/exec"),
            *(f"--cgroup-parent=/{self.name}", "--exec-opt=native.cgroupdriver=cgroupfs"),
            *options,
        ]
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        if not wait_until(self._answers, READY_LIMIT_S):
            raise EngineError(f"the engine does not answer: {_tail(self.log.read_text(errors='replace'))}")

    def _answers(self) -> bool:
        if self._daemon is not None and self._daemon.poll() is not None:
            said = _tail(self.log.read_text(errors="replace"))
            refused = any(reason in said.lower() for reason in _REFUSALS)
            raise (RefusedError if refused else EngineError)(f"the engine ended: {said}")
        try:
            self._run(["docker", "info"], limit_s=10)
        except EngineError:
            return False
        return True

    def _run(self, words: Sequence[str], *, limit_s: float = 60.0, stdin: Path | None = None, cwd: Path = _ROOT) -> str:
        return run(words, self.environment, limit_s=limit_s, stdin=stdin, cwd=cwd)


def run(
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    limit_s: float,
    stdin: Path | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program of the distribution; its output. Raises: EngineError with the end of what it said."""
    program = find(words[0]) or words[0]
    with (stdin or Path(os.devnull)).open("rb") as source:
        try:
            done = subprocess.run(
                [program, *words[1:]],
                env=environment,
                stdin=source,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
                cwd=cwd,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{' '.join(words)}: not ended after {limit_s:g} s") from error
        except OSError as error:
            raise EngineError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        raise EngineError(f"{' '.join(words)}: exit status {done.returncode}\n{_tail(done.stdout + done.stderr)}")
    return done.stdout


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-40:])
