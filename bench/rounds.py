"""The run: round after round, in each every workload, in each of these everybody in turn: A B C, A B C.

Must not know how a window is measured, or what becomes of the samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench import cpu, measuring
from bench.arena import Arena, Stand
from bench.contenders import DIRECT, Contender
from bench.floors import JUDGED
from bench.measuring import Measured
from bench.noise import Observation
from bench.results import Named, Sample
from bench.workloads import Workload

_QUIET_S = 1.0
"""How long the machine is watched before a round."""
FLOOD = Named(key="flood", title="SYN flood")
IDLE = Named(key="idle", title="idle connections")


@dataclass(frozen=True, slots=True)
class Programme:
    """What is done."""

    contenders: tuple[Contender, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    window_s: int
    warm_up_s: int
    idle_connections: int = 0
    """0: their memory is not measured."""
    flood_per_s: int = 0
    """0: there is no flood."""
    flood_s: int = 3
    is_quick: bool = False
    spares_variants: bool = False
    """Whether a variant of another contender is only measured where an engine is held against it."""

    @property
    def named(self) -> list[Named]:
        """All workloads, those included that are no load for a while."""
        found = [Named(key=each.key, title=each.title) for each in self.workloads]
        return found + [IDLE] * bool(self.idle_connections) + [FLOOD] * bool(self.flood_per_s)

    def takes(self, workload: str) -> list[Contender]:
        """Who is measured in a workload."""
        compared = {each.against for each in JUDGED if each.workload == workload}
        return [
            each for each in self.contenders if not (self.spares_variants and each.is_variant) or each.key in compared
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, as far as it went."""

    samples: list[Sample] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Answers that were not right, in words."""
        return [f"{each.contender}, {each.workload}: {words}" for each in self.samples for words in each.wrong]


Say = Callable[[str], None]


def run(arena: Arena, programme: Programme, outcome: Outcome, say: Say) -> None:
    """Do it all; `outcome` grows window by window.

    What restarts contenders or leaves remains in the kernel (memory, floods) has rounds of its own at the end.

    Raises:
        TcphaError: something could not be measured; what was before it is in `outcome`.
    """
    for number in range(1, programme.rounds + 1):
        outcome.observations.append(observe(number, say))
        for workload in programme.workloads:
            step = partial(measuring.work, workload=workload, seconds=programme.window_s, warm_up_s=programme.warm_up_s)
            named = Named(key=workload.key, title=workload.title)
            outcome.samples.extend(_turn(arena, programme.takes(workload.key), number, named, step, say))
    if programme.idle_connections:
        balancers = [each for each in programme.contenders if each.roles]
        step = partial(measuring.memory_of_idle_connections, count=programme.idle_connections)
        for number in range(1, programme.rounds + 1):
            outcome.samples.extend(_turn(arena, balancers, number, IDLE, step, say))
    if programme.flood_per_s:
        originals = [each for each in programme.contenders if not each.is_variant]
        step = partial(measuring.cost_of_flood, per_s=programme.flood_per_s, seconds=programme.flood_s)
        for number in range(1, programme.rounds + 1):
            found = list(_turn(arena, originals, number, FLOOD, step, say))
            outcome.samples.extend(without_sender(found))


def without_sender(floods: Sequence[Sample]) -> list[Sample]:
    """The floods of a round, with `host_us_per_syn`: the lab's CPU per SYN less that of a flood to nobody."""
    nobody = {each.figures["lab_us_per_syn"] for each in floods if each.contender == DIRECT}
    if not nobody:
        return list(floods)
    base = nobody.pop()
    return [
        each
        if each.contender == DIRECT
        else each.model_copy(
            update={"figures": {**each.figures, "host_us_per_syn": each.figures["lab_us_per_syn"] - base}}
        )
        for each in floods
    ]


def _turn(
    arena: Arena,
    contenders: Sequence[Contender],
    number: int,
    workload: Named,
    step: Callable[[Stand], Measured],
    say: Say,
) -> Iterator[Sample]:
    """One workload, everybody once."""
    for contender in contenders:
        arena.empty_logs()
        measured = step(arena.stand(contender))
        say(f"round {number}  {workload.title:<31} {contender.title:<27} {_in_short(measured)}")
        yield Sample(
            round=number,
            workload=workload.key,
            contender=contender.key,
            figures=measured.figures,
            errors=measured.errors,
            wrong=list(measured.wrong),
        )


def observe(number: int, say: Say) -> Observation:
    """Watch the machine for a while without load."""
    before = cpu.of_machine()
    time.sleep(_QUIET_S)
    between = cpu.of_machine().since(before)
    seen = Observation(number, cpu.load_average(), between.busy_share, between.steal_share)
    say(
        f"round {number}  load average {seen.load_average:.1f}, others use {seen.foreign_share:.0%},"
        f" stolen {seen.steal_share:.0%}"
    )
    return seen


_BULK_OCTETS = 1e6
"""From so much payload per request on, figures per GB say more than figures per request."""
_SHOWN = {
    "requests_per_s": "{:,.0f}/s",
    "mb_per_s": "{:,.0f} MB/s",
    "p99_ms": "p99 {:.2f} ms",
    "cpu_us_per_request": "{:,.0f} us/request",
    "cpu_s_per_gb": "{:.2f} s/GB",
    "octets_per_connection": "{:,.0f} octets/connection",
    "lab_us_per_syn": "{:.1f} us/SYN",
}


def _in_short(measured: Measured) -> str:
    figures = measured.figures
    is_bulk = figures.get("payload_octets", 0.0) >= _BULK_OCTETS * figures.get("requests", 1.0)
    left_out = {"cpu_us_per_request", "requests_per_s"} if is_bulk else {"cpu_s_per_gb", "mb_per_s"}
    shown = [form.format(figures[name]) for name, form in _SHOWN.items() if name in figures and name not in left_out]
    return ", ".join([*shown, *([f"{measured.errors} failed"] if measured.errors else [])])
