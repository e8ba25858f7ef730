"""bench/results.svg: bars of everybody, a panel for each figure. SVG 1.1, written by hand. Pure.

Must not know how anything was measured: it draws `Results`. A bar is the median, the line on it reaches from low to
high. Text has the colour of the page it stands on, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from bench.results import Extent, Results

WIDTH: Final = 860
_COLUMNS = 2
_MARGIN = 12
_PANEL_WIDTH = (WIDTH - _MARGIN * (_COLUMNS + 1)) // _COLUMNS
_LABEL_WIDTH = 170
_NUMBER_WIDTH = 62
_TITLE_HEIGHT = 26
_BAR_HEIGHT, _BAR_STEP = 13, 19
_OURS, _OTHERS, _BASE = "#c2410c", "#64748b", "#94a3b8"


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
    rows = [shown[first : first + _COLUMNS] for first in range(0, len(shown), _COLUMNS)]
    body, top = [], _MARGIN
    for row in rows:
        for column, (panel, bars) in enumerate(row):
            left = _MARGIN + column * (_PANEL_WIDTH + _MARGIN)
            body.append(f'<g transform="translate({left} {top})">')
            body.extend(_panel(panel, bars, engines, base))
            body.append("</g>")
        top += _TITLE_HEIGHT + _BAR_STEP * max(len(bars) for _, bars in row) + _MARGIN
    kind = "quick run" if results.quick else "run"
    quiet = "" if results.noise.is_quiet else "; the machine was too noisy to tell"
    caption = f"Median of {results.rounds} rounds, {kind} of {results.made}; the line reaches from low to high{quiet}."
    body.append(text(_MARGIN, top + 8, caption, "note"))
    return "\n".join([*head(top + 24, caption), *body, "</svg>", ""])


def _bars(results: Results, panel: Panel) -> list[tuple[str, str, Extent]]:
    """Key, title and figure of everybody who has one."""
    figures = results.figures.get(panel.workload, {})
    found = ((named, figures.get(named.key, {}).get(panel.figure)) for named in results.contenders)
    return [(named.key, named.title, extent) for named, extent in found if extent is not None]


def head(height: int, caption: str) -> Iterator[str]:
    """The beginning of a picture: size, title, colours, ground."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img">'
    )
    yield f"<title>{escape(caption)}</title>"
    yield "<style>"
    yield "text { font: 12px system-ui, sans-serif; fill: #1e293b }"
    yield ".title { font-weight: 600 } .note { font-size: 11px }"
    yield ".ground { fill: #ffffff } .extent { stroke: #1e293b; stroke-width: 1.2 }"
    yield "@media (prefers-color-scheme: dark) {"
    yield "  text { fill: #e2e8f0 } .ground { fill: #0f172a } .extent { stroke: #e2e8f0 }"
    yield "}"
    yield "</style>"
    yield f'<rect class="ground" width="{WIDTH}" height="{height}"/>'


def _panel(panel: Panel, bars: list[tuple[str, str, Extent]], engines: frozenset[str], base: str) -> Iterator[str]:
    yield text(0, 14, panel.title, "title")
    longest = max(max(extent.high, extent.median) for _, _, extent in bars)
    room = _PANEL_WIDTH - _LABEL_WIDTH - _NUMBER_WIDTH
    scale = room / longest if longest > 0 else 0.0
    for number, (key, title, extent) in enumerate(bars):
        top = _TITLE_HEIGHT + number * _BAR_STEP
        colour = _OURS if key in engines else _BASE if key == base else _OTHERS
        low, high = (_LABEL_WIDTH + max(0.0, end) * scale for end in (extent.low, extent.high))
        middle, width = top + _BAR_HEIGHT / 2, max(0.0, extent.median) * scale
        yield text(0, top + 11, title)
        yield f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{colour}"/>'
        yield f'<path class="extent" d="M{low:.1f} {middle} H{high:.1f}"/>'
        yield text(max(high, _LABEL_WIDTH + width) + 5, top + 11, f"{extent.median:,.{panel.digits}f}")


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words that begin at a place."""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{of_kind}>{escape(words)}</text>'
