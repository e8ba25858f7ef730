"""Whether the machine was quiet enough to tell anything. Pure.

Must not know what is measured, but for the contender `direct`, which depends on nothing but the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import spread

FOREIGN_SHARE_MAX = 0.10
STEAL_SHARE_MAX = 0.02
WINDOWS_MAX = 0.05
"""So many windows, as a share of all, may be disturbed: in a long run one always is."""
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


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen of others in a window, as shares of all processors, 0 to 1."""

    foreign_share: float
    """In use by others."""
    steal_share: float
    """Taken by the machine's own host."""


def window_of(figures: Mapping[str, float]) -> Window | None:
    """Of the figures of a window; None where they say nothing of others."""
    foreign_share = figures.get("foreign_share")
    return None if foreign_share is None else Window(foreign_share, figures.get("steal_share", 0.0))


def reasons(
    observations: Sequence[Observation], windows: Sequence[Window], direct: Mapping[str, Sequence[float]]
) -> list[str]:
    """Why the machine was too noisy, in words; empty if it was quiet.

    direct: by workload, the rate of the contender `direct` in each round.
    """
    return [*_between_rounds(observations), *_in_windows(windows), *_of_direct(direct)]


def _between_rounds(observations: Sequence[Observation]) -> Iterator[str]:
    for name, bound in (("foreign_share", FOREIGN_SHARE_MAX), ("steal_share", STEAL_SHARE_MAX)):
        shares = [getattr(observation, name) for observation in observations]
        if shares and median(shares) > bound:
            who = "others used" if name == "foreign_share" else "the machine's host took"
            yield f"{who} {median(shares):.0%} of its processors between rounds (bound: {bound:.0%})"


def _in_windows(windows: Sequence[Window]) -> Iterator[str]:
    foreign, stolen = [each.foreign_share for each in windows], [each.steal_share for each in windows]
    for who, shares, bound in (
        ("others used", foreign, FOREIGN_SHARE_MAX),
        ("the machine's host took", stolen, STEAL_SHARE_MAX),
    ):
        above = [share for share in shares if share > bound]
        if len(above) > WINDOWS_MAX * len(shares):
            yield (
                f"{who} more than {bound:.0%} of its processors in {len(above)} of {len(shares)} windows,"
                f" up to {max(above):.0%} (bound: {WINDOWS_MAX:.0%} of the windows)"
            )


def _of_direct(direct: Mapping[str, Sequence[float]]) -> Iterator[str]:
    for workload, rates in direct.items():
        if rates and (relative := spread(rates).relative) > DIRECT_SPREAD_MAX:
            yield (
                f"direct, {workload}: rounds are {relative:.0%} of their median apart (bound: {DIRECT_SPREAD_MAX:.0%})"
            )
