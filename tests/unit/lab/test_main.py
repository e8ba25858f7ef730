"""Usage of the command; what it does is tested in tests/cluster/test_lab.py."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from tcpha.lab import certificate, cluster, namespaces, nginx, redis
from tcpha.lab.__main__ import main

NO_COMMAND = "exec needs `--` and a command behind it: exec NODE -- CMD..."


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "up|exec|impair|down|status|sim"),
        (["sideways"], "'sideways'"),
        (["exec"], NO_COMMAND),
        (["exec", "client"], NO_COMMAND),
        (["exec", "client", "--"], NO_COMMAND),
        (["exec", "--", "true"], "NODE"),
        (["exec", "client", "true"], NO_COMMAND),
        (["exec", "client", "curl", "-si", "http://198.18.0.36/"], NO_COMMAND),
        (["down", "--", "true"], "down takes no command"),
        (["up", "--backends", "two"], "'two'"),
        (["up", "--engine", "steam"], "'steam'"),
        (["up", "--routed", "--client-mtu", "small"], "'small'"),
        (["impair", "be1", "--delay", "-5ms"], "'-5ms' is no delay: 0s to 10s, such as 20ms or 0.02s"),
        (["impair", "be1", "--loss", "-2%"], "'-2%' is no share: 0% to 100%"),
        (["impair", "be1", "--loss", "-.2"], "'-.2' is no share: 0% to 100%"),
        (["impair", "be1", "--delay", "20"], "'20' is no delay"),
        (["impair", "be1", "--reorder-depth", "deep"], "'deep'"),
    ],
)
def test_command_of_wrong_usage_ends_with_2_and_one_line(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("tcpha.lab: ")
    assert reason in said
    assert re.fullmatch(r".* \(more: .*-m tcpha\.lab.* -h\)\n", said)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["off", "be1"], "off comes after NODE[:PEER]: impair NODE[:PEER] off"),
        (["off"], "off comes after NODE[:PEER]: impair NODE[:PEER] off"),
        (["be1", "fe"], "'fe' is neither an option nor off"),
        (["be1", "--reorder-depth", "5"], "--reorder-depth says by how many packets others are overtaken"),
        (["be1", "--loss", "1%", "--reorder-depth", "5"], "give --reorder, too"),
        (["be1", "--reorder", "1%", "--by", "netem"], "--by netem: it does not count who overtakes whom (--reorder)"),
        (["be1", "--loss", "1%", "--seed", "1", "--by", "netem"], "--by netem: it takes no seed on every kernel"),
        (["be1", "off", "--loss", "1%"], "off takes an impairment away: it goes with no option"),
        (["be1"], "nothing to do: give --loss, --duplicate, --reorder or --delay, or off"),
    ],
)
def test_impair_of_wrong_usage_ends_with_2_and_one_line_before_a_lab_is_looked_for(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["impair", "--name", "never-up", *words]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.startswith("tcpha.lab: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["--loss", "0"], ["--delay", "0"], ["--delay", "0ms"], ["--reorder", "0%"]])
def test_impair_by_nothing_of_a_kind_is_no_impairment_of_that_kind(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["impair", "--name", "never-up", "be1", *words]) == 2
    assert "there is no lab never-up" in capsys.readouterr().err, "the words themselves are accepted"


def test_impair_help_says_what_the_kernel_needs_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["impair", "-h"])
    said = capsys.readouterr().out
    netem_way, queue_way = said.split("--by netem  ")[1].split("--by queue  ")
    assert "sch_netem" in netem_way
    assert "br_netfilter" not in netem_way
    for module in ("br_netfilter", "nfnetlink_queue", "xt_NFQUEUE", "xt_physdev"):
        assert module in queue_way


def test_up_help_says_what_one_file_alone_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", "-h"])
    said = " ".join(capsys.readouterr().out.split())
    assert "without --be-conf the back ends keep the lab's own file" in said
    assert "without --fe-conf the front end keeps the lab's own" in said


def test_status_of_a_lab_that_does_not_stand_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", "never-up"]) == 2
    assert "there is no lab never-up; bring it up: " in capsys.readouterr().err


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
