"""What a front end and a back end have in common as processes: start, the handoff channel, signals, the end.

`Node` owns what waits and what was put on the host; the decisions are made in the cores that its subclasses hold.
"""

from __future__ import annotations

import gc
import json
import logging
import secrets
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from math import inf
from typing import Any, TypeVar

from tcpha.caretaker import Caretaker
from tcpha.config import NodeConfig
from tcpha.errors import EdgeError
from tcpha.eventloop import EventLoop
from tcpha.net import clock, netlink
from tcpha.net.channel import Channel
from tcpha.net.footprint import Plan, Role
from tcpha.net.notify import notify_ready
from tcpha.net.restoring import RestoringFootprint
from tcpha.peers import OwnStatus, Peers, Received
from tcpha.proto.handoff import HandoffCodec, Type
from tcpha.proto.keyring import Keyring
from tcpha.proto.messages import Message, Status
from tcpha.rules import Endpoint

READY_TIMEOUT_S = 2.0
"""A node reports that it is ready when all its peers were heard, or after this."""
LOG_INTERVAL_S = 10.0
"""What can come with every datagram is logged no more often."""
_QUIET_S = 0.25
"""A node that ended connections goes when no packet has come for so long: longer than a delayed acknowledgement."""
_STOP_LIMIT_S = 2.0
"""It goes after this even while packets come: clients may go on for ever."""
_LAST_BURSTS = 64
"""So many bursts of datagrams are read before connections are ended, at most: about what the socket holds."""
_YOUNG_OBJECTS = 10_000
"""So many new objects are there before the collector looks at them, not Python's 700."""
_TIMER_STEP_S = 0.002
"""What is due is looked for no more often, however often something comes."""
_FAULT_PAUSE_S = 0.1
"""What fails every time must not take all the time."""

log = logging.getLogger("tcpha")

ActionT = TypeVar("ActionT")


def _spare_the_collector() -> None:
    """Keep the garbage collector away from what was made at the start, and call it seldom.

    Everything there is now stays. Of what connections leave behind nothing is part of a cycle, so it is freed without
    the collector, which is left for what a library or an exception ties together.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


class Node(ABC):
    """One process. `run` returns when a signal has ended it."""

    role: Role
    look_interval_s = _TIMER_STEP_S
    """What becomes due between two looks is found at the latest after this, as long as anything comes."""
    _caretaker: Caretaker | None = None
    """There is one from when the host is prepared."""

    def __init__(self, config: NodeConfig, keyring: Keyring, endpoints: tuple[Endpoint, ...], own: OwnStatus) -> None:
        """Open the handoff channel. Nothing of the host is changed yet. Raises: StartError."""
        self.iface = config.iface or netlink.interface_of(config.raddr)
        self.mtu_octets = netlink.mtu(self.iface)
        self._endpoint_of = {(str(each.addr), each.port): each for each in endpoints}
        self._config = config
        self._channel = Channel(config.raddr, config.port)
        self._peers = Peers(
            self._endpoint_of,
            HandoffCodec(keyring),
            own,
            sender_id=config.id,
            nonce=secrets.randbits(64),
            draw_epoch=lambda: secrets.randbelow(0xFFFFFFFF) + 1,
            status_time_s=config.status_time,
            dead_time_s=config.dead_time,
        )
        self._peer_of = {self._endpoint_of[address]: peer for address, peer in self._peers.by_address.items()}
        self._footprint = RestoringFootprint(self.role, config.state)
        self._ready = False
        self._ready_at = clock.now() + READY_TIMEOUT_S
        self._complain_at: dict[Endpoint, float] = {}
        self._stranger_log_at = -inf
        self._loss_log_at = -inf
        self._losses: dict[str, int] = {}
        self._timer_at = -inf
        self._faults = 0
        self._fault_log_at = -inf
        self.loop = EventLoop()

    # --- what differs

    @abstractmethod
    def on_message(self, endpoint: Endpoint, message: Message, age_s: float, now: float) -> None:
        """A message that is authentic and fresh."""

    @abstractmethod
    def on_status(self, endpoint: Endpoint, status: Status, restarted: bool, now: float) -> None:
        """A STATUS that is to be believed."""

    @abstractmethod
    def on_lost(self, endpoint: Endpoint, now: float) -> None:
        """A peer has been silent for too long."""

    @abstractmethod
    def on_tick(self, now: float) -> float:
        """Do what is due; return when to be called again."""

    @abstractmethod
    def on_stop(self, now: float) -> None:
        """End the flows."""

    @abstractmethod
    def on_leave(self) -> int:
        """The process ends, what it put into the host goes on without it; return how many connections do."""

    @abstractmethod
    def own_status(self) -> OwnStatus:
        """Return what the peers are to know."""

    @abstractmethod
    def counters(self) -> dict[str, Any]:
        """Return every counter and table size by its name."""

    @abstractmethod
    def installed(self) -> None:
        """The host is prepared."""

    @abstractmethod
    def follow(self, is_other: bool) -> None:
        """Bind what is bound to the interface once more: it was made again, or only its MAC changed.

        Raises: EdgeError, StartError if that cannot be; it is called again then.
        """

    def on_addresses(self, addrs: Sequence[str]) -> None:  # noqa: B027
        """Virtual addresses were put back."""

    # --- life

    def run(self, plan: Plan, keep: bool) -> None:
        """Prepare the host, serve until SIGTERM or SIGINT, clean up (`keep`: leave the host as it is).

        Raises: StartError if the host cannot be prepared; EdgeError if it cannot be cleaned up, or left as it is to be.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self.loop.stop)
        self.loop.on_signal(signal.SIGUSR1, self._log_counters)
        self.loop.on_signal(signal.SIGHUP, lambda: log.warning("SIGHUP: the configuration is read at start only"))
        try:
            self._footprint.install(plan)
            try:
                self.installed()
            except BaseException:
                self._footprint.remove()
                raise
            self._take_care(plan)
            _spare_the_collector()
            self.loop.run(self._on_timer)
            if keep:
                try:
                    left = self.on_leave()
                finally:
                    self._footprint.release()
                log.info(
                    "kept for the next start; connections left to the kernel: %d; --clean takes away what is kept", left
                )
            else:
                try:
                    self._end_flows()
                finally:
                    self.loop.ignore_signals()
                    self._footprint.remove()
            log.info("%s stopped", self.role)
        finally:
            if self._caretaker is not None:
                self._caretaker.close()
            self.loop.close()

    def _take_care(self, plan: Plan) -> None:
        """Keep what was put on the host there from now on."""
        try:
            caretaker = Caretaker(self.role, self._footprint, plan, self.follow, self.on_addresses)
        except EdgeError as error:
            log.warning("what others take off this host is not put back: %s", error)
            return
        self._caretaker = caretaker
        self.loop.add(caretaker.fileno(), lambda: caretaker.on_change(clock.now()))

    def listen(self) -> None:
        """Serve the handoff channel; to be called before any packet queue is added, so that it is read first."""
        self.loop.add(self._channel.fileno(), self._on_channel)

    def send(self, endpoint: Endpoint, message: Message) -> None:
        """Seal a message and send it."""
        peer = self._peer_of[endpoint]
        datagram = self._peers.seal(peer, message)
        if datagram is not None:
            self._channel.send(datagram, peer.address)

    def post(self, endpoint: Endpoint, message: Message) -> None:
        """Seal a message, and let it leave with the next `send_posted`."""
        peer = self._peer_of[endpoint]
        datagram = self._peers.seal(peer, message)
        if datagram is not None:
            self._channel.post(datagram, peer.address)

    def send_posted(self) -> None:
        """Send what was posted to the channel."""
        self._channel.flush()

    def send_flows(self, endpoint: Endpoint, kind: Type, fields: bytes) -> None:
        """Seal and send a CLOSED or FLOWS whose fields are there already."""
        peer = self._peer_of[endpoint]
        datagram = self._peers.seal_flows(peer, kind, fields)
        if datagram is not None:
            self._channel.send(datagram, peer.address)

    def perform_due(self, actions: Iterable[ActionT], perform: Callable[[ActionT], None], now: float) -> None:
        """Perform what was due for many connections: a defect costs one of the actions, not those behind it."""
        for action in actions:
            try:
                perform(action)
            except Exception as fault:
                self._faults += 1
                self.report_fault(fault, now)

    def report_fault(self, fault: Exception | None, now: float) -> None:
        """Log, seldom, a defect in what was due for one connection."""
        if fault is not None:
            self._log_fault(fault, now, "what was due for a connection failed")

    def count_fault(self, fault: Exception, now: float, text: str) -> None:
        """Count a defect in what came, and log it, seldom."""
        self._faults += 1
        self._log_fault(fault, now, f"{text} ({self._faults} so far)")

    def _log_fault(self, fault: Exception, now: float, text: str) -> None:
        if now >= self._fault_log_at:
            self._fault_log_at = now + LOG_INTERVAL_S
            log.error("%s", text, exc_info=fault)

    def announce(self) -> None:
        """Our status changed: tell all peers now."""
        self._peers.own = self.own_status()
        self._peers.announce(clock.now())
        self._flush()

    def _end_flows(self) -> None:
        # A node that was busy, or hung, may have been told of many that they are another one's: it must not reset them.
        for _ in range(_LAST_BURSTS):
            if not self._hear():
                break
        carried = self.own_status().flows
        self.on_stop(clock.now())
        self._flush()
        if carried:
            # STATUS comes all the time.
            self.loop.run_until_quiet(_QUIET_S, _STOP_LIMIT_S, self._on_timer, aside=[self._channel.fileno()])

    def _on_channel(self) -> None:
        self._hear()

    def _hear(self) -> bool:
        """Serve a burst of datagrams; was there any?"""
        now = clock.now()
        burst = self._channel.read()
        for datagram, source, age_s in burst:
            try:
                received = self._peers.on_datagram(datagram, source, now)
                if received is None:
                    self._complain(source, now)
                else:
                    self._on_received(received, age_s, now)
            except Exception as fault:  # as for packets: a defect costs one message, not the process
                self.count_fault(fault, now, "dropped a message that failed")
        self._flush()
        return bool(burst)

    def _on_received(self, received: Received, age_s: float, now: float) -> None:
        endpoint = self._endpoint_of[received.peer.address]
        if isinstance(received.message, Status):
            self.on_status(endpoint, received.message, received.restarted, now)
        else:
            self.on_message(endpoint, received.message, age_s, now)

    def _on_timer(self) -> float:
        now = clock.now()
        if now < self._timer_at:
            return self._timer_at
        self._timer_at = now + _TIMER_STEP_S
        try:
            deadline = self._do_what_is_due(now)
            self._timer_at = max(self._timer_at, min(deadline, now + self.look_interval_s))
            return deadline
        except Exception as fault:  # as for messages: a defect costs what was due, not the process
            self._faults += 1
            self._log_fault(fault, now, f"a timer failed ({self._faults} faults so far)")
            self._timer_at = now + _FAULT_PAUSE_S
            return self._timer_at

    def _do_what_is_due(self, now: float) -> float:
        if now >= self._peers.next_deadline():
            self._peers.own = self.own_status()
        for peer in self._peers.on_timer(now):
            self.on_lost(self._endpoint_of[peer.address], now)
        self._flush()
        deadline = self.on_tick(now)
        if now >= self._loss_log_at:
            self._loss_log_at = now + LOG_INTERVAL_S
            self._report_losses()
        if not self._ready:
            self._report_ready(now)
        if self._caretaker is not None:
            deadline = min(deadline, self._caretaker.on_tick(now))
        return min(deadline, self._peers.next_deadline(), inf if self._ready else self._ready_at)

    def _report_losses(self) -> None:
        """Say when packets were lost because this process could not keep up."""
        counters = {**self.counters(), **self._channel_counters()}
        losses = {name: value for name, value in counters.items() if name.endswith("queue_dropped")}
        for name, value in losses.items():
            if value > self._losses.get(name, 0):
                log.warning(
                    "%s: %d packets more, the process does not keep up", name, value - self._losses.get(name, 0)
                )
        self._losses = losses

    def _report_ready(self, now: float) -> None:
        waiting = [peer for peer in self._peers.by_address.values() if not peer.up]
        if waiting and now < self._ready_at:
            return
        self._ready = True
        names = ", ".join(str(peer.address[0]) for peer in waiting)
        level = logging.WARNING if waiting else logging.INFO
        log.log(level, "%s ready%s", self.role, f"; not heard of yet: {names}" if waiting else "")
        notify_ready()

    def _complain(self, source: tuple[str, int], now: float) -> None:
        """Say, seldom, what an operator can mend: a peer with another secret, or with the id of another node."""
        endpoint = self._endpoint_of.get(source)
        if endpoint is None:
            if now >= self._stranger_log_at:
                self._stranger_log_at = now + LOG_INTERVAL_S
                log.warning("messages from %s port %d, which no line of this configuration names", *source)
            return
        peer = self._peer_of[endpoint]
        if peer.unauthentic_at == now:
            trouble = f"messages from {endpoint.addr} do not authenticate: does it have the same secret?"
        elif peer.duplicate_id_at == now:
            trouble = f"{endpoint.addr} has the id of another node: it is not used until its `id` is changed"
        else:
            return
        if now >= self._complain_at.get(endpoint, -inf):
            self._complain_at[endpoint] = now + LOG_INTERVAL_S
            log.warning("%s", trouble)

    def _flush(self) -> None:
        outbox = self._peers.outbox
        for datagram, address in outbox:
            self._channel.send(datagram, address)
        outbox.clear()

    def _channel_counters(self) -> dict[str, Any]:
        return {
            "channel_errors": self._channel.errors,
            "channel_queue_dropped": self._channel.dropped_by_kernel(),
        }

    def _log_counters(self) -> None:
        peers: dict[str, Any] = {
            str(peer.address[0]): "up" if peer.up else "down" for peer in self._peers.by_address.values()
        }
        try:
            counters = self.counters()
        except EdgeError as error:  # who only asks must not end the process
            log.warning("counters: %s", error)
            return
        shown = {
            **counters,
            "channel": asdict(self._peers.counters),
            **self._channel_counters(),
            "channel_faults": self._faults,
            "source_faults": self.loop.faults,
            "repairs": 0 if self._caretaker is None else self._caretaker.repairs,
            "peers": peers,
        }
        if self._caretaker is not None and self._caretaker.obstacle is not None and shown["accelerated"] is True:
            shown["accelerated"] = self._caretaker.obstacle
        level = max(logging.INFO, log.getEffectiveLevel())  # whoever asks gets them
        log.log(level, "counters %s", json.dumps(shown, sort_keys=True))
