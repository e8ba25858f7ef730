"""A request that is whole in the first segment of its connection: what nearly every one consists of.

As header prediction does in TCP (Jacobson, 1990), a few comparisons tell that a segment is what most are, and all is
decided at once what `dispatcher`, `reader` and `handover` decide step by step. Whatever is not as predicted goes their
way, and nothing has been changed then. Both ways come to the same (tests/packet/test_first_segment.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Send
from tcpha.fe.assembly import Assembly
from tcpha.fe.backends import Backends
from tcpha.fe.counters import FrontEndCounters
from tcpha.fe.enquiries import Enquiries
from tcpha.fe.flows import HANDING, READING, Flow, Pending
from tcpha.fe.handover import Handover, connection_of
from tcpha.fe.reader import Found
from tcpha.flowtable import FlowTable
from tcpha.proto.cookie import Cookie
from tcpha.proto.inspect import Inspected
from tcpha.proto.inspect.first import inspect
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.tcp import ACK, FIN, RST, SYN, Segment
from tcpha.rules import Choice, RuleSet

_DECISIVE: Final = SYN | FIN | RST | ACK


class FirstSegments:
    """Decides about those that are as predicted."""

    def __init__(
        self,
        config: FrontEndConfig,
        rules: RuleSet,
        table: FlowTable[Flow],
        backends: Backends,
        enquiries: Enquiries,
        handover: Handover,
        counters: FrontEndCounters,
        room_octets: int,
    ) -> None:
        """`room_octets`: so many are kept of a request (`Reader.room_octets`)."""
        self._rules = rules
        self._looks_at_connection = rules.looks_at_connection
        self._table = table
        self._backends = backends
        self._enquiries = enquiries
        self._counters = counters
        self._inspect_octets = config.inspect_octets
        self._inspect_time_s = config.inspect_time
        self._handover = handover
        self._first_wait_s = handover.first_wait_s
        self._promised_scale = config.window_scale
        self._room_octets = room_octets
        # No segment is so short where rules want octets as they are: what is read then is the reader's business.
        self._most_octets = -1 if rules.needs_octets else min(handover.least_room_octets, room_octets)

    def read(self, segment: Segment, identity: Identity, cookie: Cookie) -> Found | None:
        """Look into a segment with a cookie and a checksum that are right, on whose ports no connection lives.

        None: it is not as predicted, and was not looked into. What is not a whole request is the reader's business.
        """
        table, octets = self._table, segment.payload
        if (
            segment.flags & _DECISIVE != ACK
            or not 0 < len(octets) <= self._most_octets
            or identity in table.finished
            or cookie.period <= table.finished.period_floor
            or segment.key in self._enquiries
            or table.is_full()
        ):
            return None
        return inspect(octets, self._inspect_octets, raw=False)

    def hand_over(
        self, segment: Segment, identity: Identity, cookie: Cookie, request: Inspected, old: Flow | None, now: float
    ) -> Sequence[Action]:
        """Begin a connection with the whole request that was read, and give it to a back end.

        `old` was on its ports, and is over. Raises: OptionError; nothing has been changed then.
        """
        table, backends, counters = self._table, self._backends, self._counters
        key, octets, start, window = segment.key, request.octets, segment.seg_seq, segment.seg_wnd
        stamps, patience = segment.timestamps, self._rules.patience()
        tsval = stamps[0] if stamps else 0
        pending = Pending(
            cookie, Assembly(start, self._room_octets, octets), acknowledged=start, told=start, covered=start,
            tsval_client=tsval, tsval_recent=tsval, window=window, give_up_at=now + self._inspect_time_s,
            request=request, patience=patience,
        )  # fmt: skip
        flow = Flow(identity, cookie.period, READING, last_seen=now, key=key, last_ack=segment.seg_ack, pending=pending)
        table.insert(flow, now)
        counters.requests += 1
        if cookie.tsval is None:
            counters.short_cookies += 1
        if old is not None:
            counters.ports_reused += 1
        connection = connection_of(key) if self._looks_at_connection else None
        choice = self._rules.choose(request, connection, backends.excluded(key), load=backends.load, patience=patience)
        if not isinstance(choice, Choice):
            return self._handover.wait_or_refuse(flow, choice, now)
        server = choice.server
        backends.count(server)
        counters.handoffs += 1
        flow.assign(server)
        flow.state = HANDING
        table.deadlines.set_in_turn(flow, now + self._first_wait_s)
        agreement = cookie.agreement
        scale = None if agreement.window_scale is None else self._promised_scale
        message = Handoff(
            identity, agreement, promised_window_scale=scale, window=window, period=cookie.period,
            tsval_sent=cookie.tsval, tsval_client=tsval, confirm=True, acknowledged=None, octets=octets,
        )  # fmt: skip
        return (Send(server, message),)
