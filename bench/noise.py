"""Whether the machine was quiet enough to tell anything. Pure.

Must not know what is measured, but for the contender `direct`, which depends on nothing but the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import spread

FOREIGN_SHARE_MAX = 0.10
STEAL_SHARE_MAX = 0.02
DIRECT_SPREAD_MAX = 0.30
"""From low to high, as a share of the median."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen before a round, in a while without load of ours."""

    round: int
    load_average: float
    """Of the last minute: load of the rounds before is in it."""
    foreign_share: float
    """Of all processors, in use by others (and by contenders that idle)."""
    steal_share: float
    """Of all processors, taken by the machine's own host."""


def reasons(
    observations: Sequence[Observation], windows: Sequence[float], direct: Mapping[str, Sequence[float]]
) -> list[str]:
    """Why the machine was too noisy, in words; empty if it was quiet.

    windows: of each window, the share of the processors that others used. direct: by workload, the rate of the
    contender `direct` in each round.
    """
    found = []
    for name, bound in (("foreign_share", FOREIGN_SHARE_MAX), ("steal_share", STEAL_SHARE_MAX)):
        shares = [getattr(observation, name) for observation in observations]
        if shares and median(shares) > bound:
            who = "others used" if name == "foreign_share" else "the machine's host took"
            found.append(f"{who} {median(shares):.0%} of its processors between rounds (bound: {bound:.0%})")
    busy = [share for share in windows if share > FOREIGN_SHARE_MAX]
    if busy:
        found.append(
            f"others used more than {FOREIGN_SHARE_MAX:.0%} of its processors in {len(busy)} of {len(windows)} windows,"
            f" up to {max(busy):.0%}"
        )
    for workload, rates in direct.items():
        if rates and (relative := spread(rates).relative) > DIRECT_SPREAD_MAX:
            found.append(
                f"direct, {workload}: rounds are {relative:.0%} of their median apart (bound: {DIRECT_SPREAD_MAX:.0%})"
            )
    return found
