"""The only place where a process waits: for its sockets, for the next deadline, for signals.

What goes wrong at one source is counted and logged; the others go on.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable, Iterable
from math import inf
from types import FrameType

from tcpha.errors import EdgeError
from tcpha.net import clock

MAX_WAIT_S = 1.0
"""Nobody sleeps longer: clocks and limits are looked at once a second even where nothing happens."""
MOST_READY = 16
"""So many sources are served in one round; others are ready still in the next one."""
FAULT_PAUSE_S = 0.1
"""A source that failed by a defect may be ready still, and fail again: that must not take all the time."""
LOG_INTERVAL_S = 10.0
"""A source may fail in every round; that is logged no more often."""

log = logging.getLogger("tcpha")


class EventLoop:
    """Calls back in the order in which sources were added, then the timer."""

    def __init__(self, survives: type[Exception] = Exception) -> None:
        """`survives`: what may come out of a source's callback without an end of the run."""
        # Not `selectors`: what that makes of one ready descriptor costs as much as to wait for it.
        self._epoll = select.epoll()
        self._sources: dict[int, Callable[[], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._arrived: list[int] = []
        self._running = True
        self._survives = survives
        self.faults = 0
        """Calls of a source that ended with an exception."""
        self._fault_log_at = -inf
        self._resting: dict[int, float] = {}
        """Sources that failed by a defect, and when they are listened to again."""
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(self._wake_in, select.EPOLLIN)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable; earlier additions are served first."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._sources = {**self._sources, descriptor: callback}  # not in place: a round may be under way

    def remove(self, descriptor: int) -> None:
        """Never call back for it again; to be called while it is open."""
        if self._resting.pop(descriptor, None) is None:
            self._epoll.unregister(descriptor)
        self._sources = {each: callback for each, callback in self._sources.items() if each != descriptor}

    def on_signal(self, number: signal.Signals, callback: Callable[[], None]) -> None:
        """Call back, between two rounds, when the signal has come."""
        self._signals[number] = callback
        signal.signal(number, self._note)

    def ignore_signals(self) -> None:
        """From now on the signals have no effect, on programs started from now on neither.

        Whoever presses Ctrl-C twice interrupts a whole process group, and with it what cleans up.
        """
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)

    def stop(self) -> None:
        """End `run` after this round."""
        self._running = False

    def run(self, on_timer: Callable[[], float]) -> None:
        """Serve until `stop`. `on_timer` runs once a round and returns when it wants to run again (monotonic, s)."""
        deadline = on_timer()
        while self._running:
            self._round(deadline)
            deadline = on_timer()

    def run_until_quiet(
        self, quiet_s: float, limit_s: float, on_timer: Callable[[], float], aside: Iterable[int] = ()
    ) -> None:
        """Serve until nothing has come for `quiet_s`, at most for `limit_s`.

        The descriptors `aside` are served, too, but what comes there does not prolong it: some sources never rest.
        """
        restless = frozenset(aside)
        now = clock.now()
        end, quiet_at = now + limit_s, now + quiet_s
        deadline = on_timer()
        while now < end:
            ready = self._round(min(quiet_at, end, deadline))
            now = clock.now()
            deadline = on_timer()
            if not ready <= restless:
                quiet_at = now + quiet_s
            elif now >= quiet_at:
                return

    def close(self) -> None:
        """Take the signal handlers back and free the descriptors."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._epoll.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _round(self, deadline: float) -> set[int]:
        if self._resting:
            deadline = min(deadline, self._wake_rested())
        wait = MAX_WAIT_S if deadline == inf else min(max(deadline - clock.now(), 0.0), MAX_WAIT_S)
        ready = {descriptor for descriptor, _ in self._epoll.poll(wait, MOST_READY)}
        if self._wake_in in ready:
            os.read(self._wake_in, 4096)
        # Not only when woken: the octet may be read before the interpreter has called the handler.
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            for number in arrived:
                self._signals[number]()
        if not ready:
            return ready
        for descriptor, callback in self._sources.items():
            if descriptor in ready:
                try:
                    callback()
                except self._survives as fault:  # a defect costs one call, not the process
                    self._note_fault(fault)
                    if not isinstance(fault, EdgeError):
                        self._rest(descriptor)
        return ready

    def _rest(self, descriptor: int) -> None:
        """Do not listen to it for a while; what comes meanwhile waits."""
        if descriptor in self._sources:  # or it was removed by the call that failed
            self._epoll.unregister(descriptor)
            self._resting[descriptor] = clock.now() + FAULT_PAUSE_S

    def _wake_rested(self) -> float:
        """Listen again to those that have rested; return when the next one has, `math.inf` for none."""
        now = clock.now()
        for descriptor in [each for each, until in self._resting.items() if until <= now]:
            del self._resting[descriptor]
            self._epoll.register(descriptor, select.EPOLLIN)
        return min(self._resting.values(), default=inf)

    def _note_fault(self, fault: Exception) -> None:
        self.faults += 1
        now = clock.now()
        if now >= self._fault_log_at:
            self._fault_log_at = now + LOG_INTERVAL_S
            where = None if isinstance(fault, EdgeError) else fault  # the kernel's words say enough
            log.error("%s (fault %d of a source; the process goes on)", fault, self.faults, exc_info=where)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)
