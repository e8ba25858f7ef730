"""Clients' packets that came past the interface, in a tunnel, as the agent shows them to be_segments."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.kernel.be_maps import Whose
from tests.kernel.frames import MARK, VIP, VIP_PORT, ether, of_the_host
from tests.kernel.rehearsal import Rehearsal, connected

pytestmark = pytest.mark.kernel

PORT = 42_004
SND_NXT = 0xBA514C37
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
