from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tcpha.deadlines import Deadlines


@dataclass(eq=False)
class Waiter:
    deadline: float = inf


def test_none_next_is_never() -> None:
    assert Deadlines[Waiter]().next() == inf


def test_set_is_due_at_its_time_once() -> None:
    deadlines, waiter = Deadlines[Waiter](), Waiter()
    deadlines.set(waiter, 5.0)
    assert deadlines.next() == 5.0
    assert list(deadlines.due(4.999)) == []
    assert list(deadlines.due(5.0)) == [waiter]
    assert waiter.deadline == inf
    assert list(deadlines.due(9.0)) == []
    assert deadlines.next() == inf


def test_set_again_replaces_the_earlier_deadline() -> None:
    deadlines, waiter = Deadlines[Waiter](), Waiter()
    for deadline in (5.0, 3.0, 7.0, 7.0):
        deadlines.set(waiter, deadline)
    assert deadlines.next() == 7.0
    assert list(deadlines.due(6.9)) == []
    assert list(deadlines.due(7.0)) == [waiter]


def test_clear_wakes_no_more() -> None:
    deadlines, waiter = Deadlines[Waiter](), Waiter()
    deadlines.set(waiter, 5.0)
    deadlines.clear(waiter)
    assert deadlines.next() == inf
    assert list(deadlines.due(9.0)) == []


def test_set_to_never_is_clear() -> None:
    deadlines, waiter = Deadlines[Waiter](), Waiter()
    deadlines.set(waiter, 5.0)
    deadlines.set(waiter, inf)
    assert list(deadlines.due(9.0)) == []


def test_set_while_due_is_woken_in_the_same_round_if_it_is_time() -> None:
    deadlines, waiter = Deadlines[Waiter](), Waiter()
    deadlines.set(waiter, 1.0)
    woken = []
    for each in deadlines.due(2.0):
        woken.append(each.deadline)
        if len(woken) < 3:
            deadlines.set(each, 1.5 + len(woken))
    assert woken == [inf]
    assert deadlines.next() == 2.5


def test_equal_deadlines_are_due_in_the_order_they_were_set() -> None:
    deadlines, waiters = Deadlines[Waiter](), [Waiter() for _ in range(5)]
    for waiter in waiters:
        deadlines.set(waiter, 1.0)
    assert list(deadlines.due(1.0)) == waiters


def test_set_in_turn_between_others_all_are_due_in_the_order_of_their_time() -> None:
    deadlines, waiters = Deadlines[Waiter](), [Waiter() for _ in range(5)]
    deadlines.set(waiters[3], 4.0)
    for index, deadline in ((1, 2.0), (2, 3.0), (0, 1.0)):
        deadlines.set_in_turn(waiters[index], deadline)
    deadlines.set(waiters[4], 5.0)
    assert deadlines.next() == 1.0
    assert list(deadlines.due(9.0)) == waiters


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(1, 20), st.booleans()), max_size=40))
def test_any_calls_wake_each_at_its_last_deadline(calls: list[tuple[int, int | None, bool]]) -> None:
    deadlines, waiters = Deadlines[Waiter](), [Waiter() for _ in range(5)]
    expected: dict[int, float] = {}
    for index, deadline, in_turn in calls:
        if deadline is None:
            deadlines.clear(waiters[index])
            expected.pop(index, None)
        else:
            (deadlines.set_in_turn if in_turn else deadlines.set)(waiters[index], deadline)
            expected[index] = deadline
    assert deadlines.next() == min(expected.values(), default=inf)
    for now in range(1, 21):
        due = {waiters.index(each) for each in deadlines.due(now)}
        assert due == {index for index, deadline in expected.items() if deadline == now}


def test_deadlines_moved_often_do_not_fill_the_heap() -> None:
    deadlines, waiters = Deadlines[Waiter](), [Waiter() for _ in range(10)]
    for step in range(10_000):
        deadlines.set(waiters[step % 10], 1e9 + step)
    assert len(deadlines._heap) <= 64
    assert len(list(deadlines.due(2e9))) == 10
