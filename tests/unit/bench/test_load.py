"""What wrk is told and what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import cast

import pytest

from bench.checking_client import Target
from bench.load import LoadError, read_report, run_wrk, script_for_one_document, script_for_pages
from tcpha.lab.node import Node

LINE = (
    'bench {"seconds":4.0,"requests":1200,"octets":1500000,"failed":2,"refused":0,'
    '"p50_ms":1.25,"p90_ms":2.0,"p99_ms":9.125}'
)


def test_report_is_found_among_what_wrk_prints() -> None:
    report = read_report(f"Running 4s test\n  1 threads\n{LINE}\n")
    assert (report.seconds, report.requests, report.octets, report.failed) == (4.0, 1200, 1_500_000, 2)
    assert report.latencies_ms == {"p50_ms": 1.25, "p90_ms": 2.0, "p99_ms": 9.125}


def test_no_report_is_an_error() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        read_report("unable to connect to 198.18.0.36:80")


def test_pages_are_in_the_script_in_order() -> None:
    text = script_for_pages([(3, 0, 7), (1, 2)], "/site", threads=4)
    assert text.index("{3, 0, 7},") < text.index("{1, 2},")
    assert "#pages / 4" in text
    assert '"/site/"' in text
    assert text.endswith(script_for_one_document())


class Client:
    """Stands in for the client's node: its programs do not end."""

    def run(self, command: list[str], *, limit_s: float) -> object:
        raise subprocess.TimeoutExpired(command, limit_s)


def test_wrk_does_not_end_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.shutil.which", lambda _name: "/usr/bin/wrk")
    with pytest.raises(LoadError, match="did not end within 30 s behind its 4 s"):
        run_wrk(cast(Node, Client()), Target("198.18.0.36", 80), "/", Path("one.lua"), connections=1, seconds=4)
