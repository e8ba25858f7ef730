"""Signals: those that ask a program of the lab to end, as an exception that unwinds what stands; and waits beside them.

Must not know what stands, nor what is waited for.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """A signal asks to end: whatever was built is taken down on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Have the first SIGINT, SIGQUIT, SIGTERM or SIGHUP raise `Interrupted`.

    Further ones must not disturb the taking down. What the process was started to ignore stays ignored.
    """
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for every in numbers:
            signal.signal(every, signal.SIG_IGN)
        raise Interrupted(number)

    for number in numbers:
        signal.signal(number, interrupt)


def wait_until_readable(descriptor: int) -> None:
    """Wait for a descriptor, and let the functions of signals that come meanwhile run at once.

    A blocking call would not notice a signal that comes just before it: its function would run when the call ends.
    """
    ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(ear, select.POLLIN)
    try:
        while descriptor not in dict(poll.poll()):
            os.read(ear, 512)
    finally:
        signal.set_wakeup_fd(before)
        os.close(ear)
        os.close(mouth)
