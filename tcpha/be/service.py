"""The back end as a process: packets and messages to the agent, its actions to the host's TCP and the network."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from tcpha.be.acceleration import Acceleration, obstacle_to
from tcpha.be.actions import (
    UNKNOWN,
    Action,
    Announce,
    ClearTuple,
    DeliverArriving,
    DeliverLeaving,
    Examine,
    Inject,
    LeaveToHost,
    Note,
    Send,
)
from tcpha.be.agent import Agent
from tcpha.be.left_behind import end_left_behind, open_adopter, tell_ended, with_what_is_left
from tcpha.be.translator import translate_arriving, translate_icmp_error, translate_leaving
from tcpha.config import BackEndConfig
from tcpha.errors import EdgeError, StartError, WireError
from tcpha.net import clock
from tcpha.net.footprint import Plan, Role
from tcpha.net.nfqueue import PacketQueue
from tcpha.net.raw import RawSender
from tcpha.net.sockdiag import TCP_SYN_RECEIVED, TCP_TIME_WAIT, SocketDiagnostics, TcpSocket
from tcpha.net.tunnel import TunnelSocket, open_tunnels
from tcpha.node import Node
from tcpha.peers import OwnStatus
from tcpha.proto.icmp import decode_icmp_error, is_icmp
from tcpha.proto.ip import reverse_key
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Message, NodeState, ServerState, Status
from tcpha.proto.tcp import RST, Segment, decode_segment
from tcpha.proto.tunnel import with_checksum
from tcpha.rules import Endpoint

if TYPE_CHECKING:
    from netfilterqueue import Packet

_NOTHING: tuple[Action, ...] = ()

log = logging.getLogger("tcpha.be")


class BackEnd(Node):
    """One back end."""

    role: Role = "be"
    _kernel: Acceleration | None = None
    """What the kernel adopts, once the host is prepared; None: the agent adopts everything."""

    def __init__(self, config: BackEndConfig, keyring: Keyring) -> None:
        """Open everything; nothing of the host is changed yet. Raises: StartError."""
        super().__init__(config, keyring, config.fe, OwnStatus(NodeState.STARTING, 0, config.digest()))
        self._agent = Agent(config)
        self._agent.on_utc(clock.utc(), clock.now())
        self._be_config = config
        self._keyring = keyring
        self._raw = RawSender(config.mark)
        self._sockets = SocketDiagnostics()
        self._server_states: dict[tuple[bytes, int], ServerState] = {}
        self._heard: set[Endpoint] = set()
        """Front ends that live."""
        self._arriving = PacketQueue(config.queue, self._on_arriving, length=config.queue_length)
        self._leaving = PacketQueue(config.queue + 1, self._on_leaving, length=config.queue_length, gso=True)
        self._tunnels = open_tunnels(config.raddr, (endpoint.addr for endpoint in config.fe))
        self._tunnelled = 0
        self._perform: dict[type[Action], Callable[[Any, float], None]] = {
            Inject: self._inject,
            Send: self._send,
            ClearTuple: self._clear_tuple,
            Examine: self._examine,
            Announce: self._announce,
            Note: self._note,
        }
        self.listen()
        self.loop.add(self._leaving.fileno(), self._leaving.read)
        self.loop.add(self._arriving.fileno(), self._arriving.read)
        for tunnel in self._tunnels:
            self.loop.add(tunnel.fileno(), partial(self._on_tunnel, tunnel))
        self._obstacle = obstacle_to(config, self.iface)
        """Why connections are not adopted by the kernel."""
        kernel_mark = config.kernel_mark if self._obstacle is None else None
        self.plan = Plan(self.iface, config.vaddr, config.vport, config.queue, config.mark, kernel_mark)

    # --- in

    def _on_arriving(self, packet: Packet) -> None:
        """A packet for a virtual address. It gets its verdict first: what is injected because of it comes after it."""
        now = clock.now()
        octets = packet.get_payload()
        try:
            actions, delivered = self._arrive(octets, now)
        except WireError as error:
            self._agent.counters.refuse(error)
            actions, delivered = _NOTHING, None
        if delivered is None:
            self._arriving.drop_after_burst(packet)
        else:
            if delivered is not octets:
                packet.set_payload(delivered)
            packet.accept()
        if delivered is None or len(actions) > 1:
            self._do(actions, now)

    def _on_leaving(self, packet: Packet) -> None:
        """A packet that the server sends from a virtual address."""
        now = clock.now()
        delivered = None
        try:
            segment = decode_segment(packet.get_payload())
            if segment.flags & RST and self._is_word_of_kernel(segment):
                packet.accept()
                return
            actions = self._agent.on_leaving(segment, now)
            for action in actions:
                if type(action) is DeliverLeaving:
                    delivered = translate_leaving(action.translation, segment)
        except WireError as error:
            self._agent.counters.refuse(error)
            actions = _NOTHING
        if delivered is None:
            self._leaving.drop_after_burst(packet)
        else:
            packet.set_payload(delivered)
            packet.accept()
        if delivered is None or len(actions) > 1:
            self._do(actions, now)

    def _is_word_of_kernel(self, segment: Segment) -> bool:
        """Does the host tell a client that a connection which the kernel carried is over? Its socket is gone."""
        key = reverse_key(segment.key)
        return self._kernel is not None and not self._agent.runs(key) and self._kernel.is_over(key)

    def _on_tunnel(self, tunnel: TunnelSocket) -> None:
        """Packets for virtual addresses that a front end sent from afar."""
        now = clock.now()
        for octets in tunnel.read():
            self._tunnelled += 1
            try:
                actions, delivered = self._arrive(octets, now, tunnelled=True)
                if delivered is not None:
                    self._raw.send(delivered)
                self._do(actions, now)
            except WireError as error:
                self._agent.counters.refuse(error)
            except Exception as fault:  # as for queued packets: a defect costs one packet, not the process
                self.count_fault(fault, now, "dropped a packet that failed")

    def _arrive(self, octets: bytes, now: float, tunnelled: bool = False) -> tuple[Sequence[Action], bytes | None]:
        """Return what is to be done, and what the host's TCP is to get. Raises: WireError."""
        try:
            segment = decode_segment(octets)
        except WireError:
            if is_icmp(octets):
                return self._arrive_error(octets, now, tunnelled)
            raise
        if tunnelled and (repaired := with_checksum(segment)) is not octets:
            segment = decode_segment(repaired)
        if self._kernel is not None and not self._agent.runs(segment.key) and self._kernel.owns(segment):
            return _NOTHING, segment.packet
        actions = self._agent.on_arriving(segment, now)
        for action in actions:
            if type(action) is DeliverArriving:
                return actions, translate_arriving(action.translation, segment)
        return actions, None

    def _arrive_error(self, octets: bytes, now: float, tunnelled: bool) -> tuple[Sequence[Action], bytes | None]:
        """The same for an ICMP error. One about anything but a connection of ours is the host's, if it came to it."""
        leave = None if tunnelled else octets
        try:
            error = decode_icmp_error(octets)
        except WireError:
            return _NOTHING, leave
        if self._kernel is not None and self._kernel.lives(reverse_key(error.key)):
            self._agent.counters.icmp_errors += 1
            return _NOTHING, octets
        actions = self._agent.on_icmp_error(error, now)
        for action in actions:
            if type(action) is DeliverArriving:
                return actions, translate_icmp_error(action.translation, error)
            if type(action) is LeaveToHost:
                return actions, leave
        return actions, None

    def on_message(self, endpoint: Endpoint, message: Message, age_s: float, now: float) -> None:
        """A message from a front end."""
        rest: Message | None = message
        if self._kernel is not None:
            actions, rest = self._kernel.on_message(endpoint, message, age_s, now)
            self._do(actions, now)
        if rest is not None:
            self._do(self._agent.on_message(endpoint, rest, age_s, now), now)

    def on_status(self, endpoint: Endpoint, status: Status, restarted: bool, now: float) -> None:
        """A front end lives."""
        if endpoint not in self._heard:
            self._heard.add(endpoint)
            log.info("fe %s is up", endpoint.addr)
        if restarted:
            log.info("fe %s restarted", endpoint.addr)
        if self._kernel is not None:
            self._kernel.on_peer(endpoint, self._peer_of[endpoint])

    def on_lost(self, endpoint: Endpoint, now: float) -> None:
        """A front end is silent."""
        self._heard.discard(endpoint)
        log.warning("fe %s is silent", endpoint.addr)

    def on_tick(self, now: float) -> float:
        """Let the agent do what is due."""
        self._agent.on_utc(clock.utc(), now)
        self.perform_due(self._agent.on_timer(now), lambda action: self._do((action,), now), now)
        self.report_fault(self._agent.table.take_fault(), now)
        if self._kernel is None:
            return self._agent.next_deadline()
        self._do(self._kernel.on_tick(now), now)
        return min(self._agent.next_deadline(), self._kernel.next_deadline())

    def on_stop(self, now: float) -> None:
        """End the flows; the resets still leave, translated."""
        self._do(self._agent.on_stop(now), now)
        if self._kernel is not None and (ended := self._kernel.end_all()):
            log.info("ended connections that the kernel carried: %d", ended)

    def on_leave(self) -> int:
        """Adopted connections go on, but for those whose packets come in a tunnel; return how many there are."""
        if self._kernel is None:
            return 0
        self._kernel.on_leave()
        if self._tunnelled and self._kernel.live:
            log.warning("connections whose packets come in a tunnel stand still until the next start")
        return self._kernel.live

    def own_status(self) -> OwnStatus:
        """Return what front ends are to know."""
        if self._kernel is not None:  # not the number of a while ago: CLOSED may have told since what is over
            self._agent.elsewhere = self._kernel.live
        return self._agent.status()

    def counters(self) -> dict[str, Any]:
        """Return every counter and table size by its name."""
        shown = {
            **asdict(self._agent.counters),
            **self._agent.table.sizes(),
            "accelerated": self._obstacle if self._kernel is None else True,
            "arriving_queue_packets": self._arriving.packets,
            "arriving_queue_faults": self._arriving.callback_errors,
            "arriving_queue_dropped": self._arriving.dropped_by_kernel(),
            "leaving_queue_packets": self._leaving.packets,
            "leaving_queue_faults": self._leaving.callback_errors,
            "leaving_queue_dropped": self._leaving.dropped_by_kernel(),
            "tunnelled": self._tunnelled,
            "tunnel_queue_dropped": sum(tunnel.dropped_by_kernel() for tunnel in self._tunnels),
            "tunnel_errors": dict(sum((Counter(tunnel.errors) for tunnel in self._tunnels), Counter())),
            "raw_errors": self._raw.errors,
        }
        return shown if self._kernel is None else self._kernel.counted(shown)

    def installed(self) -> None:
        """Let the kernel adopt, if it can. Raises: StartError if it must and cannot after all."""
        config = self._be_config
        if self._obstacle is None:
            try:
                self._kernel = with_what_is_left(config, self._sockets, self._accelerated)
            except EdgeError as error:
                if config.accelerate == "require":
                    raise StartError(f"accelerate = require: {error}") from error
                self._obstacle = str(error)
        if self._kernel is None:
            if config.accelerate != "off":
                log.info("not accelerated, this process adopts all connections: %s", self._obstacle)
            self._end_left_behind()
            return
        self._peers.claim = self._kernel.claim
        found = f"; connections of an earlier process that go on: {self._kernel.found}" if self._kernel.found else ""
        log.info("accelerated: the kernel adopts connections at %s%s", self.iface, found)
        tell_ended(self._kernel.ended)

    def follow(self, is_other: bool) -> None:
        """Adopt at the interface as it is now. Raises: EdgeError."""
        if is_other and self._kernel is not None:
            self._kernel.follow(self.iface)

    def _accelerated(self) -> Acceleration:
        """Load the programs and put them in place. Raises: EdgeError, with nothing begun."""
        adopter = open_adopter(self._be_config, self._keyring)
        try:
            return Acceleration(
                self._be_config, adopter, self.iface, self._agent, self._sockets, self.loop, self.send, self.send_flows
            )
        except EdgeError:
            adopter.close()
            raise

    def _end_left_behind(self) -> None:
        """End what an earlier process let the kernel adopt: without its programs nobody passes its packets on."""
        try:
            ended = end_left_behind(self._be_config, self._sockets)
        except EdgeError as error:
            log.warning("%s", error)
            return
        tell_ended(ended)

    # --- out

    def _do(self, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            perform = self._perform.get(type(action))
            if perform is not None:  # the packet at hand already has its verdict
                perform(action, now)

    def _inject(self, action: Inject, _now: float) -> None:
        self._raw.send(action.packet)

    def _send(self, action: Send, _now: float) -> None:
        self.send(action.frontend, action.message)

    def _clear_tuple(self, action: ClearTuple, now: float) -> None:
        taken = False
        try:
            found = self._sockets.find_connection(action.key)
            # One in TIME-WAIT is of an earlier connection: no program runs a later one where the agent has begun.
            if found is not None and found.state != TCP_TIME_WAIT and self._is_of_kernel(found):
                self._do(self._agent.on_superseded(action.key, now), now)
                return
            if found is not None and (action.embryonic or found.state != TCP_SYN_RECEIVED):
                taken = self._sockets.destroy(found) or found.state != TCP_SYN_RECEIVED
        except EdgeError as error:
            log.warning("%s", error)
            taken = True  # nobody knows: a request that may have run must not run elsewhere
        self._do(self._agent.on_cleared(action.key, taken, now), now)

    def _examine(self, action: Examine, now: float) -> None:
        try:
            found = self._sockets.find_connection(action.key)
            if found is None or self._is_of_kernel(found):
                received = None
            else:
                received = UNKNOWN if found.state == TCP_TIME_WAIT else found.received
        except EdgeError as error:
            log.warning("%s", error)
            received = UNKNOWN  # ask again when the flow has been idle for longer
        self._do(self._agent.on_examined(action.key, received, now), now)

    def _is_of_kernel(self, found: TcpSocket) -> bool:
        """Is a socket of a connection that the kernel has adopted, and so none of the agent's?"""
        return self._kernel is not None and found.mark == self._be_config.kernel_mark

    def _announce(self, _action: Announce, _now: float) -> None:
        self.announce()
        for server in self.own_status().servers:
            if self._server_states.get((server.address, server.port), ServerState.UNKNOWN) is not server.state:
                self._server_states[server.address, server.port] = server.state
                level = logging.INFO if server.state is ServerState.ANSWERS else logging.WARNING
                log.log(level, "server at %s port %d: %s", ip_address(server.address), server.port, server.state.text)

    @staticmethod
    def _note(action: Note, _now: float) -> None:
        log.info("%s", action.text)
