"""What a kernel knows of a TCP socket and tells only a privileged process: its numbers, its timers, its silent end.

TCP_REPAIR as in tcp(7) and linux/tcp.h; timers as ss(8) shows them. Must not know what a test does with them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tcpha.lab.addressing import IFACE
from tcpha.lab.node import Node
from tests.cluster.conversation import Conversation, Family

_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_ON, _OFF_WITHOUT_PROBE = 1, -1
_RECEIVE_QUEUE, _SEND_QUEUE = 1, 2
_BACKOFF = re.compile(r"timer:\(persist,.*\sbackoff:(\d+)", re.DOTALL)
MASK = 0xFFFFFFFF


def numbers(peer: socket.socket) -> tuple[int, int]:
    """SND.NXT (of all that was written) and RCV.NXT."""
    peer.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)
    try:
        found = []
        for queue in (_SEND_QUEUE, _RECEIVE_QUEUE):
            peer.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
            found.append(peer.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ) & MASK)
        return found[0], found[1]
    finally:
        peer.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _OFF_WITHOUT_PROBE)


def vanish(peer: socket.socket) -> None:
    """Close without a word to the other side, as a host does that loses its power."""
    peer.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)
    peer.close()


@contextmanager
def mute(node: Node, family: Family, port: int) -> Iterator[None]:
    """Let nothing leave a node from this port: its kernel would reset what it does not know any more."""
    program = "iptables" if family == "ipv4" else "ip6tables"
    rule = ["OUTPUT", "-o", IFACE, "-p", "tcp", "--sport", str(port), "-j", "DROP"]
    node.run([program, "-I", *rule], check=True)
    try:
        yield
    finally:
        node.run([program, "-D", *rule], check=True)


def send_with_fin(client: Conversation, octets: bytes) -> None:
    """Send, and close the own side in the very segment that carries the last octets."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(octets)
    client.half_close()


def persist_probes(node: Node, port: int) -> int:
    """How often the persist timer of the node's socket with this port has fired, at least, since the window shut."""
    shown = node.run(["ss", "-Htanoi", f"( sport = :{port} or dport = :{port} )"], check=True).stdout
    found = _BACKOFF.search(shown)
    return int(found[1]) if found else 0


def states(node: Node, port: int) -> list[str]:
    """States of the node's sockets with this port, as ss(8) names them."""
    shown = node.run(["ss", "-Htan", f"( sport = :{port} or dport = :{port} )"], check=True).stdout
    return [line.split()[0] for line in shown.splitlines()]
