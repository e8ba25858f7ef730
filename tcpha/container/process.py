"""Process 1 of a container: starts the children, passes signals on, collects every process that ends.

Signals are blocked and waited for, so none is lost and no handler runs anywhere; that also makes those arrive which the
kernel keeps from a process 1 that has no handler for them (pid_namespaces(7)). Children get the mask and the actions of
a fresh process back, a process group of their own (a Ctrl-C at the terminal is for process 1) and standard error joined
with standard output. What is decided stands in `supervision`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tcpha.container.signals import STOPPING, WAITED_FOR
from tcpha.container.supervision import Action, Child, Ended, Pass, Supervision
from tcpha.errors import StartError

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_IDLE_S = 60.0


def say(text: str) -> None:
    """Write a line to the container's log."""
    sys.stdout.write(f"container: {text}\n")
    sys.stdout.flush()


def run(commands: Mapping[Child, Sequence[str]]) -> int:
    """Run the children until all have ended; return the exit status. Raises: StartError.

    A signal that stops, sent while the caller had it blocked already, counts: then nothing is started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    try:
        if asked := signal.sigpending() & STOPPING:
            say(f"{signal.Signals(min(asked)).name}: not started")
            return 0
        return _Process(commands).wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    def __init__(self, commands: Mapping[Child, Sequence[str]]) -> None:
        self._child_of: dict[int, Child] = {}
        self._pid_of: dict[Child, int] = {}
        try:
            for child, words in commands.items():
                pid = _spawn(words)
                self._child_of[pid], self._pid_of[child] = child, pid
        except StartError:
            for pid in self._child_of:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        self._supervision = Supervision(set(commands))

    def wait(self) -> int:
        supervision = self._supervision
        while not supervision.is_over:
            wait_s = min(max(0.0, supervision.deadline - time.monotonic()), _IDLE_S)
            about = signal.sigtimedwait(WAITED_FOR, wait_s)
            now = time.monotonic()
            if about is not None and about.si_signo != signal.SIGCHLD:
                self._perform(supervision.on_signal(signal.Signals(about.si_signo), now))
            # Several ends may be told by one signal, and an end may be told with no signal after it was asked for.
            self._collect(now)
            self._perform(supervision.on_timer(now))
        return supervision.result

    def _collect(self, now: float) -> None:
        """Collect what has ended: children, and orphans that were left to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._child_of.pop(pid, None)
            if child is not None:
                code = os.waitstatus_to_exitcode(status)
                how = Ended(code) if code >= 0 else Ended(0, -code)
                self._perform(self._supervision.on_end(child, how, now))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Pass):
                with suppress(ProcessLookupError):
                    os.kill(self._pid_of[action.child], action.number)
            else:
                say(action.text)


def _spawn(words: Sequence[str]) -> int:
    try:
        return os.posix_spawnp(
            words[0],
            list(words),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, 1, 2)],
            setpgroup=0,
            setsigmask=[],
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except OSError as error:
        raise StartError(f"{words[0]} cannot be run: {error.strerror}") from error
