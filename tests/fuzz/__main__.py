"""Fuzz for a while: `python -m tests.fuzz [--seconds N] [TARGET...]`; `--replay TARGET FILE` shows what a file does.

Each target in turn is run for N seconds from its corpus on. What reaches something new is added to the corpus, no more
of it than is needed. A finding is made as short as a few seconds allow, left in crashes/ and shown; exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import trace
from tests.fuzz.shorten import fault_of, shorten
from tests.fuzz.targets import CORPUS, CRASHES, MENDED, TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
ONE_RUN_S = 60
"""An input that takes longer is a finding."""
MEMORY_MB = 1024
"""A process that needs more is a finding: something is unbounded."""
SHORTEN_S = 10.0
KEPT = "seed-"
"""How the names of files begin that somebody wrote: they stay, whatever else reaches the same branches."""
_DONE = re.compile(r"stat::number_of_executed_units: +(\d+)")
_REACHED = re.compile(r"cov: (\d+) ft: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    runs: int
    reached: int
    """Branches of the package."""
    added: int
    """Files added to the corpus."""
    finding: Path | None
    log: str


class Fuzzer:
    """Runs the engine for one target, in a directory of its own."""

    def __init__(self, target: Target, scratch: Path) -> None:
        self._target = target
        self._scratch = scratch
        self._corpus = CORPUS / target.name
        self._found = scratch / "found"
        self._crashes = scratch / "crashes"
        self._again = scratch / "again"
        for folder in (self._corpus, self._found, self._crashes):
            folder.mkdir(parents=True, exist_ok=True)
        # libFuzzer calls itself by this name, through a shell, when it merges.
        self._again.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.fuzz.engine "$0" {target.name} "$@"\n')
        self._again.chmod(0o755)
        self._words = scratch / "words"
        self._words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

    def run(self, seconds: int) -> Outcome:
        """Search, then keep what is new."""
        before = set(self._corpus.iterdir())
        searched = self._call(
            str(self._found), str(self._corpus), str(MENDED / self._target.name), f"-max_total_time={seconds}"
        )
        finding = next(iter(self._crashes.iterdir()), None)
        if searched.returncode != 0 and finding is None:
            raise SystemExit(f"the fuzzer itself failed:\n{searched.stderr[-4000:]}")
        merged = self._call("-merge=1", str(self._corpus), str(self._found))
        if merged.returncode != 0 and finding is None:
            raise SystemExit(f"the corpus could not be merged:\n{merged.stderr[-4000:]}")
        runs, reached = _DONE.search(searched.stderr), _REACHED.findall(searched.stderr)
        return Outcome(
            int(runs[1]) if runs else 0,
            int(reached[-1][0]) if reached else 0,
            len(set(self._corpus.iterdir()) - before),
            finding,
            searched.stderr,
        )

    def minimise(self) -> None:
        """Replace the corpus, but for what people wrote, by the fewest files that reach the same."""
        fewest = self._scratch / "fewest"
        fewest.mkdir()
        self._call("-merge=1", str(fewest), str(self._corpus))
        for path in self._corpus.iterdir():
            if not path.name.startswith(KEPT):
                path.unlink()
        for path in fewest.iterdir():
            path.rename(self._corpus / path.name)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        folders = [each for each in arguments if each.startswith("-") or Path(each).is_dir()]
        return subprocess.run(
            [
                str(self._again),
                *folders,
                f"-max_len={self._target.max_octets}",
                f"-timeout={ONE_RUN_S}",
                f"-report_slow_units={ONE_RUN_S}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-artifact_prefix={self._crashes}/",
                "-print_final_stats=1",
                # The files reach each branch; how often each was passed would make ten times as many.
                *(["-use_counters=0"] if "-merge=1" in folders else []),
                *([f"-dict={self._words}"] if self._target.words else []),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def fuzz(target: Target, seconds: int, *, smaller: bool) -> bool:
    """Fuzz one target; return whether nothing was found."""
    with TemporaryDirectory(prefix="tcpha-fuzz-") as scratch:
        fuzzer = Fuzzer(target, Path(scratch))
        if smaller:
            fuzzer.minimise()
        outcome = fuzzer.run(seconds)
        print(
            f"{target.name:12} {outcome.runs:9} runs, {outcome.reached:5} branches, {outcome.added:3} new files",
            flush=True,
        )
        if outcome.finding is None:
            return True
        _report(target, outcome)
        return False


def _report(target: Target, outcome: Outcome) -> None:
    """Keep a finding and say what it is."""
    assert outcome.finding is not None
    octets = outcome.finding.read_bytes()
    kind = outcome.finding.name.partition("-")[0]
    if kind == "crash":
        octets = shorten(target.load(), octets, SHORTEN_S, is_program=target.is_program)
    folder = CRASHES / target.name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{kind}-{hashlib.sha1(octets).hexdigest()[:12]}"
    kept.write_bytes(octets)
    fault = fault_of(target.load(), octets) if kind == "crash" else None
    if fault is None:
        print(outcome.log[-3000:])
    else:
        traceback.print_exception(fault, limit=-4)
    name = kept.relative_to(ROOT)
    print(f"{target.name}: {kind} of {len(octets)} octets, kept as {name}")
    print(f"  show it again:   {Path(sys.executable).name} -m tests.fuzz --replay {target.name} {name}")
    mended = (MENDED / target.name).relative_to(ROOT)
    print(f"  once it is mended, so that every test run replays it:   mkdir -p {mended} && mv {name} {mended}/")


def replay(target: Target, file: Path) -> int:
    """Run one file and show what happens; return the exit status."""
    with trace.shown():
        fault = fault_of(target.load(), file.read_bytes())
    if fault is None:
        print(f"{target.name}: {file.name}: nothing wrong")
        return 0
    traceback.print_exception(fault)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz the decoders and the cores")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--minimise", action="store_true", help="replace each corpus by the fewest files first")
    parser.add_argument("--replay", action="store_true", help="TARGET FILE...: show what files do, without a fuzzer")
    parser.add_argument("words", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    options = parser.parse_args()
    names = options.words[:1] if options.replay else options.words
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.replay:
        return max([replay(TARGETS[names[0]], Path(file)) for file in options.words[1:]], default=0)
    # No short cut: a finding in one target must not hide those of the next.
    clean = [fuzz(TARGETS[name], options.seconds, smaller=options.minimise) for name in names or TARGETS]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
