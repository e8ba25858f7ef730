"""What the tests see of a lab's impairments from outside: what their programs counted, and the programs themselves."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tcpha.errors import StartError
from tcpha.lab.cluster import Lab
from tcpha.lab.impairment import Impairment
from tcpha.lab.impairments import ImpairedWay
from tcpha.lab.waiting import wait_until


def require_impairments(lab: Lab) -> None:
    """Skip the test where the kernel cannot bring packets of a bridge to rules; to try it loads what can be loaded."""
    try:
        lab.impair("client", Impairment(), means="queue").end()
    except StartError as error:
        if Path("/proc/sys/net/bridge").exists():
            raise
        pytest.skip(f"packets cannot be impaired here: {error}")


def final_counters(way: ImpairedWay) -> dict[str, Any]:
    """What the program of an impairment that was taken away has counted; it was never too slow, and sent every copy."""
    shown: dict[str, Any] = json.loads(re.findall(r"counters (\{.*\})\n", way.log.read_text())[-1])
    assert (shown["unasked"], shown["send_errors"], shown["overflowed"], shown["held"]) == (0, {}, 0, 0), shown
    return shown


def pid_of(way: ImpairedWay) -> int:
    return int(way.log.with_suffix(".pid").read_text())


def kill(way: ImpairedWay) -> None:
    """As a crash would."""
    os.kill(pid_of(way), signal.SIGKILL)
    assert wait_until(lambda: not way.is_in_effect, 5.0)
