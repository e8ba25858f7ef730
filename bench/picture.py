"""bench/results.svg: bars of everybody, a panel for each figure. SVG 1.1, written by hand. Pure.

Must not know how anything was measured: it draws `Results`. A bar is the median, the line on it reaches from low to
high. Colours and text are `bench.svg`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.figures import rounds_in_words
from bench.results import Extent, Results
from bench.svg import COLUMNS, MARGIN, OTHERS, OURS, PANEL_WIDTH, head, text

_LABEL_WIDTH = 170
_NUMBER_WIDTH = 62
_TITLE_HEIGHT = 26
_BAR_HEIGHT, _BAR_STEP = 13, 19
_BASE = "#94a3b8"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of everybody."""

    title: str
    workload: str
    figure: str
    digits: int = 0


PANELS: Final = (
    Panel("New connections, requests/s (more is better)", "close", "requests_per_s"),
    Panel("Balancer's CPU, us per new connection (less is better)", "close", "cpu_us_per_request"),
    Panel("Keep-alive, requests/s (more is better)", "keepalive", "requests_per_s"),
    Panel("Balancer's CPU, us per keep-alive request (less is better)", "keepalive", "cpu_us_per_request"),
    Panel("10 MB downloads, MB/s (more is better)", "download", "mb_per_s"),
    Panel("Balancer's CPU, s per GB downloaded (less is better)", "download", "cpu_s_per_gb", 2),
    Panel("100 MB downloads, MB/s (more is better)", "download_large", "mb_per_s"),
    Panel("Octets through the front node per octet (less is better)", "download", "front_octets_per_octet", 2),
    Panel("10 MB uploads, MB/s (more is better)", "upload", "mb_per_s"),
    Panel("SURGE pages, requests/s (more is better)", "mixed", "requests_per_s"),
    Panel("p99 at 100 requests/s, ms (less is better)", "latency", "p99_ms", 2),
    Panel("Balancer's memory, octets per idle connection (less is better)", "idle", "octets_per_connection"),
    Panel("Balancer's host's CPU, us per SYN of a flood (less is better)", "flood", "host_us_per_syn", 1),
)


def draw(results: Results, engines: frozenset[str], base: str) -> str:
    """The picture; `engines` are drawn in our colour, `base` paler than the others."""
    panels = [(panel, _bars(results, panel)) for panel in PANELS]
    shown = [(panel, bars) for panel, bars in panels if bars]
    rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
    body, top = [], MARGIN
    for row in rows:
        for column, (panel, bars) in enumerate(row):
            left = MARGIN + column * (PANEL_WIDTH + MARGIN)
            body.append(f'<g transform="translate({left} {top})">')
            body.extend(_panel(panel, bars, engines, base))
            body.append("</g>")
        top += _TITLE_HEIGHT + _BAR_STEP * max(len(bars) for _, bars in row) + MARGIN
    kind = "quick run" if results.quick else "run"
    quiet = "" if results.noise.is_quiet else "; the machine was too noisy to tell"
    rounds = rounds_in_words(results.rounds)
    caption = f"Median of {rounds}, {kind} of {results.made}; the line reaches from low to high{quiet}."
    body.append(text(MARGIN, top + 8, caption, "note"))
    return "\n".join([*head(top + 24, caption), *body, "</svg>", ""])


def _bars(results: Results, panel: Panel) -> list[tuple[str, str, Extent]]:
    """Key, title and figure of everybody who has one."""
    figures = results.figures.get(panel.workload, {})
    found = ((named, figures.get(named.key, {}).get(panel.figure)) for named in results.contenders)
    return [(named.key, named.title, extent) for named, extent in found if extent is not None]


def _panel(panel: Panel, bars: list[tuple[str, str, Extent]], engines: frozenset[str], base: str) -> Iterator[str]:
    yield text(0, 14, panel.title, "title")
    longest = max(max(extent.high, extent.median) for _, _, extent in bars)
    room = PANEL_WIDTH - _LABEL_WIDTH - _NUMBER_WIDTH
    scale = room / longest if longest > 0 else 0.0
    for number, (key, title, extent) in enumerate(bars):
        top = _TITLE_HEIGHT + number * _BAR_STEP
        colour = OURS if key in engines else _BASE if key == base else OTHERS
        low, high = (_LABEL_WIDTH + max(0.0, end) * scale for end in (extent.low, extent.high))
        middle, width = top + _BAR_HEIGHT / 2, max(0.0, extent.median) * scale
        yield text(0, top + 11, title)
        yield f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{colour}"/>'
        yield f'<path class="extent" d="M{low:.1f} {middle} H{high:.1f}"/>'
        yield text(max(high, _LABEL_WIDTH + width) + 5, top + 11, f"{extent.median:,.{panel.digits}f}")
