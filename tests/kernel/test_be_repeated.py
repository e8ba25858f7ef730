"""A HANDOFF that comes again, and once went up to the agent: what lives goes on, what is over stays over."""

from __future__ import annotations

import pytest

from tcpha.kernel.be_maps import Whose
from tests.kernel.frames import MARK
from tests.kernel.rehearsal import Rehearsal
from tests.kernel.test_be_handoff import arriving, leaving
from tests.kernel.test_be_owner import arrive, first, known, second, two_pieces

pytestmark = pytest.mark.kernel


@pytest.fixture
def raised(programs: Rehearsal) -> Rehearsal:
    """One lives, and its HANDOFF has come again in a form that is the agent's."""
    arrive(programs, first(programs), 1)
    programs.leave(leaving(programs.family, 1))
    assert arrive(programs, two_pieces(first(programs)), 2) == "up_form"
    return programs


def test_repeat_went_up_while_it_lived_now_it_is_over_that_is_told_and_stays(raised: Rehearsal) -> None:
    assert arrive(raised, first(raised), 3) == "up_owned"
    raised.leave(leaving(raised.family, 1, flags="RA"))
    assert arrive(raised, first(raised), 4) == "told_again"
    assert arrive(raised, two_pieces(first(raised)), 5) == "told_again"
    assert raised.closed() == [first(raised).identity] * 3
    assert raised.whose(first(raised)) is Whose.OVER


def test_repeat_went_up_while_it_lived_its_time_wait_still_speaks_and_is_spoken_to(raised: Rehearsal) -> None:
    raised.leave(leaving(raised.family, 0x22000000))  # one octet
    raised.leave(leaving(raised.family, 0x22000000, flags="RA", seq=0xBA514C38))
    arrive(raised, first(raised), 4)
    assert raised.leave(leaving(raised.family, 1)).counts == {}
    outcome = raised.arrive(arriving(raised.family, seq=0x22000000, ack=0xBA514C38))
    assert (outcome.mark, outcome.count) == (MARK, "segments")


def test_repeat_went_up_while_it_lived_a_later_connection_on_its_ports_waits_behind_it(raised: Rehearsal) -> None:
    raised.leave(leaving(raised.family, 1, flags="RA"))
    assert arrive(raised, second(raised), 4) == "up_owned"
    assert (known(raised).identity, raised.whose(first(raised))) == (second(raised).identity, Whose.AGENT)
