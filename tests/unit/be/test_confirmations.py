"""Adoptions are told of many at once, each front end its own; what is over by then is not."""

from __future__ import annotations

from ipaddress import IPv4Address

from tcpha.be.actions import Send
from tcpha.be.confirmations import CONFIRM_DELAY_S, Confirmations
from tcpha.be.flows import ADOPTED, Flow
from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import FLOWS_A_MESSAGE
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Flows, Handoff, Identity
from tcpha.proto.seqnum import SeqNum
from tcpha.rules import Endpoint

CLIENT, VIP = IPv4Address("192.0.2.10"), IPv4Address("198.18.0.36")
ONE, OTHER = Endpoint(IPv4Address("198.18.0.23"), 666), Endpoint(IPv4Address("198.18.0.24"), 666)
NOW = 1000.0


def flow(port: int = 40_000, frontend: Endpoint = ONE) -> Flow:
    identity = Identity(connection_key(CLIENT, port, VIP, 80), SeqNum(1), SeqNum(2))
    agreement = Agreement(1460, 7, True)
    handoff = Handoff(identity, agreement, 7, 502, 1, None, 0, confirm=True, acknowledged=None, octets=b"x")
    made = Flow(handoff, frontend, 1, NOW + 1, NOW)
    made.state = ADOPTED
    return made


def test_nothing_was_added_nothing_is_due() -> None:
    assert Confirmations().on_timer(NOW) == ([], False)


def test_flows_wait_for_others_and_each_front_end_hears_of_its_own() -> None:
    confirmations = Confirmations()
    flows = [flow(1), flow(2, OTHER), flow(3)]
    for number, each in enumerate(flows):
        confirmations.add(each, NOW + number / 1000)
    assert confirmations.next_deadline() == NOW + CONFIRM_DELAY_S
    assert confirmations.on_timer(NOW + CONFIRM_DELAY_S - 0.001) == ([], False)
    sent, some_are_over = confirmations.on_timer(NOW + CONFIRM_DELAY_S)
    assert sent == [Send(ONE, Flows((flows[0].identity, flows[2].identity))), Send(OTHER, Flows((flows[1].identity,)))]
    assert not some_are_over
    assert confirmations.on_timer(NOW + 60) == ([], False)


def test_message_is_full_nobody_waits() -> None:
    confirmations = Confirmations()
    flows = [flow(1 + number) for number in range(FLOWS_A_MESSAGE)]
    for each in flows:
        confirmations.add(each, NOW)
    assert confirmations.next_deadline() == NOW
    assert confirmations.on_timer(NOW) == ([Send(ONE, Flows(tuple(each.identity for each in flows)))], False)


def test_burst_is_longer_than_a_message_it_is_told_in_several() -> None:
    confirmations = Confirmations()
    flows = [flow(1 + number) for number in range(2 * FLOWS_A_MESSAGE + 1)]
    for each in flows:
        confirmations.add(each, NOW)
    sent, _ = confirmations.on_timer(NOW)
    told = [send.message.held for send in sent if isinstance(send.message, Flows)]
    assert [len(held) for held in told] == [FLOWS_A_MESSAGE, FLOWS_A_MESSAGE, 1]
    assert [identity for held in told for identity in held] == [each.identity for each in flows]


def test_flow_is_over_before_it_was_told_of_another_message_says_so() -> None:
    confirmations = Confirmations()
    over, lives = flow(1), flow(2)
    confirmations.add(over, NOW)
    confirmations.add(lives, NOW)
    over.end()
    assert confirmations.on_timer(NOW + CONFIRM_DELAY_S) == ([Send(ONE, Flows((lives.identity,)))], True)


def test_flow_moved_to_another_front_end_that_one_is_told() -> None:
    confirmations = Confirmations()
    moved = flow(1)
    confirmations.add(moved, NOW)
    moved.frontend = OTHER
    assert confirmations.on_timer(NOW + CONFIRM_DELAY_S) == ([Send(OTHER, Flows((moved.identity,)))], False)
