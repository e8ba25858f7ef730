"""`python -m bench`: tcpha side by side with HAProxy and nginx; results.json, results.svg and results.md. Needs root.

Exit status: 0 everything was measured and every answer was right, whatever the figures are; 1 an answer was wrong or
something could not be measured; 2 this machine cannot hold the lab, the results cannot be written, or the command line
is none; 128 + n if signal n interrupted. What was measured before something failed or a signal came is in
results.partial.json.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import leavings, output, picture, report, results
from bench.arena import Arena, find_haproxy, obstacle
from bench.contenders import CONTENDERS, DIRECT, essential, judged
from bench.results import Results
from bench.rounds import Outcome, Programme, run
from bench.usage import Parser, up_to
from bench.workloads import MIXED, SITE_PATH, WORKLOADS, the_site
from tcpha.errors import StartError, TcphaError
from tcpha.lab import cluster
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.nginx import find_program as find_nginx
from tcpha.net import bpf_adopter

RESULTS, PICTURE, TABLE = "results.json", "results.svg", "results.md"
PARTIAL = "results.partial.json"
"""What is left of a run that could not be finished."""
FULL = "results.full.json"
"""What a quick run found in its place: the results of a full one."""
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
    directory = directory_of(arguments)
    if not arguments.contenders:
        programme = without_impossible(programme)
    try:
        _require(programme, directory)
    except StartError as error:
        print(f"bench: {error}", file=sys.stderr)
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
        _write_partial(directory, _composed(programme, outcome, machine))
        return 128 + interruption.number
    except TcphaError as error:
        print(f"bench: could not measure: {error}", file=sys.stderr)
        _write_partial(directory, _composed(programme, outcome, machine))
        return 1
    machine["seconds"] = round(time.monotonic() - started)
    _write(directory, programme, _composed(programme, outcome, machine))
    for words_of_fault in outcome.wrong:
        print(f"bench: wrong answer: {words_of_fault}", file=sys.stderr)
    return 1 if outcome.wrong else 0


def _require(programme: Programme, directory: Path) -> None:
    """Raises StartError if the lab cannot stand, or its results not be written."""
    if reason := cluster.obstacle() or obstacle(programme.contenders):
        raise StartError(f"{reason}; tools/bootstrap bench .venv installs what is missing")
    if any(each.needs_programs for each in programme.contenders) and (reason := bpf_adopter.obstacle()):
        raise StartError(f"no kernel fast path here: {reason}")
    output.require_writable(directory / name for name in (RESULTS, PICTURE, TABLE, PARTIAL))


def _measure(arena: Arena, programme: Programme, outcome: Outcome, machine: Machine) -> None:
    """Bring up the labs, describe the machine, and do it all. Raises as `run`."""
    leavings.remove(_say)
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


def without_impossible(programme: Programme) -> Programme:
    """The same without whom this machine's kernel cannot carry; who is left out is said."""
    wanting = [each for each in programme.contenders if each.needs_programs]
    if not wanting or (reason := bpf_adopter.obstacle()) is None:
        return programme
    _say(f"Without {', '.join(each.title for each in wanting)}: {reason}")
    return replace(programme, contenders=tuple(each for each in programme.contenders if each not in wanting))


def directory_of(arguments: argparse.Namespace) -> Path:
    """Where results go: of some workloads or some contenders only, not to the place of complete ones."""
    given: Path | None = arguments.output
    is_partial = arguments.workloads or arguments.contenders
    return given or (output.PARTIAL if is_partial else output.FULL)


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
    parser = Parser(prog="python -m bench", description="tcpha side by side with HAProxy and nginx.")
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
    parser.add_argument(
        "--output", type=Path, help="directory of the results (default bench; of only some, bench/partial)"
    )
    return parser


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
    results.write(found, directory / PARTIAL)
    print(f"bench: the {len(found.samples)} windows before that are in {directory / PARTIAL}", file=sys.stderr)


def _write(directory: Path, programme: Programme, found: Results) -> None:
    _keep_full(directory, programme)
    (directory / PARTIAL).unlink(missing_ok=True)
    results.write(found, directory / RESULTS)
    engines = frozenset(each.key for each in judged(programme.contenders))
    (directory / PICTURE).write_text(picture.draw(found, engines, DIRECT))
    text = report.markdown(found)
    (directory / TABLE).write_text(text)
    print(f"\n{text}\nWritten: {directory / RESULTS}, {PICTURE}, {TABLE}", flush=True)


def _keep_full(directory: Path, programme: Programme) -> None:
    """A quick run does not lose the results of a full one."""
    file = directory / RESULTS
    if not programme.is_quick or not file.exists():
        return
    try:
        is_full = not results.read(file).quick
    except ValueError:  # of another version: nobody can say what it is
        is_full = True
    if is_full:
        file.replace(directory / FULL)
        _say(f"The results that were in {file} are in {directory / FULL}")


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
