"""FORWARDED: everything is passed on, nothing is allocated; idle flows are asked about; restarts, losses, the end."""

from __future__ import annotations

import pytest

from tcpha.fe.actions import PassOn, Reply, Send
from tcpha.fe.dispatcher import SWEEP_INTERVAL_S
from tcpha.fe.flows import Flow, FlowState
from tcpha.proto.messages import Closed, Flows, FlowsQuery, Identity, NodeState, Server, ServerState
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import decode_segment
from tests.packet.fe_client import GET, GET_JPG, MASK, Client
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    PERIOD,
    After,
    Lost,
    Playbook,
    Says,
    Stop,
    Told,
    anything,
    gets_rst,
    handoff,
    lives,
    nothing,
)


def forwarded(family: int = 4, settings: str = "", irs: int = 1000) -> tuple[Playbook, Client]:
    book = Playbook(settings)
    client = book.connected(family, irs=irs)
    book.adopted(client)
    return book, client


# --- segments


@pytest.mark.parametrize("irs", [1000, MASK, MASK - len(GET)])
def test_forwarded_everything_is_passed_on(irs: int, family: int) -> None:
    book, client = forwarded(family, irs=irs)
    after = len(GET)
    for packet in (
        client.ack(after, 1460),
        client.sends(GET, after, 5000),
        client.sends(b"?", after - 1),
        client.probe(),
        client.fin(after + len(GET), 5000),
        client.rst(after),
        client.rst(after + 99, flags="RA"),
        client.sends(b"", after, flags=""),
        client.ack(after, chksum=1),
    ):
        book >> packet << PassOn(BE1)
    assert book.flow(client).state is FlowState.FORWARDED


def test_forwarded_segment_allocates_no_action(family: int) -> None:
    book, client = forwarded(family)
    flow = book.flow(client)
    for at in range(3):
        actions = book.dispatcher.on_segment(decode_segment(client.ack(len(GET), at)), book.now)
        assert actions is flow.pass_on


def test_forwarded_own_first_segment_again_is_passed_on(family: int) -> None:
    book, client = forwarded(family)
    book >> client.sends(GET) << PassOn(BE1)
    book >> client.syn() << anything  # its SYN, too: the first segment is now one behind a noted SYN
    book >> client.sends(GET) << PassOn(BE1)
    book >> client.ack() << PassOn(BE1)
    assert book.dispatcher.counters.handoffs == 1


@pytest.mark.parametrize(("request_head", "backend"), [(GET, BE1), (GET_JPG, BE2)])
def test_forwarded_port_reused_moves_to_the_back_end_of_the_request(
    request_head: bytes, backend: object, family: int
) -> None:
    book, old = forwarded(family)
    new = book.client(family, irs=(old.irs + 70000) & MASK)
    book >> new.syn() << anything >> new.ack() << nothing
    book >> old.ack(len(GET), 50) << PassOn(BE1)
    target = BE1 if backend == BE1 else BE2
    (
        book
        >> new.sends(request_head)
        << [
            Send(BE1, Closed((old.identity,))),
            Send(target, handoff(new, request_head)),
        ]
    )
    book >> old.ack(len(GET), 50) << PassOn(target)


def test_forwarded_strangers_data_behind_a_syn_harms_nothing(family: int) -> None:
    book, client = forwarded(family)
    iss = client.iss
    book >> client.syn(seq=777) << anything
    stranger = Client(family, irs=777, iss=iss)
    book >> stranger.sends(GET) << PassOn(BE1)
    assert book.flow(client).identity == client.identity
    assert book.dispatcher.counters.ports_reused == 0


def test_forwarded_port_reused_behind_a_strangers_syn_is_recognised(family: int) -> None:
    book, _ = forwarded(family)
    new = book.client(family, irs=100)
    book >> new.syn() << anything >> new.syn(seq=101) << anything
    book >> new.sends(GET) << anything
    assert book.flow(new).identity == new.identity


def test_forwarded_finished_by_closed_of_its_back_end_only(family: int) -> None:
    book, client = forwarded(family)
    book >> Says(BE2, Closed((client.identity,))) << nothing
    other = Identity(client.key, SeqNum(client.irs), seq_add(SeqNum(client.iss), 1))
    book >> Says(BE1, Closed((other,))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> Says(BE1, Closed((other, client.identity))) << nothing
    assert book.flow(client).state is FlowState.FINISHED
    assert book.dispatcher.counters.closed == 1


# --- idle


IDLE = "idle_time = 10s"


def test_idle_flow_that_is_held_is_kept(family: int) -> None:
    book, client = forwarded(family, IDLE)
    for _ in range(5):
        book >> After(12) << Send(BE1, FlowsQuery((client.key,)))
        book >> Says(BE1, Flows((client.identity,))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


def test_idle_flow_that_is_absent_is_dropped(family: int) -> None:
    book, client = forwarded(family, IDLE)
    book >> After(12) << Send(BE1, FlowsQuery((client.key,)))
    book >> Says(BE2, Flows((), (client.key,))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> Says(BE1, Flows((), (client.key,))) << nothing
    assert book.flow(client).state is FlowState.FINISHED
    assert book.dispatcher.counters.idle_dropped == 1


def test_idle_flow_nobody_speaks_of_is_dropped_after_three_questions(family: int) -> None:
    book, client = forwarded(family, IDLE)
    question = Send(BE1, FlowsQuery((client.key,)))
    book >> After(37) << [question] * 3
    assert book.flow(client).state is FlowState.FORWARDED
    book >> After(6) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_idle_flow_with_packets_is_not_asked_about(family: int) -> None:
    book, client = forwarded(family, IDLE)
    for _ in range(20):
        book >> After(5) << nothing >> client.ack(len(GET)) << PassOn(BE1)


def test_idle_flow_whose_packets_others_carry_is_not_asked_about(family: int) -> None:
    book, client = forwarded(family, IDLE)

    def seen_just_now(flow: Flow) -> None:
        flow.last_seen = book.now - 1

    book.dispatcher.table.follow(seen_just_now)
    book >> After(100) << nothing
    book.dispatcher.table.follow(None)
    book >> After(12) << Send(BE1, FlowsQuery((client.key,)))


def test_retained_flow_is_asked_about_until_its_back_end_speaks_of_it(family: int) -> None:
    book, client = forwarded(family)
    flow = book.flow(client)
    flow.retained = True
    question = Send(BE1, FlowsQuery((client.key,)))
    book >> After(4.5) << [question] * 2
    book >> Says(BE1, Flows((flow.identity,))) << nothing
    book >> After(10) << nothing
    assert flow.state is FlowState.FORWARDED


def test_retained_flow_is_over_meanwhile_it_is_finished(family: int) -> None:
    book, client = forwarded(family)
    book.flow(client).retained = True
    book >> Says(BE2, Flows((), (client.key,))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED
    book >> Says(BE1, Flows((), (client.key,))) << nothing
    assert book.flow(client).state is FlowState.FINISHED


def test_retained_flow_that_nobody_has_confirmed_is_not_there_the_request_is_handed_over_when_it_is_repeated(
    family: int,
) -> None:
    """The process before ended when it had decided, but before its HANDOFF left."""
    book = Playbook()
    client = book.connected(family)
    flow = Flow.of(client.identity, PERIOD, FlowState.FORWARDED, book.now)
    flow.assign(BE1)
    flow.retained = True
    book.dispatcher.table.insert(flow, book.now)
    book >> client.sends(GET) << PassOn(BE1)
    book >> Says(BE1, Flows((), (client.key,))) << nothing
    assert not book.knows(client)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET))


def test_retained_flow_that_nobody_has_confirmed_is_there_from_then_on_it_is_as_any_other(family: int) -> None:
    book, client = forwarded(family)
    flow = book.flow(client)
    flow.retained, flow.proven = True, False
    book.dispatcher.table.follow(lambda _flow: None)
    book >> Says(BE1, Flows((flow.identity,))) << nothing
    assert list(book.dispatcher.table.take_changed()) == [flow.key], "who carries its packets is told"
    flow.retained = True
    book >> Says(BE1, Flows((), (client.key,))) << nothing
    assert flow.state is FlowState.FINISHED


def test_retained_flow_its_back_end_is_silent_nothing_is_asked_of_it(family: int) -> None:
    book, client = forwarded(family)
    book.flow(client).retained = True
    book >> Lost(BE1) << anything >> After(10) << nothing


def test_busy_flow_absent_answer_to_nothing_asked_is_ignored(family: int) -> None:
    book, client = forwarded(family)
    book >> Says(BE1, Flows((), (client.key,))) << nothing
    assert book.flow(client).state is FlowState.FORWARDED


# --- back ends


def restarted(family: int) -> tuple[Playbook, Client]:
    """Its back end's process is another one, and has been asked for the connection."""
    book, client = forwarded(family)
    book >> client.ack(len(GET), 77) << PassOn(BE1)
    book >> lives(BE1, restarted=True) << [Told("restarted"), Send(BE1, FlowsQuery(()))]
    book >> client.ack(len(GET), 77) << PassOn(BE1)
    book >> After(2.0) << anything
    assert Send(BE1, FlowsQuery((client.key,))) in book.actions
    return book, client


def test_forwarded_restart_of_its_back_end_that_has_not_got_it_drops_it(family: int) -> None:
    book, client = restarted(family)
    other = book.connected(family, port=41000)
    book.adopted(other, GET_JPG)
    book >> Says(BE1, Flows((), (client.key, other.key))) << gets_rst(client, 77)
    assert not book.knows(client)
    assert book.flow(other).state is FlowState.FORWARDED
    book >> client.sends(GET) << gets_rst(client)  # a late duplicate of the request does not run twice
    assert book.dispatcher.counters.late_duplicates == 1


def test_forwarded_restart_of_its_back_end_that_has_it_keeps_it(family: int) -> None:
    book, client = restarted(family)
    book >> Says(BE1, Flows((client.identity,), ())) << nothing
    book >> After(2.0) << nothing
    book >> client.ack(len(GET), 77) << PassOn(BE1)


def test_forwarded_loss_of_its_back_end_keeps_it(family: int) -> None:
    book, client = forwarded(family)
    book >> Lost(BE1) << Told("silent") >> client.ack(len(GET)) << PassOn(BE1)
    book >> lives(BE1) << Told("is up") >> client.ack(len(GET)) << PassOn(BE1)


def test_none_first_status_asks_for_all_flows() -> None:
    book = Playbook(up=())
    book >> lives(BE1) << [Send(BE1, FlowsQuery(())), Told("is up")]
    book >> lives(BE1) << nothing


def test_none_back_end_whose_server_is_gone_gets_nothing(family: int) -> None:
    book = Playbook()
    address = book.connected(family).key
    half = (len(address) - 4) // 2
    server = Server(address[half : 2 * half], 80, ServerState.NO_LISTENER)
    other = book.connected(10 - family)
    half = (len(other.key) - 4) // 2
    sound = Server(other.key[half : 2 * half], 80, ServerState.ANSWERS)
    book >> lives(BE1, servers=(server, sound)) << nothing >> After(2 * SWEEP_INTERVAL_S) << Told("no listener")
    client = book.connected(family)
    book >> client.sends(GET) << anything
    assert client.octets.startswith(b"HTTP/1.1 503 ")
    book >> other.sends(GET) << Send(BE1, handoff(other, GET))


def test_none_draining_back_end_gets_nothing_new_and_keeps_what_it_has(family: int) -> None:
    book, client = forwarded(family)
    book >> lives(BE1, state=NodeState.DRAINING) << Told("draining")
    book >> client.ack(len(GET)) << PassOn(BE1)
    other = book.connected(family, port=41000)
    book >> other.sends(GET) << anything
    assert other.octets.startswith(b"HTTP/1.1 503 ")


# --- the end of the front end


def test_stop_ends_clients_and_servers(family: int) -> None:
    book, client = forwarded(family)
    book >> client.ack(len(GET), 777) << PassOn(BE1)
    reader, done = book.connected(family, port=41000), book.connected(family, port=41002)
    book >> reader.sends(GET[:5]) << nothing
    book.adopted(done)
    book >> Says(BE1, Closed((done.identity,))) << nothing
    handed = book.connected(family, port=41004)
    book.handing(handed, GET_JPG)
    (
        book
        >> Stop()
        << [
            gets_rst(client, 777),
            gets_rst(reader),
            gets_rst(handed),
            Send(BE1, Closed((client.identity,))),
            Send(BE2, Closed((handed.identity,))),
        ]
    )
    assert book.dispatcher.table.live == 0


def test_stop_what_was_under_way_to_the_client_is_reset_where_it_acknowledges(family: int) -> None:
    """The RST at the stop lies below the window of a client that got more octets meanwhile: it is not believed."""
    book, client = forwarded(family)
    book >> client.ack(len(GET), 777) << PassOn(BE1)
    book >> Stop() << [gets_rst(client, 777), Send(BE1, Closed((client.identity,)))]
    book >> client.ack(len(GET), 9999) << gets_rst(client, 9999)


def test_stop_meets_what_a_back_end_says_that_it_holds_the_client_is_reset_all_the_same(family: int) -> None:
    """Back ends confirm many connections at once, a while later: what is ended is none from before a restart."""
    book, client = forwarded(family)
    book >> Stop() << [gets_rst(client), Send(BE1, Closed((client.identity,)))]
    book >> Says(BE1, Flows((client.identity,))) << nothing
    book >> client.ack(len(GET), 9999) << gets_rst(client, 9999)
    assert book.dispatcher.table.live == 0


def test_stop_in_halves_the_client_is_reset_where_it_was_seen_in_between(family: int) -> None:
    """Where packets are carried past the process they are until it has told the back ends."""
    book, client = forwarded(family)
    table, seen = book.dispatcher.table, seq_add(client.identity.iss, 778)
    assert book.dispatcher.end_at_backends() == [Send(BE1, Closed((client.identity,)))]
    table.follow(lambda flow: setattr(flow, "last_ack", seen))
    (told,) = book.dispatcher.end_at_clients()
    assert isinstance(told, Reply)
    assert decode_segment(told.packet).seg_seq == seen
    assert table.live == 0


def test_stop_tells_of_many_flows_in_few_messages() -> None:
    book = Playbook()
    for number in range(40):
        book.adopted(book.connected(port=41000 + number))
    book >> Stop() << anything
    assert [len(each.message.identities) for each in book.actions if isinstance(each, Send) and
            isinstance(each.message, Closed)] == [19, 19, 2]  # fmt: skip
    assert sum(isinstance(each, Reply) for each in book.actions) == 40


def test_stop_learned_flow_is_reset_where_its_client_is(family: int) -> None:
    book = Playbook()
    client = Client(family, irs=5, iss=6)
    book >> client.ack(100, 5000) << anything
    book >> Says(BE1, Flows((client.identity,))) << anything
    book >> Stop() << [gets_rst(client, 5000), Send(BE1, Closed((client.identity,)))]
