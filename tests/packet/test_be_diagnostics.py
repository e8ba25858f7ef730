"""The back end's process where socket diagnostics fail: nobody knows what holds a four-tuple, so nothing is decided."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from socket import AF_INET
from typing import Any, cast

import pytest

from tcpha.be.acceleration import Acceleration
from tcpha.be.actions import Action, Announce, ClearTuple, Examine, Inject, Send
from tcpha.be.flows import FlowState
from tcpha.be.service import BackEnd
from tcpha.errors import EdgeError
from tcpha.net.sockdiag import TCP_ESTABLISHED, TCP_TIME_WAIT, SocketDiagnostics, TcpSocket
from tcpha.peers import OwnStatus
from tcpha.proto.messages import NodeState, Reason, Refused, Server, ServerState, Status
from tcpha.rules import Endpoint
from tests.packet.be_playbook import Playbook, both_families, clear

KERNEL_MARK = 0x7C0A


class Deaf:
    """Socket diagnostics that the kernel does not answer."""

    def find_connection(self, _key: object) -> None:
        raise EdgeError("no answer")


class Taken:
    """A connection that the kernel has adopted holds every four-tuple; what is done to it is a mistake."""

    state = TCP_ESTABLISHED

    def find_connection(self, _key: object) -> TcpSocket:
        return TcpSocket(AF_INET, self.state, b"a cookie", bytes(36), KERNEL_MARK)


class Left(Taken):
    """One that is over: in TIME-WAIT."""

    state = TCP_TIME_WAIT

    def __init__(self) -> None:
        self.destroyed: list[TcpSocket] = []

    def destroy(self, found: TcpSocket) -> bool:
        self.destroyed.append(found)
        return True


def process_of(book: Playbook, sockets: object = None) -> tuple[BackEnd, list[Action]]:
    """A process around the agent, of which only the questions to the host stand; and what else it was to perform."""
    performed: list[Action] = []
    made = BackEnd.__new__(BackEnd)
    made._agent = book.agent
    made._sockets = cast(SocketDiagnostics, sockets or Deaf())
    made._kernel = cast(Acceleration, object())
    made._be_config = book.config.model_copy(update={"kernel_mark": KERNEL_MARK})
    made._perform = {kind: lambda action, _now: performed.append(action) for kind in (Inject, Send)}
    made._perform[ClearTuple] = made._clear_tuple
    return made, performed


def late(book: Playbook) -> list[Any]:
    """The core wants the four-tuple looked at: the server has not acknowledged in time."""
    actions: list[Any] = []
    while not actions:
        book.now = max(book.now, book.agent.next_deadline())
        actions = [each for each in book.agent.on_timer(book.now) if isinstance(each, Examine)]
        assert book.now < book.start + 5
    return actions


@both_families
def test_ack_sent_server_is_late_and_diagnostics_fail_request_is_not_refused(
    family: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have run: refused, it would run elsewhere."""
    book = Playbook(family).until_ack_sent()
    process, performed = process_of(book)
    (look,) = late(book)
    with caplog.at_level(logging.WARNING):
        process._examine(look, book.now)
    assert [record.message for record in caplog.records] == ["no answer"] * 2
    assert performed == []
    assert book.agent.counters.refused == 0
    assert book.agent.table.by_key[book.key()].state is FlowState.FINISHED


@both_families
def test_ack_sent_server_is_late_and_holds_nothing_request_is_refused(family: int) -> None:
    """What the test above would see if the failure counted as a no."""
    book = Playbook(family).until_ack_sent()
    book.holder = None
    events = book.passes(1.0)
    assert clear() in events
    assert [event.fields["message"] for event in events if event.what == "send"] != []
    assert any(isinstance(event.fields.get("message"), Refused) for event in events)


@both_families
def test_adopted_diagnostics_fail_flow_stays(family: int) -> None:
    book = Playbook(family).until_adopted()
    process, performed = process_of(book)
    process._examine(Examine(book.key()), book.now)
    assert book.agent.table.by_key[book.key()].state is FlowState.ADOPTED
    assert performed == []


@both_families
def test_syn_sent_a_connection_of_the_kernel_has_the_four_tuple_it_stays_and_the_handoff_is_the_older(
    family: int,
) -> None:
    book = Playbook(family)
    book.hands_off()
    process, performed = process_of(book, Taken())
    process._clear_tuple(ClearTuple(book.key(), embryonic=True), book.now)
    (refusal,) = performed
    assert isinstance(refusal, Send)
    assert isinstance(refusal.message, Refused)
    assert refusal.message.reason is Reason.OLDER_GENERATION
    assert book.key() not in book.agent.table.by_key


@both_families
def test_syn_sent_time_wait_of_the_kernels_connection_is_in_the_way_it_is_destroyed_and_the_syn_played(
    family: int,
) -> None:
    """It was there before: where the agent has begun no program runs anything."""
    book, left = Playbook(family), Left()
    book.hands_off()
    process, performed = process_of(book, left)
    process._clear_tuple(ClearTuple(book.key(), embryonic=True), book.now)
    assert [each.state for each in left.destroyed] == [TCP_TIME_WAIT]
    assert [type(each) for each in performed] == [Inject]
    assert book.agent.table.by_key[book.key()].state is FlowState.SYN_SENT


@both_families
@pytest.mark.parametrize("state", ["ack sent", "adopted"])
def test_a_connection_of_the_kernel_has_the_four_tuple_ours_is_over_and_never_refused(family: int, state: str) -> None:
    """Its own socket may have read the request before it was gone."""
    book = Playbook(family)
    if state == "ack sent":
        book.until_ack_sent()
    else:
        book.until_adopted()
    process, performed = process_of(book, Taken())
    process._clear_tuple(ClearTuple(book.key(), embryonic=True), book.now)
    assert book.agent.table.by_key[book.key()].state is FlowState.FINISHED
    assert performed == []


@both_families
def test_adopted_a_connection_of_the_kernel_is_found_ours_is_over(family: int) -> None:
    book = Playbook(family).until_adopted()
    process, _ = process_of(book, Taken())
    process._examine(Examine(book.key()), book.now)
    assert book.agent.table.by_key[book.key()].state is FlowState.FINISHED


# --- how an operator is told


FE = Endpoint(IPv4Address("198.18.0.23"), 666)
FE_STATUS = Status(1, 1, NodeState.UP, 0, bytes(16))


def test_front_end_is_lost_and_heard_again_is_a_warning_then_not(caplog: pytest.LogCaptureFixture) -> None:
    made = BackEnd.__new__(BackEnd)
    made._heard = set()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            made.on_status(FE, FE_STATUS, False, 1.0)
        made.on_lost(FE, 2.0)
        made.on_status(FE, FE_STATUS, False, 3.0)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.INFO, "fe 198.18.0.23 is up"),
        (logging.WARNING, "fe 198.18.0.23 is silent"),
        (logging.INFO, "fe 198.18.0.23 is up"),
    ]


def test_server_is_not_probed_yet_nothing_is_said_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BackEnd.__new__(BackEnd)
    made._server_states = {}
    states = [ServerState.UNKNOWN, ServerState.NO_LISTENER, ServerState.NO_LISTENER, ServerState.ANSWERS]
    vip = IPv4Address("198.18.0.36").packed
    with caplog.at_level(logging.INFO):
        for state in states:
            own = OwnStatus(NodeState.UP, 0, bytes(16), None, (Server(vip, 80, state),))
            monkeypatch.setattr(made, "own_status", lambda own=own: own)
            monkeypatch.setattr(made, "announce", lambda: None)
            made._announce(Announce(), 1.0)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "server at 198.18.0.36 port 80: no listener"),
        (logging.INFO, "server at 198.18.0.36 port 80: answers"),
    ]
