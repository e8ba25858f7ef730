"""What binds programs and agent: what becomes of messages, packets and news. The programs are a model (`programs`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, cast

import msgspec.structs
import pytest

from tcpha.be.acceleration import ATTEMPTS, COLLECT_S, DOUBTED, RENEW_S, ROUND_S, Acceleration
from tcpha.be.actions import Inject, Send
from tcpha.be.agent import Agent
from tcpha.config import CONFIRM_TIME_S, RELEASE_TIME_S
from tcpha.kernel.be_maps import Act, Answer, Ran, Rank, Whose, encode_tuple
from tcpha.net import clock
from tcpha.peers import Peer
from tcpha.proto.cookie import Agreement
from tcpha.proto.flow_fields import FIELD_OCTETS_IPV4, Fields, encode_field
from tcpha.proto.handoff import Type
from tcpha.proto.ip import connection_key
from tcpha.proto.messages import Adopted, Closed, Flows, FlowsQuery, Handoff, Identity, Message, Reason, Refused
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import ACK, FIN, RST, Segment, decode_segment, encode_segment
from tcpha.rules import Endpoint
from tests.packet.be_playbook import QUIET, be_config
from tests.unit.be.programs import CLIENT, MARK, RANK, Programs, Sockets, carried, identity, socket_of

CONFIG = be_config(QUIET)
FRONT_END, OTHER_FRONT_END = CONFIG.fe
ONE, EARLIER = identity(), identity(iss=9)
NOW = 1000.0


@dataclass
class Loop:
    sources: list[int] = field(default_factory=list)

    def add(self, descriptor: int, callback: object) -> None:
        self.sources.append(descriptor)


class BackEnd:
    """A process with the model in the kernel's place. One front end is known, by sender id 23."""

    def __init__(self) -> None:
        self.programs, self.sockets = Programs(), Sockets()
        self.agent = Agent(CONFIG)
        self.agent.on_utc(clock.utc(), NOW)
        self.sent: list[tuple[Endpoint, Message]] = []
        self.fields: list[tuple[Endpoint, Type, bytes]] = []
        self.kernel = Acceleration(
            CONFIG, cast(Any, self.programs), "eth0", self.agent, cast(Any, self.sockets), cast(Any, Loop()),
            lambda to, message: self.sent.append((to, message)),
            lambda to, kind, octets: self.fields.append((to, kind, octets)),
        )  # fmt: skip
        self.hears_of(FRONT_END, RANK.sender, RANK.epoch)

    def hears_of(self, endpoint: Endpoint, sender: int, epoch: int) -> None:
        peer = Peer((str(endpoint.addr), endpoint.port), epoch)
        peer.sender_id, peer.freshness.epoch = sender, epoch
        self.kernel.on_peer(endpoint, peer)

    def gets(
        self, message: Message, sequence: int = RANK.sequence + 1, age_s: float = 0.0
    ) -> tuple[list[Any], Message | None]:
        """What is done, and what is left to the agent."""
        self.kernel._claimed = (RANK.sender, RANK.epoch, sequence)
        actions, rest = self.kernel.on_message(FRONT_END, message, age_s, NOW)
        return list(actions), rest

    def holds(self, segment: Segment) -> None:
        """It came before its connection."""
        self.agent.on_arriving(segment, NOW)

    def ticks(self, after_s: float) -> list[Any]:
        return list(self.kernel.on_tick(clock.now() + after_s))


@pytest.fixture
def here() -> BackEnd:
    return BackEnd()


def handoff(of: Identity = ONE, **changes: Any) -> Handoff:
    usual = Handoff(of, Agreement(1460, 9, True), 7, 502, 7, 5000, 6000, True, None, b"GET / HTTP/1.0\r\n\r\n")
    return msgspec.structs.replace(usual, **changes)


def segment(of: Identity = ONE, flags: int = ACK, payload: bytes = b"x") -> Segment:
    return decode_segment(encode_segment(of.key, SeqNum(101), SeqNum(201), flags, 9, b"", payload))


def fields_of(*identities: Identity) -> Fields:
    return Fields(FIELD_OCTETS_IPV4, b"".join(map(encode_field, identities)))


# --- HANDOFF


def test_handoff_of_ports_that_are_nobodys_they_become_the_agents_and_it_runs(here: BackEnd) -> None:
    assert here.gets(handoff()) == ([], handoff())
    assert here.programs.whose(ONE) is Whose.AGENT
    assert here.programs.entries[encode_tuple(ONE.key)].rank == Rank(RANK.sender, RANK.epoch, RANK.sequence + 1, 7)


def test_handoff_of_what_is_over_front_end_is_told(here: BackEnd) -> None:
    here.programs.add(carried(ONE, Whose.OVER))
    assert here.gets(handoff()) == ([Send(FRONT_END, Closed((ONE,)))], None)


def test_handoff_of_an_earlier_connection_is_refused(here: BackEnd) -> None:
    here.programs.add(carried(ONE))
    wanted = [Send(FRONT_END, Refused(EARLIER, Reason.OLDER_GENERATION))]
    assert here.gets(handoff(EARLIER), RANK.sequence - 1) == (wanted, None)
    assert here.programs.whose(ONE) is Whose.PROGRAMS


@pytest.mark.parametrize(("confirm", "orders"), [(True, [(Act.ASK, ONE)]), (False, [])])
def test_handoff_of_what_lives_its_octets_go_to_the_socket(here: BackEnd, confirm: bool, orders: list[Any]) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(ONE)]
    actions, rest = here.gets(handoff(confirm=confirm))
    assert (len(actions), type(actions[0]), rest) == (1, Inject, None)
    assert here.programs.orders == orders


def test_earlier_connection_lives_on_the_ports_it_is_ended_and_the_later_one_runs(here: BackEnd) -> None:
    here.programs.add(carried(EARLIER))
    here.sockets.present = [earlier := socket_of(EARLIER)]
    assert here.gets(handoff()) == ([], handoff())
    assert here.sockets.destroyed == [earlier]
    assert here.programs.whose(ONE) is Whose.AGENT


def test_accept_queue_was_full_the_agent_takes_over(here: BackEnd) -> None:
    here.programs.add(carried(ONE, Whose.UNSEEN))
    here.programs.ran[ONE] = Ran.ADOPTING
    assert here.gets(handoff()) == ([], handoff())
    assert (here.programs.whose(ONE), here.programs.ran[ONE]) == (Whose.AGENT, Ran.AGENT)


def test_program_changes_the_entry_meanwhile_it_is_decided_anew(here: BackEnd) -> None:
    here.programs.busy_times = ATTEMPTS - 1
    assert here.gets(handoff()) == ([], handoff())
    assert here.programs.whose(ONE) is Whose.AGENT


def test_entry_changes_all_the_time_nothing_is_run(here: BackEnd) -> None:
    here.programs.add(carried(EARLIER, Whose.OVER))
    here.programs.busy_times = ATTEMPTS
    assert here.gets(handoff()) == ([], None)


def test_there_is_no_room_for_a_note_the_agent_runs_it(here: BackEnd) -> None:
    """Nor has any program."""
    here.programs.busy_times = ATTEMPTS
    assert here.gets(handoff()) == ([], handoff())


def test_stale_handoff_is_the_agents_to_count(here: BackEnd) -> None:
    here.programs.add(carried(ONE, Whose.OVER))
    assert here.kernel.on_message(FRONT_END, handoff(), CONFIG.stale_time + 1.0, NOW) == ((), handoff())


def test_agent_runs_nothing_there_any_more_it_lets_go(here: BackEnd) -> None:
    here.gets(handoff())
    here.agent.on_message(FRONT_END, handoff(), 0.0, NOW)
    here.ticks(ROUND_S)
    assert here.programs.whose(ONE) is Whose.AGENT
    here.agent.on_message(FRONT_END, Closed((ONE,)), 0.0, NOW)
    here.ticks(2 * ROUND_S)
    assert here.programs.entries == {}


# --- CLOSED, FLOWS?


def test_front_end_takes_a_connection_back_it_is_ended_silently_and_its_period_alone_is_noted(here: BackEnd) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [its := socket_of(ONE)]
    assert here.gets(Closed((ONE,))) == ([], Closed((ONE,)))
    assert here.sockets.destroyed == [its]
    assert here.programs.orders == [(Act.SILENCE, ONE), (Act.END, ONE)]
    assert here.programs.remembered == [(ONE, RANK.period)]
    assert here.programs.entries == {}


def test_front_end_takes_back_what_nobody_knows_it_will_not_run(here: BackEnd) -> None:
    here.programs.add(carried(ONE))
    here.gets(Closed((EARLIER,)))
    assert here.programs.remembered == [(EARLIER, None)]
    assert here.programs.whose(ONE) is Whose.PROGRAMS


def test_program_adopts_what_is_taken_back_at_this_very_moment_it_is_ended(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.programs, "remember", lambda *_: here.programs.add(carried(ONE)))
    here.gets(Closed((ONE,)))
    assert here.programs.orders == [(Act.SILENCE, ONE), (Act.END, ONE)]


def test_socket_with_the_ports_is_another_connections_it_is_left_alone(here: BackEnd) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(EARLIER)]
    here.gets(Closed((ONE,)))
    assert here.sockets.destroyed == []


def test_front_end_asks_for_some_each_is_held_or_left_to_the_agent_or_not_known_yet(here: BackEnd) -> None:
    lives, unseen, over, agents, nobodys = (identity(port) for port in range(1, 6))
    here.programs.add(carried(lives), carried(unseen, Whose.UNSEEN), carried(over, Whose.OVER))
    here.programs.add(carried(agents, Whose.AGENT))
    query = FlowsQuery(tuple(each.key for each in (lives, unseen, over, agents, nobodys)))
    actions, rest = here.gets(query)
    assert actions == [Send(FRONT_END, Flows((lives,)))]
    assert rest == FlowsQuery((over.key, agents.key, nobodys.key))


# --- packets


@pytest.mark.parametrize("flags", [ACK | FIN, RST, ACK | RST])
def test_packet_that_may_end_a_connection_came_past_the_programs_they_are_shown_it(here: BackEnd, flags: int) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(ONE)]
    assert here.kernel.owns(segment(flags=flags))
    assert here.programs.shown == [segment(flags=flags).packet]


@pytest.mark.parametrize(("is_closing", "times"), [(False, 0), (True, 1)])
def test_ordinary_packet_came_past_them_they_are_shown_it_where_the_server_has_closed(
    here: BackEnd, is_closing: bool, times: int
) -> None:
    here.programs.add(carried(ONE, is_closing=is_closing))
    here.sockets.present = [socket_of(ONE)]
    assert here.kernel.owns(segment())
    assert here.programs.shown == [segment().packet] * times


def test_packet_cannot_be_shown_it_is_the_sockets_all_the_same(here: BackEnd) -> None:
    here.programs.shows = False
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(ONE)]
    assert here.kernel.owns(segment(flags=ACK | FIN))


@pytest.mark.parametrize("whose", [None, Whose.AGENT])
def test_packet_of_no_connection_of_theirs_is_the_agents(here: BackEnd, whose: Whose | None) -> None:
    here.programs.add(*() if whose is None else (carried(ONE, whose),))
    here.sockets.present = [socket_of(ONE)]
    assert not here.kernel.owns(segment(flags=RST))
    assert here.programs.shown == []


@pytest.mark.parametrize("mark", [None, 0])
def test_their_socket_is_not_there_packet_is_the_agents(here: BackEnd, mark: int | None) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [] if mark is None else [socket_of(ONE, mark=mark)]
    assert not here.kernel.owns(segment(flags=RST))


# --- news


def test_news_of_ends_go_to_every_front_end_those_of_adoptions_to_the_one_that_asked(here: BackEnd) -> None:
    here.hears_of(OTHER_FRONT_END, 24, 1)
    over, held, strangers = fields_of(ONE), fields_of(identity(2)), fields_of(identity(3))
    here.programs.news_to_tell = [([over], [(24, held), (99, strangers)])]
    assert here.ticks(RENEW_S) == []
    assert here.fields == [
        (FRONT_END, Type.CLOSED, over.octets),
        (OTHER_FRONT_END, Type.CLOSED, over.octets),
        (OTHER_FRONT_END, Type.FLOWS, held.octets),
    ]


def test_adoptions_are_too_young_to_be_told_they_are_asked_for_again(here: BackEnd) -> None:
    now = clock.now()
    here.programs.waits = True
    here.kernel.on_tick(now + RENEW_S)
    assert here.kernel.next_deadline() == now + RENEW_S + COLLECT_S
    here.programs.waits = False
    here.kernel.on_tick(now + RENEW_S + COLLECT_S)
    assert here.kernel.next_deadline() > now + RENEW_S + 2 * COLLECT_S


def test_nobody_was_heard_yet_news_are_kept(here: BackEnd) -> None:
    here.kernel._frontends.clear()
    here.programs.news_to_tell = [([fields_of(ONE)], [])]
    here.ticks(RENEW_S)
    assert len(here.programs.news_to_tell) == 1


@pytest.mark.parametrize("shows", [True, False])
def test_packets_overtook_their_connections_all_are_let_go_whatever_the_kernel_says_to_some(
    here: BackEnd, shows: bool
) -> None:
    others = identity(2), identity(3)
    packets = [segment(ONE), segment(ONE, ACK | FIN), segment(others[0])]
    for each in (*packets, segment(identity(4))):
        here.holds(each)
    here.programs.shows = shows
    here.programs.news_to_tell = [([], [(RANK.sender, fields_of(ONE)), (RANK.sender, fields_of(*others))])]
    assert here.ticks(RENEW_S) == [Inject(each.packet) for each in packets]
    assert [octets for _, _, octets in here.fields] == [fields_of(ONE).octets, fields_of(*others).octets]
    assert here.agent.is_holding, "the last one's connection is not there yet"


def test_something_was_written_down_it_is_collected_for_a_while(here: BackEnd) -> None:
    now = clock.now()
    here.kernel._on_news()
    assert now + COLLECT_S <= here.kernel._tell_at <= clock.now() + COLLECT_S


def test_adoption_is_told_at_the_second_look_others_count_on_no_less() -> None:
    assert 2 * COLLECT_S == RELEASE_TIME_S < CONFIRM_TIME_S


def test_nothing_was_waited_for_what_is_written_down_ages_from_now_on(here: BackEnd) -> None:
    here.kernel._on_news()
    told_at = here.kernel._tell_at
    here.kernel._on_news()
    assert (here.programs.ages_counted, here.kernel._tell_at) == (1, told_at)


def test_something_is_collected_lease_is_renewed_nothing_is_told_earlier(here: BackEnd) -> None:
    here.programs.waits = True
    now = clock.now()
    here.kernel.on_tick(now + RENEW_S - COLLECT_S / 2)
    here.kernel._tell_at = now + RENEW_S + COLLECT_S / 2
    here.kernel.on_tick(now + RENEW_S)
    assert (here.programs.patience, here.kernel._tell_at) == ([], now + RENEW_S + COLLECT_S / 2)


@pytest.mark.parametrize("holds", [True, False])
def test_packets_are_held_that_may_be_of_the_youngest_adoptions_all_are_told(here: BackEnd, holds: bool) -> None:
    if holds:
        here.holds(segment())
    here.ticks(RENEW_S)
    assert here.programs.patience == [not holds]


def test_front_end_asked_once_more_it_is_answered_at_once(here: BackEnd) -> None:
    here.programs.answers_to_tell = [Answer(ONE, RANK.sender, SeqNum(5)), Answer(ONE, 99, SeqNum(5))]
    here.kernel._on_news()
    assert here.sent == [(FRONT_END, Adopted(ONE, SeqNum(5)))]


@pytest.mark.parametrize(("has_socket", "wanted"), [(True, Whose.PROGRAMS), (False, Whose.OVER)])
def test_clients_rst_may_have_ended_it_the_socket_tells(here: BackEnd, has_socket: bool, wanted: Whose) -> None:
    here.programs.add(carried(ONE))
    here.sockets.present = [socket_of(ONE)] if has_socket else []
    here.programs.answers_to_tell = [Answer(ONE, 0, SeqNum(0))]
    here.kernel._on_news()
    here.ticks(RENEW_S)
    assert here.programs.whose(ONE) is wanted


def test_clients_rst_was_of_the_connection_before_the_next_one_is_left_alone(here: BackEnd) -> None:
    here.programs.add(carried(ONE))
    here.programs.answers_to_tell = [Answer(EARLIER, 0, SeqNum(0))]
    here.kernel._on_news()
    here.ticks(RENEW_S)
    assert here.programs.whose(ONE) is Whose.PROGRAMS


def test_many_rsts_come_so_many_are_looked_for_at_a_time(here: BackEnd) -> None:
    here.programs.add(*(carried(identity(port)) for port in range(1, DOUBTED + 11)))
    here.programs.answers_to_tell = [Answer(identity(port), 0, SeqNum(0)) for port in range(1, DOUBTED + 11)]
    here.kernel._on_news()
    here.ticks(RENEW_S)
    assert len(here.sockets.looked_for) == DOUBTED


# --- time, peers, the end


def test_front_end_has_a_new_epoch_its_messages_get_another_table(here: BackEnd) -> None:
    for _ in range(2):
        here.hears_of(FRONT_END, RANK.sender, RANK.epoch + 1)
    tables = [table for *_, table in here.programs.tables]
    assert [each[:2] for each in here.programs.tables] == [(23, RANK.epoch), (23, RANK.epoch + 1)]
    assert len(set(tables)) == 2


def test_agent_is_full_nothing_is_adopted_and_again_when_it_is_not(
    here: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here.programs.adopts
    with monkeypatch.context() as patch:
        patch.setattr(here.agent, "_max_flows", 0)
        here.ticks(RENEW_S)
        assert not here.programs.adopts
    here.ticks(2 * RENEW_S)
    assert here.programs.adopts


def test_agent_ends_every_socket_at_its_addresses_is_destroyed_and_nothing_adopted(here: BackEnd) -> None:
    theirs = [socket_of(identity(port)) for port in (1, 2)]
    elsewhere = Identity(connection_key(CLIENT, 3, ip_address("198.18.0.77"), 80), ONE.irs, ONE.iss)
    others = [socket_of(identity(3), mark=0), socket_of(elsewhere)]
    here.sockets.present = [*theirs, *others]
    assert here.kernel.end_all() == 2
    here.ticks(RENEW_S)
    assert (here.sockets.destroyed, here.sockets.present, here.programs.adopts) == (theirs, others, False)


def test_agent_ends_what_cannot_be_destroyed_is_not_counted(here: BackEnd) -> None:
    first, second = here.sockets.present = [socket_of(identity(port)) for port in (1, 2)]
    here.sockets.kept = {first: None}
    assert here.kernel.end_all() == 1
    assert here.sockets.destroyed == [second]


def test_entry_tells_the_socket_from_the_next_one(here: BackEnd) -> None:
    """What the model calls the socket of a connection."""
    assert socket_of(ONE).cookie == carried(ONE).cookie != replace(carried(EARLIER)).cookie
    assert socket_of(ONE).mark == MARK == CONFIG.kernel_mark
