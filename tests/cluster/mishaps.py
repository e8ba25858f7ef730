"""What befalls the hosts of a lab for a while: processes that sleep, kernels set otherwise, messages that are lost.

Everything is as before when the `with` is left, also where a test fails inside it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tcpha.lab.addressing import IFACE
from tcpha.lab.node import Node
from tcpha.proto.handoff import Type
from tests.cluster.tcp_stack import set_up

_TYPE = "0>>22&0x3C@24&0xFF"
"""The octet of a message that tells its type (docs/wire.md), behind the headers of IPv4 and UDP, as xt_u32 finds it."""


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Let a process sleep (signal(7), SIGSTOP)."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def kernel(node: Node, **settings: int) -> Iterator[None]:
    """Set a node's TCP otherwise: names are those below net.ipv4 (ip-sysctl)."""
    with set_up(node, {name: str(value) for name, value in settings.items()}):
        yield


@contextmanager
def losing(node: Node, *kinds: Type) -> Iterator[None]:
    """Lose messages of these types that arrive at a node, before its process sees them."""
    rules = [
        ["PREROUTING", "-i", IFACE, "-p", "udp", "-m", "u32", "--u32", f"{_TYPE}={kind.value}", "-j", "DROP"]
        for kind in kinds
    ]
    for rule in rules:
        node.run(["iptables", "-t", "raw", "-I", *rule], check=True)
    try:
        yield
    finally:
        for rule in rules:
            node.run(["iptables", "-t", "raw", "-D", *rule], check=True)


@contextmanager
def one_by_one(node: Node) -> Iterator[None]:
    """Let a node's kernel send each segment as a packet of its own, where it sends many as one that a card would cut.

    The kernel carries those on as they come; who counts or measures packets on a wire means the others.
    """
    node.run(["ip", "link", "set", IFACE, "gso_max_segs", "1"], check=True)
    try:
        yield
    finally:
        node.run(["ip", "link", "set", IFACE, "gso_max_segs", "65535"], check=True)
