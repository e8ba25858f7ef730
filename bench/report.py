"""What a person reads: the table of everybody, the floors, and whether the machine was quiet. Markdown. Pure.

Must not know how anything was measured: it shows `Results`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.figures import rounds_in_words
from bench.results import Extent, Results


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of everybody."""

    title: str
    workload: str
    figure: str
    digits: int = 0
    scale: float = 1.0


RATES: Final = (
    Column("new connections, req/s", "close", "requests_per_s"),
    Column("keep-alive, req/s", "keepalive", "requests_per_s"),
    Column("10 MB down, MB/s", "download", "mb_per_s"),
    Column("100 MB down, MB/s", "download_large", "mb_per_s"),
    Column("10 MB up, MB/s", "upload", "mb_per_s"),
    Column("SURGE pages, req/s", "mixed", "requests_per_s"),
    Column("p50 at 100/s, ms", "latency", "p50_ms", 2),
    Column("p99 at 100/s, ms", "latency", "p99_ms", 2),
)
COSTS: Final = (
    Column("CPU us per new connection", "close", "cpu_us_per_request"),
    Column("CPU us per keep-alive request", "keepalive", "cpu_us_per_request", 1),
    Column("CPU s per GB down", "download", "cpu_s_per_gb", 2),
    Column("CPU s per GB up", "upload", "cpu_s_per_gb", 2),
    Column("lab's CPU us per new connection", "close", "lab_us_per_request"),
    Column("octets through the front node per octet down", "download", "front_octets_per_octet", 3),
    Column("KB per idle connection", "idle", "octets_per_connection", 2, 1e-3),
    Column("process us per SYN", "flood", "process_us_per_syn", 1),
    Column("host us per SYN", "flood", "host_us_per_syn", 1),
)
_TOTAL = {"cpu_us_per_request", "cpu_s_per_gb", "octets_per_connection", "process_us_per_syn"}
"""Figures that are told by role, too, where a contender has several."""
_ROLES = ("fe", "be")
_NOTHING = "-"


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [
        list(_heading(results)),
        list(_noise(results)),
        table(results, RATES),
        table(results, COSTS),
        list(_failures(results)),
        list(_floors(results)),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def table(results: Results, columns: Sequence[Column]) -> list[str]:
    """One row a contender; columns of what was not measured are left out."""
    shown = [column for column in columns if results.figures.get(column.workload)]
    if not shown:
        return []
    rows = [["", *(column.title for column in shown)], ["---", *("---:" for _ in shown)]]
    for contender in results.contenders:
        cells = [_cell(results, contender.key, column) for column in shown]
        if any(cell != _NOTHING for cell in cells):
            rows.append([contender.title, *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def _heading(results: Results) -> Iterator[str]:
    kind = "quick run" if results.quick else "run"
    machine = results.machine
    yield f"Median (low to high) of {rounds_in_words(results.rounds)}, {kind} of {results.made}."
    yield (
        f"{machine.get('processor', '?')}, "
        f"{machine.get('processors', '?')} processors for everybody, Linux {machine.get('linux', '?')}; "
        f"{machine.get('haproxy', '?')}, {machine.get('nginx', '?')}, tcpha {machine.get('tcpha', '?')}."
    )
    yield "Shares of FE and BE agents are in brackets: [FE + BE]."


def _cell(results: Results, contender: str, column: Column) -> str:
    figures = results.figures[column.workload].get(contender, {})
    found = figures.get(column.figure)
    if found is None:
        return _NOTHING
    text = _extent(found, column)
    parts = [figures.get(f"{column.figure}_{role}") for role in _ROLES] if column.figure in _TOTAL else []
    shares = [_number(part.median, column) for part in parts if part is not None]
    return f"{text} [{' + '.join(shares)}]" if len(shares) > 1 else text


def _extent(found: Extent, column: Column) -> str:
    low, high = _number(found.low, column), _number(found.high, column)
    middle = _number(found.median, column)
    return middle if low == high else f"{middle} ({low} to {high})"


def _number(value: float, column: Column) -> str:
    return f"{value * column.scale:,.{column.digits}f}"


def _failures(results: Results) -> Iterator[str]:
    """A line for everybody of whom requests failed, of the workloads in which none should."""
    windows = [each for each in results.samples if "requests" in each.figures]
    for contender in results.contenders:
        own = [each for each in windows if each.contender == contender.key]
        failed = sum(each.errors for each in own)
        asked = failed + round(sum(each.figures["requests"] + each.figures.get("checked", 0.0) for each in own))
        if failed:
            yield f"- {contender.title}: {failed:,} of {asked:,} requests failed."
    if windows and not any(each.errors for each in windows):
        yield "No request failed."


def _floors(results: Results) -> Iterator[str]:
    if not results.spreads:
        return
    floors = {floor.key: floor for floor in results.floors}
    yield "| what is judged | median (low to high) | floor | |"
    yield "| --- | ---: | ---: | --- |"
    for key, told in results.spreads.items():
        floor = floors.get(key)
        bound, said = (f"{floor.side} {floor.floor:g}", floor.verdict) if floor else ("", "")
        yield f"| {told.title} (`{key}`) | {_judged(told)} | {bound} | {said} |"


def _judged(told: Extent) -> str:
    digits = 0 if abs(told.median) >= 10 else 2
    return f"{told.median:.{digits}f} ({told.low:.{digits}f} to {told.high:.{digits}f})"


def _noise(results: Results) -> Iterator[str]:
    if results.noise.is_quiet:
        yield "The machine was quiet."
        return
    yield (
        "**The machine was too noisy to tell** anything by rates and latencies. Processor time is counted by process,"
        " and others only make it dearer: a cost that is below its floor all the same holds."
    )
    yield ""
    yield from (f"- {reason}" for reason in results.noise.reasons)
