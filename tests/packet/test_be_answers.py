"""What the host's TCP may answer to a replayed SYN, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from tcpha.be.actions import UNKNOWN
from tcpha.be.adoption import LATE_S
from tcpha.be.agent import RESET_CHECK_S
from tcpha.be.confirmations import CONFIRM_DELAY_S
from tcpha.be.flows import FlowState
from tcpha.proto.messages import Adopted, Closed, Reason, Refused
from tcpha.proto.seqnum import SeqNum, seq_add
from tests.packet.be_host import HostedPlaybook, Socket
from tests.packet.be_playbook import (
    IRS,
    MASK,
    NEXT,
    QUIET,
    REQUEST,
    TSVAL_SENT,
    Event,
    Playbook,
    both_families,
    clear,
    confirmed,
    examine,
    inject,
    send,
    stamps_option,
    to_client,
    to_server,
)


def refused(book: Playbook, reason: Reason, **fields: object) -> Event:
    return send(Refused(book.identity(), reason), **fields)


# --- no


@both_families
def test_syn_sent_rst_ack_refused_no_listener(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    assert book.leaves("RA", seq=0, ack=1) == [refused(book, Reason.NO_LISTENER, to=book.fe)]
    assert not book.agent.table.by_key
    assert not book.agent.table.by_leaving_key
    assert book.passes(2.0) == []


@both_families
def test_syn_sent_rst_ack_without_confirm_no_message(family: int) -> None:
    book = Playbook(family)
    book.hands_off(confirm=False)
    assert book.leaves("RA", seq=0, ack=1) == []
    assert not book.agent.table.by_key


@both_families
def test_syn_sent_refused_a_repeat_is_refused_again(family: int) -> None:
    """The front end has turned elsewhere: a repeat that crossed the REFUSED must not run."""
    book = Playbook(family)
    book.hands_off()
    book.leaves("RA", seq=0, ack=1)
    assert book.hands_off() == [refused(book, Reason.REFUSED_BEFORE)]
    book.passes(200.0)
    assert book.hands_off() == [inject(flags="S")], "not remembered for longer than the cookie is valid"


@both_families
def test_ack_sent_given_up_then_room_in_the_queue_a_late_repeat_runs_nothing(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.passes(0.18)[-1] == refused(book, Reason.BACKLOG_FULL)
    assert book.hands_off() == [refused(book, Reason.REFUSED_BEFORE)]


# --- silence


@both_families
def test_syn_sent_silence_retries_then_refused_backlog_full(family: int) -> None:
    book = Playbook(family)
    book.holder = "embryonic"
    assert book.hands_off() == [inject(flags="S", at=0.0)]
    assert book.passes(5.0) == [
        clear(embryonic=False, at=0.03),
        inject(flags="S", at=0.03),
        clear(embryonic=True, at=0.09),
        inject(flags="S", at=0.09),
        clear(embryonic=True, at=0.18),
        refused(book, Reason.BACKLOG_FULL, at=0.18),
    ]
    assert book.holder is None, "what the replay made is reset"
    assert book.agent.counters.retries == 2
    assert not book.agent.table.by_key


@both_families
def test_syn_sent_silence_of_a_socket_in_the_way_destroyed_and_played_again(family: int) -> None:
    book = Playbook(family)
    book.holder = "established"
    book.hands_off()
    assert book.passes(0.03) == [clear(embryonic=False), inject(flags="S")]
    assert book.agent.counters.cleared == 1
    assert book.leaves("RA", seq=900, ack=-900) == [], "the socket that was destroyed says so"
    assert book.syn_ack() == [inject(payload=REQUEST)]


def test_syn_sent_short_replay_time_ends_in_time() -> None:
    book = Playbook(4, QUIET + "replay_time = 0.01\n")
    book.hands_off()
    assert book.passes(1.0) == [clear(embryonic=True, at=0.01), refused(book, Reason.BACKLOG_FULL)]


@both_families
def test_ack_sent_silence_the_request_again_then_refused(family: int) -> None:
    """The accept queue was full: the handshake's last segment is not taken, the server has read nothing."""
    book = Playbook(family).until_ack_sent()
    again = {"flags": "PA", "seq": 1, "ack": 1, "payload": REQUEST}
    assert book.passes(5.0) == [
        *[inject(at=at, **again) for at in (0.035, 0.07, 0.105, 0.14, 0.175)],
        examine,
        clear(embryonic=True, at=0.18),
        refused(book, Reason.BACKLOG_FULL, at=0.18),
    ]
    assert not book.agent.table.by_key


@both_families
def test_ack_sent_silence_and_nobody_knows_what_the_server_has_reset_not_refused(family: int) -> None:
    """A request that a server may have read must not be handed to another: the client is told by RST."""
    book = Playbook(family).until_ack_sent()
    book.holder, book.received_octets = "established", UNKNOWN
    events = book.passes(0.18)
    assert events[-1] == clear(embryonic=False)
    assert book.leaves("RA", seq=1, ack=NEXT) == [to_client(flags="RA", seq=1, ack=NEXT)]
    closed = Closed((book.identity(),))
    assert book.passes(1.0) == [send(closed, to=book.fe), send(closed, to=book.other_fe)]
    assert book.hands_off() == [send(closed, to=book.fe)], "and it stays so"


@both_families
def test_ack_sent_time_is_up_and_the_server_has_the_request_adopted(family: int) -> None:
    """Its acknowledgement waits in the queue: read a moment earlier, it would have proved the same."""
    book = Playbook(family).until_ack_sent()
    book.passes(0.178)
    book.holder, book.received_octets = "established", len(REQUEST)
    assert book.passes(0.002) == [examine]
    assert book.arrives("PA", seq=1, payload=REQUEST) == [inject(seq=5, payload=REQUEST[4:])]
    assert book.passes(CONFIRM_DELAY_S) == [confirmed(book.identity())]
    assert book.leaves(ack=NEXT) == [to_client(ack=NEXT)]
    assert book.arrives() == [to_server()]
    assert book.agent.counters.adopted == 1


@both_families
def test_ack_sent_time_is_up_and_the_socket_is_gone_by_the_clients_reset_never_refused(family: int) -> None:
    """It may have read the request before."""
    book = Playbook(family).until_ack_sent()
    book.holder = None
    book.arrives("R", options=[])
    assert [event for event in book.passes(0.3) if event.what == "send"] == [
        send(Closed((book.identity(),)), to=fe) for fe in (book.fe, book.other_fe)
    ]


@both_families
def test_ack_sent_time_is_up_and_the_server_has_what_the_front_end_acknowledged_told_at_once(family: int) -> None:
    book = Playbook(family)
    book.until_ack_sent(book.handoff(acknowledged=seq_add(SeqNum(IRS), 1 + len(REQUEST))))
    book.holder, book.received_octets = "established", len(REQUEST)
    assert book.passes(0.18)[-1] == send(Adopted(book.identity(), seq_add(SeqNum(IRS), 1 + len(REQUEST))))


@both_families
def test_ack_sent_time_is_up_and_the_client_has_reset_looked_at_soon(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    book.arrives("R", options=[])
    book.holder, book.received_octets = "established", len(REQUEST)
    book.passes(0.18)
    book.holder = None
    assert examine in book.passes(RESET_CHECK_S)
    assert book.agent.table.by_key[book.key()].state is FlowState.FINISHED


@both_families
def test_ack_sent_agent_slept_beyond_the_time_established_server_reset(family: int) -> None:
    """The front end may have turned elsewhere: two servers must not answer."""
    book = Playbook(family).until_ack_sent()
    book.holder, book.received_octets = "established", len(REQUEST)
    book.now += 0.18 + LATE_S
    assert book.perform(book.agent.on_timer(book.now)) == [clear(embryonic=False)]
    assert book.agent.table.by_key[book.key()].state is FlowState.FINISHED


# --- another socket is in the way


@both_families
@pytest.mark.parametrize("flags", ["A", "PA", "FA"])
def test_syn_sent_challenge_ack_reset_cleared_and_played_again(family: int, flags: str) -> None:
    book = Playbook(family)
    book.holder = "established"
    book.hands_off()
    assert book.leaves(flags, seq=500, ack=-1000) == [
        inject(flags="R", seq=-1000, ack=0, payload=b""),
        clear(embryonic=False),
        inject(flags="S", seq=0),
    ]
    assert book.leaves(flags, seq=500, ack=-1000) == [], "only once: it is being cleared"
    assert book.syn_ack() == [inject(payload=REQUEST)]


@both_families
def test_syn_sent_strange_rst_the_embryo_of_our_own_syn_stays(family: int) -> None:
    """The RST of a socket that was just destroyed: destroying what came after it would cost the connection."""
    book = Playbook(family)
    book.hands_off()
    book.holder = "embryonic"
    assert book.leaves("RA", seq=500, ack=-1000) == [clear(embryonic=False), inject(flags="S", seq=0)]
    assert book.holder == "embryonic"
    assert book.leaves("RA", seq=500, ack=-1000) == []
    assert book.syn_ack() == [inject(payload=REQUEST)]


@both_families
@pytest.mark.parametrize("state", ["embryonic", "established", "time-wait"])
@pytest.mark.parametrize("older", [True, False])
def test_host_socket_of_an_older_connection_the_new_one_is_adopted(family: int, state: str, older: bool) -> None:
    book = HostedPlaybook(family)
    rcv_nxt = (IRS + (-70_000 if older else 70_000)) & MASK
    book.socket = Socket(state, 5000, rcv_nxt, 5001)
    book.hands_off()
    book.reads()
    assert book.requests == [REQUEST]
    assert book.agent.counters.adopted == 1
    assert book.passes(1.0) == [confirmed(book.identity())]


@both_families
def test_host_port_reused_while_the_old_connection_lives_the_new_one_is_adopted(family: int) -> None:
    """CLOSED and the next HANDOFF come in one burst: the old socket's RST is read after both."""
    book = HostedPlaybook(family)
    book.hands_off()
    book.reads()
    newer = book.handoff(identity=book.identity(irs=IRS + 1000, iss=7), octets=b"GET /new HTTP/1.1\r\n\r\n")
    book.says(Closed((book.identity(),)))
    book.hands_off(newer)
    events = book.reads()
    assert book.requests == [REQUEST, newer.octets]
    assert not any(event.what == "to client" and "R" in str(event.fields["flags"]) for event in events)
    assert book.agent.table.by_key[book.key()].identity == newer.identity
    assert book.agent.table.by_key[book.key()].state is FlowState.ADOPTED


@both_families
def test_host_flow_replaced_by_a_handoff_the_new_one_is_adopted(family: int) -> None:
    book = HostedPlaybook(family)
    book.hands_off()
    book.reads()
    newer = book.handoff(identity=book.identity(irs=IRS + 1000, iss=7), octets=b"GET /new HTTP/1.1\r\n\r\n")
    book.hands_off(newer)
    book.responds(b"late")
    events = book.reads()
    assert book.requests == [REQUEST, newer.octets]
    assert not any(event.what == "to client" and "R" in str(event.fields["flags"]) for event in events)
    assert book.agent.counters.replaced == 1


@both_families
def test_host_backlog_full_for_a_moment_adopted_by_a_retry(family: int) -> None:
    book = HostedPlaybook(family)
    book.is_full = True
    book.hands_off()
    assert book.reads() == []
    book.passes(0.05)
    book.is_full = False
    book.passes(0.05)
    book.reads()
    assert book.requests == [REQUEST]
    assert book.agent.counters.adopted == 1


@both_families
@pytest.mark.parametrize("late_s", [0.02, 0.05, 0.1, 0.17])
def test_host_answers_are_read_late_adopted_all_the_same(family: int, late_s: float) -> None:
    """A busy back end: meanwhile its own retries destroyed the socket whose SYN-ACK it reads first."""
    book = HostedPlaybook(family)
    book.hands_off()
    book.passes(late_s)
    events = book.reads()
    assert book.requests == [REQUEST]
    assert book.agent.counters.adopted == 1
    assert not any(event.what == "to client" and "R" in str(event.fields["flags"]) for event in events)


# --- a SYN-ACK that grants something else


@both_families
def test_syn_sent_syn_ack_without_promised_timestamps_refused_options(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    book.holder = "embryonic"
    assert book.syn_ack(options=[("MSS", 1460), ("NOP", None), ("WScale", 7)]) == [
        clear(embryonic=True),
        refused(book, Reason.OPTIONS),
    ]
    assert book.holder is None
    assert not book.agent.table.by_key


@both_families
def test_syn_sent_malformed_syn_ack_ignored(family: int) -> None:
    book = Playbook(family)
    book.hands_off()
    packet = book.server_packet("SA", seq=0, ack=1, options=[("MSS", 1460)])
    offset = packet.index(b"\x02\x04\x05\xb4") + 1
    broken = packet[:offset] + b"\x01" + packet[offset + 1 :]
    with pytest.raises(Exception, match="length 1 of option 2"):
        book.emits(broken)
    assert book.syn_ack() == [inject(payload=REQUEST)]


@both_families
@pytest.mark.parametrize(("leaving", "shown"), [(0, 0), (1, 1), (127, 1), (128, 1), (64240, 501), (65535, 511)])
def test_ack_sent_servers_syn_cookies_windows_rescaled_to_the_promise(family: int, leaving: int, shown: int) -> None:
    """Without timestamps the host's own SYN cookies lose window scale and SACK."""
    book = Playbook(family, stamps=False)
    book.hands_off()
    book.syn_ack(options=[("MSS", 1460)])
    assert book.leaves(window=leaving)[0] == to_client(window=shown)


@both_families
@pytest.mark.parametrize(("arriving", "shown"), [(0, 0), (1, 512), (127, 65024), (128, 65535), (65535, 65535)])
def test_ack_sent_servers_syn_cookies_windows_of_the_client_unscaled(family: int, arriving: int, shown: int) -> None:
    book = Playbook(family, stamps=False)
    book.hands_off(window=arriving)
    assert book.syn_ack(options=[("MSS", 1460)]) == [inject(payload=REQUEST, window=shown)]
    assert book.arrives(window=arriving) == [to_server(window=shown)]


@both_families
@pytest.mark.parametrize(
    ("scale", "leaving", "shown"),
    [(7, 509, 509), (10, 509, 4072), (10, 60000, 65535), (2, 60000, 1875), (2, 31, 1), (0, 100, 1), (10, 0, 0)],
)
def test_ack_sent_another_scale_of_the_server_leaving_windows_rescaled(
    family: int, scale: int, leaving: int, shown: int
) -> None:
    book = Playbook(family)
    book.hands_off()
    book.syn_ack(options=book.syn_ack_options(scale))
    assert book.leaves(window=leaving)[0] == to_client(window=shown)
    assert book.arrives(window=777) == [to_server(window=777)], "the server knows the client's scale"


@both_families
def test_ack_sent_no_scaling_agreed_windows_left_alone(family: int) -> None:
    book = Playbook(family)
    message: Any = book.handoff()
    unscaled = book.handoff(agreement=type(message.agreement)(1460, None, True), promised_window_scale=None)
    book.hands_off(unscaled)
    book.syn_ack(options=book.syn_ack_options(None))
    assert book.leaves(window=40000)[0] == to_client(window=40000)
    assert book.arrives(window=40000) == [to_server(window=40000)]


# --- after the SYN-ACK


@both_families
def test_syn_sent_packet_without_ack_ignored(family: int) -> None:
    """It names no number by which the host's TCP could be made to believe a RST."""
    book = Playbook(family)
    book.hands_off()
    assert book.leaves("R", seq=500, options=[]) == []
    assert book.leaves("S", seq=500, options=[]) == []
    assert book.syn_ack() == [inject(payload=REQUEST)]


@both_families
def test_ack_sent_rst_that_acknowledges_the_request_delivered_and_closed(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.leaves("RA", seq=1, options=[]) == [to_client(flags="RA", seq=1, ack=NEXT)]
    closed = Closed((book.identity(),))
    assert book.passes(1.0) == [send(closed, to=book.fe), send(closed, to=book.other_fe)]


@both_families
def test_ack_sent_rst_of_no_socket_played_again(family: int) -> None:
    """The socket that sent the SYN-ACK is gone and has taken nothing."""
    book = Playbook(family).until_ack_sent()
    assert book.leaves("R", seq=1, options=[]) == [clear(embryonic=True), inject(flags="S", seq=0, stamps=(-3, 0))]
    assert book.arrives(payload=b"more") == [], "held again"
    book.server_iss = 99
    assert book.syn_ack() == [inject(seq=1, ack=1, payload=REQUEST), inject(seq=NEXT, ack=1, payload=b"more")]
    assert book.leaves()[0] == to_client(seq=1, ack=NEXT)


@both_families
def test_ack_sent_syn_ack_of_another_socket_played_again(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.syn_ack() == [], "the same again: our ACK was not taken yet"
    book.server_iss = 99
    assert book.syn_ack() == [clear(embryonic=True), inject(flags="S", seq=0)]
    assert book.syn_ack() == [inject(seq=1, ack=1, payload=REQUEST)]


@both_families
@pytest.mark.parametrize(("seq", "ack"), [(0, NEXT), (-5000, NEXT), (1, 1), (1, NEXT + (1 << 30)), (1 << 30, NEXT)])
@pytest.mark.parametrize("flags", ["A", "FA"])
def test_ack_sent_packet_of_another_connection_no_proof(family: int, seq: int, ack: int, flags: str) -> None:
    book = Playbook(family).until_ack_sent()
    assert book.leaves(flags, seq=seq, ack=ack) == []
    assert book.agent.counters.adopted == 0


@both_families
def test_ack_sent_client_rst_examined_once_adopted(family: int) -> None:
    book = Playbook(family).until_ack_sent()
    book.holder = "established"
    assert book.arrives("R", seq=NEXT, options=[]) == [to_server(flags="R", seq=NEXT)]
    book.leaves()
    book.holder = None
    assert [event.what for event in book.passes(0.2)] == ["send", "examine", "send", "send"]


@both_families
def test_ack_sent_timestamps_of_the_last_sent_value_continue(family: int) -> None:
    """The client saw TSVAL_SENT last: what comes next continues from there, across the wrap."""
    book = Playbook(family).until_adopted()
    event = book.leaves(payload=b"x", stamps=(1000, 5))[0]
    packet = event.fields["packet"]
    assert isinstance(packet, bytes)
    assert stamps_wire((TSVAL_SENT + 1000) & MASK) in packet


def stamps_wire(tsval: int) -> bytes:
    assert stamps_option(tsval, 0)[2][1][0] == tsval
    return b"\x01\x01\x08\x0a" + tsval.to_bytes(4, "big")
