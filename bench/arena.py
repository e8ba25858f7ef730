"""Where everybody is measured: labs, and in them the proxies, the documents, the settings of the kernel.

Must not know what is measured. Contenders whose engines are set up alike share a lab; there all of them run all the
time, and only one of them is given work.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import cpu, peers, programs
from bench.checking_client import Document, Target
from bench.contenders import BACK_ENDS, RULES, Contender, Door, Role
from tcpha.errors import StartError
from tcpha.lab import namespaces, residents
from tcpha.lab.cluster import RUN_DIRECTORY, Lab
from tcpha.lab.configuration import SERVER_PORT, Settings
from tcpha.lab.daemon import Daemon, Program, await_ready
from tcpha.lab.nginx import find_program as find_nginx
from tcpha.lab.node import Node

IFACE = "eth0"
UPLOAD_PATH = "/sink"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_MEMORY = Path("/dev/shm")
ROOTS = (_MEMORY, RUN_DIRECTORY.parent)
"""In one of them an arena has its directory."""
_CONNECT_LIMIT_S = 1.0
_SETTINGS_OF_CLIENTS = {
    # Whoever connects often must not run out of ports: all of them, and those that wait for stragglers at once again.
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_tw_reuse": "1",
}


@dataclass(frozen=True, slots=True)
class Stand:
    """A contender where it stands."""

    contender: Contender
    lab: Lab
    target: Target

    def daemons(self, role: Role) -> list[Daemon]:
        """What a role consists of."""
        return [self.lab.node(node).daemons[name] for node, name in role.daemons]

    def pids(self) -> dict[str, tuple[int, ...]]:
        """Processes by role. Raises StartError if one does not run."""
        found: dict[str, tuple[int, ...]] = {}
        for role in self.contender.roles:
            groups = [self._group(daemon) for daemon in self.daemons(role)]
            found[role.name] = tuple(pid for group in groups for pid in group)
        return found

    def server_pids(self) -> tuple[int, ...]:
        """Processes of the servers on all back ends. Raises StartError if one does not run."""
        return tuple(pid for node in self.lab.backends for pid in self._group(node.server))

    def residents(self) -> tuple[int, ...]:
        """Processes of everybody in the lab."""
        found = (namespaces.identity(node.namespace) for node in self.lab.nodes.values())
        return residents.find({identity for identity in found if identity is not None})

    def document(self, path: str) -> Document:
        """What is served at a path, and who has to serve it to this contender's clients."""
        content = (self.lab.documents / path.removeprefix("/")).read_bytes()
        return Document(path, content, self.contender.node_for(path))

    def restart(self) -> None:
        """Stop the contender's processes and start them again, those that are asked after those that answer."""
        daemons = [daemon for role in reversed(self.contender.roles) for daemon in self.daemons(role)]
        for daemon in reversed(daemons):
            daemon.stop()
        for daemon in daemons:
            daemon.launch()
        await_ready(daemons)

    def _group(self, daemon: Daemon) -> tuple[int, ...]:
        if daemon.pid is None:
            raise StartError(daemon.report("does not run any more"))
        return cpu.group_of(daemon.pid)


class Arena:
    """The labs, standing or not; as a context manager it takes down what it brought up."""

    def __init__(self, name: str, contenders: Iterable[Contender], backends: int = BACK_ENDS) -> None:
        """`name` begins the names of the labs, each of so many back ends."""
        self._backends = backends
        self.contenders = tuple(contenders)
        self._root = next((root for root in ROOTS if is_in_memory(root)), ROOTS[-1]) / root_name(name)
        distinct = dict.fromkeys(contender.settings for contender in self.contenders)
        self._labs: dict[Settings, Lab] = {
            each: Lab(f"{name}-{number}", root=self._root) for number, each in enumerate(distinct)
        }
        self._standing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Bring up every lab and everybody in it.

        Raises:
            StartError: this machine cannot hold them, or a proxy is not installed.
            DaemonError: a program ended or was not ready in time.
        """
        if any(each.needs_programs for each in self.contenders):
            self._standing.enter_context(programs.counted())
        for own_settings, lab in self._labs.items():
            self._standing.enter_context(lab)
            lab.up(backends=self._backends, settings=own_settings)
            for node in (lab.client, lab.fe):
                _set(node, _SETTINGS_OF_CLIENTS)
            proxies = [each for each in self.contenders if each.peer and each.settings == own_settings]
            daemons = [_add_proxy(lab, contender) for contender in proxies]
            for daemon in daemons:
                daemon.launch()
            await_ready(daemons)

    def down(self) -> None:
        """Remove every trace."""
        self._standing.close()
        for lab in self._labs.values():
            if lab.is_claimed:  # an interruption came while it was being taken down
                lab.down()
        shutil.rmtree(self._root, ignore_errors=True)

    def stand(self, contender: Contender) -> Stand:
        """Where a contender is."""
        lab = self._labs[contender.settings]
        return Stand(contender, lab, Target(str(_address(lab, contender)), contender.port))

    @property
    def serves_from_memory(self) -> bool:
        """Whether documents are in a tmpfs."""
        return all(is_in_memory(lab.documents.parent) for lab in self._labs.values())

    def add_documents(self, contents: dict[str, bytes]) -> None:
        """Serve further documents, by path, below a directory that is not there yet."""
        for lab in self._labs.values():
            for path, content in contents.items():
                file = lab.documents / path.removeprefix("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)

    def empty_logs(self) -> None:
        """Cut the servers' access logs: they are in memory, and grow by every request."""
        for lab in self._labs.values():
            for node in lab.backends:
                with suppress(FileNotFoundError):
                    os.truncate(node.access_log, 0)


def root_name(arena: str) -> str:
    """What an arena's directory is called."""
    return f"tcpha-{arena}"


def is_in_memory(directory: Path) -> bool:
    """Whether a directory is one on which a tmpfs is mounted."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return any(fields[1:3] == [str(directory), "tmpfs"] for fields in mounts)


def find_haproxy() -> str | None:
    """Path of HAProxy; None if it is not installed."""
    return shutil.which("haproxy", path=_SBIN)


def obstacle(contenders: Iterable[Contender]) -> str | None:
    """What is missing to run these contenders and the load, in words for a person; None if nothing is."""
    programs = {contender.peer.program for contender in contenders if contender.peer}
    if "haproxy" in programs and find_haproxy() is None:
        return "haproxy is not installed"
    if "nginx" in programs and find_nginx() is None:
        return "nginx is not installed"
    if shutil.which("wrk") is None:
        return "wrk is not installed"
    return None


def _address(lab: Lab, contender: Contender) -> object:
    match contender.door:
        case Door.BACK_END:
            return lab.node("be1").ipv4
        case Door.FRONT_END:
            return lab.fe.ipv4
        case Door.VIRTUAL:
            return lab.vip4


def _add_proxy(lab: Lab, contender: Contender) -> Daemon:
    peer, key, node = contender.peer, contender.key, lab.fe
    if peer is None:
        raise StartError(f"{contender.title} is no proxy")
    file, servers = node.directory / f"{key}.conf", {each.name: each.ipv4 for each in lab.backends}
    reuse = peer.reuses_connections
    if peer.program == "haproxy":
        file.write_text(peers.haproxy(node.ipv4, contender.port, RULES, servers, SERVER_PORT, reuse=reuse))
        arguments = peers.haproxy_command(find_haproxy() or "haproxy", file)
    else:
        directory, port = node.directory, contender.port
        file.write_text(peers.nginx(key, directory, node.ipv4, port, RULES, servers, SERVER_PORT, reuse=reuse))
        arguments = [find_nginx() or "nginx", "-e", "stderr", "-p", str(directory), "-c", str(file)]
    serves = partial(_accepts, node, contender.port)
    daemon = Daemon(Program(key, arguments, node.directory, {}, serves), node.enter)
    node.daemons[key] = daemon
    return daemon


def _accepts(node: Node, port: int) -> bool:
    with node.enter(), suppress(OSError):
        socket.create_connection((str(node.ipv4), port), _CONNECT_LIMIT_S).close()
        return True
    return False


def _set(node: Node, values: dict[str, str]) -> None:
    with node.enter():
        for key, value in values.items():
            Path("/proc/sys", key).write_text(f"{value}\n")
