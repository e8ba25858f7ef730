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


def with_rights_for_the_kernel_fast_path() -> str:
    """The file beside docker-compose.yml of docs/containers.md."""
    document = (ROOT / "docs/containers.md").read_text()
    found = re.search(r"(?m)^    x-node: &node\n(?:(?: {4}.*)?\n)+", document)
    assert found is not None
    return textwrap.dedent(found[0])


def test_file_for_the_kernel_fast_path_is_laid_over_as_documented_every_node_has_the_rights(
    engine: Engine, say: Say
) -> None:
    """No engine of this version takes it: what Compose makes of it is looked at."""
    file = engine.directory / "kernel.yml"
    file.write_text(with_rights_for_the_kernel_fast_path())
    versions = [found for found in (compose_v2.find_v1(engine), compose_v2.find_v2(engine, say)) if found is not None]
    for words in versions:
        shown = engine.run([*words, "-f", str(ROOT / "docker-compose.yml"), "-f", str(file), "config"], limit_s=LIMIT_S)
        for node, others in (("fe", 0), ("be1", 1), ("be2", 1)):
            service = re.search(rf"(?m)^  {node}:\n(?:(?: {{4}}.*)?\n)+", shown)
            assert service is not None
            assert {"- NET_ADMIN", "- SETUID", "- BPF", "- PERFMON"} <= {
                line.strip() for line in service[0].splitlines()
            }
            assert "/sys/fs/bpf" in service[0]
            assert "/var/lib/tcpha-secret" in service[0]
            assert len(re.findall("tcp_fwmark_accept: ", service[0])) == others
            assert len(re.findall("arp_ignore: ", service[0])) == others
