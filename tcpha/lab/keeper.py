"""Who writes down how a lab's programs end, once the command that brought it up has ended. wait(2), prctl(2).

Only a parent learns how a process ended. So `up` works in a child, which brings the lab up, lets the command end and
becomes this program: ``PID:DESCRIPTOR...``, whose children the programs stay. It writes ``PID STATUS`` (negative: by
that signal) to the open file of each that ends, and ends with the last. Must not know what the programs are, nor
anything of labs: nothing depends on it, and `down` need not know it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tcpha.lab.interruption import wait_until_readable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def run_kept(work: Callable[[], tuple[int, Mapping[int, Path]]]) -> int:
    """Do `work` in a child; its status.

    `work` returns an exit status and, by process id, where to write down how its children end. If there are any, the
    child goes on as their keeper. Signals that ask this process to end reach the child; SIGKILL takes it along.
    """
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    ear, mouth = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(ear)
        _work(work, mouth, parent, heard)
    os.close(mouth)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in heard:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
    wait_until_readable(ear)
    status = os.read(ear, 1)
    os.close(ear)
    if status:
        return status[0]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - code if code < 0 else code


def _work(
    work: Callable[[], tuple[int, Mapping[int, Path]]], mouth: int, parent: int, heard: list[signal.Signals]
) -> None:
    """In the child. Does not return."""
    status = 1
    records: Mapping[int, Path] = {}
    try:
        _die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
        status, records = work()
    except BaseException:
        traceback.print_exc()
    finally:
        for printed in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):  # whoever read it has gone
                printed.flush()
        if not records:
            os._exit(status)
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _become_keeper(records, mouth, status)
    finally:
        os._exit(status)


def _become_keeper(records: Mapping[int, Path], mouth: int, status: int) -> None:
    """The files are made now: the directories may be on their way out when there is something to write."""
    _die_with_parent(0)
    words = []
    for pid, path in records.items():
        record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.set_inheritable(record, True)
        words.append(f"{pid}:{record}")
    package = str(Path(__file__).parents[2])
    places = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.write(mouth, bytes((status,)))
    os.close(mouth)
    arguments = [sys.executable, "-m", "tcpha.lab.keeper", *words]
    os.execve(sys.executable, arguments, {**os.environ, "PYTHONPATH": places})  # noqa: S606 - no shell is wanted


def _die_with_parent(number: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def main(words: list[str]) -> int:
    """Wait for every child, write down how each named one ended."""
    records = {int(pid): int(record) for pid, _, record in (word.partition(":") for word in words)}
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return 0
        if pid in records:
            os.write(records[pid], f"{pid} {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
