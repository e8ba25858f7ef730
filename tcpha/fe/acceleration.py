"""The front end's program in the kernel as a part of the process: begun or done without, kept up, ended.

Binds the dispatcher's flow table (`carriage`) and the ways to the back ends to `Forwarder`. What the kernel takes on
and what not: docs/kernel.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf
from typing import Any

from tcpha.config import FrontEndConfig
from tcpha.errors import EdgeError, StartError
from tcpha.fe.actions import Action
from tcpha.fe.carriage import Carriage
from tcpha.fe.dispatcher import Dispatcher
from tcpha.net import bpf_forwarder, bpf_namespace, bpf_terms, clock, netlink, pins
from tcpha.net.bpf_forwarder import Forwarder
from tcpha.net.bpf_place import no_way_in, obstacle_at
from tcpha.net.bpf_syscall import tried_again
from tcpha.proto.cookie import Cookie
from tcpha.proto.keyring import Keyring
from tcpha.proto.tcp import Segment, decode_segment
from tcpha.rules import Address, Endpoint

RENEW_INTERVAL_S = 1.0
"""The program's clock is set so often."""
LOG_INTERVAL_S = 10.0
_ROLE = "fe"

_log = logging.getLogger("tcpha.fe")

MacOf = Callable[[Address], bytes | None]
"""A back end's hardware address, as far as it is known."""


def obstacle_here(config: FrontEndConfig) -> str | None:
    """Why the kernel of this host could carry nothing; None if it could, as far as can be told without beginning.

    Raises: StartError if it is not this configuration's host.
    """
    iface = config.iface or netlink.interface_of(config.raddr)
    return obstacle_at(iface, _ROLE, config.state) or bpf_forwarder.obstacle()


def begin(
    config: FrontEndConfig, iface: str, keyring: Keyring, dispatcher: Dispatcher, mac_of: MacOf
) -> Acceleration | str:
    """Let the kernel carry packets from now on, if `accelerate` says so and it can, or return why not.

    One line of the log says which; with `off` only that something was left, if so. What an earlier process left in the
    kernel goes on, or is removed; what may pass is waited for first, for 1.5 s in all. Raises: StartError where the
    kernel must but cannot; EdgeError if what was left cannot be removed.
    """
    if config.accelerate == "off":
        if pins.remove(_ROLE, config.state):
            _log.info("accelerate = off: what an earlier process left in the kernel is removed")
        return "accelerate = off"
    try:
        return _opened(config, iface, keyring, dispatcher, mac_of)
    except EdgeError as error:
        pins.remove(_ROLE, config.state)
        reason = bpf_forwarder.obstacle() or str(error)  # a missing right rather than what cannot be done without it
        if config.accelerate == "require":
            raise StartError(f"accelerate = require: {reason}") from error
        _log.info("not accelerated, this process carries all packets: %s", reason)
        return reason


def _opened(
    config: FrontEndConfig, iface: str, keyring: Keyring, dispatcher: Dispatcher, mac_of: MacOf
) -> Acceleration:
    if (reason := no_way_in(iface)) is not None:
        raise EdgeError(reason)
    with ExitStack() as undo:
        forwarder = _forwarder(config, iface, keyring, dispatcher)
        undo.callback(forwarder.close)
        made = Acceleration(config, forwarder, dispatcher)
        undo.callback(made.carriage.end)
        now = clock.now()
        taken_over = made.carriage.take_over(now)
        made.set_ways(mac_of)
        forwarder.set_targets((vaddr.packed, vport) for vaddr in config.vaddr for vport in config.vport)
        made.on_tick(now)
        tried_again(forwarder.attach)
        undo.pop_all()
    kept = f"; connections of an earlier process that go on: {taken_over}" if taken_over else ""
    _log.info("accelerated: the kernel answers SYNs and carries what is handed over, at %s%s", iface, kept)
    return made


def _forwarder(config: FrontEndConfig, iface: str, keyring: Keyring, dispatcher: Dispatcher) -> Forwarder:
    """What an earlier version left may have another shape: then nothing of it can go on. Raises: EdgeError."""

    def opened() -> Forwarder:
        place = pins.directory(_ROLE, config.state)
        bpf_namespace.remove_left(place)
        return Forwarder(iface, keyring, dispatcher.promise, config.window, pins=place)

    was_pinned = bpf_terms.is_any_pinned(pins.places(_ROLE, config.state))
    try:
        return tried_again(opened)
    except EdgeError as error:
        if not pins.remove(_ROLE, config.state):
            raise
        if was_pinned:
            _log.info("what an earlier process left in the kernel cannot go on, and is removed: %s", error)
    return tried_again(opened)


class Acceleration:
    """The program at work."""

    def __init__(self, config: FrontEndConfig, forwarder: Forwarder, dispatcher: Dispatcher) -> None:
        self._config = config
        self._forwarder = forwarder
        self._dispatcher = dispatcher
        self._macs: dict[Endpoint, bytes | None] = {}
        self._renew_at = 0.0
        self._period_floor = -1
        self._fault_log_at = -inf
        self.carriage = Carriage(dispatcher.table, config.server, forwarder)

    def on_segment(self, segment: Segment, now: float) -> Sequence[Action]:
        """A segment that came by the host's ways; `settle` is to be called when what follows is known.

        Raises: WireError for octets no host would accept; EdgeError.
        """
        self.carriage.on_packet(segment)
        return self._dispatcher.on_segment(segment, now)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the program has packets that need a decision."""
        return self._forwarder.fileno()

    def read(self) -> list[tuple[bytes, Cookie | None]]:
        """Return some of them, for `on_raised`; `settle` is to be called when all are decided."""
        return self._forwarder.read()

    def on_raised(self, packet: bytes, cookie: Cookie | None, now: float) -> Sequence[Action]:
        """One of them. Raises: WireError for octets no host would accept; EdgeError."""
        segment = decode_segment(packet, is_checked=True)
        self.carriage.on_packet(segment)
        if cookie is not None:
            return self._dispatcher.on_verified(segment, cookie, now)
        return self._dispatcher.on_segment(segment, now)

    def settle(self, now: float) -> None:
        """Let the program know what was decided; to be called before a message about it leaves."""
        self.carriage.settle(now)

    def set_ways(self, mac_of: MacOf) -> None:
        """Tell how packets get to each back end; to be called whenever that changes. Raises: EdgeError.

        Before a back end's hardware address is known for the first time, what an earlier process knew still holds.
        """
        carried = self._dispatcher.carried_octets
        for server in self._config.server:
            backend = (server.addr.packed, server.port)
            if self._config.forward == "tunnel":
                self._forwarder.set_tunnel(backend, self._config.raddr.packed, server.addr.packed, carried)
                continue
            mac = mac_of(server.addr)
            if mac == self._macs.get(server):
                continue
            if mac is None:
                self._forwarder.close_way(backend)
            else:
                self._forwarder.set_neighbour(backend, mac)
            self._macs[server] = mac  # last: what the kernel refuses is told again

    def follow(self, mac_of: MacOf, is_other: bool) -> None:
        """The interface has another MAC, or is another one: the program is put there. Raises: EdgeError."""
        self._forwarder.read_mac()
        self._macs.clear()
        self.set_ways(mac_of)
        if is_other:
            self._forwarder.attach()

    def on_tick(self, now: float) -> float:
        """Settle what messages and times have changed, keep the program's clock right; return when again.

        Raises: EdgeError.
        """
        self.carriage.settle(now)
        self._report_fault(now)
        floor = self._dispatcher.table.finished.period_floor
        if now >= self._renew_at or floor != self._period_floor:
            self._renew_at = now + RENEW_INTERVAL_S
            self._period_floor = floor
            self._forwarder.renew(clock.utc(), floor)
        return min(self._renew_at, self.carriage.next_deadline())

    def counted(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return the process's counters with what the program counted added, and that alone as `kernel`."""
        counts = self._forwarder.counters()
        total = {**own, "carried": self.carriage.size, "carriage_faults": self.carriage.faults, "kernel": counts}
        for name in ("syns", "handshakes", "dropped_flags"):
            total[name] += counts[name]
        total["forwarded"] += counts["forwarded"] + counts["tunnelled"]
        return total

    def _report_fault(self, now: float) -> None:
        fault = self.carriage.take_fault()
        if fault is not None and now >= self._fault_log_at:
            self._fault_log_at = now + LOG_INTERVAL_S
            _log.error("%s (%d calls so far; tried again)", fault, self.carriage.faults)

    def leave(self) -> None:
        """The process goes, what is carried goes on: nothing may wait in the ring any more. Raises: EdgeError."""
        self._forwarder.leave(clock.utc(), self._dispatcher.table.finished.period_floor)

    def detach(self) -> None:
        """From now on every packet comes to the process; what the program saw can still be asked. Raises: EdgeError."""
        self._forwarder.detach()

    def end(self) -> None:
        """Every packet comes to the process again, and nothing is left in the kernel. Raises: EdgeError."""
        self.carriage.end()
        try:
            self._forwarder.detach()
        finally:
            self._forwarder.close()
            pins.remove(_ROLE, self._config.state)
