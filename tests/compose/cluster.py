"""The cluster of docker-compose.yml as the tests see it: commands in its containers, their state, their logs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcpha.lab.waiting import wait_until
from tests.compose.engine import Engine, EngineError

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "docker-compose.yml", ROOT / "tests/compose/build.yml")
VIP = "198.18.36.36"
CLIENT = "198.18.36.10"
NODES = ("fe", "be1", "be2")
SERVICES = (*NODES, "client")
UP_LIMIT_S = 120.0
HEALTHY_LIMIT_S = 60.0
_COMMAND_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as curl saw it; status 0: none."""

    status: int
    node: str | None
    body: str


class Cluster:
    """One project of Compose, of either version."""

    def __init__(self, engine: Engine, compose: Sequence[str], documents: Path, file: Path = FILES[0]) -> None:
        """`documents`: what the back ends serve, read-only."""
        self.engine = engine
        self.words = tuple(compose)
        further = engine.directory / "documents.yml"
        mounted = {"volumes": [f"{documents}:/srv/www:ro"]}
        further.write_text(json.dumps({"services": {"be1": mounted, "be2": mounted}}))
        files = [word for each in (file, FILES[1], further) for word in ("-f", str(each))]
        self._compose = (*compose, "--project-directory", str(ROOT), *files)

    def up(self, *options: str) -> None:
        self.compose("up", "--detach", *options, limit_s=UP_LIMIT_S)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5", limit_s=UP_LIMIT_S)

    def compose(self, *words: str, limit_s: float = _COMMAND_LIMIT_S) -> str:
        return self.engine.run([*self._compose, *words], limit_s=limit_s)

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        label = f"label=com.docker.compose.service={service}"
        return self.engine.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).strip()

    def execute(self, service: str, *words: str, user: str | None = None) -> str:
        """Run a command in a container; its output. Raises: EngineError."""
        as_user = [] if user is None else ["--user", user]
        return self.engine.docker("exec", *as_user, self.container(service), *words)

    def fetch(self, path: str) -> Answer:
        """Ask the virtual address from the client, over a new connection."""
        words = ["curl", "--silent", "--include", "--max-time", "5", f"http://{VIP}{path}"]
        try:
            text = self.execute("client", *words)
        except EngineError:
            return Answer(0, None, "")
        head, _, body = text.partition("\n\n")
        node = re.search(r"(?mi)^server-node: (\S+)", head)
        return Answer(int(head.split()[1]), node[1] if node else None, body)

    def answers(self, path: str, node: str) -> bool:
        """Whether this node answers, now."""
        answer = self.fetch(path)
        return (answer.status, answer.node) == (200, node)

    def inspect(self, service: str) -> Any:
        """Everything the engine knows of a container."""
        return json.loads(self.engine.docker("inspect", self.container(service)))[0]

    def health(self, service: str) -> str:
        health: str = self.inspect(service)["State"]["Health"]["Status"]
        return health

    def await_health(self, service: str, wanted: str = "healthy") -> None:
        assert wait_until(lambda: self.health(service) == wanted, HEALTHY_LIMIT_S, interval_s=0.3), (
            f"{service} is {self.health(service)}, not {wanted}: {self.inspect(service)['State']}"
        )

    def pids(self, service: str, command: str) -> list[int]:
        """Processes of a container whose command line has this in it, by their numbers inside."""
        script = 'for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr "\\0" " " <$p/cmdline)"; done 2>/dev/null'
        lines = self.execute(service, "sh", "-c", script, user="root").splitlines()
        found = (line.partition(" ") for line in lines)
        return [int(pid) for pid, _, words in found if command in words and script[:20] not in words]

    def pids_outside(self, service: str) -> list[int]:
        """All processes of a container, by their numbers where the engine runs."""
        return [int(line) for line in self.engine.docker("top", self.container(service), "-eo", "pid").split()[1:]]

    def read_outside(self, service: str, name: str) -> list[str]:
        """One file in /proc of each process of a container; health checks come and go, and have none any more."""
        script = f'for pid; do cat "/proc/$pid/{name}" 2>/dev/null; printf "\\1"; done'
        pids = [str(pid) for pid in self.pids_outside(service)]
        return self.engine.inside(["sh", "-c", script, "-", *pids]).split("\1")

    def logs(self, service: str) -> str:
        """What a container wrote, to standard output or, though nothing should be, to standard error."""
        return self.engine.inside(["sh", "-c", 'exec docker logs "$1" 2>&1', "-", self.container(service)])

    def octets_sent(self, service: str) -> int:
        return int(self.execute(service, "cat", "/sys/class/net/eth0/statistics/tx_bytes"))
