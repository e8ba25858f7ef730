"""What the model predicts, in tables and sentences for a person. Pure.

Must not know where costs come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tcpha.lab import capacity
from tcpha.lab.capacity import LARGE_OCTETS, SMALL_OCTETS, Cost, Costs, Prediction, Site
from tcpha.lab.traffic import Load

KB_OCTETS: Final = 1e3
_MB_OCTETS = 1e6
_ROWS_MAX = 12
"""Of a table; of more back ends powers of 2 are shown."""
SIZES_KB: Final = (1, 10, 100, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class Compared:
    """A measured point beside a predicted one."""

    backends: int
    requests_per_s: float
    cpu_us: float
    """Of everybody per request; of some of them below."""
    cores_left: float
    fe_us: float
    agents_us: float
    servers_us: float


def of_site(costs: Costs, load: Load, site: Site, backends: int) -> Iterator[str]:
    """Predictions for nodes of their own, joined by wires."""
    yield _assumed(load, site)
    yield ""
    yield from _table("back ends", [(f"{n:,}", load, n) for n in shown(backends)], costs, site)
    yield ""
    sizes = sorted({*SIZES_KB, load.object_octets / KB_OCTETS})
    rows = [(f"{kb:,g}", Load(kb * KB_OCTETS, load.requests_per_connection), backends) for kb in sizes]
    yield from _table(f"KB, {_back_ends(backends)}", rows, costs, site)
    yield ""
    yield from conclusions(costs, load, site, backends)
    yield from _doubt(load)


def conclusions(costs: Costs, load: Load, site: Site, backends: int) -> Iterator[str]:
    """What follows, a sentence each."""
    ours, theirs = (kind(costs, load, site, backends) for kind in (capacity.handoff, capacity.proxied))
    feeds = capacity.fed(costs, load, site)
    needed = max(1, math.ceil(feeds)) if math.isfinite(feeds) else 0
    if needed:
        most = capacity.handoff(costs, load, site, needed).requests_per_s
        yield (
            f"One front end feeds {feeds:.1f} back ends: from {_back_ends(needed)} on it is the front end that"
            f" saturates, at {_rate(most)} requests/s."
        )
    else:
        yield "The front end has nothing to do, and feeds any number of back ends."
    yield _saturation_of_the_proxy(costs, load, site)
    yield (
        f"With {_back_ends(backends)}: tcpha {_rate(ours.requests_per_s)} requests/s, HAProxy"
        f" {_rate(theirs.requests_per_s)} ({ours.requests_per_s / theirs.requests_per_s:.2g} times as many), for"
        f" {ours.cpu_s / theirs.cpu_s:.2g} times as much CPU a request."
    )
    yield _break_even(capacity.break_even_octets(costs, load.requests_per_connection))


def of_shared_cores(costs: Costs, load: Load, cores: int, backends: int) -> Iterator[str]:
    """Predictions for a lab whose nodes share the machine's processors."""
    yield f"{_asked(load)}; all nodes, servers and the client share {cores} processors, no wires"
    yield ""
    rows = [["back ends", *("tcpha/s", "us CPU", "saturates"), *("HAProxy/s", "us CPU", "saturates")]]
    for number in shown(backends):
        ours = capacity.on_shared_cores(costs, load, cores, number)
        theirs = capacity.proxied_on_shared_cores(costs, load, cores, number)
        rows.append([f"{number:,}", *_cells(ours), *_cells(theirs)])
    yield from _aligned(rows)
    yield ""
    busy = _first_busy(costs, load, cores, backends)
    if busy is not None:
        yield (
            f"All processors are busy from {_back_ends(busy)} on: further ones bring nothing, for the CPU of a request"
            " stays as it is."
        )
    else:
        yield f"With {_back_ends(backends)} processors are left over: one thread has no more than one."
    yield from _doubt(load)


def of_measured(costs: Costs, load: Load, points: Sequence[Compared]) -> Iterator[str]:
    """Predicted and measured points, each with the processors that others left meanwhile."""
    rows = [
        [
            *("back ends", "cores left", "predicted/s", "measured/s", "deviation"),
            *("predicted us", "measured us", "deviation", "FE us", "agents us", "servers us"),
        ]
    ]
    deviations = []
    for point in points:
        foreseen = capacity.on_shared_cores(costs, load, point.cores_left, point.backends)
        rate = foreseen.requests_per_s / point.requests_per_s - 1
        cpu = foreseen.cpu_s * 1e6 / point.cpu_us - 1
        deviations += [abs(rate), abs(cpu)]
        parts = (foreseen.cpu_s * 1e6, point.cpu_us)
        rows.append(
            [
                *(f"{point.backends}", f"{point.cores_left:.2f}"),
                *(_rate(foreseen.requests_per_s), _rate(point.requests_per_s), f"{rate:+.0%}"),
                *(*(f"{part:,.0f}" for part in parts), f"{cpu:+.0%}"),
                *(f"{part:,.0f}" for part in (point.fe_us, point.agents_us, point.servers_us)),
            ]
        )
    yield from _aligned(rows)
    yield ""
    yield f"Predictions are up to {max(deviations):.0%} off."
    first, last = points[0], points[-1]
    if first is not last:
        yield (
            f"Measured CPU of a request, from {_back_ends(first.backends)} to {_back_ends(last.backends)}:"
            f" {last.cpu_us / first.cpu_us - 1:+.0%} (FE {last.fe_us - first.fe_us:+.0f} us, agents"
            f" {last.agents_us - first.agents_us:+.0f} us, servers {last.servers_us - first.servers_us:+.0f} us);"
            " the model says +0%."
        )


def shown(backends: int) -> list[int]:
    """Numbers of back ends that have a row: all, or of many the powers of 2 and the last."""
    if backends <= _ROWS_MAX:
        return list(range(1, backends + 1))
    powers = [1 << exponent for exponent in range(backends.bit_length())]
    return sorted({*powers, backends})


def costs_line(costs: Costs) -> str:
    """The costs of a new connection with a request of 1 KB, and of a GB."""
    small = Load(capacity.SMALL_OCTETS)
    named: tuple[tuple[str, Cost], ...] = (
        ("FE", costs.front_end),
        ("agent", costs.agent),
        ("HAProxy", costs.proxy),
        ("server", costs.server),
    )
    parts = [f"{name} {cost.of_request_s(small) * 1e6:.0f} us and {cost.octet_s * 1e9:.2f} s" for name, cost in named]
    return f"CPU of a new connection with 1 KB, and of a GB, with accelerate = off: {', '.join(parts)}"


def _first_busy(costs: Costs, load: Load, cores: int, backends: int) -> int | None:
    """The least of up to so many back ends that keep all processors busy; None if not even all of them do.

    More back ends never need fewer processors, so the number is found by halving.
    """
    low, high = 1, backends + 1
    while low < high:
        middle = (low + high) // 2
        if capacity.on_shared_cores(costs, load, cores, middle).bottleneck.name == "the shared cores":
            high = middle
        else:
            low = middle + 1
    return low if low <= backends else None


def _doubt(load: Load) -> Iterator[str]:
    if capacity.is_between_measured(load.object_octets):
        yield (
            f"Costs between {SMALL_OCTETS / KB_OCTETS:g} KB and {LARGE_OCTETS / _MB_OCTETS:g} MB are a straight line"
            " through these two measured sizes: the real ones are higher (docs/capacity.md)."
        )


def _table(title: str, rows: Sequence[tuple[str, Load, int]], costs: Costs, site: Site) -> Iterator[str]:
    head = [title, *("tcpha/s", "MB/s", "us CPU", "saturates"), *("HAProxy/s", "MB/s", "us CPU", "saturates")]
    lines = [head]
    for label, load, backends in rows:
        cells = [label]
        for kind in (capacity.handoff, capacity.proxied):
            rate, cpu, bottleneck = _cells(found := kind(costs, load, site, backends))
            cells += [rate, _tenths(found.requests_per_s * load.object_octets / _MB_OCTETS), cpu, bottleneck]
        lines.append(cells)
    yield from _aligned(lines)


def _cells(found: Prediction) -> list[str]:
    return [_rate(found.requests_per_s), f"{found.cpu_s * 1e6:,.0f}", found.bottleneck.name]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Numbers at the right; the last words of a line have nothing behind them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if title == "saturates" else cell.rjust(width)
            for cell, width, title in zip(row, widths, rows[0], strict=True)
        )
        yield "  ".join(cells).rstrip()


def _assumed(load: Load, site: Site) -> str:
    cores = "1 core" if site.backend_cores == 1 else f"{site.backend_cores} cores"
    threads = "1 thread" if site.proxy_threads == 1 else f"{site.proxy_threads} threads"
    return (
        f"{_asked(load)}; links of {site.link_bits_per_s / 1e9:g} Gbit/s, FE 1 thread, HAProxy {threads},"
        f" each back end {cores}"
    )


def _asked(load: Load) -> str:
    return (
        f"Answers of {load.object_octets / KB_OCTETS:g} KB, requests per connection: {load.requests_per_connection:g}"
    )


def _saturation_of_the_proxy(costs: Costs, load: Load, site: Site) -> str:
    alone = capacity.proxied(costs, load, site, 1)
    proxy = min(
        (each for each in alone.resources if each.name.startswith("proxy")), key=lambda each: each.requests_per_s
    )
    behind = min(each.requests_per_s for each in alone.resources if not each.name.startswith("proxy"))
    if math.isinf(proxy.requests_per_s):
        return "HAProxy has nothing to do, and never saturates."
    servers = max(1, math.ceil(proxy.requests_per_s / behind)) if math.isfinite(behind) else 1
    return (
        f"HAProxy saturates from {_back_ends(servers)} on ({proxy.name}), at {_rate(proxy.requests_per_s)}"
        f" requests/s: {_tenths(proxy.requests_per_s * load.object_octets / _MB_OCTETS)} MB/s."
    )


def _break_even(octets: float | None) -> str:
    if octets is None:
        return "There is no size of answers from which on FE and agent together need less CPU than HAProxy."
    if octets == 0:
        return "FE and agent together need no more CPU than HAProxy, whatever the size of answers."
    return f"FE and agent together need less CPU than HAProxy from answers of {octets / KB_OCTETS:,.0f} KB on."


def _back_ends(count: int) -> str:
    return "1 back end" if count == 1 else f"{count:,} back ends"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else _tenths(per_s)


def _tenths(value: float) -> str:
    """One decimal, and two digits of what would be hardly anything then."""
    return f"{value:,.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
