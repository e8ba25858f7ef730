"""How samples of a profiler become microseconds per answer and purpose."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module

import pytest

from bench.breakdown import IN_THE_KERNEL, Breakdown, shares, table

STACKS = [
    "main (tcpha/program.py:9);FrontEnd._pass_on (tcpha/fe/service.py:190);LinkSender.send (tcpha/net/link.py:66) 60",
    "main (tcpha/program.py:9);EpollSelector.select (selectors.py:468) 10",
    "main (tcpha/program.py:9);decode_segment (tcpha/proto/tcp.py:120) 20",
    "main (tcpha/program.py:9);send (tcpha/net/link.py:66) 10",
]


def test_innermost_frame_says_what_a_sample_is_for() -> None:
    assert shares(STACKS) == {"packets sent to a back end": 0.6, "Python": 0.3, "waiting": 0.1}


def test_what_is_not_python_is_the_kernels() -> None:
    found = Breakdown(200.0, shares(STACKS))
    assert found.us("Python") == pytest.approx(60)
    assert found.us("messages sent") == 0
    assert found.kernel_us == pytest.approx(140)


def test_table_has_the_dearest_first_and_the_sums_last() -> None:
    found = {"fe": Breakdown(200.0, shares(STACKS)), "be": Breakdown(10.0, {"Python": 1.0})}
    assert table(found).splitlines() == [
        "| us | fe | be |",
        "| --- | ---: | ---: |",
        "| packets sent to a back end | 120 | 0 |",
        "| Python | 60 | 10 |",
        "| waiting | 20 | 0 |",
        "| all system calls | 140 | 0 |",
        "| in all | 200 | 10 |",
    ]


@pytest.mark.parametrize(("name", "file"), sorted(IN_THE_KERNEL))
def test_function_that_makes_the_system_call_is_where_it_is_said_to_be(name: str, file: str) -> None:
    module = import_module(file.removesuffix(".py").replace("/", "."))
    found: object = module
    for part in name.split("."):
        found = getattr(found, part)
    assert inspect.isfunction(found)
    assert sys.modules[found.__module__] is module
