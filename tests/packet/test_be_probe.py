"""The probe through the agent: what the front ends learn of the host's TCP and of the server."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.proto.messages import Capabilities, Server, ServerState
from tests.packet.be_playbook import VIPS, Event, Playbook, announce, dissect, ip_layer

SOURCES = {4: "192.168.1.39", 6: "2001:db8::39"}
OPTIONS: list[Any] = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 1)), ("NOP", None), ("WScale", 7)]


class ProbedPlaybook(Playbook):
    """An agent as it starts; injected probes are kept, by address family."""

    def __init__(self, lines: str = "probe_time = 1\n") -> None:
        self.probes: dict[int, Any] = {}
        super().__init__(4, lines)

    def injected(self, packet: bytes) -> None:
        self.probes[packet[0] >> 4] = dissect(packet)[TCP]

    def answers(self, family: int, flags: str = "SA", options: list[Any] | None = None) -> list[Event]:
        syn = self.probes[family]
        tcp = TCP(
            sport=80, dport=syn.sport, seq=9000, ack=(syn.seq + 1) & 0xFFFFFFFF, flags=flags,
            options=(OPTIONS if options is None else options) if "S" in flags else [],
        )  # fmt: skip
        return self.emits(bytes(ip_layer(family, VIPS[family], SOURCES[family]) / tcp))

    def servers(self) -> list[ServerState]:
        return [server.state for server in self.agent.status().servers]


def shown(events: list[Event]) -> list[tuple[str, object]]:
    return [(event.what, event.fields.get("flags")) for event in events]


def test_start_timer_a_syn_to_each_address_from_an_unused_one() -> None:
    book = ProbedPlaybook()
    events = book.tick()
    assert shown(events) == [("inject", "S"), ("inject", "S")]
    for event, family in zip(events, (4, 6), strict=True):
        packet = event.fields["packet"]
        assert isinstance(packet, bytes)
        ip = dissect(packet)
        assert (ip.src, ip.dst, ip[TCP].dport) == (SOURCES[family], VIPS[family], 80)
        assert {name for name, _ in ip[TCP].options} >= {"MSS", "SAckOK", "Timestamp", "WScale"}


@pytest.mark.parametrize("family", [4, 6])
def test_probed_syn_ack_capabilities_server_and_a_reset(family: int) -> None:
    book = ProbedPlaybook()
    book.tick()
    syn = book.probes[family]
    events = book.answers(family)
    assert shown(events) == [("inject", "R"), ("announce", None)]
    reset = book.probes[family]
    assert (reset.sport, reset.dport, reset.seq) == (syn.sport, 80, syn.seq + 1)
    status = book.agent.status()
    assert status.capabilities == Capabilities(7, True, True, 1460)
    index = (4, 6).index(family)
    assert status.servers[index] == Server(book.config.vaddr[index].packed, 80, ServerState.ANSWERS)
    assert status.servers[1 - index].state is ServerState.UNKNOWN


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([("MSS", 1460)], Capabilities(None, False, False, 1460)),
        ([], Capabilities(None, False, False, 0)),
        ([("MSS", 536), ("NOP", None), ("WScale", 14)], Capabilities(14, False, False, 536)),
    ],
)
def test_probed_poor_syn_ack_says_what_is_missing(options: list[Any], expected: Capabilities) -> None:
    book = ProbedPlaybook()
    book.tick()
    book.answers(4, options=options)
    assert book.agent.status().capabilities == expected


def test_probed_rst_no_listener() -> None:
    book = ProbedPlaybook()
    book.tick()
    assert book.answers(4, "RA") == [announce]
    assert book.servers() == [ServerState.NO_LISTENER, ServerState.UNKNOWN]
    assert book.answers(4, "RA") == [], "it was answered already"


def test_probed_acknowledgement_alone_is_no_answer() -> None:
    book = ProbedPlaybook()
    book.tick()
    assert book.answers(4, "A") == []
    assert shown(book.answers(4)) == [("inject", "R"), ("announce", None)]


def test_probed_silence_twice_silent() -> None:
    book = ProbedPlaybook()
    assert shown(book.passes(0.9)) == [("inject", "S")] * 2, "one may get lost"
    assert book.servers() == [ServerState.UNKNOWN] * 2
    events = book.passes(0.4)
    assert shown(events) == [("inject", "S")] * 2 + [("announce", None)] * 2
    assert [event.fields["at"] for event in events] == [1.0, 1.0, 1.25, 1.25]
    assert book.servers() == [ServerState.SILENT] * 2
    assert all(event.what != "announce" for event in book.passes(10.0)), "no news"


def test_silent_answer_answers_again() -> None:
    book = ProbedPlaybook()
    book.passes(2.5)
    assert book.servers()[0] is ServerState.SILENT
    book.passes(0.5)
    assert shown(book.answers(4)) == [("inject", "R"), ("announce", None)]
    assert book.servers()[0] is ServerState.ANSWERS


def test_answering_one_silence_still_answers() -> None:
    book = ProbedPlaybook()
    book.tick()
    book.answers(4)
    book.passes(1.9)
    assert book.servers()[0] is ServerState.ANSWERS
    book.passes(0.1)
    assert shown(book.answers(4)) == [("inject", "R")], "no news"
    book.passes(1.5)
    assert book.servers()[0] is ServerState.ANSWERS, "the misses are counted anew"


def test_answering_same_answers_no_announcement() -> None:
    """The MSS differs between families; that is no news either."""
    book = ProbedPlaybook()
    book.tick()
    book.answers(4)
    assert announce in book.answers(6, options=[("MSS", 1440), *OPTIONS[1:]])
    for _ in range(5):
        book.passes(1.0)
        assert announce not in book.answers(4)
        assert announce not in book.answers(6, options=[("MSS", 1440), *OPTIONS[1:]])


def test_answering_other_options_announced() -> None:
    book = ProbedPlaybook()
    book.tick()
    book.answers(4)
    book.passes(1.0)
    assert announce in book.answers(4, options=[*OPTIONS[:4], ("WScale", 8)])


def test_probing_late_answer_is_of_nobody() -> None:
    book = ProbedPlaybook()
    book.tick()
    book.passes(0.3)
    assert book.answers(4) == []
    assert book.agent.counters.unknown_leaving == 1


def test_probing_each_round_another_port_and_isn() -> None:
    """The embryo of a lost answer must not be in the way of the next probe."""
    book = ProbedPlaybook()
    seen = set()
    for _ in range(10):
        book.passes(1.0)
        seen.add((book.probes[4].sport, book.probes[4].seq))
    assert len({port for port, _ in seen}) == len({seq for _, seq in seen}) == 10


def test_probing_flow_of_a_client_undisturbed() -> None:
    book = ProbedPlaybook()
    book.tick()
    book.until_adopted()
    assert book.leaves(payload=b"x")[0].what == "to client"
