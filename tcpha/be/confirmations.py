"""Adoptions that front ends asked about, told of many at once: FLOWS costs a connection far less than an ADOPTED of its
own. What has ended by then is not told of, since CLOSED says it.

docs/adr/0014-why-are-adoptions-confirmed-in-bulk.md. Pure.
"""

from __future__ import annotations

from math import inf

from tcpha.be.actions import Send
from tcpha.be.flows import ADOPTED, Flow
from tcpha.proto.handoff import FLOWS_A_MESSAGE, by_message
from tcpha.proto.messages import Flows, Identity
from tcpha.rules import Endpoint

CONFIRM_DELAY_S = 0.01
"""How long adoptions are collected: well below the time after which a front end repeats its HANDOFF."""


class Confirmations:
    """Collects adopted flows, for FLOWS messages to the front ends that handed them over."""

    def __init__(self) -> None:
        self._flows: list[Flow] = []
        self._due = inf

    def add(self, flow: Flow, now: float) -> None:
        """One more is adopted, and its front end asked about it."""
        self._flows.append(flow)
        self._due = now if len(self._flows) >= FLOWS_A_MESSAGE else min(self._due, now + CONFIRM_DELAY_S)

    def on_timer(self, now: float) -> tuple[list[Send], bool]:
        """Return the messages that are due, and whether a flow has ended before it was told of."""
        if now < self._due:
            return [], False
        flows, self._flows, self._due = self._flows, [], inf
        held: dict[Endpoint, list[Identity]] = {}
        for flow in flows:
            if flow.state is ADOPTED:
                held.setdefault(flow.frontend, []).append(flow.identity)
        messages = [
            Send(frontend, Flows(each)) for frontend, identities in held.items() for each in by_message(identities)
        ]
        return messages, sum(map(len, held.values())) < len(flows)

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called."""
        return self._due
