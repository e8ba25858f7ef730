from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tcpha.lab import interruption
from tcpha.lab.interruption import wait_until_readable
from tcpha.lab.waiting import wait_until


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Numbers of the signals whose function has run."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGUSR1, before)


def test_signal_comes_just_before_the_wait_begins_the_wait_notices(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that begins after the signal came is not interrupted: only a descriptor can end it."""
    ear, mouth = os.pipe()
    noticed: list[bool] = []

    class Poll:
        def __init__(self) -> None:
            self._poll = select.poll()
            self.register = self._poll.register

        def poll(self) -> list[tuple[int, int]]:
            if noticed:
                return [(ear, select.POLLIN)]
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wait_until(lambda: bool(heard), 5.0)
            ready = self._poll.poll(0)
            noticed.append(bool(ready))
            return ready or [(ear, select.POLLIN)]

    monkeypatch.setattr(interruption, "select", SimpleNamespace(poll=Poll, POLLIN=select.POLLIN))
    wait_until_readable(ear)
    os.close(ear)
    os.close(mouth)
    assert noticed == [True]


def test_other_end_is_closed_the_wait_ends() -> None:
    ear, mouth = os.pipe()
    os.close(mouth)
    wait_until_readable(ear)
    os.close(ear)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP])
def test_signal_that_asks_to_end_is_raised_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    functions: dict[int, object] = {}
    monkeypatch.setattr(
        interruption,
        "signal",
        SimpleNamespace(
            SIGINT=signal.SIGINT,
            SIGQUIT=signal.SIGQUIT,
            SIGTERM=signal.SIGTERM,
            SIGHUP=signal.SIGHUP,
            SIG_IGN=signal.SIG_IGN,
            getsignal=lambda _number: signal.SIG_DFL,
            signal=functions.__setitem__,
        ),
    )
    interruption.raise_on_signals()
    function = functions[number]
    assert callable(function)
    with pytest.raises(interruption.Interrupted) as raised:
        function(number, None)
    assert raised.value.number == number
    assert set(functions.values()) == {signal.SIG_IGN}
