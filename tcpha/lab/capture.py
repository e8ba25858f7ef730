"""Captures at nodes of a lab, all at once, with tcpdump(8). `tcpha.lab.ladder` draws them.

Must not know what is captured for what.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tcpha.errors import StartError
from tcpha.lab.addressing import IFACE
from tcpha.lab.ladder import Capture
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until

_START_LIMIT_S = 10.0
_STOP_LIMIT_S = 5.0


@contextmanager
def capturing(nodes: Sequence[Node], expression: str) -> Iterator[list[Capture]]:
    """Captures what passes eth0 of every node and matches `expression` (pcap-filter(7)) while the body runs.

    The files grow in the nodes' directories, packet by packet, and stay there as long as the lab stands.

    Raises:
        StartError: tcpdump cannot be run, or does not start to listen.
    """
    with ExitStack() as running:
        captures = [running.enter_context(_capturing_at(node, expression)) for node in nodes]
        yield captures


@contextmanager
def _capturing_at(node: Node, expression: str) -> Iterator[Capture]:
    capture = Capture(node.name, _mac(node), node.directory / f"{IFACE}.pcap")
    log = node.directory / "tcpdump.log"
    # Written through our descriptor, for tcpdump gives up its rights; AppArmor, where it confines it, allows *.pcap.
    arguments = ["tcpdump", "-i", IFACE, "-n", "-U", "--immediate-mode", "-w", "-", expression]
    with capture.file.open("wb") as packets, log.open("wb") as said:
        try:
            child = node.popen(arguments, stdin=subprocess.DEVNULL, stdout=packets, stderr=said)
        except OSError as error:
            raise StartError(f"tcpdump cannot be run: {error.strerror}") from error
    try:
        _await_listening(child, log)
        yield capture
    finally:
        child.terminate()
        try:
            child.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_listening(child: subprocess.Popen[bytes], log: Path) -> None:
    def listens_or_ended() -> bool:
        return b"listening on" in log.read_bytes() or child.poll() is not None

    if not wait_until(listens_or_ended, _START_LIMIT_S) or child.poll() is not None:
        raise StartError(f"tcpdump does not listen: {log.read_text(errors='replace').strip()}")


def _mac(node: Node) -> str:
    links = json.loads(node.run(["ip", "-j", "link", "show", "dev", IFACE], check=True).stdout)
    return str(links[0]["address"])
