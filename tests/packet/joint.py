"""A cluster as one machine without a network: two back ends with their hosts, a front end, clients, and bad luck.

The cores are the real ones. Around them are models: hosts whose TCP serves HTTP (`joint_host`), clients that repeat
what is not acknowledged, and ways that lose, delay, repeat and reorder. One `Random` decides all of it, so that a run
can be repeated. Processes sleep, and find everything at once when they wake up: messages first, then packets, as
`tcpha.node` reads them. Messages carry no seals: what the anti-replay protection would not let through is not sent.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tcpha.be import actions as be
from tcpha.be.agent import Agent
from tcpha.be.translator import translate_arriving, translate_leaving
from tcpha.config import BackEndConfig, FrontEndConfig, load_back_end, load_front_end
from tcpha.fe import actions as fe
from tcpha.fe.dispatcher import Dispatcher
from tcpha.proto.cookie import SynCookies
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Capabilities, Message, NodeState, Status
from tcpha.proto.tcp import decode_segment
from tcpha.rules import RuleSet
from tests.packet.joint_host import Host

UTC_S = 1_600_000_000.0
FE_ADDRESS, VIP, CLIENT = IPv4Address("198.18.0.23"), IPv4Address("198.18.0.36"), IPv4Address("198.18.0.10")
BE_ADDRESSES = (IPv4Address("198.18.0.33"), IPv4Address("198.18.0.38"))
KEYRING = Keyring((Key(1, bytes(32)),))
STACK = Capabilities(window_scale=None, sack=False, timestamps=False, mss=1460)
NAPS_S = (0.02, 0.1, 0.2, 0.3, 0.5, 0.6, 0.9)
MAX_EVENTS = 300_000
"""In one stretch of time; more means that somebody answers an answer."""
TEXT = """\
vaddr = 198.18.0.36
server = 198.18.0.33 666
server = 198.18.0.38 666
rule = 198.18.0.33,198.18.0.38 balance=hash:target .*
window_scale = none
sack = no
timestamps = no
idle_time = 2s
finished_time = 5s
"""


@lru_cache
def front_end() -> FrontEndConfig:
    """Its choice hangs on the request alone: another process of a front end makes the same."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tcphafe.conf"
        file.write_text(f"raddr = {FE_ADDRESS}\n{TEXT}")
        return load_front_end(file)


@lru_cache
def back_end(address: IPv4Address) -> BackEndConfig:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tcphabe.conf"
        file.write_text(f"raddr = {address}\nuaddr = 198.18.0.254\nfe = {FE_ADDRESS} 666\nprobe_time = 600\n{TEXT}")
        return load_back_end(file)


@dataclass(slots=True)
class Luck:
    """How bad it is: probabilities, and times in seconds."""

    packets_lost: float = 0.0
    packets_repeated: float = 0.0
    """Of a client's packets; the second may come very late."""
    messages_lost: float = 0.0
    messages_late: float = 0.0
    lateness_s: float = 1.0
    """How late a late message, or a repeated packet, may be."""
    naps: float = 0.0
    """A process that has just done something sleeps for a while."""


@dataclass(eq=False)
class Process:
    """What the two kinds of node have in common: inputs that wait, and sleep."""

    world: World
    awake_at: float = 0.0
    channel: deque[tuple[float, int, Message]] = field(default_factory=deque)
    """When it came, from which node, what."""
    scheduled: bool = False

    def wake_soon(self) -> None:
        """Run a round as soon as it can: there is something to do."""
        if not self.scheduled:
            self.scheduled = True
            self.world.at(max(self.world.now + 0.0001, self.awake_at), self._wake)

    def _wake(self) -> None:
        self.scheduled = False
        if self.world.now < self.awake_at:
            self.wake_soon()
        else:
            is_busy = bool(self.channel) or self.has_packets()
            self.round()
            if is_busy and self.world.random.random() < self.world.luck.naps:
                self.world.sleeps(self, self.world.random.choice(NAPS_S))

    def has_packets(self) -> bool:
        raise NotImplementedError

    def round(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin with another process."""
        raise NotImplementedError


class FrontEnd(Process):
    """The front end's process; `start` begins another one."""

    def start(self) -> None:
        config = front_end()
        rules = RuleSet(config.rule, config.server, config.match_time)
        self.core = Dispatcher(config, SynCookies(KEYRING), rules, 1500)
        self.packets: deque[bytes] = deque()
        self.channel.clear()
        self.core.on_utc(self.world.utc, self.world.now)
        for number, backend in enumerate(self.world.backends):
            self.hears(number, backend.restarted)
        self.wake_soon()

    def hears(self, number: int, restarted: bool) -> None:
        """A STATUS of a back end."""
        status = Status(1, 1, NodeState.UP, 0, front_end().digest(), STACK, ())
        self.perform(self.core.on_status(front_end().server[number], status, restarted, self.world.now))

    def has_packets(self) -> bool:
        return bool(self.packets)

    def loses(self, number: int) -> None:
        self.perform(self.core.on_lost(front_end().server[number], self.world.now))

    def round(self) -> None:
        now = self.world.now
        self.core.on_utc(self.world.utc, now)
        while self.channel:
            _, sender, message = self.channel.popleft()
            self.perform(self.core.on_message(front_end().server[sender], message, now))
        while self.packets:
            packet = self.packets.popleft()
            self.perform(self.core.on_segment(decode_segment(packet), now), packet)
        self.perform(self.core.on_timer(now))
        self.world.at(min(self.core.next_deadline(), now + 1.0), self.wake_soon)

    def perform(self, actions: Sequence[fe.Action], packet: bytes = b"") -> None:
        servers = front_end().server
        for action in actions:
            match action:
                case fe.Reply(reply):
                    self.world.to_client(reply)
                case fe.PassOn(backend):
                    self.world.to_backend(servers.index(backend), packet)
                case fe.Forward(backend, forwarded):
                    self.world.to_backend(servers.index(backend), forwarded)
                case fe.Send(backend, message):
                    self.world.sends(self.world.backends[servers.index(backend)], 0, message)
                case _:
                    pass


class BackEnd(Process):
    """A back end's process and its host; `start` begins another process, and the host lives on."""

    def __init__(self, world: World, number: int, host: Host) -> None:
        super().__init__(world)
        self.number = number
        self.host = host
        self.restarted = False

    def start(self) -> None:
        self.core = Agent(back_end(BE_ADDRESSES[self.number]))
        self.arriving: deque[bytes] = deque()
        self.channel.clear()
        self.host.leaving.clear()
        self.wake_soon()

    def has_packets(self) -> bool:
        return bool(self.arriving or self.host.leaving)

    def round(self) -> None:
        now = self.world.now
        self.core.on_utc(self.world.utc, now)
        while self.channel:
            came, _, message = self.channel.popleft()
            self.perform(self.core.on_message(back_end(BE_ADDRESSES[self.number]).fe[0], message, now - came, now))
        for packet in self._taken(self.host.leaving):
            segment = decode_segment(packet)
            actions = self.core.on_leaving(segment, now)
            for action in actions:
                if isinstance(action, be.DeliverLeaving):
                    self.world.to_client(translate_leaving(action.translation, segment))
            self.perform(actions)
        for packet in self._taken(self.arriving):
            segment = decode_segment(packet)
            actions = self.core.on_arriving(segment, now)
            for action in actions:
                if isinstance(action, be.DeliverArriving):
                    self.host.receives(translate_arriving(action.translation, segment), now)
            self.perform(actions)
        self.perform(self.core.on_timer(now))
        if self.host.leaving:
            self.wake_soon()
        self.world.at(min(self.core.next_deadline(), now + 1.0), self.wake_soon)

    @staticmethod
    def _taken(queue: deque[bytes]) -> list[bytes]:
        taken = list(queue)
        queue.clear()
        return taken

    def perform(self, actions: Sequence[be.Action]) -> None:
        for action in actions:
            match action:
                case be.Inject(packet):
                    self.host.receives(packet, self.world.now)
                case be.ClearTuple(key, embryonic):
                    self.perform(self.core.on_cleared(key, self.host.destroys(key, embryonic), self.world.now))
                case be.Examine(key):
                    self.perform(self.core.on_examined(key, self.host.received_at(key), self.world.now))
                case be.Send(_, message):
                    self.world.sends(self.world.front_end, self.number, message)
                case _:
                    pass


class World:
    """Time, ways, and all that live in it."""

    def __init__(self, random: Random, luck: Luck, *, cookies: bool = False) -> None:
        """`cookies`: the hosts answer every SYN with a SYN cookie of their own."""
        self.random = random
        self.luck = luck
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.clients: dict[ConnectionKey, Callable[[bytes], None]] = {}
        """By the direction towards the client: who takes in a packet."""
        self.backends = [
            BackEnd(self, number, Host(f"be{number + 1}", random, cookies=cookies)) for number in range(2)
        ]  # fmt: skip
        self.front_end = FrontEnd(self)
        for process in (*self.backends, self.front_end):
            process.start()
        self._tick()

    @property
    def utc(self) -> float:
        return UTC_S + self.now

    def at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.at(self.now + seconds, do)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(MAX_EVENTS):
            if not self._events or self._events[0][0] > end:
                self.now = end
                return
            self.now, _, do = heapq.heappop(self._events)
            do()
        raise AssertionError("they never come to rest")

    # --- ways

    def _way(self) -> float:
        return self.random.choice((0.0002, 0.0002, 0.0004, 0.001, 0.003))

    def to_client(self, packet: bytes) -> None:
        """Towards the client, past the front end."""
        if self.random.random() >= self.luck.packets_lost:
            self.after(self._way(), lambda: self._arrives_at_client(packet))

    def _arrives_at_client(self, packet: bytes) -> None:
        taker = self.clients.get(decode_segment(packet).key)
        if taker is not None:
            taker(packet)

    def from_client(self, packet: bytes) -> None:
        """Towards the front end; the network may bring it twice."""
        luck = self.luck
        if self.random.random() >= luck.packets_lost:
            self.after(self._way(), lambda: self._arrives_at_front_end(packet))
        if self.random.random() < luck.packets_repeated:
            self.after(self.random.random() * luck.lateness_s * 30, lambda: self._arrives_at_front_end(packet))

    def _arrives_at_front_end(self, packet: bytes) -> None:
        self.front_end.packets.append(packet)
        self.front_end.wake_soon()

    def to_backend(self, number: int, packet: bytes) -> None:
        if self.random.random() >= self.luck.packets_lost:
            self.after(self._way(), lambda: self._arrives_at_backend(self.backends[number], packet))

    @staticmethod
    def _arrives_at_backend(backend: BackEnd, packet: bytes) -> None:
        backend.arriving.append(packet)
        backend.wake_soon()

    def sends(self, to: Process, sender: int, message: Message) -> None:
        """A message on the handoff channel; none reaches another process than it was sealed for."""
        luck, core = self.luck, to.core  # type: ignore[attr-defined]
        if self.random.random() < luck.messages_lost:
            return
        late = self.random.random() * luck.lateness_s if self.random.random() < luck.messages_late else 0.0

        def arrives() -> None:
            if to.core is core:  # type: ignore[attr-defined]
                to.channel.append((self.now, sender, message))
                to.wake_soon()

        self.after(self._way() + late, arrives)

    # --- mishaps

    def sleeps(self, process: Process, seconds: float) -> None:
        """A process does nothing for a while; a front end that hears nothing for a second gives a back end up."""
        process.awake_at = max(process.awake_at, self.now + seconds)
        if isinstance(process, BackEnd) and seconds > 1.0:
            self.after(1.0, lambda: self.front_end.loses(process.number))
            self.after(seconds, lambda: self.front_end.hears(process.number, restarted=False))

    def _tick(self) -> None:
        """Hosts repeat what is not acknowledged."""
        for backend in self.backends:
            if backend.host.repeats(self.now):
                backend.wake_soon()
        self.after(0.05, self._tick)
