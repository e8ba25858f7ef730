"""Usage of the command; what it does is tested in tests/cluster/test_lab.py."""

from __future__ import annotations

import pytest

from tcpha.lab import cluster
from tcpha.lab.__main__ import main


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["sideways"],
        ["exec"],
        ["exec", "client"],
        ["exec", "client", "--"],
        ["exec", "--", "true"],
        ["exec", "client", "true"],
        ["down", "--", "true"],
        ["up", "--backends", "two"],
        ["up", "--engine", "steam"],
    ],
)
def test_command_of_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize("action", [["up"], ["down"], ["exec", "client"]])
def test_command_with_an_impossible_name_ends_with_2(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--", "true"] if action[0] == "exec" else []
    assert main([*action, "--name", "a/b", *command]) == 2
    assert "'a/b' is no name for a lab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--backends", "0"], "1 to 217 back ends"),
        (["--server", ""], "the server command is empty"),
        (["--server", "sh -c 'open"], "cannot be read: No closing quotation"),
    ],
)
def test_up_of_an_impossible_lab_ends_with_2(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--name", "never-up", *words]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["network namespaces need root", "nginx is not installed"])
def test_up_on_a_machine_that_cannot_ends_with_2(
    reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "obstacle", lambda **_: reason)
    assert main(["up", "--name", "never-up"]) == 2
    assert capsys.readouterr().err == f"tcpha.lab: {reason}\n"
