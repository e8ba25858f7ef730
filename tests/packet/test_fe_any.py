"""Whatever arrives, in whatever state: nothing but WireError is raised, and the invariants of `fe_invariants` hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.errors import WireError
from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Adopted, Closed, Flows, Identity, NodeState, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import decode_segment
from tests.packet.fe_client import GET, GET_JPG, LINUX_SYN, MASK, PLAIN_SYN, POST, Client
from tests.packet.fe_playbook import BE1, BE2, EITHER, After, Lost, Playbook, Says, Stimulus, Stop, anything, lives

TIGHT = "max_flows = 2\nmax_finished = 2\nmax_reading = 1\nmax_queries = 1\nidle_time = 2s\nfinished_time = 3s"
FLAGS = ("A", "PA", "FA", "RA", "R", "S", "SA", "SF", "", "F", "FPU", "SEC", "PAU")
OCTETS = (b"", b"", GET, GET_JPG, POST, GET[:7], b"\r\r\r\r", b"x", b"GET / HTTP/1.0\r\n\r\n", b"z" * 1400)


# --- any octets


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_any_octets_raise_only_wire_errors(octets: bytes) -> None:
    book = Playbook()
    try:
        book >> octets << anything
    except WireError:
        assert len(book.dispatcher.table) == 0


SEEDS = [
    packet
    for family in (4, 6)
    for client in (Client(family), Client(family, offers=[]))
    for packet in (client.syn(), client.ack(), client.sends(GET), client.fin(payload=GET[:3]), client.rst())
]


@settings(max_examples=400)
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=6), st.integers(0, 8)
)
def test_any_damaged_packet_raises_only_wire_errors(seed: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    book = Playbook()
    packet = bytearray(seed)
    for at, octet in damage:
        packet[at % len(packet)] = octet
    try:
        book >> bytes(packet[: len(packet) - cut]) << anything
    except WireError:
        assert len(book.dispatcher.table) == 0


@given(st.binary(min_size=40, max_size=40), st.binary(max_size=30))
def test_any_options_and_octets_in_a_flow_raise_only_wire_errors(options: bytes, payload: bytes) -> None:
    book = Playbook()
    client = book.connected()
    book >> client.sends(GET[:9]) << anything
    packet = bytearray(client.sends(payload, 9, options=[]))
    packet[40:40] = options
    packet[32] = 0xF0
    packet[2:4] = len(packet).to_bytes(2, "big")
    try:
        book >> bytes(packet) << anything
    except WireError:
        assert book.knows(client)
    assert decode_segment(bytes(packet)).payload == payload


# --- any sequence


@dataclass
class Life:
    """Three clients on three ports of one address, both back ends, and time, all of them unreasonable."""

    book: Playbook
    random: Random
    clients: list[Client] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)

    def note(self) -> None:
        """Remember which identities there were: messages about them may come at any time."""
        for flow in self.book.dispatcher.table.by_key.values():
            if flow.identity not in self.identities:
                self.identities.append(flow.identity)

    def beginning(self) -> Stimulus:
        """Another connection on one of the ports; the SYN may be the only thing that ever comes of it."""
        number = self.random.randrange(len(self.clients))
        old = self.clients[number]
        irs = self.random.choice((old.irs, old.irs, 1000, MASK - 3, self.random.randrange(MASK)))
        offers = self.random.choice((LINUX_SYN, PLAIN_SYN, []))
        self.clients[number] = self.book.client(old.family, port=old.port, irs=irs, offers=offers, iss=old.iss)
        return self.clients[number].syn()

    def ordinary(self) -> Stimulus:
        """What a client might well send."""
        client = self.random.choice(self.clients)
        heard = len(client.octets) + 1 if client.octets else 0
        head = self.random.choice((GET, GET_JPG, POST, b"\r\r\r\r"))
        cut = self.random.choice((1, 7, len(head)))
        far, ack, fin = (self.random.choice(each) for each in ((0, 7, len(GET)), (0, 7, len(head)), (0, 3)))
        kind = self.random.choice(("first", "first", "rest", "more", "ack", "heard", "fin", "rst", "probe"))
        match kind:
            case "first":
                return client.sends(head[:cut])
            case "rest":
                return client.sends(head[7:], 7)
            case "more":
                return client.sends(GET, len(GET))
            case "ack":
                return client.ack(ack, heard)
            case "heard":
                return client.ack(len(GET), 500)
            case "fin":
                return client.fin(far, heard, head[:fin])
            case "rst":
                return client.rst(far)
            case _:
                return client.probe()

    def odd(self) -> Stimulus:
        """What hardly any client would send."""
        client, choice = self.random.choice(self.clients), self.random.choice
        at = choice((0, 7, -1, len(GET), len(GET) + 1, 1400, 70000, 1 << 31))
        acks = choice((0, 0, 1, 119, 120, 121, 5000, -1))
        if choice(range(4)) == 0:
            return client.icmp_error(acks)
        return client.sends(choice(OCTETS), at, acks, choice(FLAGS))

    def message(self) -> Stimulus:
        """A back end's message, about a flow that it may hold or not."""
        choice = self.random.choice
        held = [flow.identity for flow in self.book.dispatcher.table.by_key.values() if flow.state is FlowState.HANDING]
        identity = choice(held or [*self.identities[-4:], choice(self.clients).identity])
        flow = self.book.dispatcher.table.by_key.get(identity.key)
        other = choice((BE1, BE2))
        owner = flow.backend if flow is not None and flow.backend is not None else other
        by = choice((owner, owner, owner, other))
        rcv_nxt = seq_add(identity.irs, choice((1, 8, len(GET) + 1, 5000)))
        return choice(
            (
                Says(by, Adopted(identity, rcv_nxt)),
                Says(by, Adopted(identity, rcv_nxt)),
                Says(by, Refused(identity, choice(list(Reason)))),
                Says(by, Closed((identity,))),
                Says(owner, Flows((), (identity.key,))),
                Says(other, Flows((Identity(identity.key, SeqNum(5), SeqNum(6)),))),
                lives(other, restarted=choice((False, True)), state=choice((NodeState.UP, NodeState.DRAINING))),
                lives(other),
                lives(other),
                Lost(other),
            )
        )

    def pause(self) -> Stimulus:
        return After(self.random.choice((0.001, 0.011, 0.011, 0.05, 0.2, 0.45, 1.0, 4.0, 11.0, 33.0)))

    def step(self) -> None:
        kinds = (self.beginning, self.ordinary, self.odd, self.message, self.pause)
        (kind,) = self.random.choices(kinds, (2, 6, 1, 2, 2))
        self.book >> kind() << anything
        self.note()


def run(random: Random, steps: int) -> Playbook:
    """Live for some steps, then die; every step is checked by the playbook."""
    book = Playbook(TIGHT, rules=random.choice((None, EITHER)))
    family = random.choice((4, 6))
    life = Life(book, random, [book.client(family, port=port) for port in (41000, 41002, 41004)])
    for client in life.clients:
        book >> client.syn() << anything
    for _ in range(steps):
        life.step()
    book >> After(100) << anything >> After(100) << anything
    book >> Stop() << anything
    assert book.dispatcher.table.live == 0
    return book


@settings(max_examples=60)
@given(st.randoms(use_true_random=True), st.integers(0, 50))
def test_any_sequence_keeps_the_invariants(random: Random, steps: int) -> None:
    run(random, steps)


RARE = {
    "icmp_errors",
    "malformed",
    "fragments",
    "extra_headers",
    "unexpected_messages",
    "orphaned",
    "timed_out",
    "resets",
    "older_generations",
    *(f"answered_{kind}" for kind in ("408", "414", "431", "505", "alert", "goaway")),
}


def test_sequences_reach_nearly_everything_that_is_counted() -> None:
    counted: Counter[str] = Counter()
    for seed in range(25):
        counted.update(asdict(run(Random(seed), 80).dispatcher.counters))
    assert {name for name, number in counted.items() if number == 0} <= RARE
