"""The schema of bench/results.json, and how it is made of what was measured. docs/benchmark.md explains every key.

Must not know how anything was measured or is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench import noise
from bench.contenders import DIRECT, Contender
from bench.figures import Spread, spread
from bench.floors import Figures, Judgement, Section, Side, judge
from bench.noise import Observation

SCHEMA = 1
RATES = {
    "close": "requests_per_s",
    "keepalive": "requests_per_s",
    "download": "mb_per_s",
    "download_large": "mb_per_s",
    "upload": "mb_per_s",
    "mixed": "requests_per_s",
}
"""Of each workload, the figure that says how fast it went; the others are not about rates."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sample(_Model):
    """One window."""

    round: int
    workload: str
    contender: str
    figures: dict[str, float]
    errors: int = 0
    """Requests and connections that failed, those of the checking client included."""
    wrong: list[str] = []


class Extent(_Model):
    """A figure over rounds."""

    median: float
    low: float
    high: float


class Told(Extent):
    """A figure that is judged."""

    title: str


class Floor(_Model):
    """A floor, and whether it holds."""

    key: str
    title: str
    median: float
    low: float
    high: float
    side: Side
    floor: float
    verdict: str


class Observed(_Model):
    """What was seen before a round."""

    round: int
    load_average: float
    foreign_share: float
    steal_share: float


class Noise(_Model):
    """Whether the machine was quiet."""

    is_quiet: bool
    reasons: list[str]
    observations: list[Observed]


class Named(_Model):
    """A contender or a workload."""

    key: str
    title: str


class Results(_Model):
    """The file."""

    schema_version: int = SCHEMA
    made: str
    quick: bool
    rounds: int
    machine: dict[str, str | int | bool]
    contenders: list[Named]
    workloads: list[Named]
    ratios: dict[str, float]
    differences: dict[str, float]
    cost: dict[str, float]
    spreads: dict[str, Told]
    floors: list[Floor]
    noise: Noise
    figures: dict[str, dict[str, dict[str, Extent]]]
    samples: list[Sample]


def compose(
    *,
    made: str,
    quick: bool,
    rounds: int,
    machine: Mapping[str, str | int | bool],
    contenders: Sequence[Contender],
    workloads: Sequence[Named],
    samples: Sequence[Sample],
    observations: Sequence[Observation],
) -> Results:
    """Everything that follows from the samples."""
    figures = Figures((each.workload, each.contender, each.round, each.figures) for each in samples)
    direct = {workload: list(figures.rounds(workload, DIRECT, rate).values()) for workload, rate in RATES.items()}
    windows = [window for each in samples if (window := noise.window_of(each.figures)) is not None]
    faults = noise.reasons(observations, windows, direct)
    seen = [Observed(**{name: getattr(each, name) for name in Observed.model_fields}) for each in observations]
    judgements = [
        judgement
        for contender in contenders
        if contender.judged_as is not None
        for judgement in judge(figures, contender.key, contender.judged_as, is_quiet=not faults)
    ]
    return Results(
        made=made,
        quick=quick,
        rounds=rounds,
        machine=dict(machine),
        contenders=[Named(key=each.key, title=each.title) for each in contenders],
        workloads=list(workloads),
        ratios=_medians(judgements, "ratios"),
        differences=_medians(judgements, "differences"),
        cost=_medians(judgements, "cost"),
        spreads={each.key: Told(title=each.judged.title, **extent(each.spread).model_dump()) for each in judgements},
        floors=[_floor(each, each.floor) for each in judgements if each.floor is not None],
        noise=Noise(is_quiet=not faults, reasons=faults, observations=seen),
        figures={
            workload.key: {
                contender.key: _extents(figures, workload.key, contender.key)
                for contender in contenders
                if figures.names(workload.key, contender.key)
            }
            for workload in workloads
        },
        samples=list(samples),
    )


def extent(found: Spread) -> Extent:
    """As it is written down."""
    return Extent(median=found.median, low=found.low, high=found.high)


def write(results: Results, file: Path) -> None:
    """Write bench/results.json."""
    file.write_text(results.model_dump_json(indent=1) + "\n")


def read(file: Path) -> Results:
    """Read bench/results.json.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    return Results.model_validate_json(file.read_text())


def _medians(judgements: Sequence[Judgement], section: Section) -> dict[str, float]:
    return {each.key: each.spread.median for each in judgements if each.judged.section == section}


def _floor(judgement: Judgement, floor: float) -> Floor:
    judged, found = judgement.judged, judgement.spread
    return Floor(
        key=judgement.key,
        title=judged.title,
        median=found.median,
        low=found.low,
        high=found.high,
        side=judged.side,
        floor=floor,
        verdict=judgement.verdict.value if judgement.verdict else "",
    )


def _extents(figures: Figures, workload: str, contender: str) -> dict[str, Extent]:
    return {
        name: extent(spread(list(figures.rounds(workload, contender, name).values())))
        for name in figures.names(workload, contender)
    }
