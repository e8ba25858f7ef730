"""Keeps what a process has put on its host there: looks, asks `Upkeep` what follows, has it done, and says so.

A look at links and addresses follows when the kernel tells of a change, at once, and now and then without; settings,
of which nothing is told, are read every two seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf

from tcpha.errors import EdgeError, TcphaError
from tcpha.net.footprint import Plan, Role
from tcpha.net.host_watch import HostWatch
from tcpha.net.restoring import RestoringFootprint
from tcpha.upkeep import Action, Follow, Loss, LostAddress, Upkeep, Warn

LOOK_S = 2.0
"""At settings, and at the interface."""
WHOLE_LOOK_S = 10.0
"""At the addresses, too."""
PAUSE_S = 0.1
"""Between two looks, however much changes."""

log = logging.getLogger("tcpha")


class Caretaker:
    """One process's. `on_tick` is to be called when it says, `on_change` when `fileno` is readable.

    follow: binds the process to an interface that was made again (True) or has another MAC; may raise TcphaError.
    on_addresses: virtual addresses were put back.
    """

    def __init__(
        self, role: Role, footprint: RestoringFootprint, plan: Plan, follow: Callable[[bool], None],
        on_addresses: Callable[[Sequence[str]], None],
    ) -> None:  # fmt: skip
        """To be made when the host is prepared. Raises: EdgeError if the kernel does not tell of changes."""
        self._footprint = footprint
        self._plan = plan
        self._follow = follow
        self._on_addresses = on_addresses
        self._watch = HostWatch(role, plan)
        interface = self._watch.interface()
        if interface is None:
            self._watch.close()
            raise EdgeError(f"{plan.iface} is gone")
        self._upkeep = Upkeep(plan.iface, interface)
        self._lost: list[Loss] = []
        """Addresses, when they were looked at."""
        self._look_at = self._whole_at = -inf
        self._earliest_at = -inf

    @property
    def repairs(self) -> int:
        """What was put back, and interfaces followed."""
        return self._upkeep.repairs

    @property
    def obstacle(self) -> str | None:
        """Why nothing of ours is at the interface; None if it is."""
        return self._upkeep.obstacle

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something of the host changed."""
        return self._watch.fileno()

    def on_change(self, now: float) -> None:
        """Something did: look, if it may be ours, at once or as soon as may be."""
        if self._watch.read():
            self._look_at = self._whole_at = -inf
            self.on_tick(now)

    def on_tick(self, now: float) -> float:
        """Look, if it is time; return when to be called again. What cannot be done is logged, and comes again."""
        if now >= self._earliest_at and now >= min(self._look_at, self._upkeep.next_deadline()):
            self._earliest_at, self._look_at = now + PAUSE_S, now + LOOK_S
            self._look(now)
        return max(self._earliest_at, min(self._look_at, self._upkeep.next_deadline()))

    def close(self) -> None:
        """Look no more."""
        self._watch.close()

    def _look(self, now: float) -> None:
        if self._lost or now >= self._whole_at:
            self._whole_at = now + WHOLE_LOOK_S
            try:
                self._lost = self._watch.lost_addresses()
            except EdgeError as error:
                self._lost = []
                log.warning("%s", error)
        losses = [*self._watch.lost_settings(), *self._lost]
        back: list[str] = []
        for action in self._upkeep.on_look(self._watch.interface(), losses, now):
            self._perform(action, now, back)
        if back:
            self._on_addresses(back)

    def _perform(self, action: Action, now: float, back: list[str]) -> None:
        """`back`: gets the address that was put back."""
        if isinstance(action, Warn):
            said = action
        else:
            fault = None
            try:
                if isinstance(action, Follow):
                    self._footprint.prepare_interface(self._plan)
                    self._follow(action.is_other)
                elif isinstance(action.loss, LostAddress):
                    self._footprint.put_back_address(self._plan, action.loss.addr)
                    back.append(action.loss.addr)
                else:
                    self._footprint.put_back_settings(self._plan)
            except (TcphaError, OSError) as error:
                fault = str(error)
            said = self._upkeep.on_done(action, fault, now)
        log.warning("%s", said.text)
