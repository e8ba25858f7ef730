"""The search for connections of the programs' that ended without a packet, and for what is remembered for nothing.

Of what is alive packets pass, or somebody looks once in a while: so much at a time, however many there are. Where one
step ends the next begins, so that a walk through the map comes by every entry. docs/adr/0012.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tcpha.be.carried import CarriedConnections
from tcpha.kernel.be_maps import Act, Whose, is_quiet_since, seen_at
from tcpha.net.bpf_adopter import Adopter
from tcpha.proto.ip import ConnectionKey

PIECE = 1024
"""Four-tuples in one step, at most."""
LOOKED_FOR = 128
"""Those of them that are looked for, at most."""
SILENT_S = 10.0
"""For so long no packet has passed of one that is looked for."""
REMEMBERED_S = 600.0
"""After its last packet, one that is over: longer than any socket is in TIME-WAIT, or a HANDOFF accepted."""


class Search:
    """Goes on from step to step."""

    def __init__(
        self, adopter: Adopter, connections: CarriedConnections, agent_runs: Callable[[ConnectionKey], bool]
    ) -> None:  # fmt: skip
        self._adopter = adopter
        self._connections = connections
        self._agent_runs = agent_runs
        self._walk: Iterator[tuple[bytes, bytes]] = iter(())

    def step(self, now: float) -> None:
        """Look at the next entries. Raises: EdgeError."""
        silent, over = seen_at(now - SILENT_S), seen_at(now - REMEMBERED_S)
        examined = 0
        for _ in range(PIECE):
            entry = next(self._walk, None)
            if entry is None:
                self._walk = self._adopter.walk()
                return
            four_tuple, value = entry
            if is_quiet_since(value, silent, over):
                self._examine(four_tuple, silent, over)
                examined += 1
                if examined == LOOKED_FOR:
                    return

    def _examine(self, four_tuple: bytes, silent: int, over: int) -> None:
        """The walk has read the entry some steps ago: what counts is what it is now."""
        carried = self._adopter.look_up(four_tuple)
        if carried is None:
            return
        key = carried.identity.key
        if carried.whose is Whose.OVER:
            if carried.seen <= over:
                self._adopter.order(Act.FORGET, carried.identity)
        elif carried.seen <= silent:
            is_there = self._agent_runs(key) if carried.whose is Whose.AGENT else self._connections.has_open_socket(key)
            if not is_there:
                self._connections.give_up(carried)
