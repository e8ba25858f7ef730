"""The examples in docs/capacity.md: what `python -m tcpha.lab sim` says, below the line with its words. Pure.

Must not know what the command does. An example is indented by 4 and goes on to the next line of text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_EXAMPLE = re.compile(r"(?m)^    \$ python -m tcpha\.lab (?P<words>sim .*)\n(?:    .*\n|\n(?=    ))*")


def refreshed(page: str, say: Callable[[str], str]) -> str:
    """The page with all its examples said again; `say` gets the words from `sim` on."""

    def example(found: re.Match[str]) -> str:
        lines = [f"$ python -m tcpha.lab {found['words']}", *say(found["words"]).splitlines()]
        return "".join(f"    {line}\n" if line else "\n" for line in lines)

    return _EXAMPLE.sub(example, page)


def examples(page: str) -> list[str]:
    """The words of each."""
    return [found["words"] for found in _EXAMPLE.finditer(page)]
