"""One window: what a contender's processes, its machine and its network did while it was given work.

Must not know which contender it is. The order: await answers, warm up, settle, count, work, settle, count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import cpu, flood, idle, programs
from bench.arena import IFACE, Stand
from bench.checking_client import paced
from bench.figures import Counted, derive
from bench.workloads import SAMPLED, Offered, Workload
from tcpha.errors import TcphaError
from tcpha.lab.waiting import wait_until

WARM_UP_S = 1
SETTLE_S = 0.5
"""Also what is done behind a window's last answer is counted: the ends of connections."""
FORGET_S = 2.5
"""Instead, behind a workload that leaves many connections: until an engine has forgotten them (`FINISHED_TIME`)."""
_ANSWERS_LIMIT_S = 20.0
ERRORS_MAX_SHARE = 0.001
CHECK_ERRORS_MAX = 1
"""Of a window; its sample is small, so that a share of it says nothing."""


class MeasuringError(TcphaError):
    """A contender could not be measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one window, and what was not right."""

    figures: dict[str, float]
    errors: int = 0
    """Connections or requests that failed."""
    wrong: tuple[str, ...] = field(default_factory=tuple)
    """Answers that were not right, in words."""


def work(stand: Stand, workload: Workload, seconds: int, warm_up_s: int = WARM_UP_S) -> Measured:
    """Measure one workload.

    Raises:
        TcphaError: it could not be measured: nothing, or hardly anything, was answered; a program ended.
    """
    await_answers(stand, workload.offer.paths)
    if warm_up_s:
        workload.offer(stand, warm_up_s)
    time.sleep(SETTLE_S)
    before = _Counts(stand)
    offered = workload.offer(stand, seconds)
    time.sleep(settle_s(workload))
    after = _Counts(stand)
    if fault := _fault(offered):
        raise MeasuringError(f"{stand.contender.title}, {workload.title}: {fault}")
    counted = _counted(offered, before, after)
    return Measured(derive(counted), offered.errors + offered.check_errors, offered.wrong)


def settle_s(workload: Workload) -> float:
    """How long a window waits behind its last answer."""
    return FORGET_S if workload.leaves_connections else SETTLE_S


def _fault(offered: Offered) -> str | None:
    """Why a window is none, in words."""
    if not offered.requests or offered.errors > ERRORS_MAX_SHARE * offered.requests + 1:
        return f"{offered.errors} requests failed, {offered.requests} were answered"
    if offered.check_errors > CHECK_ERRORS_MAX:
        return f"{offered.check_errors} requests of the checking client failed, {offered.checked} were answered"
    if offered.sample is not None and not offered.checked and not offered.wrong:
        return "no answer was looked at"
    return None


def _counted(offered: Offered, before: _Counts, after: _Counts) -> Counted:
    machine = after.machine.since(before.machine)
    return Counted(
        offered.seconds,
        offered.requests,
        offered.checked,
        offered.payload_octets,
        {
            role: after.cpu_s[role] - before.cpu_s[role] + after.programs_s[role] - before.programs_s[role]
            for role in after.cpu_s
        },
        after.lab.since(before.lab),
        after.softirq_threads_s - before.softirq_threads_s,
        machine.busy_s,
        machine.capacity_s,
        after.front_octets - before.front_octets,
        offered.latencies_ms,
        after.servers_s - before.servers_s,
        machine.steal_s,
        {role: after.programs_s[role] - before.programs_s[role] for role in after.programs_s},
    )


def memory_of_idle_connections(stand: Stand, count: int) -> Measured:
    """Restart the contender, and measure what idle connections cost it. Raises as `work`."""
    stand.restart()
    await_answers(stand)
    figures, tally = idle.measure(stand, count)
    if tally.errors:
        raise MeasuringError(f"{stand.contender.title}: {tally.errors} of {count} connections could not be kept open")
    return Measured(figures, 0, tuple(tally.wrong))


def cost_of_flood(stand: Stand, per_s: int, seconds: int) -> Measured:
    """Flood the contender with SYNs, then restart it: nothing remains of half-open connections. Raises as `work`."""
    await_answers(stand)
    time.sleep(SETTLE_S)
    figures, tally = flood.measure(stand, per_s, seconds)
    if stand.contender.roles:
        stand.restart()
    return Measured(figures, tally.errors, tuple(tally.wrong))


def await_answers(stand: Stand, paths: Sequence[str] = SAMPLED) -> None:
    """Wait until the contender answers right for each of some documents; as a rule there is one for each rule.

    Raises:
        MeasuringError: it does not.
    """
    documents = [stand.document(path) for path in paths]
    last: list[str] = []

    def answers() -> bool:
        tally = paced(stand.lab.client.enter, stand.target, documents, 1e3, len(documents) / 1e3)
        last[:] = tally.wrong or [f"{tally.errors} connections failed"]
        return tally.answers == len(documents)

    if not wait_until(answers, _ANSWERS_LIMIT_S, 0.1):
        raise MeasuringError(f"{stand.contender.title} does not answer right: {'; '.join(last)}")


class _Counts:
    """Everything that is read before and after."""

    def __init__(self, stand: Stand) -> None:
        pids = stand.pids()
        self.cpu_s = {role: cpu.of_processes(found) for role, found in pids.items()}
        self.programs_s = {role: programs.run_time_s(found) for role, found in pids.items()}
        self.machine = cpu.of_machine()
        self.softirq_threads_s = cpu.of_processes(cpu.softirq_threads())
        self.lab = cpu.of_lab(stand.residents())
        self.servers_s = cpu.of_processes(stand.server_pids())
        self.front_octets = cpu.interface_octets(stand.lab.fe, IFACE)
