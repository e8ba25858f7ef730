"""Process 1, as a playbook: what it does when signals come, children end and time runs out."""

from __future__ import annotations

import signal
from math import inf

import pytest

from tcpha.container.supervision import STOP_LIMIT_S, Action, Ended, Pass, Say, Supervision

TERM_AGENT = Pass("agent", signal.SIGTERM)
TERM_SERVER = Pass("server", signal.SIGTERM)
NOW = 100.0


@pytest.fixture
def both() -> Supervision:
    return Supervision({"agent", "server"})


@pytest.fixture
def alone() -> Supervision:
    return Supervision({"agent"})


def passed(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, Pass)]


def said(actions: list[Action]) -> list[str]:
    return [action.text for action in actions if isinstance(action, Say)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_asked_to_stop_agent_is_first_then_server_and_status_is_0(both: Supervision, number: signal.Signals) -> None:
    assert both.on_signal(number, NOW) == [Say(f"{number.name}: stopping"), TERM_AGENT]
    assert both.deadline == NOW + STOP_LIMIT_S
    assert both.on_end("agent", Ended(0), NOW + 1) == [TERM_SERVER]
    assert not both.is_over
    assert both.on_end("server", Ended(0), NOW + 2) == []
    assert (both.is_over, both.result) == (True, 0)


def test_stopping_asked_again_nothing_more_is_done(both: Supervision) -> None:
    both.on_signal(signal.SIGTERM, NOW)
    assert both.on_signal(signal.SIGINT, NOW + 1) == []
    assert both.deadline == NOW + STOP_LIMIT_S


def test_stopping_agent_fails_its_status_is_the_containers(both: Supervision) -> None:
    both.on_signal(signal.SIGTERM, NOW)
    assert both.on_end("agent", Ended(1), NOW) == [Say("the agent ended with exit status 1"), TERM_SERVER]
    both.on_end("server", Ended(7), NOW)
    assert both.result == 1


def test_stopping_agent_dies_of_the_signal_it_was_stopped_with_that_is_as_asked(both: Supervision) -> None:
    both.on_signal(signal.SIGINT, NOW)
    assert both.on_end("agent", Ended(0, signal.SIGTERM), NOW) == [TERM_SERVER]
    both.on_end("server", Ended(0, signal.SIGTERM), NOW)
    assert both.result == 0


def test_nobody_asked_agent_dies_of_that_signal_all_the_same_container_fails(alone: Supervision) -> None:
    alone.on_end("agent", Ended(0, signal.SIGTERM), NOW)
    assert alone.result == 143


def test_stopping_server_ends_first_agent_is_still_waited_for(both: Supervision) -> None:
    both.on_signal(signal.SIGTERM, NOW)
    both.on_end("server", Ended(3), NOW)
    assert not both.is_over
    both.on_end("agent", Ended(0), NOW)
    assert (both.is_over, both.result) == (True, 0)


@pytest.mark.parametrize(
    ("how", "text", "status"),
    [
        (Ended(2), "the agent ended with exit status 2: stopping", 2),
        (Ended(0), "the agent ended with exit status 0: stopping", 1),
        (Ended(0, 9), "the agent ended by signal 9: stopping", 137),
    ],
)
def test_agent_ends_by_itself_server_is_stopped_and_the_status_tells(
    both: Supervision, how: Ended, text: str, status: int
) -> None:
    assert both.on_end("agent", how, NOW) == [Say(text), TERM_SERVER]
    assert both.on_end("server", Ended(0), NOW) == []
    assert both.result == status


@pytest.mark.parametrize(("how", "status"), [(Ended(127), 127), (Ended(0, 11), 139), (Ended(0), 1)])
def test_server_ends_by_itself_container_says_so_stops_the_agent_and_fails(
    both: Supervision, how: Ended, status: int
) -> None:
    actions = both.on_end("server", how, NOW)
    assert said(actions) == [f"the server ended {how}: stopping"]
    assert passed(actions) == [TERM_AGENT]
    assert both.on_end("agent", Ended(0), NOW) == []
    assert (both.is_over, both.result) == (True, status)


def test_server_ended_by_itself_agent_fails_too_the_first_status_counts(both: Supervision) -> None:
    both.on_end("server", Ended(5), NOW)
    both.on_end("agent", Ended(1), NOW)
    assert both.result == 5


def test_front_end_has_no_server_its_end_is_the_containers(alone: Supervision) -> None:
    assert said(alone.on_end("agent", Ended(2), NOW)) == ["the agent ended with exit status 2: stopping"]
    assert (alone.is_over, alone.result) == (True, 2)


def test_stopping_takes_too_long_what_lives_is_killed_once(both: Supervision) -> None:
    assert both.on_timer(NOW + 1e9) == []
    both.on_signal(signal.SIGTERM, NOW)
    assert both.on_timer(NOW + STOP_LIMIT_S - 0.1) == []
    actions = both.on_timer(NOW + STOP_LIMIT_S)
    assert said(actions) == [f"not ended after {STOP_LIMIT_S:g} s, killed: agent, server"]
    assert passed(actions) == [Pass("agent", signal.SIGKILL), Pass("server", signal.SIGKILL)]
    assert both.deadline == inf
    assert both.on_timer(NOW + 1e9) == []
    both.on_end("agent", Ended(0, 9), NOW + 9)
    both.on_end("server", Ended(0, 9), NOW + 9)
    assert both.result == 1


def test_counters_are_asked_for_the_agent_is(both: Supervision) -> None:
    assert both.on_signal(signal.SIGUSR1, NOW) == [Pass("agent", signal.SIGUSR1)]


def test_reload_is_asked_for_server_gets_it_or_the_agent_where_there_is_none(
    both: Supervision, alone: Supervision
) -> None:
    assert both.on_signal(signal.SIGHUP, NOW) == [Pass("server", signal.SIGHUP)]
    assert alone.on_signal(signal.SIGHUP, NOW) == [Pass("agent", signal.SIGHUP)]


def test_agent_has_ended_no_signal_is_passed_to_it(both: Supervision) -> None:
    both.on_end("agent", Ended(0), NOW)
    assert both.on_signal(signal.SIGUSR1, NOW) == []
