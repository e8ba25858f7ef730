"""SYNs: answered from the cookie alone, in every state, whatever they offer; nothing is stored."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from scapy.layers.inet import TCP

from tcpha.errors import ChecksumError, OptionError
from tcpha.fe.actions import PassOn, Reply, Send
from tcpha.fe.flows import FlowState
from tcpha.proto.cookie import Agreement, SynCookies
from tcpha.proto.ip import ConnectionKey
from tcpha.proto.messages import Closed
from tcpha.proto.options import Options, encode_options
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import SYN, decode_segment, encode_segment
from tests.packet.fe_client import GET, LINUX_SYN, MASK, PLAIN_SYN, Client, tcp_options
from tests.packet.fe_playbook import (
    BE1,
    KEYRING,
    PERIOD,
    After,
    Playbook,
    anything,
    gets,
    gets_rst,
    handoff,
    nothing,
)
from tests.packet.fe_states import BRING_TO

LINUX_SYN_NAMES = {name for name, _ in LINUX_SYN if name != "NOP"}


def answered(book: Playbook, client: Client, **tcp: Any) -> Any:
    """The one packet that answers the client's SYN."""
    book >> client.syn(**tcp) << anything
    (action,) = book.actions
    assert isinstance(action, Reply)
    return client.hears(action.packet)


# --- options


def test_none_syn_of_linux_gets_all_options(family: int) -> None:
    book = Playbook()
    client = book.client(family)
    got = answered(book, client)
    mss = 1460 if family == 4 else 1440
    stamps = tcp_options(got)["Timestamp"]
    assert tcp_options(got) == {"MSS": mss, "SAckOK": b"", "Timestamp": stamps, "WScale": 7}
    assert stamps[1] == 5000
    assert (got[TCP].window, str(got[TCP].flags)) == (45 * (mss - 12), "SA")
    assert len(book.dispatcher.table) == 0


def test_none_syn_without_options_gets_the_mss_alone(family: int) -> None:
    book = Playbook()
    client = book.client(family, offers=[])
    assert tcp_options(answered(book, client)) == {"MSS": 1460 if family == 4 else 1440}
    default = 536 if family == 4 else 1220
    expected = handoff(client, GET, agreement=Agreement(default, None, False), promised_window_scale=None)
    book >> client.sends(GET) << Send(BE1, expected)


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(0, 88), (1, 88), (88, 88), (535, 88), (536, 536), (1359, 1220), (1400, 1400), (9000, 8960), (65535, 8960)],
)
def test_none_syn_mss_is_rounded_down(offered: int, agreed: int) -> None:
    book = Playbook()
    client = book.client(offers=[("MSS", offered)])
    book >> client.syn() << anything
    agreement = Agreement(agreed if offered else 536, None, False)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, agreement=agreement, promised_window_scale=None))


@pytest.mark.parametrize("offered", [*range(15), 15, 255])
def test_none_syn_window_scale_is_kept_up_to_14(offered: int) -> None:
    book = Playbook()
    client = book.client(offers=[("WScale", offered)])
    assert tcp_options(answered(book, client))["WScale"] == 7
    agreement = Agreement(536, min(offered, 14), False)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, agreement=agreement))


@pytest.mark.parametrize(
    ("offers", "missing"),
    [
        ([("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0))], "WScale"),
        ([("MSS", 1460), ("WScale", 7), ("Timestamp", (5, 0))], "SAckOK"),
        ([("MSS", 1460), ("SAckOK", b""), ("WScale", 7)], "Timestamp"),
    ],
)
def test_none_syn_option_not_offered_is_not_answered(offers: list[Any], missing: str) -> None:
    book = Playbook()
    options = tcp_options(answered(book, book.client(offers=offers)))
    assert {"MSS", "SAckOK", "Timestamp", "WScale"} - set(options) == {missing}


@pytest.mark.parametrize(
    ("setting", "missing"),
    [("window_scale = none", "WScale"), ("sack = no", "SAckOK"), ("timestamps = no", "Timestamp")],
)
def test_none_syn_option_not_promised_is_not_answered(setting: str, missing: str) -> None:
    book = Playbook(setting)
    client = book.client()
    options = tcp_options(answered(book, client))
    assert LINUX_SYN_NAMES - set(options) == {missing}
    scale, sack = (None if missing == "WScale" else 7), missing != "SAckOK"
    expected = handoff(client, GET, agreement=Agreement(1460, scale, sack), promised_window_scale=scale)
    book >> client.sends(GET) << Send(BE1, expected)


def test_none_syn_unknown_options_are_ignored(family: int) -> None:
    book = Playbook()
    offers = [*LINUX_SYN, (34, b"\x01\x02\x03\x04\x05\x06\x07\x08"), (253, b"\xf9\x89")]
    assert set(tcp_options(answered(book, book.client(family, offers=offers)))) == LINUX_SYN_NAMES


def test_none_syn_option_of_impossible_length_is_dropped() -> None:
    book = Playbook()
    with pytest.raises(OptionError):
        book >> book.client(offers=[(2, b"\x05")]).syn()


def test_none_syn_with_ecn_is_answered_without(family: int) -> None:
    book = Playbook()
    got = answered(book, book.client(family), flags="SEC")
    assert str(got[TCP].flags) == "SA"


def test_none_syn_with_data_acknowledges_the_syn_alone(family: int) -> None:
    book = Playbook()
    client = book.client(family)
    book >> client.syn(GET) << anything
    (action,) = book.actions
    assert isinstance(action, Reply)
    assert client.hears(action.packet)[TCP].ack == client.irs + 1
    book >> client.sends(GET) << Send(BE1, handoff(client, GET))


@pytest.mark.parametrize("flags", ["SF", "SR", "SA", "SFR", "SRA", "FSPU"])
def test_none_syn_with_a_contradiction_is_dropped(flags: str, family: int) -> None:
    book = Playbook()
    book >> book.client(family).syn(flags=flags) << nothing
    assert book.dispatcher.counters.dropped_flags == 1


def test_none_syn_with_bad_checksum_is_dropped(family: int) -> None:
    book = Playbook()
    with pytest.raises(ChecksumError):
        book >> book.client(family).syn(chksum=0x1234)
    assert book.dispatcher.counters.syns == 0


@pytest.mark.parametrize("irs", [0, MASK, 0x7FFFFFFF])
def test_none_syn_at_the_wrap_is_answered(irs: int, family: int) -> None:
    book = Playbook()
    client = book.client(family, irs=irs)
    assert answered(book, client)[TCP].ack == (irs + 1) & MASK
    book >> client.sends(GET) << Send(BE1, handoff(client, GET))


# --- nothing is stored


def test_none_10000_syns_leave_no_memory() -> None:
    book = Playbook()
    options = encode_options(Options(1460, 7, True, (5000, 0)))
    base = book.client().key

    def flood(start: int, count: int) -> None:
        for number in range(start, start + count):
            key = ConnectionKey(number.to_bytes(4, "big") + base[4:])
            syn = encode_segment(key, SeqNum(number), SeqNum(0), SYN, 65535, options)
            (action,) = book.dispatcher.on_segment(decode_segment(syn), book.now)
            assert isinstance(action, Reply)

    flood(0, 100)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood(100, 10_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 4096
    assert (len(book.dispatcher.table), book.dispatcher.counters.syns) == (0, 10_100)


def test_none_syn_again_in_the_same_period_gets_the_same_cookie(family: int) -> None:
    book = Playbook()
    client = book.client(family)
    first = answered(book, client)
    book >> After(30)
    assert bytes(answered(book, client)) == bytes(first)
    book >> After(3)
    assert answered(book, client)[TCP].seq != first[TCP].seq


# --- in every state


@pytest.mark.parametrize("state", FlowState)
def test_any_state_syn_of_a_stranger_changes_nothing(state: FlowState, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    BRING_TO[state](book, client)
    before = (book.flow(client), book.flow(client).backend, book.flow(client).deadline, client.iss)
    for irs in (7, 8, 9, 10):
        book >> client.syn(seq=irs) << anything
        (action,) = book.actions
        assert isinstance(action, Reply)
    client.iss = before[3]
    assert (book.flow(client), book.flow(client).backend, book.flow(client).deadline) == before[:3]
    assert book.flow(client).state is state
    assert book.flow(client).noted == (11, 10)


@pytest.mark.parametrize("state", FlowState)
@pytest.mark.parametrize("flags", ["SF", "SR", "SA"])
def test_any_state_syn_with_a_contradiction_is_dropped(state: FlowState, flags: str) -> None:
    book = Playbook()
    client = book.connected()
    BRING_TO[state](book, client)
    book >> client.syn(flags=flags) << nothing
    assert book.flow(client).noted == ()


@pytest.mark.parametrize("state", FlowState)
def test_any_state_own_syn_again_is_answered_alike(state: FlowState, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    BRING_TO[state](book, client)
    iss = client.iss
    book >> client.syn() << anything
    assert client.iss == iss
    assert book.flow(client).state is state


@pytest.mark.parametrize("state", FlowState)
def test_any_state_port_reused_begins_anew(state: FlowState, family: int) -> None:
    book = Playbook()
    old = book.connected(family)
    BRING_TO[state](book, old)
    holds = state in (FlowState.HANDING, FlowState.FORWARDED)
    new = book.client(family, irs=0xFFFFFFF0)
    book >> new.syn() << anything >> new.ack() << nothing
    farewell = [Send(BE1, Closed((old.identity,)))] if holds else []
    book >> new.sends(GET) << [*farewell, Send(BE1, handoff(new, GET))]
    assert book.flow(new).identity == new.identity
    assert old.identity in book.dispatcher.table.finished
    assert book.dispatcher.counters.ports_reused == 1


@pytest.mark.parametrize("state", FlowState)
def test_any_state_port_reused_and_closed_before_a_request_is_answered(state: FlowState) -> None:
    book = Playbook()
    old = book.connected()
    BRING_TO[state](book, old)
    new = book.client(irs=77)
    book >> new.syn() << anything
    book >> new.fin() << gets(new, "FA", 0, 1)
    assert book.flow(new).identity == old.identity


@pytest.mark.parametrize("state", [FlowState.READING, FlowState.HANDING, FlowState.FORWARDED, FlowState.ANSWERED])
def test_live_state_cookie_of_an_older_period_is_reset(state: FlowState) -> None:
    book = Playbook()
    older = book.client(irs=5)
    book >> older.syn() << anything
    book >> After(33)
    newer = book.connected(irs=6)
    BRING_TO[state](book, newer)
    book >> older.syn() << anything  # noted; its cookie is of now
    older.iss = cookie_of_period(older, PERIOD)
    book >> older.sends(GET, options=[]) << gets_rst(older)
    assert book.flow(newer).identity == newer.identity
    assert book.dispatcher.counters.older_generations == 1


def cookie_of_period(client: Client, period: int) -> int:

    agreement = Agreement(1460, 7, True)
    iss, client.tsecr = SynCookies(KEYRING).make(client.key, SeqNum(client.irs), agreement, period << 5)
    return iss


def test_forwarded_ack_of_a_new_handshake_is_swallowed(family: int) -> None:
    book = Playbook()
    old = book.connected(family)
    book.adopted(old)
    new = book.client(family, irs=4_000_000_000, offers=PLAIN_SYN)
    book >> new.syn() << anything >> new.ack() << nothing
    assert book.dispatcher.counters.handshakes == 2
    book >> old.ack(len(GET)) << PassOn(BE1)
