"""Every leg of a handed-off connection is impaired, in every manner: clients notice nothing but the time it takes.

The legs: client to front end; front end to back ends; to the client, from whomever; the handoff datagrams between front
end and back ends, in both directions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tcpha.lab.impairment import Impairment, Way
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Conversation, Family, get, post
from tests.cluster.engine_sight import await_no_flows, counters, digest, digest_line
from tests.cluster.impairment_sight import final_counters, require_impairments

pytestmark = pytest.mark.cluster

Task = Callable[[], None]

AT_LENGTH = os.environ.get("TCPHA_LONG") == "1"
DOWNLOADS, UPLOADS = (1_000, 200) if AT_LENGTH else (50, 10)
UPLOAD_OCTETS = 5_000_000
IN_PARALLEL = 8
LIMIT_S = 60.0
"""For a connection that is unlucky again and again: its timers double each time."""
FORGOTTEN_S = 10.0
"""Until the front end has asked what became of flows whose CLOSED was lost."""

TCP_LEGS = {
    "client to front end": (Way("fe", "client"),),
    "front end to back ends": (Way("be1", "fe"), Way("be2", "fe")),
    "to the client": (Way("client"),),
}
EVERY_WAY = (Way("fe"), Way("be1", "fe"), Way("be2", "fe"), Way("client"))
HANDOFF_WAYS = (Way("fe"), Way("be1", "fe"), Way("be2", "fe"))
IMPAIRMENTS = {
    "loss": Impairment(loss=0.03),
    "duplication": Impairment(duplicate=0.1),
    "reordering": Impairment(reorder=0.1, reorder_depth=20),
    "delay": Impairment(delay_s=0.02),
    "everything": Impairment(loss=0.02, duplicate=0.05, reorder=0.05, reorder_depth=20, delay_s=0.01),
}
HANDOFF_IMPAIRMENTS = {
    "loss": Impairment(loss=0.25),
    "duplication": Impairment(duplicate=0.5),
    "reordering": Impairment(reorder=0.5, reorder_depth=20),
    "delay": Impairment(delay_s=0.02),
    "everything": Impairment(loss=0.2, duplicate=0.2, reorder=0.2, reorder_depth=20, delay_s=0.01),
}


@pytest.fixture(scope="module")
def impaired_lab(_machine: None) -> Iterator[Lab]:
    """A lab whose front end soon asks about idle flows, and bears the loss of several STATUS or HANDOFFs in a row.

    Four HANDOFFs, the default, are all lost once in 256 connections if each fourth datagram is.
    """
    settings = Settings(both=("idle_time = 1s", "dead_time = 5s"), fe=("handoff_repeat = 25ms", "handoff_repeats = 7"))
    with engine_lab(settings) as standing:
        require_impairments(standing)
        yield standing


def posts_served(lab: Lab) -> int:
    """Asked on the back ends themselves, where nothing is impaired."""
    ask = ["curl", "-sSf", "http://127.0.0.1/sink/count"]
    return sum(int(node.run(ask, check=True).stdout) for node in lab.backends)


class Work:
    """What clients do, each on a connection of its own; each checks every octet of its answer."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._wholes = {name: digest(lab, name) for name in ("100k", "1m")}

    def download(self, family: Family, name: str = "1m") -> None:
        """The last octet of it, and the end of the connection after it."""
        with Conversation.open(self._lab, family, limit_s=LIMIT_S) as client:
            answer = client.ask(get(f"/{name}.jpg", "Connection: close"))
            assert (answer.status, answer.node, answer.sha256) == (200, "be2", self._wholes[name])
            assert client.rest() == b""

    def upload(self, family: Family, octets: int = 300_000) -> None:
        body = os.urandom(octets)
        with Conversation.open(self._lab, family, limit_s=LIMIT_S) as client:
            answer = client.ask(post(body, "Connection: close"))
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body))
            assert client.rest() == b""

    def split_head(self, family: Family) -> None:
        """The front end reads it piece by piece, however they arrive."""
        body = os.urandom(5_000)
        request = post(body, f"X: {'x' * 12_000}")
        with Conversation.open(self._lab, family, nagle=False, mss_octets=1_000, limit_s=LIMIT_S) as client:
            for start in range(0, len(request), 700):
                client.send(request[start : start + 700])
            answer = client.answer()
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body))
            assert client.ask(get("/100k.jpg")).sha256 == self._wholes["100k"]

    def acknowledged_head(self, family: Family) -> None:
        """The front end has acknowledged most of the head: only it can repeat that."""
        body = os.urandom(5_000)
        request = post(body, f"X: {'x' * 12_000}", "Connection: close")
        with Conversation.open(self._lab, family, nagle=False, limit_s=LIMIT_S) as client:
            client.send(request[:11_000])
            client.await_acknowledged(LIMIT_S)
            client.send(request[11_000:])
            answer = client.answer()
            assert (answer.status, answer.node, answer.body) == (200, "be1", digest_line(body))
            assert client.rest() == b""

    def of_every_kind(self, name: str) -> list[Task]:
        """Over both families; three of the four are a POST. `name`: what is downloaded."""
        kinds: list[Callable[[Family], None]] = [
            partial(self.download, name=name), self.upload, self.split_head, self.acknowledged_head
        ]  # fmt: skip
        return [partial(kind, family) for family in FAMILIES for kind in kinds]


def unnoticed(lab: Lab, impaired: Mapping[Way, Impairment], tasks: Sequence[Task], posts: int) -> None:
    """Clients work while ways are impaired: every answer is right, every POST is served once, nothing stays behind."""
    before, served = counters(lab.fe), posts_served(lab)
    with ExitStack() as standing:
        ways = [
            standing.enter_context(lab.impair(way.node, impairment, peer=way.peer, means="queue"))
            for way, impairment in impaired.items()
        ]
        do_at_once(tasks)
        assert posts_served(lab) == served + posts
    counted = [final_counters(way) for way in ways]
    for name, share in (("lost", "loss"), ("duplicated", "duplicate"), ("reordered", "reorder")):
        if any(getattr(impairment, share) for impairment in impaired.values()):
            assert sum(each[name] for each in counted) > 0, f"nothing was {name}"
    await_no_flows(lab, FORGOTTEN_S)
    after = counters(lab.fe)
    for name in ("answered", "silent"):  # what the front end says itself, and back ends that say nothing
        assert after[name] == before[name], name


def do_at_once(tasks: Sequence[Task]) -> None:
    with ThreadPoolExecutor(IN_PARALLEL) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


@pytest.mark.parametrize("leg", TCP_LEGS)
@pytest.mark.parametrize("manner", IMPAIRMENTS)
def test_connections_are_impaired_on_one_leg_clients_notice_nothing(impaired_lab: Lab, leg: str, manner: str) -> None:
    tasks = Work(impaired_lab).of_every_kind("1m")
    impairment = replace(IMPAIRMENTS[manner], only="tcp")
    unnoticed(impaired_lab, dict.fromkeys(TCP_LEGS[leg], impairment), tasks, posts=6)


@pytest.mark.parametrize("manner", HANDOFF_IMPAIRMENTS)
def test_handoff_datagrams_are_impaired_clients_notice_nothing(impaired_lab: Lab, manner: str) -> None:
    tasks = Work(impaired_lab).of_every_kind("100k") * 3
    impairment = replace(HANDOFF_IMPAIRMENTS[manner], only="udp")
    unnoticed(impaired_lab, dict.fromkeys(HANDOFF_WAYS, impairment), tasks, posts=18)


def test_everything_is_impaired_on_every_leg_clients_notice_nothing(impaired_lab: Lab) -> None:
    tasks = Work(impaired_lab).of_every_kind("1m") * 2
    unnoticed(impaired_lab, dict.fromkeys(EVERY_WAY, IMPAIRMENTS["everything"]), tasks, posts=12)


@pytest.mark.long
def test_two_percent_are_lost_on_every_leg_all_downloads_and_uploads_are_whole(impaired_lab: Lab) -> None:
    work = Work(impaired_lab)
    tasks = [partial(work.download, FAMILIES[number % 2]) for number in range(DOWNLOADS)]
    tasks += [partial(work.upload, FAMILIES[number % 2], UPLOAD_OCTETS) for number in range(UPLOADS)]
    Random(1).shuffle(tasks)
    unnoticed(impaired_lab, dict.fromkeys(EVERY_WAY, Impairment(loss=0.02)), tasks, posts=UPLOADS)
