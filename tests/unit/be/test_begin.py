"""How a back end begins to let the kernel adopt: what passes is waited for, and nothing is ended for it."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tcpha.be import acceleration, service
from tcpha.be.agent import Agent
from tcpha.be.service import BackEnd
from tcpha.errors import EdgeError, StartError
from tcpha.net import clock, pins
from tests.packet.be_playbook import QUIET, be_config
from tests.unit.be.programs import Programs, Sockets, carried, identity, socket_of


class Host:
    """A back end whose host is prepared, on the model of the programs; one connection of an earlier process is left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accelerate: str) -> None:
        self.programs, self.sockets = Programs(), Sockets([socket_of(identity())])
        self.programs.add(carried(identity()))
        self.removed = 0
        self.waited_s: list[float] = []
        config = be_config(f"{QUIET}accelerate = {accelerate}\n")
        self.backend = BackEnd.__new__(BackEnd)
        agent = Agent(config)
        agent.on_utc(clock.utc(), clock.now())
        known = {"_be_config": config, "_keyring": None, "_sockets": self.sockets, "iface": "eth0", "_agent": agent}
        silent = {"send": None, "send_flows": None, "_obstacle": None, "_peers": SimpleNamespace()}
        vars(self.backend).update(**known, **silent, loop=SimpleNamespace(add=lambda *_: None))
        monkeypatch.setattr(service, "open_adopter", lambda *_: self.programs)
        monkeypatch.setattr(pins, "places", lambda *_: (Path("/nowhere"),) * 2)
        monkeypatch.setattr(pins, "remove", self._remove)
        monkeypatch.setattr(time, "sleep", self.waited_s.append)

    def _remove(self, *_: object) -> bool:
        self.removed += 1
        return True

    def attaching_says(self, code: int, times: int) -> None:
        for _ in range(times):
            error = EdgeError(errno.errorcode[code])
            error.__cause__ = OSError(code, "")
            self.programs.faults.append(error)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Host:
    return Host(monkeypatch, getattr(request, "param", "auto"))


@pytest.mark.parametrize("times", [0, 1, 2])
def test_attaching_fails_by_what_passes_the_kernel_adopts_and_nothing_is_ended(host: Host, times: int) -> None:
    host.attaching_says(errno.EBUSY, times)
    host.backend.installed()
    kernel = cast(Any, host.backend._kernel)
    assert (kernel.found, kernel.ended) == (1, 0)
    assert (host.programs.closed, len(host.waited_s), host.removed, host.sockets.destroyed) == (times, times, 0, [])


def test_attaching_fails_by_what_does_not_pass_what_is_left_is_ended_and_it_begins_anew(host: Host) -> None:
    host.attaching_says(errno.EINVAL, 1)
    host.backend.installed()
    assert host.backend._kernel is not None
    assert (host.programs.closed, host.waited_s, host.removed, len(host.sockets.destroyed)) == (1, [], 1, 1)


@pytest.mark.parametrize("host", ["auto", "require"], indirect=True)
def test_attaching_fails_for_good_the_agent_adopts_unless_the_kernel_must(host: Host) -> None:
    host.attaching_says(errno.ENOMEM, 6)
    if host.backend._be_config.accelerate == "require":
        with pytest.raises(StartError, match="ENOMEM"):
            host.backend.installed()
    else:
        host.backend.installed()
    assert host.backend._kernel is None
    assert sum(host.waited_s) <= 1.0


@pytest.mark.parametrize("how", ["auto", "require"])
def test_interface_is_the_loopback_one_the_agent_adopts_unless_the_kernel_must(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "obstacle", lambda: None)
    config = be_config(f"{QUIET}accelerate = {how}\n")
    assert acceleration.obstacle_to(config, "eth0") is None
    if how == "require":
        with pytest.raises(StartError, match="accelerate = require: lo is the loopback interface"):
            acceleration.obstacle_to(config, "lo")
    else:
        assert str(acceleration.obstacle_to(config, "lo")).startswith("lo is the loopback interface")
