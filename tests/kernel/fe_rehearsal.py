"""The front end's program and the front end's core beside each other: every packet goes to both, and both must agree.

What the program passes up it leaves as it is: then only the core has decided. Whatever else it does, the core must have
decided alike, to the octet. The core sees all packets, also those that it would not get, so both must also remember
alike.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address

from tcpha.config import FrontEndConfig
from tcpha.errors import WireError
from tcpha.fe.actions import Action, PassOn, Reply
from tcpha.fe.dispatcher import Dispatcher
from tcpha.fe.flows import Flow, FlowState
from tcpha.kernel.be_maps import encode_number
from tcpha.kernel.fe_maps import encode_config, encode_keys
from tcpha.lab import namespaces
from tcpha.net import clock
from tcpha.net.bpf_forwarder import Forwarder
from tcpha.proto.checksum import internet_checksum, ones_sum
from tcpha.proto.cookie import Cookie, SynCookies
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Adopted, Closed
from tcpha.proto.promise import Promise
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import decode_segment
from tcpha.proto.tunnel import Tunnel
from tcpha.rules import Endpoint, RuleSet
from tests.packet.fe_client import VIP, Client
from tests.packet.fe_playbook import BE1, BE2, UTC, front_end, lives

KEYRING = Keyring((Key(1, bytes(range(32))), Key(2, bytes(range(32, 64)))))
MTU = 1500
MACS = {BE1: bytes.fromhex("020000000033"), BE2: bytes.fromhex("020000000038")}
CLIENT_MAC = bytes.fromhex("020000000010")
OWN_MAC = bytes(6)
"""The loopback device's, at which the program is rehearsed."""
ETHER_OCTETS = 14
PASSED_UP, DROPPED, REDIRECTED = 0xFFFFFFFF, 2, 7

_CONTEXT_OCTETS = 192
_GSO_SEGS_OFFSET, _GSO_SIZE_OFFSET = 164, 176


@dataclass(frozen=True)
class Outcome:
    """What the program did with one packet."""

    verdict: int
    frame: bytes
    count: str
    """What was counted: one thing, or nothing for a packet that is none of its business."""
    is_raised: bool = False
    """It came up by the ring, from its IP header on."""
    cookie: Cookie | None = None
    """What was told with it."""

    @property
    def packet(self) -> bytes:
        return self.frame[ETHER_OCTETS:]


@dataclass(frozen=True)
class Decision:
    """What the core did with it."""

    actions: tuple[Action, ...]
    counted: tuple[str, ...]
    fault: WireError | None = None


def frame_of(packet: bytes) -> bytes:
    """A client's packet as it arrives."""
    return OWN_MAC + CLIENT_MAC + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


class Stage:
    """One program in a namespace; tests change what it is told."""

    def __init__(self) -> None:
        self.forwarder = Forwarder("lo", KEYRING, promise_of(front_end()), front_end().window)
        self.forwarder.set_targets([(ip_address(each).packed, 80) for each in VIP.values()])

    def configure(self, keyring: Keyring, promise: Promise, window_octets: int) -> None:
        maps = self.forwarder._maps
        maps["config"].update(encode_number(0), encode_config(OWN_MAC, promise, window_octets))
        for index, entry in enumerate(encode_keys(keyring)):
            maps["keys"].update(encode_number(index), entry)

    def run(self, frame: bytes, gso_octets: int = 0, gso_packets: int = 0) -> Outcome:
        before = self.forwarder.counters()
        context = bytearray(_CONTEXT_OCTETS)
        struct.pack_into("=I", context, _GSO_SEGS_OFFSET, gso_packets)
        struct.pack_into("=I", context, _GSO_SIZE_OFFSET, gso_octets)
        done = self.forwarder._loaded.programs["fe_ingress"].run(frame, bytes(context))
        after = self.forwarder.counters()
        counted = [name for name in after for _ in range(after[name] - before[name])]
        assert len(counted) <= 1, counted
        raised = self.forwarder.read()
        if not raised:
            return Outcome(done.returned, done.octets, counted[0] if counted else "")
        ((packet, cookie),) = raised
        assert done.returned == DROPPED
        assert counted[0].startswith("up_")
        return Outcome(PASSED_UP, frame[:ETHER_OCTETS] + packet, counted[0], True, cookie)


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """The program in a namespace of this name, and the calling thread in it."""
    namespaces.create(name)
    with ExitStack() as undo:
        undo.callback(namespaces.remove, name)
        undo.enter_context(namespaces.inside(name))
        standing = Stage()
        undo.callback(standing.forwarder.close)
        yield standing


def promise_of(config: FrontEndConfig) -> Promise:
    return Promise(config.mss, config.window_scale, config.sack, config.timestamps)


class Twins:
    """The program and the core of one front end. `accelerated`: flows are entered into the program's table."""

    def __init__(self, stage: Stage, settings: str = "", *, keyring: Keyring = KEYRING, utc_s: float = UTC) -> None:
        config = front_end(settings)
        self.stage = stage
        self.cookies = SynCookies(keyring)
        self.core = Dispatcher(config, self.cookies, RuleSet(config.rule, config.server, config.match_time), MTU)
        self.now = clock.now()
        self.tunnels: dict[Endpoint, Tunnel] = {}
        stage.configure(keyring, promise_of(config).fitted(self.core.carried_octets), config.window)
        forwarder = stage.forwarder
        forwarder.forget_all([each.identity.key for each in forwarder.flows()])
        for backend, mac in MACS.items():
            if config.forward == "tunnel":
                self.tunnels[backend] = Tunnel(config.raddr, backend.addr)
                forwarder.set_tunnel(
                    (backend.addr.packed, backend.port), config.raddr.packed, backend.addr.packed,
                    self.core.carried_octets,
                )  # fmt: skip
            else:
                forwarder.set_neighbour((backend.addr.packed, backend.port), mac)
        self.tell(utc_s)
        for backend in MACS:
            says = lives(backend, digest=config.digest())
            self.core.on_status(backend, says.message, False, self.now)  # type: ignore[arg-type]

    def tell(self, utc_s: float) -> None:
        """What time it is."""
        self.core.on_utc(utc_s, self.now)
        self.stage.forwarder.renew(utc_s, self.core.table.finished.period_floor)

    def flow(self, key: ConnectionKey) -> Flow | None:
        return self.core.table.by_key.get(key)

    # --- packets

    def see(self, packet: bytes) -> tuple[Outcome, Decision]:
        """A packet arrives. Both must agree, and remember alike; then the table is told what the core made of it."""
        outcome = self.stage.run(frame_of(packet))
        decision = self._decide(packet)
        self._agree(packet, outcome, decision)
        self._remember(packet, outcome)
        return outcome, decision

    def _decide(self, packet: bytes) -> Decision:
        before = asdict(self.core.counters)
        fault: WireError | None = None
        actions: tuple[Action, ...] = ()
        try:
            actions = tuple(self.core.on_segment(decode_segment(packet), self.now))
        except WireError as error:
            fault = error
        after = asdict(self.core.counters)
        return Decision(actions, tuple(name for name in after if after[name] != before[name]), fault)

    def _agree(self, packet: bytes, outcome: Outcome, decision: Decision) -> None:
        if outcome.verdict == PASSED_UP:
            self._agree_on_raised(packet, outcome)
            return
        assert decision.fault is None, (outcome.count, decision.fault)
        if outcome.verdict == DROPPED:
            assert decision.actions == (), outcome.count
            assert decision.counted == (outcome.count,)
            return
        assert outcome.verdict == REDIRECTED
        (action,) = decision.actions
        if outcome.count == "syns":
            assert isinstance(action, Reply)
            assert outcome.packet == action.packet
            assert outcome.frame[:12] == CLIENT_MAC + OWN_MAC
            assert decision.counted == ("syns",)
            return
        assert isinstance(action, PassOn)
        assert decision.counted == ("forwarded",)
        if outcome.count == "forwarded":
            assert outcome.packet == packet
            assert outcome.frame[:12] == MACS[action.backend] + OWN_MAC
        else:
            assert outcome.count == "tunnelled"
            assert unnumbered(outcome.packet) == self.tunnels[action.backend].wrap(decode_segment(packet).packet)

    def _agree_on_raised(self, packet: bytes, outcome: Outcome) -> None:
        """What goes up is as it came; by the ring nothing but segments with right checksums, without padding."""
        if not outcome.is_raised:
            assert outcome.frame == frame_of(packet)
            return
        segment = decode_segment(packet)
        assert outcome.packet == packet[: segment.end]
        segment.check_checksum()
        if outcome.cookie is not None:
            assert outcome.cookie == self.core._cookie_of(segment)

    def _remember(self, packet: bytes, outcome: Outcome) -> None:
        """The program recorded what the core remembers; after what was passed up it is told how things stand."""
        try:
            key = decode_segment(packet).key
        except WireError:
            return
        flow, known = self.flow(key), self.stage.forwarder.look_up(key)
        if outcome.verdict == PASSED_UP:
            self.enter(key)
        elif flow is not None and known is not None:
            assert (known.identity, known.noted) == (flow.identity, flow.noted)
            # Of what is not confirmed the program notes less than the core does once that knows better.
            if known.is_confirmed or (flow.state is FlowState.HANDING and not known.is_held):
                assert known.last_ack == flow.last_ack

    def enter(self, key: ConnectionKey) -> None:
        """Tell the program how the flow stands now."""
        flow, forwarder = self.flow(key), self.stage.forwarder
        if flow is None:
            forwarder.forget(key)
        elif flow.state is FlowState.FORWARDED and flow.backend is not None:
            backend = (flow.backend.addr.packed, flow.backend.port)
            forwarder.carry(flow.identity, backend, flow.period, flow.last_ack, flow.last_seen, flow.noted)
        elif flow.state is FlowState.HANDING and flow.backend is not None:
            backend = (flow.backend.addr.packed, flow.backend.port)
            forwarder.carry(
                flow.identity, backend, flow.period, flow.last_ack, flow.last_seen, flow.noted, confirmed=False
            )
        else:
            forwarder.hold_flow(flow.identity, flow.period, flow.last_ack, flow.last_seen, flow.noted)

    # --- whole connections

    def shake(self, client: Client) -> None:
        """The handshake, without its last ACK."""
        _, decision = self.see(client.syn())
        (action,) = decision.actions
        assert isinstance(action, Reply)
        client.hears(action.packet)

    def forward(self, client: Client, request: bytes) -> Endpoint:
        """A connection that a back end has; which one."""
        self.shake(client)
        self.see(client.sends(request))
        flow = self.flow(client.key)
        assert flow is not None
        assert flow.backend is not None
        backend = flow.backend
        client.octets += b"!"
        self.core.on_message(backend, Adopted(flow.identity, seq_add(flow.identity.irs, 1 + len(request))), self.now)
        assert flow.state is FlowState.FORWARDED
        self.enter(client.key)
        return backend

    def close(self, client: Client) -> None:
        """Its back end says that it is over."""
        flow = self.flow(client.key)
        assert flow is not None
        assert flow.backend is not None
        self.core.on_message(flow.backend, Closed((flow.identity,)), self.now)
        self.enter(client.key)


def unnumbered(packet: bytes) -> bytes:
    """An outer packet before it got its number, which the host's kernel gives to those that the front end sends."""
    if packet[0] >> 4 != 4:
        return packet
    assert ones_sum(packet[:20]) == 0
    header = packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:20]
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + packet[20:]
