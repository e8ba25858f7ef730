"""be_ingress, packet by packet: what it makes of a HANDOFF, and which ones it leaves to the agent as they are."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether

from tcpha.kernel.be_maps import Act, Answer, Ran, Rank, Whose, encode_name, encode_number
from tcpha.proto.cookie import Agreement
from tcpha.proto.messages import Closed, Handoff
from tcpha.proto.seqnum import SeqNum
from tcpha.proto.tcp import decode_segment
from tests.kernel.frames import (
    CLIENT,
    CLIENT_PORT,
    ETHER_OCTETS,
    MARK,
    PERIOD,
    PORT,
    RETRY_MARK,
    SECOND_CODEC,
    SENDER,
    VIP,
    VIP_PORT,
    Datagram,
    ether,
    handoff,
    of_the_host,
    segment_of,
    tcp_of,
)  # fmt: skip
from tests.kernel.rehearsal import PASSED_ON, Outcome, Rehearsal, connected, identities

pytestmark = pytest.mark.kernel


def is_untouched(outcome: Outcome, frame: bytes) -> bool:
    return outcome.verdict == PASSED_ON and outcome.octets == frame and outcome.mark == 0


def becomes_its_segment(outcome: Outcome, datagram: Datagram) -> bool:
    decode_segment(outcome.octets[ETHER_OCTETS:]).check_checksum()
    return outcome.counts == {"adopted": 1} and tcp_of(outcome.octets) == segment_of(datagram.message)


def another(programs: Rehearsal, sequence: int) -> Datagram:
    """Of a connection of its own."""
    return programs.datagram(message=handoff(programs.family, client_port=1024 + sequence), sequence=sequence)


# --- what it becomes


def test_handoff_arrives_it_becomes_the_clients_first_segment(programs: Rehearsal) -> None:
    datagram = programs.datagram()
    outcome = programs.arrive(datagram.frame())
    assert becomes_its_segment(outcome, datagram)
    assert (outcome.verdict, outcome.mark) == (PASSED_ON, MARK)


def test_handoff_arrives_its_ip_header_stays_but_for_what_must_change(programs: Rehearsal) -> None:
    frame = programs.datagram().frame()
    outcome = programs.arrive(frame)
    before, after = Ether(frame)[1], Ether(outcome.octets)[1]
    same = ("ttl", "tos", "id", "flags", "frag") if programs.family == 4 else ("hlim", "tc", "fl")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert (after.src, after.dst) == (CLIENT[programs.family], VIP[programs.family])
    assert bytes(after) == outcome.octets[ETHER_OCTETS:]
    if programs.family == 4:
        written = after.chksum
        del after.chksum
        assert IP(bytes(after)).chksum == written
    assert outcome.octets[:ETHER_OCTETS] == frame[:ETHER_OCTETS]


@pytest.mark.parametrize("octets", [0, 1, 2, 3, 11, 12, 13, 63, 64, 65, 1000, 1360])
def test_handoff_has_so_many_octets_its_segment_has_them(programs: Rehearsal, octets: int) -> None:
    message = replace(handoff(programs.family), octets=bytes(range(1, 252)) * 6)
    datagram = programs.datagram(message=replace(message, octets=message.octets[:octets]))
    assert becomes_its_segment(programs.arrive(datagram.frame()), datagram)


def test_handoff_without_timestamps_its_segment_has_no_options(programs: Rehearsal) -> None:
    message = replace(handoff(programs.family), tsval_sent=None, tsval_client=0)
    datagram = programs.datagram(message=message)
    outcome = programs.arrive(datagram.frame())
    assert becomes_its_segment(outcome, datagram)
    assert tcp_of(outcome.octets)[12] == 5 << 4


def test_handoff_at_the_wrap_its_numbers_wrap(programs: Rehearsal) -> None:
    datagram = programs.datagram(message=handoff(programs.family, irs=0xFFFFFFFF, iss=0xFFFFFFFF))
    outcome = programs.arrive(datagram.frame())
    assert becomes_its_segment(outcome, datagram)
    segment = decode_segment(outcome.octets[ETHER_OCTETS:])
    assert (segment.seg_seq, segment.seg_ack) == (0, 0)


def test_handoff_of_the_second_key_is_adopted(programs: Rehearsal) -> None:
    datagram = programs.datagram(codec=SECOND_CODEC)
    assert becomes_its_segment(programs.arrive(datagram.frame()), datagram)


def test_handoff_is_adopted_its_identity_is_known(programs: Rehearsal) -> None:
    datagram = programs.datagram()
    programs.arrive(datagram.frame())
    ((four_tuple, carried),) = programs.adopter.flows()
    assert carried.identity == datagram.message.identity
    assert carried.rank == Rank(SENDER, programs.epoch, 1, PERIOD & 0xFFFF)
    assert carried.whose is Whose.UNSEEN
    assert programs.adopter.look_up(four_tuple) == carried
    assert programs.adopter.claim_identity(datagram.message.identity, PERIOD) is Ran.ADOPTING


def test_ipv6_handoff_in_an_ipv4_datagram_becomes_an_ipv6_segment(programs: Rehearsal) -> None:
    if programs.family == 6:
        pytest.skip("the other way round it goes to the agent")
    message = handoff(6)
    programs.adopter.set_targets([(ip_address(VIP[6]).packed, VIP_PORT)])
    frame = programs.datagram(message=message).frame()
    outcome = programs.arrive(frame)
    assert (outcome.verdict, outcome.mark, outcome.counts) == (PASSED_ON, MARK, {"adopted": 1})
    seen = Ether(outcome.octets)
    assert (seen.type, seen[IPv6].nh, seen[IPv6].hlim) == (0x86DD, 6, Ether(frame)[IP].ttl)
    assert bytes(seen[IPv6]) == outcome.octets[ETHER_OCTETS:]
    decode_segment(outcome.octets[ETHER_OCTETS:]).check_checksum()
    assert bytes(seen[TCP]) == segment_of(message)


def test_kernel_refuses_ipv6_in_an_ipv4_datagram_it_goes_up_as_it_was(refusing: Rehearsal) -> None:
    refusing.adopter.set_targets([(ip_address(VIP[6]).packed, VIP_PORT)])
    frame = refusing.datagram(message=handoff(6)).frame()
    outcome = refusing.arrive(frame)
    refusing.begin()
    assert outcome.counts == {"up_kernel": 1}
    assert is_untouched(outcome, frame)


# --- anti-replay


def test_handoff_arrives_again_it_goes_to_the_agent(programs: Rehearsal) -> None:
    frame = programs.datagram().frame()
    programs.arrive(frame)
    outcome = programs.arrive(frame)
    assert outcome.counts == {"up_replay": 1}
    assert is_untouched(outcome, frame)


def test_handoff_was_run_by_program_the_agent_may_not_run_it(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram(sequence=5).frame())
    claim = programs.adopter.claim_message
    assert [claim(3, programs.epoch, sequence) for sequence in (5, 6, 6)] == [False, True, False]


def test_handoff_was_run_by_the_agent_no_program_runs_it(programs: Rehearsal) -> None:
    assert programs.adopter.claim_message(3, programs.epoch, 5)
    outcome = programs.arrive(programs.datagram(sequence=5).frame())
    assert outcome.counts == {"up_replay": 1}


def test_sequence_falls_behind_by_a_table_it_is_a_replay(programs: Rehearsal) -> None:
    sequences = (4096 + 7, 8, 7, 4096 + 8)
    counts = [programs.arrive(another(programs, sequence).frame()).count for sequence in sequences]
    assert counts == ["adopted", "adopted", "up_replay", "adopted"]


def test_messages_overtake_one_another_by_a_table_each_is_run_once(programs: Rehearsal) -> None:
    sequences = (5000, 4999, 5000 - 1024, 5000 - 2048, 5000 - 4095, 5000 - 1024)
    counts = [programs.arrive(another(programs, sequence).frame()).count for sequence in sequences]
    assert counts == ["adopted"] * 5 + ["up_replay"]


def test_peer_has_another_table_what_was_seen_in_it_does_not_count(programs: Rehearsal) -> None:
    assert programs.adopter.claim_message(2, programs.epoch, 9)
    assert programs.arrive(programs.datagram(sequence=9).frame()).count == "adopted"


def test_epoch_is_another_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    frame = programs.datagram(epoch=programs.epoch - 1).frame()
    outcome = programs.arrive(frame)
    assert outcome.counts == {"up_epoch": 1}
    assert is_untouched(outcome, frame)


def test_epoch_changes_sequences_begin_anew(programs: Rehearsal) -> None:
    assert programs.arrive(programs.datagram(sequence=9).frame()).count == "adopted"
    programs.begin()
    assert programs.arrive(programs.datagram(sequence=9).frame()).count == "adopted"


# --- connections that ran


def test_connection_has_run_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    identity = programs.datagram().message.identity
    programs.adopter._generations[PERIOD].insert(encode_name(identity), encode_number(Ran.RAN))
    frame = programs.datagram().frame()
    outcome = programs.arrive(frame)
    assert outcome.counts == {"up_ran": 1}
    assert is_untouched(outcome, frame)


def test_connection_is_the_agents_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    assert programs.adopter.claim_identity(programs.datagram().message.identity, PERIOD) is Ran.AGENT
    assert programs.arrive(programs.datagram().frame()).count == "up_ran"


def test_connection_has_run_repetition_that_acknowledges_more_is_the_same(programs: Rehearsal) -> None:
    message = programs.datagram().message
    programs.adopter.claim_identity(message.identity, PERIOD)
    more = replace(message, identity=replace(message.identity, iss=SeqNum(message.identity.iss + 2)))
    assert programs.arrive(programs.datagram(message=more).frame()).count == "up_ran"


def test_connection_ran_another_of_the_same_ports_is_adopted(programs: Rehearsal) -> None:
    programs.adopter.claim_identity(programs.datagram().message.identity, PERIOD)
    other = handoff(programs.family, iss=0x01020304)
    assert programs.arrive(programs.datagram(message=other).frame()).count == "adopted"


def test_socket_never_spoke_repeat_goes_to_the_agent_which_may_take_over(programs: Rehearsal) -> None:
    message = programs.datagram().message
    programs.arrive(programs.datagram().frame())
    frame = programs.datagram(sequence=2).frame()
    outcome = programs.arrive(frame)
    assert outcome.counts == {"up_ran": 1}
    assert is_untouched(outcome, frame)
    assert programs.adopter.claim_identity(message.identity, PERIOD) is Ran.ADOPTING
    assert programs.adopter.take_over(message.identity, PERIOD)
    assert programs.adopter.claim_identity(message.identity, PERIOD) is Ran.AGENT


def test_socket_has_spoken_nobody_takes_over(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram().frame())
    programs.leave(leaving(programs.family, 1))
    assert not programs.adopter.take_over(programs.datagram().message.identity, PERIOD)


def test_agent_remembers_a_connection_no_program_runs_it(programs: Rehearsal) -> None:
    programs.adopter.remember(programs.datagram().message.identity)
    assert programs.arrive(programs.datagram().frame()).counts == {"up_ran": 1}


def test_kernel_refuses_datagram_goes_up_and_the_four_tuple_is_the_agents(refusing: Rehearsal) -> None:
    datagram = refusing.datagram()
    outcome = refusing.arrive(datagram.frame())
    assert outcome.counts == {"up_kernel": 1}
    assert is_untouched(outcome, datagram.frame())
    ((_, carried),) = refusing.adopter.flows()
    assert (carried.identity, carried.whose) == (datagram.message.identity, Whose.AGENT)
    assert refusing.adopter.claim_identity(datagram.message.identity, PERIOD) is Ran.AGENT
    assert refusing.adopter.claim_message(3, refusing.epoch, datagram.sequence)


# --- periods


@pytest.mark.parametrize(("period", "count"), [(-3, "up_period"), (-2, "adopted"), (1, "adopted"), (2, "up_period")])
def test_period_of_cookie_decides(programs: Rehearsal, period: int, count: str) -> None:
    message = replace(handoff(programs.family), period=PERIOD + period)
    assert programs.arrive(programs.datagram(message=message).frame()).count == count


def test_agent_does_not_renew_nothing_is_adopted(programs: Rehearsal) -> None:
    programs.adopter.hold()
    assert programs.arrive(programs.datagram().frame()).count == "up_off"


def test_floor_rises_older_cookies_go_to_the_agent(programs: Rehearsal) -> None:
    programs.adopter.renew(PERIOD, PERIOD)
    assert programs.arrive(programs.datagram().frame()).count == "up_period"
    message = replace(handoff(programs.family), period=PERIOD + 1)
    assert programs.arrive(programs.datagram(message=message).frame()).count == "adopted"


def test_period_passes_what_ran_is_remembered_while_its_cookie_is_valid(programs: Rehearsal) -> None:
    programs.adopter.claim_identity(programs.datagram().message.identity, PERIOD)
    programs.adopter.renew(PERIOD + 2)
    assert programs.arrive(programs.datagram().frame()).count == "up_ran"
    programs.adopter.renew(PERIOD)


# --- whom it is from, and what for


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"sender": 24}, "up_stranger"), ({"sender": 0}, "up_stranger"), ({"source_port": 667}, "up_stranger")],
)
def test_stranger_sends_it_goes_to_the_agent(programs: Rehearsal, changes: dict[str, int], count: str) -> None:
    frame = programs.datagram(**changes).frame()
    outcome = programs.arrive(frame)
    assert outcome.count == count
    assert is_untouched(outcome, frame)


def test_address_is_no_target_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    programs.adopter.set_targets([(ip_address(VIP[programs.family]).packed, VIP_PORT + 1)])
    assert programs.arrive(programs.datagram().frame()).count == "up_target"


@pytest.mark.parametrize("changes", [{"port": 667}])
def test_datagram_is_for_another_socket_nothing_is_counted(programs: Rehearsal, changes: dict[str, int]) -> None:
    frame = programs.datagram(**changes).frame()
    outcome = programs.arrive(frame)
    assert outcome.counts == {}
    assert is_untouched(outcome, frame)


# --- what it is


def test_tag_is_wrong_in_any_bit_of_it_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    octets = programs.datagram().octets
    for bit in range(0, 128, 7):
        bad = bytes([*octets[: bit >> 3], octets[bit >> 3] ^ 1 << (bit & 7), *octets[(bit >> 3) + 1 :]])
        frame = programs.datagram().frame(bad)
        outcome = programs.arrive(frame)
        assert outcome.counts == {"up_tag": 1}
        assert is_untouched(outcome, frame)


def test_handoff_with_acknowledged_octets_goes_to_the_agent(programs: Rehearsal) -> None:
    message = replace(handoff(programs.family), acknowledged=SeqNum(0x11223349))
    assert programs.arrive(programs.datagram(message=message).frame()).count == "up_form"


def test_handoff_says_that_its_header_is_longer_it_goes_to_the_agent_and_so_does_what_follows(
    programs: Rehearsal,
) -> None:
    datagram = programs.datagram()
    octets = bytearray(datagram.octets)
    octets[20] += 40
    octets[:16] = datagram.codec._tag(octets[23], bytes(octets[16:]))
    assert programs.arrive(datagram.frame(bytes(octets))).count == "up_form"
    assert programs.arrive(datagram.frame()).count == "up_owned"


def test_another_message_goes_to_the_agent(programs: Rehearsal) -> None:
    frame = programs.datagram(message=Closed((handoff(programs.family).identity,))).frame()
    outcome = programs.arrive(frame)
    assert outcome.count == "up_form"
    assert is_untouched(outcome, frame)


def test_ipv4_handoff_in_an_ipv6_datagram_goes_to_the_agent(programs: Rehearsal) -> None:
    if programs.family == 4:
        pytest.skip("the other way round it is adopted")
    frame = programs.datagram(message=handoff(4)).frame()
    outcome = programs.arrive(frame)
    assert outcome.count == "up_form"
    assert is_untouched(outcome, frame)


def test_datagram_is_longer_than_the_hash_goes_it_goes_to_the_agent(programs: Rehearsal) -> None:
    message = replace(handoff(programs.family), octets=bytes(1600))
    assert programs.arrive(programs.datagram(message=message).frame()).count == "up_form"


def test_octets_follow_the_ip_packet_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    frame = programs.datagram().frame() + b"\0\0"
    outcome = programs.arrive(frame)
    assert outcome.count == "up_form"
    assert is_untouched(outcome, frame)


def test_odd_headers_stand_before_it_nothing_is_counted(programs: Rehearsal) -> None:
    octets = programs.datagram().octets
    transport = UDP(sport=PORT, dport=PORT) / octets
    head = ether(programs.family)
    network = head[1].copy()
    if programs.family == 4:
        network.options = [IPOption_NOP()] * 4
        fragment = head.copy()
        fragment[IP].flags = "MF"
        odd = [head / transport, fragment / transport]
        odd[0] = Ether(src=head.src, dst=head.dst) / network / transport
    else:
        odd = [Ether(src=head.src, dst=head.dst) / network / IPv6ExtHdrDestOpt() / transport]
    odd.append(Ether(src=head.src, dst=head.dst) / Dot1Q(vlan=5) / head[1].copy() / transport)
    for packet in odd:
        frame = bytes(packet)
        outcome = programs.arrive(frame)
        assert outcome.counts == {}
        assert outcome.verdict == PASSED_ON


def test_ip_options_look_like_its_udp_header_nothing_is_counted(programs: Rehearsal) -> None:
    if programs.family == 6:
        pytest.skip("IPv6 has no options")
    frame = bytearray(programs.datagram().frame())
    frame[34:34] = frame[34:42]
    frame[ETHER_OCTETS] = 0x47
    assert programs.arrive(bytes(frame)).counts == {}


def test_frame_is_for_another_host_nothing_is_counted(programs: Rehearsal) -> None:
    frame = programs.datagram().frame()
    outcome = programs.arrive(b"\x02\0\0\0\0\x09" + frame[6:])
    assert outcome.counts == {}


@pytest.mark.parametrize("scales", [0xF7, 0x7F])
def test_window_scale_is_impossible_handoff_goes_to_the_agent(programs: Rehearsal, scales: int) -> None:
    codec = programs.datagram().codec
    octets = bytearray(programs.datagram().octets)
    octets[22] = scales
    octets[:16] = codec._tag(octets[23], bytes(octets[16:]))
    assert programs.arrive(programs.datagram().frame(bytes(octets))).count == "up_form"


def test_windows_are_not_scaled_octet_of_scales_is_not_read(programs: Rehearsal) -> None:
    message = replace(handoff(programs.family), agreement=Agreement(1440, None, False), promised_window_scale=None)
    codec = programs.datagram().codec
    octets = bytearray(programs.datagram(message=message).octets)
    octets[22] = 0xFF
    octets[:16] = codec._tag(octets[23], bytes(octets[16:]))
    assert programs.arrive(programs.datagram().frame(bytes(octets))).count == "adopted"


# --- segments, and packets that leave


def arriving(family: int, flags: str = "A", seq: int = 0, ack: int = 0) -> bytes:
    head = ether(family)
    network = IP(src=CLIENT[4], dst=VIP[4]) if family == 4 else IPv6(src=CLIENT[6], dst=VIP[6])
    tcp = TCP(sport=CLIENT_PORT, dport=VIP_PORT, flags=flags, seq=seq, ack=ack)
    return bytes(Ether(src=head.src, dst=head.dst) / network / tcp / b"x")


def leaving(family: int, ack: int, flags: str = "A", port: int = CLIENT_PORT, seq: int = 0xBA514C37) -> bytes:
    """The server's first packet, but for what is said."""
    head = ether(family)
    network = IP(src=VIP[4], dst=CLIENT[4]) if family == 4 else IPv6(src=VIP[6], dst=CLIENT[6])
    tcp = TCP(sport=VIP_PORT, dport=port, flags=flags, seq=seq, ack=ack)
    return bytes(Ether(src=head.src, dst=head.dst) / network / tcp / b"y")


def test_segment_of_no_connection_of_ours_arrives_it_is_the_agents(programs: Rehearsal) -> None:
    outcome = programs.arrive(arriving(programs.family))
    assert outcome.counts == {}
    assert is_untouched(outcome, arriving(programs.family))


def test_segment_would_meet_the_listener_it_is_the_agents(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram().frame())
    outcome = programs.arrive(arriving(programs.family))
    assert outcome.counts == {"guarded": 1}
    assert is_untouched(outcome, arriving(programs.family))


def confirmed(family: int, **changes: int) -> Handoff:
    return replace(handoff(family, **changes), confirm=True)


def test_first_packet_leaves_adoption_is_told_and_its_identity_has_run(programs: Rehearsal) -> None:
    message = confirmed(programs.family)
    programs.arrive(programs.datagram(message=message).frame())
    assert programs.held() == []
    frame = leaving(programs.family, 0x11223377)
    outcome = programs.leave(frame)
    assert outcome.octets == frame
    assert programs.held() == [(SENDER, message.identity)]
    assert programs.held() == []
    assert programs.arrive(programs.datagram(sequence=2).frame()).count == "up_ran"


def test_agent_is_patient_adoptions_are_told_at_its_second_look(programs: Rehearsal) -> None:
    message = confirmed(programs.family)
    programs.arrive(programs.datagram(message=message).frame())
    programs.leave(leaving(programs.family, 1))
    adopter = programs.adopter
    assert (adopter.news(patient=True), adopter.has_more()) == (([], []), True)
    _, [(sender, fields)] = adopter.news(patient=True)
    assert (sender, identities(fields)) == (SENDER, [message.identity])
    assert (adopter.has_more(), adopter.news(patient=True)) == (False, ([], []))


def test_adoption_is_there_when_a_patient_agent_is_woken_it_is_told_at_the_next_look(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram(message=confirmed(programs.family)).frame())
    adopter = programs.adopter
    assert adopter.news(patient=True) == ([], [])
    programs.leave(leaving(programs.family, 1))
    adopter.count_age()
    _, [(sender, fields)] = adopter.news(patient=True)
    assert (sender, identities(fields)) == (SENDER, [confirmed(programs.family).identity])


def test_connection_is_over_before_a_patient_agent_tells_of_it_only_that_is_told(programs: Rehearsal) -> None:
    message = confirmed(programs.family)
    programs.arrive(programs.datagram(message=message).frame())
    programs.leave(leaving(programs.family, 1))
    assert programs.adopter.news(patient=True) == ([], [])
    programs.leave(leaving(programs.family, 1, flags="RA"))
    [closed], held = programs.adopter.news(patient=True)
    assert (identities(closed), held) == ([message.identity], [])
    assert not programs.adopter.has_more()


def test_second_packet_leaves_nothing_is_told_until_it_is_asked_for(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram(message=confirmed(programs.family)).frame())
    counts = [programs.leave(leaving(programs.family, ack)).counts for ack in (1, 2)]
    assert counts == [{"started": 1}, {}]
    assert programs.adopter.answers() == []
    assert len(programs.held()) == 1
    identity = handoff(programs.family).identity
    assert programs.adopter.order(Act.ASK, identity)
    for ack in (3, 4):
        assert programs.leave(leaving(programs.family, ack)).counts == {}
    assert programs.adopter.answers() == [Answer(identity, SENDER, SeqNum(3))]


def test_packet_of_the_connection_before_leaves_it_is_no_start(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram(message=confirmed(programs.family)).frame())
    assert programs.leave(leaving(programs.family, 1, flags="R", seq=0xBA514C38)).counts == {}
    assert programs.held() == []
    assert programs.leave(leaving(programs.family, 1)).counts == {"started": 1}


def test_nothing_was_asked_nothing_is_told(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram().frame())
    assert programs.leave(leaving(programs.family, 1)).counts == {"started": 1}
    assert programs.adopter.news() == ([], [])


def test_lease_is_over_nothing_is_adopted(programs: Rehearsal) -> None:
    programs.adopter.renew(PERIOD, lease_s=-1.0)
    assert programs.arrive(programs.datagram().frame()).counts == {"up_off": 1}
    programs.adopter.renew(PERIOD)
    assert programs.arrive(programs.datagram().frame()).counts == {"adopted": 1}


def test_so_many_live_as_there_is_room_for_the_next_one_goes_to_the_agent(programs: Rehearsal) -> None:
    programs.adopter.renew(PERIOD, room=1)
    programs.arrive(another(programs, 1).frame())
    programs.leave(leaving(programs.family, 1, port=1024 + 1))
    frame = another(programs, 2).frame()
    outcome = programs.arrive(frame)
    assert outcome.counts == {"up_full": 1}
    assert is_untouched(outcome, frame)
    programs.leave(leaving(programs.family, 1, port=1024 + 1, flags="RA"))
    assert programs.arrive(another(programs, 3).frame()).count == "adopted"


def test_packet_without_the_mark_leaves_nothing_is_told(programs: Rehearsal) -> None:
    programs.arrive(programs.datagram(message=confirmed(programs.family)).frame())
    programs.leave(leaving(programs.family, 1), mark=0)
    programs.leave(leaving(programs.family, 1, port=CLIENT_PORT + 1))
    assert programs.held() == []


# --- the second time, behind a socket in TIME-WAIT


def second_time(programs: Rehearsal, **changes: Any) -> Outcome:
    return programs.arrive(programs.datagram(**changes).frame(), mark=RETRY_MARK)


def test_clone_goes_to_the_agent_its_mark_is_gone_whatever_is_in_the_way(programs: Rehearsal) -> None:
    outcomes = [second_time(programs, sequence=1, epoch=0), second_time(programs, sequence=2, sender=SENDER + 1)]
    programs.adopter.renew(PERIOD, room=0)
    outcomes += [second_time(programs, sequence=sequence) for sequence in (3, 4)]
    programs.adopter.hold()
    outcomes.append(second_time(programs, sequence=5))
    assert [each.count for each in outcomes] == ["up_epoch", "up_stranger", "up_full", "up_owned", "up_off"]
    assert [each.mark for each in outcomes] == [0] * 5


def test_clone_is_adopted_it_bears_the_mark_of_the_connection(programs: Rehearsal) -> None:
    outcome = second_time(programs)
    assert (outcome.count, outcome.mark) == ("adopted", MARK)


def test_datagram_of_another_bears_that_mark_it_keeps_it(programs: Rehearsal) -> None:
    outcome = second_time(programs, port=PORT + 1)
    assert (outcome.counts, outcome.mark) == ({}, RETRY_MARK)


# --- sockets that are not ours


def test_socket_of_another_holds_the_ports_handoff_goes_to_the_agent(programs: Rehearsal) -> None:
    message = of_the_host(programs.family, 42000)
    with connected(programs.family, 42000):
        frame = programs.datagram(message=message).frame()
        outcome = programs.arrive(frame)
        assert outcome.counts == {"up_live": 1}
        assert is_untouched(outcome, frame)


def test_socket_of_another_took_the_ports_of_one_of_ours_nothing_is_marked(programs: Rehearsal) -> None:
    message = of_the_host(programs.family, 42002)
    assert programs.arrive(programs.datagram(message=message).frame()).count == "adopted"
    segment = bytearray(arriving(programs.family))
    at = ETHER_OCTETS + (12 if programs.family == 4 else 8)
    size = len(ip_address(VIP[programs.family]).packed)
    segment[at : at + size] = ip_address(VIP[programs.family]).packed
    at = ETHER_OCTETS + (20 if programs.family == 4 else 40)
    segment[at : at + 2] = (42002).to_bytes(2, "big")
    with connected(programs.family, 42002):
        assert programs.arrive(programs.datagram(message=message, sequence=2).frame()).counts == {"up_ran": 1}
        outcome = programs.arrive(bytes(segment))
        assert outcome.counts == {"guarded": 1}
        assert outcome.mark == 0
