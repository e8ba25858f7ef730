"""docs/troubleshooting.md explains every counter that SIGUSR1 shows, and no other."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from tcpha.be import acceleration as be_acceleration
from tcpha.be.agent import Agent
from tcpha.be.service import BackEnd
from tcpha.errors import EdgeError
from tcpha.fe import acceleration as fe_acceleration
from tcpha.fe.service import FrontEnd
from tcpha.kernel import be_maps, fe_maps
from tcpha.node import Node
from tcpha.peers import PeerCounters
from tests.packet import be_playbook, fe_playbook
from tests.unit.module_list import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
_NO_NUMBERS = {"channel", "kernel", "peers"}
"""Counters of the channel and of the kernel's programs, and the peers by their addresses."""


class UnopenedFrontEnd(FrontEnd):
    """A front end with a core, and nothing of a host."""

    def __init__(self) -> None:
        self._dispatcher = fe_playbook.Playbook().dispatcher
        self._obstacle = "accelerate = off"
        self._acceleration = None

    def __getattr__(self, name: str) -> Any:
        return MagicMock()


class UnopenedBackEnd(BackEnd):
    """A back end with a core, and nothing of a host."""

    def __init__(self) -> None:
        self._agent: Agent = be_playbook.Playbook().agent
        self._obstacle = "CAP_BPF missing"
        self._kernel = None

    def __getattr__(self, name: str) -> Any:
        return MagicMock()


def front_end() -> UnopenedFrontEnd:
    """One whose program has counted 1 of the first, 2 of the second and so on."""
    node, program = UnopenedFrontEnd(), MagicMock()
    program.counters.return_value = {name: at for at, name in enumerate(fe_maps.COUNTS, start=1)}
    node._acceleration = made = MagicMock(_forwarder=program, carriage=SimpleNamespace(size=3, faults=4))
    made.counted = partial(fe_acceleration.Acceleration.counted, made)
    return node


def back_end() -> UnopenedBackEnd:
    """The same, with 100 connections in the programs' care."""
    node, programs = UnopenedBackEnd(), MagicMock(overruns=7)
    programs.counters.return_value = {name: at for at, name in enumerate(be_maps.COUNTS, start=1)}
    node._kernel = made = MagicMock(_adopter=programs, _taken_back=MagicMock(given_up=3), live=100)
    made.counted = partial(be_acceleration.Acceleration.counted, made)
    return node


def shown_by(node: Node, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names that a node logs when it is asked for its counters, those within `channel` and `kernel` after a dot."""
    shown: dict[str, Any] = {}
    node._peers = cast(Any, SimpleNamespace(counters=PeerCounters(), by_address={}))
    monkeypatch.setattr(json, "dumps", lambda counters, **_: shown.update(counters))
    node._log_counters()
    within = {f"{group}.{name}" for group in ("channel", "kernel") for name in shown.get(group, ())}
    return (shown.keys() - _NO_NUMBERS) | within


def explained(heading: str) -> list[str]:
    """The names in the first column of the table of a section."""
    section = TEXT.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


@pytest.mark.parametrize(("role", "made"), [("front", front_end), ("back", back_end)])
def test_every_counter_of_a_role_is_explained_once(
    role: str, made: Callable[[], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = shown_by(made(), monkeypatch)
    told = explained(f"Of a {role} end") + explained(f"Of a {role} end's programs") + explained("Of both")
    assert len(shown) > 40
    assert sorted(told) == sorted(shown)


def test_kernel_does_not_say_its_counters_a_line_tells_and_the_process_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = back_end()
    cast(Any, node._kernel)._adopter.counters.side_effect = EdgeError("map counts: Bad file descriptor")
    node._log_counters()
    assert caplog.messages == ["counters: map counts: Bad file descriptor"]


def test_kernel_carries_a_back_ends_numbers_are_sums_and_the_programs_share_stands_beside() -> None:
    node = back_end()
    node._agent.counters.adopted, node._agent.counters.leaving = 1000, 2000
    shown = node.counters()
    counted = dict(zip(be_maps.COUNTS, range(1, 100), strict=False))
    assert shown["accelerated"] is True
    assert shown["adopted"] == 1000 + counted["started"]
    assert shown["handoffs"] == counted["adopted"]
    assert (shown["repeats"], shown["late_duplicates"]) == (counted["repeated"], counted["told_again"])
    assert (shown["arriving"], shown["closed"], shown["flows"]) == (counted["segments"], counted["ended"], 100)
    assert shown["leaving"] == 2000
    assert shown["kernel"] == {**counted, "flows": 100, "told_too_late": 7, "not_taken_back": 3}


@pytest.mark.parametrize(
    ("node", "why"), [(UnopenedFrontEnd(), "accelerate = off"), (UnopenedBackEnd(), "CAP_BPF missing")]
)
def test_kernel_does_not_carry_the_counters_say_why(node: Node, why: str) -> None:
    shown = node.counters()
    assert shown["accelerated"] == why
    assert "kernel" not in shown


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR])
def test_counters_are_asked_for_they_are_shown_at_every_level_of_the_log(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level):
        shown_by(UnopenedFrontEnd(), monkeypatch)
    assert [record.message.split()[0] for record in caplog.records] == ["counters"]
