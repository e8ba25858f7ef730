"""The impairments of a standing lab: put on, taken away, listed. All of it is in its switch, nothing in the nodes.

Packets are impaired where a bridge forwards them to the port that leads to the node; what a front end hands to its
interface past its own rules comes by too. A peer is known by the MAC of its frames, for a front end forwards a client's
packets with the client's address. Where netem can do what is asked, netem does it; else a rule of the switch brings the
packets into an NFQUEUE, whose program (tcpha.lab.impairer) decides. Should that die, packets pass (`--queue-bypass`).
Must not know what a packet's fate depends on.

What stands is written into the directory of the switch, and every change arranges the rules and the kernel's queues
anew from that, so it does not matter who put on what, or died while doing so. iptables-extensions(8); of the kernel the
program needs `QUEUE_NEEDS`, netem `netem.NEEDS`. Where netem alone impairs, there are no rules.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tcpha.errors import StartError, TcphaError
from tcpha.lab import netem, programs
from tcpha.lab.addressing import SWITCH
from tcpha.lab.aftermath import cleaning_up_after, told
from tcpha.lab.daemon import Daemon, DaemonError, Program
from tcpha.lab.impairer_job import Job
from tcpha.lab.impairment import NEIGHBOUR_DISCOVERY, PROTOCOLS, Impairment, Way
from tcpha.lab.node import Node
from tcpha.lab.switch_ports import Port, ports_of, shared
from tcpha.net import firewall
from tcpha.net.firewall import Rule

Means = Literal["netem", "queue"]
"""The kernel's, or the lab's program behind an NFQUEUE."""

QUEUE_NEEDS = "br_netfilter, nfnetlink_queue, xt_NFQUEUE, xt_physdev, xt_mac, xt_comment"
"""Modules of the kernel, or parts built into it, that bring packets of a bridge to the program."""

_ROLE = "impair"
_TABLE, _CHAIN = "mangle", "FORWARD"
_BRIDGE_SETTINGS = Path("/proc/sys/net/bridge")
_FILE = "impairments.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """An impairment that is on."""

    way: Way
    impairment: Impairment
    means: Means
    queue: int
    """Number of its NFQUEUE; -1 for netem."""


class ImpairedWay:
    """What `Lab.impair` has put on. As a context manager it is taken away at the end."""

    def __init__(self, owner: Impairments, standing: Standing) -> None:
        self._owner = owner
        self.standing = standing

    @property
    def log(self) -> Path:
        """Where the program logs its counters: on SIGUSR1, and when it ends. Raises StartError for netem."""
        return self._owner.daemon(self.standing).log

    @property
    def is_in_effect(self) -> bool:
        """Whether packets are impaired: not if the program died, or somebody took it away or put on another one."""
        return self._owner.is_in_effect(self.standing)

    def end(self) -> None:
        """Take it away, if it is still this one that stands."""
        if self.standing in self._owner.standing():
            self._owner.take_away(self.standing.way)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lasted = self.is_in_effect
        self.end()
        if kind is None and not lasted:
            raise DaemonError(f"the impairment of {self.standing.way} ended before it was taken away")


class Impairments:
    """Those of one lab."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        """`nodes`: all of the lab, by name. Raises StartError if there is no switch among them."""
        if SWITCH not in nodes:
            raise StartError("the lab has no switch: nothing can be impaired")
        self._nodes = nodes
        self._switch = nodes[SWITCH]
        self._file = self._switch.directory / _FILE
        self._ports: dict[str, tuple[Port, ...]] = {}  # as found; nobody replugs a lab that stands

    def standing(self) -> tuple[Standing, ...]:
        """All that are on, in the order of their ways."""
        try:
            entries = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return ()
        found = (
            Standing(Way(**entry["way"]), Impairment(**entry["impairment"]), entry["means"], entry["queue"])
            for entry in entries
        )
        return tuple(sorted(found, key=lambda standing: str(standing.way)))

    def is_in_effect(self, standing: Standing) -> bool:
        """Whether it is on and, where a program impairs, that runs."""
        return standing in self.standing() and (standing.means == "netem" or self.daemon(standing).is_running)

    def put(self, way: Way, impairment: Impairment, means: Means | None = None) -> ImpairedWay:
        """Put one on, in place of the one of the same way. `means`: None is what the kernel can do, else the program.

        Raises:
            StartError: there is no such way in this lab, or this machine lacks the means.
            DaemonError: the program did not start.
        """
        with self._locked():
            self._pairs(way)
            self._remove(way)
            chosen = self._choose(impairment, means)
            try:
                return ImpairedWay(self, self._begin(way, impairment, chosen))
            except StartError as first:
                if chosen == "queue" or means is not None:
                    raise
                try:
                    return ImpairedWay(self, self._begin(way, impairment, "queue"))
                except TcphaError as second:
                    second.add_note(f"netem was tried before: {told(first)}")
                    raise

    def take_away(self, way: Way) -> bool:
        """Take away the one of this way; whether there was one. What it holds goes on its way."""
        with self._locked():
            return self._remove(way)

    def clear(self) -> None:
        """Take away all."""
        with self._locked():
            for standing in self.standing():
                self._remove(standing.way)

    def daemon(self, standing: Standing) -> Daemon:
        """The program of one that is on. Raises StartError for netem, which needs none."""
        if standing.means != "queue":
            raise StartError(f"the impairment of {standing.way} is netem's: it has no program")
        name = _program_name(standing.way)
        if name not in self._switch.daemons:  # another process has started it
            self._switch.daemons[name] = self._new_daemon(name, ())
        return self._switch.daemons[name]

    def _choose(self, impairment: Impairment, means: Means | None) -> Means:
        if means == "queue":
            return means
        reason = netem.misfit(impairment) or netem.obstacle(self._switch)
        if reason and means == "netem":
            raise StartError(f"netem cannot be used: {reason}")
        return "queue" if reason else "netem"

    def _begin(self, way: Way, impairment: Impairment, means: Means) -> Standing:
        others = self.standing()
        number = min(set(range(len(others) + 1)) - {other.queue for other in others}) if means == "queue" else -1
        standing = Standing(way, impairment, means, number)
        self._write((*others, standing))  # first: what is written down is found and taken away, however far it got
        try:
            if means == "queue":
                ports = {port.name: port.mac for port, _ in self._pairs(way)}
                name = _program_name(way)
                daemon = self._new_daemon(name, (Job(number, ports, impairment).to_json(),))
                self._switch.daemons[name] = daemon
                daemon.start()
            self._arrange(others)
        except BaseException as fault:
            with cleaning_up_after(fault):
                self._remove(way)
            raise
        return standing

    def _remove(self, way: Way) -> bool:
        before = self.standing()
        standing = next((each for each in before if each.way == way), None)
        if standing is None:
            return False
        self._write([each for each in before if each != standing])
        try:
            self._arrange(before)
        except BaseException as fault:
            with cleaning_up_after(fault):
                self._end_program(standing)
            raise
        self._end_program(standing)
        if not self.standing():
            # At the very last: with the table the kernel takes back its hook, and drops what still is in any queue.
            with self._switch.enter():
                for family in firewall.FAMILIES:
                    firewall.tidy(family, {_TABLE: None})
        return True

    def _end_program(self, standing: Standing) -> None:
        """After its rules: nothing new comes, and what it holds it lets go."""
        if standing.means == "queue":
            daemon = self.daemon(standing)
            daemon.stop()
            daemon.forget()
            del self._switch.daemons[daemon.program.name]

    def _arrange(self, before: Sequence[Standing]) -> None:
        """Give the switch the rules of all that stand, and its ports the netem of what stands or stood before."""
        standing = sorted(self.standing(), key=lambda each: each.way.peer is None)  # a peer's own come first
        wanted = standing if any(each.means == "queue" for each in standing) else []
        rules = [rule for each in wanted for rule in self._rules(each)]
        with self._switch.enter():
            if rules:
                _put_in([*_exemptions(), *rules])
                _bring_bridged_packets_to_rules()
            else:
                firewall.replace(_ROLE, [])
                _spare_bridged_packets()
        for node in {each.way.node for each in (*before, *standing) if each.means == "netem"}:
            self._arrange_netem(node, [each for each in standing if each.way.node == node])

    def _arrange_netem(self, node: str, standing: Sequence[Standing]) -> None:
        for port in self._ports_of(node):
            shares = []
            for each in standing:
                peers = [peer for own, peer in self._pairs(each.way) if own == port]
                if peers:
                    macs = tuple(peer.mac for peer in peers if peer is not None)
                    shares.append(netem.Share(macs, each.impairment, each.means == "netem"))
            if reason := netem.arrange(self._switch, port.name, shares):
                raise StartError(f"netem cannot be used: {reason}")

    def _rules(self, standing: Standing) -> Iterator[Rule]:
        """What netem impairs is named too: it passes, so that no later rule claims it."""
        target = f"-j NFQUEUE --queue-num {standing.queue} --queue-bypass" if standing.means == "queue" else "-j ACCEPT"
        for port, peer in self._pairs(standing.way):
            sender = "" if peer is None else f" -m mac --mac-source {peer.mac}"
            for protocol in PROTOCOLS[standing.impairment.only]:
                match = f"-m physdev --physdev-is-bridged --physdev-out {port.name}{sender}"
                match += "" if protocol is None else f" -p {protocol}"
                for family in firewall.FAMILIES:
                    yield Rule(family, _TABLE, _CHAIN, match, target)

    def _pairs(self, way: Way) -> tuple[tuple[Port, Port | None], ...]:
        """Ports towards the node, each with a peer's port that frames come from.

        Raises:
            StartError: there is no such node, or it receives nothing from the peer itself.
        """
        ports = self._ports_of(way.node)
        if way.peer is None:
            return tuple((port, None) for port in ports)
        pairs = shared(ports, self._ports_of(way.peer))
        if not pairs:
            raise StartError(f"{way.node} and {way.peer} share no segment: name the node between them as the peer")
        return pairs

    def _ports_of(self, node: str) -> tuple[Port, ...]:
        if node == SWITCH or node not in self._nodes:
            known = " ".join(each for each in self._nodes if each != SWITCH)
            raise StartError(f"no node {node!r} can be impaired, but {known}")
        if node not in self._ports:
            self._ports[node] = ports_of(self._switch, self._nodes[node])
        return self._ports[node]

    def _new_daemon(self, name: str, arguments: Sequence[str]) -> Daemon:
        environment = programs.engine(self._switch).environment
        words = [sys.executable, "-m", "tcpha.lab.impairer", *arguments]
        return Daemon(Program(name, words, self._switch.directory, environment), self._switch.enter)

    def _write(self, standing: Iterable[Standing]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(each) for each in standing]) + "\n")
        fresh.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, whoever makes it."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _program_name(way: Way) -> str:
    return "-".join(filter(None, (_ROLE, way.node, way.peer)))


def _exemptions() -> Iterator[Rule]:
    for kind in NEIGHBOUR_DISCOVERY:
        yield Rule(6, _TABLE, _CHAIN, f"-p icmpv6 --icmpv6-type {kind}", "-j ACCEPT")


def _put_in(rules: Sequence[Rule]) -> None:
    """Raises: StartError, with what the kernel must have."""
    try:
        firewall.replace(_ROLE, rules)
    except StartError as error:
        raise _no_queue(str(error)) from error


def _no_queue(reason: str) -> StartError:
    return StartError(f"packets cannot be brought to the lab's program: {reason}\nthe kernel needs {QUEUE_NEEDS}")


def _bring_bridged_packets_to_rules() -> None:
    """In the network namespace of the calling thread.

    Raises:
        StartError: the kernel has no br_netfilter, or does not let it be switched on.
    """
    for setting in _bridge_settings():
        try:
            if setting.read_text().strip() != "1":
                setting.write_text("1\n")
        except OSError as error:
            raise _no_queue(f"br_netfilter is missing: {setting}: {error.strerror}") from error


def _spare_bridged_packets() -> None:
    """No rule is left for them: they pass as fast as before (`wiring`)."""
    for setting in _bridge_settings():
        if setting.exists():
            setting.write_text("0\n")


def _bridge_settings() -> Iterator[Path]:
    for family in ("iptables", "ip6tables"):
        yield _BRIDGE_SETTINGS / f"bridge-nf-call-{family}"
