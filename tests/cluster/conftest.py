"""Labs for the tests that need real kernels: every one has a name of its own and is taken down, whatever happens."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tcpha.lab.blueprint import NGINX
from tcpha.lab.cluster import Lab, obstacle
from tcpha.lab.configuration import Settings

_numbers = itertools.count(1)


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


@pytest.fixture(scope="session")
def lab(_machine: None) -> Iterator[Lab]:
    """A standing lab as `up` makes it: two back ends, nginx, the engine."""
    with Lab(unique_name()) as standing:
        standing.up()
        yield standing


@pytest.fixture(scope="session")
def plain_lab(_machine: None) -> Iterator[Lab]:
    """A standing lab without the engine: only the network and the servers."""
    with Lab(unique_name()) as standing:
        standing.up(engine=False)
        yield standing


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
        ) -> Lab:
            lab = standing.enter_context(Lab(unique_name()))
            lab.up(backends=backends, server=server, engine=engine, settings=settings, fe_conf=fe_conf, be_conf=be_conf)
            return lab

        yield make
