"""What processor time of everybody says about rates where all share the same processors. Pure.

Must not know how anything was measured. With C processors for everybody and D seconds of processor time per answer no
more than C / D answers a second come, so two rates are to each other as the processor times, the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.floors import JUDGED, PYTHON

CPU_FLOORS: Final = ("fe_us_per_connection", "be_us_per_connection")


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time per answer, in microseconds."""

    title: str
    balancer_us: float


def table(ends_us: float, haproxy: Spent, others: tuple[Spent, ...]) -> str:
    """A table in Markdown; `ends_us` is that of servers and clients, the same for everybody."""
    rows = [
        [each.title, *(f"{us:.0f}" for us in (ends_us, each.balancer_us, ends_us + each.balancer_us)), f"{share:.2f}"]
        for each in (haproxy, *others)
        for share in ((ends_us + haproxy.balancer_us) / (ends_us + each.balancer_us),)
    ]
    head = ["us", "servers and clients", "balancer", "in all", f"rate, times {haproxy.title}"]
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cases(in_all_us: float, kernel_us: float, *, is_new: bool) -> tuple[Spent, ...]:
    """The engine as it is, with nothing but its system calls, and, of new connections, at its floors of CPU."""
    found = (Spent("tcpha", in_all_us), Spent("tcpha, its system calls alone", kernel_us))
    floors: Mapping[str, float] = {each.name: each.floors[PYTHON] for each in JUDGED if each.name in CPU_FLOORS}
    at_floors = Spent("tcpha, at its floors of CPU", sum(floors.values()))
    return (*found, at_floors) if is_new else found
