"""Two hosts of their own for one test: network namespaces joined by a veth pair, gone when the test ends."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

import pytest
from pyroute2 import netns

DEADLINE_S = 10.0
_numbers = itertools.count(1)


class Readable(Protocol):
    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with one interface, `iface`, and the addresses that it holds."""

    namespace: str
    iface: str
    addr4: IPv4Address
    addr6: IPv6Address

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Everything the test makes in this block belongs to the namespace, sockets also afterwards."""
        netns.pushns(self.namespace)
        try:
            yield
        finally:
            netns.popns()

    def run(self, command: str) -> str:
        with self.inside():
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def restore_rules(self, family: int, *lines: str) -> None:
        """Feed lines of iptables-restore."""
        program = {4: "iptables-restore", 6: "ip6tables-restore"}[family]
        with self.inside():
            subprocess.run([program, "--noflush"], input="\n".join(lines) + "\n", text=True, check=True)


@contextmanager
def pair(mtu: int = 1500) -> Iterator[tuple[Host, Host]]:
    """Two hosts on one link, 10.77.0.1 / fd77::1 and 10.77.0.2 / fd77::2; skips where namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"tcphanet{os.getpid()}n{next(_numbers)}"
    hosts = tuple(
        Host(f"{name}{which}", f"if{which}", IPv4Address(f"10.77.0.{at}"), IPv6Address(f"fd77::{at}"))
        for at, which in enumerate("ab", start=1)
    )
    with ExitStack() as cleanup:
        for host in hosts:
            try:
                netns.create(host.namespace)
            except Exception as error:
                pytest.skip(f"network namespaces cannot be made: {error}")
            cleanup.callback(netns.remove, host.namespace)
        left, right = hosts
        for host in hosts:
            host.run("sysctl -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
        left.run(
            f"ip link add {left.iface} mtu {mtu} type veth peer name {right.iface} mtu {mtu} netns {right.namespace}"
        )
        for host in hosts:
            host.run("ip link set lo up")
            host.run(f"ip addr add {host.addr4}/24 dev {host.iface}")
            host.run(f"ip addr add {host.addr6}/64 dev {host.iface} nodad")
            host.run(f"ip link set {host.iface} up")
        # While a link-local address is tentative the kernel solicits no neighbour in its name.
        for host in hosts:
            until(partial(_is_settled, host))
        yield left, right


def _is_settled(host: Host) -> bool:
    addresses = host.run(f"ip -6 addr show dev {host.iface}")
    return "fe80:" in addresses and "tentative" not in addresses


def until(condition: Callable[[], bool], *readable: Readable) -> None:
    """Wait until the condition holds, asking again when one of `readable` can be read; fail after the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        select.select(readable, (), (), 0.02)


def pump(condition: Callable[[], bool], sources: Sequence[tuple[Readable, Callable[[], object]]]) -> None:
    """Read whatever can be read, with its function, until the condition holds; fail after the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        ready, _, _ = select.select([source for source, _ in sources], (), (), 0.02)
        for source, read in sources:
            if source in ready:
                read()
