"""Impairments by the kernel's own means: tc-netem(8) at the port of the switch that leads to a node.

A port gets a classful queue: what no filter claims passes unimpaired, each way has a class with netem below. Must not
know when the kernel's means are chosen, nor who else impairs packets.

Deviation: a burst that the sender's kernel has left to its interface to cut (up to 64 KiB, tcp segmentation offload) is
one packet to netem.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tcpha.lab.impairment import PROTOCOLS, Impairment
from tcpha.lab.node import Node

NEEDS = "sch_netem, sch_prio, cls_u32"
"""Modules of the kernel, or parts built into it; and the program tc (iproute2)."""
WAYS_MAX = 15
"""Classes of a port, beside the one for what is not impaired (tc-prio(8))."""
_LIMIT_PACKETS = 20_000
# Types 133 to 137 behind an IPv6 header, by value and mask; 132, which nobody here sends (RFC 2710), is among them.
_NEIGHBOUR_DISCOVERY = ("0x84 0xfc", "0x88 0xfe")
_ANY = "match u32 0 0"


@dataclass(frozen=True, slots=True)
class Share:
    """What one way asks of a port."""

    macs: tuple[str, ...]
    """Of the peer; none: whoever sends."""
    impairment: Impairment
    is_ours: bool
    """Whether netem impairs it; else it passes, for somebody else does."""


def misfit(impairment: Impairment) -> str | None:
    """Why netem does not do just what is asked, in words for a person; None if it does."""
    if impairment.reorder:
        return "it does not count who overtakes whom (--reorder): leave that to the lab's program"
    if impairment.seed is not None:
        return "it takes no seed on every kernel (--seed): leave that to the lab's program"
    return None


def obstacle(switch: Node) -> str | None:
    """Why the kernel cannot impair packets, in words for a person; None if it can. It is tried on a link in no use."""
    whole = Share(("02:00:00:00:00:00",), Impairment(only="tcp"), True)
    try:
        reason = arrange(switch, "lo", [whole])
        return None if reason is None else f"{reason}\nthe kernel needs {NEEDS}"
    finally:
        clear(switch, "lo")


def arrange(switch: Node, port: str, shares: Sequence[Share]) -> str | None:
    """Give a port what the shares ask for, the first that matches a packet first; why not, if the kernel refuses."""
    clear(switch, port)
    if len(shares) > WAYS_MAX:
        return f"{len(shares)} impairments at {port} are more than {WAYS_MAX}"
    for line in commands(port, shares):
        try:
            done = switch.run(["tc", *shlex.split(line)])
        except OSError as error:
            return f"tc cannot be run: {error.strerror}"
        if done.returncode != 0:
            return f"tc {line}: {' '.join(done.stderr.split())}"
    return None


def clear(switch: Node, port: str) -> None:
    """Take everything off a port."""
    try:
        switch.run(["tc", "qdisc", "del", "dev", port, "root"])
    except OSError:
        return  # where there is no tc, nothing can have been put there


def commands(port: str, shares: Sequence[Share]) -> list[str]:
    """Arguments of tc, a line each; none if there is nothing to impair. At most `WAYS_MAX` shares."""
    if not any(share.is_ours for share in shares):
        return []
    lines = [f"qdisc add dev {port} root handle 1: prio bands {max(2, len(shares) + 1)} priomap{' 0' * 16}"]
    filters = [f"protocol ipv6 u32 match ip6 protocol 58 0xff match u8 {types} at 40" for types in _NEIGHBOUR_DISCOVERY]
    classes = [1] * len(filters)
    for number, share in enumerate(shares, start=2):
        if share.is_ours:
            lines.append(f"qdisc add dev {port} parent 1:{number} {_netem(share.impairment)}")
        found = _filters(share)
        filters += found
        classes += [number if share.is_ours else 1] * len(found)
    start = f"filter add dev {port} parent 1: prio"
    pairs = enumerate(zip(filters, classes, strict=True), start=1)
    return lines + [f"{start} {place} {words} flowid 1:{number}" for place, (words, number) in pairs]


def _netem(impairment: Impairment) -> str:
    words = [f"netem limit {_LIMIT_PACKETS} loss {impairment.loss:.6%}"]
    if impairment.duplicate:
        words.append(f"duplicate {impairment.duplicate:.6%}")
    if impairment.delay_s:
        words.append(f"delay {round(impairment.delay_s * 1e6)}us")
    return " ".join(words)


def _filters(share: Share) -> list[str]:
    found = []
    for family, selector in (("ip", "ip"), ("ipv6", "ip6")):
        for protocol in PROTOCOLS[share.impairment.only]:
            is_protocol = "" if protocol is None else f" match {selector} protocol {protocol} 0xff"
            senders = [f" match ether src {mac}" for mac in share.macs] or [""]
            found += [f"protocol {family} u32{(sender + is_protocol) or ' ' + _ANY}" for sender in senders]
    return found
