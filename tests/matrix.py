"""`python -m tests.matrix`: the tests of the engine over all engines and cables, each combination a run of its own.

    python -m tests.matrix [--engines NAME...] [--offloads on off] [--mtu 1500 9000] [-- PYTEST ARGUMENTS]

What each run said is in a file of its own, the summary at the end is a line each. Exit status: 0 all passed; 1 not; 2
the command line is none. SIGINT ends the run at hand, and the summary tells of those that were.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.cluster.engines import ENGINES

OFFLOADS = ("on", "off")
MTUS = ("1500", "9000")
TESTS = "tests/cluster/test_engine_*.py"
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    engines: str
    offloads: str
    mtu: str

    def __str__(self) -> str:
        return f"{self.engines:<10} offloads {self.offloads:<3} MTU {self.mtu}"

    @property
    def environment(self) -> dict[str, str]:
        """What `tests.cluster.engines` reads."""
        return {"TCPHA_ENGINES": self.engines, "TCPHA_OFFLOADS": self.offloads, "TCPHA_MTU": self.mtu}


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of it."""

    cell: Cell
    status: int
    seconds: float
    lines: tuple[str, ...]
    """pytest's own last line, and before it those that name a test that failed."""

    def __str__(self) -> str:
        *failed, last = self.lines or ("nothing was said",)
        return "\n".join([f"{self.cell}  {self.seconds:5.0f} s  {last}", *(f"    {line}" for line in failed)])


def run(cell: Cell, arguments: Sequence[str], log: Path) -> Ran:
    """Run pytest, and wait for it. Raises: KeyboardInterrupt."""
    command = [sys.executable, "-m", "pytest", "-q", *(arguments or sorted(map(str, _ROOT.glob(TESTS))))]
    began = time.monotonic()
    with log.open("wb") as stream:
        done = subprocess.run(
            command, cwd=_ROOT, env={**os.environ, **cell.environment}, stdout=stream, stderr=stream, check=False
        )
    return Ran(cell, done.returncode, time.monotonic() - began, told(log.read_text(errors="replace")))


def told(text: str) -> tuple[str, ...]:
    """Of what pytest said: the tests that failed, and the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    return (*(line for line in lines[:-1] if line.startswith(("FAILED ", "ERROR "))), *lines[-1:])


def main(words: Sequence[str] | None = None) -> int:
    """Run them all; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--offloads", nargs="+", choices=OFFLOADS, default=OFFLOADS)
    parser.add_argument("--mtu", nargs="+", choices=MTUS, default=MTUS)
    parser.add_argument("arguments", nargs="*", metavar="PYTEST ARGUMENT", help=f"default: {TESTS}")
    chosen = parser.parse_args(words)
    directory = Path(tempfile.mkdtemp(prefix="tcpha-matrix-"))
    cells = [Cell(*each) for each in product(chosen.engines, chosen.offloads, chosen.mtu)]
    found: list[Ran] = []
    try:
        for number, cell in enumerate(cells, start=1):
            found.append(run(cell, chosen.arguments, directory / f"{number}-{cell.engines}.log"))
            print(f"{number}/{len(cells)}  {found[-1]}", flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    print("\n" + "\n".join(str(each).partition("\n")[0] for each in found))
    print(f"{sum(each.status == 0 for each in found)} of {len(cells)} passed; all that was said: {directory}")
    return 0 if len(found) == len(cells) and not any(each.status for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
