"""A rule with two servers: they take turns; if one cannot be used, the other gets everything, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get
from tests.cluster.engine_sight import counters, digest

pytestmark = pytest.mark.cluster

SETTINGS = Settings(both=("rule = 198.18.0.33,198.18.0.38 .*",))
TURN_S = 2.0
"""So soon all requests are answered by the second, after the first has failed."""


@pytest.fixture(scope="module")
def doubled_lab(_machine: None) -> Iterator[Lab]:
    """Every test repairs what it broke."""
    with engine_lab(SETTINGS) as standing:
        yield standing


def ask(lab: Lab, family: Family) -> str | None:
    """One whole answer, long enough to be acknowledged before its back end has confirmed; the node that gave it."""
    with Conversation.open(lab, family, limit_s=5.0) as client:
        answer = client.ask(get("/100k.html"))
        assert (answer.status, answer.sha256) == (200, digest(lab, "100k"))
        return answer.node


def answered_by(lab: Lab, family: Family, node: str) -> Callable[[], bool]:
    return lambda: ask(lab, family) == node


def ask_in_turn(lab: Lab, requests: int) -> list[str | None]:
    """So many requests, one after the other, of both families; none may be lost."""
    return [ask(lab, FAMILIES[number % 2]) for number in range(requests)]


def turns_within(lab: Lab, begun: float) -> list[str | None]:
    """Requests, one after the other, until the time is over in which the second must have taken all over."""
    nodes: list[str | None] = []
    while time.monotonic() < begun + TURN_S or len(nodes) < 10:
        nodes += ask_in_turn(lab, 2)
    return nodes


def first_is_back(lab: Lab) -> bool:
    return wait_until(lambda: ask_in_turn(lab, 2) in (["be1", "be2"], ["be2", "be1"]), 5.0)


def test_both_may_be_used_they_take_turns(doubled_lab: Lab) -> None:
    nodes = ask_in_turn(doubled_lab, 40)
    assert nodes in (["be1", "be2"] * 20, ["be2", "be1"] * 20)


def test_agent_of_the_first_is_killed_no_request_is_lost_and_the_second_takes_over(doubled_lab: Lab) -> None:
    first = doubled_lab.backends[0]
    silent = counters(doubled_lab.fe)["silent"]
    first.engine.kill()
    begun = time.monotonic()
    try:
        assert turns_within(doubled_lab, begun)[-2:] == ["be2", "be2"]
        assert ask_in_turn(doubled_lab, 20) == ["be2"] * 20
        assert counters(doubled_lab.fe)["silent"] > silent, "nothing was on its way when it died"
    finally:
        first.engine.start()
    assert first_is_back(doubled_lab)


def test_agent_of_the_first_is_stopped_the_second_takes_over_at_once(doubled_lab: Lab) -> None:
    """It says good-bye, so nothing has to be found out."""
    first = doubled_lab.backends[0]
    assert first.engine.stop() == 0
    try:
        assert ask_in_turn(doubled_lab, 20) == ["be2"] * 20
    finally:
        first.engine.start()
    assert first_is_back(doubled_lab)


def test_server_beside_the_first_is_killed_no_request_is_lost_and_the_second_takes_over(doubled_lab: Lab) -> None:
    first = doubled_lab.backends[0]
    first.server.kill()
    begun = time.monotonic()
    try:
        assert ask_in_turn(doubled_lab, 2) == ["be2", "be2"]
        assert set(turns_within(doubled_lab, begun)) == {"be2"}
    finally:
        first.server.start()
    assert first_is_back(doubled_lab)


def test_both_are_down_requests_are_answered_503(doubled_lab: Lab, family: Family) -> None:
    for node in doubled_lab.backends:
        assert node.engine.stop() == 0
    try:
        with Conversation.open(doubled_lab, family, limit_s=5.0) as client:
            assert client.ask(get("/1k.html")).status == 503
    finally:
        for node in doubled_lab.backends:
            node.engine.start()
    assert first_is_back(doubled_lab)
