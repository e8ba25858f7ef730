"""Segments in every state of a flow: whatever the program does with one, the front end's core decides alike."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcpha.fe.actions import PassOn, Send
from tcpha.fe.flows import STRANGE_OCTETS, Flow, FlowState
from tcpha.lab.waiting import wait_until
from tcpha.proto.cookie import PERIOD_S
from tcpha.proto.messages import Adopted, Identity
from tcpha.proto.options import ALIGNED_TIMESTAMPS
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import decode_segment
from tests.kernel.fe_rehearsal import DROPPED, MACS, PASSED_UP, REDIRECTED, Stage, Twins, frame_of
from tests.packet.fe_client import GET, GET_JPG, LINUX_SYN, PLAIN_SYN, Client
from tests.packet.fe_playbook import BE1, BE2, UTC

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("family", [4, 6])
OFFERS = pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])


# --- handshakes


@BOTH
@OFFERS
def test_handshake_ends_with_a_bare_ack_which_is_taken_out(fe_stage: Stage, family: int, offers: list[object]) -> None:
    twins, client = Twins(fe_stage), Client(family, offers=offers)
    twins.shake(client)
    outcome, _ = twins.see(client.ack())
    assert (outcome.verdict, outcome.count) == (DROPPED, "handshakes")


@BOTH
def test_handshake_is_followed_by_a_request_which_is_passed_up(fe_stage: Stage, family: int) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.shake(client)
    outcome, decision = twins.see(client.sends(GET))
    assert (outcome.verdict, outcome.count) == (PASSED_UP, "up_unknown")
    assert any(isinstance(action, Send) for action in decision.actions)


@pytest.mark.parametrize("stimulus", ["fin", "rst", "probe", "past", "wrong echo"])
def test_handshake_is_followed_by_what_needs_a_decision_it_is_passed_up(fe_stage: Stage, stimulus: str) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.shake(client)
    packets = {
        "fin": client.fin(), "rst": client.rst(), "probe": client.probe(), "past": client.ack(acks=256),
        "wrong echo": client.ack(options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]),
    }  # fmt: skip
    assert twins.see(packets[stimulus])[0].count == "up_unknown"


@pytest.mark.parametrize("acks", [1, 8, 100])
def test_handshake_ends_with_an_ack_that_is_a_little_off_program_and_core_agree(fe_stage: Stage, acks: int) -> None:
    """The hash does not cover the lowest bits: another agreement, which the promise may not allow."""
    for promise in ("", "sack = no", "window_scale = none"):
        twins, client = Twins(fe_stage, promise), Client()
        twins.shake(client)
        twins.see(client.ack(acks=acks))


def test_handshake_ends_with_timestamps_elsewhere_the_ack_is_passed_up(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.shake(client)
    outcome, decision = twins.see(client.ack(options=[("Timestamp", (client.tsval, client.tsecr)), ("EOL", None)]))
    assert outcome.count == "up_form"
    assert decision.counted == ("handshakes",)


# --- flows that a back end has


@BOTH
@OFFERS
@pytest.mark.parametrize("request_octets", [GET, GET_JPG])
def test_forwarded_segments_go_to_the_back_end_as_they_are(
    fe_stage: Stage, family: int, offers: list[object], request_octets: bytes
) -> None:
    twins, client = Twins(fe_stage), Client(family, offers=offers)
    backend = twins.forward(client, request_octets)
    assert backend == (BE2 if request_octets is GET_JPG else BE1)
    at = len(request_octets)
    for packet in (
        client.ack(at, 1), client.ack(at, 1448), client.sends(b"x", at, 1448), client.sends(b"z" * 1400, at + 1, 1448),
        client.sends(request_octets, acks=1), client.fin(at + 1401, 2000), client.rst(at), client.rst(at, 3, "RA"),
        client.packet(b"abc", flags=""),
    ):  # fmt: skip
        outcome, _ = twins.see(packet)
        assert (outcome.verdict, outcome.count) == (REDIRECTED, "forwarded")
        assert outcome.frame[:6] == MACS[backend]


@BOTH
def test_forwarded_stranger_sends_syns_the_flow_goes_on(fe_stage: Stage, family: int) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.forward(client, GET)
    at = len(GET)
    for irs in (7, 7, 8, 9, seq_add(SeqNum(client.irs), at), 9):
        assert twins.see(Client(family, irs=irs).syn())[0].count == "syns"
        assert twins.see(client.ack(at, 100))[0].count == "forwarded"
        assert twins.see(client.sends(b"x", at, 100))[0].count == "forwarded"
    known = fe_stage.forwarder.look_up(client.key)
    assert known is not None
    # The first of them noted again where two others had come since: none is there twice.
    assert known.noted == (seq_add(SeqNum(client.irs), at + 1), 10)


@BOTH
def test_forwarded_stranger_sends_rst_and_data_anywhere_the_flow_goes_on(fe_stage: Stage, family: int) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.forward(client, GET)
    for seq, ack in ((1, 1), (0xFFFFFFFF, 0x80000000), (client.irs + 1, 12345)):
        twins.see(client.packet(b"x", seq=seq, ack=ack, flags="PA"))
        twins.see(client.packet(seq=seq, ack=ack, flags="RA"))
        assert twins.see(client.ack(len(GET), 1))[0].count == "up_reused", "strange behind the stranger's"
        assert twins.see(client.ack(len(GET), 1))[0].count == "forwarded"


@BOTH
def test_forwarded_strange_segment_what_follows_does_not_overtake_it_unless_nobody_decides(
    fe_stage: Stage, family: int
) -> None:
    """The first octets of a new connection may be under way to the core while its next segments come."""
    twins, client = Twins(fe_stage), Client(family)
    backend = twins.forward(client, GET)
    flow = twins.flow(client.key)
    assert flow is not None
    strange, usual = client.ack(len(GET), 1 << 30), client.ack(len(GET), 1)
    assert [fe_stage.run(frame_of(each)).count for each in (strange, usual, strange)] == ["up_reused"] * 3
    known = fe_stage.forwarder.look_up(client.key)
    assert known is not None
    assert known.is_doubted
    assert wait_until(lambda: fe_stage.run(frame_of(strange)).count == "forwarded", 3.0)
    assert fe_stage.run(frame_of(strange)).frame[:6] == MACS[backend]


@BOTH
def test_forwarded_port_is_reused_the_ack_is_taken_out_and_the_request_passed_up(fe_stage: Stage, family: int) -> None:
    twins, old = Twins(fe_stage), Client(family)
    twins.forward(old, GET)
    new = Client(family, irs=0x70000000)
    twins.shake(new)
    assert twins.see(new.ack())[0].count == "handshakes"
    outcome, decision = twins.see(new.sends(GET))
    assert outcome.count == "up_reused"
    assert "ports_reused" in decision.counted


def test_forwarded_port_is_reused_behind_another_front_end_the_request_is_passed_up(fe_stage: Stage) -> None:
    """No SYN was seen here: the acknowledgement is too strange for the flow."""
    new = Client(irs=0x70000000)
    Twins(fe_stage).shake(new)
    twins = Twins(fe_stage)
    twins.forward(Client(), GET)
    assert twins.see(new.ack())[0].count == "handshakes"
    assert twins.see(new.sends(GET))[0].count == "up_reused"


def port_reused_unseen(fe_stage: Stage, away: int) -> tuple[Twins, Client, Flow]:
    """A client on the ports of a forwarded flow whose SYN the twins have not seen, and that flow.

    What the client acknowledges is `away` from what was acknowledged last.
    """
    new = Client(irs=0x70000000)
    Twins(fe_stage).shake(new)
    twins = Twins(fe_stage)
    twins.forward(Client(), GET)
    flow = twins.flow(new.key)
    assert flow is not None
    flow.last_ack = SeqNum((new.iss + 1 - away) & 0xFFFFFFFF)
    return twins, new, flow


@pytest.mark.parametrize("away", [-STRANGE_OCTETS - 1, -STRANGE_OCTETS, 0, STRANGE_OCTETS, STRANGE_OCTETS + 1])
def test_forwarded_acknowledgement_at_the_border_of_what_is_strange_program_and_core_agree(
    fe_stage: Stage, away: int
) -> None:
    twins, new, _ = port_reused_unseen(fe_stage, away)
    twins.enter(new.key)
    is_strange = abs(away) > STRANGE_OCTETS
    assert twins.see(new.sends(GET))[0].count == ("up_reused" if is_strange else "forwarded")


@pytest.mark.parametrize(("heard", "away"), [(0, 0), (0, -1), (5, -5), (5, -6), (STRANGE_OCTETS, -STRANGE_OCTETS)])
def test_forwarded_acknowledgement_of_what_was_before_the_connection_program_and_core_agree(
    fe_stage: Stage, heard: int, away: int
) -> None:
    """The server has sent `heard` octets; what is acknowledged is `away` from them."""
    twins, new, flow = port_reused_unseen(fe_stage, away)
    flow.identity = Identity(flow.key, flow.identity.irs, SeqNum((flow.last_ack - 1 - heard) & 0xFFFFFFFF))
    twins.enter(new.key)
    assert twins.see(new.sends(GET))[0].count == ("up_reused" if -away > heard else "forwarded")


def test_forwarded_port_is_reused_and_the_cookie_happens_to_be_the_same_the_request_is_passed_up(
    fe_stage: Stage,
) -> None:
    twins, new = Twins(fe_stage), Client(irs=0x70000000)
    twins.forward(Client(), GET)
    twins.shake(new)
    flow = twins.flow(new.key)
    assert flow is not None
    flow.identity = Identity(flow.key, flow.identity.irs, SeqNum(new.iss))
    twins.enter(new.key)
    assert twins.see(new.sends(GET))[0].count == "up_reused"


def test_forwarded_strange_acknowledgement_with_odd_options_is_passed_up(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    odd = [("Timestamp", (client.tsval, client.tsecr)), ("EOL", None)]
    assert twins.see(client.sends(b"x", len(GET), 1 << 30, options=odd))[0].count == "up_form"
    assert twins.see(client.sends(b"x", len(GET), 1, options=odd))[0].count == "up_form"  # far from the one before
    assert twins.see(client.sends(b"x", len(GET), 2, options=odd))[0].count == "forwarded"


def test_forwarded_last_seen_and_last_ack_stand_in_the_table(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    before = fe_stage.forwarder.look_up(client.key)
    twins.see(client.ack(len(GET), 777))
    after = fe_stage.forwarder.look_up(client.key)
    assert before is not None
    assert after is not None
    assert after.last_ack == seq_add(SeqNum(client.iss), 778)
    assert twins.now - 0.1 < after.last_seen_s < twins.now + 30


def test_forwarded_back_end_without_a_way_segments_are_passed_up(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    backend = twins.forward(client, GET)
    fe_stage.forwarder.close_way((backend.addr.packed, backend.port))
    assert twins.see(client.ack(len(GET), 1))[0].count == "up_way"
    fe_stage.forwarder.set_neighbour((backend.addr.packed, backend.port), MACS[backend])
    assert twins.see(client.ack(len(GET), 1))[0].count == "forwarded"


def test_forwarded_back_end_whose_way_was_never_set_segments_are_passed_up(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    flow = twins.flow(client.key)
    assert flow is not None
    unknown = (BE1.addr.packed, 7777)
    assert fe_stage.forwarder.carry(flow.identity, unknown, flow.period, flow.last_ack, flow.last_seen)
    assert twins.see(client.ack(len(GET), 1))[0].count == "up_way"


def test_forwarded_nobody_renews_the_lease_the_flow_goes_on(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    fe_stage.forwarder.hold()
    assert twins.see(client.ack(len(GET), 1))[0].count == "forwarded"


# --- flows that are the core's


@BOTH
def test_handed_flow_its_octets_are_passed_up_and_everything_else_is_forwarded(fe_stage: Stage, family: int) -> None:
    """Until the back end confirms the core has to know how far the client went on."""
    twins, client = Twins(fe_stage), Client(family)
    twins.shake(client)
    twins.see(client.sends(GET))
    known = fe_stage.forwarder.look_up(client.key)
    assert known is not None
    assert not known.is_held
    assert not known.is_confirmed
    at = len(GET)
    assert twins.see(client.ack(at, 0))[0].count == "forwarded"
    assert twins.see(client.sends(b"x", at, 0))[0].count == "up_held"
    assert twins.see(Client(family, irs=5).syn())[0].count == "syns"
    assert twins.see(client.fin(at + 1, 0))[0].count == "forwarded"
    assert twins.see(client.sends(GET))[0].count == "up_held"
    assert twins.see(client.rst(at + 2))[0].count == "forwarded"


@BOTH
def test_held_flow_gets_its_syns_answered_and_everything_else_is_passed_up(fe_stage: Stage, family: int) -> None:
    twins, client = Twins(fe_stage), Client(family)
    twins.shake(client)
    twins.see(client.sends(GET[:9]))
    assert twins.see(client.ack())[0].count == "up_held"
    assert twins.see(Client(family, irs=5).syn())[0].count == "syns"
    assert twins.see(client.sends(GET[9:12], 9))[0].count == "up_held"
    known = fe_stage.forwarder.look_up(client.key)
    assert known is not None
    assert (known.is_held, known.noted) == (True, (6,))


@BOTH
def test_held_flow_port_is_reused_the_ack_is_taken_out_and_the_request_passed_up(fe_stage: Stage, family: int) -> None:
    twins, old, new = Twins(fe_stage), Client(family), Client(family, irs=0x70000000)
    twins.forward(old, GET)
    twins.close(old)
    twins.shake(new)
    assert twins.see(new.ack())[0].count == "handshakes"
    outcome, decision = twins.see(new.sends(GET))
    assert outcome.count == "up_held"
    assert "ports_reused" in decision.counted


def test_finished_flow_that_is_forgotten_its_last_segments_are_passed_up(fe_stage: Stage) -> None:
    twins, client = Twins(fe_stage), Client()
    twins.forward(client, GET)
    twins.close(client)
    fe_stage.forwarder.forget(client.key)
    for packet in (client.ack(len(GET), 1), client.fin(len(GET), 1), client.rst(len(GET), 1)):
        outcome, decision = twins.see(packet)
        assert outcome.count == "up_unknown"
        assert [type(action) for action in decision.actions] == [PassOn]
        fe_stage.forwarder.forget(client.key)


# --- any sequence


@dataclass
class Script:
    """Two connections on the same ports, and what a stranger sends: drawn by `Random`, so that it can be replayed."""

    twins: Twins
    random: Random
    family: int

    def __post_init__(self) -> None:
        offers = self.random.choice((LINUX_SYN, PLAIN_SYN))
        self.clients = [
            Client(self.family, irs=self.random.choice((0xFFFFFF00, 1000, self.random.getrandbits(32))), offers=offers)
            for _ in range(2)
        ]
        self.utc_s = UTC

    def step(self) -> None:
        client = self.random.choice(self.clients)
        self.random.choices((self.arrive, self.adopt, self.close, self.pass_time), (20, 4, 1, 1))[0](client)

    def arrive(self, client: Client) -> None:
        packet = self.packet(client)
        key = decode_segment(packet).key
        flow = self.twins.flow(key)
        before = None if flow is None else flow.state
        is_strange = flow is not None and flow.is_strange(decode_segment(packet).seg_ack)
        known = self.twins.stage.forwarder.look_up(key)
        outcome, decision = self.twins.see(packet)
        if outcome.count == "syns":
            client.hears(outcome.packet)
        if decision.fault is not None or before not in (None, FlowState.FORWARDED):
            return
        segment = decode_segment(packet)
        options = packet[segment.tcp_offset + 20 : segment.payload_offset]
        is_plain = not options or options.startswith(ALIGNED_TIMESTAMPS)
        if is_plain and decision.counted == ("forwarded",):
            expected = {"forwarded", "up_reused"} if is_strange else {"forwarded"}
            if known is not None and not known.is_confirmed:  # the core has seen a proof, the program was not told
                expected.add("up_held")
            assert outcome.count in expected
        if is_plain and decision.counted == ("handshakes",):
            assert outcome.verdict == DROPPED

    def packet(self, client: Client) -> bytes:
        random = self.random
        at = random.choice((0, 0, 0, -1, 1, 9, len(GET), len(GET) + 5, random.getrandbits(32)))
        acks = random.choice((0, 0, 0, 1, 7, 200, 1448, 1 << 20, (1 << 20) + 1, -(1 << 20), random.getrandbits(32)))
        payload = random.choice((b"", b"", GET, GET_JPG, GET[:9], GET[9:], b"x", b"z" * 1400))
        flags = random.choice(("A", "A", "PA", "PA", "FA", "RA", "R", "", "F", "PAU", "S", "S", "SA", "SF"))
        if "S" in flags:
            return client.syn(flags=flags, seq=random.choice((client.irs, client.irs, random.getrandbits(32))))
        if random.random() < 0.1:
            odd = random.choice(([], [("Timestamp", (5, client.tsecr)), ("EOL", None)], [("SAck", (1, 2))]))
            return client.sends(payload, at, acks, flags, options=odd)
        return client.sends(payload, at, acks, flags)

    def adopt(self, client: Client) -> None:
        flow = self.twins.flow(client.key)
        if flow is not None and flow.backend is not None and flow.state is FlowState.HANDING:
            rcv_nxt = seq_add(flow.identity.irs, 1 + 2000)
            self.twins.core.on_message(flow.backend, Adopted(flow.identity, rcv_nxt), self.twins.now)
            self.twins.enter(client.key)

    def close(self, client: Client) -> None:
        flow = self.twins.flow(client.key)
        if flow is not None and flow.backend is not None:
            self.twins.close(client)

    def pass_time(self, _client: Client) -> None:
        self.utc_s += self.random.choice((1, PERIOD_S, 2 * PERIOD_S))
        self.twins.tell(self.utc_s)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((4, 6)), st.integers(0, 1 << 32), st.sampled_from(("", "sack = no", "max_flows = 1")))
def test_any_sequence_of_segments_program_and_core_agree(
    fe_stage: Stage, family: int, seed: int, settings_text: str
) -> None:
    script = Script(Twins(fe_stage, settings_text), Random(seed), family)
    for client in script.clients:
        if script.random.random() < 0.7:
            script.twins.shake(client)
            if script.random.random() < 0.7:
                script.twins.see(client.sends(GET))
                script.adopt(client)
    for _ in range(25):
        script.step()


def test_script_reaches_what_it_is_for(fe_stage: Stage) -> None:
    """Else the property above would show nothing."""
    seen: set[str] = set()
    for seed in range(40):
        script = Script(Twins(fe_stage), Random(seed), 4)
        see = script.twins.see

        def watch(packet: bytes, see=see):  # type: ignore[no-untyped-def]
            outcome, decision = see(packet)
            seen.add(outcome.count)
            return outcome, decision

        script.twins.see = watch  # type: ignore[method-assign]
        script.twins.shake(script.clients[0])
        script.twins.see(script.clients[0].sends(GET))
        script.adopt(script.clients[0])
        for _ in range(40):
            script.step()
    wanted = {"syns", "handshakes", "forwarded", "dropped_flags", "up_form", "up_unknown", "up_held", "up_reused"}
    assert seen >= wanted, wanted - seen
