"""The demo: a lab is brought up, a client asks through it, one connection is drawn, everything is taken down.

Run as `python -m tcpha.lab.demo`, as root. Exit status: 0 everything was as the rules say, 1 something was not or a
program of the lab ended, 2 a lab cannot stand here, 128 + n if signal n interrupted.

Must not know how the two programs work: what it says comes from the client (curl), the servers' access logs and
captures. What it expects stands in `RULES` and `REQUESTS`, not in the code that chooses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tcpha.errors import TcphaError
from tcpha.lab import addressing, ladder
from tcpha.lab.capture import capturing
from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import HANDOFF_PORT, SERVER_PORT, Settings
from tcpha.lab.daemon import DaemonError
from tcpha.lab.interruption import Interrupted, raise_on_signals
from tcpha.lab.ladder import Capture, Connection
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until

WIDTH: Final = 100
RULES: Final = (("jpg$", "be2"), (".*", "be1"))
"""Pattern and back end, the first match wins: the example in the README of TCPHA-0.3."""

_REQUEST_LIMIT_S = 10
_LOG_LIMIT_S = 2.0
_END_LIMIT_S = 2.0
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, and who should answer by `RULES`."""

    path: str
    backend: str
    over_ipv6: bool = False


REQUESTS: Final = (
    Request("/1k.html", "be1"),
    Request("/1k.jpg", "be2"),
    Request("/client", "be1"),
    Request("/100k.jpg", "be2"),
    Request("/1m.html", "be1"),
    Request("/1k.jpg", "be2", over_ipv6=True),
)
DRAWN: Final = Request("/1k.jpg", "be2")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request. Strings are empty where nothing was learned."""

    url: str
    status: str
    answered_by: str
    """The header Server-Node of the response."""
    client_seen: str
    """The client's address in the access log of that node."""
    octets: int
    time_ms: float
    client_port: int
    faults: tuple[str, ...]


def main() -> int:
    """Run the demo; its exit status."""
    lab = Lab(f"demo-{os.getpid()}")
    raise_on_signals()
    try:
        with lab:
            faults = _shown(lab)
    except Interrupted as interruption:
        if lab.is_claimed:  # it came while the lab was being taken down
            lab.down()
        print("\nInterrupted; everything is taken down.", file=sys.stderr)
        return 128 + interruption.number
    except TcphaError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1 if isinstance(error, DaemonError) else 2
    say(_heading("Result"), *_verdict(faults))
    return 1 if faults else 0


def _shown(lab: Lab) -> list[str]:
    """Bring the lab up and show everything; what was not as it should be."""
    say(_coloured("A cluster on this machine", "1"))
    lab.up(settings=settings())
    say(*_cast(lab))
    faults = [*_ask_all(lab), *_draw_one(lab)]
    if faults:
        say(_heading("The end of the logs"), *_log_tails(lab))
    return faults


def say(*lines: str) -> None:
    """Print lines at once: whoever waits for the next step sees the last one."""
    print(*lines, sep="\n", flush=True)


# --- the cluster ------------------------------------------------------------------------------------------------------


def settings() -> Settings:
    """The rules of `RULES`; Python carries every packet, so that all steps can be seen."""
    address = {place.node: place.ipv4 for place in addressing.plan(2).backends}
    rules = (f"rule = {address[backend]} {pattern}" for pattern, backend in RULES)
    return Settings(both=(*rules, "accelerate = off"))


def _cast(lab: Lab) -> Iterator[str]:
    roles = [(lab.client, "curl"), (lab.fe, "tcpha.fe")]
    roles += [(node, "tcpha.be beside nginx") for node in lab.backends]
    for node, runs in roles:
        yield f"  {node.name:<8}{node.ipv4!s:<15}{node.ipv6!s:<20}{runs}"
    yield f"  {'VIP':<8}{lab.vip4!s:<15}{lab.vip6!s:<20}held by fe, and silently by be1 and be2"
    yield f"  {'rules':<8}{', '.join(f'{pattern} to {backend}' for pattern, backend in RULES)}; the first match wins"
    yield f"  {'packets':<8}carried by Python (accelerate = off), so that each step is seen, on every host alike"


def _log_tails(lab: Lab) -> Iterator[str]:
    for node in (lab.fe, *lab.backends):
        yield f"  {node.name}:"
        tail = lab.log(node).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        yield from (f"    {line}" for line in tail or ["(nothing)"])


# --- requests ---------------------------------------------------------------------------------------------------------


def _ask_all(lab: Lab) -> list[str]:
    """Ask for everything, one row as soon as each answer is there; what was not as it should be."""
    say(_heading("Requests"), _table_head())
    faults: list[str] = []
    for request in REQUESTS:
        outcome = ask(lab, request)
        say(_table_row(request, outcome))
        faults.extend(f"{outcome.url}: {fault}" for fault in outcome.faults)
    return faults


def ask(lab: Lab, request: Request) -> Outcome:
    """One request from the client, on a connection of its own."""
    host = f"[{lab.vip6}]" if request.over_ipv6 else str(lab.vip4)
    url = f"http://{host}{request.path}"
    body = lab.client.directory / "body"
    body.unlink(missing_ok=True)
    learned = "%{http_code} %{size_download} %{time_total} %{local_port} %header{server-node}"
    # -q: whatever the user's own settings are, and whatever proxy.
    curl = ["curl", "-q", "-gsS", "--noproxy", "*", "-m", str(_REQUEST_LIMIT_S), "-o", str(body), "-w", learned, url]
    finished = lab.client.run(curl)
    said = [*finished.stdout.split(), *[""] * 5]
    port = int(said[3] or 0)
    seen = _client_seen(lab, said[4], port)
    address = str(lab.client.ipv6 if request.over_ipv6 else lab.client.ipv4)
    faults = []
    if finished.returncode != 0:
        faults.append(finished.stderr.strip() or f"curl ended with status {finished.returncode}")
    else:
        octets = body.read_bytes() if body.exists() else b""
        faults.extend(judged(request, said[0], said[4], seen, address))
        if octets != _content(lab, request.path, address):
            faults.append("the octets are not those of the document")
    return Outcome(url, said[0], said[4], seen, int(said[1] or 0), float(said[2] or 0) * 1000, port, tuple(faults))


def judged(request: Request, status: str, answered_by: str, client_seen: str, client: str) -> Iterator[str]:
    """What of an answer is not as it should be."""
    if status != "200":
        yield f"the status is {status}, not 200"
    if answered_by != request.backend:
        yield f"{answered_by or 'nobody known'} answered, the rules say {request.backend}"
    if client_seen != client:
        yield f"the server saw {client_seen or 'nobody'}, the client is {client}"


def _content(lab: Lab, path: str, client: str) -> bytes:
    return client.encode() if path == "/client" else (lab.documents / path.removeprefix("/")).read_bytes()


def _client_seen(lab: Lab, backend: str, port: int) -> str:
    """The peer's address in the line about that client port; nginx writes it after the response."""
    node = next((node for node in lab.backends if node.name == backend), None)
    found: list[str] = []

    def is_written() -> bool:
        found[:] = [] if node is None else _peers_logged(node, port)
        return bool(found)

    if node is not None:
        wait_until(is_written, _LOG_LIMIT_S)
    return found[-1] if found else ""


def _peers_logged(node: Node, port: int) -> list[str]:
    fields = (line.split(" ", 2) for line in node.access_log.read_text().splitlines())
    return [peer for peer, peer_port, _ in fields if peer_port == str(port)]


# --- one connection ---------------------------------------------------------------------------------------------------


def _draw_one(lab: Lab) -> list[str]:
    """Capture a connection at every node and draw it; what was not as it should be."""
    say(_heading(f"One connection: GET {DRAWN.path}, as every node sent it"))
    nodes = (lab.client, lab.fe, *lab.backends)
    with capturing(nodes, f"tcp port {SERVER_PORT} or udp port {HANDOFF_PORT}") as captures:
        outcome = ask(lab, DRAWN)
        connection = Connection(lab.client.ipv4, outcome.client_port, lab.vip4, SERVER_PORT)
        _await_end(captures, connection)
    try:
        say(ladder.draw(captures, connection, width=WIDTH))
    except ValueError as error:
        return [f"{outcome.url}: {error}", *(f"{outcome.url}: {fault}" for fault in outcome.faults)]
    sent = response_octets(captures, connection)
    parts = ", ".join(f"{octets} by {node}" for node, octets in sent.items())
    say("", f"Octets of the response, head and body: {parts or 'none'}; by the front end: {sent.get('fe', 0)}.")
    faults = list(outcome.faults)
    if set(sent) != {DRAWN.backend}:
        faults.append(f"the response came from {' and '.join(sent) or 'nobody'}, not straight from {DRAWN.backend}")
    return [f"{outcome.url}: {fault}" for fault in faults]


def response_octets(captures: Sequence[Capture], connection: Connection) -> dict[str, int]:
    """How many octets of the response each node put on the segment, itself or passing them on."""
    sent: dict[str, int] = {}
    for frame in ladder.segments_of(ladder.read_frames(captures), connection):
        octets = len(ladder.payload_of(frame))
        if octets and not ladder.is_from_client(frame, connection):
            sent[frame.sender] = sent.get(frame.sender, 0) + octets
    return sent


def _await_end(captures: Sequence[Capture], connection: Connection) -> None:
    """Wait until both sides have sent FIN and nothing follows any more; what does not end is drawn, too."""
    counted = [-1]

    def has_ended() -> bool:
        frames = ladder.segments_of(ladder.read_frames(captures), connection)
        before, counted[0] = counted[0], len(frames)
        sides = {ladder.is_from_client(frame, connection) for frame in frames if ladder.carries_fin(frame)}
        return len(sides) == 2 and before == len(frames)

    wait_until(has_ended, _END_LIMIT_S, interval_s=0.1)


# --- paper ------------------------------------------------------------------------------------------------------------


def _heading(text: str) -> str:
    return f"\n{_coloured(text, '1')}"


def _table_head() -> str:
    return _cells("request", "answered by", "rules say", "client seen as", "octets", "ms", "")


def _table_row(request: Request, outcome: Outcome) -> str:
    judgement = _coloured("NO", "31;1") if outcome.faults else _coloured("ok", "32")
    return _cells(
        outcome.url,
        outcome.answered_by or "-",
        request.backend,
        outcome.client_seen or "-",
        str(outcome.octets),
        f"{outcome.time_ms:.1f}",
        judgement,
    )


def _cells(url: str, answered_by: str, rules_say: str, seen: str, octets: str, ms: str, judgement: str) -> str:
    return f"  {url:<35}{answered_by:<13}{rules_say:<11}{seen:<17}{octets:>8}{ms:>8}  {judgement}".rstrip()


def _verdict(faults: Sequence[str]) -> Iterator[str]:
    if faults:
        yield _coloured("Not as it should be:", "31;1")
        yield from (f"  {fault}" for fault in faults)
    else:
        yield "Every request went where the rules say, every server saw the client's address, and the response of the"
        yield "connection above never passed the front end. The cluster is taken down again."


def _coloured(text: str, code: str) -> str:
    """Colour for a person at a terminal who did not ask for none (NO_COLOR), plain text for everybody else."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


if __name__ == "__main__":
    sys.exit(main())
