"""What the agent knows of the connections that the kernel's programs have adopted: which are over, how many live.

The programs remember the connections themselves; here is only what they cannot know, and what front ends are to be
told. Pure: what the programs say, and times, are arguments. A four-tuple is a key of the programs' map `flows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tcpha.be.actions import Send
from tcpha.finished import full_period
from tcpha.kernel.be_maps import Adoption, Carried
from tcpha.proto.messages import Adopted, Handoff, Identity
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import seq_add
from tcpha.proto.tcp import ACK, PSH, encode_segment
from tcpha.rules import Endpoint

LINGERING = 1 << 16
"""Connections at most that are over and whose last segments the programs still know: a quarter of their map."""


class Accelerated:
    """Connections of the programs."""

    def __init__(self, finished_time_s: float) -> None:
        self._finished_time_s = finished_time_s
        # Every entry lingers equally long, so the dictionary's insertion order is the order of expiry.
        self._over: dict[bytes, tuple[Identity, float]] = {}
        self._live_more = 0
        self.closed = 0
        """Connections that ended."""

    def __len__(self) -> int:
        """How many are over and still known."""
        return len(self._over)

    # --- how many

    def on_compared(self, live: int, started: int) -> None:
        """So many lived when the programs had counted so many starts."""
        self._live_more = live - started

    def live(self, started: int) -> int:
        """Return how many live, now that the programs have counted so many starts."""
        return max(started + self._live_more, 0)

    # --- what becomes of them

    def on_ended(self, four_tuple: bytes, carried: Carried, now: float) -> Identity | None:
        """The connection has no socket any more; return it if the front ends are to know, which they are once."""
        if self.is_over(four_tuple, carried.identity):
            return None
        self._over.pop(four_tuple, None)
        self._over[four_tuple] = (carried.identity, now + self._finished_time_s)
        self._live_more -= carried.has_started
        self.closed += 1
        return carried.identity

    def on_destroyed(self, carried: Carried) -> None:
        """It was ended by us, and is forgotten."""
        self._live_more -= carried.has_started
        self.closed += 1

    def on_replaced(self, four_tuple: bytes, identity: Identity) -> Identity | None:
        """Another connection got its four-tuple; return it if the front ends do not know yet that it is over."""
        if self.is_over(four_tuple, identity):
            return None
        self._live_more -= 1
        self.closed += 1
        return identity

    def is_over(self, four_tuple: bytes, identity: Identity) -> bool:
        """Is a connection known to have no socket any more?"""
        known = self._over.get(four_tuple)
        return known is not None and known[0] == identity

    def lives(self, four_tuple: bytes, carried: Carried | None) -> bool:
        """Has it a socket, as far as is known? One of which no packet has left may never have got one."""
        return carried is not None and carried.has_started and not self.is_over(four_tuple, carried.identity)

    def take_forgotten(self, now: float) -> list[tuple[bytes, Identity]]:
        """Return which ones the programs may forget: over for long enough, or too many."""
        forgotten: list[tuple[bytes, Identity]] = []
        while self._over:
            four_tuple, (identity, at) = next(iter(self._over.items()))
            if at > now and len(self._over) <= LINGERING:
                break
            del self._over[four_tuple]
            forgotten.append((four_tuple, identity))
        return forgotten

    # --- what is said and done

    @staticmethod
    def answers(adoptions: Iterable[Adoption], frontends: Mapping[int, Endpoint]) -> Sequence[Send]:
        """ADOPTED for those that were asked about. `frontends`: by their sender ids."""
        return [
            Send(frontends[each.sender], Adopted(each.identity, each.rcv_nxt))
            for each in adoptions
            if each.confirm and each.sender in frontends
        ]


def period_of(handoff: Handoff, utc_s: float) -> int:
    """The period of its cookie."""
    return full_period(handoff.period, utc_s)


def is_older(handoff: Handoff, carried: Carried) -> bool:
    """Is what is handed over of an earlier generation than the connection on its four-tuple?"""
    return 0 < (carried.period - handoff.period) & 0xFFFF < 0x8000


def first_segment(handoff: Handoff) -> bytes:
    """The request octets of a connection that lives here, once more, as the client would repeat them."""
    identity = handoff.identity
    options = b"" if handoff.tsval_sent is None else encode_timestamps(handoff.tsval_client, 0)
    flags = ACK | PSH if handoff.octets else ACK
    first, ack = seq_add(identity.irs, 1), seq_add(identity.iss, 1)
    return encode_segment(identity.key, first, ack, flags, handoff.window, options, handoff.octets)
