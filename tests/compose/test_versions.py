"""The same file by Compose v2, where the other tests use v1; and with one back end more, as docs/containers.md says."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tcpha.lab.waiting import wait_until
from tests.compose import compose_v2
from tests.compose.cluster import CLIENT, ROOT, SERVICES, VIP, Cluster
from tests.compose.conftest import Say
from tests.compose.engine import Engine

pytestmark = pytest.mark.compose

LIMIT_S = 30.0


def test_there_is_no_image_compose_v2_builds_it_brings_the_cluster_up_waits_for_health_and_takes_all_down(
    engine: Engine, cluster: Cluster, documents: Path, say: Say
) -> None:
    if compose_v2.find_v1(engine) is None:
        pytest.skip("there is no Compose v1: the other tests are of v2")
    compose = compose_v2.find_v2(engine, say)
    if compose is None:
        pytest.skip("Compose v2 cannot be had here")
    cluster.down()  # it has the addresses
    engine.docker("image", "rm", "tcpha")
    second = Cluster(engine, compose, documents)
    try:
        second.up("--wait")
        assert {service: second.health(service) for service in SERVICES} == dict.fromkeys(SERVICES, "healthy")
        assert second.answers("/page.html", "be1")
        assert second.answers("/picture.jpg", "be2")
        assert second.fetch("/client").body == CLIENT
    finally:
        second.down()
    assert engine.docker("ps", "--all", "--quiet") == ""
    assert engine.docker("volume", "ls", "--quiet") == ""
    assert "tcpha" not in engine.docker("network", "ls")


def turns(heads: str) -> Counter[str]:
    """How many answers each node gave."""
    return Counter(re.findall(r"(?mi)^server-node: (\S+)", heads))


def with_third_back_end() -> str:
    """docker-compose.yml after the three edits of docs/containers.md."""
    text = (ROOT / "docker-compose.yml").read_text()
    document = (ROOT / "docs/containers.md").read_text()
    steps = document.partition("## More back ends")[2].partition("\n## ")[0]
    servers = re.search(r"in `TCPHA_SERVERS`: `(.+)`", steps)
    rule = re.search(r"in `TCPHA_RULES`, for instance `(.+)`", steps)
    service = re.search(r"(?m)^ +be3:\n(?: {8,}.+\n)+", steps)
    assert servers is not None
    assert rule is not None
    assert service is not None
    text = re.sub(r"(?m)^(  TCPHA_SERVERS:) .+$", rf"\1 {servers[1]}", text)
    text = text.replace("    198.18.36.33 .*\n", f"    {rule[1]}\n")
    return text.replace("\n  client:\n", "\n" + textwrap.indent(textwrap.dedent(service[0]), "  ") + "\n  client:\n")


def test_third_back_end_is_added_as_documented_it_takes_its_turns(
    engine: Engine, cluster: Cluster, documents: Path
) -> None:
    cluster.up()
    file = engine.directory / "three.yml"
    file.write_text(with_third_back_end())
    edited = Cluster(engine, cluster.words, documents, file)
    try:
        edited.up()
        for service in (*SERVICES, "be3"):
            edited.await_health(service)
        # At once, and again if a health check's request took a turn in between.
        script = f"for i in 1 2 3 4 5 6; do curl -sS -m 5 -o /dev/null -D - http://{VIP}/client; done"
        wanted = {"be1": 3, "be3": 3}
        assert wait_until(lambda: turns(edited.execute("client", "sh", "-c", script)) == wanted, LIMIT_S)
        assert edited.answers("/picture.jpg", "be2")
    finally:
        edited.down()
