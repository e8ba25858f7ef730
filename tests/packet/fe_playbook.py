"""Scripts for the front end's core: `book >> stimulus << what must come of it`, time moved explicitly.

`>>` runs at once, so what stands behind it may use numbers the client has just learned. Actions that no `<<` looked at
fail the next `>>`: silence need not be written, noise must be. Every step checks the invariants of `fe_invariants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scapy.layers.inet import TCP

from tcpha.config import FrontEndConfig, load_front_end
from tcpha.fe.actions import Action, Forward, Note, Reply
from tcpha.fe.backends import HEAR_S
from tcpha.fe.dispatcher import Dispatcher
from tcpha.fe.flows import Flow
from tcpha.proto.cookie import Agreement, SynCookies
from tcpha.proto.icmp import decode_icmp_error, is_icmp
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Adopted, Capabilities, Handoff, Message, NodeState, Server, Status
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import ACK, RST, SYN, decode_segment
from tcpha.rules import Endpoint, Rule, RuleSet, parse_rule
from tests.packet.fe_client import CLIENT, GET, MASK, VIP, Client, dissect, tcp_options
from tests.packet.fe_invariants import Watch

BE1 = Endpoint(IPv4Address("198.18.0.33"), 666)
BE2 = Endpoint(IPv4Address("198.18.0.38"), 666)
KEYRING = Keyring((Key(1, bytes(range(32))),))
START = 1000.0
ROUNDING_S = 1e-9
UTC = 1_600_000_000
"""Begins a cookie period."""
PERIOD = UTC >> 5
EITHER = (parse_rule(f"{BE1.addr},{BE2.addr} .*"),)
"""A rule that allows a second back end."""
STACK = Capabilities(window_scale=7, sack=True, timestamps=True, mss=1460)

TEXT = """
raddr = 198.18.0.23
vaddr = 198.18.0.36
vaddr = 2001:db8:0:1::24
server = 198.18.0.33 666
server = 198.18.0.38 666
rule = 198.18.0.38 jpg$
rule = 198.18.0.33 .*
"""


@lru_cache
def front_end(settings: str = "") -> FrontEndConfig:
    """The configuration of `TEXT` with further lines, as the program would load it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tcphafe.conf"
        file.write_text(TEXT + settings)
        return load_front_end(file)


# --- stimuli that are no packets


@dataclass(frozen=True)
class After:
    """Time passes; the core is woken whenever it wanted to be."""

    seconds: float


@dataclass(frozen=True)
class Says:
    """A back end's message arrives."""

    backend: Endpoint
    message: Message
    restarted: bool = False


@dataclass(frozen=True)
class Verified:
    """A client's segment with its cookie, both of which somebody else has verified; without, if it has none."""

    packet: bytes


@dataclass(frozen=True)
class Lost:
    """A back end is silent for too long."""

    backend: Endpoint


@dataclass(frozen=True)
class Stop:
    """The front end goes."""


def lives(
    backend: Endpoint,
    stack: Capabilities | None = STACK,
    restarted: bool = False,
    state: NodeState = NodeState.UP,
    servers: tuple[Server, ...] = (),
    digest: bytes | None = None,
) -> Says:
    """A STATUS."""
    status = Status(7, 1, state, 0, digest or front_end().digest(), stack, servers)
    return Says(backend, status, restarted)


# --- expectations


@dataclass(frozen=True)
class Told:
    """The operator is told something that has `text` in it."""

    text: str

    def check(self, action: Action) -> None:
        assert isinstance(action, Note), action
        assert self.text in action.text


@dataclass(frozen=True)
class Packet:
    """A segment whose fields, as scapy reads them, are these; `backend` None: it goes to the client."""

    backend: Endpoint | None
    client: Client
    flags: str
    seq: int
    ack: int
    payload: bytes = b""
    window: int | None = None
    options: dict[str, Any] | None = None

    def check(self, action: Action) -> None:
        if self.backend is None:
            assert isinstance(action, Reply), action
        else:
            assert isinstance(action, Forward), action
            assert action.backend == self.backend
        got = dissect(action.packet)
        tcp, family = got[TCP], self.client.family
        ends = [(CLIENT[family], self.client.port), (VIP[family], 80)]
        assert [(got.src, tcp.sport), (got.dst, tcp.dport)] == (ends if self.backend else ends[::-1])
        seen = (str(tcp.flags), tcp.seq, tcp.ack, bytes(tcp.payload))
        assert seen == (self.flags, self.seq & MASK, self.ack & MASK, self.payload)
        assert self.window in (None, tcp.window)
        assert self.options in (None, tcp_options(got))


def gets(client: Client, flags: str, at: int = 0, acks: int = 0, payload: bytes = b"", **more: Any) -> Packet:
    """The client gets a segment: `at` octets behind the virtual server's first, acknowledging `acks` of its own."""
    return Packet(None, client, flags, client.iss + 1 + at, client.irs + 1 + acks, payload, **more)


def gets_rst(client: Client, at: int = 0) -> Packet:
    """The client gets a RST as one answers a segment that has an acknowledgement."""
    return Packet(None, client, "R", client.iss + 1 + at, 0, window=0)


def gets_syn_ack(client: Client, iss: int, **more: Any) -> Packet:
    return Packet(None, client, "SA", iss, client.irs + 1, **more)


def follows(client: Client, backend: Endpoint, payload: bytes, at: int, flags: str = "PA") -> Packet:
    """A back end gets a segment with the client's octets."""
    stamps = {"Timestamp": (client.tsval, client.tsecr)} if client.stamps else {}
    return Packet(backend, client, flags, client.irs + 1 + at, client.iss + 1, payload, client.window, stamps)


def handoff(client: Client, octets: bytes, **other: Any) -> Handoff:
    """The HANDOFF of a client that offered `LINUX_SYN`; `other` says what differs."""
    fields: dict[str, Any] = {
        "identity": client.identity,
        "agreement": Agreement(1460, 7, True),
        "promised_window_scale": 7,
        "window": client.window,
        "period": PERIOD,
        "tsval_sent": client.tsecr if client.stamps else None,
        "tsval_client": client.tsval if client.stamps else 0,
        "confirm": True,
        "acknowledged": None,
        "octets": octets,
    }
    return Handoff(**(fields | other))


class Anything:
    """Whatever came is right."""


nothing: tuple[Action, ...] = ()
anything = Anything()
Expected = Action | Told | Packet
Stimulus = bytes | Verified | After | Says | Lost | Stop


class Playbook:
    """One front end and the clock it lives by."""

    def __init__(
        self,
        settings: str = "",
        rules: Sequence[Rule] | None = None,
        up: Sequence[Endpoint] = (BE1, BE2),
        keyring: Keyring = KEYRING,
        mtu_octets: int = 1500,
        just_begun: bool = False,
    ) -> None:
        """`just_begun`: the process is so young that back ends may not have been heard of yet."""
        self.config = front_end(settings)
        rule_set = RuleSet(rules or self.config.rule, self.config.server, self.config.match_time)
        self.dispatcher = Dispatcher(self.config, SynCookies(keyring), rule_set, mtu_octets)
        self.now = START
        self.actions: list[Action] = []
        self.at: list[float] = []
        """When each of `actions` came, in seconds since the stimulus began."""
        self.refusals: list[str] = []
        """Lines about clients that were refused: they come seconds later, so a script need not expect them."""
        self._checked = True
        self._watch = Watch(self.dispatcher, self.config)
        self._clients: dict[tuple[int, int], Client] = {}
        self.dispatcher.on_utc(self.utc, self.now)
        self.dispatcher.on_timer(self.now if just_begun else self.now - HEAR_S)
        self.dispatcher.on_timer(self.now)
        for backend in up:
            _ = self >> lives(backend) << anything

    @property
    def utc(self) -> float:
        return UTC + self.now - START

    def client(self, family: int = 4, **more: Any) -> Client:
        """A client that hears what is sent to its port; a later one on the same port takes over."""
        client = Client(family, **more)
        self._clients[family, client.port] = client
        return client

    def connected(self, family: int = 4, **more: Any) -> Client:
        """A client whose handshake is done."""
        client = self.client(family, **more)
        _ = self >> client.syn() << anything >> client.ack() << nothing
        return client

    def handing(self, client: Client, octets: bytes = GET) -> Flow:
        """The client's request is handed to the back end that the rules choose, which has not answered."""
        _ = self >> client.sends(octets) << anything
        return self.flow(client)

    def adopted(self, client: Client, octets: bytes = GET) -> Flow:
        """The client's request is handed over, and the back end has adopted."""
        flow = self.handing(client, octets)
        _ = self >> Says(holder(flow), Adopted(flow.identity, seq_add(flow.identity.irs, 1 + len(octets)))) << nothing
        return flow

    def flow(self, client: Client) -> Flow:
        return self.dispatcher.table.by_key[client.key]

    def knows(self, client: Client) -> bool:
        return client.key in self.dispatcher.table.by_key

    def __rshift__(self, stimulus: Stimulus) -> Playbook:
        assert self._checked or not self.actions, f"nobody expected {self.actions}"
        self.actions, self.at, self._checked = [], [], False
        if isinstance(stimulus, After):
            self._pass_time(stimulus.seconds)
        else:
            self._take(self._perform(stimulus), stimulus, 0.0)
        return self

    def __lshift__(self, expected: Expected | Sequence[Expected] | Anything) -> Playbook:
        self._checked = True
        if isinstance(expected, Anything):
            return self
        wanted = list(expected) if isinstance(expected, Sequence) else [expected]
        assert len(self.actions) == len(wanted), f"{self.actions} instead of {wanted}"
        for action, each in zip(self.actions, wanted, strict=True):
            if isinstance(each, Told | Packet):
                each.check(action)
            else:
                assert action == each
        return self

    def _perform(self, stimulus: bytes | Verified | Says | Lost | Stop) -> Sequence[Action]:
        dispatcher = self.dispatcher
        match stimulus:
            case bytes() if is_icmp(stimulus):
                return dispatcher.on_icmp_error(decode_icmp_error(stimulus), self.now)
            case bytes():
                return dispatcher.on_segment(decode_segment(stimulus), self.now)
            case Verified(packet):
                segment = decode_segment(packet, is_checked=True)
                cookie = dispatcher._cookie_of(segment) if segment.end > segment.payload_offset else None
                if cookie is None or segment.flags & (SYN | RST | ACK) != ACK:
                    return dispatcher.on_segment(segment, self.now)
                return dispatcher.on_verified(segment, cookie, self.now)
            case Says(backend, Status() as status, restarted):
                return dispatcher.on_status(backend, status, restarted, self.now)
            case Says(backend, message):
                return dispatcher.on_message(backend, message, self.now)
            case Lost(backend):
                return dispatcher.on_lost(backend, self.now)
            case Stop():
                return dispatcher.on_stop(self.now)

    def _pass_time(self, seconds: float) -> None:
        began, target = self.now, self.now + seconds
        while (due := self.dispatcher.next_deadline()) <= target + ROUNDING_S:
            self.now = max(self.now, due)
            self.dispatcher.on_utc(self.utc, self.now)
            self._take(self.dispatcher.on_timer(self.now), None, self.now - began)
        self.now = target
        self.dispatcher.on_utc(self.utc, self.now)

    def _take(self, actions: Sequence[Action], stimulus: Stimulus | None, at: float) -> None:
        told = [each for each in actions if isinstance(each, Note) and each.text.startswith("refusals and limits: ")]
        self.refusals += [each.text for each in told]
        self.actions += [each for each in actions if each not in told]
        self.at += [at] * (len(actions) - len(told))
        for action in actions:
            if isinstance(action, Reply) and (client := self._listener(action.packet)) is not None:
                client.hears(action.packet)
        packet = (
            stimulus.packet if isinstance(stimulus, Verified) else stimulus if isinstance(stimulus, bytes) else None
        )
        if isinstance(stimulus, Says) and stimulus.restarted:
            self._watch.restarted(stimulus.backend)
        said, by = (stimulus.message, stimulus.backend) if isinstance(stimulus, Says) else (None, None)
        self._watch.check(actions, packet, said, by)

    def _listener(self, packet: bytes) -> Client | None:
        family = packet[0] >> 4
        start = 22 if family == 4 else 42
        return self._clients.get((family, int.from_bytes(packet[start : start + 2], "big")))


def holder(flow: Flow) -> Endpoint:
    assert flow.backend is not None
    return flow.backend
