"""One engine for all tests, one cluster for most; where no engine can run, every test that needs it says why."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.compose import base_image, compose_v2, keeper, machine_state
from tests.compose.cluster import FILES, Cluster
from tests.compose.engine import Engine, RefusedError, obstacle

BUILD_LIMIT_S = 900.0
PICTURE_OCTETS = 10_000_000

Say = Callable[[str], None]


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Say:
    """Tells whoever waits what takes so long."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    began = time.monotonic()

    def write(text: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"{time.monotonic() - began:4.0f} s: {text}")

    return write


@pytest.fixture(scope="session", autouse=True)
def _machine_as_before() -> Iterator[None]:
    """Whatever the tests did: the machine is afterwards as before, and nothing of an engine is left."""
    keeper.sweep()
    before = machine_state.of_machine()
    yield
    assert machine_state.of_machine() == before
    assert keeper.left() == []


@pytest.fixture(scope="session")
def possible() -> None:
    if reason := obstacle():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def engine(possible: None, say: Say) -> Iterator[Engine]:
    """An engine apart from the machine's network that has the image, or could build it without any network."""
    try:
        made = Engine()
    except RefusedError as error:
        pytest.skip(f"no container engine can run here: {error}")
    try:
        try:
            made.start_to_build()
        except RefusedError as error:
            pytest.skip(f"no container engine can run here: {error}")
        base_image.provide(made, say)
        _build(made, say)
        made.stop()
        made.start_apart()
        say("the engine is ready")
        yield made
    finally:
        made.close()
        say("the engine is gone")


def _build(engine: Engine, say: Say) -> None:
    """Build the image by each version of Compose, with the builder it takes unless told: later builds find all done."""
    versions = [found for found in (compose_v2.find_v1(engine), compose_v2.find_v2(engine, say)) if found is not None]
    if not versions:
        pytest.skip("there is no Compose, of either version")
    say(f"building the image ({', and '.join(' '.join(words) for words in versions)})")
    with ThreadPoolExecutor() as pool:
        builds = []
        for words in versions:
            # A name for each: they build at the same time, and an image without a name would go with its last parent.
            named = engine.directory / f"{'-'.join(words)}.yml"
            named.write_text(f"services: {{fe: {{image: built-by-{'-'.join(words)}}}}}\n")
            files = [word for file in (*FILES, named) for word in ("-f", str(file))]
            builds.append(pool.submit(engine.run, [*words, *files, "build"], limit_s=BUILD_LIMIT_S))
    for build in builds:
        build.result()
    engine.docker("tag", f"built-by-{'-'.join(versions[0])}", "tcpha")


@pytest.fixture(scope="session")
def documents(engine: Engine) -> Path:
    """What both back ends serve; the large ones are random, each another."""
    directory = engine.directory / "documents"
    directory.mkdir(mode=0o755)
    for name in ("large.bin", "large.jpg"):
        (directory / name).write_bytes(random.Random(name).randbytes(PICTURE_OCTETS))
    (directory / "page.html").write_text("a page\n")
    (directory / "picture.jpg").write_text("a picture\n")
    return directory


@pytest.fixture(scope="session")
def cluster(engine: Engine, documents: Path, say: Say) -> Iterator[Cluster]:
    """The cluster, brought up by Compose v1 where there is one, else v2; that builds the image, too."""
    compose = compose_v2.find_v1(engine) or compose_v2.V2
    made = Cluster(engine, compose, documents)
    engine.docker("image", "rm", "tcpha")
    try:
        made.up()
        say(f"the cluster is up ({' '.join(compose)})")
        yield made
    finally:
        made.down()
        say("the cluster is down")
