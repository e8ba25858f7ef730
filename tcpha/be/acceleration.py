"""The kernel fast path of a back end as its process uses it: programs that adopt, and the agent beside them.

The order of steps: `obstacle_to` says whether this host can; `Acceleration` loads the programs, puts them in place and
finds out what an earlier process left; a front end's first STATUS lets them take its HANDOFFs. What a program does not
take comes to `on_message` first: one table of what ran serves both. docs/kernel.md; docs/adr/0012.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from math import inf

from tcpha.be.accelerated import Accelerated, first_segment, is_older, period_of
from tcpha.be.actions import Action, Inject, Send
from tcpha.be.agent import Agent
from tcpha.config import BackEndConfig
from tcpha.errors import EdgeError, StartError
from tcpha.eventloop import EventLoop
from tcpha.kernel.be_maps import TABLES, Carried, encode_tuple
from tcpha.net import clock, pins
from tcpha.net.bpf_adopter import Adopter, obstacle
from tcpha.net.sockdestroy import DestroyedSockets
from tcpha.net.sockdiag import TCP_TIME_WAIT, SocketDiagnostics, TcpSocket, connection_of
from tcpha.peers import Peer
from tcpha.proto.cookie import PERIOD_SHIFT
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Closed, Flows, FlowsQuery, Handoff, Identity, Message, NodeState, Reason, Refused
from tcpha.rules import Endpoint

LEASE_S = 0.5
"""An agent that hangs for longer leaves nothing to the programs: front ends are about to ask another back end."""
RENEW_S = 0.1
COLLECT_S = 0.01
"""How long adoptions and ends of connections are collected: to be woken for each costs more than to read it."""
UNSTARTED = 4096
"""When so many adoptions never sent a packet, what there is is compared with what is remembered."""

_NOTHING: tuple[Action, ...] = ()

log = logging.getLogger("tcpha.be")


def obstacle_to(config: BackEndConfig) -> str | None:
    """Why connections are not adopted by the kernel; None if they can be. Raises: StartError if they must be."""
    if config.accelerate == "off":
        return "accelerate = off"
    reason = obstacle()
    if reason is not None and config.accelerate == "require":
        raise StartError(f"accelerate = require: {reason}")
    return reason


class Acceleration:
    """The programs, and what the process does with what they say."""

    def __init__(
        self, config: BackEndConfig, keyring: Keyring, iface: str, agent: Agent, sockets: SocketDiagnostics,
        loop: EventLoop,
    ) -> None:  # fmt: skip
        """Load them and put them in place; nothing is adopted before `on_peer`. Raises: EdgeError."""
        self._config = config
        self._agent = agent
        self._sockets = sockets
        self._loop = loop
        self._known = Accelerated(config.finished_time)
        self._tables: dict[tuple[str, int], tuple[int, int]] = {}
        """By the address of a front end: its epoch, and the table of what was seen under it."""
        self._next_table = 0
        self._frontends: dict[int, Endpoint] = {}
        self._is_held = False
        self._renew_at = self._resume_at = inf
        self._ended: DestroyedSockets = DestroyedSockets(config.vport)
        self._adopter = self._open(keyring)
        self._adopter.set_targets((each.packed, port) for each in config.vaddr for port in config.vport)
        self._adopter.attach(iface)
        self._unstarted_before = 0
        self._compare(clock.now())
        self.found = self.live
        """Connections that an earlier process left."""
        self._renew(clock.now())
        for source in (self._adopter, self._ended):
            loop.add(source.fileno(), self._on_news)

    def _open(self, keyring: Keyring) -> Adopter:
        config = self._config
        mark = config.kernel_mark
        retry_mark = next(each for each in (mark ^ 1, mark ^ 2, mark ^ 3) if each not in (0, config.mark))
        own = (config.raddr.packed, config.port)
        place = pins.directory("be", config.state)
        try:
            return Adopter(own, keyring, mark=mark, retry_mark=retry_mark, pins=place)
        except EdgeError as error:
            log.warning("what an earlier process pinned is of no use: %s", error)
            pins.remove("be", config.state)
            place = pins.directory("be", config.state)
            return Adopter(own, keyring, mark=mark, retry_mark=retry_mark, pins=place)

    # --- who may hand over

    def on_peer(self, endpoint: Endpoint, peer: Peer) -> None:
        """A front end's STATUS is believed: under a new epoch its messages get a table of their own."""
        epoch, sender = peer.freshness.epoch, peer.sender_id
        if epoch is None or sender is None or self._tables.get(peer.address, (0, 0))[0] == epoch:
            return
        used = {table for _, table in self._tables.values()}
        while self._next_table in used:
            self._next_table = (self._next_table + 1) % TABLES
        table, self._next_table = self._next_table, (self._next_table + 1) % TABLES
        self._adopter.set_peer(endpoint.addr.packed, endpoint.port, sender, epoch, table)
        self._tables[peer.address] = (epoch, table)
        self._frontends[sender] = endpoint

    def claim(self, peer: Peer, epoch: int, sequence: int) -> bool:
        """May the agent run this HANDOFF, as far as its number goes? Then no program does."""
        known, table = self._tables.get(peer.address, (0, 0))
        return known != epoch or self._adopter.claim_message(table, epoch, sequence)

    # --- messages

    def on_message(
        self, endpoint: Endpoint, message: Message, age_s: float, now: float
    ) -> tuple[Sequence[Action], Message | None]:
        """Return what is to be done for the programs' connections, and what of the message is the agent's."""
        match message:
            case Handoff() if age_s <= self._config.stale_time:
                return self._on_handoff(endpoint, message)
            case Closed():
                return _NOTHING, self._on_closed(message)
            case FlowsQuery():
                return self._on_query(endpoint, message, now)
            case _:
                return _NOTHING, message

    def _on_handoff(self, endpoint: Endpoint, handoff: Handoff) -> tuple[Sequence[Action], Handoff | None]:
        identity = handoff.identity
        period = period_of(handoff, clock.utc())
        four_tuple = encode_tuple(identity.key)
        carried = self._adopter.look_up(four_tuple)
        if self._adopter.claim_identity(identity, period):
            return self._make_way(endpoint, handoff, carried)
        socket = self._find(identity.key)
        if carried is not None and carried.identity == identity and socket is not None:
            if socket.state == TCP_TIME_WAIT:
                return (Send(endpoint, Closed((identity,))),), None
            if handoff.confirm:
                self._adopter.ask(identity.key)
            return (Inject(first_segment(handoff)),), None
        if self._adopter.take_over(identity, period):  # it never got a socket
            return self._make_way(endpoint, handoff, carried)
        return (Send(endpoint, Closed((identity,))),), None

    def _make_way(
        self, endpoint: Endpoint, handoff: Handoff, carried: Carried | None
    ) -> tuple[Sequence[Action], Handoff | None]:
        """The agent runs it; what the programs know of its four-tuple must not get its packets."""
        if carried is None:
            return _NOTHING, handoff
        identity = handoff.identity
        if carried.identity != identity and self._known.lives(encode_tuple(identity.key), carried):
            if is_older(handoff, carried):
                refusal = Send(endpoint, Refused(identity, Reason.OLDER_GENERATION))
                return (refusal,) if handoff.confirm else _NOTHING, None
            self._destroy(carried)
        else:
            self._adopter.forget_flow(identity.key)
        return _NOTHING, handoff

    def _on_closed(self, message: Closed) -> Closed:
        """A front end takes connections back: end those of the programs silently, and let none of them run later."""
        for identity in message.identities:
            self._adopter.remember(identity)
            carried = self._adopter.look_up(encode_tuple(identity.key))
            if carried is not None and carried.identity == identity:
                self._destroy(carried)
        return message

    def _destroy(self, carried: Carried) -> None:
        """End a connection without a word to its client."""
        key = carried.identity.key
        self._adopter.silence(key)
        try:
            if (socket := self._find(key)) is not None:
                self._sockets.destroy(socket)
        finally:
            self._adopter.forget_flow(key)
        self._known.on_destroyed(carried)

    def _on_query(
        self, endpoint: Endpoint, query: FlowsQuery, now: float
    ) -> tuple[Sequence[Action], FlowsQuery | None]:  # fmt: skip
        if not query.keys:
            living = [
                each.identity for four_tuple, each in self._adopter.flows() if self._known.lives(four_tuple, each)
            ]
            return self._agent.list_flows(endpoint, living, now), None
        held: list[Identity] = []
        others: list[ConnectionKey] = []
        for key in query.keys:
            four_tuple = encode_tuple(key)
            carried = self._adopter.look_up(four_tuple)
            if carried is None or self._known.is_over(four_tuple, carried.identity):
                others.append(key)
            elif carried.has_started:  # of another one nobody knows how it ends
                held.append(carried.identity)
        answer = (Send(endpoint, Flows(tuple(held))),) if held else _NOTHING
        return answer, FlowsQuery(tuple(others)) if others else None

    # --- packets

    def owns(self, key: ConnectionKey) -> bool:
        """Is a packet that came to the agent one of a connection that the programs adopted?

        Those that come in a tunnel are, and those that overtook their connection's socket.
        """
        carried = self._adopter.look_up(encode_tuple(key))
        return carried is not None and self._find(key) is not None

    def _find(self, key: ConnectionKey) -> TcpSocket | None:
        client, server = key_addresses(key)
        client_port, server_port = key_ports(key)
        return self._sockets.find(ip_address(server), server_port, ip_address(client), client_port)

    # --- what the programs and the host say

    def _on_news(self) -> None:
        """Adoptions to be told and connections that ended; then they are collected for a while."""
        now = clock.now()
        if self._resume_at == inf:
            for source in (self._adopter, self._ended):
                self._loop.pause(source.fileno())
            self._resume_at = now + COLLECT_S

    def _take_events(self, now: float) -> Sequence[Action]:
        """ADOPTED for those that were asked about, and the packets that were held for them; some tell an end."""
        adoptions = self._adopter.adoptions(1 << 16)
        held = [action for each in adoptions for action in self._agent.release(each.identity.key)]
        for identity in dict.fromkeys(each.identity for each in adoptions if each.over):
            self._take_end(identity, now)
        return [*self._known.answers(adoptions, self._frontends), *held]

    def _take_end(self, identity: Identity, now: float) -> None:
        """It sent RST, or its four-tuple is another's by now."""
        four_tuple = encode_tuple(identity.key)
        carried = self._adopter.look_up(four_tuple)
        if carried is not None and carried.identity == identity:
            self._on_ended(four_tuple, carried, now)
        elif self._known.on_replaced(four_tuple, identity) is not None:
            self._agent.bid_farewell(identity, now)

    def _take_ended(self, now: float) -> None:
        overruns = self._ended.overruns
        for four_tuple, cookie in self._ended.read(1 << 16):
            carried = self._adopter.look_up(four_tuple)
            if carried is not None and carried.cookie == cookie:  # else it is of the connection before
                self._on_ended(four_tuple, carried, now)
        if self._ended.overruns > overruns:
            self._compare(now)

    def _on_ended(self, four_tuple: bytes, carried: Carried, now: float) -> None:
        identity = self._known.on_ended(four_tuple, carried, now)
        if identity is not None:
            self._agent.bid_farewell(identity, now)

    def _compare(self, now: float) -> None:
        """Find out which connections have a socket: at the start, and where messages were lost."""
        remembered = list(self._adopter.flows())
        alive = {encode_tuple(connection_of(each)) for each in self._sockets.marked(self._config.kernel_mark)}
        started = self._adopter.count("started")
        unstarted: list[bytes] = []
        for four_tuple, carried in remembered:
            if four_tuple in alive:
                continue
            if carried.has_started:
                self._on_ended(four_tuple, carried, now)
            else:
                unstarted.append(four_tuple)
        self._adopter.forget_flows(unstarted)
        self._known.on_compared(len(alive), started)
        self._unstarted_before = self._adopter.count("adopted") - started

    # --- time, status, the end

    def on_tick(self, now: float) -> Sequence[Action]:
        """Do what is due."""
        actions: Sequence[Action] = _NOTHING
        if now >= self._resume_at:
            actions = self._take_events(now)
            self._take_ended(now)
            for source in (self._adopter, self._ended):
                self._loop.resume(source.fileno())
            self._resume_at = inf
        if now >= self._renew_at:
            self._renew(now)
        return actions

    def next_deadline(self) -> float:
        """Return when `on_tick` wants to be called."""
        return min(self._resume_at, self._renew_at)

    def _renew(self, now: float) -> None:
        self._renew_at = now + RENEW_S
        self._adopter.forget_ended(self._known.take_forgotten(now))
        self._agent.elsewhere = self.live
        if self._adopter.count("adopted") - self._adopter.count("started") > self._unstarted_before + UNSTARTED:
            self._compare(now)
        if self._is_held or self._agent.status().state is not NodeState.UP:
            self._adopter.hold()
        else:
            self._adopter.renew(int(clock.utc()) >> PERIOD_SHIFT, self._agent.period_floor, LEASE_S)

    @property
    def live(self) -> int:
        """How many connections of the programs live."""
        return self._known.live(self._adopter.count("started"))

    def end_all(self) -> int:
        """Adopt nothing any more, and reset what was adopted; return how many that were."""
        self._is_held = True
        self._adopter.hold()
        sockets = self._sockets.marked(self._config.kernel_mark)
        for each in sockets:
            self._sockets.destroy(each)
        return len(sockets)

    def counters(self) -> Mapping[str, int]:
        """What the programs counted, and what is known of their connections."""
        return {
            **self._adopter.counters(),
            "flows": self.live,
            "flows_lingering": len(self._known),
            "closed": self._known.closed,
            "end_overruns": self._ended.overruns,
        }
