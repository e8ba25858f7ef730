"""Who is measured: the table of contenders, and the one list of rules that all of them follow. Pure.

Must not know how anything is started or measured. A further engine is a further row: its settings (which give it a lab
of its own), its roles, and the prefix of its keys in the results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tcpha.lab import addressing
from tcpha.lab.configuration import SERVER_PORT, Settings

BACK_ENDS: Final = 2
Rules = tuple[tuple[str, str], ...]
RULES: Final[Rules] = (("jpg$", "be2"), (".*", "be1"))
"""Pattern and back end, searched in the request's target; the first match wins. The same for everybody."""
FINISHED_TIME: Final = "finished_time = 1s"
"""Of the engine in every lab. The default is a minute: what it costs to forget a connection would be counted in the
windows of others."""


IN_PYTHON: Final = "accelerate = off"
BY_THE_KERNEL: Final = "accelerate = require"


class Door(Enum):
    """Where clients of a contender connect to."""

    BACK_END = "be1's own address"
    FRONT_END = "the front end's own address"
    VIRTUAL = "the virtual address"


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy of somebody else's that runs on the front end's node."""

    program: str
    """`haproxy` or `nginx`."""
    reuses_connections: bool
    """Whether it is told to keep connections to the servers for other clients."""


@dataclass(frozen=True, slots=True)
class Role:
    """A part of a contender whose CPU is told apart."""

    name: str
    daemons: tuple[tuple[str, str], ...]
    """Node and daemon (`Node.daemons`)."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those who are measured."""

    key: str
    title: str
    door: Door
    port: int
    roles: tuple[Role, ...] = ()
    peer: Peer | None = None
    settings: Settings = Settings()  # noqa: RUF009 - frozen
    """Of its lab; contenders of equal settings share one."""
    judged_as: str | None = None
    """Prefix of its keys in the results' `ratios` and `cost`; None: it is there to compare with."""
    is_variant: bool = False
    """Whether it differs from another contender only behind the connections it accepts."""
    rules: Rules = RULES

    @property
    def needs_programs(self) -> bool:
        """Whether the kernel runs programs for it."""
        return BY_THE_KERNEL in self.settings.both

    def node_for(self, path: str) -> str:
        """Which back end has to answer."""
        return "be1" if self.door is Door.BACK_END else node_by_rules(path, self.rules)


def node_by_rules(path: str, rules: Rules = RULES) -> str:
    """The back end that rules name for a path."""
    return next(node for pattern, node in rules if re.search(pattern, path))


def settings(carried: str = IN_PYTHON, rules: Rules = RULES, backends: int = BACK_ENDS) -> Settings:
    """Those of a lab of so many back ends whose engine follows `rules`; `carried`: by whom."""
    address = {place.node: place.ipv4 for place in addressing.plan(backends).backends}
    return Settings(both=(*(f"rule = {address[node]} {pattern}" for pattern, node in rules), FINISHED_TIME, carried))


def spread_over(backends: int) -> Contender:
    """Return tcpha before so many back ends: a path that ends in `/N` goes to beN, any other one to be1."""
    named = tuple((f"/{number}$", f"be{number}") for number in range(2, backends + 1))
    rules = (*named, (".*", "be1"))
    own = settings(rules=rules, backends=backends)
    return _engine(f"tcpha_{backends}", f"tcpha, back ends: {backends}", own, "", rules, backends)


def _engine(
    key: str, title: str, own_settings: Settings, judged_as: str, rules: Rules = RULES, backends: int = BACK_ENDS
) -> Contender:
    agents = tuple((f"be{number}", "engine") for number in range(1, backends + 1))
    roles = (Role("fe", (("fe", "engine"),)), Role("be", agents))
    return Contender(
        key, title, Door.VIRTUAL, SERVER_PORT, roles, settings=own_settings, judged_as=judged_as, rules=rules
    )


def _proxy(key: str, title: str, port: int, peer: Peer) -> Contender:
    roles = (Role("proxy", (("fe", key),)),)
    own = settings()
    return Contender(key, title, Door.FRONT_END, port, roles, peer, own, is_variant=peer.reuses_connections)


DIRECT: Final = "direct"
HAPROXY: Final = "haproxy"
REUSE: Final = "haproxy_reuse"
CONTENDERS: Final = (
    Contender(DIRECT, "direct", Door.BACK_END, SERVER_PORT, settings=settings()),
    _proxy(HAPROXY, "HAProxy", 8001, Peer("haproxy", reuses_connections=False)),
    _proxy(REUSE, "HAProxy, http-reuse always", 8002, Peer("haproxy", reuses_connections=True)),
    _proxy("nginx", "nginx", 8003, Peer("nginx", reuses_connections=False)),
    _proxy("nginx_keepalive", "nginx, upstream keepalive", 8004, Peer("nginx", reuses_connections=True)),
    _engine("tcpha", "tcpha", settings(), judged_as=""),
    _engine("tcpha_kernel", "tcpha, kernel fast path", settings(BY_THE_KERNEL), judged_as="kernel_"),
)
"""In the order in which each round takes them."""


def judged(contenders: tuple[Contender, ...] = CONTENDERS) -> tuple[Contender, ...]:
    """Those whose figures are held against the floors."""
    return tuple(contender for contender in contenders if contender.judged_as is not None)


def essential(contenders: tuple[Contender, ...] = CONTENDERS) -> tuple[Contender, ...]:
    """Those without whom a floor cannot be judged."""
    return tuple(each for each in contenders if each.judged_as is not None or each.key in (DIRECT, HAPROXY, REUSE))
