"""A program that a lab keeps running in a node: start, wait until it serves, stop, kill. setns(2), setsid(2), unix(7).

Must not know which program it is. Its standard output and error go to a log file, its id to a file beside it, so that a
later process can stop what an earlier one started. It leads a process group of its own: an interrupt from the terminal
does not reach it, and a kill reaches its children.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from tcpha.errors import StartError, TcphaError
from tcpha.lab import namespaces
from tcpha.lab.waiting import wait_until

STOP_LIMIT_S = 5.0
READY_LIMIT_S = 20.0
_KILL_LIMIT_S = 5.0
_TAIL_LINES = 20
_READY = re.compile(rb"\bready\b")
_NOTIFY_SOCKET = "NOTIFY_SOCKET"
_NOTICE_OCTETS = 4096


class DaemonError(TcphaError):
    """A program of a lab ended, or did not get ready: its name, how, and the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    name: str
    """Of the log (NAME.log) and of the process id's file (NAME.pid)."""
    arguments: Sequence[str]
    directory: Path
    """Where log and process id go."""
    environment: Mapping[str, str]
    serves: Callable[[], bool] | None = None
    """Whether it serves; None: it does once its log has a line with the word `ready`, or once it `notifies`."""
    notifies: bool = False
    """It says so by sd_notify(3), whatever it logs."""


class Daemon:
    """One program in one node, running or not."""

    def __init__(self, program: Program, enter: Callable[[], AbstractContextManager[None]]) -> None:
        """`enter` brings the calling thread into the node."""
        self.program = program
        self.log = program.directory / f"{program.name}.log"
        self._enter = enter
        self.status_file = program.directory / f"{program.name}.status"
        """Where whoever waits for its process writes down how that ended: `PID STATUS`, negative if by a signal."""
        self._pid_file = program.directory / f"{program.name}.pid"
        self._child: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._notices: socket.socket | None = None
        """Where it says that it is ready."""
        self._has_notified = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs, whoever started it; else None."""
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_resident(pid) else None

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.pid is not None

    @property
    def has_ended(self) -> bool:
        """Whether it was started and does not run any more, though nobody stopped it."""
        return self._pid_file.exists() and not self.is_running

    @property
    def how_it_ended(self) -> str:
        """` with exit status 1` or ` by signal 9`, as far as that is known; else nothing."""
        status = self._child.returncode if self._child is not None else self._recorded_status()
        if status is None:
            return ""
        return f" by signal {-status}" if status < 0 else f" with exit status {status}"

    def start(self, limit_s: float = READY_LIMIT_S) -> None:
        """Run it and wait until it serves.

        Raises:
            StartError: it runs already, or cannot be run.
            DaemonError: it ended or did not get ready in time.
        """
        self.launch()
        await_ready([self], limit_s)

    def launch(self) -> None:
        """Run it and return at once.

        Raises:
            StartError: it runs already, or cannot be run.
        """
        if self.is_running:
            raise StartError(f"{self.program.name} runs already")
        with self.log.open("ab") as log:
            self._log_offset = log.seek(0, os.SEEK_END)
            # The child is born in the node: no code runs between fork and exec, where threads make it unsafe.
            with self._enter():
                environment = {**self.program.environment, **self._await_notice()}
                self._child = self._popen(log.fileno(), environment)
        self._pid_file.write_text(f"{self._child.pid}\n")

    def stop(self, limit_s: float = STOP_LIMIT_S) -> int | None:
        """SIGTERM, and SIGKILL if it still lives after `limit_s` seconds; exit status if this process started it."""
        pid = self.pid
        if pid is None:
            return None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: self.pid != pid, limit_s)
        return self._kill_group(pid)

    def kill(self) -> int | None:
        """SIGKILL it and its children, as a crash would; exit status if this process started it."""
        pid = self.pid
        return None if pid is None else self._kill_group(pid)

    def forget(self) -> None:
        """Remove the record of a process that has ended: nobody misses it any more."""
        if not self.is_running:
            self._pid_file.unlink(missing_ok=True)

    def restart(self, limit_s: float = READY_LIMIT_S) -> None:
        """Stop it if it runs, start it again.

        Raises:
            StartError: it cannot be run.
            DaemonError: it ended or did not get ready in time.
        """
        self.stop()
        self.start(limit_s)

    def serves(self) -> bool:
        """Whether it is ready.

        Raises:
            DaemonError: it ended.
        """
        if not self.is_running:
            raise DaemonError(self.report(f"ended{self.how_it_ended} before it was ready"))
        if self.program.serves is not None:
            return self.program.serves()
        if self.program.notifies:
            return self._is_notified()
        return _READY.search(self._log_since_start()) is not None

    def report(self, what: str) -> str:
        """What happened to it, for a person: node, program, `what`, the end of its log."""
        tail = self._log_since_start().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        # Not where the log is: who is told this often has the lab taken down, and the log with it.
        log = "its log ends with" if tail else "its log is empty"
        name = f"{self.program.directory.name}: {self.program.name}"
        return "\n".join([f"{name} {what}; {log}{':' if tail else ''}", *(f"    {line}" for line in tail)])

    def _await_notice(self) -> dict[str, str]:
        """Open the socket for the notice, inside the node; what the program must find in its environment."""
        if not self.program.notifies:
            return {}
        if self._notices is not None:
            self._notices.close()
        self._has_notified = False
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._notices.bind("")  # the kernel picks an abstract address, which is the node's alone and leaves no file
        return {_NOTIFY_SOCKET: "@" + self._notices.getsockname()[1:].decode("ascii")}

    def _is_notified(self) -> bool:
        while self._notices is not None and not self._has_notified:
            try:
                self._has_notified = b"READY=1" in self._notices.recv(_NOTICE_OCTETS).splitlines()
            except BlockingIOError:
                return False
        if self._notices is not None:
            self._notices.close()
            self._notices = None
        return self._has_notified

    def _popen(self, log: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.program.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{self.program.arguments[0]} cannot be run: {error.strerror}") from error

    def _kill_group(self, pid: int) -> int | None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        # Its children, too: a listener that is theirs takes connections as long as one of them lives.
        if not wait_until(lambda: self.pid != pid and not _runs_in_group(pid), _KILL_LIMIT_S):
            raise StartError(f"{self.program.name} (process {pid}) does not end")
        self.forget()
        return self._child.returncode if self._child is not None and self._child.pid == pid else None

    def _is_resident(self, pid: int) -> bool:
        """Whether `pid` is still the process that was started: it lives in the node and leads its group."""
        try:
            with self._enter():
                here = namespaces.own_identity()
            return os.getpgid(pid) == pid and namespaces.identity_of_process(pid) == here
        except OSError:
            return False

    def _recorded_status(self) -> int | None:
        try:
            pid, status = self.status_file.read_text().split()
            return int(status) if pid == self._pid_file.read_text().strip() else None
        except (OSError, ValueError):
            return None

    def _log_since_start(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            return log.read()


def _runs_in_group(group: int) -> bool:
    """Whether a process of a group runs still; one that nobody has waited for yet has closed what it had open."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in ("Z", "X"):
                return True
    return False


def await_ready(daemons: Collection[Daemon], limit_s: float = READY_LIMIT_S) -> None:
    """Wait until all serve.

    Raises:
        DaemonError: one ended, or was not ready within `limit_s` seconds.
    """
    waiting = list(daemons)

    def all_serve() -> bool:
        waiting[:] = [daemon for daemon in waiting if not daemon.serves()]
        return not waiting

    if not wait_until(all_serve, limit_s):
        raise DaemonError(waiting[0].report(f"was not ready within {limit_s:g} s"))


def someone_listens(enter: Callable[[], AbstractContextManager[None]], ports: Collection[int] = ()) -> bool:
    """Whether TCP sockets of the node listen on all `ports`, over IPv4 and over IPv6; none given: one on any port."""
    found = [_listening(enter, table) for table in ("tcp", "tcp6")]
    return all(listening.issuperset(ports) for listening in found) if ports else any(found)


def _listening(enter: Callable[[], AbstractContextManager[None]], table: str) -> set[int]:
    """Ports on which a node listens (proc_pid_net(5): state 0A)."""
    with enter():
        lines = Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
    sockets = (line.split() for line in lines)
    return {int(fields[1].rpartition(":")[2], 16) for fields in sockets if fields[3] == "0A"}
