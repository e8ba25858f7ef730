"""The run time of programs in the kernel: each once, of processes that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import programs
from tcpha.errors import EdgeError, StartError

PROGRAM = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_tag:\t0\nprog_id:\t{}\nrun_time_ns:\t{}\nrun_cnt:\t5\n"
LINK = "pos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\t0\nprog_id:\t7\nifindex:\t2\n"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(programs, "_PROC", tmp_path)
    return tmp_path


def holding(proc: Path, pid: int, *files: str) -> None:
    (proc / str(pid) / "fdinfo").mkdir(parents=True)
    for number, text in enumerate(files):
        (proc / str(pid) / "fdinfo" / str(number)).write_text(text)


def test_program_is_held_by_two_it_counts_once(proc: Path) -> None:
    holding(proc, 1, "pos:\t0\n", PROGRAM.format(7, 1_500_000_000), PROGRAM.format(8, 250_000_000), LINK)
    holding(proc, 2, PROGRAM.format(7, 1_500_000_000))
    assert programs.run_time_s([1, 2]) == 1.75
    assert programs.run_time_s([2]) == 1.5


def test_process_is_gone_or_has_none_it_counts_nothing(proc: Path) -> None:
    holding(proc, 1, "pos:\t0\n")
    assert programs.run_time_s([1, 99]) == 0


def test_kernel_does_not_let_us_count_it_is_a_start_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> int:
        raise EdgeError("not permitted")

    monkeypatch.setattr(programs, "call", refuse)
    with pytest.raises(StartError, match="not permitted"), programs.counted():
        pass
