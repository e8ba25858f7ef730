"""Any way to cut, order, repeat and lose a client's segments gives the same choice and the same octets at the server.

The client repeats what nobody acknowledged; the server is a reassembler behind a back end that drops what comes before
its HANDOFF, and whose first answers are lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from tcpha.fe.actions import Action, Forward, PassOn, Reply, Send
from tcpha.proto.messages import Adopted, Handoff
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.rules import Endpoint
from tests.packet.fe_client import GET, GET_JPG, LINUX_SYN, MASK, PLAIN_SYN, Client, dissect
from tests.packet.fe_playbook import BE1, BE2, After, Playbook, Says, anything

SEGMENT = 1000
ROUNDS = 60


@dataclass
class Server:
    """The TCP receivers behind both back ends."""

    client: Client
    lost_handoffs: int
    lost_answers: int
    holder: Endpoint | None = None
    octets: bytearray = field(default_factory=bytearray)
    early: dict[int, bytes] = field(default_factory=dict)

    def takes(self, at: int, payload: bytes) -> None:
        self.early[at] = max(self.early.get(at, b""), payload, key=len)
        for offset, piece in sorted(self.early.items()):
            if offset <= len(self.octets):
                overlap = self.octets[offset : offset + len(piece)]
                assert bytes(overlap) == piece[: len(overlap)]
                self.octets += piece[len(overlap) :]

    def hears(self, actions: list[Action], packet: bytes | None) -> list[Says]:
        answers: list[Says] = []
        for action in actions:
            match action:
                case Send(backend, Handoff() as message):
                    answers += self._adopts(backend, message)
                case PassOn(backend) if packet is not None and self.holder is not None:
                    self._carries(backend, packet)
                case Forward(backend, forwarded) if self.holder is not None:
                    self._carries(backend, forwarded)
                case _:
                    pass
        return answers

    def _carries(self, backend: Endpoint, packet: bytes) -> None:
        assert backend == self.holder
        tcp = dissect(packet)[TCP]
        self.takes((tcp.seq - self.client.irs - 1) & MASK, bytes(tcp.payload))

    def _adopts(self, backend: Endpoint, message: Handoff) -> list[Says]:
        if self.lost_handoffs:
            self.lost_handoffs -= 1
            return []
        assert self.holder in (None, backend)
        self.holder = backend
        assert message.identity == self.client.identity
        self.takes(0, message.octets)
        if self.lost_answers:
            self.lost_answers -= 1
            return []
        return [Says(backend, Adopted(message.identity, seq_add(message.identity.irs, 1 + len(self.octets))))]


@dataclass
class Run:
    """One connection from its SYN to the last octet at the server."""

    book: Playbook
    client: Client
    server: Server
    octets: bytes
    acknowledged: int = 0

    def step(self, stimulus: bytes | After | Says) -> None:
        self.book >> stimulus << anything
        actions = list(self.book.actions)
        for action in actions:
            if isinstance(action, Reply):
                tcp = dissect(action.packet)[TCP]
                assert str(tcp.flags) == "A"
                self.acknowledged = max(self.acknowledged, (tcp.ack - self.client.irs - 1) & MASK)
        for answer in self.server.hears(actions, stimulus if isinstance(stimulus, bytes) else None):
            self.step(answer)
        if self.server.holder is not None:
            # the server's own acknowledgements reach the client directly
            self.acknowledged = max(self.acknowledged, len(self.server.octets))

    def send(self, start: int, end: int) -> None:
        self.step(self.client.sends(self.octets[start:end], start))

    def finish(self) -> None:
        """Repeat what is not acknowledged until the server has it all."""
        for _ in range(ROUNDS):
            if self.server.octets == self.octets:
                return
            for start in range(self.acknowledged, len(self.octets), SEGMENT):
                self.send(start, min(start + SEGMENT, len(self.octets)))
            self.step(After(0.08))


@st.composite
def schedules(draw: st.DrawFn, length: int) -> list[tuple[int, int, float]]:
    """Pieces of the stream in any order, each with a pause behind it."""
    cuts = sorted({0, length, *draw(st.lists(st.integers(1, length - 1), max_size=6))})
    pieces = [(low, min(high, low + SEGMENT)) for low, high in pairwise(cuts)]
    overlapping = draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(1, 400)), max_size=3))
    pieces += [(start, min(start + size, length)) for start, size in overlapping]
    order = draw(st.permutations(pieces + draw(st.lists(st.sampled_from(pieces), max_size=3))))
    pauses = st.sampled_from((0.0, 0.0, 0.001, 0.011, 0.06))
    return [(start, end, draw(pauses)) for start, end in order]


@settings(max_examples=120)
@given(st.data())
def test_any_arrival_gives_one_choice_and_all_octets(data: st.DataObject) -> None:
    head, backend = data.draw(st.sampled_from([(GET, BE1), (GET_JPG, BE2)]))
    octets = head + bytes(range(256)) * data.draw(st.integers(0, 12))
    irs = data.draw(st.sampled_from((1000, MASK, MASK - 20, MASK - 1500, 0x7FFFFFF0)))
    book = Playbook()
    client = book.connected(
        data.draw(st.sampled_from((4, 6))), irs=irs, offers=data.draw(st.sampled_from((LINUX_SYN, PLAIN_SYN)))
    )
    server = Server(client, data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1)))
    run = Run(book, client, server, octets)
    for start, end, pause in data.draw(schedules(len(octets))):
        run.send(start, end)
        if pause:
            run.step(After(pause))
    run.finish()
    assert bytes(server.octets) == octets
    assert server.holder == backend
    assert book.dispatcher.counters.handoffs == 1
    assert client.identity.irs == SeqNum(irs)


@settings(max_examples=60)
@given(st.integers(1, len(GET) - 1), st.integers(1, len(GET) - 1), st.booleans(), st.permutations((0, 1, 2)))
def test_any_three_pieces_in_any_order_give_the_same_handoff(
    first: int, second: int, is_late: bool, order: list[int]
) -> None:
    book = Playbook()
    client = book.connected()
    cuts = [0, *sorted((first, second)), len(GET)]
    server = Server(client, 0, 0)
    run = Run(book, client, server, GET)
    for index in (*order, 0, 1, 2):
        if cuts[index] < cuts[index + 1]:
            run.send(cuts[index], cuts[index + 1])
        if is_late:
            run.step(After(0.02))
    run.finish()
    assert (bytes(server.octets), server.holder) == (GET, BE1)
