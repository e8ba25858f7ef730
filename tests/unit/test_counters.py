"""docs/troubleshooting.md explains every counter that SIGUSR1 shows, and no other."""

from __future__ import annotations

import json
import logging
import re
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from tcpha.be.agent import Agent
from tcpha.be.service import BackEnd
from tcpha.fe.service import FrontEnd
from tcpha.node import Node
from tcpha.peers import PeerCounters
from tests.packet import be_playbook, fe_playbook
from tests.unit.module_list import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
_NO_NUMBERS = {"channel", "peers"}
"""The counters of the channel, and the peers by their addresses."""


class UnopenedFrontEnd(FrontEnd):
    """A front end with a core, and nothing of a host."""

    def __init__(self) -> None:
        self._dispatcher = fe_playbook.Playbook().dispatcher
        self._acceleration = None

    def __getattr__(self, name: str) -> Any:
        return MagicMock()


class UnopenedBackEnd(BackEnd):
    """A back end with a core, and nothing of a host."""

    def __init__(self) -> None:
        self._agent: Agent = be_playbook.Playbook().agent
        self._kernel = MagicMock()

    def __getattr__(self, name: str) -> Any:
        return MagicMock()


def shown_by(node: Node, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names that a node logs when it is asked for its counters; those of the channel without its own name."""
    shown: dict[str, Any] = {}
    node._peers = cast(Any, SimpleNamespace(counters=PeerCounters(), by_address={}))
    monkeypatch.setattr(json, "dumps", lambda counters, **_: shown.update(counters))
    node._log_counters()
    return (shown.keys() - _NO_NUMBERS) | {f"channel.{name}" for name in shown["channel"]}


def explained(heading: str) -> list[str]:
    """The names in the first column of the table of a section."""
    section = TEXT.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "unopened"), [("Of a front end", UnopenedFrontEnd), ("Of a back end", UnopenedBackEnd)]
)
def test_every_counter_of_a_role_is_explained_once(
    heading: str, unopened: type[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = shown_by(cast(Any, unopened)(), monkeypatch)
    told = explained(heading) + explained("Of both")
    assert len(shown) > 40
    assert sorted(told) == sorted(shown)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR])
def test_counters_are_asked_for_they_are_shown_at_every_level_of_the_log(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level):
        shown_by(UnopenedFrontEnd(), monkeypatch)
    assert [record.message.split()[0] for record in caplog.records] == ["counters"]
