"""The front end as a process: packets and messages to the dispatcher, its actions to the network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Any

from tcpha.budget import Budget
from tcpha.config import FrontEndConfig
from tcpha.config_checks import Fault, check_tunnel_mtu
from tcpha.errors import StartError, WireError
from tcpha.fe import acceleration
from tcpha.fe.acceleration import Acceleration
from tcpha.fe.actions import Action, Forward, LeaveToHost, Note, PassOn, Reply, Send
from tcpha.fe.dispatcher import Dispatcher
from tcpha.net import clock, netlink
from tcpha.net.announce import announce
from tcpha.net.footprint import Plan, Role
from tcpha.net.link import LinkSender
from tcpha.net.netlink import Neighbours
from tcpha.net.nfqueue import PacketQueue
from tcpha.net.raw import RawSender
from tcpha.node import LOG_INTERVAL_S, Node
from tcpha.peers import OwnStatus
from tcpha.proto.cookie import SynCookies
from tcpha.proto.icmp import decode_icmp_error, encode_too_big, is_icmp
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Message, NodeState, Status
from tcpha.proto.tcp import SYN, decode_segment
from tcpha.proto.tunnel import Tunnel
from tcpha.rules import Address, Endpoint, RuleSet

if TYPE_CHECKING:
    from netfilterqueue import Packet

SOLICIT_INTERVAL_S = 1.0
ERRORS_A_SECOND = 1000
ERRORS_AT_ONCE = 50
"""ICMP errors that are sent at most, as many as Linux sends (icmp_msgs_per_sec, icmp_msgs_burst)."""

log = logging.getLogger("tcpha.fe")


class FrontEnd(Node):
    """One front end."""

    role: Role = "fe"
    look_interval_s = 0.01

    def __init__(self, config: FrontEndConfig, keyring: Keyring) -> None:
        """Open everything; nothing of the host is changed yet. Raises: StartError."""
        self._digest = config.digest()
        self._own_config = config
        self._keyring = keyring
        super().__init__(config, keyring, config.server, OwnStatus(NodeState.STARTING, 0, self._digest))
        rules = RuleSet(config.rule, config.server, config.match_time, clock.now)
        self._rules = rules
        self._dispatcher = Dispatcher(config, SynCookies(keyring), rules, self._usable_mtu_octets(config))
        self._dispatcher.on_utc(clock.utc(), clock.now())
        self._raw = RawSender(config.mark)
        self._link = LinkSender(self.iface)
        self._neighbours = Neighbours(self.iface)
        self._next_hops: tuple[Address, ...] = ()
        """Back ends whose hardware addresses must be known."""
        self._tunnels: dict[Endpoint, Tunnel] = {}
        self._too_big = 0
        self._too_big_untold = 0
        self._errors_allowed = Budget(ERRORS_A_SECOND, ERRORS_AT_ONCE)
        self._transmit: Callable[[Endpoint, bytes], None]
        if config.forward == "tunnel":
            self._tunnels = {server: Tunnel(config.raddr, server.addr) for server in config.server}
            self._transmit = self._send_through_tunnel
        else:
            self._next_hops = tuple(server.addr for server in config.server)
            self._transmit = self._send_to_neighbour
        self._queue = PacketQueue(config.queue, self._on_packet, length=config.queue_length)
        self._acceleration: Acceleration | None = None
        """There is one once the host is prepared, where the kernel can and may."""
        self._obstacle: str | None = None
        """Why there is none then."""
        self._raised = 0
        """Packets that came by the program's ring."""
        self._iface_index = netlink.index_of(self.iface)
        self._sees_all = True
        """No client has come by another interface, as far as is known."""
        self._unresolved = 0
        self._unresolved_log_at = 0.0
        self._solicit_at = 0.0
        self._perform: dict[type[Action], Callable[[Any, bytes], None]] = {
            Reply: self._reply,
            PassOn: self._pass_on,
            Forward: self._forward,
            Send: self._send,
            Note: self._note,
        }
        self.listen()
        self.loop.add(self._neighbours.fileno(), self._on_neighbours)
        self.loop.add(self._queue.fileno(), self._queue.read)
        self.plan = Plan(self.iface, config.vaddr, config.vport, config.queue, config.mark)

    def _usable_mtu_octets(self, config: FrontEndConfig) -> int:
        """Return the largest packet on the way to the back ends. Raises: StartError if it is too small for IPv6."""
        mtu_octets = min(config.mtu or self.mtu_octets, self.mtu_octets)
        if config.mtu is not None and config.mtu > mtu_octets:
            log.warning("mtu %d is more than %s carries: %d is used", config.mtu, self.iface, mtu_octets)
        if config.forward == "tunnel":
            try:
                check_tunnel_mtu(mtu_octets, config.raddr, config.vaddr)
            except Fault as fault:
                raise StartError(f"MTU of {self.iface}: {fault}") from None
        return mtu_octets

    # --- in

    def _on_packet(self, packet: Packet) -> None:
        """Every queued segment is taken out of the host's hands: dropped here, and sent again where it must go on."""
        octets = packet.get_payload()
        try:
            segment = decode_segment(octets)
            if self._acceleration is None:
                actions = self._dispatcher.on_segment(segment, clock.now())
            else:
                if segment.flags & SYN and packet.indev != self._iface_index and self._sees_all:
                    self._on_other_interface(netlink.name_of(packet.indev))
                actions = self._acceleration.on_segment(segment, clock.now())
        except WireError as error:
            if is_icmp(octets):
                self._on_icmp(packet, octets)
                return
            self._dispatcher.counters.refuse(error)
            actions = ()
        for action in actions:
            self._perform[type(action)](action, octets)
        self._queue.drop_after_burst(packet)
        if self._acceleration is not None:
            self._send_decided()

    def _on_other_interface(self, name: str) -> None:
        if name == self.iface:  # it was made again, and is about to be followed
            return
        self._sees_all = False
        log.warning(
            "clients come by %s, but the kernel carries at %s only: this process carries what comes by others",
            name,
            self.iface,
        )

    def _on_raised(self) -> None:
        """Packets that the kernel's program left to us, a burst of them; it has taken them out of the host's hands."""
        acceleration = self._acceleration
        if acceleration is None:
            return
        now = clock.now()
        raised = acceleration.read()
        self._raised += len(raised)
        for octets, cookie in raised:
            try:
                for action in acceleration.on_raised(octets, cookie, now):
                    self._perform[type(action)](action, octets)
            except WireError as error:
                self._dispatcher.counters.refuse(error)
            except Exception as fault:  # as for queued packets: a defect costs one packet, not the process
                self.count_fault(fault, now, "dropped a packet that failed")
        self._send_decided()

    def _on_icmp(self, packet: Packet, octets: bytes) -> None:
        """An ICMP error. What is not about a connection of ours is the host's own business."""
        try:
            actions = self._dispatcher.on_icmp_error(decode_icmp_error(octets), clock.now())
        except WireError:
            packet.accept()
            return
        for action in actions:
            if type(action) is LeaveToHost:
                packet.accept()
                return
            self._perform[type(action)](action, octets)
        self._queue.drop_after_burst(packet)

    def on_message(self, endpoint: Endpoint, message: Message, age_s: float, now: float) -> None:
        """A message from a back end."""
        actions = self._dispatcher.on_message(endpoint, message, now)
        if actions:
            self._do(actions)

    def on_status(self, endpoint: Endpoint, status: Status, restarted: bool, now: float) -> None:
        """A back end lives."""
        self._do(self._dispatcher.on_status(endpoint, status, restarted, now))

    def on_lost(self, endpoint: Endpoint, now: float) -> None:
        """A back end is silent."""
        self._do(self._dispatcher.on_lost(endpoint, now))

    def on_tick(self, now: float) -> float:
        """Let the dispatcher do what is due; keep the back ends' MAC addresses known."""
        self._dispatcher.on_utc(clock.utc(), now)
        due = self._dispatcher.on_timer(now)
        if due:
            self.perform_due(due, self._perform_alone, now)
        self.report_fault(self._dispatcher.table.take_fault(), now)
        carriage_at = inf
        if self._acceleration is not None:
            carriage_at = self._acceleration.on_tick(now)
            self.send_posted()
        if now >= self._solicit_at:
            self._solicit_at = now + SOLICIT_INTERVAL_S
            for addr in self._next_hops:
                if self._neighbours.mac(addr) is None:
                    self._neighbours.solicit(addr)
            if self._next_hops and self._acceleration is not None:
                self._acceleration.set_ways(self._neighbours.mac)  # what it refused before
        return min(self._dispatcher.next_deadline(), self._solicit_at, carriage_at)

    def on_stop(self, now: float) -> None:
        """End what is carried."""
        if self._acceleration is None:
            self._do(self._dispatcher.on_stop(now))
            return
        # To detach takes a while, in which servers would send on: back ends are told before.
        self._do(self._dispatcher.end_at_backends())
        try:
            self._acceleration.detach()
        finally:
            for action in self._dispatcher.end_at_clients():
                self._perform_alone(action)
            self._read_the_rest()
            self.loop.remove(self._acceleration.fileno())
            self._acceleration.end()
            self._acceleration = None
            self._perform |= {PassOn: self._pass_on, Forward: self._forward, Send: self._send}

    def on_leave(self) -> int:
        """Let the kernel go on alone; return with how many connections."""
        if self._acceleration is None:
            return 0
        self._acceleration.leave()
        self._read_the_rest()
        return self._acceleration.carriage.size

    def _read_the_rest(self) -> None:
        """Decide what the program left to us before it was told that nothing is read any more."""
        before = -1
        while before != self._raised:
            before = self._raised
            self._on_raised()

    def own_status(self) -> OwnStatus:
        """Return what back ends are to know."""
        return OwnStatus(NodeState.UP, self._dispatcher.table.live, self._digest)

    def counters(self) -> dict[str, Any]:
        """Return every counter and table size by its name."""
        shown = {
            **asdict(self._dispatcher.counters),
            **self._dispatcher.table.sizes(),
            "accelerated": self._obstacle if self._acceleration is None else True,
            "match_timeouts": self._rules.timeouts,
            "ring_packets": self._raised,
            "queue_packets": self._queue.packets,
            "queue_faults": self._queue.callback_errors,
            "queue_dropped": self._queue.dropped_by_kernel(),
            "unresolved": self._unresolved,
            "too_big": self._too_big,
            "too_big_untold": self._too_big_untold,
            "raw_errors": self._raw.errors,
            "link_errors": self._link.errors,
        }
        return shown if self._acceleration is None else self._acceleration.counted(shown)

    def installed(self) -> None:
        """Let the kernel carry what it can; say whose the virtual addresses are now. Raises: StartError."""
        begun = acceleration.begin(self._own_config, self.iface, self._keyring, self._dispatcher, self._neighbours.mac)
        if isinstance(begun, str):
            self._obstacle = begun
        else:
            self._acceleration = begun
            self.loop.add(self._acceleration.fileno(), self._on_raised)
            self._perform |= {PassOn: self._pass_on_decided, Forward: self._forward_decided, Send: self._post}
        announce(self.iface, self._own_config.vaddr)

    def follow(self, is_other: bool) -> None:
        """Send and carry by the interface as it is now, and say so to who knew it. Raises: EdgeError, StartError."""
        self._link.follow()
        if is_other:
            self._iface_index = netlink.index_of(self.iface)
            self._neighbours.follow()
            self._solicit_at = 0.0
        if self._acceleration is not None:
            self._acceleration.follow(self._neighbours.mac, is_other)
        announce(self.iface, self._own_config.vaddr)

    def on_addresses(self, addrs: Sequence[str]) -> None:
        """Say whose they are."""
        announce(self.iface, [ip_address(addr) for addr in addrs])

    # --- out

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self._perform[type(action)](action, b"")
        if self._acceleration is not None:
            self._send_decided()

    def _perform_alone(self, action: Action) -> None:
        self._perform[type(action)](action, b"")

    def _send_decided(self) -> None:
        """Send the messages of a burst. The kernel knows first what was decided: what they cause finds its way."""
        if self._acceleration is not None:
            now = clock.now()
            try:
                self._acceleration.settle(now)
            except Exception as fault:  # what the kernel does not know of comes here
                self.count_fault(fault, now, "the kernel was not told what was decided")
        self.send_posted()

    def _pass_on_decided(self, action: PassOn, at_hand: bytes) -> None:
        self._send_decided()  # the packet may be behind a HANDOFF of this burst
        self._pass_on(action, at_hand)

    def _forward_decided(self, action: Forward, at_hand: bytes) -> None:
        self._send_decided()
        self._forward(action, at_hand)

    def _reply(self, action: Reply, _at_hand: bytes) -> None:
        self._raw.send(action.packet)

    def _pass_on(self, action: PassOn, at_hand: bytes) -> None:
        self._transmit(action.backend, at_hand)

    def _forward(self, action: Forward, _at_hand: bytes) -> None:
        self._transmit(action.backend, action.packet)

    def _send_to_neighbour(self, backend: Endpoint, packet: bytes) -> None:
        mac = self._neighbours.mac(backend.addr)
        if mac is None:
            self._unresolved += 1  # the client repeats it
            now = clock.now()
            if now >= self._unresolved_log_at:
                self._unresolved_log_at = now + LOG_INTERVAL_S
                log.warning(
                    "be %s does not answer on %s: beyond a router it needs forward = tunnel", backend.addr, self.iface
                )
        else:
            self._link.send(mac, packet)

    def _send_through_tunnel(self, backend: Endpoint, packet: bytes) -> None:
        if len(packet) > self._dispatcher.carried_octets:  # more than the MSS of our SYN-ACK allowed
            self._on_too_big(packet)
        else:
            self._raw.send(self._tunnels[backend].wrap(packet))

    def _on_too_big(self, packet: bytes) -> None:
        """Tell the sender how much fits, unless that is asked too often (RFC 4443, 2.4 f; RFC 1812, 4.3.2.8)."""
        self._too_big += 1
        if is_icmp(packet):  # no error is sent about an error (RFC 1122, 3.2.2; RFC 4443, 2.4 e)
            return
        if self._errors_allowed.take(clock.now()):
            self._raw.send(encode_too_big(packet, self._dispatcher.carried_octets))
        else:
            self._too_big_untold += 1

    def _send(self, action: Send, _at_hand: bytes) -> None:
        self.send(action.backend, action.message)

    def _post(self, action: Send, _at_hand: bytes) -> None:
        """Send it with others at the next `send_posted`."""
        self.post(action.backend, action.message)

    @staticmethod
    def _note(action: Note, _at_hand: bytes) -> None:
        log.log(logging.WARNING if action.needs_care else logging.INFO, "%s", action.text)

    def _on_neighbours(self) -> None:
        if self._neighbours.read() and self._acceleration is not None:
            self._acceleration.set_ways(self._neighbours.mac)
