"""What process 1 of a container does when a signal comes, a child ends, or time runs out. Pure.

Two children: the agent (tcpha.fe or tcpha.be) and, beside a back end's, perhaps a server. Neither is started anew: the
container ends with the first of them and says which, so that whoever runs containers sees it and decides. The agent is
stopped before the server: its connections still need that.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from tcpha.container.signals import FORWARDED, STOPPING

Child = Literal["agent", "server"]

STOP_LIMIT_S: Final = 8.0
"""Docker kills what has not ended 10 s after it was asked to."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Send a signal to a child."""

    child: Child
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Say:
    """Write a line to the log."""

    text: str


Action = Pass | Say


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit status, or the signal that killed it."""

    status: int
    by_signal: int | None = None

    @property
    def exit_status(self) -> int:
        """The status that a shell would report (128 + the signal's number)."""
        return self.status if self.by_signal is None else 128 + self.by_signal

    def __str__(self) -> str:
        return f"with exit status {self.status}" if self.by_signal is None else f"by signal {self.by_signal}"


@dataclass(slots=True)
class Supervision:
    """The state of process 1. `result` is the container's exit status once `is_over`."""

    alive: set[Child]
    result: int = 0
    deadline: float = inf
    """When `on_timer` wants to be called; seconds of the caller's clock."""
    _stopping: bool = field(default=False)

    @property
    def is_over(self) -> bool:
        """Whether all children have ended."""
        return not self.alive

    def on_signal(self, number: signal.Signals, now: float) -> list[Action]:
        """A signal for the container: stop (TERM, INT, QUIT), or for a child (HUP: the server if there is one)."""
        if number in STOPPING:
            return [] if self._stopping else [Say(f"{number.name}: stopping"), *self._stop(now)]
        child: Child = "server" if number == signal.SIGHUP and "server" in self.alive else "agent"
        return [Pass(child, number)] if number in FORWARDED and child in self.alive else []

    def on_end(self, child: Child, how: Ended, now: float) -> list[Action]:
        """A child has ended, asked or not."""
        self.alive.discard(child)
        if not self._stopping:
            # However well it ended: nobody asked it to, and the node serves nobody now.
            self.result = how.exit_status or 1
            return [Say(f"the {child} ended {how}: stopping"), *self._stop(now)]
        # One that had no time yet to wait for the signal it was stopped with dies of it.
        if child == "agent" and how.by_signal != signal.SIGTERM:
            self.result = self.result or how.exit_status
            if how.exit_status:
                return [Say(f"the agent ended {how}"), *self._next()]
        return self._next()

    def on_timer(self, now: float) -> list[Action]:
        """End by force what did not end in time."""
        if now < self.deadline:
            return []
        self.deadline = inf
        self.result = self.result or 1
        late = sorted(self.alive)
        return [
            Say(f"not ended after {STOP_LIMIT_S:g} s, killed: {', '.join(late)}"),
            *(Pass(child, signal.SIGKILL) for child in late),
        ]

    def _stop(self, now: float) -> list[Action]:
        self._stopping = True
        self.deadline = now + STOP_LIMIT_S
        return self._next()

    def _next(self) -> list[Action]:
        if "agent" in self.alive:
            return [Pass("agent", signal.SIGTERM)]
        return [Pass("server", signal.SIGTERM)] if "server" in self.alive else []
