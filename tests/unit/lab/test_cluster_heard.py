"""When the front end of a lab has heard its back ends, as its log tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.lab.cluster import Lab

LATE = "INFO tcpha.fe: be 198.18.0.33 is up\nWARNING tcpha: fe ready; not heard of yet: 198.18.0.33, 198.18.0.38\n"


@pytest.mark.parametrize(
    ("said", "is_heard"),
    [
        ("INFO tcpha: fe ready\n", True),
        (LATE, False),
        (LATE + "INFO tcpha.fe: be 198.18.0.38 is not used: not heard of yet\n", False),
        (LATE + "INFO tcpha.fe: be 198.18.0.38 is up\n", True),
        (LATE + "INFO tcpha.fe: be 198.18.0.38 is up, but 198.18.0.36 port 80: not probed\n", True),
        (LATE + "WARNING tcpha.fe: be 198.18.0.38 is not used: full\n", True),
    ],
)
def test_front_end_is_ready_before_it_has_heard_everybody_the_lab_waits_for_these(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, is_heard: bool
) -> None:
    log, lab = tmp_path / "fe.log", Lab("heard")
    log.write_text(said)
    monkeypatch.setattr(lab, "log", lambda _node: log)
    assert lab._is_heard() is is_heard
