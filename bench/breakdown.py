"""`python -m bench.breakdown`: where the processor time of front end and agent goes, per new connection or request.

A sampling profiler (py-spy) looks 1,000 times a second at the line that runs. What is below that line is not Python: in
the few functions that make system calls, the kernel, and on virtual links there the receiver's TCP, too (`bench.cpu`).
Their share of the samples, times the process's processor time, is what no change of the Python code could save. Exit
status: 0 it was measured; 1 it could not be; 2 no lab can stand here; 128 + n if signal n interrupted. Needs root.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import cpu
from bench.arena import Arena, Stand, obstacle
from bench.contenders import judged
from bench.load import run_wrk, script_for_one_document
from bench.measuring import await_answers
from tcpha.errors import StartError, TcphaError
from tcpha.lab import cluster
from tcpha.lab.interruption import Interrupted, raise_on_signals

PATH = "/1k.html"
CONNECTIONS = 32
SECONDS = 6
RATE_PER_S = 1000
_SETTLE_S = 1
_LINE_NUMBER = re.compile(r":\d+\)$")
IN_THE_KERNEL: Final = {
    # function, file: what the system call is for
    ("LinkSender.send", "tcpha/net/link.py"): "packets sent to a back end",
    ("RawSender.send", "tcpha/net/raw.py"): "packets made here sent",
    ("Channel.send", "tcpha/net/channel.py"): "messages sent",
    ("Channel.read", "tcpha/net/channel.py"): "messages received",
    ("_Reader.recv", "tcpha/net/nfqueue.py"): "packets received",
    ("PacketQueue._drop_noted", "tcpha/net/nfqueue.py"): "verdicts: drop",
    ("BackEnd._on_leaving", "tcpha/be/service.py"): "verdicts: let through, leaving",
    ("BackEnd._on_arriving", "tcpha/be/service.py"): "verdicts: let through, arriving",
    ("EpollSelector.select", "selectors.py"): "waiting",
}
"""Functions whose own lines are system calls; those of the back end's service hold besides them only the calls of the
library that keeps the packet."""
_PYTHON = "Python"
_ENGINE: Final = judged()[0]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Of one process: microseconds of processor time per answer, and how they are divided."""

    us_per_answer: float
    shares: Mapping[str, float]
    """By purpose, 0 to 1; what is not in the kernel is `Python`."""

    def us(self, purpose: str) -> float:
        """Microseconds per answer for a purpose."""
        return self.us_per_answer * self.shares.get(purpose, 0.0)

    @property
    def kernel_us(self) -> float:
        """Microseconds per answer in system calls."""
        return self.us_per_answer - self.us(_PYTHON)


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Divide samples, lines `frame;frame;... count` as py-spy writes them, by what the innermost frame is for."""
    found: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        name, _, rest = frames.rpartition(";")[2].rpartition(" (")
        file = _LINE_NUMBER.sub("", rest).rstrip(")")
        found[IN_THE_KERNEL.get((name, file), _PYTHON)] += int(count)
    total = found.total()
    return {purpose: count / total for purpose, count in found.most_common()}


def table(breakdowns: Mapping[str, Breakdown]) -> str:
    """A table in Markdown: a row for each purpose, a column for each process."""
    purposes = sorted(
        {purpose for each in breakdowns.values() for purpose in each.shares},
        key=lambda purpose: -max(each.us(purpose) for each in breakdowns.values()),
    )
    rows = [[purpose, *(f"{each.us(purpose):.0f}" for each in breakdowns.values())] for purpose in purposes]
    rows.append(["all system calls", *(f"{each.kernel_us:.0f}" for each in breakdowns.values())])
    rows.append(["in all", *(f"{each.us_per_answer:.0f}" for each in breakdowns.values())])
    head = ["us", *breakdowns]
    lines = [head, ["---", *("---:" for _ in breakdowns)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(stand: Stand, pid: int, closes: bool, directory: Path) -> Breakdown:
    """Sample one process while wrk asks. Raises: LoadError, StartError."""
    stacks, script = directory / "stacks", directory / "wrk.lua"
    script.write_text(script_for_one_document())
    sampler = ["py-spy", "record", "--pid", str(pid), "--duration", str(SECONDS - 2 * _SETTLE_S)]
    sampler += ["--rate", str(RATE_PER_S), "--format", "raw", "--output", str(stacks)]

    def load(seconds: int) -> int:
        client, target = stand.lab.client, stand.target
        return run_wrk(client, target, PATH, script, connections=CONNECTIONS, closes=closes, seconds=seconds).requests

    load(_SETTLE_S)
    before = cpu.of_processes(cpu.group_of(pid))
    requests = load(SECONDS)
    spent_s = cpu.of_processes(cpu.group_of(pid)) - before
    with subprocess.Popen(sampler, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sampling:
        load(SECONDS)
        _, faults = sampling.communicate(timeout=SECONDS)
        if sampling.returncode:
            raise StartError(f"py-spy ended with status {sampling.returncode}: {faults.strip()}")
    return Breakdown(spent_s * 1e6 / requests, shares(stacks.read_text().splitlines()))


def main(words: Sequence[str] | None = None) -> int:
    """Run it; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.breakdown", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keepalive", action="store_true", help="requests on open connections, not new connections")
    arguments = parser.parse_args(words)
    missing = (
        cluster.obstacle() or obstacle([_ENGINE]) or (None if shutil.which("py-spy") else "py-spy is not installed")
    )
    if missing:
        print(f"bench.breakdown: {missing}", file=sys.stderr)
        return 2
    raise_on_signals()
    try:
        _measure_all(closes=not arguments.keepalive)
    except Interrupted as interruption:
        return 128 + interruption.number
    except TcphaError as error:
        print(f"bench.breakdown: {error}", file=sys.stderr)
        return 1
    return 0


def _measure_all(closes: bool) -> None:
    with Arena("breakdown", [_ENGINE]) as arena, tempfile.TemporaryDirectory() as directory:
        arena.up()
        stand = arena.stand(_ENGINE)
        await_answers(stand)
        found = {}
        for title, node in (("front end", "fe"), ("back end's agent", "be1")):
            pid = stand.lab.node(node).engine.pid
            if pid is None:
                raise StartError(f"the {title} does not run")
            found[title] = measure(stand, pid, closes, Path(directory))
    print(table(found))


if __name__ == "__main__":
    sys.exit(main())
