"""The event loop: the order of callbacks, deadlines, signals, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf

import pytest

from tcpha import eventloop
from tcpha.errors import EdgeError
from tcpha.eventloop import EventLoop

LONG_S = 30.0


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    running = EventLoop()
    yield running
    running.close()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    made: list[int] = []

    def make() -> tuple[int, int]:
        made.extend(os.pipe2(os.O_NONBLOCK))
        return made[-2], made[-1]

    yield make
    for descriptor in made:
        os.close(descriptor)


def stop_after(loop: EventLoop, rounds: int, deadline: float = 0.0) -> Callable[[], float]:
    """A timer that stops the loop when it has run so often."""
    left = [rounds]

    def on_timer() -> float:
        left[0] -= 1
        if left[0] <= 0:
            loop.stop()
        return deadline

    return on_timer


def test_several_readable_are_called_in_the_order_they_were_added(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    called: list[int] = []
    ends = [pipes() for _ in range(4)]
    order = [2, 0, 3, 1]
    for at in order:
        loop.add(ends[at][0], lambda at=at: called.append(at))  # type: ignore[misc]
    for at in (1, 0, 2):
        os.write(ends[at][1], b"x")
    loop.run(stop_after(loop, 2))
    assert called == [2, 0, 1]


def test_readable_stays_so_callback_is_called_every_round(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    called: list[int] = []
    read, write = pipes()
    loop.add(read, lambda: called.append(1))
    os.write(write, b"x")
    loop.run(stop_after(loop, 6))
    assert len(called) == 5


def test_source_is_removed_in_a_round_the_round_goes_on_and_it_is_called_no_more(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    called: list[str] = []
    (first, into_first), (second, into_second) = pipes(), pipes()

    def remove() -> None:
        called.append("first")
        loop.remove(first)

    loop.add(first, remove)
    loop.add(second, lambda: called.append("second"))
    os.write(into_first, b"x")
    os.write(into_second, b"x")
    loop.run(stop_after(loop, 3))
    assert called == ["first", "second", "second"]


def test_run_the_timer_comes_first_and_after_every_round(loop: EventLoop, pipes: Callable[[], tuple[int, int]]) -> None:
    events: list[str] = []
    read, write = pipes()
    loop.add(read, lambda: events.append("source"))
    os.write(write, b"x")

    def on_timer() -> float:
        events.append("timer")
        if len(events) == 5:
            loop.stop()
        return 0.0

    loop.run(on_timer)
    assert events == ["timer", "source", "timer", "source", "timer"]


def test_deadline_ahead_the_loop_waits_for_it_and_not_longer(loop: EventLoop) -> None:
    begun = time.monotonic()
    times: list[float] = []

    def on_timer() -> float:
        times.append(time.monotonic() - begun)
        if len(times) == 2:
            loop.stop()
        return begun + 0.05

    loop.run(on_timer)
    assert 0.05 <= times[1] < 1.0


@pytest.mark.parametrize("deadline", [inf, 1e18])
def test_deadline_far_away_the_timer_runs_all_the_same(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr(eventloop, "MAX_WAIT_S", 0.02)
    loop.run(stop_after(loop, 4, deadline))


def test_signal_while_it_waits_wakes_it_and_is_called_once(loop: EventLoop) -> None:
    called: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: called.append("USR1"))

    def on_second() -> None:
        called.append("USR2")
        loop.stop()

    loop.on_signal(signal.SIGUSR2, on_second)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        parent = os.getppid()
        os.kill(parent, signal.SIGUSR1)
        os.kill(parent, signal.SIGUSR2)
        os._exit(0)
    try:
        while loop._running:
            loop.run(lambda: time.monotonic() + LONG_S)
    finally:
        os.waitpid(child, 0)
    assert sorted(called) == ["USR1", "USR2"]
    assert time.monotonic() - begun < LONG_S


def test_signal_before_the_run_is_served_in_the_first_round(loop: EventLoop) -> None:
    loop.on_signal(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    rounds: list[int] = []

    def on_timer() -> float:
        rounds.append(1)
        return 0.0

    loop.run(on_timer)
    assert len(rounds) == 2


def test_signal_noted_after_its_octet_was_read_is_served_all_the_same(loop: EventLoop) -> None:
    called: list[int] = []
    loop.on_signal(signal.SIGUSR1, lambda: called.append(1))
    loop._note(signal.SIGUSR1, None)
    loop.run(stop_after(loop, 2))
    assert called == [1]


def test_signal_callback_fails_the_fault_ends_the_run(loop: EventLoop) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    loop.on_signal(signal.SIGUSR1, fail)
    os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(ZeroDivisionError):
        loop.run(lambda: 0.0)


def add_readable(loop: EventLoop, pipes: Callable[[], tuple[int, int]], *callbacks: Callable[[], None]) -> None:
    """Sources that nobody reads: each is ready in every round."""
    for callback in callbacks:
        read, write = pipes()
        loop.add(read, callback)
        os.write(write, b"x")


def test_source_fails_at_the_edge_it_is_counted_logged_once_and_the_others_go_on(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []

    def fail() -> None:
        raise EdgeError("no table")

    add_readable(loop, pipes, fail, lambda: called.append(1))
    loop.run(stop_after(loop, 6))
    assert len(called) == loop.faults == 5
    assert caplog.text.count("no table") == 1


def test_source_fails_again_after_a_while_it_is_logged_again(
    loop: EventLoop,
    pipes: Callable[[], tuple[int, int]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise EdgeError("no table")

    monkeypatch.setattr(eventloop, "LOG_INTERVAL_S", 0.0)
    add_readable(loop, pipes, fail)
    loop.run(stop_after(loop, 4))
    assert caplog.text.count("no table") == 3


def test_source_fails_by_a_defect_the_others_go_on_and_the_log_says_where(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    add_readable(loop, pipes, fail, lambda: called.append(1))
    loop.run(stop_after(loop, 6))
    assert (len(called), loop.faults) == (5, 1)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_source_fails_by_a_defect_each_time_it_is_asked_again_after_a_rest(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready all the time: without a rest the process would do nothing else."""
    monkeypatch.setattr(eventloop, "FAULT_PAUSE_S", 0.02)
    failed: list[float] = []
    rounds: list[int] = []

    def fail() -> None:
        failed.append(time.monotonic())
        if len(failed) == 4:
            loop.stop()
        raise ZeroDivisionError

    def on_timer() -> float:
        rounds.append(1)
        return inf

    add_readable(loop, pipes, fail)
    loop.run(on_timer)
    assert all(later - earlier >= 0.02 for earlier, later in pairwise(failed))
    assert len(rounds) < 20, "it sleeps meanwhile"


def test_source_is_removed_while_it_rests_or_by_the_call_that_fails_it_is_never_asked_again(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventloop, "FAULT_PAUSE_S", 0.0)
    failed: list[str] = []
    (first, _), (second, write) = sources = [pipes(), pipes()]

    def fail() -> None:
        failed.append("at rest")
        raise ZeroDivisionError

    def fail_and_leave() -> None:
        failed.append("by the call")
        loop.remove(second)
        raise ZeroDivisionError

    loop.add(first, fail)
    loop.add(second, fail_and_leave)
    for _, end in sources:
        os.write(end, b"x")
    loop.run(stop_after(loop, 2))
    loop.remove(first)
    os.write(write, b"x")
    loop._running = True
    loop.run(stop_after(loop, 3))
    assert failed == ["at rest", "by the call"]


def test_source_is_interrupted_the_run_ends(loop: EventLoop, pipes: Callable[[], tuple[int, int]]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    read, write = pipes()
    loop.add(read, interrupt)
    os.write(write, b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.run(stop_after(loop, 5))


def test_nothing_happens_run_until_quiet_ends_soon(loop: EventLoop) -> None:
    begun = time.monotonic()
    loop.run_until_quiet(0.02, LONG_S, lambda: inf)
    assert time.monotonic() - begun < LONG_S / 2


def test_nothing_comes_run_until_quiet_still_does_what_is_due(loop: EventLoop) -> None:
    """A last message may have to leave a moment later."""
    due = time.monotonic() + 0.01
    done: list[float] = []

    def on_timer() -> float:
        if time.monotonic() >= due:
            done.append(time.monotonic())
        return inf if done else due

    loop.run_until_quiet(1.0, LONG_S, on_timer)
    assert done
    assert done[0] < due + 0.9


def test_always_something_to_read_run_until_quiet_ends_at_its_limit(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    read, write = pipes()
    called: list[int] = []
    loop.add(read, lambda: called.append(1))
    os.write(write, b"x")
    begun = time.monotonic()
    loop.run_until_quiet(LONG_S, 0.05, lambda: inf)
    assert 0.05 <= time.monotonic() - begun < LONG_S
    assert called


def test_source_aside_never_rests_run_until_quiet_serves_it_and_ends_soon(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    read, write = pipes()
    called: list[int] = []
    loop.add(read, lambda: called.append(1))
    os.write(write, b"x")
    begun = time.monotonic()
    loop.run_until_quiet(0.02, LONG_S, lambda: inf, aside=[read])
    assert time.monotonic() - begun < LONG_S / 2
    assert called


def test_source_beside_one_aside_run_until_quiet_waits_for_its_rest(
    loop: EventLoop, pipes: Callable[[], tuple[int, int]]
) -> None:
    (restless, first), (read, write) = pipes(), pipes()
    loop.add(restless, lambda: None)
    times: list[float] = []

    def take_one() -> None:
        os.read(read, 1)
        times.append(time.monotonic())

    loop.add(read, take_one)
    os.write(first, b"x")
    os.write(write, b"three")
    loop.run_until_quiet(0.05, LONG_S, lambda: inf, aside=[restless])
    assert len(times) == 5
    assert 0.05 <= time.monotonic() - times[-1] < LONG_S / 2


def test_stopped_loop_run_until_quiet_still_serves(loop: EventLoop, pipes: Callable[[], tuple[int, int]]) -> None:
    read, write = pipes()
    served: list[bytes] = []
    loop.add(read, lambda: served.append(os.read(read, 16)))
    loop.stop()
    os.write(write, b"late")
    loop.run_until_quiet(0.02, LONG_S, lambda: 0.0)
    assert served == [b"late"]


def test_signals_ignored_from_now_on_neither_the_loop_nor_a_child_ends(loop: EventLoop) -> None:
    called: list[int] = []
    loop.on_signal(signal.SIGUSR1, lambda: called.append(1))
    loop.ignore_signals()
    os.kill(os.getpid(), signal.SIGUSR1)
    child = subprocess.run(["sh", "-c", "kill -USR1 $$; echo alive"], capture_output=True, text=True, check=True)
    loop.run(stop_after(loop, 2))
    assert child.stdout == "alive\n"
    assert called == []


def test_close_gives_signals_and_descriptors_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    loop = EventLoop()
    loop.on_signal(signal.SIGUSR1, loop.stop)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == before
