"""`python -m bench`: tcpha side by side with HAProxy and nginx; results.json, results.svg and results.md. Needs root.

Exit status: 0 everything was measured and every answer was right, whatever the figures are; 1 an answer was wrong or
something could not be measured (results.partial.json has what was); 2 this machine cannot hold the lab, or the command
line is none; 128 + n if signal n interrupted.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import picture, report, results
from bench.arena import Arena, find_haproxy, obstacle
from bench.contenders import CONTENDERS, DIRECT, essential, judged
from bench.results import Results
from bench.rounds import Outcome, Programme, run
from bench.workloads import MIXED, SITE_PATH, WORKLOADS, the_site
from tcpha.errors import TcphaError
from tcpha.lab import cluster
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.nginx import find_program as find_nginx

HERE = Path(__file__).parent
PARTIAL = "results.partial.json"
"""What is left of a run that could not be finished."""
Machine = dict[str, str | int | bool]
"""What figures depend on, by name."""
ROUNDS = 5
QUICK_ROUNDS = 3
WINDOW_S = 4
QUICK_WINDOW_S = 2
ROUNDS_MAX, WINDOW_S_MAX = 100, 600
IDLE_CONNECTIONS = 2000
FLOOD_PER_S = 10_000


def main(words: Sequence[str] | None = None) -> int:
    """Run it; its exit status."""
    arguments = _parser().parse_args(words)
    programme = programme_of(arguments)
    if reason := cluster.obstacle() or obstacle(programme.contenders):
        print(f"bench: {reason}; tools/bootstrap bench .venv installs what is missing", file=sys.stderr)
        return 2
    raise_on_signals()
    started = time.monotonic()
    arena = Arena(f"bench-{os.getpid()}", programme.contenders)
    outcome = Outcome()
    machine: Machine = {}
    try:
        with arena:
            _measure(arena, programme, outcome, machine)
    except Interrupted as interruption:
        arena.down()
        print("\nInterrupted; everything is taken down.", file=sys.stderr)
        return 128 + interruption.number
    except TcphaError as error:
        print(f"bench: could not measure: {error}", file=sys.stderr)
        _write_partial(arguments.output, _composed(programme, outcome, machine))
        return 1
    machine["seconds"] = round(time.monotonic() - started)
    _write(arguments.output, programme, _composed(programme, outcome, machine))
    for words_of_fault in outcome.wrong:
        print(f"bench: wrong answer: {words_of_fault}", file=sys.stderr)
    return 1 if outcome.wrong else 0


def _measure(arena: Arena, programme: Programme, outcome: Outcome, machine: Machine) -> None:
    """Bring up the labs, describe the machine, and do it all. Raises as `run`."""
    _say(f"A lab for {', '.join(each.title for each in programme.contenders)}")
    arena.up()
    machine |= describe_machine(in_memory=arena.serves_from_memory)
    if MIXED in programme.workloads:
        sizes = the_site().sizes_octets
        arena.add_documents({f"{SITE_PATH}/{number}": os.urandom(octets) for number, octets in enumerate(sizes)})
    run(arena, programme, outcome, _say)


def programme_of(arguments: argparse.Namespace) -> Programme:
    """What a command line asks for."""
    quick: bool = arguments.quick
    contenders = essential() if quick else CONTENDERS
    workloads = tuple(each for each in WORKLOADS if each.is_essential or not quick)
    if arguments.contenders:
        contenders = tuple(each for each in CONTENDERS if each.key in arguments.contenders)
    if arguments.workloads:
        workloads = tuple(each for each in WORKLOADS if each.key in arguments.workloads)
    chosen = quick or bool(arguments.workloads)
    return Programme(
        contenders,
        workloads,
        rounds=arguments.rounds or (QUICK_ROUNDS if quick else ROUNDS),
        window_s=arguments.seconds or (QUICK_WINDOW_S if quick else WINDOW_S),
        warm_up_s=1,
        idle_connections=IDLE_CONNECTIONS if not chosen or "idle" in arguments.workloads else 0,
        flood_per_s=FLOOD_PER_S if not chosen or "flood" in arguments.workloads else 0,
        is_quick=quick,
        spares_variants=quick and not arguments.contenders,
    )


def describe_machine(*, in_memory: bool) -> Machine:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count() or 0,
        "linux": platform.release(),
        "python": platform.python_version(),
        "tcpha": version("tcpha"),
        "haproxy": _first_words([find_haproxy() or "haproxy", "-v"], 3),
        "nginx": _first_words([find_nginx() or "nginx", "-v"], 3),
        "documents_in_memory": in_memory,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="tcpha side by side with HAProxy and nginx.")
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds of what the floors of rates and CPU need; under 4 minutes"
    )
    parser.add_argument(
        "--rounds", type=up_to(ROUNDS_MAX), help=f"how many (default {ROUNDS}; {QUICK_ROUNDS} with --quick)"
    )
    parser.add_argument(
        "--seconds",
        type=up_to(WINDOW_S_MAX),
        help=f"of each window (default {WINDOW_S}; {QUICK_WINDOW_S} with --quick)",
    )
    parser.add_argument(
        "--contenders", nargs="+", metavar="KEY", choices=[each.key for each in CONTENDERS], help="only these"
    )
    keys = [*(each.key for each in WORKLOADS), "idle", "flood"]
    parser.add_argument("--workloads", nargs="+", default=[], metavar="KEY", choices=keys, help="only these")
    parser.add_argument("--output", type=Path, default=HERE, help="directory of the results (default bench)")
    return parser


def up_to(most: int) -> Callable[[str], int]:
    """Reader of an option's value: a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[: len(str(most)) + 1]) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
        return int(text)

    return read


def _composed(programme: Programme, outcome: Outcome, machine: Machine) -> Results:
    return results.compose(
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        quick=programme.is_quick,
        rounds=len(outcome.observations),
        machine=machine,
        contenders=programme.contenders,
        workloads=programme.named,
        samples=outcome.samples,
        observations=outcome.observations,
    )


def _write_partial(directory: Path, found: Results) -> None:
    """What was measured before something could not be."""
    if not found.samples:
        return
    directory.mkdir(parents=True, exist_ok=True)
    results.write(found, directory / PARTIAL)
    print(f"bench: the {len(found.samples)} windows before that are in {directory / PARTIAL}", file=sys.stderr)


def _write(directory: Path, programme: Programme, found: Results) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PARTIAL).unlink(missing_ok=True)
    results.write(found, directory / "results.json")
    engines = frozenset(each.key for each in judged(programme.contenders))
    (directory / "results.svg").write_text(picture.draw(found, engines, DIRECT))
    text = report.markdown(found)
    (directory / "results.md").write_text(text)
    print(f"\n{text}\nWritten: {directory}/results.json, results.svg, results.md", flush=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_words(command: list[str], count: int) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split()[:count])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
