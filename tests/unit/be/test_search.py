"""The search for connections of the programs' that ended without a packet: who is looked for, and when."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tcpha.be.carried import CarriedConnections
from tcpha.be.search import ENTRIES, FORGOTTEN, LOOKED_FOR, REMEMBERED_S, SILENT_S, Search
from tcpha.kernel.be_maps import Whose, encode_tuple, seen_at
from tcpha.net.sockdiag import TCP_TIME_WAIT
from tcpha.proto.ip import ConnectionKey
from tests.unit.be.programs import MARK, Programs, Sockets, carried, identity, socket_of

NOW = 10_000.0
LONG_AGO = seen_at(NOW - SILENT_S - 2.0)
JUST_NOW = seen_at(NOW)


class Host:
    """The programs, the sockets, the agent's own connections, and the search."""

    def __init__(self) -> None:
        self.programs, self.sockets = Programs(), Sockets()
        self.run_by_agent: set[ConnectionKey] = set()
        connections = CarriedConnections(cast(Any, self.programs), cast(Any, self.sockets), MARK)
        self.search = Search(cast(Any, self.programs), connections, self.run_by_agent.__contains__)

    def walks(self, steps: int = 2) -> None:
        """The first step of all only begins."""
        for _ in range(steps):
            self.search.step(NOW)


@pytest.fixture
def host() -> Host:
    return Host()


def test_silent_connection_has_no_socket_it_is_over(host: Host) -> None:
    host.programs.add(carried(identity(), seen=LONG_AGO))
    host.walks()
    assert host.programs.whose(identity()) is Whose.OVER


def test_silent_connections_socket_is_in_time_wait_it_is_over(host: Host) -> None:
    host.programs.add(carried(identity(), seen=LONG_AGO))
    host.sockets.present = [socket_of(identity(), state=TCP_TIME_WAIT)]
    host.walks()
    assert host.programs.whose(identity()) is Whose.OVER


def test_silent_connection_has_its_socket_it_goes_on(host: Host) -> None:
    host.programs.add(carried(identity(), seen=LONG_AGO))
    host.sockets.present = [socket_of(identity())]
    host.walks()
    assert host.programs.whose(identity()) is Whose.PROGRAMS


def test_packet_passed_a_moment_ago_nobody_looks(host: Host) -> None:
    host.programs.add(carried(identity(), seen=JUST_NOW))
    host.walks()
    assert host.sockets.looked_for == []
    assert host.programs.whose(identity()) is Whose.PROGRAMS


def test_never_spoke_and_has_no_socket_its_ports_are_nobodys(host: Host) -> None:
    host.programs.add(carried(identity(), Whose.UNSEEN, seen=LONG_AGO))
    host.walks()
    assert host.programs.entries == {}


@pytest.mark.parametrize("runs", [True, False])
def test_note_of_the_agents_stays_as_long_as_the_agent_runs_something_there(host: Host, runs: bool) -> None:
    host.programs.add(carried(identity(), Whose.AGENT, seen=LONG_AGO))
    if runs:
        host.run_by_agent.add(identity().key)
    host.walks()
    assert (host.programs.whose(identity()) is Whose.AGENT) == runs


def test_more_are_silent_than_one_step_looks_for_the_next_steps_go_on_there(host: Host) -> None:
    """Many idle ones live; the one that is gone is the last that the walk comes by."""
    idle = [identity(port) for port in range(1024, 1024 + 3 * LOOKED_FOR)]
    gone = identity(9)
    host.programs.add(*(carried(each, seen=LONG_AGO) for each in (*idle, gone)))
    host.sockets.present = [socket_of(each) for each in idle]
    host.walks(1)
    for step in range(3):
        host.walks(1)
        assert len(host.sockets.looked_for) == (step + 1) * LOOKED_FOR
    host.walks(1)
    assert host.programs.whose(gone) is Whose.OVER
    assert sorted(host.sockets.looked_for) == sorted(each.key for each in (*idle, gone)), "each once in a walk"


def test_one_walk_is_over_the_next_begins(host: Host) -> None:
    host.programs.add(carried(identity(), seen=LONG_AGO))
    host.sockets.present = [socket_of(identity())]
    host.walks(3)
    host.sockets.present = []
    host.walks(1)
    assert host.programs.whose(identity()) is Whose.OVER


def test_many_are_not_silent_one_step_passes_by_so_many(host: Host) -> None:
    host.programs.add(*(carried(identity(port), seen=JUST_NOW) for port in range(1, ENTRIES + 1)))
    host.programs.add(carried(identity(ENTRIES + 1), seen=LONG_AGO))
    host.walks(2)
    assert host.sockets.looked_for == []
    host.walks(1)
    assert host.sockets.looked_for == [identity(ENTRIES + 1).key]


def test_many_more_are_over_than_live_one_step_passes_them_by_all_the_same(host: Host) -> None:
    host.programs.add(*(carried(identity(port), Whose.OVER, seen=LONG_AGO) for port in range(1, ENTRIES)))
    host.programs.add(carried(identity(ENTRIES), seen=LONG_AGO))
    host.walks()
    assert host.programs.whose(identity(ENTRIES)) is Whose.OVER


def test_many_are_over_for_long_so_many_are_forgotten_in_one_step_and_nobody_waits_for_the_others(host: Host) -> None:
    long_over = seen_at(NOW - REMEMBERED_S - 2.0)
    host.programs.add(*(carried(identity(port), Whose.OVER, seen=long_over) for port in range(1, 2 * FORGOTTEN + 2)))
    host.programs.add(carried(identity(1, iss=999), seen=LONG_AGO), carried(identity(60_000), seen=LONG_AGO))
    host.walks()
    assert host.programs.whose(identity(60_000)) is Whose.OVER
    assert len(host.programs.entries) == 2 * FORGOTTEN + 2 - FORGOTTEN
    host.walks(4)
    assert {each.identity for each in host.programs.entries.values()} == {identity(1, iss=999), identity(60_000)}


def test_entry_is_another_ones_since_the_walk_read_it_nothing_is_done(host: Host) -> None:
    first = [identity(port) for port in range(1, LOOKED_FOR + 2)]
    host.programs.add(*(carried(each, seen=LONG_AGO) for each in first))
    host.sockets.present = [socket_of(each) for each in first[:-1]]
    host.walks(2)
    host.programs.add(carried(identity(LOOKED_FOR + 1, iss=999), seen=JUST_NOW))
    host.walks(1)
    assert host.programs.whose(identity(LOOKED_FOR + 1, iss=999)) is Whose.PROGRAMS
    assert host.programs.orders == []


def test_entry_went_since_the_walk_read_it_nothing_is_done(host: Host) -> None:
    host.programs.add(*(carried(identity(port), seen=LONG_AGO) for port in range(1, LOOKED_FOR + 2)))
    host.sockets.present = [socket_of(identity(port)) for port in range(1, LOOKED_FOR + 1)]
    host.walks(2)
    del host.programs.entries[encode_tuple(identity(LOOKED_FOR + 1).key)]
    host.walks(1)
    assert host.programs.orders == []


def test_entry_is_over_since_the_walk_read_it_it_stays_as_long_as_any(host: Host) -> None:
    first = [identity(port) for port in range(1, LOOKED_FOR + 2)]
    host.programs.add(*(carried(each, seen=LONG_AGO) for each in first))
    host.sockets.present = [socket_of(each) for each in first]
    host.walks(2)
    host.programs.add(carried(first[-1], Whose.OVER, seen=LONG_AGO))
    host.walks(1)
    assert host.programs.whose(first[-1]) is Whose.OVER


@pytest.mark.parametrize(("age_s", "stays"), [(REMEMBERED_S - 2.0, True), (REMEMBERED_S + 2.0, False)])
def test_over_for_long_it_is_forgotten(host: Host, age_s: float, stays: bool) -> None:
    """Its place in the journal may be another one's already, and then nobody else forgets it."""
    host.programs.add(carried(identity(), Whose.OVER, seen=seen_at(NOW - age_s)))
    host.walks()
    assert (identity() in [each.identity for each in host.programs.entries.values()]) == stays
    assert host.sockets.looked_for == []
