"""What must hold in a front end's core after every step, whatever happened.

- tables: none exceeds its limit; a flow is found by its key; every flow being read is in the table
- flows: a state has exactly what it needs (the table `NEEDS`); who waits for something has a deadline, nobody else
- octets: nothing was acknowledged that did not arrive
- one server: octets of an identity go to the back end that holds it, and to another only after the first has refused
  or was sent away with CLOSED
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from tcpha.config import FrontEndConfig
from tcpha.fe.actions import Action, Forward, PassOn, Send
from tcpha.fe.dispatcher import Dispatcher
from tcpha.fe.flows import Flow, FlowState
from tcpha.proto.icmp import decode_icmp_error, is_icmp
from tcpha.proto.ip import reverse_key
from tcpha.proto.messages import Closed, Flows, Handoff, Identity, Message, Refused, Status
from tcpha.proto.seqnum import seq_diff, seq_le
from tcpha.proto.tcp import decode_segment
from tcpha.rules import Endpoint

NEEDS = {
    # state: has pending, has a back end, has a deadline (None: either)
    FlowState.READING: (True, False, True),
    FlowState.HANDING: (True, None, True),
    FlowState.FORWARDED: (False, True, False),
    FlowState.ANSWERED: (True, False, True),
    FlowState.FINISHED: (False, None, False),
}


class Watch:
    """Checks one dispatcher; remembers which back end holds which identity."""

    def __init__(self, dispatcher: Dispatcher, config: FrontEndConfig) -> None:
        self._dispatcher = dispatcher
        self._config = config
        self._holders: dict[Identity, Endpoint] = {}

    def check(self, actions: Sequence[Action], packet: bytes | None, said: Message | None, by: Endpoint | None) -> None:
        """Check everything; `packet`, or `said` `by` a back end, is what the actions answer."""
        self._check_tables()
        for flow in self._dispatcher.table.by_key.values():
            check_flow(flow)
        self._take_in(said, by)
        self._check_holders(actions, packet)

    def restarted(self, backend: Endpoint) -> None:
        """A back end's process is another one, which holds nothing."""
        for identity in [each for each, holder in self._holders.items() if holder == backend]:
            del self._holders[identity]

    def _take_in(self, said: Message | None, by: Endpoint | None) -> None:
        """What a back end says it holds or does not."""
        if isinstance(said, Refused) and self._holders.get(said.identity) == by:
            del self._holders[said.identity]
        if isinstance(said, Status):  # of another process, which holds nothing
            for identity in [each for each, backend in self._holders.items() if backend == by]:
                if identity.key not in self._dispatcher.table.by_key:
                    del self._holders[identity]
        for identity in said.held if isinstance(said, Flows) else ():
            flow = self._dispatcher.table.by_key.get(identity.key)
            if flow is not None and flow.identity == identity and flow.backend is not None:
                self._holders[identity] = flow.backend

    def _check_tables(self) -> None:
        dispatcher, config, table = self._dispatcher, self._config, self._dispatcher.table
        assert table.live <= config.max_flows
        assert len(table) - table.live <= config.max_finished
        assert len(table.finished) <= config.max_finished
        assert len(dispatcher._enquiries) <= config.max_queries
        reading = dispatcher._reader._reading
        assert len(reading) <= config.max_reading
        known = {id(flow) for flow in table.by_key.values() if flow.state is FlowState.READING}
        assert {id(flow) for flow in reading} == known
        assert all(flow.key == key for key, flow in table.by_key.items())

    def _check_holders(self, actions: Sequence[Action], packet: bytes | None) -> None:
        for action in actions:
            match action:
                case Send(backend, Closed(identities)):
                    for identity in identities:
                        if self._holders.get(identity) == backend:
                            del self._holders[identity]
                case Send(backend, Handoff(identity)):
                    assert self._holders.setdefault(identity, backend) == backend, "two back ends have one identity"
                case Forward(backend, forwarded):
                    self._check_forwarded(backend, forwarded)
                case PassOn(backend) if packet is not None:
                    self._check_forwarded(backend, packet)
                case _:
                    pass

    def _check_forwarded(self, backend: Endpoint, packet: bytes) -> None:
        if is_icmp(packet):
            flow = self._dispatcher.table.by_key[reverse_key(decode_icmp_error(packet).key)]
        else:
            flow = self._dispatcher.table.by_key[decode_segment(packet).key]
        assert self._holders.get(flow.identity, backend) == backend, "octets go to a back end that does not hold them"


def check_flow(flow: Flow) -> None:
    pending, backend, deadline = NEEDS[flow.state]
    assert (flow.pending is not None) == pending
    assert backend in (None, flow.backend is not None)
    assert (flow.deadline < inf) == deadline
    assert bool(flow.pass_on) == (flow.backend is not None)
    assert len(flow.noted) <= 2
    if flow.pending is not None and flow.state is not FlowState.ANSWERED:
        assembly = flow.pending.assembly
        assert seq_le(assembly.start, flow.pending.acknowledged)
        assert seq_diff(assembly.rcv_nxt, flow.pending.acknowledged) >= 0
