"""What front ends ask and order, and the end of the back end itself."""

from __future__ import annotations

import pytest

from tcpha.be.flows import FlowState
from tcpha.proto.messages import Closed, Flows, FlowsQuery, NodeState, Reason, Refused
from tests.packet.be_host import HostedPlaybook
from tests.packet.be_playbook import (
    NEXT,
    QUIET,
    REQUEST,
    Event,
    Playbook,
    announce,
    both_families,
    clear,
    inject,
    send,
    to_client,
)


def adopt_ports(book: Playbook, ports: range) -> None:
    for port in ports:
        book.hands_off(identity=book.identity(port), confirm=False)
        book.syn_ack(port=port)
        book.leaves(port=port)


# --- FLOWS?


@both_families
def test_some_flows_query_for_keys_says_which_are_held(family: int) -> None:
    book = Playbook(family)
    adopt_ports(book, range(1, 3))
    book.hands_off(identity=book.identity(3))
    book.leaves("RA", port=2)
    keys = tuple(book.key(port) for port in (1, 2, 3, 4))
    answer = Flows((book.identity(1),), (book.key(2), book.key(4)))
    assert book.says(FlowsQuery(keys), frontend=book.other_fe) == [send(answer, to=book.other_fe)]
    assert book.says(FlowsQuery((book.key(3),))) == [], "nobody knows yet how its replay ends"


@both_families
def test_nothing_flows_query_for_a_key_absent(family: int) -> None:
    book = Playbook(family)
    assert book.says(FlowsQuery((book.key(),))) == [send(Flows((), (book.key(),)), to=book.fe)]


@both_families
def test_some_flows_query_for_all_in_chunks(family: int) -> None:
    book = Playbook(family)
    adopt_ports(book, range(100, 140))
    book.hands_off(identity=book.identity(1))  # not adopted yet: still the asker's own business
    book.leaves("RA", port=100)
    told: list[object] = []
    sizes = []
    for event in book.says(FlowsQuery(())):
        message = event.fields["message"]
        assert isinstance(message, Flows)
        assert message.absent == ()
        sizes.append(len(message.held))
        told += message.held
    assert sizes == [19, 19, 1]
    assert told == [book.identity(port) for port in range(101, 140)]


# --- CLOSED from a front end


@both_families
@pytest.mark.parametrize("state", [FlowState.SYN_SENT, FlowState.ACK_SENT, FlowState.ADOPTED])
def test_live_flow_closed_by_the_front_end_destroyed_silently(family: int, state: FlowState) -> None:
    book = Playbook(family)
    if state is FlowState.SYN_SENT:
        book.hands_off()
    else:
        book = book.until_ack_sent() if state is FlowState.ACK_SENT else book.until_adopted()
    book.holder = "embryonic" if state is not FlowState.ADOPTED else "established"
    assert book.says(Closed((book.identity(),))) == [clear(embryonic=True)]
    assert book.holder is None
    assert book.leaves("RA") == [], "no word to the client"
    assert book.passes(2.0) == [], "nor to a front end"
    assert not book.agent.table.by_key
    assert book.hands_off() == [send(Closed((book.identity(),)), to=book.fe)]
    assert book.agent.counters.destroyed == 1


@both_families
def test_live_flow_closed_of_another_identity_stays(family: int) -> None:
    book = Playbook(family).until_adopted()
    strangers = (book.identity(iss=1), book.identity(irs=1), book.identity(port=9))
    assert book.says(Closed(strangers)) == []
    assert book.leaves() == [to_client(ack=NEXT)]


@both_families
def test_finished_closed_by_the_front_end_still_translated(family: int) -> None:
    book = Playbook(family).until_finished()
    assert book.says(Closed((book.identity(),))) == []
    assert book.leaves("FA", ack=NEXT + 1) == [to_client(flags="FA")]


@both_families
def test_some_flows_one_closed_for_several_destroyed(family: int) -> None:
    book = Playbook(family)
    adopt_ports(book, range(1, 4))
    identities = tuple(book.identity(port) for port in (1, 3, 5))
    assert book.says(Closed(identities)) == [clear(key=book.key(1)), clear(key=book.key(3))]
    assert list(book.agent.table.by_key) == [book.key(2)]


# --- the end


def stopped(book: Playbook) -> list[Event]:
    return [event for event in book.perform(book.agent.on_stop(book.now)) if event.what != "note"]


@both_families
def test_adopted_stop_reset_and_the_reset_leaves_translated(family: int) -> None:
    book = HostedPlaybook(family)
    book.hands_off()
    book.reads()
    assert stopped(book) == [announce, clear(embryonic=True)]
    assert book.agent.status().state is NodeState.DRAINING
    assert book.reads() == [to_client(flags="RA", seq=1, ack=NEXT)]
    assert book.agent.table.live == 0
    assert [event.what for event in book.passes(0.1)] == ["send", "send"]


@both_families
def test_syn_sent_stop_undone_and_refused(family: int) -> None:
    """Nothing reached the server: the front end may turn to another back end."""
    book = Playbook(family)
    book.hands_off()
    book.holder = "embryonic"
    assert stopped(book) == [announce, clear(embryonic=True), send(Refused(book.identity(), Reason.DRAINING))]
    assert book.holder is None
    assert book.passes(2.0) == []


@both_families
def test_ack_sent_stop_before_the_server_has_it_refused(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    events = stopped(book)
    assert events == [announce, clear(embryonic=False), clear(embryonic=True), events[3]]
    assert events[3] == send(Refused(book.identity(), Reason.DRAINING))
    assert not book.agent.table.by_key


@both_families
def test_ack_sent_stop_after_the_server_has_it_reset(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    book.holder = "established"
    assert stopped(book) == [announce, clear(embryonic=False)]
    assert book.leaves("RA") == [to_client(flags="RA", seq=1)]


@both_families
def test_stopped_handoff_refused_draining(family: int) -> None:
    book = Playbook(family).until_adopted()
    other = book.handoff(identity=book.identity(port=5))
    stopped(book)
    assert book.hands_off(other) == [send(Refused(other.identity, Reason.DRAINING), to=book.fe)]
    assert book.hands_off()[0] == inject(payload=REQUEST[4:]), "a repeat of a live one is still served"


@pytest.mark.parametrize("count", [1, 2])
def test_adopted_stop_says_how_many_end(count: int) -> None:
    book = Playbook(4)
    adopt_ports(book, range(1, count + 1))
    told = [event.fields["text"] for event in book.perform(book.agent.on_stop(book.now)) if event.what == "note"]
    assert told == [f"connections that are ended: {count}"]


def test_empty_stop_says_only_that_it_goes() -> None:
    book = Playbook(4)
    assert book.perform(book.agent.on_stop(book.now)) == [announce]


# --- what the host says too late


@both_families
def test_adopted_late_word_of_a_cleared_tuple_ignored(family: int) -> None:
    book = Playbook(family).until_adopted()
    for destroyed in (False, True):
        assert book.perform(book.agent.on_cleared(book.key(), destroyed, book.now)) == []
    assert book.leaves() == [to_client()]


@both_families
@pytest.mark.parametrize("received", [None, 0, 7])
def test_nothing_late_word_of_a_socket_ignored(family: int, received: int | None) -> None:
    book = Playbook(family)
    assert book.perform(book.agent.on_examined(book.key(), received, book.now)) == []
    book.hands_off()
    assert book.perform(book.agent.on_examined(book.key(), received, book.now)) == []
    assert book.syn_ack() == [inject(payload=REQUEST)]
    assert book.perform(book.agent.on_examined(book.key(), received, book.now)) == [], "its time is not up"


@both_families
def test_some_flows_status_counts_the_live_ones(family: int) -> None:
    book = Playbook(family)
    adopt_ports(book, range(1, 4))
    book.leaves("RA", port=2)
    assert book.agent.status().flows == 2
    assert book.agent.status().digest == book.config.digest()


@both_families
def test_full_table_status_says_so_until_a_flow_ends(family: int) -> None:
    book = Playbook(family, QUIET + "max_flows = 2\n")
    adopt_ports(book, range(1, 3))
    assert book.agent.status().state is NodeState.FULL
    book.leaves("RA", port=2)
    assert book.agent.status().state is NodeState.UP


@both_families
def test_many_flows_asked_again_before_the_answer_is_out_answered_once(
    family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcpha.proto.handoff.FLOWS_A_MESSAGE", 1)
    monkeypatch.setattr("tcpha.be.agent.ANSWERS_AT_ONCE", 2)
    book = Playbook(family)
    adopt_ports(book, range(1, 11))
    for _ in range(50):
        book.says(FlowsQuery(()))
    assert len(book.agent._answers) <= 10
    told = [event.fields["message"] for event in book.passes(1)]
    assert len({each.held for each in told if isinstance(each, Flows)}) == 8
