"""Labs for the tests that need real kernels: every one has a name of its own and is taken down, whatever happens."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tcpha.lab import namespaces
from tcpha.lab.addressing import MTU_OCTETS
from tcpha.lab.blueprint import NGINX
from tcpha.lab.cluster import Lab, obstacle
from tcpha.lab.configuration import Settings
from tcpha.net import bpf_adopter
from tests.cluster import choosy_rules, engine_sight, host_state
from tests.cluster.conversation import FAMILIES, Family
from tests.cluster.engines import cables_of, with_engines

_numbers = itertools.count(1)
_with_engine: list[Lab] = []
"""Labs that stand, and whose engine runs or ran."""


class MakeLab(Protocol):
    """Brings up a lab of another configuration; parameters as of `Lab.up`."""

    def __call__(
        self,
        *,
        backends: int = 2,
        server: str | None = NGINX,
        engine: bool = True,
        settings: Settings | None = None,
        fe_conf: Path | None = None,
        be_conf: Path | None = None,
        routed: bool = False,
    ) -> Lab: ...


def unique_name() -> str:
    return f"t{os.getpid()}n{next(_numbers)}"


@pytest.fixture(scope="session")
def _machine() -> None:
    if reason := obstacle():
        pytest.skip(f"no lab can stand here: {reason}")


@pytest.fixture
def lab_name(_machine: None) -> Iterator[str]:
    """The name of a lab that the test itself brings up, by the command or otherwise."""
    name = unique_name()
    yield name
    Lab(name).down()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Both families in turn."""
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="session")
def lab(_machine: None) -> Iterator[Lab]:
    """A standing lab as `up` makes it: two back ends, nginx, the engine."""
    with engine_lab() as standing:
        yield standing


@pytest.fixture(scope="session")
def _protocols(_machine: None) -> None:
    if reason := obstacle(needs_protocols=True):
        pytest.skip(f"no lab can speak all protocols here: {reason}")


@pytest.fixture(scope="session")
def protocol_lab(_protocols: None) -> Iterator[Lab]:
    """A standing lab as `up --protocols` makes it: two back ends, nginx with TLS and HTTP/2, Redis, the engine."""
    with engine_lab(protocols=True) as standing:
        yield standing


@pytest.fixture(scope="session")
def choosy_lab(_protocols: None) -> Iterator[Lab]:
    """A standing lab with three back ends, all protocols, and rules that look at everything (`choosy_rules`)."""
    with engine_lab(choosy_rules.SETTINGS, backends=3, protocols=True) as standing:
        yield standing


@pytest.fixture(scope="session")
def plain_lab(_machine: None) -> Iterator[Lab]:
    """A standing lab without the engine: only the network and the servers."""
    with Lab(unique_name()) as standing:
        standing.up(engine=False, cables=cables_of())
        yield standing


@pytest.fixture(scope="session")
def _adopting(_machine: None) -> None:
    """Skip where the kernel of this host cannot adopt connections."""
    if reason := bpf_adopter.obstacle():
        pytest.skip(f"no kernel fast path here: {reason}")


@pytest.fixture
def make_lab(_machine: None) -> Iterator[MakeLab]:
    """Labs of other configurations, down after the test."""
    with ExitStack() as standing:

        def make(
            *,
            backends: int = 2,
            server: str | None = NGINX,
            engine: bool = True,
            settings: Settings | None = None,
            fe_conf: Path | None = None,
            be_conf: Path | None = None,
            routed: bool = False,
        ) -> Lab:
            lab = standing.enter_context(Lab(unique_name()))
            lab.up(
                backends=backends,
                server=server,
                engine=engine,
                settings=with_engines(settings),
                fe_conf=fe_conf,
                be_conf=be_conf,
                routed=routed,
                cables=cables_of(routed),
            )
            return lab

        yield make


@contextmanager
def engine_lab(
    settings: Settings | None = None,
    *,
    backends: int = 2,
    server: str | None = NGINX,
    engine: bool = True,
    routed: bool = False,
    client_mtu_octets: int = MTU_OCTETS,
    backend_mtu_octets: int = MTU_OCTETS,
    protocols: bool = False,
) -> Iterator[Lab]:
    """A lab for the tests of a file. At its end no engine may have counted a fault."""
    with Lab(unique_name()) as standing:
        standing.up(
            backends=backends,
            settings=with_engines(settings),
            server=server,
            engine=engine,
            routed=routed,
            client_mtu_octets=client_mtu_octets,
            backend_mtu_octets=backend_mtu_octets,
            protocols=protocols,
            cables=cables_of(routed),
        )
        _with_engine.append(standing)
        try:
            yield standing
            assert engine_sight.faults(standing) == []
        finally:
            _with_engine.remove(standing)


@pytest.fixture(scope="module", autouse=True)
def _faultless() -> Iterator[None]:
    """After every file: no engine of a standing lab has counted a fault or logged an error."""
    yield
    found = [f"{standing.name}: {fault}" for standing in _with_engine for fault in engine_sight.faults(standing)]
    assert found == []


@pytest.fixture(scope="session", autouse=True)
def _machine_as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the tests did: the machine's own network is afterwards as before, and no namespace of ours is left."""
    if obstacle():
        yield
        return
    before = host_state.of_machine()
    yield
    assert host_state.of_machine() == before
    assert [name for name in namespaces.names() if name.startswith(f"t{os.getpid()}n")] == []
