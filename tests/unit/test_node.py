"""When a node looks for what is due, and what a defect in that costs."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from math import inf
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock, call

import pytest

from tcpha import node as node_module
from tcpha.errors import EdgeError
from tcpha.fe.service import SOLICIT_INTERVAL_S, FrontEnd
from tcpha.net import clock
from tcpha.net.footprint import Plan
from tcpha.node import LOG_INTERVAL_S, Node
from tests.packet import fe_playbook

NOW = 100.0


def node() -> Node:
    """A node of which only the log of defects stands: it was opened nowhere."""
    made = FrontEnd.__new__(FrontEnd)
    made._faults = 0
    made._fault_log_at = -inf
    return made


def test_one_action_fails_those_behind_it_are_performed(caplog: pytest.LogCaptureFixture) -> None:
    failing, done = node(), list[int]()

    def perform(number: int) -> None:
        if number in (1, 2):
            raise ValueError(f"action {number}")
        done.append(number)

    with caplog.at_level(logging.ERROR):
        failing.perform_due(range(4), perform, NOW)
    assert done == [0, 3]
    assert failing._faults == 2
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "action 1"


def test_defects_are_logged_no_more_often_than_the_interval(caplog: pytest.LogCaptureFixture) -> None:
    failing = node()
    for now in (NOW, NOW + 1, NOW + LOG_INTERVAL_S - 0.1, NOW + LOG_INTERVAL_S):
        failing.report_fault(ValueError(str(now)), now)
    failing.report_fault(None, NOW + 10 * LOG_INTERVAL_S)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["100.0", "110.0"]


def test_packets_come_all_the_time_what_is_due_is_looked_for_at_its_time_and_once_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, looked, steps_a_second = node(), list[float](), 1024
    busy._timer_at = -inf
    due = NOW + 4.5 / steps_a_second

    def look(now: float) -> float:
        looked.append((now - NOW) * steps_a_second)
        return due if now < due else inf

    monkeypatch.setattr(busy, "_do_what_is_due", look)
    for step in range(30):
        monkeypatch.setattr(clock, "now", lambda step=step: NOW + step / steps_a_second)
        again_at = busy._on_timer()
        assert again_at > clock.now(), "or it would not rest"
    assert looked == [0, 5, 16, 27], "at its time, then every 10 ms"


def test_what_is_due_fails_each_time_it_is_tried_no_more_often_than_the_pause_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing, tried = node(), list[float]()
    failing._timer_at = -inf

    def fail(now: float) -> float:
        tried.append(now)
        raise EdgeError("no room")

    monkeypatch.setattr(failing, "_do_what_is_due", fail)
    for step in range(64):
        monkeypatch.setattr(clock, "now", lambda step=step: NOW + step / 128)
        assert failing._on_timer() > clock.now()
    assert [(now - NOW) * 128 for now in tried] == [0, 13, 26, 39, 52], "packets come all the time"


def test_each_second_the_kernel_is_told_the_ways_to_back_ends_that_it_may_have_refused() -> None:
    front, kernel, neighbours = cast(FrontEnd, node()), MagicMock(), MagicMock()
    kernel.on_tick.return_value = inf
    front._dispatcher = fe_playbook.Playbook().dispatcher
    front._acceleration, front._neighbours, front._channel = kernel, neighbours, MagicMock()
    front._next_hops, front._solicit_at = (ip_address("198.18.0.33"),), NOW
    for step in range(5):
        front.on_tick(NOW + step * SOLICIT_INTERVAL_S / 2)
    assert kernel.set_ways.call_args_list == [call(neighbours.mac)] * 3


@pytest.mark.parametrize("fault", [EdgeError("no room"), ZeroDivisionError()])
def test_datagram_cannot_be_judged_the_rest_of_its_burst_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """Whoever is asked about its number may be the kernel."""
    failing, judged, flushed = node(), list[bytes](), list[int]()

    def judge(datagram: bytes, _source: tuple[str, int], _now: float) -> None:
        if datagram == b"bad":
            raise fault
        judged.append(datagram)

    burst = [(octets, ("198.18.0.33", 666), 0.0) for octets in (b"one", b"bad", b"two")]
    failing._channel = cast(Any, SimpleNamespace(read=lambda: burst))
    failing._peers = cast(Any, SimpleNamespace(on_datagram=judge))
    monkeypatch.setattr(failing, "_complain", lambda *_: None)
    monkeypatch.setattr(failing, "_flush", lambda: flushed.append(1))
    failing._on_channel()
    assert (judged, flushed, failing._faults) == ([b"one", b"two"], [1], 1)
    assert caplog.messages == ["dropped a message that failed (1 so far)"]


def test_node_is_told_to_stop_what_waits_for_it_is_heard_before_anything_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reset would be believed by a client whose connection is another node's by then."""
    stopping, seen = node(), list[object]()
    bursts = [[(octets, ("198.18.0.33", 666), 0.0)] * 256 for octets in (b"one", b"two")]
    stopping._channel = cast(Any, SimpleNamespace(read=lambda: bursts.pop(0) if bursts else []))
    stopping._peers = cast(Any, SimpleNamespace(on_datagram=lambda datagram, *_: seen.append(datagram)))
    monkeypatch.setattr(stopping, "_complain", lambda *_: None)
    monkeypatch.setattr(stopping, "_flush", lambda: None)
    monkeypatch.setattr(stopping, "own_status", lambda: SimpleNamespace(flows=0))
    monkeypatch.setattr(stopping, "on_stop", lambda _now: seen.append("stops"))
    stopping._end_flows()
    assert seen == [b"one"] * 256 + [b"two"] * 256 + ["stops"]


def test_node_is_told_to_stop_while_datagrams_come_for_ever_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping, stopped = node(), list[float]()
    endless = [(b"x", ("198.18.0.33", 666), 0.0)]
    stopping._channel = cast(Any, SimpleNamespace(read=lambda: endless))
    stopping._peers = cast(Any, SimpleNamespace(on_datagram=lambda *_: None))
    monkeypatch.setattr(stopping, "_complain", lambda *_: None)
    monkeypatch.setattr(stopping, "_flush", lambda: None)
    monkeypatch.setattr(stopping, "own_status", lambda: SimpleNamespace(flows=0))
    monkeypatch.setattr(stopping, "on_stop", stopped.append)
    stopping._end_flows()
    assert len(stopped) == 1


@pytest.mark.parametrize("left", [0, 1, 2])
def test_process_ends_with_keep_what_is_left_to_the_kernel_and_takes_it_away_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    leaving, nothing = node(), lambda *_: None
    leaving.loop = cast(Any, SimpleNamespace(on_signal=nothing, stop=nothing, run=nothing, close=nothing))
    leaving._footprint = cast(Any, SimpleNamespace(install=nothing, release=nothing))
    monkeypatch.setattr(leaving, "installed", nothing)
    monkeypatch.setattr(leaving, "on_leave", lambda: left)
    monkeypatch.setattr(leaving, "_take_care", nothing)
    monkeypatch.setattr(node_module, "_spare_the_collector", nothing)
    with caplog.at_level(logging.INFO):
        leaving.run(cast(Plan, None), keep=True)
    assert caplog.messages == [
        f"kept for the next start; connections left to the kernel: {left}; --clean takes away what is kept",
        "fe stopped",
    ]
