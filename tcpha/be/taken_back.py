"""Connections that a front end takes back by CLOSED: they are ended without a word, and none of them runs later.

A front end has given them to another back end, or to nobody: what a client would hear of them, be it a reset, it would
believe. So from the message on they are not held any more, whatever of it is still to be done, and no end of the
process ends them aloud. docs/kernel.md, "The end".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tcpha.be.backlog import Backlog
from tcpha.be.carried import CarriedConnections
from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import encode_tuple
from tcpha.net.bpf_adopter import Adopter
from tcpha.proto.messages import Identity

log = logging.getLogger("tcpha.be")


class TakenBack:
    """Those that wait for their end, and what becomes of them. No call raises EdgeError."""

    def __init__(self, adopter: Adopter, connections: CarriedConnections) -> None:
        self._adopter = adopter
        self._connections = connections
        self._backlog = Backlog()
        self.given_up = 0
        """Those that the kernel let nobody end."""

    def __contains__(self, identity: object) -> bool:
        """Does it wait for its end?"""
        return identity in self._backlog

    def add(self, identities: Iterable[Identity], now: float) -> None:
        """A front end has taken these back."""
        self._backlog.add(identities)
        self.on_timer(now)

    def on_timer(self, now: float) -> None:
        """End some."""
        self._end(self._backlog.take(now), now)

    def end_all(self, now: float) -> None:
        """The process ends, and there is no later."""
        while self._backlog:
            self._end(self._backlog.take_all(), now)

    def next_deadline(self) -> float:
        """Return when `on_timer` wants to be called, `math.inf` if none waits."""
        return self._backlog.next_deadline()

    def _end(self, taken: Iterable[tuple[Identity, int]], now: float) -> None:
        """One that cannot be ended saves no other one."""
        failed: list[tuple[Identity, int]] = []
        reason = ""
        for identity, tried in taken:
            try:
                self._end_one(identity)
            except EdgeError as error:
                reason = str(error)
                failed.append((identity, tried))
        given_up = self._backlog.put_back(failed, now)
        if given_up:
            self.given_up += given_up
            log.warning("%d connections that a front end has taken back cannot be ended: %s", given_up, reason)

    def _end_one(self, identity: Identity) -> None:
        """End it silently if it is the programs', and let none of them run it. Raises: EdgeError."""
        carried = self._adopter.look_up(encode_tuple(identity.key))
        if carried is None or carried.identity != identity:
            self._adopter.remember(identity)
            carried = self._adopter.look_up(encode_tuple(identity.key))  # a program may have been faster
        if carried is not None and carried.identity == identity:
            self._adopter.remember(identity, carried.rank.period)
            self._connections.end_silently(carried)
