"""Decides what follows where something that a process has put on its host is not there any more.

Addresses and settings that others took away are put back; an interface that was made again, or got another hardware
address, is to be followed. Whatever it is happens at once the first time, and then once in `PACE_S` at most: whoever
takes something away all the time is not raced. Knows neither the kernel nor a role. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

PACE_S = 10.0
"""No one thing is put back, or said to be missing, more often."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface of the configuration's name. `index`: the kernel's number, another one for each that is made."""

    index: int
    mac: bytes
    is_up: bool


@dataclass(frozen=True, slots=True)
class LostAddress:
    """A virtual address that is not on the interface which is to hold it, or elsewhere where only that one may."""

    addr: str
    holder: str
    elsewhere: str = ""

    @property
    def text(self) -> str:
        """What happened."""
        if self.elsewhere:
            return f"{self.addr} was put on {self.elsewhere} by somebody"
        return f"{self.addr} was taken off {self.holder} by somebody"


@dataclass(frozen=True, slots=True)
class LostSetting:
    """A kernel setting, a path below /proc/sys/net, whose value does not do."""

    name: str

    @property
    def text(self) -> str:
        """What happened."""
        return f"net.{self.name.replace('/', '.')} is not what it has to be any more"


Loss = LostAddress | LostSetting


@dataclass(frozen=True, slots=True)
class PutBack:
    """To be done, and `on_done` told."""

    loss: Loss


@dataclass(frozen=True, slots=True)
class Follow:
    """What is bound to the interface is to be bound to this one, and `on_done` told."""

    interface: Interface
    is_other: bool
    """Not the one that it was, or only its hardware address changed."""


@dataclass(frozen=True, slots=True)
class Warn:
    """To be logged."""

    text: str


Action = PutBack | Follow | Warn


class Upkeep:
    """What is known of one process's host. Losses are looked for at `next_deadline` at the latest."""

    def __init__(self, iface: str, interface: Interface) -> None:
        """`interface`: what everything is bound to at the start."""
        self.repairs = 0
        """What was put back, and interfaces followed."""
        self.obstacle: str | None = None
        """Why nothing of ours is at the interface, as far as that is so."""
        self._iface = iface
        self._bound = interface
        self._is_gone = False
        self._not_before: dict[Loss | str, float] = {}
        self._again_at = inf

    def on_look(self, interface: Interface | None, losses: Iterable[Loss], now: float) -> list[Action]:
        """Say what is to be done, in this order: what keeps a host silent comes before what it would answer for."""
        self._not_before = {thing: at for thing, at in self._not_before.items() if at > now}
        self._again_at = inf
        actions: list[Action] = list(self._at_interface(interface, now))
        known = list(losses)
        settings: list[Loss] = [loss for loss in known if isinstance(loss, LostSetting)]
        addresses: list[Loss] = [loss for loss in known if isinstance(loss, LostAddress)]
        for loss in (*settings, *addresses):
            # One that is down holds no IPv6 address: it goes again with the next change of anything there.
            is_possible = interface is not None and interface.is_up
            if (is_possible or not self._is_at_interface(loss)) and self._may(loss, now):
                actions.append(PutBack(loss))
        return actions

    def on_done(self, action: PutBack | Follow, fault: str | None, now: float) -> Warn:
        """It was done, or could not be because of `fault`: then it comes again. Return what is to be said."""
        thing = action.loss if isinstance(action, PutBack) else self._iface
        if fault is None:
            self.repairs += 1
        else:
            self._again_at = min(self._again_at, self._not_before.get(thing, now + PACE_S))
        if isinstance(action, PutBack):
            done = "put back" if fault is None else f"it cannot be put back: {fault}; tried every {PACE_S:.0f} s"
            return Warn(f"{action.loss.text}: {done}")
        return Warn(self._followed(action, fault))

    def next_deadline(self) -> float:
        """Return when a look is wanted, however little has changed."""
        return self._again_at

    def _at_interface(self, interface: Interface | None, now: float) -> Iterable[Action]:
        if interface is None:
            if not self._is_gone:
                self._is_gone = True
                self.obstacle = f"{self._iface} is gone"
                yield Warn(f"{self._iface} is gone: nothing comes or leaves there until it is made again")
            return
        is_other = interface.index != self._bound.index
        if self._is_gone:  # if it is the same, it had another name, or was in another namespace
            self.obstacle = self._of_another if is_other else None
        self._is_gone = False
        # While it is down nobody can be told of it.
        if (is_other or interface.mac != self._bound.mac) and interface.is_up and self._may(self._iface, now):
            yield Follow(interface, is_other)

    def _followed(self, action: Follow, fault: str | None) -> str:
        what = self._of_another if action.is_other else f"{self._iface} has another MAC"
        if fault is None:
            self._bound, self.obstacle = action.interface, None
            return f"{what}: followed"
        if action.is_other:
            self.obstacle = f"{what}: {fault}"
        return f"{what}, and cannot be followed: {fault}; restart tcpha if that goes on"

    @property
    def _of_another(self) -> str:
        return f"{self._iface} is another interface than at the start"

    def _is_at_interface(self, loss: Loss) -> bool:
        return isinstance(loss, LostAddress) and loss.holder == self._iface

    def _may(self, thing: Loss | str, now: float) -> bool:
        not_before = self._not_before.setdefault(thing, now)
        if not_before > now:
            self._again_at = min(self._again_at, not_before)
            return False
        self._not_before[thing] = now + PACE_S
        return True
