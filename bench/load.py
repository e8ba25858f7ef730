"""Load by wrk: how it is run in the client's node, and what it says at the end.

Must not know who is measured. wrk counts answers and does not look into them: whoever uses it lets the checking client
ask beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.checking_client import Target
from tcpha.errors import TcphaError
from tcpha.lab.node import Node

TIMEOUT_S = 5
_GRACE_S = 30.0
_MARK = "bench "
_DONE = """\
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'bench {"seconds":%.6f,"requests":%d,"octets":%d,"failed":%d,"refused":%d,' ..
        '"p50_ms":%.3f,"p90_ms":%.3f,"p99_ms":%.3f}\\n',
        summary.duration / 1e6, summary.requests, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status,
        latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3))
end
"""
_PAGES = """\
local number = 0
setup = function(thread)
    thread:set("number", number)
    number = number + 1
end
local pages = {
%s}
local texts, position = {}, 0
init = function(arguments)
    local first = math.floor(number * #pages / %d)
    for index = 0, #pages - 1 do
        local page = pages[(first + index) %% #pages + 1]
        for order, document in ipairs(page) do
            local connection = order == #page and "close" or "keep-alive"
            texts[#texts + 1] = wrk.format("GET", "%s/" .. document, {["Connection"] = connection})
        end
    end
end
request = function()
    position = position %% #texts + 1
    return texts[position]
end
"""


class LoadError(TcphaError):
    """wrk did not run to its end."""


@dataclass(frozen=True, slots=True)
class WrkReport:
    """What wrk counted."""

    seconds: float
    requests: int
    """Answers, whatever they were."""
    octets: int
    """Received, heads included."""
    failed: int
    """Connections, and requests without an answer."""
    refused: int
    """Answers with a status above 399."""
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def latencies_ms(self) -> dict[str, float]:
        """From request to the end of the answer; the time to connect is not in it."""
        return {"p50_ms": self.p50_ms, "p90_ms": self.p90_ms, "p99_ms": self.p99_ms}


def script_for_one_document() -> str:
    """Text of the script that only reports."""
    return _DONE


def script_for_pages(pages: Sequence[Sequence[int]], directory: str, threads: int) -> str:
    """Text of the script that asks for pages in order, each on a connection of its own.

    Each of wrk's `threads` threads begins at another page and takes its connections in turn: with several of them to a
    thread, pages must have one document each. Documents are named by number, below the path `directory`.
    """
    lines = "".join(f"    {{{', '.join(map(str, page))}}},\n" for page in pages)
    return _PAGES % (lines, threads, directory) + _DONE


def read_report(text: str) -> WrkReport:
    """What a script's line says.

    Raises:
        LoadError: there is none.
    """
    for line in text.splitlines():
        if line.startswith(_MARK):
            return WrkReport(**json.loads(line.removeprefix(_MARK)))
    raise LoadError(f"wrk said nothing that can be read: {text!r}")


def run_wrk(
    client: Node,
    target: Target,
    path: str,
    script: Path,
    *,
    connections: int,
    threads: int = 1,
    closes: bool = False,
    seconds: int,
) -> WrkReport:
    """Run wrk in the client's node.

    Raises:
        LoadError: it is not installed, failed, or did not end.
    """
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk is not installed")
    amount = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_S}s"]
    header = ["-H", "Connection: close"] if closes else []
    url = f"http://{target.address}:{target.port}{path}"
    try:
        done = client.run([program, *amount, *header, "-s", str(script), url], limit_s=seconds + _GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end within {_GRACE_S:g} s behind its {seconds} s") from error
    if done.returncode != 0:
        raise LoadError(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return read_report(done.stdout)
