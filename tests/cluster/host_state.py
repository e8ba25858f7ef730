"""What must be the same on a host before and after: addresses, routes, packet filter rules, kernel settings.

Left out is what changes by itself: comments and counters of iptables-save, and which namespaces other programs make.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node

_COMMANDS = (
    ("ip", "-o", "addr"),
    ("ip", "-o", "link"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "rule"),
    ("iptables-save",),
    ("ip6tables-save",),
    ("sysctl", "-a", "-r", r"^net[.]ipv[46][.]"),
)
_VOLATILE = re.compile(r"\[\d+:\d+\]|expires \d+sec|(?:valid|preferred)_lft \d+sec|group default qlen \d+")


def of_machine() -> str:
    """State of the machine's own network."""
    return _state(lambda words: subprocess.run(words, capture_output=True, text=True, check=False).stdout)


def of_node(node: Node) -> str:
    """State of one node of a lab."""
    return _state(lambda words: node.run(words).stdout)


def of_nodes(lab: Lab) -> dict[str, str]:
    """State of every node, by its name."""
    return {name: of_node(node) for name, node in lab.nodes.items()}


def _state(run: Callable[[Sequence[str]], str]) -> str:
    return "\n".join(f"$ {' '.join(words)}\n{_steady(run(words))}" for words in _COMMANDS)


def _steady(text: str) -> str:
    return "\n".join(_VOLATILE.sub("", line) for line in text.splitlines() if not line.startswith("#"))
