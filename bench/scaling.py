"""`python -m bench.scaling`: new connections of 1 KB through tcpha with 1, 2, 3, ... back ends; bench/scaling.json.

Then, or with --draw at once and without a lab, docs/capacity.svg and the examples in docs/capacity.md. With other back
ends, rounds or seconds than usual both files go to bench/partial instead, and the page stays as it is. Exit status: 0
everything was measured and every answer was right; 1 an answer was wrong or something could not be measured; 2 this
machine cannot hold the labs, a file cannot be read or written, or the command line is none; 128 + n if signal n
interrupted. Needs root, but for --draw.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench import capacity_page, curves, leavings, measuring, noise, output
from bench.__main__ import ROUNDS_MAX, WINDOW_S_MAX, describe_machine
from bench.arena import Arena, obstacle
from bench.contenders import spread_over
from bench.figures import spread
from bench.measuring import Measured
from bench.noise import Observation
from bench.rounds import observe
from bench.usage import Parser, up_to
from bench.workloads import SPREAD_PATH, OneAfterTheOther, Workload
from tcpha.errors import StartError, TcphaError
from tcpha.lab import cluster
from tcpha.lab.capacity import SMALL_OCTETS
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.measured import Point, Scaling, read_scaling
from tcpha.lab.sim_command import costs_of

ROOT = output.FULL.parent
RESULTS = output.FULL / "scaling.json"
PICTURE = ROOT / "docs" / "capacity.svg"
PAGE = ROOT / "docs" / "capacity.md"
BACK_ENDS = (1, 2, 3, 4)
ROUNDS = 5
WINDOW_S = 4
WARM_UP_S = 1
CONNECTIONS = 32
BACK_ENDS_MAX = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """Windows by number of back ends, what was seen between rounds, and what was wrong."""

    windows: Mapping[int, list[Measured]]
    observations: Sequence[Observation]

    @property
    def wrong(self) -> list[str]:
        """Answers that were not right, in words."""
        return [
            f"back ends: {number}: {words}"
            for number, found in self.windows.items()
            for each in found
            for words in each.wrong
        ]


@dataclass(frozen=True, slots=True)
class Files:
    """What is read and written."""

    measured: Path
    picture: Path


def main(words: Sequence[str] | None = None) -> int:
    """Run it; its exit status."""
    arguments = _parser().parse_args(words)
    try:
        files = files_of(arguments)
        return _draw(arguments, files) if arguments.draw else _measure(arguments, files)
    except StartError as error:
        print(f"bench.scaling: {error}", file=sys.stderr)
        return 2


def files_of(arguments: argparse.Namespace) -> Files:
    """Where points and picture are: the tracked files only of runs of the usual size.

    Raises:
        StartError: only a picture is asked for, and how to measure is said all the same.
    """
    is_partial = bool(arguments.backends or arguments.rounds or arguments.seconds)
    if arguments.draw and is_partial:
        raise StartError("--draw goes without --backends, --rounds and --seconds: it measures nothing")
    measured = arguments.measured or (output.PARTIAL / RESULTS.name if is_partial else RESULTS)
    beside = PICTURE if measured == RESULTS else measured.with_name(PICTURE.name)
    return Files(measured, arguments.picture or beside)


def point(backends: int, windows: Sequence[Measured], cores: int) -> Point:
    """What came of the windows of so many back ends."""

    def middle(name: str) -> float:
        return median(each.figures[name] for each in windows)

    rates = spread([each.figures["requests_per_s"] for each in windows])
    return Point(
        backends=backends,
        requests_per_s=rates.median,
        low_per_s=rates.low,
        high_per_s=rates.high,
        fe_us=middle("cpu_us_per_request_fe"),
        agents_us=middle("cpu_us_per_request_be"),
        servers_us=middle("servers_us_per_request"),
        lab_us=middle("lab_us_per_request"),
        cores_left=cores * (1 - middle("foreign_share")),
    )


def compose(outcome: Outcome, machine: dict[str, str | int | bool], cores: int, made: str, command: str) -> Scaling:
    """bench/scaling.json."""
    windows = [
        window
        for found in outcome.windows.values()
        for each in found
        if (window := noise.window_of(each.figures)) is not None
    ]
    reasons = noise.reasons(outcome.observations, windows, {})
    return Scaling(
        made=made,
        command=command,
        machine=machine,
        cores=cores,
        rounds=len(outcome.observations),
        is_quiet=not reasons,
        reasons=reasons,
        points=[point(number, found, cores) for number, found in sorted(outcome.windows.items())],
    )


def run(
    arenas: Mapping[int, Arena], rounds: int, seconds: int, say: Callable[[str], None], warm_up_s: int = WARM_UP_S
) -> Outcome:
    """Round after round, in each every number of back ends once.

    Raises:
        TcphaError: something could not be measured.
    """
    outcome = Outcome({number: [] for number in arenas}, observations := [])
    for turn in range(1, rounds + 1):
        observations.append(observe(turn, say))
        for number, arena in arenas.items():
            arena.empty_logs()
            load = OneAfterTheOther(CONNECTIONS, number)
            workload = Workload("close", "new connection per 1 KB request", load, leaves_connections=True)
            measured = measuring.work(arena.stand(arena.contenders[0]), workload, seconds, warm_up_s)
            outcome.windows[number].append(measured)
            say(
                f"round {turn}  back ends: {number}  {measured.figures['requests_per_s']:,.0f}/s,"
                f" {measured.figures['lab_us_per_request']:,.0f} us/request in all"
            )
    return outcome


def _measure(arguments: argparse.Namespace, files: Files) -> int:
    numbers = sorted(set(arguments.backends or BACK_ENDS))
    rounds, seconds = arguments.rounds or ROUNDS, arguments.seconds or WINDOW_S
    command = f"python -m bench.scaling --backends {' '.join(map(str, numbers))} --rounds {rounds} --seconds {seconds}"
    chosen = {number: spread_over(number) for number in numbers}
    if reason := cluster.obstacle() or obstacle(chosen.values()):
        raise StartError(f"{reason}; tools/bootstrap bench .venv installs what is missing")
    costs_of(arguments.costs)  # else it is missed when all is measured
    output.require_writable([files.measured, files.picture])
    raise_on_signals()
    arenas = {number: Arena(f"scaling-{os.getpid()}-{number}", [each], number) for number, each in chosen.items()}
    try:
        leavings.remove(_say)
        with ExitStack() as standing:
            for number, arena in arenas.items():
                _say(f"A lab with back ends: {number}")
                standing.enter_context(arena)
                arena.up()
                documents = range(1, number + 1)
                arena.add_documents({f"{SPREAD_PATH}/{each}": os.urandom(int(SMALL_OCTETS)) for each in documents})
            outcome = run(arenas, rounds, seconds, _say)
            in_memory = all(arena.serves_from_memory for arena in arenas.values())
    except Interrupted as interruption:
        for arena in arenas.values():
            arena.down()
        print("\nInterrupted; everything is taken down.", file=sys.stderr)
        return 128 + interruption.number
    except TcphaError as error:
        print(f"bench.scaling: could not measure: {error}", file=sys.stderr)
        return 1
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    machine = describe_machine(in_memory=in_memory)
    found = compose(outcome, machine, os.cpu_count() or 1, made, command)
    files.measured.write_text(found.model_dump_json(indent=1) + "\n")
    print(f"Written: {files.measured}")
    for words in outcome.wrong:
        print(f"bench.scaling: wrong answer: {words}", file=sys.stderr)
    return 1 if outcome.wrong else _draw(arguments, files)


def _draw(arguments: argparse.Namespace, files: Files) -> int:
    is_there = arguments.measured or files.measured.exists()
    measured = read_scaling(files.measured) if is_there else None
    drawn = curves.draw(costs_of(arguments.costs), measured)
    output.require_writable([files.picture])
    files.picture.write_text(drawn)
    print(f"Written: {files.picture}")
    if files.picture == PICTURE:
        PAGE.write_text(capacity_page.refreshed(PAGE.read_text(), _said_by_sim))
        print(f"Written: {PAGE}")
    return 0


def _said_by_sim(words: str) -> str:
    """What `python -m tcpha.lab sim ...` prints in the repository's directory."""
    command = [sys.executable, "-m", "tcpha.lab", *shlex.split(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise StartError(f"{words}: {done.stderr.strip()}")
    return done.stdout


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bench.scaling",
        description="tcpha with 1, 2, 3, ... back ends, and the picture of its capacity.",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        type=up_to(BACK_ENDS_MAX),
        metavar="N",
        help=f"default {' '.join(map(str, BACK_ENDS))}; files of other runs go to bench/partial",
    )
    parser.add_argument("--rounds", type=up_to(ROUNDS_MAX), help=f"how many (default {ROUNDS}); likewise")
    parser.add_argument("--seconds", type=up_to(WINDOW_S_MAX), help=f"of each window (default {WINDOW_S}); likewise")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="default bench/scaling.json")
    parser.add_argument("--costs", metavar="FILE|built-in", help="of the picture; as in python -m tcpha.lab sim")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="default docs/capacity.svg, of another --measured beside that"
    )
    parser.add_argument("--draw", action="store_true", help="only the picture, of what was measured before")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
