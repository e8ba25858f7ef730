"""How programs ended is written down by their parent, which outlives the command that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.lab.waiting import wait_until

SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from tcpha.lab.keeper import run_kept

def work():
    print("working", flush=True)
    {work}

sys.exit(run_kept(work))
"""
STARTED = """
    children = [subprocess.Popen(["sh", "-c", line], stdout=-3, stderr=-3) for line in sys.argv[2:]]
    return 0, {child.pid: Path(sys.argv[1], str(place)) for place, child in enumerate(children)}
"""


def command(work: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", SCRIPT.format(work=work.strip()), *map(str, arguments)]


def test_command_has_ended_how_its_children_end_is_written_down(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while ! test -e {gate}; do sleep 0.01; done"
    done = subprocess.run(
        command(STARTED, tmp_path, f"{wait}; exit 3", f"{wait}; kill -9 $$"),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n", "")
    records = [tmp_path / "0", tmp_path / "1"]
    assert [record.read_text() for record in records] == ["", ""]
    gate.touch()
    assert wait_until(lambda: all(record.read_text() for record in records), 5.0)
    assert [record.read_text().split()[1] for record in records] == ["3", "-9"]


def test_reader_has_gone_how_children_end_is_written_down_and_nothing_is_said(tmp_path: Path) -> None:
    closed, gate = tmp_path / "closed", tmp_path / "gate"
    wait_for = "while ! test -e {}; do sleep 0.01; done"
    work = f'subprocess.run({wait_for.format(closed)!r}, shell=True, check=True); print("not read")\n{STARTED}'
    with subprocess.Popen(
        command(work, tmp_path, f"{wait_for.format(gate)}; exit 3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # what is printed leaves when it is flushed
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"working\n"
        running.stdout.close()
        closed.touch()
        assert running.stderr.read() == b""
    assert running.returncode == 0
    gate.touch()
    record = tmp_path / "0"
    assert wait_until(lambda: bool(record.read_text()), 5.0)
    assert record.read_text().split()[1] == "3"


@pytest.mark.parametrize(
    ("work", "status"),
    [("return 0, {}", 0), ("return 2, {}", 2), ("raise ValueError", 1), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_work_ends_without_children_its_status_is_the_commands(work: str, status: int) -> None:
    done = subprocess.run(command(work), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status
    assert ("ValueError" in done.stderr) is (status == 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_is_asked_to_end_its_work_is_asked(number: signal.Signals) -> None:
    work = f"""
    import signal
    signal.signal({int(number)}, lambda *_: sys.exit(int(bool(print("asked", flush=True)))))
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(command(work), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline(), process.stdout.readline()] == ["working\n", "ready\n"]
            process.send_signal(number)
            assert process.stdout.readline() == "asked\n"
            process.wait(10)
        finally:
            process.kill()


def test_command_is_killed_its_work_ends_too() -> None:
    work = "time.sleep(60)"
    with subprocess.Popen(command(work), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.kill()
        # The end of file comes when nobody holds the stream any more.
        assert select.select([process.stdout], [], [], 10.0)[0]
        assert process.stdout.read() == ""
