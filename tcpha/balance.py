"""Several servers of one rule -> the one that gets the next connection.

Knows servers, weights and what they carry; no rule, no pattern, and of a connection only the key it is told by. Pure:
the same calls in the same order give the same servers, and nothing here is random.

- In turn: smooth weighted round robin. Every server's credit grows by its weight; the one with the most gets the
  connection and pays what all got. The credits of servers that are passed over rest, so nobody comes back to a burst.
- Least: the smallest (connections + 1) / weight; those that are alike take turns.
- By hash: weighted rendezvous hashing (D. G. Thaler, C. V. Ravishankar, "Using name-based mappings to increase hit
  rates", 1998, with the logarithmic weights of C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables",
  2005): the server with the greatest -weight / ln(h), where h in (0, 1) is a hash of key and server. It asks nothing
  but the key and the server's address and weight, so any two front ends agree; and a server that goes or comes moves
  the keys that were or become its own, no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

WEIGHT_LIMIT: Final = 256
"""Greatest weight of a server; the least is 1."""

Load: TypeAlias = Callable[[Address], int]
"""How many connections a server has."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port (1..65535): a ``server`` or ``fe`` line.

    `weight` (1..256) is a server's share of a rule's connections. It takes no part in comparisons: a server with
    another weight is the same server.
    """

    addr: Address
    port: int
    weight: int = field(default=1, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Tables are asked by it for every connection, and the hash of an address is a computation.
        object.__setattr__(self, "_hash", hash((self.addr, self.port)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        """As it stands in the file: ``ADDRESS PORT [weight=N]``."""
        return f"{self.addr} {self.port}" + (f" weight={self.weight}" if self.weight != 1 else "")


def packed(address: Address) -> bytes:
    """Return an address as 16 octets, IPv4 mapped (RFC 4291, 2.5.5.2)."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def unloaded(_address: Address) -> int:
    """Return the load of a server nobody knows anything of: none."""
    return 0


def usable(servers: Sequence[Endpoint], excluding: Collection[Address]) -> Sequence[int]:
    """Return which of the servers, by their index, are not excluded."""
    if not excluding:
        return range(len(servers))
    return [index for index, server in enumerate(servers) if server.addr not in excluding]


class RoundRobin:
    """Smooth weighted round robin; a rule's place in it is all that this module remembers."""

    __slots__ = ("_credits", "_servers")

    def __init__(self, servers: Sequence[Endpoint]) -> None:
        self._servers = tuple(servers)
        self._credits = [0] * len(servers)

    def pick(self, key: bytes | None, excluding: Collection[Address], load: Load) -> Endpoint | None:
        """Return the next server; neither key nor load count."""
        among = usable(self._servers, excluding)
        return self._servers[self.next_of(among)] if among else None

    def next_of(self, among: Sequence[int]) -> int:
        """Return whose turn it is of some servers, at least one, all by index; the first of several alike."""
        servers, credits_ = self._servers, self._credits
        whole = 0
        best = among[0]
        for index in among:
            weight = servers[index].weight
            whole += weight
            credits_[index] += weight
            if credits_[index] > credits_[best]:
                best = index
        credits_[best] -= whole
        return best


class Least:
    """The fewest connections for its weight."""

    __slots__ = ("_servers", "_turns")

    def __init__(self, servers: Sequence[Endpoint]) -> None:
        self._servers = tuple(servers)
        self._turns = RoundRobin(servers)

    def pick(self, key: bytes | None, excluding: Collection[Address], load: Load) -> Endpoint | None:
        """Return the server with the smallest (load + 1) / weight; the key does not count."""
        servers = self._servers
        least: list[int] = []
        connections, share = 0, 1
        for index in usable(servers, excluding):
            server = servers[index]
            more = load(server.addr) + 1
            # more / weight against connections / share, without rounding
            here, best = more * share, connections * server.weight
            if not least or here < best:
                least, connections, share = [index], more, server.weight
            elif here == best:
                least.append(index)
        return servers[self._turns.next_of(least)] if least else None


_HASH_OCTETS: Final = 8
_PERSON: Final = b"tcphahrw"


class Rendezvous:
    """The server that a key hashes highest with; without a key, in turn."""

    __slots__ = ("_begun", "_equal", "_servers", "_turns")

    def __init__(self, servers: Sequence[Endpoint]) -> None:
        self._servers = tuple(servers)
        self._turns = RoundRobin(servers)
        # The server's address comes first, at its full length: no two pairs of server and key hash the same octets.
        self._begun = tuple(
            blake2s(packed(server.addr), digest_size=_HASH_OCTETS, person=_PERSON) for server in self._servers
        )
        self._equal = len({server.weight for server in self._servers}) == 1

    def pick(self, key: bytes | None, excluding: Collection[Address], load: Load) -> Endpoint | None:
        """Return the key's server among those that are not excluded; the load does not count."""
        among = usable(self._servers, excluding)
        if not among:
            return None
        if key is None:
            return self._servers[self._turns.next_of(among)]
        if self._equal:
            # -1 / ln(h) grows with h: no need to take it.
            return self._servers[max(among, key=lambda index: self._hash(index, key))]
        return self._servers[max(among, key=lambda index: self._score(index, key))]

    def _hash(self, index: int, key: bytes) -> bytes:
        state = self._begun[index].copy()
        state.update(key)
        return state.digest()

    def _score(self, index: int, key: bytes) -> float:
        # 52 bits and a half are what a float holds exactly: never 0, and never rounded to 1.
        h = ((int.from_bytes(self._hash(index, key), "big") >> 12) + 0.5) / (1 << 52)
        return -self._servers[index].weight / math.log(h)


Pool: TypeAlias = RoundRobin | Least | Rendezvous
"""The servers of one rule and how one is picked: ``pick(key, excluding, load)``, None if all are excluded."""
