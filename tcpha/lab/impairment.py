"""What may happen to packets on their way to a node of a lab, as values, and how a person writes it. Pure.

Must not know how it is brought about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from tcpha.errors import StartError

Only = Literal["tcp", "udp"]
"""`tcp`: the connections, bare or inside IP in IP; `udp`: the handoff datagrams."""

PROTOCOLS: dict[Only | None, tuple[int | None, ...]] = {None: (None,), "tcp": (6, 4, 41), "udp": (17,)}
"""Numbers of the protocols that each is about; None: all."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""Types of ICMPv6 messages that are never impaired (RFC 4861), no more than ARP is: who is who stays known."""

REORDER_DEPTH_DEFAULT = 3
REORDER_DEPTH_MAX = 20
DELAY_MAX_S = 10.0

_SHARE = re.compile(r"(\d{1,3}(?:\.\d+)?) ?%?", re.ASCII)
_DELAY = re.compile(r"(\d{1,9}(?:\.\d+)?) ?(us|ms|s)|0", re.ASCII)
_SECONDS_OF_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Impairment:
    """How packets fare. Shares are of all packets, 0.0 to 1.0; each packet draws by itself.

    Raises: StartError if a value is out of its range.
    """

    loss: float = 0.0
    """They do not arrive."""
    duplicate: float = 0.0
    """They arrive twice."""
    reorder: float = 0.0
    """They are overtaken by packets that follow them."""
    reorder_depth: int = REORDER_DEPTH_DEFAULT
    """By at most so many: 1 to `REORDER_DEPTH_MAX`."""
    delay_s: float = 0.0
    """All arrive so much later."""
    only: Only | None = None
    """Which packets this is about; None: all of IPv4 and IPv6."""
    seed: int | None = None
    """What the draws begin with; None: another beginning each time."""

    def __post_init__(self) -> None:
        for what, share in (("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)):
            if not 0.0 <= share <= 1.0:
                raise StartError(f"a share of packets is 0 to 100 %: {what} is not {share * 100:g} %")
        if not 1 <= self.reorder_depth <= REORDER_DEPTH_MAX:
            raise StartError(
                f"a packet is overtaken by at most 1 to {REORDER_DEPTH_MAX} others, not {self.reorder_depth}"
            )
        if not 0.0 <= self.delay_s <= DELAY_MAX_S:
            raise StartError(f"a delay is 0 to {DELAY_MAX_S:g} s, not {self.delay_s:g} s")
        if self.only is not None and self.only not in get_args(Only):
            raise StartError(f"only {' or '.join(get_args(Only))} can be impaired alone, not {self.only!r}")

    def __str__(self) -> str:
        parts = [
            f"loss {self.loss:.6%}" if self.loss else "",
            f"duplicate {self.duplicate:.6%}" if self.duplicate else "",
            f"reorder {self.reorder:.6%} by up to {self.reorder_depth}" if self.reorder else "",
            f"delay {self.delay_s * 1e3:g}ms" if self.delay_s else "",
        ]
        exact = [re.sub(r"\.?0+%", "%", part) for part in parts if part] or ["nothing"]
        exact += [f"{self.only} only"] if self.only else []
        exact += [f"seed {self.seed}"] if self.seed is not None else []
        return ", ".join(exact)


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """Where packets are impaired: those that arrive at `node`, from `peer` only if there is one."""

    node: str
    peer: str | None = None

    def __str__(self) -> str:
        return self.node if self.peer is None else f"{self.node}:{self.peer}"


def parse_way(text: str) -> Way:
    """Read `NODE` or `NODE:PEER`.

    Raises:
        StartError: it is neither, or both are the same.
    """
    node, colon, peer = text.partition(":")
    if not node or ":" in peer or bool(colon) != bool(peer):
        raise StartError(f"{text!r} is neither NODE nor NODE:PEER")
    if node == peer:
        raise StartError(f"{node} is no peer of itself")
    return Way(node, peer or None)


def parse_share(text: str) -> float:
    """Read `2%`, `2 %`, `2` or `0.5%`; the share, 0.0 to 1.0.

    Raises:
        StartError: it is no share.
    """
    match = _SHARE.fullmatch(text.strip())
    if match is None or float(match[1]) > 100.0:
        raise StartError(f"{text!r} is no share: 0% to 100%")
    return float(match[1]) / 100.0


def parse_delay(text: str) -> float:
    """Read `20ms`, `0.02s`, `20000us` or `0`, which needs no unit; the delay in seconds.

    Raises:
        StartError: it is no delay, or a longer one than `DELAY_MAX_S`.
    """
    match = _DELAY.fullmatch(text.strip())
    delay_s = float(match[1] or 0.0) * _SECONDS_OF_UNIT[match[2] or "s"] if match else -1.0
    if not 0.0 <= delay_s <= DELAY_MAX_S:
        raise StartError(f"{text!r} is no delay: 0s to {DELAY_MAX_S:g}s, such as 20ms or 0.02s")
    return delay_s
