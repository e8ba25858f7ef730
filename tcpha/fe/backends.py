"""Which back ends may be used, and why the others may not."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from math import inf

from tcpha.fe.actions import Note
from tcpha.proto.handoff import SERVERS_A_MESSAGE
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports
from tcpha.proto.messages import NodeState, ServerState, Status
from tcpha.proto.promise import Promise
from tcpha.rules import Address, Endpoint

ROOM_AGAIN = 0.95
"""A back end that was full is said to have room again when it has less than this share of its connections then."""
SETTLE_S = 0.5
"""What a back end's probe finds differently is told after this: it finds one virtual address and port after another."""
HEAR_S = 2.0
"""A request waits so long for a back end that has not been heard of since this process began, or only starts itself."""
DIGEST_NOTE_INTERVAL_S = 10.0
"""Other lists of a back end are told no more often."""

_UNHEARD = "not heard of yet"
Target = tuple[bytes, int]
"""A virtual address (packed) and port."""
_Shown = tuple[object, ...]


@dataclass(slots=True)
class Backend:
    """What is known of one back end."""

    endpoint: Endpoint
    status: Status | None = None
    up: bool = False
    complaint: str = _UNHEARD
    """Why it is not used; empty if it is."""
    given: int = 0
    """Connections handed to it since its last STATUS, less those that ended: that STATUS knows nothing of either."""
    told: _Shown = ()
    """What the operator was last told of it."""
    unsettled_since: float = inf
    """When it began to be another than was told, while that is not told yet."""
    full_flows: int = 0
    """Connections it had when it last said that it was full."""
    digest_told: bytes = b""
    """The other digest that the operator knows of; empty: it had the right one since."""
    digest_told_at: float = -inf


class Backends:
    """The back ends of the configuration and their states."""

    def __init__(self, endpoints: tuple[Endpoint, ...], promise: Promise, digest: bytes) -> None:
        self.all = {endpoint: Backend(endpoint) for endpoint in endpoints}
        self._by_addr = {endpoint.addr: backend for endpoint, backend in self.all.items()}
        self._promise = promise
        self._digest = digest
        self._excluded: dict[bytes, frozenset[Address]] = {}
        self._hear_until = inf

    def excluded(self, key: ConnectionKey) -> frozenset[Address]:
        """Return the addresses of the back ends that cannot take a connection along `key`."""
        half = (len(key) - 4) >> 1
        name = key[half : 2 * half] + key[-2:]  # once a connection: the octets are a cheaper key than their values
        found = self._excluded.get(name)
        if found is None:
            target = (key_addresses(key)[1], key_ports(key)[1])
            found = frozenset(each.endpoint.addr for each in self.all.values() if not _serves(each, target))
            self._excluded[name] = found
        return found

    def load(self, addr: Address) -> int:
        """Return how many connections a back end has, as far as is known."""
        backend = self._by_addr[addr]
        return max(backend.given + (backend.status.flows if backend.status is not None else 0), 0)

    def count(self, endpoint: Endpoint) -> None:
        """One more connection is handed to a back end."""
        self.all[endpoint].given += 1

    def discount(self, endpoint: Endpoint, connections: int = 1) -> None:
        """One or more that were handed to it are over, or it did not take them."""
        self.all[endpoint].given -= connections

    def up(self) -> list[Endpoint]:
        """Return the back ends that are heard."""
        return [endpoint for endpoint, each in self.all.items() if each.up]

    def may_soon_serve(self, now: float) -> bool:
        """May a back end that cannot be used be one whose first words are still under way?

        A front end that begins gets packets at once, of connections that the one before it opened.
        """
        return now < self._hear_until and any(_is_awaited(each) for each in self.all.values())

    def on_status(self, endpoint: Endpoint, status: Status, now: float) -> list[Note]:
        """Take in a STATUS; return what an operator should know."""
        backend = self.all[endpoint]
        before = (backend.complaint, *_shown(backend.status))
        backend.up = True
        backend.status = status
        backend.given = 0
        backend.complaint = self._complaint(status)
        seen = (backend.complaint, *_shown(status))
        if seen != before:
            self._excluded.clear()
        notes = []
        if backend.told == seen or _is_about_full(backend, status):
            backend.unsettled_since = inf
        elif _is_settled(status):
            notes.append(self._tell(backend))
        else:
            backend.unsettled_since = min(backend.unsettled_since, now)
        if self._differs_anew(backend, status, now):
            reason = "its servers, rules, virtual addresses or promises are not those of this front end"
            notes.append(Note(f"be {endpoint.addr}: {reason}", needs_care=True))
        return notes

    def on_lost(self, endpoint: Endpoint) -> list[Note]:
        """Give a silent back end up; return what an operator should know."""
        backend = self.all[endpoint]
        backend.up = False
        backend.complaint = "silent"
        self._excluded.clear()
        return [self._tell(backend)]

    def on_timer(self, now: float) -> list[Note]:
        """Return what has settled; to be called about once a second."""
        self._hear_until = min(self._hear_until, now + HEAR_S)
        return [self._tell(each) for each in self.all.values() if now >= each.unsettled_since + SETTLE_S]

    def _tell(self, backend: Backend) -> Note:
        backend.told = (backend.complaint, *_shown(backend.status))
        backend.unsettled_since = inf
        return Note(_describe(backend, self._promise), needs_care=_is_lost(backend))

    def _differs_anew(self, backend: Backend, status: Status, now: float) -> bool:
        """Is its digest another one than ours, and has nobody been told of it?"""
        if status.digest == self._digest:
            backend.digest_told = b""
            return False
        if status.digest == backend.digest_told or now < backend.digest_told_at + DIGEST_NOTE_INTERVAL_S:
            return False
        backend.digest_told = status.digest
        backend.digest_told_at = now
        return True

    def _complaint(self, status: Status) -> str:
        if status.state is not NodeState.UP:
            return status.state.name.lower()
        stack, promise = status.capabilities, self._promise
        if stack is None:
            return _losses(status) or "its own probe has learned nothing yet (does `uaddr` suit its network?)"
        missing = [
            name
            for name, promised, kept in (
                ("window scaling", promise.window_scale is not None, stack.window_scale is not None),
                ("SACK", promise.sack, stack.sack),
                ("timestamps", promise.timestamps, stack.timestamps),
            )
            if promised and not kept
        ]
        return f"its TCP stack does not keep the promise of {', '.join(missing)}" if missing else ""


def _serves(backend: Backend, target: Target) -> bool:
    if backend.complaint or backend.status is None:
        return False
    servers = backend.status.servers
    states = [server.state for server in servers if (server.address, server.port) == target]
    if not states:  # it has another vaddr or vport; or it has too many to name them all
        return not 0 < len(servers) < SERVERS_A_MESSAGE
    return states[0] in (ServerState.ANSWERS, ServerState.UNKNOWN)


def _is_awaited(backend: Backend) -> bool:
    return backend.complaint in (_UNHEARD, NodeState.STARTING.name.lower())


def _is_settled(status: Status) -> bool:
    """Is nothing in a STATUS about to change because the probe that found it has not seen everything yet?"""
    if status.state is not NodeState.UP:
        return True
    return status.capabilities is not None and not _troubles(status)


def _is_lost(backend: Backend) -> bool:
    """Does a back end, or one of its servers, get nothing any more, though nobody says that it is only starting?"""
    if backend.complaint or backend.status is None:
        return backend.complaint != NodeState.STARTING.name.lower()
    return bool(_losses(backend.status))


def _is_about_full(backend: Backend, status: Status) -> bool:
    """Does a back end go to and fro about its limit? That it was full once is all that an operator needs to know."""
    if status.state is NodeState.FULL:
        backend.full_flows = status.flows
    was_full = backend.told == (NodeState.FULL.name.lower(), *_shown(status))
    return was_full and not backend.complaint and status.flows >= ROOM_AGAIN * backend.full_flows


def _shown(status: Status | None) -> _Shown:
    """What of a STATUS `_describe` tells, beside the complaint."""
    return () if status is None else (status.servers, _window_scale(status))


def _window_scale(status: Status) -> int | None:
    return None if status.capabilities is None else status.capabilities.window_scale


def _describe(backend: Backend, promise: Promise) -> str:
    where = f"be {backend.endpoint.addr}"
    if backend.complaint or backend.status is None:
        return f"{where} is not used: {backend.complaint}"
    troubles = "; ".join(filter(None, (_troubles(backend.status), _coarseness(backend.status, promise))))
    return f"{where} is up" + (f", but {troubles}" if troubles else "")


def _coarseness(status: Status, promise: Promise) -> str:
    """Name the step in which windows are told that its agent translates, if its own scale is below the promised one.

    What is left of a window below one step is told as a whole one: a client may then send more than there is room for,
    and repeats it. A socket that its kernel adopts has the promised scale itself; STATUS does not say who adopts, and
    some connections are the agent's in any case (docs/kernel.md).
    """
    promised, own = promise.window_scale, _window_scale(status)
    if promised is None or own is None or own >= promised:
        return ""
    consequence = f"windows that its agent translates are told in steps of {1 << promised}"
    return f"its window scale {own} is below the promised {promised}: {consequence}"


def _troubles(status: Status) -> str:
    """Name the virtual addresses and ports at which its server is not known to answer."""
    return _named(status, (ServerState.NO_LISTENER, ServerState.SILENT, ServerState.UNKNOWN))


def _losses(status: Status) -> str:
    """Name those at which it is known not to answer."""
    return _named(status, (ServerState.NO_LISTENER, ServerState.SILENT))


def _named(status: Status, states: tuple[ServerState, ...]) -> str:
    return "; ".join(
        f"{ip_address(server.address)} port {server.port}: {_words(server.state)}"
        for server in status.servers
        if server.state in states
    )


def _words(state: ServerState) -> str:
    return "not probed" if state is ServerState.UNKNOWN else state.text
