"""What both roles have in common as processes: a defect costs a message, not the process, and the host is cleaned."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tcpha.config import FrontEndConfig, load_front_end
from tcpha.net import clock
from tcpha.net.channel import Channel
from tcpha.net.footprint import Plan, Role
from tcpha.node import Node
from tcpha.peers import OwnStatus, Peers
from tcpha.proto.handoff import HandoffCodec
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Message, NodeState, Status
from tcpha.rules import Endpoint
from tests.unit.channel_simulation import DIGEST, KEYRING, closed
from tests.unit.net.footprints import plan_of, traces_of
from tests.unit.net.namespaces import Host, pair, until

pytestmark = pytest.mark.cluster


class Fragile(Node):
    """A node whose core fails on every message, and at the end."""

    role: Role = "fe"

    def __init__(self, config: FrontEndConfig) -> None:
        self.messages: list[Message] = []
        self.statuses: list[Status] = []
        self.stopped = False
        super().__init__(config, KEYRING, config.server, self.own_status())

    def on_message(self, endpoint: Endpoint, message: Message, age_s: float, now: float) -> None:
        self.messages.append(message)
        raise ZeroDivisionError

    def on_status(self, endpoint: Endpoint, status: Status, restarted: bool, now: float) -> None:
        self.statuses.append(status)

    def on_lost(self, endpoint: Endpoint, now: float) -> None:
        pass

    def on_tick(self, now: float) -> float:
        return now + 1.0

    def on_stop(self, now: float) -> None:
        self.stopped = True
        raise ZeroDivisionError

    def on_leave(self) -> int:
        return 0

    def follow(self, is_other: bool) -> None:
        raise ZeroDivisionError

    def own_status(self) -> OwnStatus:
        return OwnStatus(NodeState.UP, 0, DIGEST)

    def counters(self) -> dict[str, Any]:
        return {}

    def installed(self) -> None:
        self.loop.stop()


class Neighbour:
    """The other end of the channel, by hand."""

    def __init__(self, own: Host, other: Host, keyring: Keyring = KEYRING, sender_id: int = 2) -> None:
        self._target = (str(other.addr4), 666)
        self.peers = Peers(
            [self._target], HandoffCodec(keyring), OwnStatus(NodeState.UP, 0, DIGEST), sender_id=sender_id, nonce=5,
            draw_epoch=lambda: 77, status_time_s=0.25, dead_time_s=1.0,
        )  # fmt: skip
        with own.inside():
            self.channel = Channel(own.addr4, 666)

    def exchange(self, node: Fragile) -> bool:
        """Let both ends do what is due, once; True, to stand in a condition."""
        now = clock.now()
        for datagram, source, _ in self.channel.read():
            self.peers.on_datagram(datagram, source, now)
        self.peers.on_timer(now)
        for datagram, address in self.peers.outbox:
            self.channel.send(datagram, address)
        self.peers.outbox.clear()
        node._on_timer()
        node._on_channel()
        return True

    def say(self, number: int) -> None:
        datagram = self.peers.seal(self.peers.by_address[self._target], closed(number))
        assert datagram is not None
        self.channel.send(datagram, self._target)

    def close(self) -> None:
        self.channel.close()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@pytest.fixture
def node(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[Fragile]:
    own, other = hosts
    file = tmp_path / "tcphafe.conf"
    lines = (f"raddr = {own.addr4}", f"server = {other.addr4} 666", "vaddr = 10.77.0.100", "id = 1")
    file.write_text("\n".join((*lines, f"rule = {other.addr4} .*", f"state = {tmp_path / 'state'}", "")))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with own.inside():
        made = Fragile(load_front_end(file))
    yield made
    made._channel.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


def test_core_fails_on_messages_they_are_counted_and_the_channel_goes_on(
    hosts: tuple[Host, Host], node: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Neighbour(hosts[1], hosts[0])) as neighbour:
        until(lambda: neighbour.exchange(node) and bool(node.statuses) and all_up(neighbour))
        for number in range(5):
            neighbour.say(number)
        heard = len(node.statuses)
        until(lambda: neighbour.exchange(node) and len(node.messages) == 5 and len(node.statuses) > heard)
    with caplog.at_level(logging.INFO, "tcpha"):
        node._log_counters()
    assert '"channel_faults": 5' in caplog.text
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 1


@pytest.mark.parametrize(
    ("keyring", "sender_id", "said"),
    [
        (
            Keyring((Key(1, bytes(32)),)),
            2,
            "from 10.77.0.2 do not authenticate: does it have the same secret?",
        ),
        (KEYRING, 1, "10.77.0.2 has the id of another node"),
    ],
)
def test_peer_that_is_refused_often_an_operator_is_told_once(
    hosts: tuple[Host, Host],
    node: Fragile,
    caplog: pytest.LogCaptureFixture,
    keyring: Keyring,
    sender_id: int,
    said: str,
) -> None:
    with closing(Neighbour(hosts[1], hosts[0], keyring, sender_id)) as neighbour:
        counters = node._peers.counters
        until(lambda: neighbour.exchange(node) and counters.unauthentic + counters.duplicate_ids >= 3)
    assert caplog.text.count(said) == 1
    assert counters.accepted == 0


def test_core_fails_at_the_end_the_host_is_cleaned_all_the_same(hosts: tuple[Host, Host], node: Fragile) -> None:
    traces = traces_of(hosts[0])
    plan: Plan = plan_of(hosts[0])
    with hosts[0].inside(), pytest.raises(ZeroDivisionError):
        node.run(plan, keep=False)
    assert node.stopped
    assert traces_of(hosts[0]) == traces


def all_up(neighbour: Neighbour) -> bool:
    return all(peer.up for peer in neighbour.peers.by_address.values())
