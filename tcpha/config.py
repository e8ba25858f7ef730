"""The two configuration files -> validated, frozen models.

Knows every key, its default and its bounds, and nothing of what is done with them. A key of the file is a field of the
model by the same name; a key that may repeat is a tuple. etc/*.conf.detail explain the keys to an operator.
The keys raddr, vaddr, vport, server, rule, uaddr and fe are those of TCPHA-0.3, and its files load unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2s
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tcpha import config_checks as checks
from tcpha.balance import Address, Endpoint, packed
from tcpha.config_checks import Fault, Named, each
from tcpha.config_file import read_entries
from tcpha.config_load import load
from tcpha.config_values import (
    AbsolutePath,
    Duration,
    HostAddress,
    InterfaceName,
    Mark,
    OrderedRule,
    PeerAddress,
    PortNumber,
    ServerAddress,
    Size,
    Switch,
    Whole,
    WindowScale,
)
from tcpha.rule_text import Balance, Rule
from tcpha.rule_warnings import Served, rule_warnings

__all__ = [
    "Address",
    "BackEndConfig",
    "Endpoint",
    "FrontEndConfig",
    "NodeConfig",
    "load_back_end",
    "load_either",
    "load_front_end",
]

HANDOFF_PORT = 666
HANDOFF_WAIT_S = 0.45
CONFIRM_TIME_S = 0.025
"""Within so long a back end says that it has a connection, where it tells of many at once (docs/adr/0014)."""
RELEASE_TIME_S = 0.02
"""So long it may take until packets are let go that overtook the HANDOFF of a connection which the kernel adopts."""
STALE_TIME_S = 0.25
REPLAY_TIME_S = 0.18


class NodeConfig(BaseModel):
    """What front end and back end have in common. Times are in seconds, sizes in octets unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raddr: HostAddress
    """The node's own address."""
    vaddr: Annotated[tuple[HostAddress, ...], Field(min_length=1)]
    """The virtual addresses the cluster answers for."""
    vport: Annotated[tuple[PortNumber, ...], Field(min_length=1)] = (80,)
    """The TCP ports served on every virtual address."""
    server: Annotated[tuple[ServerAddress, ...], Field(min_length=1)]
    """The back ends: address, handoff port and weight."""
    rule: Annotated[tuple[OrderedRule, ...], Field(min_length=1)]
    """Which servers get which connections; the first rule that matches wins."""

    iface: InterfaceName | None = None
    """The interface towards the other nodes; None: the one that holds `raddr`."""
    secret: AbsolutePath = Path("/etc/tcpha/secret")
    """The file with the keys that the nodes share."""
    id: Annotated[Whole, Field(ge=1, le=65535)] = Field(default=None, validate_default=True)
    """Sender id in handoff messages; default: the low 16 bits of `raddr`."""
    port: PortNumber = HANDOFF_PORT
    """UDP port of the handoff channel on `raddr`."""

    mss: Annotated[Whole, Field(ge=88, le=8960)] = 1460
    """Largest segment promised to clients over IPv4, octets; IPv6 promises 20 less."""
    window_scale: WindowScale = 7
    """Window scale promised to clients (RFC 7323, 2); None: not offered."""
    sack: Switch = True
    """Whether clients are promised selective acknowledgements (RFC 2018)."""
    timestamps: Switch = True
    """Whether clients are promised timestamps (RFC 7323, 3)."""

    status_time: Annotated[Duration, Field(ge=0.01, le=60)] = 0.25
    """Between two STATUS messages."""
    dead_time: Annotated[Duration, Field(ge=0.02, le=600)] = 1.0
    """A peer silent for longer is down."""

    max_flows: Annotated[Size, Field(ge=1, le=1 << 26)] = 262144
    """Live connections kept at most."""
    max_finished: Annotated[Size, Field(ge=1, le=1 << 26)] = 262144
    """Finished connections remembered at most."""
    finished_time: Annotated[Duration, Field(ge=0.1, le=3600)] = 60.0
    """How long packets of a finished connection are still carried."""
    idle_time: Annotated[Duration, Field(ge=0.1, le=7 * 86400)] = 300.0
    """A connection without a packet for longer is asked about, then dropped."""

    mark: Annotated[Mark, Field(ge=1, le=0xFFFFFFFF)] = 0x7C0A
    """Firewall mark of the packets this process makes."""
    accelerate: Literal["auto", "off", "require"] = "auto"
    """Whether the kernel carries packets for this process (docs/kernel.md): if it can, never, or else do not start."""
    queue: Annotated[Whole, Field(ge=0, le=65534)] = 660
    """First NFQUEUE number."""
    queue_length: Annotated[Size, Field(ge=16, le=1 << 20)] = 16384
    """Packets a queue holds."""
    state: AbsolutePath = Path("/run/tcpha")
    """Directory for what the process leaves for its next start."""
    log: Literal["debug", "info", "warning", "error"] = "info"
    """The least severity that is logged."""

    @field_validator("id", mode="before")
    @classmethod
    def _id_of_raddr(cls, value: object, info: ValidationInfo) -> object:
        if value is not None or "raddr" not in info.data:
            # Without a valid raddr there is an error already; any id will do.
            return value or 1
        raddr: Address = info.data["raddr"]
        if checks.default_id(raddr) == 0:
            raise Fault(f"the low 16 bits of {raddr} are 0, which is no id: set `id`", ("raddr", 0))
        return checks.default_id(raddr)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        checks.check_distinct("vaddr", self.vaddr)
        checks.check_distinct("vport", self.vport)
        checks.check_distinct("server", [server.addr for server in self.server])
        checks.check_families(self.raddr, self._servers())
        checks.check_virtual(self.vaddr, (self._self(), *self._servers()))
        checks.check_rules(self.rule, self.server)
        checks.check_longer(("dead_time", self.dead_time), ("status_time", self.status_time))
        return self

    def _self(self) -> Named:
        return Named("raddr", 0, self.raddr)

    def _servers(self) -> tuple[Named, ...]:
        return each("server", [server.addr for server in self.server])

    def digest(self) -> bytes:
        """Return 16 octets, the same on all nodes that agree on servers, rules, virtual addresses and the promise.

        BLAKE2s-128 (RFC 7693) over the values in a canonical form: servers, virtual addresses and ports in any order
        and spelling give the same digest, and so do the fields of a rule; rules in another order do not, nor do the
        servers of a rule, which take turns in that order.
        """
        promise = (self.mss, 255 if self.window_scale is None else self.window_scale, self.sack, self.timestamps)
        parts = (
            sorted(map(_packed_server, self.server)),
            [_packed_rule(rule) for rule in self.rule],
            sorted(map(packed, self.vaddr)),
            sorted(struct.pack("!H", port) for port in self.vport),
            [struct.pack("!HB??", *promise)],
        )
        state = blake2s(digest_size=16, person=b"tcphacfg")
        for part in parts:
            state.update(_listed(part))
        return state.digest()

    def warnings(self) -> tuple[str, ...]:
        """Return what is legal but probably not meant, one sentence each, for the log at start."""
        served = Served(self.vport, tuple({virtual.version for virtual in self.vaddr}))
        return rule_warnings(self.rule, self.server, served)


class FrontEndConfig(NodeConfig):
    """tcphafe.conf: the node that answers the virtual addresses and hands connections off."""

    forward: Literal["direct", "tunnel"] = "direct"
    """How packets reach a back end: unchanged, on the same segment, or each inside another one (IP in IP)."""
    mtu: Annotated[Whole, Field(ge=576, le=65535)] | None = None
    """Octets of the largest packet on the way to the back ends; None: the interface's MTU."""
    window: Annotated[Size, Field(ge=536, le=65535)] = 65535
    """Receive window advertised before the handoff, octets, unscaled."""
    inspect_octets: Annotated[Size, Field(ge=256, le=65536)] = 16384
    """What is looked at of what a client sends first; a request or ClientHello that is longer is refused."""
    inspect_time: Annotated[Duration, Field(ge=0.05, le=300)] = 10.0
    """A request or ClientHello that takes longer is refused; octets of another protocol are judged as they are then."""
    ack_delay: Annotated[Duration, Field(ge=0, le=0.5)] = 0.01
    """Before request octets are acknowledged for want of the rest (RFC 9293, 3.8.6.3 allows 0.5 s)."""
    match_time: Annotated[Duration, Field(ge=0.001, le=1)] = 0.005
    """One match of one pattern may take this long; a match takes about a microsecond. Longer: it is no match."""
    handoff_repeat: Annotated[Duration, Field(ge=0.005, le=5)] = 0.05
    """Between two tries of an unanswered HANDOFF."""
    handoff_repeats: Annotated[Whole, Field(ge=0, le=10)] = 3
    """Tries after the first."""
    handoff_wait: Annotated[Duration, Field(ge=0.01, le=30)] = HANDOFF_WAIT_S
    """After the last try, before another back end is asked."""
    max_reading: Annotated[Size, Field(ge=1, le=1 << 22)] = 16384
    """Connections at most of which it is not decided where they go."""
    max_queries: Annotated[Size, Field(ge=1, le=1 << 20)] = 1024
    """Unanswered FLOWS? questions at most."""
    query_rate: Annotated[Whole, Field(ge=1, le=1_000_000)] = 1000
    """FLOWS? questions a second at most."""

    @model_validator(mode="after")
    def _is_front_end(self) -> Self:
        checks.check_roles([self._self()], self._servers())
        checks.check_ids(self._self(), self.id, "id" in self.model_fields_set, self._servers())
        checks.check_longer(("inspect_time", self.inspect_time), ("ack_delay", self.ack_delay))
        checks.check_longer(("handoff_wait", self.handoff_wait), ("handoff_repeat", self.handoff_repeat))
        if self.forward == "tunnel" and self.mtu is not None:
            checks.check_tunnel_mtu(self.mtu, self.raddr, self.vaddr)
        return self

    def warnings(self) -> tuple[str, ...]:
        """Return what is legal but probably not meant, one sentence each, for the log at start."""
        found = list(super().warnings())
        latest = STALE_TIME_S + REPLAY_TIME_S
        if self.handoff_wait <= latest:
            reason = f"handoff_wait {self.handoff_wait:g} s is not above {latest:g} s"
            found.append(f"{reason}, a back end's default stale_time and replay_time: a request may run on two servers")
        if self.handoff_repeats and self.handoff_repeat < CONFIRM_TIME_S:
            reason = f"handoff_repeat {self.handoff_repeat:g} s is below {CONFIRM_TIME_S:g} s"
            found.append(f"{reason}, within which back ends confirm: most connections are handed over more than once")
        if self.mtu is not None and self.forward == "direct":
            found.append(
                f"mtu {self.mtu} is for forward = tunnel: with forward = direct the way is the segment itself, and"
                " clients are only told a smaller MSS"
            )
        return tuple(found)


class BackEndConfig(NodeConfig):
    """tcphabe.conf: a node that adopts connections beside its server."""

    port: PortNumber = Field(default=None, validate_default=True)
    """UDP port of the handoff channel on `raddr`; default: that of the own server line, else 666."""
    queue: Annotated[Whole, Field(ge=0, le=65534)] = 664
    """First of two NFQUEUE numbers: arriving packets, then leaving ones."""
    uaddr: tuple[HostAddress, ...] = ()
    """Addresses nobody uses, from which the node asks its own TCP what it can promise."""
    fe: Annotated[tuple[PeerAddress, ...], Field(min_length=1)]
    """The front ends: address and handoff port."""
    hold_time: Annotated[Duration, Field(ge=0, le=5)] = 0.05
    """How long packets of a connection not known yet are held."""
    hold_packets: Annotated[Size, Field(ge=0, le=1 << 20)] = 4096
    """Held packets at most, of all connections."""
    replay_time: Annotated[Duration, Field(ge=0.01, le=10)] = REPLAY_TIME_S
    """A replay that takes longer has failed."""
    stale_time: Annotated[Duration, Field(ge=0.01, le=10)] = STALE_TIME_S
    """A HANDOFF that waited longer in the socket is dropped unread."""
    probe_time: Annotated[Duration, Field(ge=0.05, le=600)] = 1.0
    """Between two looks at the server beside this node."""
    kernel_mark: Annotated[Mark, Field(ge=1, le=0xFFFFFFFF)] = 0x7C0B
    """Firewall mark of packets, and of the server's sockets, of connections that the kernel adopted (accelerate)."""

    @field_validator("port", mode="before")
    @classmethod
    def _port_of_own_server(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            return value
        servers: tuple[Endpoint, ...] = info.data.get("server", ())
        return next((server.port for server in servers if server.addr == info.data.get("raddr")), HANDOFF_PORT)

    @model_validator(mode="after")
    def _is_back_end(self) -> Self:
        front_ends = each("fe", [front_end.addr for front_end in self.fe])
        nodes = (self._self(), *self._servers(), *front_ends)
        checks.check_distinct("fe", [front_end.addr for front_end in self.fe])
        checks.check_differ(("mark", self.mark), ("kernel_mark", self.kernel_mark))
        checks.check_families(self.raddr, front_ends)
        checks.check_roles(front_ends, (self._self(), *self._servers()))
        checks.check_virtual(self.vaddr, front_ends)
        checks.check_unused(self.uaddr, self.vaddr, nodes)
        checks.check_ids(self._self(), self.id, "id" in self.model_fields_set, (*self._servers(), *front_ends))
        return self

    def warnings(self) -> tuple[str, ...]:
        """Return what is legal but probably not meant, one sentence each, for the log at start."""
        found = list(super().warnings())
        if self.raddr not in {server.addr for server in self.server}:
            found.append(f"raddr {self.raddr} is in no server line: this node gets nothing")
        probed = {unused.version for unused in self.uaddr}
        found.extend(
            f"no uaddr is IPv{family}: what this node's TCP can promise over IPv{family} stays untested"
            for family in sorted({virtual.version for virtual in self.vaddr} - probed)
        )
        latest = self.stale_time + self.replay_time
        if latest >= HANDOFF_WAIT_S:
            reason = f"stale_time and replay_time together, {latest:g} s, are not below {HANDOFF_WAIT_S} s"
            found.append(f"{reason}, a front end's default handoff_wait: a request may run on two servers")
        if self.accelerate != "off" and 0 < self.hold_time < RELEASE_TIME_S:
            reason = f"hold_time {self.hold_time:g} s is below {RELEASE_TIME_S:g} s"
            found.append(
                f"{reason}: packets that overtake the handoff of a connection which the kernel adopts are dropped"
            )
        return tuple(found)


def _listed(part: Sequence[bytes]) -> bytes:
    """Lengths before contents: no two different lists give the same octets."""
    return struct.pack("!I", len(part)) + b"".join(struct.pack("!I", len(octets)) + octets for octets in part)


def _packed_server(server: Endpoint) -> bytes:
    """Address and port, and the weight where there is one: the length tells."""
    weight = b"" if server.weight == 1 else struct.pack("!H", server.weight)
    return packed(server.addr) + struct.pack("!H", server.port) + weight


def _packed_rule(rule: Rule) -> bytes:
    """Count of servers, servers, pattern; for more than TCPHA-0.3's rules have, a 0 before that, and lists after it."""
    servers = bytes((len(rule.servers),)) + b"".join(map(packed, rule.servers))
    if rule.pattern is not None and rule.balance == Balance():
        return servers + rule.pattern.encode()
    conditions = sorted(_listed([str(one.field).encode(), one.meaning.encode()]) for one in rule.conditions)
    return b"\0" + servers + _listed([str(rule.balance).encode(), *conditions])


_OTHERS: dict[str, str] = {
    **dict.fromkeys(FrontEndConfig.model_fields.keys() - BackEndConfig.model_fields.keys(), "front end"),
    **dict.fromkeys(BackEndConfig.model_fields.keys() - FrontEndConfig.model_fields.keys(), "back end"),
}
"""Keys of one role only, and whose they are."""


def load_front_end(path: Path) -> FrontEndConfig:
    """Read tcphafe.conf. Raises: ConfigError with file, line and reason on any fault."""
    return load(path, FrontEndConfig, _OTHERS)


def load_back_end(path: Path) -> BackEndConfig:
    """Read tcphabe.conf. Raises: ConfigError with file, line and reason on any fault."""
    return load(path, BackEndConfig, _OTHERS)


def load_either(path: Path) -> FrontEndConfig | BackEndConfig:
    """Read a file of either role: one that names front ends is a back end's. Raises: ConfigError on any fault."""
    is_back_end = any(entry.key == "fe" for entry in read_entries(path, verbatim={"rule"}))
    return load_back_end(path) if is_back_end else load_front_end(path)
