"""One node of a lab: its addresses, its namespace, what runs in it. setns(2).

Must not know the other nodes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import IO, Literal, overload

from tcpha.errors import StartError
from tcpha.lab import namespaces
from tcpha.lab.daemon import Daemon

Stream = int | IO[bytes] | None
"""As `subprocess.Popen` takes them: None is the stream of this process."""

_RUN_LIMIT_S = 60.0


class Node:
    """A node that stands; `ipv4` and `ipv6` are None for the switch, which has none, and the router, which has many."""

    def __init__(
        self, name: str, namespace: str, directory: Path, ipv4: IPv4Address | None, ipv6: IPv6Address | None
    ) -> None:
        self.name = name
        self.namespace = namespace
        """Name of its network namespace, in /run/netns."""
        self.directory = directory
        """Its configuration, logs and state."""
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self.daemons: dict[str, Daemon] = {}
        """By what they are here: `engine`, `server`, `sink`."""

    def __repr__(self) -> str:
        return f"Node({self.namespace})"

    @property
    def ipv4(self) -> IPv4Address:
        """Its own IPv4 address. Raises StartError for the switch and the router."""
        if self._ipv4 is None:
            raise StartError(f"{self.name} has no address of its own")
        return self._ipv4

    @property
    def ipv6(self) -> IPv6Address:
        """Its own IPv6 address. Raises StartError for the switch and the router."""
        if self._ipv6 is None:
            raise StartError(f"{self.name} has no address of its own")
        return self._ipv6

    @property
    def engine(self) -> Daemon:
        """Its tcpha.fe or tcpha.be, running or not. Raises StartError on a node that has none."""
        return self._daemon("engine")

    @property
    def server(self) -> Daemon:
        """Its server, running or not. Raises StartError on a node that has none."""
        return self._daemon("server")

    @property
    def sink(self) -> Daemon:
        """The program behind nginx's /sink, running or not. Raises StartError on a node that has none."""
        return self._daemon("sink")

    @property
    def access_log(self) -> Path:
        """Where its nginx writes one line a request: peer address, peer port, seconds, status, octets, request line."""
        return self.directory / "access.log"

    def enter(self) -> AbstractContextManager[None]:
        """Run the calling thread, and no other, inside the node: sockets opened meanwhile are the node's for good."""
        return namespaces.inside(self.namespace)

    def popen(
        self,
        arguments: Sequence[str | Path],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the node; it is the caller's to wait for, though `Lab.down` would end it.

        Raises:
            OSError: the program cannot be run.
        """
        with self.enter():
            return subprocess.Popen(arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=environment)

    @overload
    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        text: Literal[True] = True,
        input: bytes = b"",
        limit_s: float = _RUN_LIMIT_S,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]: ...
    @overload
    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        text: Literal[False],
        input: bytes = b"",
        limit_s: float = _RUN_LIMIT_S,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]: ...
    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        text: bool = True,
        input: bytes = b"",  # noqa: A002 - the name subprocess.run has for it
        limit_s: float = _RUN_LIMIT_S,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str] | subprocess.CompletedProcess[bytes]:
        """Run a program in the node to its end; what it wrote is in the result, as text (UTF-8) or as octets.

        Raises:
            OSError: the program cannot be run.
            subprocess.TimeoutExpired: it ran longer than `limit_s` seconds and was killed.
            subprocess.CalledProcessError: `check` is set and its exit status is not 0.
        """
        pipe = subprocess.PIPE
        with self.popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, environment=environment) as child:
            try:
                stdout, stderr = child.communicate(input, limit_s)
            except BaseException:
                child.kill()
                raise
        octets = subprocess.CompletedProcess(list(arguments), child.returncode, stdout, stderr)
        if check:
            octets.check_returncode()
        if not text:
            return octets
        return subprocess.CompletedProcess(
            octets.args, octets.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
        )

    def _daemon(self, name: str) -> Daemon:
        try:
            return self.daemons[name]
        except KeyError:
            raise StartError(f"{self.name} has no {name} in this lab") from None
