"""Namespaces for the tests of the kernel's programs, with names of their own; skipped where the kernel cannot."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.lab import namespaces
from tcpha.lab.nginx import find_program
from tcpha.net.bpf_adopter import PROGRAMS
from tcpha.net.bpf_forwarder import PROGRAMS as FRONT_END_PROGRAMS
from tcpha.net.bpf_object import load
from tests.kernel.fe_rehearsal import Stage, stage
from tests.kernel.rehearsal import ASSIGN, Rehearsal, rehearsal
from tests.kernel.two_hosts import Hosts, two_hosts

_numbers = itertools.count(1)
NO_SUCH_OPTIONS = -22


def unique_name() -> str:
    return f"k{os.getpid()}n{next(_numbers)}"


@pytest.fixture(scope="session")
def bpf() -> None:
    """The kernel loads programs, be they of use there or not."""
    if reason := namespaces.fault():
        pytest.skip(reason)
    try:
        load(PROGRAMS, results={ASSIGN: 0}).close()
    except EdgeError as error:
        pytest.skip(f"this kernel takes none of the programs: {error}")


@pytest.fixture(scope="session")
def adopting(bpf: None) -> None:
    """The kernel makes sockets of other hosts' handshakes, and there is a server."""
    try:
        load(PROGRAMS).close()
    except EdgeError as error:
        pytest.skip(f"this kernel adopts nothing: {error}")
    if find_program() is None:
        pytest.skip("no nginx")


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def _standing(bpf: None, request: pytest.FixtureRequest) -> Iterator[Rehearsal]:
    with rehearsal(unique_name(), request.param) as standing:
        yield standing


@pytest.fixture
def programs(_standing: Rehearsal) -> Rehearsal:
    """The programs of which the kernel takes everything; nothing has run yet."""
    _standing.begin()
    return _standing


@pytest.fixture
def refusing(bpf: None) -> Iterator[Rehearsal]:
    """The programs of which the kernel takes nothing."""
    with rehearsal(unique_name(), 4, NO_SUCH_OPTIONS) as standing:
        yield standing


@pytest.fixture
def hosts(adopting: None) -> Iterator[Hosts]:
    """A client with front end, and a back end, on one cable."""
    with two_hosts(unique_name()) as standing:
        yield standing


@pytest.fixture
def bpffs(bpf: None, tmp_path: Path) -> Iterator[Path]:
    """A bpf file system of the test's own."""
    place = tmp_path / "bpf"
    place.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def fe_bpf() -> None:
    """The kernel loads the front end's program."""
    if reason := namespaces.fault():
        pytest.skip(reason)
    try:
        load(FRONT_END_PROGRAMS).close()
    except EdgeError as error:
        pytest.skip(f"this kernel does not take the front end's program: {error}")


@pytest.fixture(scope="module")
def fe_stage(fe_bpf: None) -> Iterator[Stage]:
    """The front end's program in a namespace, to be rehearsed there."""
    with stage(unique_name()) as standing:
        yield standing
