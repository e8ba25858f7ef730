"""SYNs: the program's SYN-ACK is that of the front end's core, octet for octet, whatever the SYN carries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from tcpha.proto.checksum import internet_checksum
from tcpha.proto.cookie import MSS_CLASSES, PERIOD_S, SynCookies
from tcpha.proto.ip import PROTOCOL_TCP
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import decode_segment
from tests.kernel.fe_rehearsal import DROPPED, KEYRING, PASSED_UP, REDIRECTED, Outcome, Stage, Twins, frame_of
from tests.packet.fe_client import LINUX_SYN, PLAIN_SYN, Client, dissect, tcp_options
from tests.packet.fe_playbook import UTC

pytestmark = pytest.mark.kernel

# The program stays as it is from example to example; what it remembers is emptied by `Twins`.
SLOW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROMISES = ("", "sack = no", "timestamps = no", "window_scale = none", "mss = 1300\nwindow = 20000", "window = 600")
FAMILIES = st.sampled_from((4, 6))
NUMBERS = st.one_of(st.sampled_from((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF))

OPTION = st.one_of(
    st.sampled_from((b"\x01", b"\x00", b"\x04\x02")),
    st.integers(0, 0xFFFF).map(lambda mss: b"\x02\x04" + mss.to_bytes(2, "big")),
    st.sampled_from((0, 87, 88, 535, 536, 1219, 1220, 1360, 1400, 1440, 1459, 1460, 8959, 8960)).map(
        lambda mss: b"\x02\x04" + mss.to_bytes(2, "big")
    ),
    st.integers(0, 255).map(lambda scale: bytes((3, 3, scale))),
    st.binary(min_size=8, max_size=8).map(lambda stamps: b"\x08\x0a" + stamps),
    st.tuples(st.integers(5, 255), st.binary(max_size=6)).map(lambda o: bytes((o[0], len(o[1]) + 2)) + o[1]),
    st.binary(min_size=1, max_size=4),  # of any length that is possible, or is not
)
OPTIONS = st.one_of(
    st.lists(OPTION, max_size=8).map(lambda options: b"".join(options)[:40]),
    st.binary(max_size=40),
).map(lambda octets: octets.ljust(-(-len(octets) // 4) * 4, b"\0"))


def with_options(client: Client, options: bytes, payload: bytes = b"") -> bytes:
    """A SYN with these octets as options, and the right checksum."""
    packet = bytearray(client.syn(payload, options=[]))
    at = 20 if client.family == 4 else 40
    packet[at + 20 : at + 20] = options
    packet[at + 12] = (20 + len(options)) << 2
    return repaired(packet)


def repaired(packet: bytearray) -> bytes:
    """The packet with the right lengths and checksums."""
    at = 20 if packet[0] >> 4 == 4 else 40
    if at == 20:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = bytes(2)
        packet[10:12] = internet_checksum(packet[:20]).to_bytes(2, "big")
        addresses = packet[12:20]
    else:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
        addresses = packet[8:40]
    packet[at + 16 : at + 18] = bytes(2)
    pseudo = bytes(addresses) + bytes((0, PROTOCOL_TCP)) + (len(packet) - at).to_bytes(2, "big")
    packet[at + 16 : at + 18] = internet_checksum(pseudo + packet[at:]).to_bytes(2, "big")
    return bytes(packet)


def answered(outcome: Outcome) -> Any:
    assert (outcome.verdict, outcome.count) == (REDIRECTED, "syns")
    return dissect(outcome.packet)


@SLOW
@given(FAMILIES, NUMBERS, OPTIONS, st.sampled_from(PROMISES), st.binary(max_size=70))
@example(4, 1000, b"", "", b"")
@example(6, 0xFFFFFFFF, bytes(40), "timestamps = no", b"x")
def test_syn_any_options_program_and_core_agree(
    fe_stage: Stage, family: int, irs: int, options: bytes, settings_text: str, payload: bytes
) -> None:
    twins = Twins(fe_stage, settings_text)
    outcome, decision = twins.see(with_options(Client(family, irs=irs), options, payload))
    # Only what the core refuses is not answered in the kernel.
    assert (outcome.verdict == REDIRECTED) == (decision.fault is None)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("offers", [LINUX_SYN, PLAIN_SYN, []], ids=["linux", "plain", "none"])
@pytest.mark.parametrize("settings_text", PROMISES)
def test_syn_of_a_usual_client_is_answered_in_the_kernel(
    fe_stage: Stage, family: int, offers: list[Any], settings_text: str
) -> None:
    twins = Twins(fe_stage, settings_text)
    got = answered(twins.see(Client(family, offers=offers).syn())[0])
    assert str(got[TCP].flags) == "SA"
    wanted = {name for name, _ in offers} - {"NOP"}
    missing = {"sack = no": "SAckOK", "timestamps = no": "Timestamp", "window_scale = none": "WScale"}.get(
        settings_text
    )
    assert tcp_options(got).keys() == (wanted | {"MSS"}) - {missing}


@pytest.mark.parametrize("mss", sorted({0, 0xFFFF} | {each + step for each in MSS_CLASSES for step in (-1, 0, 1)}))
@pytest.mark.parametrize("family", [4, 6])
def test_syn_mss_at_the_border_of_a_class_program_and_core_agree(fe_stage: Stage, family: int, mss: int) -> None:
    answered(Twins(fe_stage).see(Client(family, offers=[("MSS", mss)]).syn())[0])


@pytest.mark.parametrize("octets", [1, 63, 64, 65, 1399, 1400])
def test_syn_with_data_is_answered_as_one_without(fe_stage: Stage, octets: int) -> None:
    twins = Twins(fe_stage)
    client = Client()
    outcome, _ = twins.see(client.syn(b"z" * octets))
    assert outcome.packet == twins.see(client.syn())[0].packet


@SLOW
@given(FAMILIES, st.integers(0, 1 << 16), st.integers(1, 255), st.sampled_from((b"", b"abc", b"z" * 200)))
def test_syn_that_was_damaged_is_not_answered(
    fe_stage: Stage, family: int, at: int, change: int, payload: bytes
) -> None:
    twins = Twins(fe_stage)
    packet = bytearray(Client(family).syn(payload))
    tcp = 20 if family == 4 else 40
    packet[tcp + at % (len(packet) - tcp)] ^= change
    outcome, _ = twins.see(bytes(packet))
    assert outcome.verdict in (PASSED_UP, DROPPED)
    assert outcome.count in ("up_checksum", "dropped_flags", "up_unknown", "up_form", "")


@pytest.mark.parametrize("family", [4, 6])
def test_syn_whose_field_holds_the_pseudo_header_is_not_answered_when_it_came_over_a_link(
    fe_stage: Stage, family: int
) -> None:
    """What a sender on this host leaves there; the kernel knows that this one is none."""
    packet = bytearray(Client(family).syn())
    at = 20 if family == 4 else 40
    pseudo = bytes(packet[at - (8 if family == 4 else 32) : at]) + bytes((0, 6)) + (len(packet) - at).to_bytes(2, "big")
    packet[at + 16 : at + 18] = (0xFFFF - internet_checksum(pseudo)).to_bytes(2, "big")
    outcome, decision = Twins(fe_stage).see(bytes(packet))
    assert (outcome.verdict, outcome.count) == (PASSED_UP, "up_checksum")
    assert decision.fault is not None


@pytest.mark.parametrize("flags", ["SA", "SF", "SR", "SFRA"])
def test_syn_with_flags_that_make_no_sense_is_dropped(fe_stage: Stage, flags: str) -> None:
    outcome, decision = Twins(fe_stage).see(Client().syn(flags=flags))
    assert (outcome.verdict, outcome.count) == (DROPPED, "dropped_flags")
    assert decision.counted == ("dropped_flags",)


@pytest.mark.parametrize("flags", ["SEC", "SP", "SU"])
def test_syn_with_further_flags_is_answered_without_them(fe_stage: Stage, flags: str) -> None:
    assert str(answered(Twins(fe_stage).see(Client().syn(flags=flags))[0])[TCP].flags) == "SA"


def test_syn_in_a_padded_frame_is_answered_in_a_frame_of_its_own_size(fe_stage: Stage) -> None:
    Twins(fe_stage)
    packet = Client(offers=[]).syn()
    plain = fe_stage.run(frame_of(packet))
    assert fe_stage.run(frame_of(packet) + bytes(6)).frame == plain.frame


# --- cookies


@SLOW
@given(FAMILIES, NUMBERS, st.integers(0, 3 * PERIOD_S - 1), st.booleans())
def test_cookie_of_the_program_is_accepted_by_every_front_end_for_its_life(
    fe_stage: Stage, family: int, irs: int, second: int, rotated: bool
) -> None:
    keyring = Keyring(KEYRING.keys[::-1]) if rotated else KEYRING
    twins = Twins(fe_stage, keyring=keyring, utc_s=UTC + second)
    client = Client(family, irs=irs)
    client.hears(twins.see(client.syn())[0].packet)
    segment = decode_segment(client.ack())
    # Every key verifies, whichever signs; and another front end may be a period ahead or behind.
    others = SynCookies(KEYRING)
    tsecr = segment.timestamps[1] if segment.timestamps else None
    checked = [
        others.check(segment.key, SeqNum(irs), SeqNum(client.iss), tsecr, UTC + second + step * PERIOD_S)
        for step in (-2, -1, 0, 1, 2)
    ]
    assert [cookie is not None for cookie in checked] == [False, True, True, True, False]


@SLOW
@given(FAMILIES, st.integers(-3, 3), st.integers(0, PERIOD_S - 1), st.booleans(), st.booleans())
def test_cookie_of_another_front_end_is_accepted_by_the_program_as_by_the_core(
    fe_stage: Stage, family: int, step: int, second: int, rotated: bool, stamps: bool
) -> None:
    twins = Twins(fe_stage, utc_s=UTC)
    client = Client(family, offers=LINUX_SYN if stamps else PLAIN_SYN)
    keyring = Keyring(KEYRING.keys[::-1]) if rotated else KEYRING
    other = Twins(fe_stage, keyring=keyring, utc_s=UTC + step * PERIOD_S + second)
    client.hears(other.see(client.syn())[0].packet)
    twins = Twins(fe_stage, utc_s=UTC)
    outcome, _ = twins.see(client.ack())
    assert (outcome.verdict == DROPPED) == (-1 <= step <= 1)


def test_cookie_of_an_unknown_key_is_passed_up(fe_stage: Stage) -> None:
    client = Client()
    stranger = Twins(fe_stage, keyring=Keyring((Key(9, bytes(32)),)))
    client.hears(stranger.see(client.syn())[0].packet)
    outcome, decision = Twins(fe_stage).see(client.ack())
    assert (outcome.verdict, outcome.count) == (PASSED_UP, "up_unknown")
    assert "enquiries" in decision.counted


def test_cookie_of_a_refused_period_is_passed_up_and_the_next_is_made_of_a_later_one(fe_stage: Stage) -> None:
    client, twins = Client(), Twins(fe_stage)
    client.hears(twins.see(client.syn())[0].packet)
    twins.core.table.finished.period_floor = UTC // PERIOD_S
    twins.tell(UTC)
    assert twins.see(client.ack())[0].count == "up_unknown"
    client.hears(twins.see(client.syn())[0].packet)
    assert twins.see(client.ack())[0].count == "handshakes"


def test_syn_after_a_minute_without_renewal_is_passed_up(fe_stage: Stage) -> None:
    client, twins = Client(), Twins(fe_stage)
    client.hears(twins.see(client.syn())[0].packet)
    fe_stage.forwarder.hold()
    assert [twins.see(packet)[0].count for packet in (client.syn(), client.ack())] == ["up_off", "up_off"]
