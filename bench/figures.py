"""From what was counted to figures, from rounds to medians, ratios and verdicts. Pure.

Must not know who was measured, or how. A figure of a round is compared with another contender's figure of the same
round only: the two were measured seconds apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

ROUNDS_TO_TRIM = 5
"""From so many rounds on, the lowest and the highest do not count for the spread."""
GB_OCTETS = 1e9
MB_OCTETS = 1e6


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted in one window of one contender."""

    seconds: float
    """While load was offered."""
    requests: int
    """Answered in the window, by the load."""
    checked: int
    """Answered in the window besides, to a client that only checks."""
    payload_octets: int
    """Of bodies, in the direction of the transfer, by the load."""
    cpu_s: Mapping[str, float]
    """Of the contender's processes, by role, and of the programs that the kernel runs for them."""
    lab_s: float
    """CPU of everybody in the lab, clients, servers and other contenders included, and of `softirq_threads_s`."""
    softirq_threads_s: float
    """CPU of the kernel's own threads for network work, which is charged to no process."""
    machine_s: float
    """CPU of everybody on the machine."""
    capacity_s: float
    """CPU that the machine's processors had in all, used or not."""
    front_octets: int
    """Through the interface of the front end's node, in and out."""
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    """By name, such as `p99_ms`."""
    servers_s: float = 0.0
    """CPU of the servers behind the contender, agents not included."""
    steal_s: float = 0.0
    """CPU that the machine's own host took."""
    programs_s: Mapping[str, float] = field(default_factory=dict)
    """Of `cpu_s`, by role: what programs had that the kernel ran, in whatever process."""


class Verdict(Enum):
    """Whether a floor holds."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNCLEAR = "too noisy to tell"


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over rounds."""

    median: float
    low: float
    high: float
    """Of all rounds, or of all but the lowest and the highest from `ROUNDS_TO_TRIM` on."""

    @property
    def relative(self) -> float:
        """From low to high, as a share of the median; 0 where all are 0."""
        return 0.0 if self.high == self.low else math.inf if self.median == 0 else (self.high - self.low) / self.median


def derive(counted: Counted) -> dict[str, float]:
    """Figures of one window; those that cannot be (no payload, no processes) are absent."""
    served = counted.requests + counted.checked
    found = {
        "seconds": counted.seconds,
        "requests": float(counted.requests),
        "checked": float(counted.checked),
        "payload_octets": float(counted.payload_octets),
        "requests_per_s": counted.requests / counted.seconds,
        "mb_per_s": counted.payload_octets / MB_OCTETS / counted.seconds,
        "lab_s": counted.lab_s,
        "machine_s": counted.machine_s,
        "softirq_threads_s": counted.softirq_threads_s,
        "front_octets": float(counted.front_octets),
        **counted.latencies_ms,
    }
    if counted.capacity_s > 0:
        found["foreign_share"] = max(0.0, counted.machine_s - counted.lab_s) / counted.capacity_s
        found["steal_share"] = counted.steal_s / counted.capacity_s
    if counted.payload_octets:
        found["front_octets_per_octet"] = counted.front_octets / counted.payload_octets
        found["lab_s_per_gb"] = counted.lab_s * GB_OCTETS / counted.payload_octets
        found["servers_s_per_gb"] = counted.servers_s * GB_OCTETS / counted.payload_octets
    if served:
        found["lab_us_per_request"] = counted.lab_s * 1e6 / served
        found["servers_us_per_request"] = counted.servers_s * 1e6 / served
    found |= _costs(counted, served)
    return found


def _costs(counted: Counted, served: int) -> dict[str, float]:
    if not counted.cpu_s:
        return {}
    programs_s = {role: counted.programs_s.get(role, 0.0) for role in counted.cpu_s}
    processes_s = {role: counted.cpu_s[role] - programs_s[role] for role in counted.cpu_s}
    shares = {"cpu": counted.cpu_s, "processes": processes_s} | (
        {"programs": programs_s} if any(programs_s.values()) else {}
    )
    found: dict[str, float] = {}
    for name, by_role in shares.items():
        parts = {"": sum(by_role.values())} | {f"_{role}": each_s for role, each_s in by_role.items()}
        found |= {f"{name}_s{part}": each_s for part, each_s in parts.items()}
        if served:
            found |= {f"{name}_us_per_request{part}": each_s * 1e6 / served for part, each_s in parts.items()}
        if counted.payload_octets:
            gb = counted.payload_octets / GB_OCTETS
            found |= {f"{name}_s_per_gb{part}": each_s / gb for part, each_s in parts.items()}
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` (0 to 1) of all do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Median and extent of a figure over rounds.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    kept = ordered[1:-1] if len(ordered) >= ROUNDS_TO_TRIM else ordered
    return Spread(median(ordered), kept[0], kept[-1])


def quotients(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """By round, for the rounds that both have; a round in which theirs is 0 says nothing."""
    return {number: value / theirs[number] for number, value in ours.items() if theirs.get(number)}


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """By round, for the rounds that both have."""
    return {number: value - theirs[number] for number, value in ours.items() if number in theirs}


def verdict(found: Spread, floor: float, *, at_least: bool) -> Verdict:
    """Whether a figure is on the right side of its floor; unclear if the floor lies inside the spread."""
    low_holds, high_holds = ((end >= floor) if at_least else (end <= floor) for end in (found.low, found.high))
    if low_holds != high_holds:
        return Verdict.UNCLEAR
    return Verdict.HOLDS if low_holds else Verdict.FAILS


def rounds_in_words(count: int) -> str:
    """So many."""
    return "1 round" if count == 1 else f"{count} rounds"
