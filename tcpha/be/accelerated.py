"""What becomes of a HANDOFF that the kernel's programs have left to the agent, where they adopt beside it.

A four-tuple is the programs' or the agent's, never both: the programs' map `flows` says whose, and a HANDOFF that goes
to the agent leaves its note there first. So what the agent may do follows from a small table (`course`), and whatever
it does is done only if the note still says what it was decided by. docs/kernel.md; docs/adr/0012. Pure.
"""

from __future__ import annotations

from enum import Enum, auto

from tcpha.finished import full_period
from tcpha.kernel.be_maps import Carried, Ran, Rank, Whose
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import ACK, PSH, encode_segment


class Course(Enum):
    """What is to be done with a HANDOFF."""

    RUN = auto()
    """The agent runs it, once the four-tuple is its own."""
    TAKE_OVER = auto()
    """The same; a program had it, and its accept queue was full."""
    REPEAT = auto()
    """The programs' socket gets the octets again."""
    OVER = auto()
    """It has run: CLOSED."""
    OLDER = auto()
    """A later connection has the four-tuple: REFUSED."""
    MAKE_WAY = auto()
    """An earlier one of the programs' lives there: it is ended, then this is judged again."""


def course(identity: Identity, rank: Rank, carried: Carried | None, ran: Ran, has_socket: bool) -> Course:
    """Decide.

    `carried`: what the programs know of the four-tuple. `ran`: of this very connection; whoever asks has made it the
    agent's, unless it was a program's. `has_socket`: there is one of the programs', and not in TIME-WAIT.
    """
    same = carried is not None and carried.identity == identity
    if carried is not None and not same and rank.is_before(carried.rank):
        return Course.OLDER
    if carried is not None and carried.whose in (Whose.UNSEEN, Whose.PROGRAMS):
        if not same:
            return Course.MAKE_WAY
        if has_socket:
            return Course.REPEAT
        return Course.TAKE_OVER if carried.whose is Whose.UNSEEN else Course.OVER
    if ran is Ran.RAN or (same and carried is not None and carried.whose is Whose.OVER):
        return Course.OVER
    return Course.TAKE_OVER if ran is Ran.ADOPTING else Course.RUN


def rank_of(handoff: Handoff, sender: int, epoch: int, sequence: int) -> Rank:
    """Where a HANDOFF stands among those for its four-tuple."""
    return Rank(sender, epoch, sequence, handoff.period & 0xFFFF)


def period_of(handoff: Handoff, utc_s: float) -> int:
    """The period of its cookie."""
    return full_period(handoff.period, utc_s)


def first_segment(handoff: Handoff) -> bytes:
    """The request octets of a connection that lives here, once more, as the client would repeat them."""
    identity = handoff.identity
    options = b"" if handoff.tsval_sent is None else encode_timestamps(handoff.tsval_client, 0)
    flags = ACK | PSH if handoff.octets else ACK
    first, ack = seq_add(identity.irs, 1), seq_add(identity.iss, 1)
    return encode_segment(identity.key, first, ack, flags, handoff.window, options, handoff.octets)
