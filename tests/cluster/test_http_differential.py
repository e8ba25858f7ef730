"""tcpha and nginx read the same hostile octets: what both accept has one host, one path and one end for both.

A rule that sees another host or path than the server would send the request to the wrong one; content that the other
takes for a request would be one that no rule has seen. Either may refuse what the other accepts: that is only counted.
`TCPHA_LONG=1` reads many times more; `-s` shows what was refused by one alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tcpha.lab import nginx
from tcpha.lab.cluster import Lab
from tcpha.lab.node import Node
from tcpha.lab.waiting import wait_until
from tcpha.proto.inspect import Inspection, Request, http1
from tests.cluster.hostile_requests import AFTER, CHUNKED, CHUNKS, HOST, INNER, POST, generated, head, length, tricks
from tests.cluster.http_readings import CONFIGURATION, SERVED, Inspect, Line, Ours, contradiction, lines, ours

pytestmark = pytest.mark.cluster

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
NUMBER = 200_000 if AT_LENGTH else 20_000
SEED = 20_040_101
PORT = 8000
AT_ONCE = 100
LIMIT_S = 20.0
TRICKS = tricks()


class Server:
    """An nginx that tells what it understood."""

    def __init__(self, node: Node, directory: Path) -> None:
        self._node = node
        self._log = (directory / "access.log").open("rb")

    def read(self, connections: list[bytes]) -> list[list[Line]]:
        """Send each on a connection of its own and close behind it; what the log says of each, in order."""
        with contextlib.ExitStack() as open_sockets, self._node.enter():
            peers = [open_sockets.enter_context(self._send(octets)) for octets in connections]
            ports = [peer.getsockname()[1] for peer in peers]
            for peer in peers:
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(65536):
                        pass
        found: dict[int, list[Line]] = defaultdict(list)
        for line in lines(self._log.read().decode("latin-1")):
            found[line.port].append(line)
        assert found.keys() <= set(ports), "the log tells of a connection that is not one of these"
        return [found[port] for port in ports]

    @staticmethod
    def _send(octets: bytes) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", PORT), LIMIT_S)
        with contextlib.suppress(OSError):  # nginx has refused and closed before all was sent
            peer.sendall(octets)
            peer.shutdown(socket.SHUT_WR)
        return peer


@pytest.fixture(scope="module")
def server(plain_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("nginx")
    (directory / "access.log").touch()
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=PORT))
    program = nginx.find_program()
    assert program is not None
    node = plain_lab.client
    process = node.popen(nginx.command(program, directory, configuration), stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: _listens(node), LIMIT_S), (directory / "error.log").read_text()
        yield Server(node, directory)
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _listens(node: Node) -> bool:
    with node.enter(), contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", PORT)):
        return True
    return False


class Comparison:
    """Counts who accepts what, and keeps what is understood in two ways."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.contradictions: list[tuple[bytes, str]] = []

    @property
    def by_both(self) -> int:
        return self.verdicts["accepted by both"]

    def add(self, octets: bytes, ours: Ours, nginx: list[Line]) -> None:
        we, it = bool(ours.requests), bool(nginx) and nginx[0].status == SERVED
        if we and it:
            self.verdicts["accepted by both"] += 1
        elif we:
            status = nginx[0].status if nginx else "silence"
            self.verdicts[f"refused by nginx alone: {status}"] += 1
        elif it:
            self.verdicts[f"refused by tcpha alone: {ours.reason or 'waits for more'}"] += 1
        else:
            self.verdicts["refused by both"] += 1
        if (found := contradiction(ours, nginx)) is not None:
            self.contradictions.append((octets, found))


def compare(server: Server, connections: Iterable[bytes], inspect: Inspect = http1.inspect) -> Comparison:
    comparison = Comparison()
    left = iter(connections)
    while some := list(islice(left, AT_ONCE)):
        for octets, told in zip(some, server.read(some), strict=True):
            comparison.add(octets, ours(octets, inspect), told)
    return comparison


def show(comparison: Comparison) -> None:
    print()
    for verdict, number in comparison.verdicts.most_common():
        print(f"{number:8} {verdict}")


def test_known_tricks_read_by_both_are_understood_alike(server: Server) -> None:
    comparison = compare(server, TRICKS.values())
    show(comparison)
    names = {octets: name for name, octets in TRICKS.items()}
    assert [(names[octets], found) for octets, found in comparison.contradictions] == []
    assert comparison.by_both > len(TRICKS) / 4, "too few tell anything"


@pytest.mark.long
def test_generated_requests_read_by_both_are_understood_alike(server: Server) -> None:
    comparison = compare(server, generated(SEED, NUMBER))
    show(comparison)
    assert comparison.contradictions[:20] == []
    assert comparison.by_both > NUMBER / 4, "too few tell anything"


# --- a reader that is wrong is found out


def _reads_another_field(octets: bytes) -> Inspection:
    """Another field stands above target and Host."""
    found = http1.inspect(octets)
    if isinstance(found, Request):
        authority = found.header(b"x-host") or found.authority
        return Request(
            found.protocol, found.method, found.target, authority, found.headers, found.head_octets, found.octets
        )
    return found


def _knows_no_field(name: bytes) -> Inspect:
    """A reader for which a field does not exist."""

    def inspect(octets: bytes) -> Inspection:
        found = http1.inspect(octets)
        if isinstance(found, Request):
            left = tuple(field for field in found.headers if field[0] != name)
            return Request(
                found.protocol, found.method, found.target, found.authority, left, found.head_octets, found.octets
            )
        return found

    return inspect


def _ends_later(by_octets: int) -> Inspect:
    """A reader for which the content of POST ends so much later, or earlier."""

    def inspect(octets: bytes) -> Inspection:
        found = http1.inspect(octets)
        if isinstance(found, Request) and found.method == b"POST":
            found.head_octets += by_octets
        return found

    return inspect


@pytest.mark.parametrize(
    ("inspect", "octets", "found"),
    [
        (_reads_another_field, head(b"GET / HTTP/1.1", HOST, b"X-Host: b.example"), "host: b'b.example'"),
        (
            _knows_no_field(b"content-length"),
            head(POST, HOST, length(len(INNER))) + INNER,
            "length: b'', but nginx b'44'",
        ),
        (_knows_no_field(b"transfer-encoding"), head(POST, HOST, CHUNKED) + CHUNKS, "length: b'', but nginx b'0'"),
        (_ends_later(len(AFTER)), head(POST, HOST), "request 2 is seen by nginx alone"),
        (_ends_later(-len(INNER)), head(POST, HOST, length(len(INNER))) + INNER, "request 2: host: b'inner.example'"),
        (_ends_later(4), head(POST, HOST) + b"junk", "request 2 is what nobody refuses, but nginx"),
        (_ends_later(-len(AFTER)), head(POST, HOST, length(len(AFTER))) + AFTER, "request 3 is not seen by nginx"),
    ],
    ids=["host", "no length", "no coding", "later", "content is a request", "later than junk", "one more"],
)
def test_wrong_reader_is_found_out(server: Server, inspect: Inspect, octets: bytes, found: str) -> None:
    assert compare(server, [octets + AFTER]).contradictions == []
    ((_, contradicted),) = compare(server, [octets + AFTER], inspect).contradictions
    assert found in contradicted


NORMALISED = [b"//admin", b"/./admin", b"/x/../admin", b"/%61dmin", b"/x/%2e%2e/admin", b"/x%2f..%2fadmin"]
"""The table in docs/protocols.md."""


def test_paths_that_servers_normalise_are_the_documented_ones(server: Server) -> None:
    connections = [head(b"GET " + path + b" HTTP/1.1", HOST) for path in NORMALISED]
    document = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    for path, octets, told in zip(NORMALISED, connections, server.read(connections), strict=True):
        found = http1.inspect(octets)
        assert isinstance(found, Request)
        assert (found.path, told[0].understood.path) == (path, b"/admin")
        assert f"| `{path.decode()}` | `{path.decode()}` | `/admin` |" in document
