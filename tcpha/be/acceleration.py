"""The kernel fast path of a back end as its process uses it: programs that adopt, and the agent beside them.

The order of steps: `obstacle_to` says whether this host can; `tcpha.be.left_behind` opens the programs; `Acceleration`
puts them in place and finds out what an earlier process left; a front end's first STATUS lets them take its HANDOFFs.
What a program does not take comes to `on_message` first: one table of what ran serves both. docs/kernel.md;
docs/adr/0012.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from tcpha.be.accelerated import Course, course, first_segment, period_of, rank_of
from tcpha.be.actions import Action, Inject, Send
from tcpha.be.agent import Agent
from tcpha.be.carried import CarriedConnections
from tcpha.be.closing import is_late_at
from tcpha.be.left_behind import is_at, take_stock
from tcpha.be.listing import Listing
from tcpha.be.search import Search
from tcpha.be.taken_back import TakenBack
from tcpha.config import BackEndConfig
from tcpha.errors import EdgeError, StartError
from tcpha.eventloop import EventLoop
from tcpha.kernel.be_maps import TABLES, Act, Carried, Rank, Whose, encode_tuple
from tcpha.net import clock, netlink
from tcpha.net.bpf_adopter import Adopter, obstacle
from tcpha.net.bpf_place import no_way_in, obstacle_at
from tcpha.net.sockdiag import TCP_TIME_WAIT, SocketDiagnostics, TcpSocket
from tcpha.peers import Peer
from tcpha.proto.cookie import PERIOD_SHIFT
from tcpha.proto.handoff import Type
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import (
    Adopted,
    Closed,
    Flows,
    FlowsQuery,
    Handoff,
    Identity,
    Message,
    NodeState,
    Reason,
    Refused,
)
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment
from tcpha.rules import Endpoint

LEASE_S = 0.5
"""An agent that hangs for longer leaves nothing to the programs: front ends are about to ask another back end."""
RENEW_S = 0.2
COLLECT_S = 0.01
"""How long ends of connections are collected: to be woken for each costs more than to read it.

Adoptions are told when they are older than this, and twice as old at most, but for what the process is late: what
others may count on is `tcpha.config.CONFIRM_TIME_S`. By then most short connections are over, and one word is enough
for them. While clients' packets are held, which may be of any connection, all are told that are there.
"""
ROUND_S, SELDOM_S = 1.0, 5.0
DOUBTED = 128
"""Connections that are looked for at a time because their clients sent an RST, at most."""
TWINS = {
    "handoffs": "adopted", "repeats": "repeated", "late_duplicates": "told_again", "adopted": "started",
    "arriving": "segments", "closed": "ended", "flows": "flows",
}  # fmt: skip
"""Counters of the agent, and what the programs count that means the same."""
ATTEMPTS = 8
"""To decide about a HANDOFF, where something changes between the decision and what is done."""

_NOTHING: tuple[Action, ...] = ()

log = logging.getLogger("tcpha.be")


def obstacle_here(config: BackEndConfig) -> str | None:
    """Why the kernel of this host could adopt nothing; None if it could, as far as can be told without beginning.

    Raises: StartError if it is not this configuration's host.
    """
    return obstacle_at(config.iface or netlink.interface_of(config.raddr), "be", config.state) or obstacle()


def obstacle_to(config: BackEndConfig, iface: str) -> str | None:
    """Why connections are not adopted by the kernel; None if they can be. Raises: StartError if they must be."""
    if config.accelerate == "off":
        return "accelerate = off"
    reason = no_way_in(iface) or obstacle()
    if reason is not None and config.accelerate == "require":
        raise StartError(f"accelerate = require: {reason}")
    return reason


SendFlows = Callable[[Endpoint, Type, bytes], None]
"""Seals and sends a CLOSED or FLOWS with these fields."""


class Acceleration:
    """The programs, and what the process does with what they say."""

    def __init__(
        self, config: BackEndConfig, adopter: Adopter, iface: str, agent: Agent, sockets: SocketDiagnostics,
        loop: EventLoop, send: Callable[[Endpoint, Message], None], send_flows: SendFlows,
    ) -> None:  # fmt: skip
        """Put them in place; nothing is adopted before `on_peer`. Raises: EdgeError: `adopter` is to be closed."""
        self._config = config
        self._adopter = adopter
        self._agent = agent
        self._connections = CarriedConnections(adopter, sockets, config.kernel_mark)
        self._taken_back = TakenBack(adopter, self._connections)
        self._listing = Listing(adopter, send, self._taken_back)
        self._search = Search(adopter, self._connections, agent.runs)
        self._loop = loop
        self._send, self._send_flows = send, send_flows
        self._tables: dict[tuple[str, int], tuple[int, int]] = {}
        """By the address of a front end: its epoch, and the table of what was seen under it."""
        self._next_table = 0
        self._frontends: dict[int, Endpoint] = {}
        """By their sender ids."""
        self._claimed = (0, 0, 0)
        """Sender id, epoch and sequence of the HANDOFF at hand."""
        self._taken: dict[bytes, Identity] = {}
        """Four-tuples that are the agent's, until it has nothing there any more."""
        self._doubted: set[Identity] = set()
        """Connections that a client's RST may have ended."""
        self._is_held = False
        self._renew_at = self._round_at = self._tell_at = inf
        adopter.set_targets((each.packed, port) for each in config.vaddr for port in config.vport)
        adopter.attach(iface)
        self.ended = take_stock(config, adopter, self._connections)
        """Connections that an earlier process left, and nobody knew."""
        self.found = self.live
        """Connections that an earlier process left, and that go on."""
        now = clock.now()
        self._round_at = now + ROUND_S
        self._renew(now)
        loop.add(adopter.fileno(), self._on_news)

    def follow(self, iface: str) -> None:
        """The interface of this name is another one: put the programs there. Raises: EdgeError."""
        self._adopter.attach(iface)

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
        self._frontends = {old: each for old, each in self._frontends.items() if each != endpoint} | {sender: endpoint}

    def claim(self, peer: Peer, epoch: int, sequence: int) -> bool:
        """May the agent run this HANDOFF, as far as its number goes? Then no program does."""
        self._claimed = (peer.sender_id or 0, epoch, sequence)
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
            case Handoff():
                self._let_go(message.identity)
                return _NOTHING, message
            case Closed():
                self._taken_back.add(message.identities, now)
                return _NOTHING, message
            case FlowsQuery():
                return self._on_query(endpoint, message, now)
            case _:
                return _NOTHING, message

    def _on_handoff(self, endpoint: Endpoint, handoff: Handoff) -> tuple[Sequence[Action], Handoff | None]:
        self._agent.elsewhere = self.live
        identity, rank = handoff.identity, rank_of(handoff, *self._claimed)
        period = period_of(handoff, clock.utc())
        four_tuple = encode_tuple(identity.key)
        for _ in range(ATTEMPTS):
            ran = self._adopter.claim_identity(identity, period)
            carried = self._adopter.look_up(four_tuple)
            socket = None if carried is None else self._find_socket(carried)
            is_open = socket is not None and socket.state != TCP_TIME_WAIT
            match course(identity, rank, carried, ran, is_open):
                case Course.OVER:
                    return (Send(endpoint, Closed((identity,))),), None
                case Course.OLDER:
                    return (Send(endpoint, Refused(identity, Reason.OLDER_GENERATION)),), None
                case Course.REPEAT:
                    if not handoff.confirm or self._adopter.order(Act.ASK, identity, rank):
                        return (Inject(first_segment(handoff)),), None
                case Course.MAKE_WAY if carried is not None:
                    self._connections.end_silently(carried)
                case Course.RUN | Course.TAKE_OVER if self._take(four_tuple, identity, rank, socket):
                    if self._adopter.take_over(identity, period):
                        return _NOTHING, handoff
        # It changes all the time, or there is no room for a note: then no program runs anything there, either.
        return _NOTHING, handoff if self._adopter.look_up(four_tuple) is None else None

    def _find_socket(self, carried: Carried) -> TcpSocket | None:
        """What the programs have left on a four-tuple.

        That it is the agent's proves nothing before this runs something there: the programs take a connection for over
        by a RST that they have seen, and that its socket may never have got, or not in time.
        """
        key = carried.identity.key
        if carried.whose is Whose.AGENT and self._agent.runs(key):
            return None
        return self._connections.find_socket(key)

    def _take(self, four_tuple: bytes, identity: Identity, rank: Rank, left: TcpSocket | None) -> bool:
        """Make the four-tuple the agent's. `left`: a socket of a connection of the programs' that is over."""
        if not self._adopter.order(Act.TAKE, identity, rank):
            return False
        self._taken[four_tuple] = identity
        if left is not None:  # its answers would bear the mark, and never come to the agent
            self._connections.destroy(left)
        return True

    def _let_go(self, identity: Identity) -> None:
        """A HANDOFF comes too late to be run: its note goes, with what the agent runs there if it runs something."""
        four_tuple = encode_tuple(identity.key)
        if not self._agent.runs(identity.key):
            self._adopter.order(Act.RELEASE, identity)
        elif (noted := self._adopter.look_up(four_tuple)) is not None and noted.identity == identity:
            self._taken[four_tuple] = identity

    def _on_query(
        self, endpoint: Endpoint, query: FlowsQuery, now: float
    ) -> tuple[Sequence[Action], FlowsQuery | None]:  # fmt: skip
        if not query.keys:
            self._listing.begin(endpoint, now)
            return _NOTHING, query  # the agent has its own to name
        held: list[Identity] = []
        others: list[ConnectionKey] = []
        for key in query.keys:
            carried = self._adopter.look_up(encode_tuple(key))
            if carried is None or carried.whose in (Whose.AGENT, Whose.OVER) or self._is_taken_back(carried):
                others.append(key)
            elif carried.lives:  # of one whose socket was never seen nobody knows how it ends
                held.append(carried.identity)
        answer = (Send(endpoint, Flows(tuple(held))),) if held else _NOTHING
        return answer, FlowsQuery(tuple(others)) if others else None

    def _is_taken_back(self, carried: Carried) -> bool:
        return carried.is_silent or carried.identity in self._taken_back

    # --- packets

    def owns(self, segment: Segment) -> bool:
        """Is a packet that came to the agent one of a connection that the programs adopted?

        Those that come in a tunnel are, and those that overtook their connection's socket. The programs are shown what
        may end it, since they have not seen it, or not known it. Of one that is over the host tells a client that goes
        on.
        """
        carried = self._adopter.look_up(encode_tuple(segment.key))
        if carried is None or carried.whose is Whose.AGENT:
            return False
        if self._connections.find_socket(segment.key) is None:
            is_over = carried.whose is Whose.OVER and segment.flags & (SYN | ACK) == ACK
            return is_over and is_late_at(carried.rcv_nxt, carried.snd_nxt, segment)
        if segment.flags & (FIN | RST) or carried.is_closing:
            self._show(segment.packet)
        return True

    def _show(self, packet: bytes) -> None:
        """Whatever becomes of that, the packet is the socket's: at worst an end is found later, by the search."""
        try:
            self._adopter.show(packet)
        except EdgeError as error:
            log.warning("%s", error)

    def lives(self, key: ConnectionKey) -> bool:
        """Is there a connection of the programs?"""
        carried = self._adopter.look_up(encode_tuple(key))
        return carried is not None and carried.lives

    def is_over(self, key: ConnectionKey) -> bool:
        """Was there a connection of the programs here, and is there none any more? The host may say so by RST."""
        carried = self._adopter.look_up(encode_tuple(key))
        return carried is not None and carried.whose is Whose.OVER

    # --- what the programs say

    def _on_news(self) -> None:
        """Something is written down, and is collected for a while; who asked once more is answered at once."""
        for answer in self._adopter.answers():
            if not answer.sender and len(self._doubted) < DOUBTED:
                self._doubted.add(answer.identity)
            elif (frontend := self._frontends.get(answer.sender)) is not None:
                self._send(frontend, Adopted(answer.identity, answer.rcv_nxt))
        if self._tell_at == inf:
            self._adopter.count_age()
            self._tell_at = clock.now() + COLLECT_S

    def _tell(self, now: float) -> Sequence[Action]:
        """Tell front ends of what began and ended; packets that were held for what began are let go."""
        self._tell_at = inf
        if not self._frontends:
            return _NOTHING
        closed, held = self._adopter.news(patient=not self._agent.is_holding)
        if closed or held or self._adopter.has_more():  # nobody is woken for what is to come
            self._tell_at = now + COLLECT_S
        for fields in closed:
            for message in fields.messages():
                for frontend in self._frontends.values():
                    self._send_flows(frontend, Type.CLOSED, message)
        actions: list[Action] = []
        for sender, fields in held:
            for message in fields.messages() if sender in self._frontends else ():
                self._send_flows(self._frontends[sender], Type.FLOWS, message)
            for key in fields.connections() if self._agent.is_holding else ():
                for packet in self._agent.release(key):
                    self._show(packet)
                    actions.append(Inject(packet))
        return actions

    # --- what they do not see

    def _go_round(self, now: float) -> None:
        """Look for connections that ended without a packet, and let go of what the agent is done with."""
        self._round_at = now + (ROUND_S if self._taken or self.live else SELDOM_S)
        for four_tuple, identity in list(self._taken.items()):
            if not self._agent.runs(identity.key):
                self._adopter.order(Act.RELEASE, identity)
                del self._taken[four_tuple]
        self._search.step(now)

    # --- time, status, the end

    def on_tick(self, now: float) -> Sequence[Action]:
        """Do what is due."""
        actions: Sequence[Action] = _NOTHING
        # Also where no front end had been heard when something was written down.
        if now >= self._tell_at or (now >= self._renew_at and self._tell_at == inf):
            actions = self._tell(now)
        if now >= self._renew_at:
            self._renew(now)
        if now >= self._taken_back.next_deadline():
            self._taken_back.on_timer(now)
        if now >= self._listing.next_deadline():
            self._listing.on_timer(now)
        if now >= self._round_at:
            self._go_round(now)
        return actions

    def next_deadline(self) -> float:
        """Return when `on_tick` wants to be called."""
        pieces = self._taken_back.next_deadline(), self._listing.next_deadline()
        return min(self._tell_at, self._renew_at, self._round_at, *pieces)

    def _renew(self, now: float) -> None:
        self._renew_at = now + RENEW_S
        doubted, self._doubted = self._doubted, set()
        for identity in doubted:
            carried = self._adopter.look_up(encode_tuple(identity.key))
            if (
                carried is not None
                and carried.identity == identity
                and not self._connections.has_open_socket(identity.key)
            ):
                self._connections.give_up(carried)
        self._agent.elsewhere = self.live
        if self._is_held or self._agent.status().state is not NodeState.UP:
            self._adopter.hold()
        else:
            self._adopter.renew(int(clock.utc()) >> PERIOD_SHIFT, self._agent.period_floor, LEASE_S, self._agent.room)

    @property
    def live(self) -> int:
        """How many connections of the programs live."""
        return self._adopter.live

    def on_leave(self) -> None:
        """The process ends, and what was adopted goes on, but for what was taken back."""
        self._taken_back.end_all(clock.now())

    def end_all(self) -> int:
        """Adopt nothing any more, and reset what was adopted; return how many could be.

        What was taken back is ended first, without a word: its client is another back end's, and would believe a reset.
        """
        self._is_held = True
        self._adopter.hold()
        self._taken_back.end_all(clock.now())
        adopted = [each for each in self._connections.open_sockets() if is_at(self._config, each)]
        return sum([self._connections.destroy(each) for each in adopted])

    def counted(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return the agent's counters with what the programs counted added, and that alone as `kernel`."""
        counts = {
            **self._adopter.counters(), "flows": self.live, "told_too_late": self._adopter.overruns,
            "not_taken_back": self._taken_back.given_up,
        }  # fmt: skip
        return {**own, **{name: own[name] + counts[twin] for name, twin in TWINS.items()}, "kernel": counts}
