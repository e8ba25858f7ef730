"""The words of ``python -m tcpha.lab impair`` and of the lines about impairments in ``status``.

Must not know how packets are impaired.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from tcpha.errors import StartError
from tcpha.lab import netem
from tcpha.lab.impairment import (
    REORDER_DEPTH_DEFAULT,
    REORDER_DEPTH_MAX,
    Impairment,
    Only,
    Way,
    parse_delay,
    parse_share,
    parse_way,
)
from tcpha.lab.impairments import QUEUE_NEEDS, Impairments, Means

if TYPE_CHECKING:
    from tcpha.lab.cluster import Lab

HELP = "lose, double, reorder or delay what arrives at a node"
USAGE = "%(prog)s [--name NAME] NODE[:PEER] [options] | NODE[:PEER] off"
DESCRIPTION = f"""\
What arrives at NODE is impaired, of PEER's frames only if a PEER is given, until `off` or `down`. A second call for the
same NODE[:PEER] replaces the first. Where both NODE and NODE:PEER are impaired, a packet meets one of them: that of its
PEER if that is about it, else NODE's. IPv4 and IPv6 fare alike; ARP and neighbour discovery are never impaired. PEER is
whoever sent the frame: what the front end forwards to a back end comes from `fe`, in a routed lab all comes from
`router`.

Everything is done in the switch, at the port towards NODE; a node's own capture shows what survived. Two ways do it:
--by netem   the kernel's own, where it can do just what is asked: neither --reorder nor --seed. A burst that the
             sender's kernel did not cut, of up to 64 KiB, is one packet to it. It needs the program tc (iproute2) and
             of the kernel {netem.NEEDS}.
--by queue   the lab's program behind an NFQUEUE, to which a packet is what the path's MTU allows. If it dies, packets
             pass unimpaired, and `status` says so. It needs iptables and of the kernel
             {QUEUE_NEEDS}.
Without --by it is netem where that can do it and the kernel has it, else the program. 0 of anything is none of it.
"""
EPILOG = "example: impair be1:fe --loss 2% --duplicate 1% --reorder 5% --delay 20ms; then: impair be1:fe off"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `impair`."""
    shares = {
        "--loss": "of packets that do not arrive, such as 2%% or 2 (0 to 100)",
        "--duplicate": "of packets that arrive twice",
        "--reorder": "of packets that are overtaken by some that follow",
    }
    parser.add_argument("way", metavar="NODE[:PEER]", help="client, fe, be1, ..., router")
    parser.add_argument("off", nargs="?", metavar="off", help="take the impairment of NODE[:PEER] away")
    for option, text in shares.items():
        parser.add_argument(option, type=_share, metavar="SHARE", help=text)
    parser.add_argument(
        "--reorder-depth",
        type=int,
        metavar="N",
        help=f"by at most so many, 1 to {REORDER_DEPTH_MAX} (default: {REORDER_DEPTH_DEFAULT}); "
        "one that too few follow waits 10 ms",
    )
    parser.add_argument(
        "--delay", type=_delay, metavar="TIME", help="all arrive later, such as 20ms or 0.02s (0s to 10s)"
    )
    parser.add_argument(
        "--only",
        choices=get_args(Only),
        help="tcp: connections, also inside IP in IP; udp: the handoff datagrams (default: everything)",
    )
    parser.add_argument("--seed", type=int, metavar="NUMBER", help="what the draws begin with")
    parser.add_argument("--by", choices=get_args(Means), help="see above")


_SIGNED = re.compile(r"-\.?\d")


def joined(words: Sequence[str]) -> list[str]:
    """The words of a command with `--delay -5ms` as `--delay=-5ms`: argparse takes a negative value for an option."""
    found: list[str] = []
    for word in words:
        if found and found[-1].startswith("--") and "=" not in found[-1] and _SIGNED.match(word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for."""

    way: Way
    impairment: Impairment | None
    """None: take it away."""
    means: Means | None


def wish(options: argparse.Namespace) -> Wish:
    """What was asked for; no lab is looked at.

    Raises:
        StartError: that cannot be asked of any lab.
    """
    if options.way == "off":
        raise StartError("off comes after NODE[:PEER]: impair NODE[:PEER] off")
    if options.off not in (None, "off"):
        raise StartError(
            f"{options.off!r} is neither an option nor off: impair NODE[:PEER] [options] | NODE[:PEER] off"
        )
    way = parse_way(options.way)
    asked = {
        "loss": options.loss,
        "duplicate": options.duplicate,
        "reorder": options.reorder,
        "reorder_depth": options.reorder_depth,
        "delay_s": options.delay,
        "only": options.only,
        "seed": options.seed,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if options.off:
        if given or options.by:
            raise StartError("off takes an impairment away: it goes with no option")
        return Wish(way, None, None)
    if options.reorder is None and options.reorder_depth is not None:
        raise StartError("--reorder-depth says by how many packets others are overtaken: give --reorder, too")
    if not given.keys() & {"loss", "duplicate", "reorder", "delay_s"}:
        raise StartError("nothing to do: give --loss, --duplicate, --reorder or --delay, or off")
    impairment = Impairment(**given)
    if options.by == "netem" and (reason := netem.misfit(impairment)):
        raise StartError(f"--by netem: {reason}")
    return Wish(way, impairment, options.by)


def run(lab: Lab, asked: Wish) -> str:
    """Do what was asked; a line about it.

    Raises:
        StartError: there is no such way in this lab, or the machine lacks the means.
        DaemonError: the program did not start.
    """
    way, impairments = asked.way, Impairments(lab.nodes)
    if asked.impairment is None:
        return f"{way}: off" if impairments.take_away(way) else f"{way} was not impaired"
    put = impairments.put(way, asked.impairment, asked.means)
    return f"{way}: {put.standing.impairment} ({put.standing.means})"


def lines(lab: Lab) -> Iterator[str]:
    """One an impairment that is on."""
    try:
        known = Impairments(lab.nodes)
    except StartError:  # half a lab: nothing is impaired without its switch
        return
    for standing in known.standing():
        state = standing.means if known.is_in_effect(standing) else "its program has ended: packets pass"
        yield f"  impaired {standing.way}: {standing.impairment} ({state})"


def _share(text: str) -> float:
    try:
        return parse_share(text)
    except StartError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _delay(text: str) -> float:
    try:
        return parse_delay(text)
    except StartError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
