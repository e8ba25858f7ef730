"""Back ends whose connections the kernel adopts, and whose clients' packets come in a tunnel, past its programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import Conversation, Family, get
from tests.cluster.engine_sight import await_no_flows, counters
from tests.cluster.test_kernel_be import PATIENCE_S, serves, started

pytestmark = pytest.mark.cluster

TUNNELLED = Settings(fe=("accelerate = off",), be=("accelerate = require",))


@pytest.fixture(scope="module")
def tunnel_lab(_adopting: None) -> Iterator[Lab]:
    with engine_lab(TUNNELLED, backends=1, routed=True) as standing:
        yield standing


@contextmanager
def losing_resets(lab: Lab, family: Family) -> Iterator[None]:
    """The client gets none meanwhile."""
    program = "iptables" if family == "ipv4" else "ip6tables"
    rule = ["INPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"]
    lab.client.run([program, "-I", *rule], check=True)
    try:
        yield
    finally:
        lab.client.run([program, "-D", *rule], check=True)


def test_server_aborts_and_its_rst_is_lost_client_that_goes_on_is_told(tunnel_lab: Lab, family: Family) -> None:
    (node,) = tunnel_lab.backends
    with Conversation.open(tunnel_lab, family) as client:
        assert client.ask(get("/1k.html")).status == 200
        ended = counters(node)["kernel"]["ended"]
        with losing_resets(tunnel_lab, family):
            node.run(["ss", "-K", "state", "established", "sport", "=", ":80"], check=True)
            assert wait_until(lambda: counters(node)["kernel"]["ended"] > ended, 5.0)
        client.send(get("/1k.html"))
        with pytest.raises(ConnectionResetError):
            client.rest()
    await_no_flows(tunnel_lab)


def test_agent_is_ended_with_keep_the_client_is_heard_again_by_the_next_one(tunnel_lab: Lab, family: Family) -> None:
    (node,) = tunnel_lab.backends
    node.engine.stop()
    with started(node, "--keep") as process:
        assert wait_until(lambda: serves(tunnel_lab), PATIENCE_S)
        with Conversation.open(tunnel_lab, family) as client:
            assert client.ask(get("/1k.html")).status == 200
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            log = (node.directory / "by-hand.log").read_text()
            assert "connections whose packets come in a tunnel stand still until the next start" in log
            client.send(get("/1k.html"))
            node.engine.start()
            assert client.answer().status == 200
    await_no_flows(tunnel_lab)
