"""`python -m bench`: tcpha side by side with HAProxy and nginx; results.json, results.svg and results.md. Needs root.

Exit status: 0 everything was measured and every answer was right, whatever the figures are; 1 an answer was wrong or
something could not be measured; 2 this machine cannot hold the lab, or the command line is none; 128 + n if signal n
interrupted.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import picture, report, results
from bench.arena import Arena, find_haproxy, obstacle
from bench.contenders import CONTENDERS, DIRECT, essential, judged
from bench.rounds import Outcome, Programme, run
from bench.workloads import SITE_PATH, WORKLOADS, the_site
from tcpha.errors import TcphaError
from tcpha.lab import cluster
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.nginx import find_program as find_nginx

HERE = Path(__file__).parent
ROUNDS = 5
QUICK_ROUNDS = 3
WINDOW_S = 4
QUICK_WINDOW_S = 3
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
    try:
        with arena:
            _say(f"A lab for {', '.join(each.title for each in programme.contenders)}")
            arena.up()
            site = the_site()
            arena.add_documents({f"{SITE_PATH}/{n}": os.urandom(size) for n, size in enumerate(site.sizes_octets)})
            outcome = run(arena, programme, _say)
            machine = describe_machine(in_memory=arena.serves_from_memory)
    except Interrupted as interruption:
        arena.down()
        print("\nInterrupted; everything is taken down.", file=sys.stderr)
        return 128 + interruption.number
    except TcphaError as error:
        print(f"bench: could not measure: {error}", file=sys.stderr)
        return 1
    machine["seconds"] = round(time.monotonic() - started)
    _write(arguments.output, programme, outcome, machine, quick=arguments.quick)
    for words_of_fault in outcome.wrong:
        print(f"bench: wrong answer: {words_of_fault}", file=sys.stderr)
    return 1 if outcome.wrong else 0


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
    )


def describe_machine(*, in_memory: bool) -> dict[str, str | int | bool]:
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
    parser.add_argument("--rounds", type=positive, help=f"how many (default {ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument(
        "--seconds", type=positive, help=f"of each window (default {WINDOW_S}; {QUICK_WINDOW_S} with --quick)"
    )
    parser.add_argument(
        "--contenders", nargs="+", metavar="KEY", choices=[each.key for each in CONTENDERS], help="only these"
    )
    keys = [*(each.key for each in WORKLOADS), "idle", "flood"]
    parser.add_argument("--workloads", nargs="+", default=[], metavar="KEY", choices=keys, help="only these")
    parser.add_argument("--output", type=Path, default=HERE, help="directory of the results (default bench)")
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on, as an option's value."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _write(
    directory: Path, programme: Programme, outcome: Outcome, machine: dict[str, str | int | bool], *, quick: bool
) -> None:
    found = results.compose(
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        quick=quick,
        rounds=programme.rounds,
        machine=machine,
        contenders=programme.contenders,
        workloads=programme.named,
        samples=outcome.samples,
        observations=outcome.observations,
    )
    directory.mkdir(parents=True, exist_ok=True)
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
