"""The handoff channel of a running cluster, attacked from its segment: recorded, forged and damaged datagrams.

The attacker sits in the client's place, hears everything and sends with any source address; the secret is not his. What
he sends may change counters, and nothing else: no request reaches a server, no connection ends, no peer is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

from tcpha.lab.capture import capturing
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tcpha.proto.handoff import Envelope, HandoffCodec, Type
from tcpha.proto.keyring import Key, Keyring
from tests.cluster import forgery
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, get, post
from tests.cluster.engine_sight import await_no_flows, counters, log_lines

pytestmark = pytest.mark.cluster

PORT = 666
LIMIT_S = 10.0
FLOWS = ("flows", "handoffs", "repeats", "adopted", "refused", "closed", "late_duplicates")
"""What a message that is believed would change at either end."""
TO_BACK_END = (Type.HANDOFF, Type.STATUS)
TO_FRONT_END = (Type.ADOPTED, Type.CLOSED, Type.STATUS)
THIEF = Keyring((Key(1, os.urandom(32)),))


@dataclass(frozen=True, slots=True)
class Datagram:
    """A recorded message between a front end and a back end."""

    source: str
    target: str
    octets: bytes

    @property
    def type(self) -> Type:
        return Type(self.octets[19])


@pytest.fixture(scope="module")
def lab(_machine: None) -> Iterator[Lab]:
    """A cluster of its own: it is attacked, and its nodes are restarted."""
    with engine_lab() as standing:
        yield standing


@pytest.fixture
def recorded(lab: Lab, tmp_path: Path) -> list[Datagram]:
    """Every message of two connections to the first back end, one with an acknowledged head, from HANDOFF to CLOSED."""
    await_no_flows(lab)
    with capturing([lab.fe], f"udp port {PORT}") as captures:
        mark = tmp_path.name
        with Conversation.open(lab, "ipv4") as client:
            assert client.ask(get(f"/1?{mark}")).node == "be1"
        with Conversation.open(lab, "ipv4") as client:
            whole = post(b"once", "X-Mark: " + mark)
            client.send(whole[:30])
            client.await_acknowledged()
            client.send(whole[30:])
            assert client.answer().status == 200
        await_no_flows(lab)
        fe, be = str(lab.fe.ipv4), str(lab.backends[0].ipv4)
        wanted = {(kind, be) for kind in TO_BACK_END} | {(kind, fe) for kind in TO_FRONT_END}
        assert wait_until(lambda: wanted <= {(each.type, each.target) for each in datagrams(captures[0].file)}, LIMIT_S)
    return [each for each in datagrams(captures[0].file) if str(lab.backends[0].ipv4) in (each.source, each.target)]


def datagrams(file: Path) -> list[Datagram]:
    found = (packet for packet in rdpcap(str(file)) if packet.haslayer(UDP))
    return [Datagram(packet[IP].src, packet[IP].dst, bytes(packet[UDP].payload)) for packet in found]


def node_at(lab: Lab, address: str) -> Node:
    return next(node for node in (lab.fe, *lab.backends) if str(node.ipv4) == address)


def attack(lab: Lab, target: Node, octets: Sequence[bytes], *, source: str, port: int = PORT) -> None:
    """Send datagrams to a node's handoff port as if they came from a source address."""
    network = IP(src=source, dst=str(target.ipv4))
    forgery.send(lab, [network / UDP(sport=port, dport=PORT) / each for each in octets], target)


def await_counted(node: Node, before: dict[str, Any], name: str, times: int) -> None:
    """Wait until a counter of a node's channel is so much higher than before."""
    wanted = before["channel"][name] + times
    assert wait_until(lambda: counters(node)["channel"][name] >= wanted, LIMIT_S), (name, counters(node)["channel"])


class Unchanged:
    """Takes note of a cluster at rest, and later sees that nothing but the channel's counters has changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        await_no_flows(lab)
        self._before = self._sight()

    def _sight(self) -> dict[str, Any]:
        shown = {node.name: counters(node) for node in (self._lab.fe, *self._lab.backends)}
        seen: dict[str, Any] = {name: {key: each[key] for key in FLOWS} for name, each in shown.items()}
        seen |= {f"{name} peers": each["peers"] for name, each in shown.items()}
        return seen | {f"{node.name} requests": len(log_lines(node, '"')) for node in self._lab.backends}

    def check(self) -> None:
        assert self._sight() == self._before
        with Conversation.open(self._lab, "ipv4") as client:
            assert client.ask(get("/1")).node == "be1"
        with Conversation.open(self._lab, "ipv4") as client:
            assert client.ask(get("/1k.jpg")).node == "be2"


def await_serving(lab: Lab) -> None:
    """Wait until the front end hears all back ends and they hear it."""
    nodes = (lab.fe, *lab.backends)
    assert wait_until(lambda: all(set(counters(node)["peers"].values()) == {"up"} for node in nodes), LIMIT_S, 0.1)


# Recorded


def test_recorded_messages_sent_again_are_replays_and_change_nothing(lab: Lab, recorded: list[Datagram]) -> None:
    unchanged = Unchanged(lab)
    for node in (lab.backends[0], lab.fe):
        mine = [each for each in recorded if each.target == str(node.ipv4)]
        before = counters(node)
        for each in mine:
            attack(lab, node, [each.octets] * 3, source=each.source)
        await_counted(node, before, "replays", 3 * len(mine))
    unchanged.check()


@pytest.mark.parametrize("restarted", ["be1", "fe"])
def test_recorded_messages_sent_again_after_a_restart_are_stale_and_change_nothing(
    lab: Lab, recorded: list[Datagram], restarted: str
) -> None:
    lab.node(restarted).engine.restart()
    await_serving(lab)
    unchanged = Unchanged(lab)
    for node in (lab.backends[0], lab.fe):
        mine = [each for each in recorded if each.target == str(node.ipv4)]
        before = counters(node)
        for each in mine:
            attack(lab, node, [each.octets], source=each.source)
        await_counted(node, before, "stale_epochs", len(mine))
    unchanged.check()


def test_recorded_handoff_sent_to_another_back_end_is_stale(lab: Lab, recorded: list[Datagram]) -> None:
    unchanged = Unchanged(lab)
    other = lab.backends[1]
    handoffs = [each.octets for each in recorded if each.type is Type.HANDOFF]
    assert handoffs
    before = counters(other)
    attack(lab, other, handoffs, source=str(lab.fe.ipv4))
    await_counted(other, before, "stale_epochs", len(handoffs))
    unchanged.check()


def test_recorded_handoff_sent_from_the_own_address_is_a_strangers(lab: Lab, recorded: list[Datagram]) -> None:
    unchanged = Unchanged(lab)
    node = lab.backends[0]
    handoffs = [each.octets for each in recorded if each.type is Type.HANDOFF]
    before = counters(node)
    attack(lab, node, handoffs, source=str(lab.client.ipv4))
    attack(lab, node, handoffs, source=str(lab.fe.ipv4), port=PORT + 1)
    await_counted(node, before, "strangers", 2 * len(handoffs))
    unchanged.check()


def test_recorded_messages_sent_back_to_their_sender_are_refused(lab: Lab, recorded: list[Datagram]) -> None:
    unchanged = Unchanged(lab)
    before = counters(lab.fe)
    sent = [each for each in recorded if each.source == str(lab.fe.ipv4)]
    attack(lab, lab.fe, [each.octets for each in sent], source=str(lab.backends[0].ipv4))
    statuses = sum(each.type is Type.STATUS for each in sent)
    await_counted(lab.fe, before, "duplicate_ids", statuses)
    await_counted(lab.fe, before, "strangers", len(sent) - statuses)
    unchanged.check()


# Damaged and forged


def test_damaged_messages_are_counted_and_change_nothing(lab: Lab, recorded: list[Datagram]) -> None:
    unchanged = Unchanged(lab)
    node = lab.backends[0]
    handoff = next(each for each in recorded if each.type is Type.HANDOFF)
    whole = handoff.octets
    cut = [whole[:length] for length in range(0, len(whole), 3)]
    flipped = [whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    garbage = [os.urandom(length) for length in range(0, 1400, 20)]
    longer = [whole + b"GET /other HTTP/1.1\r\n\r\n", whole + bytes(1400 - len(whole))]
    sent = [*cut, *flipped, *garbage, *longer]
    before = counters(node)
    attack(lab, node, sent, source=handoff.source)

    def counted() -> int:
        channel = counters(node)["channel"]
        return sum(int(channel[name] - before["channel"][name]) for name in ("malformed", "unauthentic"))

    assert wait_until(lambda: counted() == len(sent), LIMIT_S), (counted(), len(sent))
    unchanged.check()


def test_forged_messages_with_another_key_are_not_authentic_and_change_nothing(
    lab: Lab, recorded: list[Datagram]
) -> None:
    """The thief knows epochs and sequence numbers, which are readable, and lacks only the key."""
    unchanged = Unchanged(lab)
    codec = HandoffCodec(Keyring((Key(1, secret_of(lab)),)))
    for node in (lab.backends[0], lab.fe):
        mine = [each for each in recorded if each.target == str(node.ipv4)]
        forged = []
        for each in mine:
            envelope, message = codec.decode(each.octets)
            fresh = Envelope(envelope.sender, envelope.epoch, envelope.sequence + 1000)
            forged.append(HandoffCodec(THIEF).encode(fresh, message))
        before = counters(node)
        attack(lab, node, forged, source=mine[0].source)
        await_counted(node, before, "unauthentic", len(forged))
    unchanged.check()


def test_flood_of_forged_messages_requests_are_served_meanwhile(lab: Lab, recorded: list[Datagram]) -> None:
    node = lab.backends[0]
    handoff = next(each for each in recorded if each.type is Type.HANDOFF)
    forged = [bytes(16) + handoff.octets[16:]] * 2000
    before = counters(node)
    for _ in range(5):
        attack(lab, node, forged, source=handoff.source)
        with Conversation.open(lab, "ipv4") as client:
            assert client.ask(get("/1?meanwhile")).node == "be1"
    await_counted(node, before, "unauthentic", 5 * len(forged))
    warnings = [line for line in node.engine.log.read_text().splitlines() if "do not authenticate" in line]
    assert 1 <= len(warnings) < 10
    assert set(counters(node)["peers"].values()) == {"up"}


def secret_of(lab: Lab) -> bytes:
    return bytes.fromhex((lab.directory / "secret").read_text().split()[1])
