"""Signals that ask a program of the lab to end, as an exception that unwinds what stands.

Must not know what stands.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """A signal asks to end: whatever was built is taken down on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Have the first SIGINT, SIGTERM or SIGHUP raise `Interrupted`; further ones must not disturb the taking down.

    What the process was started to ignore stays ignored.
    """
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for every in numbers:
            signal.signal(every, signal.SIG_IGN)
        raise Interrupted(number)

    for number in numbers:
        signal.signal(number, interrupt)
