"""ICMP errors about packets that left for clients: the back end that sent them hears of it, and nobody else."""

from __future__ import annotations

import pytest

from tcpha.fe.actions import Forward, LeaveToHost, PassOn, Reply
from tcpha.fe.flows import FlowState
from tests.packet.fe_client import GET, LINUX_SYN, PLAIN_SYN, dissect, tcp_options
from tests.packet.fe_playbook import BE1, After, Playbook, anything, gets
from tests.packet.fe_states import BRING_TO


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("state", [FlowState.HANDING, FlowState.FORWARDED, FlowState.FINISHED])
def test_flow_of_a_back_end_icmp_error_passed_on(state: FlowState, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    BRING_TO[state](book, client)
    flow = book.flow(client)
    before = (flow.deadline, flow.last_seen, flow.last_ack, flow.proven)
    book >> client.icmp_error() << PassOn(BE1)
    assert book.dispatcher.counters.icmp_errors == 1
    assert book.flow(client).state is state
    assert (flow.deadline, flow.last_seen, flow.last_ack, flow.proven) == before, "anybody may have sent it"


@pytest.mark.parametrize("state", [FlowState.READING, FlowState.ANSWERED])
def test_flow_of_no_back_end_icmp_error_left_to_the_host(state: FlowState, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    BRING_TO[state](book, client)
    book >> client.icmp_error() << LeaveToHost()


def test_nothing_icmp_error_left_to_the_host(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.icmp_error() << LeaveToHost()
    assert book.dispatcher.counters.icmp_errors == 0
    assert not book.knows(client)


def test_icmp_error_about_a_packet_of_the_client_left_to_the_host(family: int) -> None:
    """It quotes the other direction: no back end has sent that."""
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET) << anything
    turned = book.client(family, port=80)
    turned.iss = client.iss
    book >> turned.icmp_error() << LeaveToHost()


# --- a tunnel takes room


@pytest.mark.parametrize(
    ("settings", "mtu_octets", "mss"),
    [
        ("", 1500, 1460),
        ("forward = tunnel", 1500, 1440),
        ("forward = tunnel", 1520, 1460),
        ("forward = tunnel\nmss = 8960", 9000, 8940),
        ("forward = tunnel\nmss = 536", 1500, 536),
        ("mss = 8960", 1500, 1460),
    ],
)
def test_nothing_syn_answered_with_the_mss_that_fits(settings: str, mtu_octets: int, mss: int, family: int) -> None:
    book = Playbook(settings, mtu_octets=mtu_octets)
    client = book.client(family)
    book >> client.syn() << anything
    (reply,) = book.actions
    assert isinstance(reply, Reply)
    assert tcp_options(dissect(reply.packet))["MSS"] == mss - (0 if family == 4 else 20)


@pytest.mark.parametrize(("settings", "carried_octets"), [("", 1500), ("forward = tunnel", 1480)])
def test_reading_octets_beyond_the_datagram_handed_over_in_packets_that_fit(
    settings: str, carried_octets: int, family: int
) -> None:
    book = Playbook(settings)
    client = book.connected(family)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 6000 + b"\r\n\r\n"
    for start in range(0, len(head), 1400):
        book >> client.sends(head[start : start + 1400], start) << anything
    sizes = [len(action.packet) for action in book.actions if isinstance(action, Forward)]
    assert max(sizes) == carried_octets


@pytest.mark.parametrize(("settings", "carried_octets"), [("", 1500), ("forward = tunnel", 1480)])
@pytest.mark.parametrize("stamps", [True, False])
def test_reading_window_is_of_whole_segments_that_fit(
    settings: str, carried_octets: int, stamps: bool, family: int
) -> None:
    """As long as there is room for them: the client fills what it is offered with segments of its MSS."""
    book = Playbook(settings)
    client = book.connected(family, offers=LINUX_SYN if stamps else PLAIN_SYN)
    segment_octets = carried_octets - (40 if family == 4 else 60) - (12 if stamps else 0)
    offered = 65535 // segment_octets * segment_octets
    shown = -(-offered // 128) if stamps else offered  # what a SYN without options offers is never scaled
    book >> client.sends(GET[:9]) << anything >> After(0.01) << gets(client, "A", 0, 9, window=shown)
