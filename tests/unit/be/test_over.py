"""Packets that came past the programs, of a connection of theirs whose socket is gone: does the host get them?"""

from __future__ import annotations

import pytest

from tcpha.be.closing import LATE_OCTETS
from tcpha.kernel.be_maps import Whose
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import ACK, FIN, RST, SYN
from tests.unit.be.programs import carried
from tests.unit.be.test_acceleration import ONE, BackEnd, segment


@pytest.mark.parametrize(
    ("flags", "seq", "ack", "goes_on"),
    [
        (ACK, 0, 0, True),
        (ACK | FIN, -1000, 1000, True),
        (ACK, 1, 0, False),
        (ACK, -LATE_OCTETS, 0, False),
        (ACK, 0, LATE_OCTETS, False),
        (ACK, 0, -LATE_OCTETS, False),
        (RST, 0, 0, False),
        (SYN | ACK, 0, 0, False),
    ],
)
def test_over_and_its_client_goes_on_the_host_tells_it_unless_it_may_be_the_next_one(
    flags: int, seq: int, ack: int, goes_on: bool
) -> None:
    """There is no socket, so the host answers by RST; what may be the next one's waits for its connection."""
    here, came = BackEnd(), segment(flags=flags)
    rcv_nxt, snd_nxt = seq_add(came.seg_seq, -seq), seq_add(came.seg_ack, -ack)
    here.programs.add(carried(ONE, Whose.OVER, rcv_nxt=rcv_nxt, snd_nxt=snd_nxt, is_closing=True))
    assert here.kernel.owns(came) == goes_on
    assert here.programs.shown == []


@pytest.mark.parametrize("whose", [Whose.UNSEEN, Whose.PROGRAMS])
def test_socket_is_not_there_yet_or_nobody_knows_why_packet_is_the_agents(whose: Whose) -> None:
    here, came = BackEnd(), segment()
    here.programs.add(carried(ONE, whose, rcv_nxt=came.seg_seq, snd_nxt=came.seg_ack))
    assert not here.kernel.owns(came)
