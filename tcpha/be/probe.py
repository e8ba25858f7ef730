"""The back end's probe: a handshake replayed to its own server, from an address the cluster does not use (`uaddr`).

It never leaves the host: the SYN is injected, the SYN-ACK is caught where packets leave, and a RST ends the attempt
before the server notices. It tells what the host's TCP stack does and whether the server listens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from tcpha.be.actions import Action, Announce, Inject
from tcpha.proto.ip import ConnectionKey, IpAddress, connection_key, reverse_key
from tcpha.proto.messages import Capabilities, Server, ServerState
from tcpha.proto.options import Options, encode_options
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, RST, SYN, Segment, encode_segment

ANSWER_TIME_S = 0.25
MAX_MISSES = 2
"""One probe may get lost on a busy host; two in a row mean a silent server."""
MSS = 1440
WINDOW = 64240
_FIRST_PORT = 10240
_PORTS = 50000
_TSVAL = 1


@dataclass(slots=True)
class _Target:
    source: IpAddress | None
    address: IpAddress
    port: int
    state: ServerState = ServerState.UNKNOWN
    misses: int = 0
    """Probes in a row without an answer."""


class Probe:
    """Asks every virtual address and port in turn, `interval_s` apart. `servers` and `capabilities` are the results."""

    def __init__(
        self, sources: Iterable[IpAddress], addresses: Iterable[IpAddress], ports: Iterable[int], interval_s: float
    ) -> None:
        source_of = {source.version: source for source in reversed(list(sources))}
        ports = list(ports)
        self._targets = [
            _Target(source_of.get(address.version), address, port) for address in addresses for port in ports
        ]
        self._interval_s = interval_s
        self._round = 0
        self._next_round = 0.0
        self._ends_at = 0.0
        self._waiting: dict[ConnectionKey, _Target] = {}
        self.capabilities: Capabilities | None = None

    @property
    def servers(self) -> tuple[Server, ...]:
        """What was last found at each virtual address and port."""
        return tuple(Server(each.address.packed, each.port, each.state) for each in self._targets)

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called."""
        return min(self._next_round, self._ends_at) if self._waiting else self._next_round

    def on_timer(self, now: float) -> list[Action]:
        """Give up what did not answer, and begin the next round when it is time."""
        actions: list[Action] = []
        if self._waiting and now >= self._ends_at:
            silent = list(self._waiting.values())
            self._waiting.clear()
            for target in silent:
                target.misses += 1
                if target.misses >= MAX_MISSES:
                    actions += self._learn(target, ServerState.SILENT, self.capabilities)
        if now >= self._next_round:
            self._next_round = now + self._interval_s
            self._ends_at = now + min(ANSWER_TIME_S, self._interval_s / 2)
            self._round += 1
            actions += [Inject(self._syn(target)) for target in self._targets if target.source is not None]
        return actions

    def on_leaving(self, segment: Segment) -> list[Action] | None:
        """Read an answer; None if the packet is not one. Raises: OptionError."""
        target = self._waiting.get(segment.key)
        if target is None:
            return None
        if segment.flags & RST:
            del self._waiting[segment.key]
            return self._learn(target, ServerState.NO_LISTENER, self.capabilities)
        if segment.flags & (SYN | ACK) != SYN | ACK:
            return []
        del self._waiting[segment.key]
        granted = segment.options
        mss = granted.mss or 0
        found = Capabilities(granted.window_scale, granted.sack_permitted, granted.timestamps is not None, mss)
        goodbye = encode_segment(reverse_key(segment.key), segment.seg_ack, SeqNum(0), RST, 0)
        return [Inject(goodbye), *self._learn(target, ServerState.ANSWERS, found)]

    def _syn(self, target: _Target) -> bytes:
        port = _FIRST_PORT + self._round % _PORTS
        if target.source is None:
            raise ValueError("no source address")
        key = connection_key(target.source, port, target.address, target.port)
        self._waiting[reverse_key(key)] = target
        options = encode_options(Options(MSS, 0, sack_permitted=True, timestamps=(_TSVAL, 0)))
        return encode_segment(key, seq_add(SeqNum(0), self._round), SeqNum(0), SYN, WINDOW, options)

    def _learn(self, target: _Target, state: ServerState, capabilities: Capabilities | None) -> list[Action]:
        # The MSS differs between address families and says nothing of what the stack keeps: it is no news.
        before, self.capabilities = self.capabilities, capabilities
        same = before == capabilities or (
            before is not None and capabilities is not None and before == replace(capabilities, mss=before.mss)
        )
        news = state is not target.state or not same
        target.state = state
        if state is not ServerState.SILENT:
            target.misses = 0
        return [Announce()] if news else []
