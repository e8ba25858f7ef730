"""Target: a back end's life as a program of events: front ends, clients, a server's TCP, time, the end.

The first record chooses the configuration, with limits so small that they are met, and whether the host's TCP is a real
one (`host`) or says whatever the program wants. In each further record the first octet chooses what happens, and the
others how.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tcpha.be.actions import (
    Action,
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
from tcpha.be.translator import translate_icmp_error
from tcpha.config import BackEndConfig, load_back_end
from tcpha.errors import WireError
from tcpha.proto.cookie import Agreement
from tcpha.proto.icmp import decode_icmp_error, encode_too_big
from tcpha.proto.ip import ConnectionKey, reverse_key
from tcpha.proto.messages import Adopted, Closed, FlowsQuery, Handoff, Identity, Message, Moved
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import MASK, SeqNum, seq_add
from tcpha.proto.tcp import ACK, FIN, PSH, RST, SYN, Segment, decode_segment, encode_segment
from tests.fuzz.back_end_model import BackEndModel
from tests.fuzz.clients import Client, head_of, irs_of, stream, with_wrong_checksum
from tests.fuzz.files import OctetsFile
from tests.fuzz.host import Host
from tests.fuzz.packets import key_of
from tests.fuzz.records import Octets, live, methods
from tests.fuzz.trace import in_words, tell

BASE = """
raddr = 198.18.0.33
uaddr = 198.18.0.39
vaddr = 198.18.0.36
vaddr = 2001:db8:0:1::24
fe = 198.18.0.23 666
fe = 198.18.0.24 666
server = 198.18.0.33 666
rule = 198.18.0.33 .*
"""
TIGHT = "max_flows = 2\nmax_finished = 2\nhold_packets = 5\nfinished_time = 2\nidle_time = 3\nprobe_time = 8\n"
WIDE = "max_flows = 8\nmax_finished = 64\nhold_packets = 100\nfinished_time = 5\nidle_time = 3\nprobe_time = 600\n"
LIMITS = (WIDE, TIGHT, WIDE + "hold_time = 0\n", TIGHT + "hold_packets = 0\n", WIDE + "replay_time = 0.02\n")
START_S = 1000.0
UTC_S = 1_800_000_000.0
PAUSES_S = (0.0, 0.01, 0.03, 0.04, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 31.0, 100.0)
UTC_STEPS_S = (1.0, 32.0, -32.0, 64.0, -64.0, 3600.0)
AGREEMENTS = (Agreement(1460, 9, True), Agreement(88, None, False), Agreement(536, 0, True), Agreement(8960, 14, False))
ISSES = (0x7FFFFFF0, 0xFFFFFFFE, 5, 0x10000000)
"""What front ends chose."""
FLAGS = (ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN, 0, FIN)
LEAVING_FLAGS = (ACK, SYN | ACK, PSH | ACK, FIN | ACK, RST | ACK, RST, SYN, 0)
WINDOWS = (502, 0, 1, 65535)
SERVER_ISS = 100
FAR = 1 << 31
CHAIN = 200
"""So many answers may one packet lead to."""


@lru_cache
def configured(limits: str) -> BackEndConfig:
    lines = dict(line.split(" = ", 1) for line in limits.splitlines())
    text = BASE + "".join(f"{key} = {value}\n" for key, value in lines.items())
    return load_back_end(OctetsFile.holding(text.encode()))


def back_end(octets: bytes) -> None:
    """Live as the program says, then be left alone until nothing is left."""
    live(octets, Life)


class Life:
    """One back end, its host, and what front ends and clients know."""

    def __init__(self, header: Octets) -> None:
        self.config = configured(header.choose(LIMITS))
        self.core = self.agent = Agent(self.config)
        self.host = Host(self._identity_at)
        self.is_honest = header.number() < 192
        self.model = BackEndModel(self.agent, self.config, self.host, honest=self.is_honest)
        self.now = START_S
        self.utc_offset = UTC_S - START_S
        self.lies = 0
        """In a dishonest host: one bit for each answer of its diagnostics."""
        family = 6 if header.flag() else 4
        self.clients = [Client(family, 40000 + 2 * slot, irs_of(slot, 0, 0)) for slot in range(4)]
        for client in self.clients:
            client.iss, client.stamps = _iss_of(client, ISSES[0]), True
        self.identities: list[Identity] = []
        self.periods: dict[Identity, int] = {}
        self.last: bytes = b""
        self.is_damaged = False
        tell(f"config: {len(self.config.vaddr)} vaddr, max_flows {self.config.max_flows}, honest {self.is_honest}")
        self._tick()

    EVENTS = (
        ("reads", 32), ("hands_off", 28), ("segment", 32), ("leaves", 16), ("passes", 26), ("writes", 12),
        ("server", 12), ("begins", 12), ("message", 12), ("ordinary", 24), ("host_changes", 8), ("clock", 4),
        ("late", 4), ("damaged", 4), ("icmp", 4), ("stop", 4), ("reads", 22),
    )  # fmt: skip

    def step(self, record: Octets) -> None:
        _METHODS[record.number()](self, record)
        self.model.check(self.now)

    # --- front ends

    def begins(self, record: Octets) -> None:
        """Another connection in one of the places."""
        slot = record.number() % len(self.clients)
        old = self.clients[slot]
        client = Client(old.family, old.port, irs_of(record.number(), record.number(), record.number()))
        client.iss = _iss_of(client, record.choose(ISSES))
        client.stamps = record.number() < 192
        self.clients[slot] = client

    def hands_off(self, record: Octets) -> None:
        """A HANDOFF, or its repetition."""
        client = record.choose(self.clients)
        number, how, octets = record.number(), record.number(), record.number()
        head = len(head_of(client.irs))
        octets = head if octets < 160 else 0 if octets < 176 else (octets - 175) * 16
        scaled = client.irs & 3
        agreement = AGREEMENTS[scaled]
        this_period = int(self.now + self.utc_offset) >> 5
        period = this_period + (0, 0, 0, -1, 1, 0, -1, 0)[how & 7]
        if self.is_honest:  # a cookie is of one period for ever, and no front end takes an old one
            period = self.periods.setdefault(client.identity, period)
            if not this_period - 1 <= period <= this_period + 1:
                return
        self._say(
            Handoff(
                client.identity,
                agreement,
                None if agreement.window_scale is None else 7,
                WINDOWS[number & 3],
                period & 0xFFFF,
                0xFFFFFFFF if client.stamps else None,
                client.tsval if client.stamps else 0,
                confirm=how < 224,
                acknowledged=seq_add(client.irs, 1 + octets) if number & 0x30 == 0x30 else None,
                octets=stream(client.irs, 0, octets),
            ),
            by=number >> 2 & 1,
            age_s=0.3 if number & 0xC0 == 0xC0 else 0.0,
        )
        client.next = max(client.next, octets)

    def ordinary(self, record: Octets) -> None:
        """A HANDOFF and everything that should follow: the host's TCP is read until it has nothing to say."""
        self.hands_off(record)
        if not self.is_honest:
            self._answer_as_expected()
        self._read_all()

    def message(self, record: Octets) -> None:
        identity, kind = self._identity(record), record.number()
        match kind % 8:
            case 0 | 1:
                message: Message = Closed((identity,))
                self.model.is_sent_away(identity, self.now)
            case 2:
                message = FlowsQuery(())
            case 3 | 4:
                message = FlowsQuery((identity.key, key_of(4, 7), identity.key))
            case 5:
                message = Adopted(identity, identity.irs)
            case 6:
                message = Moved(identity, 3)
            case _:
                message = FlowsQuery(tuple(key_of(6, port) for port in range(18)))
        self._say(message, by=kind >> 3 & 1)

    # --- packets

    def segment(self, record: Octets) -> None:
        """A client's packet."""
        client = record.choose(self.clients)
        base, offset, size, flags, ack, how = (record.number() for _ in range(6))
        bases = (client.next, client.next, client.next, 0, -1, client.next - offset, FAR, len(head_of(client.irs)))
        at = bases[base & 7] + (offset if base >= 128 else 0)
        size = size if size < 128 else (size - 127) * 11
        acks = (client.heard, client.heard, client.heard + 1, 0, 1, -1, FAR, 5000)
        number = seq_add(client.iss, 1 + acks[ack & 7 if ack >= 64 else 0])
        flags = FLAGS[flags % len(FLAGS)] if flags < 224 else flags
        options = (client.timestamps, lambda: b"", lambda: b"\x05\x12" + bytes(16) + b"\0\0", lambda: b"\x08\x03\0\0")[
            how & 3 if how >= 128 else 0
        ]()
        self._arrive(client.segment(at, size, flags, number, options, WINDOWS[how >> 2 & 3], lies=how & 0x70 == 0x70))

    def leaves(self, record: Octets) -> None:
        """A packet that the host sends: where it is honest, the next of its own; else any."""
        if self.is_honest:
            self.reads(record)
            return
        client = record.choose(self.clients)
        seq, ack, flags, options = (record.number() for _ in range(4))
        stamps = encode_timestamps(9 + seq, client.tsval)
        self._leave(
            encode_segment(
                reverse_key(client.key),
                SeqNum((SERVER_ISS + (0, 1, 1, 2, 100, FAR, 1 + ack * 16, 0)[seq & 7]) & MASK),
                seq_add(
                    client.irs, (1, 1 + len(head_of(client.irs)), 1 + client.next, 2 + client.next, 0, FAR)[ack % 6]
                ),
                LEAVING_FLAGS[flags % len(LEAVING_FLAGS)] if flags < 224 else flags,
                500,
                (stamps, b"", b"\x02\x04\x05\xb4\x01\x03\x03\x07" + stamps, b"\x08\x03\0\0")[options & 3],
                bytes(record.number()),
            )
        )

    def reads(self, record: Octets) -> None:
        """The back end reads what leaves, as far as it was not lost: a full queue drops packets."""
        many, lost = record.number(), record.number()
        if lost > 224 and self.host.queue:
            tell("lost", in_words(self.host.queue.popleft()))  # the queue was full
        for _ in range(1 + (many & 3)):
            if self.host.queue:
                self._leave(self.host.queue.popleft())

    def damaged(self, record: Octets) -> None:
        """The client's packet before, damaged on its way."""
        if len(self.last) >= 60:
            self.is_damaged = True
            self._arrive(with_wrong_checksum(self.last))

    def icmp(self, record: Octets) -> None:
        """A router says that a packet to a client was too big."""
        client = record.choose(self.clients)
        packet = encode_segment(reverse_key(client.key), seq_add(client.iss, record.number(2)), SeqNum(0), ACK, 1)
        error = decode_icmp_error(encode_too_big(packet, 1280))
        actions = self.agent.on_icmp_error(error, self.now)
        for action in actions:
            if isinstance(action, DeliverArriving):
                assert self.agent.table.by_leaving_key[error.key].translation is action.translation
                decode_icmp_error(translate_icmp_error(action.translation, error))
            else:
                assert actions == (LeaveToHost(),)

    # --- the host

    def writes(self, record: Octets) -> None:
        client = record.choose(self.clients)
        self.host.writes(client.key, record.number() * 16)

    def server(self, record: Octets) -> None:
        """The server closes, aborts, or its socket ends."""
        key = record.choose(self.clients).key
        record.choose((self.host.closes, self.host.closes, self.host.aborts, self.host.forgets, self.host.waits))(key)

    def host_changes(self, record: Octets) -> None:
        which, is_on = record.number() % 5, record.flag()
        match which:
            case 0:
                self.host.listens = is_on
            case 1:
                self.host.accepts = is_on
            case 2:
                self.host.drops_syns = not is_on
            case 3:
                self.host.has_cookies = not is_on
            case _:
                self.lies = record.number(4)

    # --- time

    def passes(self, record: Octets) -> None:
        """Time passes, and the core is woken whenever it wants to be."""
        target = self.now + record.choose(PAUSES_S)
        tell("passes", target - self.now)
        while (due := self.agent.next_deadline()) <= target:
            self.now = max(self.now, due)
            self._tick()
        self.now = target
        self._tell_utc()

    def late(self, record: Octets) -> None:
        """Time passes, and nobody wakes the core."""
        self.now += record.choose(PAUSES_S[:10])
        self._tell_utc()

    def clock(self, record: Octets) -> None:
        """Somebody sets the clock of the host."""
        self.utc_offset += record.choose(UTC_STEPS_S)
        self.model.is_restarted()
        self._tell_utc()

    def stop(self, record: Octets) -> None:
        """The back end goes (rarely: nothing happens behind it)."""
        if record.number() <= 31:
            tell("stop")
            self._perform(self.agent.on_stop(self.now))

    def end(self) -> None:
        """The host has no sockets any more: everything ends, and is forgotten."""
        self.is_honest = self.model.honest = False
        self.host.sockets.clear()
        self.host.queue.clear()
        self.host.drops_syns = True
        self.lies = 0
        for _ in range(60):
            self.now += 4.0
            self._tell_utc()
            self._perform(self.agent.on_timer(self.now))
            self.host.queue.clear()
        self.model.check_empty()

    # --- in and out

    def _tick(self) -> None:
        """As the event loop does: the queues first, then what is due."""
        self._tell_utc()
        self._read_all()
        for _ in range(3):  # what the host answers may be due at once
            self._perform(self.agent.on_timer(self.now))
            if self.agent.next_deadline() > self.now:
                return
        raise AssertionError("it wants to be woken for ever")

    def _tell_utc(self) -> None:
        self.agent.on_utc(self.now + self.utc_offset, self.now)

    def _say(self, message: Message, by: int = 0, age_s: float = 0.0) -> None:
        tell("front end", by, "says", message, f"{age_s} s ago")
        self._perform(self.agent.on_message(self.config.fe[by], message, age_s, self.now))
        for flow in self.agent.table.by_key.values():
            if flow.identity not in self.identities:
                self.identities.append(flow.identity)

    def _arrive(self, packet: bytes) -> None:
        self.last = packet
        segment = decode_segment(packet)
        tell("arrives", in_words(segment))
        is_known = segment.key in self.agent.table.by_key
        try:
            actions = self.agent.on_arriving(segment, self.now)
        except WireError:
            return
        assert is_known or not actions, "nobody reaches the server around the front end"
        self._perform(actions, segment)

    def _leave(self, packet: bytes) -> None:
        segment = decode_segment(packet)
        tell("leaves", in_words(segment))
        try:
            actions = self.agent.on_leaving(segment, self.now)
        except WireError:
            return
        self._perform(actions, segment)

    def _read_all(self) -> None:
        for _ in range(len(self.host.queue) + CHAIN):
            if not self.host.queue:
                return
            self._leave(self.host.queue.popleft())
        raise AssertionError("the host and the back end talk for ever")

    def _perform(self, actions: Sequence[Action], segment: Segment | None = None) -> None:
        """Do what the process would do: the packet's verdict first, then the rest, with what follows from it."""
        for action in actions:
            if isinstance(action, DeliverArriving | DeliverLeaving):
                assert segment is not None
                self._deliver(action, segment)
        for action in actions:
            tell("  ", in_words(action))
            match action:
                case Inject(packet):
                    self._inject(packet)
                case Send(_, message):
                    self.model.says(message, self.now)
                case ClearTuple(key, embryonic):
                    destroyed = self.host.destroy(key, embryonic) if self.is_honest else self._lie()
                    self._perform(self.agent.on_cleared(key, destroyed, self.now))
                case Examine(key):
                    received = self.host.received_at(key) if self.is_honest else self._lie() or None
                    self._perform(self.agent.on_examined(key, received, self.now))
                case Note(text):
                    assert text.isprintable()
                case _:
                    pass

    def _deliver(self, action: DeliverArriving | DeliverLeaving, segment: Segment) -> None:
        if isinstance(action, DeliverArriving):
            packet = self.model.delivers_arriving(action.translation, segment)
            if packet is not None and self.is_honest:
                self._host_receives(packet)
            return
        translated = self.model.delivers_leaving(action.translation, segment)
        for client in self.clients if translated is not None else ():
            if translated is not None and translated.key == reverse_key(client.key):
                client.hears(translated)

    def _inject(self, packet: bytes) -> None:
        segment = decode_segment(packet) if self.is_damaged else self.model.injects(packet)
        if segment.key[:-4] == key_of(4)[:-4] or segment.key[:-4] == key_of(6)[:-4]:
            if self.is_honest:
                self._host_receives(packet)
        elif segment.flags & SYN and self.host.listens:  # the probe
            options = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x07\0\0\0\x01\x01\x03\x03\x07"
            key, ack = reverse_key(segment.key), seq_add(segment.seg_seq, 1)
            self.host.queue.append(encode_segment(key, SeqNum(9), ack, SYN | ACK, 64240, options))

    def _host_receives(self, packet: bytes) -> None:
        segment = decode_segment(packet)
        try:
            segment.check_checksum()
            segment.options
        except WireError:
            return
        self.host.receives(segment)

    def _answer_as_expected(self) -> None:
        """What a real host would say to the latest replay, which chance alone would seldom find."""
        for flow in list(self.agent.table.by_key.values()):
            if flow.handoff is None:
                continue
            handoff = flow.handoff
            stamps = b"" if handoff.tsval_sent is None else encode_timestamps(9, 0)
            first = seq_add(flow.identity.irs, 1)
            behind = seq_add(first, len(handoff.octets))
            for seq, ack, flags in ((SERVER_ISS, first, SYN | ACK), (SERVER_ISS + 1, behind, ACK)):
                self._leave(encode_segment(flow.leaving_key, SeqNum(seq), ack, flags, 500, stamps))

    # --- values near those that matter

    def _identity_at(self, key: ConnectionKey) -> Identity | None:
        flow = self.agent.table.by_key.get(key)
        return None if flow is None else flow.identity

    def _identity(self, record: Octets) -> Identity:
        client, which = record.choose(self.clients), record.number()
        if which < 128 or not self.identities:
            return client.identity
        return self.identities[which % len(self.identities)]

    def _lie(self) -> bool:
        answer, self.lies = self.lies & 1, self.lies >> 1
        return bool(answer)


def _iss_of(client: Client, base: int) -> SeqNum:
    """Connections whose streams overlap are told apart by these numbers, or no TCP could tell them apart."""
    return seq_add(SeqNum(base), (client.irs & 0xFFF) << 18)


_METHODS = methods(Life, Life.EVENTS)
