"""What the front end promises is configuration: a back end whose kernel does not keep it is not used, and is named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.waiting import wait_until
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Answer, Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.engines import needs_python
from tests.cluster.tcp_stack import BARE, NO_SACK, NO_TIMESTAMPS, NO_WINDOW_SCALING, info_at, info_of, set_up

pytestmark = pytest.mark.cluster

RULES = (
    "rule = 198.18.0.38,198.18.0.33 jpg$",  # be2 or be1
    "rule = 198.18.0.38,198.18.0.33 ^/sink$",
    "rule = 198.18.0.38 html$",  # be2 or nobody
    "rule = 198.18.0.33 .*",
)
OFTEN = "probe_time = 0.2s"
NOTICED_S = 3.0
BROKEN = {"window scaling": NO_WINDOW_SCALING, "SACK": NO_SACK, "timestamps": NO_TIMESTAMPS}


@pytest.fixture(scope="module")
def watchful_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose back ends look at their kernels often; every test repairs what it broke."""
    with engine_lab(Settings(both=RULES, be=(OFTEN,))) as standing:
        yield standing


def ask(lab: Lab, family: Family, path: str) -> Answer:
    with Conversation.open(lab, family) as client:
        return client.ask(get(path))


def served_by(lab: Lab, path: str) -> list[str | None]:
    """Who answers over each family; None: the front end, with 503."""
    answers = [ask(lab, family, path) for family in FAMILIES]
    assert all(answer.status == (503 if answer.node is None else 200) for answer in answers)
    return [answer.node for answer in answers]


def says(lab: Lab, text: str) -> Callable[[], bool]:
    """Whether the last that the front end's log says of be2 is this."""

    def last() -> bool:
        found = re.findall(r"be 198\.18\.0\.38 (.*)", lab.log("fe").read_text())
        return bool(found) and found[-1] == text

    return last


def not_kept(*names: str) -> str:
    return f"is not used: its TCP stack does not keep the promise of {', '.join(names)}"


def check_unused(lab: Lab) -> None:
    assert served_by(lab, "/1k.jpg") == ["be1", "be1"]
    assert served_by(lab, "/1k.html") == [None, None]
    assert served_by(lab, "/1k") == ["be1", "be1"]


def check_used(lab: Lab) -> None:
    """Soon: on a busy machine a look at its server may have come to nothing a moment ago."""
    assert wait_until(lambda: served_by(lab, "/1k.html") == ["be2", "be2"], NOTICED_S)
    assert None not in served_by(lab, "/1k.jpg")


@pytest.mark.parametrize("name", BROKEN)
def test_kernel_stops_keeping_the_promise_its_back_end_is_named_and_unused_until_it_keeps_it_again(
    watchful_lab: Lab, name: str
) -> None:
    check_used(watchful_lab)
    with Conversation.open(watchful_lab, "ipv4") as client:
        assert client.ask(get("/1k.html")).node == "be2"
        with set_up(watchful_lab.node("be2"), BROKEN[name]):
            assert wait_until(says(watchful_lab, not_kept(name)), NOTICED_S)
            check_unused(watchful_lab)
            answer = client.ask(get("/100k.html"))
            assert (answer.node, answer.sha256) == ("be2", digest(watchful_lab, "100k")), "it was promised before"
        assert wait_until(says(watchful_lab, "is up"), NOTICED_S)
    check_used(watchful_lab)
    await_no_flows(watchful_lab)


def test_kernel_keeps_nothing_from_the_start_every_option_is_named_until_it_keeps_it(watchful_lab: Lab) -> None:
    needs_python("be", "it does not start on a host that keeps no promise")
    node = watchful_lab.node("be2")
    node.engine.stop()
    with set_up(node, BARE):
        node.engine.start()
        assert wait_until(says(watchful_lab, not_kept("window scaling", "SACK", "timestamps")), NOTICED_S)
        check_unused(watchful_lab)
        with set_up(node, {"tcp_window_scaling": "1"}):
            assert wait_until(says(watchful_lab, not_kept("SACK", "timestamps")), NOTICED_S)
            with set_up(node, {"tcp_sack": "1"}):
                assert wait_until(says(watchful_lab, not_kept("timestamps")), NOTICED_S)
                check_unused(watchful_lab)
    assert wait_until(says(watchful_lab, "is up"), NOTICED_S)
    check_used(watchful_lab)


# --- between the change and the next look


@pytest.fixture(scope="module")
def unwatchful_lab(watchful_lab: Lab) -> Lab:
    """The same, but be2 looks at its kernel when it starts, and not again. No test behind these needs the other."""
    node = watchful_lab.node("be2")
    node.engine.stop()
    file = node.directory / "tcphabe.conf"
    file.write_text(file.read_text().replace(OFTEN, "probe_time = 600s"))
    node.engine.start()
    assert wait_until(says(watchful_lab, "is up"), NOTICED_S)
    return watchful_lab


def test_kernel_without_timestamps_is_not_known_yet_requests_go_elsewhere_or_get_503(unwatchful_lab: Lab) -> None:
    """The back end sees it when it replays the handshake, and refuses: no request has reached its server."""
    before = counters(unwatchful_lab.fe)["refused"]
    with set_up(unwatchful_lab.node("be2"), NO_TIMESTAMPS):
        check_unused(unwatchful_lab)
        for number in range(4):
            body = os.urandom(10_000)
            with Conversation.open(unwatchful_lab, FAMILIES[number % 2]) as client:
                answer = client.ask(post(body))
                assert (answer.node, answer.body) == ("be1", digest_line(body))
    refused = counters(unwatchful_lab.fe)["refused"] - before
    assert refused > 2, "the two that only be2 might serve, and some that went elsewhere"
    check_used(unwatchful_lab)


@pytest.mark.parametrize("name", ["window scaling", "SACK"])
def test_kernel_without_an_option_is_not_known_yet_transfers_are_whole(
    unwatchful_lab: Lab, family: Family, name: str
) -> None:
    """Windows are rescaled, in both directions; what the client acknowledges selectively is simply not understood."""
    node = unwatchful_lab.node("be2")
    body = os.urandom(1_000_000)
    with set_up(node, BROKEN[name]), Conversation.open(unwatchful_lab, family) as client:
        assert client.ask(get("/1m.html")).sha256 == digest(unwatchful_lab, "1m")
        assert client.ask(post(body)).body == digest_line(body)
        missing = info_of(client).options - info_at(node, unwatchful_lab, family, client.port).options
        assert missing == {"wscale" if name == "window scaling" else "sack"}
    await_no_flows(unwatchful_lab)
