"""The table of what is judged: ratios to direct and to HAProxy, costs, and the floors they are held against. Pure.

Must not know how anything was measured: it finds figures by the keys of workload, contender and round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bench.contenders import DIRECT, HAPROXY, REUSE
from bench.figures import Spread, Verdict, differences, quotients, spread, verdict

Rounds = Mapping[int, float]
"""A figure by round."""
Side = Literal["at least", "at most"]
Section = Literal["ratios", "differences", "cost"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure that is told of every engine, and its floor if it has one."""

    name: str
    """Its key in the results, behind the engine's prefix."""
    title: str
    section: Section
    """`ratios` are quotients, `differences` differences to `against`; `cost` is the figure itself."""
    workload: str
    figure: str
    against: str | None = None
    side: Side = "at least"
    floors: Mapping[str, float] = field(default_factory=dict)
    """By the engine's prefix; an engine without one is not judged by this."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it."""

    key: str
    judged: Judged
    rounds: dict[int, float]
    spread: Spread
    floor: float | None
    verdict: Verdict | None
    """None: there is no floor."""


ROUNDS_TO_TELL: Final = 3
"""Fewer have no spread to speak of: no floor is said to hold, or not to."""
PYTHON: Final = ""
"""Prefix of the engine through whose processes every packet goes."""
KERNEL: Final = "kernel_"
"""Prefix of the engine whose established connections the kernel carries (docs/kernel.md)."""
_Floors = Mapping[str, float]
_RATE, _MB, _GB_CPU = "requests_per_s", "mb_per_s", "cpu_s_per_gb"


def _ratio(name: str, title: str, workload: str, figure: str, against: str, floors: _Floors | None = None) -> Judged:
    return Judged(name, title, "ratios", workload, figure, against, "at least", floors or {})


def _cost(name: str, title: str, workload: str, figure: str, floors: _Floors | None = None) -> Judged:
    return Judged(name, title, "cost", workload, figure, None, "at most", floors or {})


JUDGED: Final = (
    _ratio("close_vs_haproxy", "new connections, times HAProxy", "close", _RATE, HAPROXY, {PYTHON: 0.5, KERNEL: 1.2}),
    _ratio("close_vs_reuse", "new connections, times HAProxy with http-reuse", "close", _RATE, REUSE, {KERNEL: 0.9}),
    _ratio("close_vs_direct", "new connections, times direct", "close", _RATE, DIRECT),
    _ratio("keepalive_vs_haproxy", "keep-alive requests, times HAProxy", "keepalive", _RATE, HAPROXY, {PYTHON: 0.4}),
    _ratio("keepalive_vs_direct", "keep-alive requests, times direct", "keepalive", _RATE, DIRECT, {KERNEL: 0.9}),
    _ratio("download_vs_haproxy", "10 MB downloads, times HAProxy", "download", _MB, HAPROXY, {PYTHON: 1.0}),
    _ratio("download_vs_direct", "10 MB downloads, times direct", "download", _MB, DIRECT, {KERNEL: 0.95}),
    Judged(
        "download_cpu_vs_haproxy",
        "CPU of 10 MB downloads, FE and BE, times HAProxy's",
        "ratios",
        "download",
        _GB_CPU,
        HAPROXY,
        "at most",
        {PYTHON: 1.0},
    ),
    _ratio("download_large_vs_haproxy", "100 MB downloads, times HAProxy", "download_large", _MB, HAPROXY),
    _ratio("upload_vs_haproxy", "10 MB uploads, times HAProxy", "upload", _MB, HAPROXY),
    _ratio("mixed_vs_haproxy", "SURGE pages, times HAProxy", "mixed", _RATE, HAPROXY),
    Judged(
        "latency_p99_over_direct_ms",
        "p99 at a low rate, more than direct, ms",
        "differences",
        "latency",
        "p99_ms",
        DIRECT,
        "at most",
        {PYTHON: 2.0},
    ),
    Judged(
        "lab_s_per_gb_over_direct",
        "CPU of the whole lab per GB of 10 MB downloads, more than direct, s",
        "differences",
        "download",
        "lab_s_per_gb",
        DIRECT,
        "at most",
    ),
    _cost(
        "fe_us_per_connection",
        "CPU of the FE per new connection, us",
        "close",
        "cpu_us_per_request_fe",
        {PYTHON: 110.0, KERNEL: 45.0},
    ),
    _cost(
        "be_us_per_connection",
        "CPU of the BE agents per new connection, us",
        "close",
        "processes_us_per_request_be",
        {PYTHON: 150.0, KERNEL: 1.0},
    ),
    _cost(
        "be_programs_us_per_connection",
        "run time of the BE's programs per new connection, us",
        "close",
        "programs_us_per_request_be",
    ),
    _cost("s_per_gb", "CPU of FE and BE agents per GB of 10 MB downloads, s", "download", _GB_CPU, {KERNEL: 0.05}),
    _cost("fe_s_per_gb", "CPU of the FE per GB of 10 MB downloads, s", "download", "cpu_s_per_gb_fe", {PYTHON: 0.5}),
    _cost("be_s_per_gb", "CPU of the BE agents per GB of 10 MB downloads, s", "download", "cpu_s_per_gb_be"),
    _cost(
        "fe_octets_per_idle_connection",
        "memory of the FE per idle connection, octets",
        "idle",
        "octets_per_connection_fe",
    ),
    _cost(
        "be_octets_per_idle_connection",
        "memory of the BE agents per idle connection, octets",
        "idle",
        "octets_per_connection_be",
    ),
    _cost("fe_us_per_syn", "CPU of the FE per SYN of a flood, us", "flood", "process_us_per_syn_fe"),
    _cost(
        "host_us_per_syn",
        "CPU of the front host per SYN of a flood, less what sending costs, us",
        "flood",
        "host_us_per_syn",
        {KERNEL: 1.5},
    ),
    _cost("flood_p99_ms", "p99 of requests during a flood, ms", "flood", "p99_ms", {KERNEL: 50.0}),
)


class Figures:
    """Figures by workload, contender, name and round."""

    def __init__(self, found: Iterable[tuple[str, str, int, Mapping[str, float]]]) -> None:
        """Each: workload, contender, round, its figures."""
        self._rounds: dict[tuple[str, str, str], dict[int, float]] = {}
        for workload, contender, number, figures in found:
            for name, value in figures.items():
                self._rounds.setdefault((workload, contender, name), {})[number] = value

    def rounds(self, workload: str, contender: str, name: str) -> Rounds:
        """One figure; empty if it was not measured."""
        return self._rounds.get((workload, contender, name), {})

    def names(self, workload: str, contender: str) -> list[str]:
        """Figures that a contender has of a workload."""
        return [name for each, who, name in self._rounds if (each, who) == (workload, contender)]


def judge(
    figures: Figures, engine: str, prefix: str, table: Iterable[Judged] = JUDGED, *, is_quiet: bool = True
) -> list[Judgement]:
    """Everything that was measured of an engine; what was not is absent.

    is_quiet: whether the machine was. On one that was not, only a cost that stays below its floor is said to: others
    who use a processor and its caches make processor time dearer, never cheaper.
    """
    found = []
    for judged in table:
        rounds = _by_round(figures, engine, judged)
        if not rounds:
            continue
        extent = spread(list(rounds.values()))
        floor = judged.floors.get(prefix)
        said = None if floor is None else _said(judged, rounds, extent, floor, is_quiet=is_quiet)
        found.append(Judgement(f"{prefix}{judged.name}", judged, rounds, extent, floor, said))
    return found


def _said(judged: Judged, rounds: Rounds, found: Spread, floor: float, *, is_quiet: bool) -> Verdict:
    if len(rounds) < ROUNDS_TO_TELL:
        return Verdict.UNCLEAR
    said = verdict(found, floor, at_least=judged.side == "at least")
    can_tell = is_quiet or (judged.section == "cost" and said is Verdict.HOLDS)
    return said if can_tell else Verdict.UNCLEAR


def _by_round(figures: Figures, engine: str, judged: Judged) -> dict[int, float]:
    ours = figures.rounds(judged.workload, engine, judged.figure)
    if judged.against is None:
        return dict(ours)
    theirs = figures.rounds(judged.workload, judged.against, judged.figure)
    return (quotients if judged.section == "ratios" else differences)(ours, theirs)
