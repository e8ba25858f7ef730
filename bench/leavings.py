"""What runs that were killed left behind: labs and directories whose names contain the pid of a process that is gone.

Must not know what a run measures.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from bench.arena import ROOTS, root_name
from tcpha.lab import namespaces
from tcpha.lab.addressing import split_namespace
from tcpha.lab.cluster import Lab

RUNS: Final = ("bench", "scaling", "breakdown")
"""Each begins the names of its arenas, `RUN-PID` or `RUN-PID-NUMBER`; their labs have a number more."""
_LAB: Final = re.compile(rf"(?P<arena>(?:{'|'.join(RUNS)})-(?P<pid>[0-9]+)(?:-[0-9]+)?)-[0-9]+")
_ROOT: Final = re.compile(rf"{re.escape(root_name(''))}(?:{'|'.join(RUNS)})-(?P<pid>[0-9]+)(?:-[0-9]+)?")


def remove(say: Callable[[str], None]) -> None:
    """Take down what is left of runs whose process is gone.

    Raises:
        StartError: something cannot be removed.
    """
    roots = [entry for root in ROOTS for entry in _entries(root) if _is_left(_ROOT.fullmatch(entry.name))]
    labs = left_labs([*namespaces.names()])
    for root in roots:
        for lab in sorted({entry.name for entry in _entries(root) if _LAB.fullmatch(entry.name)}):
            Lab(lab, root=root).down()
        shutil.rmtree(root, ignore_errors=True)
    for lab in labs:
        Lab(lab).down()
    if labs or roots:
        say(f"Removed what killed runs left: {', '.join([*labs, *map(str, roots)])}")


def left_labs(names: Iterable[str]) -> list[str]:
    """Of names of namespaces, the labs of runs whose process is gone, sorted."""
    split = filter(None, map(split_namespace, names))
    return sorted({lab for lab, _node in split if _is_left(_LAB.fullmatch(lab))})


def _is_left(found: re.Match[str] | None) -> bool:
    return found is not None and not Path("/proc", found["pid"]).exists()


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
