"""docs/capacity.svg: what the model of tcpha.lab predicts as curves, and measured points beside it. Pure.

Must not know where costs and points come from. Numbers of back ends and sizes are equally far apart; a scale of costs
is logarithmic, one of rates begins at 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.figures import rounds_in_words
from bench.svg import COLUMNS, MARGIN, OTHERS, OURS, PANEL_WIDTH, head, text
from tcpha.lab import capacity
from tcpha.lab.capacity import SMALL_OCTETS, Costs, Site
from tcpha.lab.capacity_text import KB_OCTETS, SIZES_KB
from tcpha.lab.measured import Scaling, Source
from tcpha.lab.traffic import Load

SITE: Final = Site(link_bits_per_s=10e9)
BACK_ENDS: Final = tuple(range(1, 9))
OBJECTS_KB: Final = (1, 1000)
_PANEL_HEIGHT = 210
_LEFT, _TOP, _BOTTOM, _RIGHT = 56, 44, 34, 12
_STEPS = (1, 2, 5, 10)
_TICKS = 4


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or points."""

    title: str
    colour: str
    values: tuple[float, ...]
    is_measured: bool = False
    extents: tuple[tuple[float, float], ...] = ()
    """Low and high of each value, if it has them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Some series over the same places."""

    title: str
    below: str
    """What the places are."""
    places: tuple[str, ...]
    series: tuple[Series, ...]
    is_logarithmic: bool = False


def draw(source: Source, measured: Scaling | None) -> str:
    """The picture."""
    panels = [*(_rates(source.costs, kb) for kb in OBJECTS_KB), _cpu(source.costs)]
    if measured is not None:
        panels.append(_points(source.costs, measured))
    body = []
    for number, panel in enumerate(panels):
        left = MARGIN + number % COLUMNS * (PANEL_WIDTH + MARGIN)
        top = MARGIN + number // COLUMNS * (_PANEL_HEIGHT + MARGIN)
        body += [f'<g transform="translate({left} {top})">', *_panel(panel), "</g>"]
    bottom = MARGIN + math.ceil(len(panels) / COLUMNS) * (_PANEL_HEIGHT + MARGIN)
    notes = [
        f"Model with 10 Gbit/s links, one core a node. Costs: {source.words.partition(' (')[0]}.",
        *_note(measured),
    ]
    for number, words in enumerate(notes):
        body.append(text(MARGIN, bottom + 8 + 16 * number, words, "note"))
    return "\n".join([*head(bottom + 8 + 16 * len(notes), " ".join(notes)), *body, "</svg>", ""])


def _rates(costs: Costs, kb: int) -> Panel:
    load = Load(kb * KB_OCTETS)
    return Panel(
        f"Requests/s, a new connection and {kb:,} KB each",
        "back ends",
        tuple(str(number) for number in BACK_ENDS),
        (
            Series("tcpha", OURS, tuple(capacity.handoff(costs, load, SITE, n).requests_per_s for n in BACK_ENDS)),
            Series("HAProxy", OTHERS, tuple(capacity.proxied(costs, load, SITE, n).requests_per_s for n in BACK_ENDS)),
        ),
    )


def _cpu(costs: Costs) -> Panel:
    loads = [Load(kb * KB_OCTETS) for kb in SIZES_KB]
    return Panel(
        "CPU us per request in the whole cluster",
        "KB",
        tuple(f"{kb:,}" for kb in SIZES_KB),
        (
            Series("tcpha", OURS, tuple(capacity.handoff(costs, load, SITE, 1).cpu_s * 1e6 for load in loads)),
            Series("HAProxy", OTHERS, tuple(capacity.proxied(costs, load, SITE, 1).cpu_s * 1e6 for load in loads)),
        ),
        is_logarithmic=True,
    )


def _points(costs: Costs, measured: Scaling) -> Panel:
    load, points = Load(SMALL_OCTETS), measured.points
    foreseen = [capacity.on_shared_cores(costs, load, each.cores_left, each.backends) for each in points]
    return Panel(
        f"tcpha with {measured.cores} processors for everything, requests/s of 1 KB",
        "back ends",
        tuple(str(each.backends) for each in points),
        (
            Series("predicted", OURS, tuple(each.requests_per_s for each in foreseen)),
            Series(
                "measured",
                OTHERS,
                tuple(each.requests_per_s for each in points),
                is_measured=True,
                extents=tuple((each.low_per_s, each.high_per_s) for each in points),
            ),
        ),
    )


def _note(measured: Scaling | None) -> Iterator[str]:
    if measured is None:
        yield "No points were measured."
        return
    rounds = rounds_in_words(measured.rounds)
    quiet = "a quiet machine" if measured.is_quiet else "the machine was not quiet, which predictions suffer from"
    yield f"Points: median of {rounds} of {measured.made}, from low to high; {quiet}."


def _panel(panel: Panel) -> Iterator[str]:
    yield text(0, 14, panel.title, "title")
    left = float(_LEFT)
    for series in panel.series:
        sign = f'<circle cx="{left + 8:.1f}" cy="28" r="4" fill="{series.colour}"/>'
        line = f'<rect x="{left:.1f}" y="26.5" width="16" height="3" fill="{series.colour}"/>'
        yield sign if series.is_measured else line
        yield text(left + 21, 32, series.title)
        left += 40 + 8 * len(series.title)
    highest = max(value for series in panel.series for value in (*series.values, *(high for _, high in series.extents)))
    lowest = min(value for series in panel.series for value in series.values)
    marks = powers_of_ten(lowest, highest) if panel.is_logarithmic else ticks(highest)
    scale = _Scale(marks[0], marks[-1], panel.is_logarithmic)
    for mark in marks:
        yield f'<path class="extent" opacity="0.25" d="M{_LEFT} {scale.y(mark):.1f} H{PANEL_WIDTH - _RIGHT}"/>'
        yield text(0, round(scale.y(mark) + 4), f"{mark:,g}")
    for number, place in enumerate(panel.places):
        yield text(_x(number, len(panel.places)) - 3.5 * len(place), _PANEL_HEIGHT - _BOTTOM + 16, place)
    yield text(_LEFT, _PANEL_HEIGHT - 2, panel.below, "note")
    for series in panel.series:
        yield from _marks(series, scale)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    is_logarithmic: bool

    def y(self, value: float) -> float:
        of = math.log10 if self.is_logarithmic else float
        share = (of(value) - of(self.low)) / (of(self.high) - of(self.low))
        return _PANEL_HEIGHT - _BOTTOM - share * (_PANEL_HEIGHT - _TOP - _BOTTOM)


def _marks(series: Series, scale: _Scale) -> Iterator[str]:
    places = [(_x(number, len(series.values)), scale.y(value)) for number, value in enumerate(series.values)]
    if not series.is_measured:
        route = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path d="M{route}" fill="none" stroke="{series.colour}" stroke-width="2.5"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if series.is_measured else 2.5}" fill="{series.colour}"/>'
    for (x, _), (low, high) in zip(places, series.extents, strict=False):
        yield f'<path class="extent" d="M{x:.1f} {scale.y(low):.1f} V{scale.y(high):.1f}"/>'


def ticks(highest: float) -> Sequence[float]:
    """Round numbers from 0 to the first one that is not below `highest`, which is more than 0."""
    rough = highest / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in _STEPS if factor * unit >= rough)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def powers_of_ten(lowest: float, highest: float) -> Sequence[float]:
    """Those that enclose both, which are more than 0; at least two."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**exponent for exponent in range(first, max(last, first + 1) + 1)]


def _x(number: int, count: int) -> float:
    room = PANEL_WIDTH - _LEFT - _RIGHT - 24
    return _LEFT + 12 + (room * number / (count - 1) if count > 1 else room / 2)
