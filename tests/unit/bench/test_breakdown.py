"""How samples of a profiler become microseconds per answer and purpose."""

from __future__ import annotations

import linecache
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench import breakdown
from bench.breakdown import (
    PYTHON,
    SYSTEM_CALLS,
    WAITING,
    Breakdown,
    SystemCall,
    answered,
    await_end,
    heading,
    lines_of,
    middle,
    places,
    samples,
    shares,
    table,
)
from bench.load import WrkReport
from bench.noise import Observation
from tcpha.errors import StartError

KNOWN = {("tcpha/net/link.py", 66): "packets sent", ("selectors.py", 468): WAITING}
STACKS = [
    "main (tcpha/program.py:9);FrontEnd._pass_on (tcpha/fe/service.py:190);LinkSender.send (tcpha/net/link.py:66) 60",
    "main (tcpha/program.py:9);EpollSelector.select (selectors.py:468) 10",
    "main (tcpha/program.py:9);decode_segment (tcpha/proto/tcp.py:120) 15",
    "main (tcpha/program.py:9);EpollSelector.select (selectors.py:470) 5",
    "main (tcpha/program.py:9);LinkSender.send (tcpha/net/link.py:67) 10",
]
REPORT = WrkReport(1.0, 3000, 3_000_000, 4, 0, 1.0, 1.0, 1.0)


def test_innermost_line_says_what_a_sample_is_for() -> None:
    assert shares(STACKS, KNOWN) == {"packets sent": 0.6, PYTHON: 0.3, WAITING: 0.1}


@pytest.mark.parametrize("stacks", [[], STACKS[2:]])
def test_no_sample_of_a_system_call_it_is_told(stacks: list[str]) -> None:
    with pytest.raises(StartError, match="none is of a line that makes a system call"):
        shares(stacks, KNOWN)


def test_what_is_neither_python_nor_waiting_is_the_kernels() -> None:
    found = Breakdown(200.0, shares(STACKS, KNOWN))
    assert found.us(PYTHON) == pytest.approx(60)
    assert found.us("messages sent") == 0
    assert found.kernel_us == pytest.approx(120)


def test_table_has_the_dearest_call_first_and_waiting_apart() -> None:
    found = {"fe": Breakdown(200.0, shares(STACKS, KNOWN), 1234.0), "be": Breakdown(10.0, {PYTHON: 0.9, "b": 0.1})}
    assert table(found).splitlines() == [
        "| us | fe | be |",
        "| --- | ---: | ---: |",
        "| Python | 60 | 9 |",
        "| packets sent | 120 | 0 |",
        "| b | 0 | 1 |",
        "| all system calls | 120 | 1 |",
        "| waiting | 20 | 0 |",
        "| in all | 200 | 10 |",
        "| answers/s | 1,234 | 0 |",
    ]


def test_run_in_the_middle_is_taken_as_it_was() -> None:
    runs = [Breakdown(us, {PYTHON: 1.0}) for us in (300.0, 100.0, 200.0)]
    assert middle(runs) is runs[2]


@pytest.mark.parametrize("call", SYSTEM_CALLS, ids=lambda call: call.function)
def test_line_of_every_system_call_is_where_it_is_said_to_be(call: SystemCall) -> None:
    numbers = lines_of(call)
    module = sys.modules[call.file.removesuffix(".py").replace("/", ".")]
    for line in numbers:
        assert call.call in linecache.getline(str(module.__file__), line)
        assert places()[call.file, line] == call.purpose


@pytest.mark.parametrize(
    "changes", [{"function": "LinkSender.gone"}, {"function": "LinkSender"}, {"call": ".sendmsg("}]
)
def test_function_has_no_such_line_it_is_told(changes: dict[str, str]) -> None:
    call = replace(SYSTEM_CALLS[0], **changes)
    with pytest.raises(StartError, match=r"tcpha/net/link\.py.* has no "):
        lines_of(call)


def test_some_requests_fail_they_are_answered_all_the_same() -> None:
    assert answered(REPORT) is REPORT


@pytest.mark.parametrize("changes", [{"failed": 5}, {"refused": 1}, {"requests": 0, "failed": 0}])
def test_load_was_not_answered_it_is_told(changes: dict[str, int]) -> None:
    with pytest.raises(StartError, match="requests were answered"):
        answered(replace(REPORT, **changes))


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_profiler_fails_its_words_are_told() -> None:
    with started("import sys; sys.exit('no right')") as sampling, pytest.raises(StartError, match="status 1: no right"):
        await_end(sampling)


def test_profiler_does_not_end_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "SECONDS", 0.01)
    with started("input()") as sampling, pytest.raises(StartError, match="did not end"):
        await_end(sampling)


def test_no_profiler_no_lab_is_set_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.breakdown.cluster.obstacle", lambda: None)
    monkeypatch.setattr(breakdown, "obstacle", lambda _contenders: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.breakdown.sys.executable", str(tmp_path / "python"))
    assert breakdown.main([]) == 2
    assert "py-spy is not installed; tools/bootstrap bench .venv installs" in capsys.readouterr().err


def test_profiler_is_beside_the_interpreter_before_it_is_looked_for_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.breakdown.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert breakdown.find_py_spy() is None
    for directory in (tmp_path / "path", tmp_path):
        directory.mkdir(exist_ok=True)
        (directory / "py-spy").touch(0o755)
        assert breakdown.find_py_spy() == str(directory / "py-spy")


def test_first_line_says_rates_samples_and_what_others_used() -> None:
    found = {"front end": Breakdown(200.0, {}, 2460.4, samples(STACKS)), "agent of be1": Breakdown(9.0, {}, 1.0, 3900)}
    assert heading(found, True, Observation(1, 0.5, 0.07, 0.01)) == (
        "1 KB, 32 new connections at a time; front end 2,460/s, 100 samples; agent of be1 1/s, 3,900 samples;"
        " before that others used 7% of the processors, stolen 1%"
    )
    assert "32 requests on open connections" in heading(found, False, Observation(1, 0.5, 0.07, 0.01))
