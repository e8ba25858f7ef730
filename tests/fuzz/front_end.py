"""Target: a front end's life as a program of events: clients reasonable and not, back ends, time, the end.

The first record chooses the configuration, with limits so small that they are met. In each further record the first
octet chooses what happens, and the others how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from tcpha.config import FrontEndConfig, load_front_end
from tcpha.errors import WireError
from tcpha.fe.actions import Action, Reply
from tcpha.fe.dispatcher import Dispatcher
from tcpha.proto.cookie import SynCookies
from tcpha.proto.icmp import decode_icmp_error, encode_too_big
from tcpha.proto.ip import reverse_key
from tcpha.proto.messages import (
    Adopted,
    Capabilities,
    Closed,
    Flows,
    FlowsQuery,
    Identity,
    Message,
    Moved,
    NodeState,
    Reason,
    Refused,
    Server,
    ServerState,
    Status,
)
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, FIN, PSH, RST, SYN, decode_segment, encode_segment
from tcpha.rules import Endpoint, RuleSet
from tests.fuzz.clients import OFFERS, Client, head_of, irs_of, with_wrong_checksum
from tests.fuzz.files import OctetsFile
from tests.fuzz.front_end_model import FrontEndModel
from tests.fuzz.messages import KEYRING
from tests.fuzz.packets import ADDRESSES
from tests.fuzz.records import Octets, live, methods
from tests.fuzz.trace import in_words, tell

BASE = """
raddr = 198.18.0.23
vaddr = 198.18.0.36
vaddr = 2001:db8:0:1::24
server = 198.18.0.33 666
server = 198.18.0.38 666
"""
TIGHT = """
max_flows = 3
max_finished = 2
max_reading = 1
max_queries = 1
query_rate = 5
idle_time = 2s
finished_time = 3s
inspect_octets = 256
inspect_time = 1s
window = 536
"""
WIDE = "max_flows = 6\nmax_finished = 6\nmax_reading = 3\nmax_queries = 3\nidle_time = 5s\n"
LIMITS = (
    TIGHT,
    WIDE,
    TIGHT + "timestamps = no\n",
    WIDE + "window_scale = none\nsack = no\nack_delay = 0\n",
    TIGHT + "forward = tunnel\nhandoff_repeats = 0\n",
    WIDE + "forward = tunnel\nmtu = 1300\nmss = 88\n",
)
RULES = (
    "rule = 198.18.0.38 jpg$\nrule = 198.18.0.33 .*\n",
    "rule = 198.18.0.33,198.18.0.38 .*\n",
    "rule = 198.18.0.38 jpg$\n",
    "rule = 198.18.0.38 sni=net$\nrule = 198.18.0.33 octets=^SSH\nrule = 198.18.0.38 octets=[\\x00-\\x02]{3}\n",
    "rule = 198.18.0.33,198.18.0.38 balance=rr method=^GET\nrule = 198.18.0.38,198.18.0.33 balance=least path=.*\n",
)
MTUS = (1500, 1280, 9000)
START_S = 1000.0
UTC_S = 1_600_000_000.0
PAUSES_S = (0.0, 0.001, 0.011, 0.05, 0.06, 0.2, 0.45, 1.0, 2.0, 4.0, 11.0, 33.0, 64.0)
UTC_STEPS_S = (1.0, 32.0, -32.0, 64.0, -64.0, 320.0, 3600.0, -3600.0)
FLAGS = (PSH | ACK, ACK, FIN | ACK, PSH | ACK, ACK, RST, RST | ACK, FIN, 0, SYN | ACK)
WINDOWS = (502, 0, 1, 65535)
FAR = 1 << 31
STACK = Capabilities(window_scale=7, sack=True, timestamps=True, mss=1460)
STACKS = (STACK, STACK, STACK, None, Capabilities(None, True, False, 0))
CHECK_S = 5.0
"""How often the whole is looked at while nothing happens."""
LONG_S = 10.0
"""A core that was not woken for so long."""


@lru_cache
def configured(limits: str, rules: str) -> FrontEndConfig:
    return load_front_end(OctetsFile.holding((BASE + limits + rules).encode()))


def front_end(octets: bytes) -> None:
    """Live as the program says, then be left alone until nothing is left."""
    live(octets, Life)


class Life:
    """One front end, its clients, and what is known of them."""

    def __init__(self, header: Octets) -> None:
        self.config = configured(header.choose(LIMITS), header.choose(RULES))
        mtu_octets = self.config.mtu or header.choose(MTUS)
        rule_set = RuleSet(self.config.rule, self.config.server, match_time_s=1.0)
        self.core = self.dispatcher = Dispatcher(self.config, SynCookies(KEYRING), rule_set, mtu_octets)
        self.model = FrontEndModel(self.dispatcher, self.config, mtu_octets)
        self.now = START_S
        self.utc_offset = UTC_S - START_S
        family = 6 if header.flag() else 4
        self.clients = [Client(family, 40000 + 2 * slot, irs_of(slot, 0, 0)) for slot in range(4)]
        self.identities: list[Identity] = []
        self.next_check = START_S
        self.last_packet = b""
        tell(f"config: max_flows {self.config.max_flows}, forward {self.config.forward}, mtu {mtu_octets}")
        self._tick()
        if header.number() < 200:
            for server in self.config.server:
                self._status(server, STACK, NodeState.UP, (), restarted=False)

    EVENTS = (
        ("segment", 48), ("request", 24), ("connect", 28), ("syn", 10), ("message", 40), ("passes", 36), ("status", 10),
        ("lost", 6), ("clock", 6), ("late", 6), ("again", 8), ("damaged", 8), ("icmp", 4), ("odd", 4), ("stop", 4),
        ("segment", 14),
    )  # fmt: skip

    def step(self, record: Octets) -> None:
        _METHODS[record.number()](self, record)

    # --- clients

    def connect(self, record: Octets) -> None:
        """Another connection in one of the places; its handshake is done."""
        client = self._begin(record)
        self._receive(client.syn())
        self._receive(client.segment(0, 0, ACK, seq_add(client.iss, 1), client.timestamps(), 502))

    def syn(self, record: Octets) -> None:
        """A SYN, perhaps an odd one; the connection there goes on if it is not new."""
        client = self._begin(record) if record.flag() else record.choose(self.clients)
        self._receive(
            client.syn(record.choose((SYN, SYN, SYN | 0xC0, SYN | FIN, SYN | ACK, SYN | RST)), record.piece(1))
        )

    def request(self, record: Octets) -> None:
        """The whole head in one segment, or its first part."""
        client = record.choose(self.clients)
        head = head_of(client.irs)
        octets = len(head) if record.flag() else record.number() % (len(head) + 1)
        self._client_sends(client, 0, octets, PSH | ACK, seq_add(client.iss, 1), client.timestamps(), 502)

    def segment(self, record: Octets) -> None:
        """Any segment of one of the connections."""
        client = record.choose(self.clients)
        at = self._place(client, record.number(), record.number())
        octets = self._size(client, at, record.number())
        flags = record.number()
        flags = FLAGS[flags % len(FLAGS)] if flags < 200 else flags & ~SYN
        ack = self._acknowledgement(client, record.number())
        how = record.number()
        options = self._options(client, how & 7)
        self._client_sends(client, at, octets, flags, ack, options, WINDOWS[how >> 5 & 3], lies=how & 0x18 == 0x18)

    def damaged(self, record: Octets) -> None:
        """The packet before, with an octet changed or cut off."""
        packet = bytearray(self.last_packet)
        if record.flag():
            self._receive(with_wrong_checksum(bytes(packet)) if len(packet) >= 60 else bytes(packet))
            return
        for _ in range(2):
            at, octet = record.number(), record.number()
            if packet:
                packet[at % len(packet)] = octet
        self._receive(bytes(packet[: len(packet) - record.number() % 8]))

    def again(self, record: Octets) -> None:
        """The packet before comes twice."""
        self._receive(self.last_packet)

    def icmp(self, record: Octets) -> None:
        """A router says that a packet to a client was too big."""
        client = record.choose(self.clients)
        key, seq = reverse_key(client.key), seq_add(client.iss, record.number(2))
        error = decode_icmp_error(encode_too_big(encode_segment(key, seq, SeqNum(0), ACK, 1), 1280))
        self._do(lambda: self.dispatcher.on_icmp_error(error, self.now), packet=error.packet)

    # --- back ends

    def message(self, record: Octets) -> None:
        """A back end speaks of a connection, most often the one that holds it."""
        identity = self._identity(record)
        flow = self.dispatcher.table.by_key.get(identity.key)
        by = self.config.server[record.number() % 2]
        if record.number() < 200 and flow is not None and flow.backend is not None:
            by = flow.backend
        kind, number = record.number() % 8, record.number()
        if kind < 3:
            places = (len(head_of(identity.irs)), 0, number, number * 16, -1)
            message: Message = Adopted(identity, seq_add(identity.irs, 1 + places[number % len(places)]))
        elif kind < 5:
            message = Refused(identity, list(Reason)[number % len(Reason)])
        elif kind == 5:
            message = Closed((identity, *self.identities[-(number % 3) :]))
        elif kind == 6:
            message = Flows((identity,) if number & 1 else (), (identity.key,) if number & 2 else ())
        else:
            message = Flows((), tuple(client.key for client in self.clients))
        self._say(by, message)

    def odd(self, record: Octets) -> None:
        """What no back end says."""
        identity = self._identity(record)
        sayings: tuple[Message, ...] = (Moved(identity, 3), FlowsQuery((identity.key,)), Closed(()))
        self._say(self.config.server[0], record.choose(sayings))

    def status(self, record: Octets) -> None:
        state = record.choose((NodeState.UP, NodeState.UP, NodeState.DRAINING, NodeState.STARTING))
        virtual = ADDRESSES[self.clients[0].family][1].packed
        servers = () if record.flag() else (Server(virtual, 80, record.choose(list(ServerState))),)
        server = record.choose(self.config.server)
        self._status(server, record.choose(STACKS), state, servers, restarted=record.number() > 127)

    def lost(self, record: Octets) -> None:
        server = record.choose(self.config.server)
        tell("lost", server)
        self._do(lambda: self.dispatcher.on_lost(server, self.now))

    # --- time

    def passes(self, record: Octets) -> None:
        """Time passes, and the core is woken whenever it wants to be."""
        target = self.now + record.choose(PAUSES_S)
        tell("passes", target - self.now)
        while (due := self.dispatcher.next_deadline()) <= target:
            self.now = max(self.now, due)
            self._tick()
        self.now = target
        self._tell_utc()

    def late(self, record: Octets) -> None:
        """Time passes, and nobody wakes the core."""
        self.now += record.choose(PAUSES_S[:8])
        tell("is not woken until", self.now)
        self._tell_utc()

    def clock(self, record: Octets) -> None:
        """Somebody sets the clock of the host."""
        self.utc_offset += record.choose(UTC_STEPS_S)
        tell("clock", self.utc_offset)
        self._tell_utc()

    def stop(self, record: Octets) -> None:
        """The front end goes (rarely: nothing happens behind it)."""
        if record.number() > 63:
            return
        tell("stop")
        self._do(lambda: self.dispatcher.on_stop(self.now))
        assert self.dispatcher.table.live == 0

    def end(self) -> None:
        """Nobody says anything any more: everything ends, and is forgotten."""
        for _ in range(30):
            self.now += LONG_S
            self._tell_utc()
            self.dispatcher.on_timer(self.now)
        self.model.check_empty()

    # --- in and out

    def _client_sends(
        self,
        client: Client,
        at: int,
        octets: int,
        flags: int,
        ack: SeqNum,
        options: bytes,
        window: int,
        lies: bool = False,
    ) -> None:
        packet = client.segment(at, octets, flags, ack, options, window, lies)
        self.model.sends(client.key, client.irs, decode_segment(packet))
        self._receive(packet)

    def _receive(self, packet: bytes) -> None:
        self.last_packet = packet
        try:
            segment = decode_segment(packet)
        except WireError:
            return
        tell("client", in_words(segment))
        self._do(lambda: self.dispatcher.on_segment(segment, self.now), packet=packet)

    def _say(self, by: Endpoint, message: Message) -> None:
        tell(by, "says", message)
        enquiry = None
        for identity in message.held if isinstance(message, Flows) else ():
            enquiry = self.dispatcher._enquiries.get(identity.key) or enquiry
        self.model.keeps(None if enquiry is None else enquiry.segment.packet)
        self._do(lambda: self.dispatcher.on_message(by, message, self.now), said=message, by=by)

    def _status(
        self,
        by: Endpoint,
        stack: Capabilities | None,
        state: NodeState,
        servers: tuple[Server, ...],
        *,
        restarted: bool,
    ) -> None:
        status = Status(7, 1, state, 0, self.config.digest(), stack, servers)
        tell(by, "says", status, "restarted" if restarted else "")
        if restarted:
            self.model.restarts(by)
        self._do(lambda: self.dispatcher.on_status(by, status, restarted, self.now), said=status, by=by)

    def _tick(self) -> None:
        self._tell_utc()
        self._do(lambda: self.dispatcher.on_timer(self.now))
        assert self.dispatcher.next_deadline() > self.now, "it wants to be woken for ever"

    def _tell_utc(self) -> None:
        self.dispatcher.on_utc(self.now + self.utc_offset, self.now)

    def _do(
        self,
        event: Callable[[], Sequence[Action]],
        packet: bytes | None = None,
        said: Message | None = None,
        by: Endpoint | None = None,
    ) -> None:
        actions: Sequence[Action]
        try:
            actions = event()
        except WireError as error:
            assert packet is not None, "only a packet can be malformed"
            tell("  malformed:", error)
            actions = ()
        for action in actions:
            tell("  ", in_words(action))
            if isinstance(action, Reply):
                self._hear(action.packet)
        if actions or packet is not None or said is not None or self.now >= self.next_check:
            self.next_check = self.now + CHECK_S
            self.model.check(actions, packet, said, by)
        for flow in self.dispatcher.table.by_key.values():
            if flow.identity not in self.identities:
                self.identities.append(flow.identity)

    def _hear(self, packet: bytes) -> None:
        segment = decode_segment(packet)
        for client in self.clients:
            if reverse_key(segment.key) == client.key:
                client.hears(segment)

    # --- values near those that matter

    def _begin(self, record: Octets) -> Client:
        """A new client in one of the places."""
        slot = record.number() % len(self.clients)
        old = self.clients[slot]
        irs = irs_of(record.number(), record.number(), record.number())
        client = Client(old.family, old.port, irs, record.choose(OFFERS))
        client.iss = old.iss
        self.clients[slot] = client
        return client

    def _identity(self, record: Octets) -> Identity:
        client, which = record.choose(self.clients), record.number()
        flow = self.dispatcher.table.by_key.get(client.key)
        if which < 128 or not self.identities:
            return client.identity if flow is None else flow.identity
        return self.identities[which % len(self.identities)]

    @staticmethod
    def _place(client: Client, base: int, offset: int) -> int:
        bases = (client.next, client.next, 0, 0, len(head_of(client.irs)), client.next - offset, -1 - offset % 4, FAR)
        return bases[base % len(bases)] + (offset if base >= 128 else 0)

    @staticmethod
    def _size(client: Client, at: int, size: int) -> int:
        if size < 96:
            return size
        return max(len(head_of(client.irs)) - at, 0) % 1400 if size < 160 else (size - 159) * 14

    @staticmethod
    def _acknowledgement(client: Client, which: int) -> SeqNum:
        heard = (0, client.heard, client.heard + 1, 1, -1, 5000, FAR, 120)[which & 7 if which >= 128 else which & 1]
        return seq_add(client.iss, 1 + heard)

    @staticmethod
    def _options(client: Client, which: int) -> bytes:
        match which:
            case 4:
                return b""
            case 5:
                return client.timestamps(older=20)
            case 6:
                return b"\x02\x04\x05\xb4\x08\x0a\x00\x00\x00\x00\x00\x00"
            case 7:
                return b"\x08\x03\x00\x00"
            case _:
                return client.timestamps()


_METHODS = methods(Life, Life.EVENTS)
