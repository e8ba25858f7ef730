"""The search for connections of the programs' that ended without a packet, and for what is remembered for nothing.

Of what is alive packets pass, or somebody looks once in a while: so much at a time, however many there are. Where one
step ends the next begins, so that a walk through the map comes by every entry. docs/adr/0012.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from tcpha.be.carried import CarriedConnections
from tcpha.kernel.be_maps import Act, Entries, Whose, seen_at
from tcpha.net.bpf_adopter import Adopter
from tcpha.proto.ip import ConnectionKey

ENTRIES = 16_384
"""Four-tuples that one step comes by, at most, but for a piece of the map."""
LOOKED_FOR = 128
"""Those of them that are looked for, at most."""
FORGOTTEN = 1024
"""Those of them that are forgotten because they are over for long, at most; others wait for the next walk."""
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
        self._walk: Iterator[Entries] = iter(())
        self._silent: deque[bytes] = deque()
        """Four-tuples that the walk came by, and that are to be looked for."""

    def step(self, now: float) -> None:
        """Look at the next entries. Raises: EdgeError."""
        silent, over = seen_at(now - SILENT_S), seen_at(now - REMEMBERED_S)
        examined = passed = forgotten = 0
        while examined < LOOKED_FOR:
            if self._silent:
                self._examine(self._silent.popleft(), silent)
                examined += 1
                continue
            if passed >= ENTRIES:
                return
            entries = next(self._walk, None)
            if entries is None:
                self._walk = self._adopter.walk()
                return
            passed += len(entries)
            quiet, old = entries.quiet_since(silent, over)
            self._silent.extend(quiet)
            for four_tuple in old[: FORGOTTEN - forgotten]:
                self._forget(four_tuple, over)
                forgotten += 1

    def _examine(self, four_tuple: bytes, silent: int) -> None:
        """The walk has read the entry some steps ago: what counts is what it is now."""
        carried = self._adopter.look_up(four_tuple)
        if carried is None or carried.whose is Whose.OVER or carried.seen > silent:
            return
        key = carried.identity.key
        is_there = self._agent_runs(key) if carried.whose is Whose.AGENT else self._connections.has_open_socket(key)
        if not is_there:
            self._connections.give_up(carried)

    def _forget(self, four_tuple: bytes, over: int) -> None:
        carried = self._adopter.look_up(four_tuple)
        if carried is not None and carried.whose is Whose.OVER and carried.seen <= over:
            self._adopter.order(Act.FORGET, carried.identity)
