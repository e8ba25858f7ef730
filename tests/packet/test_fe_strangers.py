"""A stranger who knows four-tuples and nothing else, or guesses well: in every state the flow and its client go on.

RFC 5961 for what a guess is worth. What the front end says because of a forgery reaches the client, so that must be
harmless, too: a SYN-ACK, which a synchronized client answers with an acknowledgement, or an acknowledgement that says
nothing new.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from tcpha.fe.actions import PassOn, Reply, Send
from tcpha.fe.flows import Flow, FlowState
from tcpha.proto.messages import Adopted, Closed, Handoff
from tcpha.proto.seqnum import seq_add
from tests.packet.fe_client import GET, MASK, POST, Client, dissect
from tests.packet.fe_playbook import BE1, After, Playbook, Says, Stop, anything, gets, gets_rst, nothing
from tests.packet.fe_states import BRING_TO, SENT

LIVE = [state for state in FlowState if state is not FlowState.FINISHED]
OWN = (FlowState.READING, FlowState.ANSWERED)
"""States in which the front end itself judges segments; in the others the server's TCP does."""


def brought(state: FlowState, family: int, settings: str = "") -> tuple[Playbook, Client, Flow]:
    book = Playbook(settings)
    client = book.connected(family)
    BRING_TO[state](book, client)
    return book, client, book.flow(client)


def standing(flow: Flow) -> tuple[object, ...]:
    """All of a flow that a stranger must not change."""
    pending = flow.pending
    own = (pending.acknowledged, pending.delivered, pending.assembly.rcv_nxt, pending.assembly.fin) if pending else ()
    return flow.state, flow.identity, flow.backend, flow.deadline, flow.proven, *own


def check_harmless(book: Playbook, client: Client, sent: int) -> None:
    """Whatever the front end said to the client because of a forgery must not impress its TCP."""
    for action in book.actions:
        if isinstance(action, Reply):
            tcp = dissect(action.packet)[TCP]
            assert str(tcp.flags) in ("A", "SA"), "a RST, a FIN or octets"
            assert not tcp.payload
            if tcp.flags == "A":
                assert (tcp.ack - client.irs - 1) & MASK <= sent, "octets acknowledged that were never sent"
        else:
            assert isinstance(action, PassOn), action


def goes_on(book: Playbook, client: Client, state: FlowState) -> None:
    """The client ends what it began, as if nobody had interfered."""
    flow = book.flow(client)
    if state is FlowState.READING:
        book >> client.sends(GET[9:], 9) << anything
        assert [type(action.message) for action in book.actions if isinstance(action, Send)] == [Handoff]
        assert book.flow(client) is flow
    if state is FlowState.ANSWERED:
        end = len(client.octets) + 1
        book >> client.ack(SENT[state], end) << nothing >> client.fin(SENT[state], end) << gets(client, "A", end, 5)
        assert flow.state is FlowState.FINISHED
        return
    if flow.state is FlowState.HANDING:
        book >> Says(BE1, Adopted(flow.identity, seq_add(flow.identity.irs, 1 + len(GET)))) << nothing
    book >> client.fin(len(GET), 5000) << PassOn(BE1)
    book >> Says(BE1, Closed((flow.identity,))) << nothing
    assert flow.state is FlowState.FINISHED


# --- without plausible numbers


FLAGS = ["R", "RA", "S", "SA", "F", "FA", "PA", "A", "", "FSRPAU", "U"]


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("flags", FLAGS)
def test_live_state_forged_segment_with_implausible_numbers_changes_nothing(
    state: FlowState, flags: str, family: int
) -> None:
    book, client, flow = brought(state, family)
    before, iss = standing(flow), client.iss
    for seq in (0x7FFF0000, 5, (client.irs - 70000) & MASK, (client.irs + 1 + 200_000) & MASK):
        for ack in (0, 0x12345678):
            for payload in (b"", b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"):
                book >> client.packet(payload, seq=seq, ack=ack, flags=flags) << anything
                check_harmless(book, client, SENT[state])
    client.iss = iss
    assert standing(book.flow(client)) == before
    assert book.flow(client) is flow
    goes_on(book, client, state)


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.sampled_from(LIVE), st.sampled_from([4, 6]))
def test_live_state_any_forged_segments_change_nothing(random: Random, state: FlowState, family: int) -> None:
    """Numbers from everywhere, but no acknowledgement of what the virtual server really sent, and no exact RST."""
    book, client, flow = brought(state, family)
    before, iss = standing(flow), client.iss
    for _ in range(20):
        seq = random.choice((random.randrange(MASK), client.irs + 2 + SENT[state] + random.randrange(1 << 20)))
        ack = random.choice((0, random.randrange(MASK), iss - 1 - random.randrange(1 << 16)))
        payload = random.choice((b"", b"x", GET, POST, bytes(1400)))
        flags = random.choice(FLAGS)
        book >> client.packet(payload, seq=seq & MASK, ack=ack & MASK, flags=flags) << anything
        check_harmless(book, client, SENT[state])
    client.iss = iss
    assert standing(book.flow(client)) == before
    goes_on(book, client, state)


# --- with plausible numbers


@pytest.mark.parametrize("state", OWN)
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_own_state_rst_is_judged_by_rfc_5961(state: FlowState, flags: str, family: int) -> None:
    book, client, _ = brought(state, family)
    sent = SENT[state]
    for distance in (1, 99, 65534):
        book >> client.rst(sent + distance, flags=flags) << anything
        (challenge,) = book.actions
        assert isinstance(challenge, Reply)
        assert dissect(challenge.packet)[TCP].flags == "A"
        check_harmless(book, client, sent)
    for distance in (-1, -sent, 65536, 1 << 20, (1 << 31) - 1):
        book >> client.rst(sent + distance, flags=flags) << nothing
    assert book.flow(client).state is state
    book >> client.rst(sent, flags=flags) << nothing
    assert not book.knows(client) or book.flow(client).is_over


@pytest.mark.parametrize("state", [FlowState.HANDING, FlowState.FORWARDED])
@pytest.mark.parametrize("flags", ["R", "RA"])
@pytest.mark.parametrize("distance", [0, 1, 65534, 1 << 20, -1])
def test_forwarding_state_rst_is_for_the_server_to_judge(
    state: FlowState, flags: str, distance: int, family: int
) -> None:
    """Nothing ends here: the back end tells when the server's TCP has believed it."""
    book, client, flow = brought(state, family)
    before = standing(flow)
    book >> client.rst(len(GET) + distance, flags=flags) << PassOn(BE1)
    assert standing(flow) == before


@pytest.mark.parametrize("state", OWN)
def test_own_state_octets_inside_the_window_with_a_wrong_acknowledgement_are_not_taken(
    state: FlowState, family: int
) -> None:
    """RFC 5961, 5: who inserts octets must acknowledge what was really sent, too."""
    book, client, flow = brought(state, family)
    before, sent = standing(flow), SENT[state]
    for at in (sent, sent - 1, sent + 1, sent + 1000):
        for acks in (1 << 16, -1, -70000):
            for flags in ("PA", "FA"):
                book >> client.sends(b"inserted", at, acks, flags) << anything
                check_harmless(book, client, sent)
    assert standing(flow) == before
    goes_on(book, client, state)


def test_handing_octets_of_a_stranger_do_not_end_the_repeats(family: int) -> None:
    book, client, flow = brought(FlowState.HANDING, family)
    for at in (-70000, 70000, 1 << 30):
        book >> client.ack(at, 5000) << PassOn(BE1)
    assert not flow.proven
    book >> After(0.06) << anything
    assert [type(action.message) for action in book.actions if isinstance(action, Send)] == [Handoff]


# --- what a stranger could spoil for later


@pytest.mark.parametrize("flags", ["R", "", "F"])
def test_forwarded_segment_without_ack_does_not_tell_where_the_client_is(flags: str, family: int) -> None:
    """A front end that stops resets its clients at their last acknowledgement."""
    book, client, _ = brought(FlowState.FORWARDED, family)
    book >> client.ack(len(GET), 777) << PassOn(BE1)
    book >> client.packet(seq=5, ack=99, flags=flags) << PassOn(BE1)
    book >> Stop() << [gets_rst(client, 777), Send(BE1, Closed((client.identity,)))]


@pytest.mark.parametrize("state", FlowState)
def test_any_state_hundreds_of_forged_segments_cost_no_memory(state: FlowState) -> None:
    book, client, flow = brought(state, 4)
    random = Random(1)
    for _ in range(300):
        ends = {"seq": random.randrange(MASK), "ack": random.randrange(MASK)}
        book >> client.packet(b"x", flags=random.choice(("S", "PA", "RA")), **ends) << anything
    assert len(book.dispatcher.table) == 1
    assert len(flow.noted) <= 2
    assert len(book.dispatcher._enquiries) == 0
