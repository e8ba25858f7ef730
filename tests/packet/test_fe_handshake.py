"""Between the SYN-ACK and the request: nothing is stored, everything is answered from the cookie."""

from __future__ import annotations

import pytest

from tcpha.errors import ChecksumError
from tcpha.fe.actions import Send
from tcpha.proto.cookie import Agreement
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import FlowsQuery
from tests.packet.fe_client import GET, LINUX_SYN, MASK, PLAIN_SYN
from tests.packet.fe_playbook import (
    BE1,
    BE2,
    PERIOD,
    After,
    Playbook,
    anything,
    gets,
    handoff,
    nothing,
)

PLAIN = Agreement(1460, None, False)
SECOND = Keyring((Key(2, bytes(range(50, 82))), Key(1, bytes(range(32)))))
THIRD = Keyring((Key(3, bytes(range(90, 122))), Key(2, bytes(range(50, 82)))))


def test_none_handshake_ack_is_swallowed(family: int) -> None:
    book = Playbook()
    client = book.client(family)
    book >> client.syn() << anything >> client.ack() << nothing >> client.ack() << nothing
    assert len(book.dispatcher.table) == 0
    assert book.dispatcher.counters.handshakes == 2


def test_none_request_without_the_handshake_ack_is_handed_over(family: int) -> None:
    book = Playbook()
    client = book.client(family)
    book >> client.syn() << anything >> client.sends(GET) << Send(BE1, handoff(client, GET))


@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
@pytest.mark.parametrize("garbage", [b"", b"\0"], ids=["empty", "one octet"])
def test_none_keep_alive_probe_is_acknowledged(offers: list[object], garbage: bytes, family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=offers)
    stamps = {"Timestamp": (client.tsecr, client.tsval)} if client.stamps else {}
    segment = (1460 if family == 4 else 1440) - (12 if client.stamps else 0)
    whole_segments = 65535 - 65535 % segment
    window = -(-whole_segments // 128) if client.stamps else whole_segments
    book >> client.probe(garbage) << gets(client, "A", options=stamps, window=window)
    assert len(book.dispatcher.table) == 0
    assert book.dispatcher.counters.keepalives == 1


def test_none_probe_of_two_octets_is_no_probe() -> None:
    book = Playbook()
    client = book.connected()
    book >> client.probe(b"ab") << anything
    assert book.dispatcher.counters.keepalives == 0
    assert book.dispatcher.counters.enquiries == 1


@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN], ids=["timestamps", "plain"])
def test_none_fin_is_answered_with_fin(offers: list[object], family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=offers)
    stamps = {"Timestamp": (client.tsecr, client.tsval)} if client.stamps else {}
    book >> client.fin() << gets(client, "FA", 0, 1, options=stamps)
    book >> client.fin() << gets(client, "FA", 0, 1, options=stamps)
    assert len(book.dispatcher.table) == len(book.dispatcher.table.finished) == 0


def test_none_last_ack_of_that_close_is_swallowed(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.fin() << gets(client, "FA", 0, 1)
    book >> client.ack(1, 1) << nothing
    assert book.dispatcher.counters.enquiries == 0


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_none_rst_is_silently_dropped(flags: str, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.rst(flags=flags) << nothing
    assert book.dispatcher.counters.dropped_flags == 1


@pytest.mark.parametrize("flags", ["", "F", "P", "U", "FPU"])
def test_none_segment_without_ack_is_dropped(flags: str, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> client.sends(GET, flags=flags) << nothing
    assert book.dispatcher.counters.dropped_flags == 1


@pytest.mark.parametrize("payload", [GET, b""])
def test_none_first_segment_with_bad_checksum_is_dropped(payload: bytes, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    with pytest.raises(ChecksumError):
        book >> client.sends(payload, flags="FA", chksum=1)
    assert len(book.dispatcher.table) == 0


# --- cookies


@pytest.mark.parametrize("bit", range(8, 32))
def test_none_request_with_forged_cookie_is_of_nobody(bit: int) -> None:
    book = Playbook()
    client = book.connected(offers=PLAIN_SYN)
    client.iss ^= 1 << bit
    book >> client.sends(GET) << [Send(BE1, FlowsQuery((client.key,))), Send(BE2, FlowsQuery((client.key,)))]
    assert len(book.dispatcher.table) == 0


def test_none_request_with_another_irs_is_of_nobody(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    client.irs += 1
    book >> client.sends(GET) << anything
    assert book.dispatcher.counters.enquiries == 1


def test_none_request_from_another_port_is_of_nobody(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    client.port += 1
    book >> client.sends(GET) << anything
    assert book.dispatcher.counters.enquiries == 1


@pytest.mark.parametrize("off", [1, -1, 1 << 31])
def test_none_request_with_wrong_tsecr_is_of_nobody(off: int, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    client.tsecr = (client.tsecr + off) & MASK
    book >> client.sends(GET) << anything
    assert (book.dispatcher.counters.enquiries, len(book.dispatcher.table)) == (1, 0)


def test_none_request_with_timestamps_elsewhere_is_handed_over(family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    odd = [("Timestamp", (client.tsval, client.tsecr)), ("EOL", None)]
    book >> client.sends(GET, options=odd) << Send(BE1, handoff(client, GET))


@pytest.mark.parametrize(("seconds", "valid"), [(0, True), (32, True), (63.9, True), (64, False), (2000, False)])
def test_none_cookie_lives_two_periods(seconds: float, valid: bool, family: int) -> None:
    book = Playbook()
    client = book.connected(family)
    book >> After(seconds) << nothing
    expected = (
        [Send(BE1, handoff(client, GET))] if valid else [Send(be, FlowsQuery((client.key,))) for be in (BE1, BE2)]
    )
    book >> client.sends(GET) << expected


def test_none_cookie_of_a_front_end_whose_clock_is_ahead_is_valid(family: int) -> None:
    ahead, book = Playbook(), Playbook()
    ahead >> After(33) << nothing
    client = ahead.connected(family)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, period=PERIOD + 1))


def test_none_cookie_of_another_front_end_is_valid(family: int) -> None:
    client = Playbook().connected(family)
    Playbook() >> client.sends(GET) << Send(BE1, handoff(client, GET))


def test_none_cookie_of_the_second_key_is_valid(family: int) -> None:
    client = Playbook().connected(family)
    Playbook(keyring=SECOND) >> client.sends(GET) << Send(BE1, handoff(client, GET))


def test_none_cookie_of_a_dropped_key_is_of_nobody(family: int) -> None:
    client = Playbook().connected(family)
    book = Playbook(keyring=THIRD)
    book >> client.sends(GET) << anything
    assert book.dispatcher.counters.enquiries == 1


def test_none_cookies_are_made_with_the_first_key() -> None:
    client = Playbook(keyring=SECOND).connected()
    Playbook(keyring=THIRD) >> client.sends(GET) << Send(BE1, handoff(client, GET))


def test_none_plain_cookie_is_counted_short(family: int) -> None:
    book = Playbook()
    client = book.connected(family, offers=PLAIN_SYN)
    book >> client.sends(GET) << Send(BE1, handoff(client, GET, agreement=PLAIN, promised_window_scale=None))
    assert book.dispatcher.counters.short_cookies == 1


def test_none_request_while_the_table_is_full_is_reset(family: int) -> None:
    book = Playbook("max_flows = 1")
    book.handing(book.connected(family))
    other = book.connected(family, port=41000)
    book >> other.sends(GET) << anything
    assert len(book.dispatcher.table) == 1
    assert book.dispatcher.counters.table_full == 1


def test_full_table_port_reused_needs_no_room(family: int) -> None:
    book = Playbook("max_flows = 1")
    book.handing(book.connected(family))
    new = book.client(family, irs=5)
    book >> new.syn() << anything >> new.sends(GET) << anything
    assert book.flow(new).identity == new.identity
    assert book.dispatcher.counters.table_full == 0
