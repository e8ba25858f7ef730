"""The processes that live in network namespaces: find them, end them. pidfd_open(2).

Must not know who started them: a lab whose records are lost is emptied all the same.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection
from contextlib import ExitStack

from tcpha.errors import StartError
from tcpha.lab import namespaces
from tcpha.lab.namespaces import Identity

GRACE_S = 3.0
"""How long a process may take to end after SIGTERM."""
_LAST_WAIT_S = 10.0


def find(identities: Collection[Identity]) -> tuple[int, ...]:
    """Process ids of all who live in one of these namespaces, ascending, the asking process not among them."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return tuple(
        sorted(pid for pid in pids if pid != os.getpid() and namespaces.identity_of_process(pid) in identities)
    )


def end(identities: Collection[Identity], grace_s: float = GRACE_S) -> None:
    """End all who live in one of these namespaces: SIGTERM, `grace_s` seconds of patience, SIGKILL.

    The machine's own namespace (that of process 1; where that is hidden, that of this process) is left out whatever is
    asked.

    Raises:
        StartError: a process outlives SIGKILL.
    """
    machine = namespaces.identity_of_process(1) or namespaces.identity_of_process(os.getpid())
    doomed = frozenset(identities) - {machine}
    if not doomed or _end_with(signal.SIGTERM, doomed, grace_s) or _end_with(signal.SIGKILL, doomed, _LAST_WAIT_S):
        return
    raise StartError(f"these processes do not end: {' '.join(map(str, find(doomed)))}")


def _end_with(number: signal.Signals, identities: Collection[Identity], limit_s: float) -> bool:
    """Signal every resident once, also those born meanwhile, until none is left (True) or time is up (False)."""
    deadline = time.monotonic() + limit_s
    signalled: dict[int, int] = {}
    with ExitStack() as open_descriptors:
        while pids := find(identities):
            for pid in pids:
                if pid not in signalled and (descriptor := _signal(pid, number, identities)) is not None:
                    open_descriptors.callback(os.close, descriptor)
                    signalled[pid] = descriptor
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            _wait_for_any([signalled[pid] for pid in pids if pid in signalled], min(left_s, 0.1))
    return True


def _signal(pid: int, number: signal.Signals, identities: Collection[Identity]) -> int | None:
    """Signal through a descriptor, asked again who it is: the id may have been given to another process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if namespaces.identity_of_process(pid) in identities:
            signal.pidfd_send_signal(descriptor, number)
            return descriptor
    except ProcessLookupError:
        pass
    os.close(descriptor)
    return None


def _wait_for_any(descriptors: Collection[int], limit_s: float) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(limit_s * 1000)
