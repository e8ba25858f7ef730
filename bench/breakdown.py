"""`python -m bench.breakdown`: where the processor time of front end and agent goes, per new connection or request.

A sampling profiler (py-spy) looks 1,000 times a second at the line that runs. The lines that make system calls are
known; their share of the samples, times the process's processor time, is what no change of the Python code could save:
the kernel, and on virtual links there the receiver's TCP, too (`bench.cpu`). Waiting is told apart: how dear it is
depends on how often a process falls asleep, that is on the load. All else is Python, the C of its libraries included. A
line is also seen while its process waits for a processor, as after a send that woke another: let nothing else run.

Then HAProxy and direct get the same load, and `bench.limits` says what rate the processor times leave room for.
Exit status: 0 it was measured; 1 it could not be; 2 no lab can stand here; 128 + n if signal n interrupted. Needs root.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Final

from bench import cpu, leavings, limits
from bench.arena import Arena, Stand, obstacle
from bench.contenders import CONTENDERS, DIRECT, HAPROXY, judged
from bench.load import WrkReport, run_wrk, script_for_one_document
from bench.measuring import ERRORS_MAX_SHARE, await_answers, work
from bench.noise import Observation
from bench.rounds import observe
from bench.usage import Parser
from bench.workloads import CLOSE, KEEPALIVE
from tcpha.errors import StartError, TcphaError
from tcpha.lab import cluster
from tcpha.lab.interruption import Interrupted, raise_on_signals

PATH = "/1k.html"
CONNECTIONS = 32
SECONDS = 6
RUNS = 3
RATE_PER_S = 1000
_SETTLE_S = 1
_INNERMOST = re.compile(r" \((?P<file>[^()]*):(?P<line>\d+)\)$")
PYTHON: Final = "Python"
WAITING: Final = "waiting"
_ENGINE: Final = judged()[0]
_OTHERS: Final = tuple(each for each in CONTENDERS if each.key in (DIRECT, HAPROXY))

Places = Mapping[tuple[str, int], str]
"""Purpose by file, as py-spy names it, and line."""


@dataclass(frozen=True, slots=True)
class SystemCall:
    """Lines of a function that make a system call."""

    function: str
    file: str
    call: str
    """What such a line has in its text."""
    purpose: str


SYSTEM_CALLS: Final = (
    SystemCall("LinkSender.send", "tcpha/net/link.py", "._socket.send(", "packets sent to a back end"),
    SystemCall("RawSender.send", "tcpha/net/raw.py", ".sendto(", "packets made here sent"),
    SystemCall("Channel.send", "tcpha/net/channel.py", ".sendto(", "messages sent"),
    SystemCall("Burst.send", "tcpha/net/datagrams.py", ".sendmmsg(", "messages sent"),
    SystemCall("Intake.read", "tcpha/net/datagrams.py", ".recvmmsg(", "messages received"),
    SystemCall("_Reader.recv", "tcpha/net/nfqueue.py", "._receive(", "packets received"),
    SystemCall("PacketQueue._drop_noted", "tcpha/net/nfqueue.py", ".source.send(", "verdicts: drop"),
    SystemCall("BackEnd._on_leaving", "tcpha/be/service.py", ".accept(", "verdicts: let through, leaving"),
    SystemCall("BackEnd._on_arriving", "tcpha/be/service.py", ".accept(", "verdicts: let through, arriving"),
    SystemCall("PreparedCall.__call__", "tcpha/net/bpf_syscall.py", "_libc.syscall(", "flows told to the kernel"),
    SystemCall("EventLoop._round", "tcpha/eventloop.py", "._epoll.poll(", WAITING),
)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Of one process: microseconds of processor time per answer, and how they are divided."""

    us_per_answer: float
    shares: Mapping[str, float]
    """By purpose, 0 to 1; `PYTHON` and `WAITING` are two of them."""
    answers_per_s: float = 0.0
    samples: int = 0
    """Of the profiler."""

    def us(self, purpose: str) -> float:
        """Microseconds per answer for a purpose."""
        return self.us_per_answer * self.shares.get(purpose, 0.0)

    @property
    def kernel_us(self) -> float:
        """Microseconds per answer in system calls that do not wait."""
        return self.us_per_answer - self.us(PYTHON) - self.us(WAITING)


def places() -> Places:
    """The lines that make system calls.

    Raises:
        StartError: a function has none.
    """
    return {(each.file, line): each.purpose for each in SYSTEM_CALLS for line in lines_of(each)}


def lines_of(call: SystemCall) -> list[int]:
    """Numbers of the lines that make a system call. Raises as `places`."""
    found: object = import_module(call.file.removesuffix(".py").replace("/", "."))
    for part in call.function.split("."):
        found = getattr(found, part, None)
    if not inspect.isfunction(found):
        raise StartError(f"{call.file} has no function {call.function}")
    texts, first = inspect.getsourcelines(found)
    numbers = [number for number, text in enumerate(texts, first) if call.call in text]
    if not numbers:
        raise StartError(f"{call.file}: {call.function} has no line with {call.call}")
    return numbers


def shares(stacks: Iterable[str], known: Places) -> dict[str, float]:
    """Divide samples, lines `frame;frame;... count` as py-spy writes them, by what the innermost line is for.

    Raises:
        StartError: there are none, or none of a line that makes a system call.
    """
    found: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        place = _INNERMOST.search(frames)
        key = (place["file"], int(place["line"])) if place else ("", 0)
        found[known.get(key, PYTHON)] += int(count)
    if found.total() == found[PYTHON]:
        raise StartError(f"of {found.total()} samples of py-spy none is of a line that makes a system call")
    return {purpose: count / found.total() for purpose, count in found.most_common()}


def samples(stacks: Iterable[str]) -> int:
    """How many there are in lines as py-spy writes them."""
    return sum(int(line.rpartition(" ")[2]) for line in stacks)


def heading(breakdowns: Mapping[str, Breakdown], closes: bool, seen: Observation) -> str:
    """What was asked for and answered, of how many samples the table is, and what else ran on the machine."""
    asked = "new connections" if closes else "requests on open connections"
    parts = [f"{who} {each.answers_per_s:,.0f}/s, {each.samples:,} samples" for who, each in breakdowns.items()]
    return (
        f"1 KB, {CONNECTIONS} {asked} at a time; {'; '.join(parts)}; before that others used {seen.foreign_share:.0%}"
        f" of the processors, stolen {seen.steal_share:.0%}"
    )


def middle(found: Sequence[Breakdown]) -> Breakdown:
    """Of several runs the one whose processor time is the median, as it was: its rows add up."""
    return sorted(found, key=lambda each: each.us_per_answer)[len(found) // 2]


def table(breakdowns: Mapping[str, Breakdown]) -> str:
    """A table in Markdown: a row for each purpose, a column for each process."""
    calls = {purpose for each in breakdowns.values() for purpose in each.shares} - {PYTHON, WAITING}
    by_cost = sorted(calls, key=lambda purpose: -max(each.us(purpose) for each in breakdowns.values()))
    rows = [[purpose, *(f"{each.us(purpose):.0f}" for each in breakdowns.values())] for purpose in (PYTHON, *by_cost)]
    rows.append(["all system calls", *(f"{each.kernel_us:.0f}" for each in breakdowns.values())])
    rows.append([WAITING, *(f"{each.us(WAITING):.0f}" for each in breakdowns.values())])
    rows.append(["in all", *(f"{each.us_per_answer:.0f}" for each in breakdowns.values())])
    rows.append(["answers/s", *(f"{each.answers_per_s:,.0f}" for each in breakdowns.values())])
    head = ["us", *breakdowns]
    lines = [head, ["---", *("---:" for _ in breakdowns)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(stand: Stand, pid: int, closes: bool, directory: Path) -> Breakdown:
    """Count a process's time while wrk asks, then sample it while wrk asks again. Raises: LoadError, StartError."""
    stacks, script = directory / "stacks", directory / "wrk.lua"
    script.write_text(script_for_one_document())

    def load(seconds: int) -> WrkReport:
        client, target = stand.lab.client, stand.target
        return answered(run_wrk(client, target, PATH, script, connections=CONNECTIONS, closes=closes, seconds=seconds))

    load(_SETTLE_S)
    before = cpu.of_processes(cpu.group_of(pid))
    report = load(SECONDS)
    spent_s = cpu.of_processes(cpu.group_of(pid)) - before
    sampler = [find_py_spy() or "py-spy", "record", "--pid", str(pid), "--duration", str(SECONDS - 2 * _SETTLE_S)]
    sampler += ["--rate", str(RATE_PER_S), "--format", "raw", "--output", str(stacks)]
    with subprocess.Popen(sampler, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sampling:
        try:
            load(SECONDS)
            await_end(sampling)
        finally:
            sampling.kill()
    lines = stacks.read_text().splitlines()
    rate = report.requests / report.seconds
    return Breakdown(spent_s * 1e6 / report.requests, shares(lines, places()), rate, samples(lines))


def find_py_spy() -> str | None:
    """Path of the profiler: beside the interpreter, where an environment has it, or in PATH; None if there is none."""
    return shutil.which("py-spy", path=Path(sys.executable).parent) or shutil.which("py-spy")


def answered(report: WrkReport) -> WrkReport:
    """`report`. Raises StartError if hardly anything was answered, or not as it should be."""
    if report.refused or not report.requests or report.failed > ERRORS_MAX_SHARE * report.requests + 1:
        raise StartError(
            f"{report.requests} requests were answered, {report.failed} failed, {report.refused} had an error status"
        )
    return report


def await_end(sampling: subprocess.Popen[str]) -> None:
    """Wait for the profiler. Raises StartError if it failed, or does not end."""
    try:
        _, faults = sampling.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StartError(f"py-spy did not end within {SECONDS} s behind its load") from error
    if sampling.returncode:
        raise StartError(f"py-spy ended with status {sampling.returncode}: {faults.strip()}")


def main(words: Sequence[str] | None = None) -> int:
    """Run it; its exit status."""
    parser = Parser(prog="python -m bench.breakdown", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keepalive", action="store_true", help="requests on open connections, not new connections")
    arguments = parser.parse_args(words)
    missing = (
        cluster.obstacle() or obstacle([*_OTHERS, _ENGINE]) or (None if find_py_spy() else "py-spy is not installed")
    )
    if missing:
        print(f"bench.breakdown: {missing}; tools/bootstrap bench .venv installs what is missing", file=sys.stderr)
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
    leavings.remove(lambda text: print(text, file=sys.stderr))
    with (
        Arena(f"breakdown-{os.getpid()}", [*_OTHERS, _ENGINE]) as arena,
        tempfile.TemporaryDirectory() as directory,
    ):
        arena.up()
        stand = arena.stand(_ENGINE)
        await_answers(stand)
        seen = observe(1, lambda _text: None)
        found: dict[str, Breakdown] = {}
        for title, node in (("front end", "fe"), ("agent of be1", "be1")):
            pid = stand.lab.node(node).engine.pid
            if pid is None:
                raise StartError(f"the {title} does not run")
            found[title] = middle([measure(stand, pid, closes, Path(directory)) for _ in range(RUNS)])
        ends_us, haproxy = _of_others(arena, closes)
    print(f"{heading(found, closes, seen)}\n")
    print(table(found))
    in_all_us, kernel_us = (
        sum(getattr(each, name) for each in found.values()) for name in ("us_per_answer", "kernel_us")
    )
    print()
    print(limits.table(ends_us, haproxy, limits.cases(in_all_us, kernel_us, is_new=closes)))


def _of_others(arena: Arena, closes: bool) -> tuple[float, limits.Spent]:
    """Microseconds per answer: of servers and clients, as `direct` has them, and of HAProxy; medians of `RUNS`."""
    windows: dict[str, list[float]] = {each.key: [] for each in _OTHERS}
    for _ in range(RUNS):
        for each in _OTHERS:
            figures = work(arena.stand(each), CLOSE if closes else KEEPALIVE, SECONDS).figures
            windows[each.key].append(figures["lab_us_per_request" if each.key == DIRECT else "cpu_us_per_request"])
    (haproxy,) = (each for each in _OTHERS if each.key == HAPROXY)
    return median(windows[DIRECT]), limits.Spent(haproxy.title, median(windows[HAPROXY]))


if __name__ == "__main__":
    sys.exit(main())
