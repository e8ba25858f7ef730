"""The virtual address against Linux: the same packets are sent to both, and both say the same, but for what is listed.

The oracle is a back end's own address: its kernel and its nginx answer by themselves. The same scripts go to the
virtual address, whose front end hands the connections over to that very host. docs/deviations.md lists what may differ,
line by line; an unknown difference fails, and so does a listed one that does not occur. All scripts are played at once;
one that surprises is played again, alone and with longer pauses, for a busy machine answers late: only what stays
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tcpha.lab.cluster import Lab
from tcpha.lab.configuration import Settings
from tests.cluster.conftest import engine_lab
from tests.cluster.conversation import FAMILIES, Family, vip
from tests.cluster.deviations import SCRIPTS, everywhere, judge
from tests.cluster.scripts import ASK, SYN
from tests.cluster.wire_client import WireClient
from tests.cluster.wire_play import Performance, Server, play
from tests.cluster.wire_script import LISTEN, Listens, Script
from tests.cluster.wire_transcript import compare

pytestmark = pytest.mark.cluster

AGAIN = (2.0, 4.0)
"""How many times longer the pauses are when a script is played again."""
SERVER_SETTINGS = {
    # Another window scale than the promised one; and nothing is learned from one connection for the next.
    "net.ipv4.tcp_rmem": "4096 131072 33554432",
    "net.ipv4.tcp_no_metrics_save": "1",
}
CASES = [(script, family) for script in SCRIPTS for family in script.families]


class Stage:
    """A lab, the client, and both servers."""

    def __init__(self, lab: Lab, client: WireClient) -> None:
        self._client = client
        server = lab.backends[0]
        addresses = {"ipv4": str(server.ipv4), "ipv6": str(server.ipv6)}
        self.plain = {family: Server(addresses[family], server) for family in FAMILIES}
        self.virtual = {family: Server(vip(lab, family), lab.fe) for family in FAMILIES}

    def play(self, cases: list[tuple[Script, Family]], slowness: float = 1.0) -> list[tuple[Performance, Performance]]:
        """Play scripts to the plain server, then to the virtual address."""
        plain = [
            Performance(self._client, script, family, self.plain[family], slowness=slowness) for script, family in cases
        ]
        play(self._client, plain)
        virtual = [
            Performance(self._client, each.script, each.family, self.virtual[each.family], each, slowness=slowness)
            for each in plain
        ]
        play(self._client, virtual)
        return list(zip(plain, virtual, strict=True))


def differences(plain: Performance, virtual: Performance) -> list[str]:
    return [str(each) for each in compare(plain.transcript, virtual.transcript)]


@pytest.fixture(scope="module")
def stage(_machine: None) -> Iterator[Stage]:
    with engine_lab(Settings(both=("window_scale = 7",))) as lab:
        for node in lab.backends:
            node.run(["sysctl", "-q", *(f"{name}={value}" for name, value in SERVER_SETTINGS.items())], check=True)
        with WireClient(lab) as client:
            yield Stage(lab, client)


@pytest.fixture(scope="module")
def found(stage: Stage) -> dict[tuple[str, Family], list[str]]:
    """The differences that every script has shown."""
    performed = stage.play(CASES)
    return {(plain.script.name, plain.family): differences(plain, virtual) for plain, virtual in performed}


@pytest.mark.parametrize(("script", "family"), CASES, ids=[f"{script.name}-{family}" for script, family in CASES])
def test_script_is_answered_as_by_linux_but_for_what_is_listed(
    stage: Stage, found: dict[tuple[str, Family], list[str]], script: Script, family: Family
) -> None:
    seen = found[script.name, family]
    for slowness in AGAIN:
        judgement = judge(script.name, seen)
        if not judgement.unknown and not judgement.absent:
            return
        ((plain, virtual),) = stage.play([(script, family)], slowness)
        seen = differences(plain, virtual)
    judgement = judge(script.name, seen)
    assert (judgement.unknown, judgement.absent) == ((), ())


def test_differences_of_scripts_of_all_kinds_occur(found: dict[tuple[str, Family], list[str]]) -> None:
    lines = [line for differing in found.values() for line in differing]
    assert [known for known in everywhere() if not any(fnmatchcase(line, known) for line in lines)] == []


def test_scripts_are_answered_at_all(stage: Stage) -> None:
    """Two servers that say nothing would differ in nothing."""
    ((plain, virtual),) = stage.play([(SCRIPTS[0], "ipv4")])
    octets = [reply.get("payload", "") for listening in plain.transcript for reply in listening]
    assert any("HTTP/1.1 200" in payload for payload in octets)
    assert virtual.transcript[-1] == plain.transcript[-1]


def test_answer_that_is_not_acknowledged_is_not_repeated_within_the_clients_round_trip(stage: Stage) -> None:
    """The server must not take the back end's own replay for a measurement of the way to the client."""
    script = Script("slow client", SYN, LISTEN, ASK, LISTEN, Listens(quiet_s=0.6))
    ((_, virtual),) = stage.play([(script, "ipv4")])
    assert [reply["flags"] for reply in virtual.transcript[1]] == ["PA", "PA", "at the end"]
    assert virtual.repetitions == []
