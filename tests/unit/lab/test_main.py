"""Usage of the command; what it does is tested in tests/cluster/test_lab.py."""

from __future__ import annotations

from types import ModuleType

import pytest

from tcpha.lab import certificate, cluster, namespaces, nginx, redis
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
        ["up", "--routed", "--client-mtu", "small"],
    ],
)
def test_command_of_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize("action", [["up"], ["down"], ["exec", "client"], ["impair", "fe", "off"]])
def test_command_with_an_impossible_name_ends_with_2(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--", "true"] if action[0] == "exec" else []
    assert main([*action, "--name", "a/b", *command]) == 2
    assert "'a/b' is no name for a lab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--backends", "0"], "1 to 217 back ends"),
        (["--client-mtu", "1400"], "an MTU of 1400 towards the client needs a router"),
        (["--routed", "--client-mtu", "1279"], "the MTU towards the client is 1280 to 1500, not 1279"),
        (["--routed", "--backend-mtu", "9000"], "the MTU towards the back ends is 1280 to 1500, not 9000"),
        (["--server", ""], "the server command is empty"),
        (["--server", "none", "--protocols"], "only the lab's own nginx speaks further protocols"),
        (["--server", "sh -c 'open"], "cannot be read: No closing quotation"),
    ],
)
def test_up_of_an_impossible_lab_ends_with_2(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--name", "never-up", *words]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("missing", [redis, certificate])
def test_up_with_protocols_where_a_program_is_missing_ends_with_2(
    missing: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (nginx, redis, certificate):
        monkeypatch.setattr(module, "find_program", lambda: "/somewhere/program")
    monkeypatch.setattr(missing, "find_program", lambda: None)
    monkeypatch.setattr(namespaces, "fault", lambda: None)
    assert cluster.obstacle() is None
    assert main(["up", "--name", "never-up", "--protocols"]) == 2
    program = {redis: "redis-server", certificate: "openssl"}[missing]
    assert capsys.readouterr().err == f"tcpha.lab: {program} is not installed\n"


@pytest.mark.parametrize("reason", ["network namespaces need root", "nginx is not installed"])
def test_up_on_a_machine_that_cannot_ends_with_2(
    reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "obstacle", lambda **_: reason)
    assert main(["up", "--name", "never-up"]) == 2
    assert capsys.readouterr().err == f"tcpha.lab: {reason}\n"
