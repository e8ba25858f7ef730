"""The flow table and who carries its flows: what the carrier is told, when, and what is taken over from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from math import inf

import pytest

from tcpha.errors import EdgeError
from tcpha.fe.assembly import Assembly
from tcpha.fe.carriage import LATER_S, OVER_AT_ONCE, Carriage
from tcpha.fe.flows import ANSWERED, FORWARDED, HANDING, READING, Flow, FlowState, Pending
from tcpha.flowtable import FlowTable
from tcpha.kernel.fe_maps import BackEnd, Beginning
from tcpha.proto.cookie import Agreement, Cookie
from tcpha.proto.ip import ConnectionKey, connection_key
from tcpha.proto.messages import Identity
from tcpha.proto.seqnum import MASK, SeqNum, seq_add
from tcpha.proto.tcp import ACK, Segment, decode_segment, encode_segment
from tcpha.rules import Endpoint

NOW = 1000.0
NEAR, FAR = Endpoint(IPv4Address("198.18.0.33"), 666), Endpoint(IPv4Address("198.18.0.38"), 666)
CLIENT, VIP = IPv4Address("192.0.2.10"), IPv4Address("198.18.0.36")


@dataclass(frozen=True)
class Entry:
    """What the carrier below knows of a connection; `way` None: it is held."""

    identity: Identity
    way: BackEnd | None
    is_confirmed: bool
    period: int
    last_ack: SeqNum
    last_seen_s: float
    noted: tuple[SeqNum, ...]
    is_doubted: bool = False


class Carrier:
    """Carries nothing, but remembers what it was told, and how often."""

    def __init__(self, room: int = 1000) -> None:
        self.entries: dict[ConnectionKey, Entry] = {}
        self.calls: list[str] = []
        self.bursts: list[int] = []
        self.refuses: set[ConnectionKey] = set()
        self.forgets = True
        self.breaks_off = False
        self._room = room

    def carry(
        self, identity: Identity, backend: BackEnd, period: int, last_ack: int, last_seen_s: float,
        noted: Sequence[int] = (), *, confirmed: bool = True,
    ) -> bool:  # fmt: skip
        self.calls.append("carry" if confirmed else "hand")
        return self._enter(identity, backend, confirmed, period, last_ack, last_seen_s, noted)

    def begin_all(self, flows: Sequence[Beginning]) -> int:
        self.bursts.append(len(flows))
        if self.breaks_off:
            self.carry(*flows[0], confirmed=False)
            self.refuses = {each[0].key for each in flows}
            raise EdgeError("in the middle")
        done = 0
        for identity, *_ in flows:
            known = identity.key in self.entries or len(self.entries) < self._room
            if identity.key in self.refuses or not known:
                break
            self.carry(*flows[done], confirmed=False)
            done += 1
        return done

    def hold_flow(
        self, identity: Identity, period: int, last_ack: int, last_seen_s: float, noted: Sequence[int] = ()
    ) -> bool:
        self.calls.append("hold")
        return self._enter(identity, None, False, period, last_ack, last_seen_s, noted)

    def forget_all(self, keys: Iterable[ConnectionKey]) -> int:
        wanted = list(keys)
        if wanted:
            self.calls.append("forget")
        if not self.forgets:
            raise EdgeError("never")
        return sum(self.entries.pop(key, None) is not None for key in wanted)

    def look_up(self, key: ConnectionKey) -> Entry | None:
        self.calls.append("look up")
        return self.entries.get(key)

    def retain(self, backends: Collection[BackEnd]) -> list[tuple[BackEnd, Entry]]:
        kept = {key: each for key, each in self.entries.items() if each.way in backends}
        self.entries = kept
        return [(each.way, each) for each in kept.values() if each.way is not None]

    def _enter(
        self, identity: Identity, way: BackEnd | None, confirmed: bool, period: int, last_ack: int,
        last_seen_s: float, noted: Sequence[int],
    ) -> bool:  # fmt: skip
        if identity.key in self.refuses:
            raise EdgeError("no")
        if identity.key not in self.entries and len(self.entries) >= self._room:
            return False
        notes = tuple(map(SeqNum, noted))
        entry = Entry(identity, way, confirmed, period, SeqNum(last_ack), last_seen_s, notes)
        self.entries[identity.key] = entry
        return True

    def saw(self, key: ConnectionKey, **what: object) -> None:
        self.entries[key] = replace(self.entries[key], **what)  # type: ignore[arg-type]


class Bound:
    """A table, a carrier, what binds them."""

    def __init__(self, room: int = 1000, max_flows: int = 1000) -> None:
        self.table: FlowTable[Flow] = FlowTable(max_flows, 1000, 60.0)
        self.table.utc_s = 1_600_000_000.0
        self.carrier = Carrier(room)
        self.carriage = Carriage(self.table, (NEAR, FAR), self.carrier)

    def flow(self, port: int = 40_000, state: FlowState = FORWARDED, backend: Endpoint | None = NEAR) -> Flow:
        made = Flow.of(identity(port), 50_000_000, state, NOW)
        if backend is not None:
            made.assign(backend)
        self.table.insert(made, NOW)
        return made

    def settled(self, now: float = NOW) -> list[str]:
        """What the carrier was told when everything was settled."""
        self.carrier.calls.clear()
        self.carriage.settle(now)
        return self.carrier.calls

    def note(self, flow: Flow, *firsts: int) -> None:
        """The carrier saw SYNs on its ports."""
        self.carrier.entries[flow.key] = replace(self.entry(flow), noted=tuple(map(SeqNum, firsts)))

    def entry(self, flow: Flow) -> Entry:
        return self.carrier.entries[flow.key]


def identity(port: int, irs: int = 7) -> Identity:
    return Identity(connection_key(CLIENT, port, VIP, 80), SeqNum(irs), SeqNum(9000))


def segment(flow: Flow, acks: int = 0) -> Segment:
    """A packet of a flow; `acks`: so much more than the flow's own did."""
    packet = encode_segment(flow.key, SeqNum(8), seq_add(flow.last_ack, acks), ACK, 500)
    return decode_segment(packet)


@pytest.fixture
def bound() -> Bound:
    return Bound()


# --- what the carrier is told


@pytest.mark.parametrize("state", [READING, ANSWERED])
def test_flow_that_is_decided_here_is_held(bound: Bound, state: FlowState) -> None:
    flow = bound.flow(state=state, backend=None)
    assert bound.settled() == ["hold"]
    assert bound.entry(flow).identity == flow.identity


def test_request_is_handed_over_the_flow_is_carried_unconfirmed_by_one_call(bound: Bound) -> None:
    flow = bound.flow(state=READING, backend=None)
    flow.state = HANDING
    flow.assign(FAR)
    bound.table.mark_changed(flow)
    assert bound.settled() == ["hand"]
    assert bound.entry(flow).way == (FAR.addr.packed, 666)


def test_request_waits_for_a_back_end_its_flow_is_held(bound: Bound) -> None:
    bound.flow(state=HANDING, backend=None)
    assert bound.settled() == ["hold"]


def pending() -> Pending:
    start = SeqNum(8)
    cookie, assembly = Cookie(Agreement(1460, 7, True), 1, 9), Assembly(start, 65535)
    return Pending(cookie, assembly, start, start, start, 5, 5, 500, NOW + 10)


def test_segments_of_ours_follow_the_handoff_every_packet_comes_here(bound: Bound) -> None:
    """They are repeated with the client's latest TSval, which a bare acknowledgement may have."""
    flow = bound.flow(state=HANDING)
    flow.pending = pending()
    flow.pending.follows = True
    assert bound.settled() == ["hold"]


def test_request_is_given_to_another_back_end_behind_a_silent_one_every_packet_comes_here(bound: Bound) -> None:
    """What the client acknowledges, or echoes, may be of either."""
    flow = bound.flow(state=HANDING)
    flow.pending = pending()
    flow.pending.silent = (FAR,)
    assert bound.settled() == ["hold"]


def test_back_end_confirms_the_carrier_is_told_a_little_later(bound: Bound) -> None:
    flow = handed(bound)
    flow.state = FORWARDED
    bound.table.mark_changed(flow)
    assert bound.settled() == []
    assert bound.settled(NOW + LATER_S - 0.01) == []
    assert bound.settled(NOW + LATER_S) == ["look up", "carry"]
    assert bound.entry(flow).is_confirmed
    assert bound.settled(NOW + 9.0) == []


def test_back_end_confirms_and_the_next_octets_come_the_carrier_is_told_before_the_dispatcher(bound: Bound) -> None:
    flow = handed(bound)
    flow.state = FORWARDED
    bound.carriage.on_packet(segment(flow))
    assert bound.entry(flow).is_confirmed


def test_flow_ends_before_its_confirmation_was_told_it_costs_a_share_of_one_more_call(bound: Bound) -> None:
    flows = [handed(bound, 40_000 + number) for number in range(10)]
    for flow in flows:
        flow.state = FORWARDED
        bound.table.mark_changed(flow)
        bound.carriage.settle(NOW)
        bound.table.finish(flow, NOW)
    assert bound.settled() == []
    assert len(bound.carrier.entries) == 10
    assert bound.settled(NOW + LATER_S) == ["forget"]
    assert (bound.carrier.entries, bound.carriage.size) == ({}, 0)


def test_very_many_flows_end_they_are_not_kept_waiting(bound: Bound) -> None:
    flows = [handed(bound, 20_000 + number) for number in range(OVER_AT_ONCE)]
    for flow in flows:
        bound.table.finish(flow, NOW)
    assert bound.settled() == ["forget"]


def test_port_is_used_again_before_the_old_flow_is_forgotten_the_new_one_stays(bound: Bound) -> None:
    bound.table.finish(handed(bound), NOW)
    bound.carriage.settle(NOW)
    new = Flow.of(identity(40_000, irs=8), 50_000_000, HANDING, NOW)
    new.assign(FAR)
    bound.table.insert(new, NOW)
    assert bound.settled() == ["look up", "hand"]
    assert bound.settled(NOW + LATER_S) == []
    assert bound.entry(new).identity == new.identity


@pytest.mark.parametrize("is_over", [True, False])
def test_port_is_used_again_what_was_noted_there_meanwhile_is_noted_of_the_new_one(bound: Bound, is_over: bool) -> None:
    """The carrier answers SYNs: that of a third connection may have come before the second was handed over."""
    old = handed(bound)
    bound.note(old, 700, 9)
    if is_over:
        bound.table.finish(old, NOW)
        bound.carriage.settle(NOW)
    new = Flow.of(identity(40_000, irs=8), 50_000_000, HANDING, NOW)
    new.assign(FAR)
    bound.table.insert(new, NOW)
    bound.carriage.settle(NOW)
    assert new.noted == bound.entry(new).noted == (700, 9)


def test_handed_over_again_what_was_noted_of_it_stays_noted(bound: Bound) -> None:
    flow = handed(bound)
    bound.note(flow, 700)
    bound.table.mark_changed(flow)
    assert bound.settled() == ["look up", "hand"]
    assert flow.noted == bound.entry(flow).noted == (700,)


@pytest.mark.parametrize(("before", "after"), [(READING, FORWARDED), (READING, HANDING), (READING, READING)])
def test_flow_that_is_held_is_told_of_anew_what_was_noted_of_it_stays_noted(
    bound: Bound, before: FlowState, after: FlowState
) -> None:
    """Its ports may have been used again: the first octets of that connection are still under way to here."""
    flow = bound.flow(state=before)
    bound.carriage.settle(NOW)
    bound.note(flow, 700, 9)
    flow.state = after
    bound.table.mark_changed(flow)
    bound.carriage.settle(NOW)
    assert flow.noted == bound.entry(flow).noted == (700, 9)


@pytest.mark.parametrize("is_over", [True, False])
def test_port_of_a_carried_flow_is_read_from_again_what_was_noted_there_stays_noted(
    bound: Bound, is_over: bool
) -> None:
    old = bound.flow()
    bound.carriage.settle(NOW)
    bound.note(old, 700, 9)
    if is_over:
        bound.table.finish(old, NOW)
        bound.carriage.settle(NOW)
    new = Flow.of(identity(40_000, irs=8), 50_000_000, READING, NOW)
    bound.table.insert(new, NOW)
    bound.carriage.settle(NOW)
    assert new.noted == bound.entry(new).noted == (700, 9)


def test_flow_that_the_carrier_never_had_ends_nothing_is_told(bound: Bound) -> None:
    flow = bound.flow(state=READING, backend=None)
    bound.table.finish(flow, NOW)
    assert bound.settled() == []
    assert bound.settled(NOW + LATER_S) == []


def test_carrier_has_no_room_the_next_packet_is_another_try() -> None:
    bound = Bound(room=1)
    bound.flow(40_000)
    late = bound.flow(40_001)
    assert bound.settled() == ["carry", "carry"]
    bound.carrier.entries.clear()
    bound.carriage.on_packet(segment(late))
    assert bound.entry(late).is_confirmed


def test_carrier_refuses_a_flow_the_others_are_carried_and_it_is_tried_again(bound: Bound) -> None:
    flows = [bound.flow(40_000 + number, HANDING) for number in range(3)]
    bound.carrier.refuses.add(flows[0].key)
    assert bound.settled() == ["hand"] * 3
    assert bound.carrier.entries.keys() == {flow.key for flow in flows[1:]}
    assert (bound.carriage.faults, str(bound.carriage.take_fault())) == (1, "no")
    assert bound.carriage.take_fault() is None
    assert bound.carriage.next_deadline() == NOW + LATER_S
    bound.carrier.refuses.clear()
    assert bound.settled(NOW + LATER_S) == ["hand"]
    assert bound.carrier.entries.keys() == {flow.key for flow in flows}
    assert bound.carriage.next_deadline() == inf


def test_flows_are_handed_over_in_a_burst_the_carrier_is_told_by_one_call(bound: Bound) -> None:
    flows = [bound.flow(40_000 + number, HANDING) for number in range(3)]
    held = bound.flow(40_003, READING, None)
    assert bound.settled() == ["hand"] * 3 + ["hold"]
    assert bound.carrier.bursts == [3]
    assert {key for key, each in bound.carrier.entries.items() if each.way} == {flow.key for flow in flows}
    assert bound.entry(held).way is None


def test_flows_are_handed_over_in_a_burst_some_find_no_room_they_are_no_fault() -> None:
    bound = Bound(room=2)
    flows = [bound.flow(40_000 + number, HANDING) for number in range(3)]
    bound.carriage.settle(NOW)
    assert bound.carrier.entries.keys() == {flow.key for flow in flows[:2]}
    assert (bound.carriage.size, bound.carriage.faults) == (2, 0)


def test_call_for_a_burst_breaks_off_and_the_flows_end_nothing_stays_with_the_carrier(bound: Bound) -> None:
    flows = [bound.flow(40_000 + number, HANDING) for number in range(3)]
    bound.carrier.breaks_off = True
    bound.carriage.settle(NOW)
    assert (len(bound.carrier.entries), bound.carriage.faults) == (1, 3)
    for flow in flows:
        bound.table.remove(flow)
    bound.carriage.settle(NOW)
    bound.carriage.settle(NOW + LATER_S)
    assert (bound.carrier.entries, bound.carriage.size) == ({}, 0)


def test_carrier_cannot_forget_what_is_to_be_carried_is_carried(bound: Bound) -> None:
    over, stays = handed(bound, 40_000), handed(bound, 40_001)
    bound.table.finish(over, NOW)
    stays.state = FORWARDED
    bound.table.mark_changed(stays)
    bound.carriage.settle(NOW)
    bound.carrier.forgets = False
    assert bound.settled(NOW + LATER_S) == ["forget", "look up", "carry"]
    assert bound.entry(stays).is_confirmed
    assert bound.carriage.faults == 1


def test_flow_ends_or_is_confirmed_the_next_deadline_is_when_it_is_told(bound: Bound) -> None:
    first, second = handed(bound, 40_000), handed(bound, 40_001)
    assert bound.carriage.next_deadline() == inf
    bound.table.finish(first, NOW)
    bound.carriage.settle(NOW)
    second.state = FORWARDED
    bound.table.mark_changed(second)
    bound.carriage.settle(NOW + 0.01)
    assert bound.carriage.next_deadline() == NOW + LATER_S


def test_nobody_follows_any_more_nothing_is_told(bound: Bound) -> None:
    bound.carriage.end()
    flow = bound.flow()
    assert bound.settled() == []
    bound.table.refresh(flow)
    assert bound.carrier.calls == []


# --- what is taken over from it


def test_packet_comes_here_what_the_carrier_saw_is_taken_over(bound: Bound) -> None:
    flow = bound.flow()
    bound.carriage.settle(NOW)
    bound.carrier.saw(flow.key, last_ack=seq_add(flow.last_ack, 77), last_seen_s=NOW + 5, noted=(SeqNum(3),))
    bound.carriage.on_packet(segment(flow))
    assert (flow.last_ack, flow.last_seen, flow.noted) == (seq_add(identity(1).iss, 78), NOW + 5, (3,))


def test_idle_flow_is_looked_at_what_is_newer_here_stays(bound: Bound) -> None:
    flow = bound.flow()
    bound.carriage.settle(NOW)
    flow.last_seen, flow.last_ack = NOW + 9, seq_add(flow.last_ack, 1)
    bound.table.refresh(flow)
    assert (flow.last_seen, flow.last_ack) == (NOW + 9, seq_add(identity(1).iss, 2))


def test_carrier_has_lost_a_flow_its_next_packet_puts_it_back(bound: Bound) -> None:
    flow = bound.flow()
    bound.carriage.settle(NOW)
    bound.carrier.entries.clear()
    bound.carriage.on_packet(segment(flow))
    bound.carriage.settle(NOW)
    assert bound.entry(flow).is_confirmed


def test_carrier_doubts_a_flow_it_is_carried_again_once_the_dispatcher_has_decided(bound: Bound) -> None:
    flow = bound.flow()
    bound.carriage.settle(NOW)
    bound.carrier.saw(flow.key, is_doubted=True)
    bound.carriage.on_packet(segment(flow, acks=1 << 30))
    assert bound.entry(flow).is_doubted, "not before"
    assert bound.settled() == ["look up", "carry"]
    assert not bound.entry(flow).is_doubted


def test_carrier_doubts_a_flow_whose_confirmation_is_due_it_is_told_of_it_when_the_packet_has_come(
    bound: Bound,
) -> None:
    """To write the flow anew would end the doubt: what follows the packet would overtake it."""
    flow = handed(bound)
    flow.state = FORWARDED
    bound.table.mark_changed(flow)
    bound.carriage.settle(NOW)
    bound.carrier.saw(flow.key, is_doubted=True)
    bound.table.refresh(flow)
    assert bound.settled(NOW + LATER_S) == ["look up"]
    assert bound.settled(NOW + 2 * LATER_S) == ["look up"]
    bound.carriage.on_packet(segment(flow))
    assert bound.settled(NOW + 2 * LATER_S) == [], "one that was under way before it"
    bound.carriage.on_packet(segment(flow, acks=1 << 30))
    assert bound.entry(flow).is_doubted, "not before the dispatcher has decided"
    assert bound.settled(NOW + 2 * LATER_S) == ["look up", "carry"]
    assert bound.entry(flow).is_confirmed


def test_entry_is_of_an_older_connection_nothing_is_taken_over(bound: Bound) -> None:
    flow = bound.flow()
    bound.carriage.settle(NOW)
    bound.carrier.saw(flow.key, identity=identity(40_000, irs=1), last_seen_s=NOW + 5)
    bound.table.refresh(flow)
    assert flow.last_seen == NOW


# --- what outlives a process


def test_earlier_process_left_flows_they_are_entered_and_their_back_ends_are_to_be_asked() -> None:
    before, after = Bound(), Bound(max_flows=2)
    flows = [before.flow(40_000), before.flow(40_001, backend=FAR), before.flow(40_002)]
    before.carriage.settle(NOW)
    before.carrier.saw(flows[1].key, noted=(SeqNum(5),))
    after.carrier.entries = before.carrier.entries
    assert after.carriage.take_over(NOW + 1) == 2
    found = [after.table.by_key[flow.key] for flow in flows[:2]]
    assert [(each.identity, each.period, each.state, each.backend) for each in found] == [
        (flow.identity, flow.period, FORWARDED, flow.backend) for flow in flows[:2]
    ]
    assert [(each.retained, each.last_seen, each.noted) for each in found] == [(True, NOW, ()), (True, NOW, (5,))]
    assert after.carrier.entries.keys() == {flow.key for flow in flows[:2]}, "there was no room for the third"
    assert after.settled(NOW + 2) == []


def left_unconfirmed(**seen: object) -> tuple[Bound, Flow]:
    """A process that took over a flow of which the one before had not told that its back end has confirmed."""
    before, after = Bound(), Bound()
    flow = handed(before)
    before.carrier.saw(flow.key, **seen)
    after.carrier.entries = before.carrier.entries
    after.carriage.take_over(NOW + 1)
    found = after.table.by_key[flow.key]
    assert found.state is FORWARDED
    return after, found


def test_earlier_process_left_a_flow_unconfirmed_it_stays_so_until_its_back_end_says_that_it_has_it() -> None:
    """That process may have ended before its HANDOFF left; the next one has to know this, too."""
    after, flow = left_unconfirmed()
    assert flow.is_unsure
    assert after.settled(NOW + 2) == []
    after.carriage.on_packet(segment(flow))
    assert not after.entry(flow).is_confirmed
    flow.proven = True
    after.table.mark_changed(flow)
    after.carriage.settle(NOW + 3)
    after.carriage.settle(NOW + 3 + LATER_S)
    assert after.entry(flow).is_confirmed


@pytest.mark.parametrize("acknowledged", [-1, 0, 1 << 20, 1 << 31])
def test_earlier_process_left_a_flow_unconfirmed_with_a_guessed_acknowledgement_it_stays_so(acknowledged: int) -> None:
    _, flow = left_unconfirmed(last_ack=SeqNum((identity(1).iss + 1 + acknowledged) & MASK))
    assert flow.is_unsure


def test_earlier_process_left_a_flow_unconfirmed_but_the_client_has_heard_the_server_it_is_confirmed() -> None:
    after, flow = left_unconfirmed(last_ack=seq_add(identity(1).iss, 78))
    assert not flow.is_unsure
    after.carriage.settle(NOW + 2)
    assert after.settled(NOW + 2 + LATER_S) == ["look up", "carry"]
    assert after.entry(flow).is_confirmed


def handed(bound: Bound, port: int = 40_000) -> Flow:
    flow = bound.flow(port, HANDING)
    bound.carriage.settle(NOW)
    return flow
