"""From a HANDOFF to an adopted connection where the host's TCP answers as expected."""

from __future__ import annotations

from typing import Any

import pytest

from tcpha.be.flows import FlowState
from tcpha.proto.cookie import Agreement
from tcpha.proto.messages import Adopted
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.packet.be_playbook import (
    IRS,
    MASK,
    NEXT,
    NO_ROUND_TRIP,
    QUIET,
    REQUEST,
    SERVER_TSVAL,
    TSVAL_CLIENT,
    Playbook,
    both_families,
    clear,
    confirmed,
    inject,
    relative,
    send,
    to_client,
    to_server,
)


def adopted(book: Playbook, rcv_nxt: int = NEXT, **fields: object) -> Any:
    return send(Adopted(book.identity(), seq_add(SeqNum(IRS), rcv_nxt)), **fields)


# --- HANDOFF -> SYN


@both_families
@pytest.mark.parametrize("stamps", [True, False])
@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize(("scale", "mss"), [(None, 1460), (0, 88), (9, 1220), (14, 8960)])
def test_nothing_handoff_syn_with_the_agreed_options(
    family: int, stamps: bool, sack: bool, scale: int | None, mss: int
) -> None:
    book = Playbook(family, stamps=stamps)
    events = book.hands_off(
        agreement=Agreement(mss, scale, sack), promised_window_scale=None if scale is None else 7, window=3
    )
    assert events == [
        inject(
            flags="S",
            seq=0,
            ack=0,
            payload=b"",
            mss=mss,
            scale=scale,
            sack=sack,
            stamps=(-4, 0) if stamps else None,
            window=3 << (scale or 0),
        )
    ]
    options: Any = events[0].fields["options"]
    wanted = {"MSS"} | ({"WScale"} if scale is not None else set())
    wanted |= {"SAckOK"} if sack else set()
    wanted |= {"Timestamp"} if stamps else set()
    assert set(options) - {"NOP"} == wanted


@both_families
@pytest.mark.parametrize(("window", "scale", "shown"), [(65535, 9, 65535), (128, 9, 65535), (127, 9, 65024), (0, 9, 0)])
def test_nothing_handoff_window_of_the_syn_is_unscaled_and_clamped(
    family: int, window: int, scale: int, shown: int
) -> None:
    book = Playbook(family)
    assert book.hands_off(window=window, agreement=Agreement(1460, scale, True)) == [inject(flags="S", window=shown)]


# --- SYN-ACK -> SYN again


@both_families
def test_syn_sent_syn_ack_the_syn_again_some_ticks_later(family: int) -> None:
    """What was sent twice, the server's TCP does not measure."""
    book = Playbook(family)
    assert book.hands_off(window=3) == [inject(flags="S", stamps=(-4, 0))]
    again = inject(flags="S", seq=0, ack=0, payload=b"", mss=1460, scale=9, sack=True, window=3 << 9, stamps=(0, 0))
    assert book.one_syn_ack() == [again]
    assert book.arrives(payload=b"early") == [], "held"
    assert book.one_syn_ack() == [inject(payload=REQUEST), inject(payload=b"early")]
    assert book.one_syn_ack() == []


@both_families
def test_syn_sent_second_answer_is_missing_the_syn_is_played_a_third_time(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    book.one_syn_ack()
    assert book.passes(0.035) == [clear(embryonic=False), inject(flags="S", seq=0, stamps=(0, 0))]
    assert book.one_syn_ack() == [inject(payload=REQUEST)]


@both_families
def test_syn_sent_second_answer_is_of_another_socket_that_one_is_asked_again_too(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    book.one_syn_ack()
    book.server_iss = 99
    assert book.one_syn_ack() == [inject(flags="S", seq=0)]
    assert book.one_syn_ack() == [inject(seq=1, ack=1, payload=REQUEST)]


def echoing(book: Playbook, tick: int, tsval: int = SERVER_TSVAL) -> list[Any]:
    """The options of an answer to the SYN that was played at that tick."""
    stamps = ("Timestamp", (tsval, (TSVAL_CLIENT + tick) & MASK))
    return [stamps if name == "Timestamp" else (name, value) for name, value in book.syn_ack_options()]


@both_families
def test_syn_sent_answers_are_cookies_the_request_echoes_their_timestamp(family: int) -> None:
    """They hold what the host agreed to, so here a round trip of the replay is the lesser evil."""
    book = Playbook(family)
    book.hands_off()
    assert book.one_syn_ack(options=echoing(book, -4)) == [inject(flags="S")]
    assert book.one_syn_ack(options=echoing(book, 0)) == [inject(payload=REQUEST, stamps=(0, 0))]


@both_families
def test_syn_sent_cookies_are_late_those_of_first_syns_are_not_taken_for_a_sockets_second_answer(family: int) -> None:
    """A host without room, and a back end without time: the SYN was repeated before its answer was read."""
    book = Playbook(family)
    assert book.hands_off() == [inject(flags="S", stamps=(-4, 0))]
    assert book.passes(0.03) == [clear(embryonic=False), inject(flags="S", stamps=(-3, 0))]
    assert book.passes(0.06) == [clear(embryonic=True), inject(flags="S", stamps=(-2, 0))]
    assert book.one_syn_ack(options=echoing(book, -4)) == [inject(flags="S", stamps=(0, 0))]
    assert book.one_syn_ack(options=echoing(book, -3, SERVER_TSVAL + 30)) == []
    assert book.one_syn_ack(options=echoing(book, -2, SERVER_TSVAL + 90)) == []
    assert book.one_syn_ack(options=echoing(book, 0, SERVER_TSVAL + 95)) == [inject(payload=REQUEST, stamps=(0, 95))]


@both_families
def test_syn_sent_syn_repeated_socket_answers_twice_the_request_echoes_nothing(family: int) -> None:
    """A socket echoes the SYN that made it, whichever it answers; it may answer the one that came again only once."""
    book = Playbook(family)
    book.hands_off()
    book.passes(0.03)
    assert book.one_syn_ack(options=echoing(book, -4)) == [inject(flags="S", stamps=(0, 0))]
    assert book.one_syn_ack(options=echoing(book, -4)) == [inject(payload=REQUEST, stamps=NO_ROUND_TRIP)]


@both_families
def test_syn_sent_more_syns_than_can_be_told_apart_whatever_answers_gets_its_timestamp_back(family: int) -> None:
    """An echo of the right time costs a socket a wrong round trip, one of none costs a cookie all its options."""
    book = Playbook(family, QUIET + "stale_time = 0.04s\nreplay_time = 0.4s\n")
    book.hands_off()
    syns = [event.fields["stamps"] for event in book.passes(0.25) if event.what == "inject"]
    assert syns == [(-3, 0), (-2, 0), (-1, 0)]
    book.one_syn_ack(options=echoing(book, -1))
    assert book.one_syn_ack(options=echoing(book, -1)) == [inject(payload=REQUEST, stamps=NO_ROUND_TRIP)]
    book.leaves("R", seq=1, options=[])
    book.server_iss = 99
    book.one_syn_ack(options=echoing(book, -1))
    assert book.one_syn_ack(options=echoing(book, -1)) == [inject(payload=REQUEST, stamps=(0, 0))]


# --- SYN-ACK -> ACK and request


@both_families
@pytest.mark.parametrize("stamps", [True, False])
def test_syn_sent_syn_ack_one_segment_with_the_request(family: int, stamps: bool) -> None:
    book = Playbook(family, stamps=stamps)
    book.hands_off(window=321)
    assert book.syn_ack() == [
        inject(
            flags="PA",
            seq=1,
            ack=1,
            payload=REQUEST,
            window=321,
            at=0.0,
            port=40000,
            stamps=NO_ROUND_TRIP if stamps else None,
        )
    ]


@both_families
def test_syn_sent_syn_ack_of_an_empty_handoff_bare_ack(family: int) -> None:
    book = Playbook(family)
    book.hands_off(octets=b"")
    assert book.syn_ack() == [inject(flags="A", seq=1, ack=1, payload=b"")]


@both_families
def test_syn_sent_syn_ack_held_packets_follow_in_order(family: int) -> None:
    book = Playbook(family)
    assert book.arrives("A", seq=NEXT, payload=b"before") == []
    book.hands_off()
    assert book.arrives("A", seq=NEXT + 6, payload=b"after") == []
    assert book.arrives("A", seq=NEXT + 6, payload=b"after", stamps=(9, 3)) == []
    assert book.syn_ack() == [
        inject(seq=1, ack=1, payload=REQUEST),
        inject(flags="A", seq=NEXT, ack=1, payload=b"before", stamps=(5, 3)),
        inject(flags="A", seq=NEXT + 6, ack=1, payload=b"after", stamps=(5, 3)),
        inject(flags="A", seq=NEXT + 6, ack=1, payload=b"after", stamps=(9, 3)),
    ]
    assert book.agent.counters.held == 3


@both_families
def test_ack_sent_segment_arrives_translated_at_once(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.arrives("PA", payload=b"more") == [to_server(flags="PA", seq=NEXT, ack=1, payload=b"more")]


# --- the first acknowledgement


@both_families
@pytest.mark.parametrize("payload", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_ack_sent_acknowledgement_delivered_and_one_confirmation(family: int, payload: bytes) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.leaves("A", payload=payload) == [
        to_client(flags="A", seq=1, ack=NEXT, payload=payload, stamps=(3, 5), window=509)
    ]
    assert book.leaves("A", payload=payload) == [to_client(seq=1, ack=NEXT)]
    assert book.passes(0.009) == []
    assert book.passes(1.0) == [confirmed(book.identity(), to=book.fe, at=0.01)]
    assert book.agent.counters.adopted == 1


@both_families
def test_ack_sent_partial_acknowledgement_adopted_says_how_far(family: int) -> None:
    book = Playbook(family)
    book.until_ack_sent(book.handoff(acknowledged=seq_add(SeqNum(IRS), NEXT)))
    assert book.leaves(ack=5) == [to_client(ack=5), adopted(book, 5)]


@both_families
@pytest.mark.parametrize(("flags", "fields"), [("A", {"ack": 1}), ("A", {"ack": -3}), ("SA", {"seq": 0, "ack": 1})])
def test_ack_sent_packet_that_does_not_cover_the_request_dropped(
    family: int, flags: str, fields: dict[str, int]
) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.leaves(flags, **fields) == []
    assert book.leaves() == [to_client(ack=NEXT)]
    assert book.passes(1.0) == [confirmed(book.identity())]


@both_families
def test_ack_sent_without_confirm_no_message_at_all(family: int) -> None:
    book = Playbook(family)
    book.hands_off(confirm=False)
    assert book.syn_ack() == [inject(payload=REQUEST)]
    assert book.leaves() == [to_client(ack=NEXT)]
    assert book.leaves(payload=b"response") == [to_client(payload=b"response")]
    assert book.passes(5.0) == []


@both_families
def test_ack_sent_fin_acknowledges_the_empty_request_adopted(family: int) -> None:
    """A HANDOFF without octets is proven by whatever the server's TCP says from ESTABLISHED."""
    book = Playbook(family)
    book.until_ack_sent(book.handoff(octets=b""))
    assert book.leaves("FA", ack=1) == [to_client(flags="FA", seq=1, ack=1)]
    assert book.passes(1.0) == [confirmed(book.identity())]


@both_families
def test_adopted_owed_octets_adopted_again_until_covered(family: int) -> None:
    book = Playbook(family)
    book.until_ack_sent(book.handoff(acknowledged=seq_add(SeqNum(IRS), NEXT + 100)))
    assert book.leaves(ack=NEXT) == [to_client(ack=NEXT), adopted(book, NEXT)]
    assert book.leaves(ack=NEXT) == [to_client(ack=NEXT)], "nothing advanced"
    assert book.leaves(ack=NEXT + 60) == [to_client(), adopted(book, NEXT + 60)]
    assert book.leaves(ack=NEXT + 100) == [to_client(), adopted(book, NEXT + 100)]
    assert book.leaves(ack=NEXT + 200) == [to_client()]


@both_families
def test_ack_sent_acknowledgement_covers_what_is_owed_one_adopted(family: int) -> None:
    book = Playbook(family)
    book.until_ack_sent(book.handoff(acknowledged=seq_add(SeqNum(IRS), NEXT)))
    assert book.leaves() == [to_client(), adopted(book)]
    assert book.leaves(ack=NEXT + 1) == [to_client()]


@both_families
def test_adopted_packets_both_ways_translated_and_counted(family: int) -> None:
    book = Playbook(family).until_adopted()
    for number in range(3):
        assert book.arrives("A", ack=1 + number, stamps=(50, 40 + number)) == [
            to_server(seq=NEXT, ack=1 + number, stamps=(50, 40 + number))
        ]
        assert book.leaves("PA", seq=1 + number, payload=b"x", stamps=(60, 50)) == [
            to_client(flags="PA", seq=1 + number, ack=NEXT, payload=b"x", stamps=(60, 50))
        ]
    assert (book.agent.counters.arriving, book.agent.counters.leaving) == (3, 4)


@both_families
def test_adopted_without_timestamps_options_are_none(family: int) -> None:
    book = Playbook(family, stamps=False).until_adopted()
    assert book.leaves(payload=b"x") == [to_client(stamps=None, options=[])]
    assert book.arrives(ack=2) == [to_server(stamps=None, options=[], ack=2)]


@both_families
def test_adopted_syn_ack_again_dropped(family: int) -> None:
    book = Playbook(family).until_adopted()
    assert book.syn_ack() == []


@both_families
def test_adopted_later_flow_has_its_own_translation(family: int) -> None:
    """Two clients' ports, two translations, one table."""
    book = Playbook(family).until_adopted()
    book.hands_off(book.handoff(identity=book.identity(port=40001, iss=77)))
    book.server_iss = 0x1000
    book.syn_ack(port=40001)
    assert book.leaves(port=40001)[0].fields["port"] == 40001
    reply = book.leaves(port=40001, payload=b"x")[0]
    assert relative(int(str(reply.fields["seq"])), relative(77, 0xFFFFFFFE)) == 1
    assert book.agent.table.live == 2
    assert [flow.state for flow in book.agent.table.by_key.values()] == [FlowState.ADOPTED] * 2
