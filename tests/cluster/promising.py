"""What a lab's nodes promise clients, changed while the lab stands: all nodes are configured alike and start again."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.daemon import await_ready
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tests.cluster.engine_sight import counters

_KEYS = ("window_scale", "sack", "timestamps", "mss")
_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Promise:
    """Values of the keys of the same names."""

    window_scale: int | None = 7
    sack: bool = True
    timestamps: bool = True
    mss: int = 1460

    def __str__(self) -> str:
        scale = "none" if self.window_scale is None else self.window_scale
        words = [f"scale {scale}", f"MSS {self.mss}"]
        words += ["SACK"] if self.sack else []
        words += ["timestamps"] if self.timestamps else []
        return " ".join(words)

    def lines(self) -> tuple[str, ...]:
        """Of a configuration file."""
        return (
            f"window_scale = {'none' if self.window_scale is None else self.window_scale}",
            f"sack = {'yes' if self.sack else 'no'}",
            f"timestamps = {'yes' if self.timestamps else 'no'}",
            f"mss = {self.mss}",
        )


ONE_BACK_END = Settings(both=("server = 198.18.0.33 666", "rule = 198.18.0.33 .*"))
"""The lab's first back end is the only one."""


def promise(lab: Lab, promised: Promise) -> None:
    """Let all nodes of a lab with `ONE_BACK_END` promise this, and wait until the front end hears the back end.

    Nothing happens where they do so already.
    """
    nodes = (lab.backends[0], lab.fe)
    texts = {node: _text(node, promised.lines()) for node in nodes}
    if all(node.engine.is_running and _file(node).read_text() == texts[node] for node in nodes):
        return
    for node in nodes:
        if node.engine.pid is not None:
            os.kill(node.engine.pid, signal.SIGTERM)
    for node in nodes:
        node.engine.stop()
        _file(node).write_text(texts[node])
    for node in nodes:
        node.engine.launch()
    await_ready([node.engine for node in nodes])
    assert wait_until(lambda: set(counters(lab.fe)["peers"].values()) == {"up"}, _LIMIT_S, 0.05)


def _text(node: Node, lines: tuple[str, ...]) -> str:
    """A node's configuration with these lines instead of its own with the same keys."""
    kept = [line for line in _file(node).read_text().splitlines() if line.partition("=")[0].strip() not in _KEYS]
    return "\n".join((*kept, *lines, ""))


def _file(node: Node) -> Path:
    return node.directory / f"tcpha{'fe' if node.name == 'fe' else 'be'}.conf"
