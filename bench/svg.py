"""What the pictures of the benchmarks have in common: their measures, their colours, their beginning. SVG 1.1. Pure.

Must not know what is drawn. Text has the colour of the page it stands on, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 860
COLUMNS: Final = 2
MARGIN: Final = 12
PANEL_WIDTH: Final = (WIDTH - MARGIN * (COLUMNS + 1)) // COLUMNS
OURS: Final = "#c2410c"
OTHERS: Final = "#64748b"


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


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words that begin at a place."""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{of_kind}>{escape(words)}</text>'
