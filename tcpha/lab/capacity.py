"""How many requests a cluster answers: the least of what its processors and links can do. Pure.

Must not know where costs come from, or how anything is shown. A bottleneck bound (operational analysis, Denning and
Buzen, ACM Computing Surveys 1978): with demand D of each request at a resource, no more than 1 / D requests a second
pass it; the least of these bounds is what the cluster can do. Nothing waits in this model, so it says nothing of
latency. docs/capacity.md has the formulae.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tcpha.lab import traffic
from tcpha.lab.traffic import Load, Octets

SMALL_OCTETS: Final = 1e3
LARGE_OCTETS: Final = 1e7
"""Bodies of the two workloads from which a cost is fitted."""
_BITS = 8
_US_PER_S = 1e6
_OCTETS_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one process, in seconds."""

    first_s: float
    """Of a connection with its first request, without the body of the answer."""
    further_s: float
    """Of each further request on it, likewise."""
    octet_s: float
    """Of each octet of a body."""

    def of_request_s(self, load: Load) -> float:
        """Per request."""
        count = load.requests_per_connection
        return (self.first_s + (count - 1) * self.further_s) / count + self.octet_s * load.object_octets

    def plus(self, other: Cost) -> Cost:
        """Of both together."""
        return Cost(self.first_s + other.first_s, self.further_s + other.further_s, self.octet_s + other.octet_s)


def is_between_measured(object_octets: float) -> bool:
    """Whether the cost of such a body is read off the line between the two measured ones."""
    return SMALL_OCTETS < object_octets < LARGE_OCTETS


def fitted(close_us: float, keepalive_us: float, s_per_gb: float) -> Cost:
    """The line through two measured points, and a third for further requests.

    close_us: us per request, each of `SMALL_OCTETS` on a new connection; keepalive_us: each on an old one; s_per_gb:
    seconds per 10^9 octets, each `LARGE_OCTETS` on a new connection. No part of a cost is less than 0.
    """
    small_s, large_s = close_us / _US_PER_S, s_per_gb * LARGE_OCTETS / _OCTETS_PER_GB
    octet_s = max(0.0, (large_s - small_s) / (LARGE_OCTETS - SMALL_OCTETS))
    bodies_s = octet_s * SMALL_OCTETS
    return Cost(max(0.0, small_s - bodies_s), max(0.0, keepalive_us / _US_PER_S - bodies_s), octet_s)


@dataclass(frozen=True, slots=True)
class Costs:
    """Of everybody who works for a request."""

    front_end: Cost
    agent: Cost
    """The BE's, on the node of the server."""
    proxy: Cost
    server: Cost
    client: Cost
    """The load's; only where it shares processors with the cluster."""


@dataclass(frozen=True, slots=True)
class Site:
    """What stands there, besides the number of back ends."""

    link_bits_per_s: float
    """Each node's, in each direction."""
    backend_cores: int = 1
    """Of each back end, for its agent and its server together; the agent is one thread."""
    proxy_threads: int = 1
    """On a core each; the FE is one thread."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One that can saturate."""

    name: str
    requests_per_s: float
    """That it can do; infinite where it has nothing to do."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one kind of cluster can do."""

    resources: tuple[Resource, ...]
    cpu_s: float
    """Of all its processes per request, servers included, clients not unless they share its processors."""

    @property
    def bottleneck(self) -> Resource:
        """What saturates first; of equals the one that is named first."""
        return min(self.resources, key=lambda resource: resource.requests_per_s)

    @property
    def requests_per_s(self) -> float:
        """At most."""
        return self.bottleneck.requests_per_s


def handoff(costs: Costs, load: Load, site: Site, backends: int) -> Prediction:
    """Requests through tcpha, spread evenly over so many back ends."""
    return Prediction(
        (*_of_front_end(costs, load, site), *_times(backends, _of_back_end(costs, load, site))),
        costs.front_end.plus(costs.agent).plus(costs.server).of_request_s(load),
    )


def proxied(costs: Costs, load: Load, site: Site, backends: int) -> Prediction:
    """Requests through a proxy, spread evenly over so many servers of the same nodes."""
    servers = (
        Resource("back ends' cores", _per_s(costs.server.of_request_s(load), site.backend_cores)),
        _link("back ends' links", traffic.server(load), site),
    )
    return Prediction(
        (
            Resource("proxy's core", _per_s(costs.proxy.of_request_s(load), site.proxy_threads)),
            _link("proxy's link", traffic.proxy(load), site),
            *_times(backends, servers),
        ),
        costs.proxy.plus(costs.server).of_request_s(load),
    )


def fed(costs: Costs, load: Load, site: Site) -> float:
    """How many back ends one FE, or its link, keeps busy; below 1 even one is idle at times."""
    front, back = (
        min(resource.requests_per_s for resource in resources)
        for resources in (_of_front_end(costs, load, site), _of_back_end(costs, load, site))
    )
    return math.inf if math.isinf(front) else front / back


def on_shared_cores(costs: Costs, load: Load, cores: float, backends: int) -> Prediction:
    """Requests through tcpha where all nodes, also servers and the client, share so many processors, without wires.

    `cores` may be fewer than the machine has: what others leave. A process is one thread and has one of them at most.
    """
    demand = costs.front_end.plus(costs.agent).plus(costs.server).plus(costs.client).of_request_s(load)
    threads = (
        Resource("FE's core", _per_s(costs.front_end.of_request_s(load))),
        *_times(
            backends,
            (
                Resource("agents' cores", _per_s(costs.agent.of_request_s(load))),
                Resource("servers' cores", _per_s(costs.server.of_request_s(load))),
            ),
        ),
        Resource("client's core", _per_s(costs.client.of_request_s(load))),
    )
    return Prediction((Resource("the shared cores", _per_s(demand, cores)), *threads), demand)


def proxied_on_shared_cores(costs: Costs, load: Load, cores: float, backends: int) -> Prediction:
    """The same through a proxy."""
    demand = costs.proxy.plus(costs.server).plus(costs.client).of_request_s(load)
    threads = (
        Resource("proxy's core", _per_s(costs.proxy.of_request_s(load))),
        *_times(backends, (Resource("servers' cores", _per_s(costs.server.of_request_s(load))),)),
        Resource("client's core", _per_s(costs.client.of_request_s(load))),
    )
    return Prediction((Resource("the shared cores", _per_s(demand, cores)), *threads), demand)


def break_even_octets(costs: Costs, requests_per_connection: float = 1.0) -> float | None:
    """From bodies of so many octets on FE and agent together cost less CPU than the proxy.

    0: always; None: never.
    """
    empty = Load(0.0, requests_per_connection)
    ours = costs.front_end.plus(costs.agent)
    more_s = ours.of_request_s(empty) - costs.proxy.of_request_s(empty)
    less_s_per_octet = costs.proxy.octet_s - ours.octet_s
    if more_s <= 0:
        return 0.0 if less_s_per_octet >= 0 else None
    return more_s / less_s_per_octet if less_s_per_octet > 0 else None


def _of_front_end(costs: Costs, load: Load, site: Site) -> tuple[Resource, ...]:
    return (
        Resource("FE's core", _per_s(costs.front_end.of_request_s(load))),
        _link("FE's link", traffic.front_end(load), site),
    )


def _of_back_end(costs: Costs, load: Load, site: Site) -> tuple[Resource, ...]:
    agent_s = costs.agent.of_request_s(load)
    both_s = agent_s + costs.server.of_request_s(load)
    return (
        Resource("back ends' cores", _per_s(both_s, site.backend_cores)),
        Resource("agents' threads", _per_s(agent_s)),
        _link("back ends' links", traffic.back_end(load), site),
    )


def _times(count: int, resources: Iterable[Resource]) -> tuple[Resource, ...]:
    return tuple(Resource(each.name, count * each.requests_per_s) for each in resources)


def _link(name: str, octets: Octets, site: Site) -> Resource:
    return Resource(name, site.link_bits_per_s / _BITS / octets.fuller)


def _per_s(demand_s: float, cores: float = 1.0) -> float:
    return cores / demand_s if demand_s > 0 else math.inf
