"""For how long the kernel ran the programs that processes have loaded. bpf(2), BPF_ENABLE_STATS; proc_pid_fdinfo(5).

Must not know whose processes they are. A program runs in whatever process happens to send or receive a packet, or in
none, so its time is not, or not only, in the processor time of the one that loaded it. What the kernel does with a
packet behind the program, as to send it on, is in neither.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tcpha.errors import EdgeError, StartError
from tcpha.net.bpf_syscall import Command, call

_PROC = Path("/proc")
_NS_PER_S = 1e9
_RUN_TIME = struct.pack("=I", 0)
_NUMBER = re.compile(r"^(prog_id|run_time_ns):\s*(\d+)$", re.M)


@contextmanager
def counted() -> Iterator[None]:
    """Let the kernel count meanwhile, of all programs; whatever ends this process ends that, too.

    Raises:
        StartError: the kernel does not let us.
    """
    try:
        descriptor = call(Command.ENABLE_STATS, _RUN_TIME, "run time of programs")
    except EdgeError as error:
        raise StartError(str(error)) from error
    try:
        yield
    finally:
        os.close(descriptor)


def run_time_s(pids: Collection[int]) -> float:
    """Seconds for which programs ran that these processes hold now, each once; processes that are gone hold none."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            for entry in (_PROC / str(pid) / "fdinfo").iterdir():
                with suppress(OSError):
                    told = {name: int(value) for name, value in _NUMBER.findall(entry.read_text())}
                    if len(told) == 2:
                        found[told["prog_id"]] = told["run_time_ns"]
    return sum(found.values()) / _NS_PER_S
