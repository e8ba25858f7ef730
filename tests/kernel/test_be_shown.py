"""Clients' packets that came past the interface, in a tunnel, as the agent shows them to be_segments."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.be.closing import LATE_OCTETS as FAR_OCTETS
from tcpha.be.closing import is_late_at
from tcpha.kernel.be_maps import Whose, encode_tuple
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import decode_segment
from tests.kernel.frames import MARK, VIP, VIP_PORT, ether, of_the_host
from tests.kernel.rehearsal import Rehearsal, connected
from tests.kernel.test_be_handoff import arriving as from_client
from tests.kernel.test_be_handoff import leaving as from_server

pytestmark = pytest.mark.kernel

PORT = 42_004
RCV_NXT, SND_NXT = SeqNum(0x22000000), SeqNum(0xBA514C37)
ETHERNET_OCTETS = 14
LARGEST_OCTETS = 65_535
"""Of an IP packet; segments that were merged on their way come as one."""


def arriving(family: int, flags: str, octets: int = 0, ack: int = SND_NXT) -> bytes:
    """Of the client's, with timestamps, as it comes out of a tunnel."""
    network = IP(src=VIP[4], dst=VIP[4]) if family == 4 else IPv6(src=VIP[6], dst=VIP[6])
    options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    tcp = TCP(sport=PORT, dport=VIP_PORT, flags=flags, seq=0, ack=ack, options=options)
    return bytes(network / tcp / bytes(octets))


def leaving(family: int, flags: str, seq: int, ack: int) -> bytes:
    network = IP(src=VIP[4], dst=VIP[4]) if family == 4 else IPv6(src=VIP[6], dst=VIP[6])
    link = ether(family)
    tcp = TCP(sport=VIP_PORT, dport=PORT, flags=flags, seq=seq, ack=ack)
    return bytes(Ether(src=link.src, dst=link.dst) / network / tcp)


@pytest.mark.parametrize("octets", [0, 1_428, 3_900, 8_900, LARGEST_OCTETS - 40 - 32])
def test_last_segment_of_an_upload_is_shown_its_fin_is_known_by_its_number(programs: Rehearsal, octets: int) -> None:
    family, message = programs.family, of_the_host(programs.family, PORT)
    programs.arrive(programs.datagram(message=message).frame())
    with connected(family, PORT, MARK):
        programs.leave(leaving(family, "FA", SND_NXT, 0))
        programs.adopter.show(arriving(family, "FPA", octets, SND_NXT + 1))
        programs.leave(leaving(family, "A", SND_NXT + 1, octets))
        assert programs.whose(message) is Whose.PROGRAMS
        programs.leave(leaving(family, "A", SND_NXT + 1, octets + 1))
    assert programs.whose(message) is Whose.OVER
    assert programs.closed() == [message.identity]


@pytest.mark.parametrize("behind", [-1, 0, 1, FAR_OCTETS - 1, FAR_OCTETS])
@pytest.mark.parametrize("ahead", [-FAR_OCTETS, 1 - FAR_OCTETS, 0, FAR_OCTETS - 1, FAR_OCTETS])
def test_over_and_the_client_goes_on_the_agent_passes_what_the_programs_would(
    programs: Rehearsal, behind: int, ahead: int
) -> None:
    message = programs.datagram().message
    programs.arrive(programs.datagram().frame())
    programs.leave(from_server(programs.family, RCV_NXT))  # one octet
    programs.leave(from_server(programs.family, RCV_NXT, flags="RA", seq=SND_NXT + 1))
    carried = programs.adopter.look_up(encode_tuple(message.identity.key))
    assert carried is not None
    assert (carried.whose, carried.rcv_nxt, carried.snd_nxt) == (Whose.OVER, RCV_NXT, SND_NXT + 1)
    frame = from_client(programs.family, seq=seq_add(RCV_NXT, -behind), ack=seq_add(SND_NXT, ahead + 1))
    is_late = is_late_at(carried.rcv_nxt, carried.snd_nxt, decode_segment(frame[ETHERNET_OCTETS:]))
    assert programs.arrive(frame).count == ("segments" if is_late else "guarded")
    assert is_late == (0 <= behind < FAR_OCTETS and abs(ahead) < FAR_OCTETS)
