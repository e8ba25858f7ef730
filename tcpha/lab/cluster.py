"""A lab: client, front end and back ends on one machine, up and down. The demo, the tests and the benchmarks use it.

Must not know what the nodes say to each other. Order of `up`: directory, namespaces and links, servers, back ends and
front end. Whatever interrupts it takes down what was built. `down` needs no record of `up`: it goes by the names of the
namespaces and by who lives in them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self

from tcpha.errors import StartError
from tcpha.invocation import command
from tcpha.lab import (
    addressing,
    blueprint,
    certificate,
    documents,
    namespaces,
    nginx,
    pinned,
    programs,
    redis,
    residents,
)
from tcpha.lab.addressing import DEFAULT_NAME, MTU_OCTETS, ROUTER, SWITCH, Plan, namespace_of
from tcpha.lab.aftermath import cleaning_up_after
from tcpha.lab.blueprint import NGINX, Blueprint
from tcpha.lab.cables import Cables
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import READY_LIMIT_S, Daemon, await_ready
from tcpha.lab.impairment import Impairment, Way
from tcpha.lab.impairments import ImpairedWay, Impairments, Means
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until

RUN_DIRECTORY = Path("/run/tcpha-lab")
HEARD_LIMIT_S = 5.0
"""A lab stands also where the front end never hears a back end: its configuration may forbid it."""
_NOT_HEARD = re.compile(r"ready; not heard of yet: (.+)")
_HEARD = re.compile(r"be (\S+) is (?:up|not used: (?!not heard))")


class Lab:
    """One lab, standing or not. As a context manager it takes down at the end what it brought up."""

    def __init__(self, name: str = DEFAULT_NAME, *, root: Path = RUN_DIRECTORY) -> None:
        """Raises StartError if no lab may be called `name`."""
        self.name = addressing.check_name(name)
        self.directory = root / name
        """Configuration, logs and state of the nodes, one directory each."""
        self.is_claimed = False
        """Whether what stands, or half stands, was brought up by this very object."""
        self._plan: Plan | None = None
        self._documents: Path | None = None
        self._nodes: dict[str, Node] = {}

    @classmethod
    def attach(cls, name: str = DEFAULT_NAME, *, root: Path = RUN_DIRECTORY) -> Self:
        """A lab that another process has brought up.

        Raises:
            StartError: it does not stand.
        """
        lab = cls(name, root=root)
        present = namespaces_of(lab.name)
        if not present:
            raise no_lab(lab.name)
        known = blueprint.read(lab.directory)
        backends = sum(node.startswith("be") for node in present)
        lab._assemble(known or Blueprint(max(1, backends), None, routed=ROUTER in present))
        lab._nodes = {name: node for name, node in lab._nodes.items() if name in present}
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_claimed:
            self.down()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """By name: client, fe, be1, ..., the router of a routed lab, and the switch, which holds the bridges.

        Empty while the lab does not stand.
        """
        return self._nodes

    def node(self, name: str) -> Node:
        """One node. Raises StartError if the lab has none of that name."""
        try:
            return self._nodes[name]
        except KeyError:
            raise StartError(f"lab {self.name} has no node {name!r}, but {' '.join(self._nodes) or 'none'}") from None

    @property
    def client(self) -> Node:
        """Where clients run."""
        return self.node("client")

    @property
    def fe(self) -> Node:
        """The front end."""
        return self.node("fe")

    @property
    def backends(self) -> tuple[Node, ...]:
        """The back ends, be1 first."""
        return tuple(self._nodes[place.node] for place in self.plan.backends if place.node in self._nodes)

    @property
    def router(self) -> Node:
        """What joins the segments. Raises StartError where there is but one."""
        return self.node(ROUTER)

    @property
    def plan(self) -> Plan:
        """Every address of the lab. Raises StartError while it does not stand."""
        if self._plan is None:
            raise StartError(f"lab {self.name} does not stand")
        return self._plan

    @property
    def vip4(self) -> IPv4Address:
        """The virtual IPv4 address."""
        return self.plan.vip4

    @property
    def vip6(self) -> IPv6Address:
        """The virtual IPv6 address."""
        return self.plan.vip6

    @property
    def certificate(self) -> Path:
        """What a client of a lab with `protocols` checks its servers against, for lab.test and every name below it."""
        return programs.certificate_path(self.directory)

    @property
    def documents(self) -> Path:
        """The directory of the documents that are served. Raises StartError where nothing is served."""
        if self._documents is None:
            raise StartError(f"lab {self.name} serves no documents")
        return self._documents

    def log(self, node: Node | str) -> Path:
        """The log of a node's tcpha.fe or tcpha.be."""
        return (self.node(node) if isinstance(node, str) else node).engine.log

    def impair(
        self, node: str, impairment: Impairment, *, peer: str | None = None, means: Means | None = None
    ) -> ImpairedWay:
        """Impair from now on what arrives at a node, from one peer or from all, in place of what was said before.

        Parameters and errors as of `Impairments.put`; as a context manager the result takes it away at the end.
        """
        return Impairments(self._nodes).put(Way(node, peer), impairment, means)

    def clear_impairments(self) -> None:
        """Take away all of them."""
        Impairments(self._nodes).clear()

    def up(
        self,
        *,
        backends: int = 2,
        server: str | None = NGINX,
        engine: bool = True,
        settings: Settings | None = None,
        fe_conf: Path | None = None,
        be_conf: Path | None = None,
        routed: bool = False,
        client_mtu_octets: int = MTU_OCTETS,
        backend_mtu_octets: int = MTU_OCTETS,
        protocols: bool = False,
        cables: Cables | None = None,
        ready_limit_s: float = READY_LIMIT_S,
    ) -> None:
        """Bring it up, wait until everything serves, leave it running.

        `server` is `nginx`, None for no server, or a command line. Without `engine` only the network and the servers
        run; configurations are written all the same, so `node.engine.start()` works later. `fe_conf` and `be_conf`
        take the place of what the lab generates from `settings`.

        Where it is `routed`, a router joins segments of the front end, the back ends and the client, and the front end
        reaches the back ends by a tunnel. The router, and nobody else, then finds packets too big that are longer than
        `client_mtu_octets` towards the client or `backend_mtu_octets` towards the back ends.

        With `protocols` the back ends serve, beside nginx's port 80, TLS, HTTP/2 in clear text, WebSocket and Redis,
        and the lab's own rules know them. `cables`: None leaves them as the kernel makes them.

        Raises:
            StartError: there can be no such lab, it stands, or this machine cannot hold it.
            ConfigError: `fe_conf` or `be_conf` cannot be read.
            DaemonError: a program ended or was not ready in time. Everything is taken down again.
        """
        wanted = Blueprint(backends, server, "", routed, client_mtu_octets, backend_mtu_octets, protocols)
        self.refuse(wanted)
        self._claim_directory()
        try:
            with _system_faults_named(self.name):
                known = self._record(wanted)
                self._build(known)
                if cables is not None:
                    cables.lay(self._nodes)
                self._configure(known, settings or Settings(), fe_conf, be_conf)
                self._start_servers(ready_limit_s)
                if engine:
                    self._start_engine(ready_limit_s)
        except BaseException as fault:
            with cleaning_up_after(fault):
                self.down()
            raise

    def leaves_traces(self) -> bool:
        """Whether anything of it is on this machine, whoever brought it up."""
        paths = (self.directory, documents.directory_in_memory(self.name))
        return bool(namespaces_of(self.name)) or any(path.exists() for path in paths)

    def down(self) -> None:
        """Remove every trace of it, whatever is left of it; nothing happens if there is none.

        Raises:
            StartError: something cannot be removed.
        """
        with _system_faults_named(self.name):
            present = namespaces_of(self.name)
            residents.end({found for found in map(namespaces.identity, present.values()) if found is not None})
            pinned.remove(present.items(), self.directory)
            for namespace in present.values():
                namespaces.remove(namespace)
            documents.remove(documents.directory_in_memory(self.name))
            with suppress(FileNotFoundError):
                shutil.rmtree(self.directory)
            if self.directory.parent == RUN_DIRECTORY:
                with suppress(OSError):  # the directory of other labs is in there, or nothing ever was
                    RUN_DIRECTORY.rmdir()
        for node in self._nodes.values():
            for daemon in node.daemons.values():
                daemon.kill()
        self._nodes, self._plan, self._documents = {}, None, None
        self.is_claimed = False

    def refuse(self, wanted: Blueprint) -> None:
        """Raises StartError where `up` of such a lab would, before anything is changed."""
        wanted.plan()
        if wanted.server not in (None, NGINX):
            programs.split_command(wanted.server)
        if wanted.protocols and wanted.server != NGINX:
            raise StartError("only the lab's own nginx speaks further protocols, no other server")
        if reason := obstacle(needs_nginx=wanted.server == NGINX, needs_protocols=wanted.protocols):
            raise StartError(reason)
        if namespaces_of(self.name):
            raise self._stands()

    def _stands(self) -> StartError:
        remedy = f"{command('tcpha.lab')} down --name {self.name}"
        return StartError(f"lab {self.name} stands already, or remains of it do; take it down: {remedy}")

    def _claim_directory(self) -> None:
        """Two `up` of one name: one of them makes the directory."""
        try:
            while not self.is_claimed:
                self.directory.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # the `down` of another lab took the parent away meanwhile
                    self.directory.mkdir()
                    self.is_claimed = True
        except FileExistsError:
            raise self._stands() from None
        except OSError as error:
            raise StartError(f"{self.directory} cannot be made: {error.strerror}") from error

    def _record(self, wanted: Blueprint) -> Blueprint:
        chosen = documents.choose_directory(self.name, otherwise=self.directory / "documents")
        known = wanted if wanted.server is None else replace(wanted, documents=str(chosen))
        known.write(self.directory)
        return known

    def _build(self, known: Blueprint) -> None:
        # pyroute2 takes a third of a second to import, which whoever enters a lab or takes it down does not need.
        from tcpha.lab import wiring

        wiring.join(self.name, known.plan())
        if known.documents:
            documents.remove(Path(known.documents))
            documents.make(Path(known.documents))
        self._assemble(known)

    def _assemble(self, known: Blueprint) -> None:
        """Nodes and what may run in them, as values: nothing is started."""
        self._plan = known.plan()
        self._documents = Path(known.documents) if known.documents else None
        for place in self._plan.places:
            namespace = namespace_of(self.name, place.node)
            node = Node(place.node, namespace, self.directory / place.node, place.ipv4, place.ipv6)
            self._nodes[place.node] = node
            if place is not self._plan.client:
                node.daemons["engine"] = Daemon(programs.engine(node), node.enter)
        for node in self.backends:
            for role, program in programs.servers(node, known).items():
                node.daemons[role] = Daemon(program, node.enter)
        for name in (ROUTER, SWITCH) if self._plan.is_routed else (SWITCH,):
            self._nodes[name] = Node(name, namespace_of(self.name, name), self.directory / name, None, None)

    def _configure(self, known: Blueprint, settings: Settings, fe_conf: Path | None, be_conf: Path | None) -> None:
        for node in self._nodes.values():
            node.directory.mkdir()
        secret, protocols = programs.write_secret(self.directory), known.protocols
        if protocols:
            programs.write_certificate(self.directory, self.plan)
        programs.write_front_end(self.plan, self.fe, secret, settings, fe_conf, protocols=protocols)
        for node, place in zip(self.backends, self.plan.backends, strict=True):
            programs.write_back_end(self.plan, node, place, secret, settings, be_conf, protocols=protocols)
            if known.server == NGINX:
                programs.write_nginx(node, known, self.directory)

    def _start_servers(self, limit_s: float) -> None:
        beside = [daemon for node in self.backends for role, daemon in node.daemons.items() if role != "engine"]
        self._launch(beside, limit_s)

    def _start_engine(self, limit_s: float) -> None:
        self._launch([node.engine for node in (*self.backends, self.fe)], limit_s)
        wait_until(self._is_heard, HEARD_LIMIT_S)

    def _is_heard(self) -> bool:
        """Has the front end heard every back end that it was ready without? On a busy machine some begin late."""
        said = self.log("fe").read_text()
        late = {address for found in _NOT_HEARD.findall(said) for address in found.split(", ")}
        return late <= set(_HEARD.findall(said))

    @staticmethod
    def _launch(daemons: list[Daemon], limit_s: float) -> None:
        for daemon in daemons:
            daemon.launch()
        await_ready(daemons, limit_s)


def obstacle(*, needs_nginx: bool = True, needs_protocols: bool = False) -> str | None:
    """Why no lab can stand on this machine, in words for a person; None if one can."""
    if reason := namespaces.fault():
        return reason
    if needs_nginx and nginx.find_program() is None:
        return "nginx is not installed"
    if needs_protocols and redis.find_program() is None:
        return "redis-server is not installed"
    if needs_protocols and certificate.find_program() is None:
        return "openssl is not installed"
    return None


def no_lab(name: str) -> StartError:
    """The fault that no such lab stands."""
    return StartError(f"there is no lab {name}; bring it up: {command('tcpha.lab')} up --name {name}")


def namespaces_of(lab: str) -> dict[str, str]:
    """The namespaces, by node, that a lab of this name has or left behind."""
    found = ((addressing.split_namespace(namespace), namespace) for namespace in namespaces.names())
    return {split[1]: namespace for split, namespace in found if split is not None and split[0] == lab}


def standing(root: Path = RUN_DIRECTORY) -> tuple[str, ...]:
    """Names of the labs that stand on this machine, or of which something remains, sorted."""
    split = (addressing.split_namespace(namespace) for namespace in namespaces.names())
    labs = {lab for lab, node in filter(None, split) if node == SWITCH}
    with suppress(FileNotFoundError):
        labs.update(entry.name for entry in root.iterdir() if entry.is_dir())
    return tuple(sorted(labs))


@contextmanager
def _system_faults_named(lab: str) -> Iterator[None]:
    """Turn what the kernel says into an error for a person."""
    try:
        yield
    except OSError as error:
        raise StartError(f"lab {lab}: {error}") from error
