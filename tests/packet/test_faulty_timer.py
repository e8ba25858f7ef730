"""A defect in what is due for one flow costs that flow; the others are woken as ever, in either core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tcpha.fe.flows import FlowState
from tcpha.proto.messages import Closed, Flows
from tests.packet.be_playbook import Playbook as BackEnd
from tests.packet.be_playbook import clear, inject, send
from tests.packet.fe_client import GET, Client
from tests.packet.fe_playbook import BE1, After, Playbook, Says, anything, gets, gets_rst

FLOWS = 3


class Defect(Exception):
    """What no timer should raise."""


def failing_for(broken: object, sound: Callable[[Any, float], Sequence[Any]]) -> Callable[[Any, float], Sequence[Any]]:
    def on_deadline(flow: object, now: float) -> Sequence[Any]:
        if flow is broken:
            raise Defect("the timer of one flow")
        return sound(flow, now)

    return on_deadline


def waiting(state: FlowState) -> tuple[Playbook, list[Client]]:
    """Connections whose deadlines are the same moment; the timer of the first is broken."""
    book = Playbook()
    clients = [book.connected(port=41000 + number) for number in range(FLOWS)]
    for client in clients:
        book >> client.sends(GET[:9] if state is FlowState.READING else GET) << anything
        assert book.flow(client).state is state
    timers = book.dispatcher._on_deadline_in
    timers[state] = failing_for(book.flow(clients[0]), timers[state])  # type: ignore[assignment]
    return book, clients


def test_reading_timer_of_one_flow_fails_others_are_acknowledged_and_its_client_is_reset() -> None:
    book, (broken, *others) = waiting(FlowState.READING)
    book >> After(0.01) << [gets_rst(broken), *(gets(each, "A", 0, 9) for each in others)]
    assert not book.knows(broken)
    assert book.dispatcher.table.sizes()["timer_faults"] == 1
    assert len(book.dispatcher._reader._reading) == len(others)
    book >> broken.sends(GET) << gets_rst(broken)
    assert book.dispatcher.counters.late_duplicates == 1, "it never runs"


def test_handing_timer_of_one_flow_fails_handoffs_of_the_others_are_repeated() -> None:
    book, (broken, *others) = waiting(FlowState.HANDING)
    book >> After(0.05) << anything
    assert [getattr(action, "message", None) is not None for action in book.actions] == [True] * len(others)
    assert book.dispatcher.counters.repeats == len(others)
    assert not book.knows(broken)


def test_handing_flow_forgotten_for_a_defect_is_found_again_at_its_back_end() -> None:
    book, (broken, *_) = waiting(FlowState.HANDING)
    book >> After(0.05) << anything
    book >> broken.ack(len(GET), 100) << anything
    book >> Says(BE1, Flows((broken.identity,))) << anything
    assert book.flow(broken).state is FlowState.FORWARDED


def test_timers_fail_the_last_defect_is_told_once() -> None:
    book, _ = waiting(FlowState.READING)
    assert book.dispatcher.table.take_fault() is None
    book >> After(0.01) << anything
    assert isinstance(book.dispatcher.table.take_fault(), Defect)
    assert book.dispatcher.table.take_fault() is None


def test_syn_sent_timer_of_one_flow_fails_replay_of_the_other_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    book = BackEnd()
    broken, other = (book.handoff(identity=book.identity(port=port)) for port in (41000, 41001))
    for message in (broken, other):
        assert book.hands_off(message) == [inject(flags="S")]
    adoption = book.agent._adoption
    flow = book.agent.table.by_key[broken.identity.key]
    monkeypatch.setattr(adoption, "on_deadline", failing_for(flow, adoption.on_deadline))
    events = book.passes(1.0)
    assert clear(key=broken.identity.key, embryonic=True) in events
    assert inject(flags="S", port=41001) in events
    assert inject(flags="S", port=41000) not in events
    assert broken.identity.key not in book.agent.table.by_key
    assert book.agent.table.sizes()["timer_faults"] == 1
    assert book.hands_off(broken) == [send(Closed((broken.identity,)))], "it never runs"
