from __future__ import annotations

from pathlib import Path

import pytest

from tcpha.config import load_front_end
from tcpha.lab.addressing import plan
from tcpha.lab.configuration import Settings, back_end, completed, forwarding_lines, front_end, readdressed, secret_text

SECRET, STATE = Path("/lab/secret"), Path("/lab/fe/state")
LOCAL = "iface = eth0\nsecret = /lab/secret\nstate = /lab/fe/state\n"


def test_front_end_default_is_the_example_of_the_original() -> None:
    assert front_end(plan(2), SECRET, STATE, Settings()) == (
        "# Made by python -m tcpha.lab.\n"
        "raddr = 198.18.0.23\n"
        "vaddr = 198.18.0.36\n"
        "vaddr = fd00:198:18::36\n"
        "vport = 80\n"
        "server = 198.18.0.33 666\n"
        "server = 198.18.0.38 666\n"
        "rule = 198.18.0.38 jpg$\n"
        "rule = 198.18.0.33 .*\n" + LOCAL
    )


def test_back_end_default_names_itself_and_the_front_end() -> None:
    lab = plan(2)
    assert back_end(lab, lab.backends[1], SECRET, STATE, Settings()) == (
        "# Made by python -m tcpha.lab.\n"
        "raddr = 198.18.0.38\n"
        "uaddr = 198.18.0.254\n"
        "uaddr = fd00:198:18::254\n"
        "fe = 198.18.0.23 666\n"
        "vaddr = 198.18.0.36\n"
        "vaddr = fd00:198:18::36\n"
        "vport = 80\n"
        "server = 198.18.0.33 666\n"
        "server = 198.18.0.38 666\n"
        "rule = 198.18.0.38 jpg$\n"
        "rule = 198.18.0.33 .*\n" + LOCAL
    )


def test_lab_with_protocols_has_their_ports_and_rules_on_all_nodes() -> None:
    lab = plan(2)
    front = front_end(lab, SECRET, STATE, Settings(), protocols=True)
    back = back_end(lab, lab.backends[1], SECRET, STATE, Settings(), protocols=True)
    for text in (front, back):
        assert values(text, "vport") == ["80", "443", "8080", "6379"]
        assert values(text, "rule") == [
            "198.18.0.38 jpg$",
            r"198.18.0.38 host=^img\.lab\.test$",
            "198.18.0.38 header.upgrade=(?i)^websocket$",
            r"198.18.0.38 port=443 sni=^img\.lab\.test$",
            r"198.18.0.33 port=443 sni=^www\.lab\.test$",
            "198.18.0.38 port=443 alpn=^h2(,|$)",
            "198.18.0.33 port=443",
            "198.18.0.38 port=6379 octets=^[A-Za-z]",
            "198.18.0.33 port=6379",
            "198.18.0.33 .*",
        ]


@pytest.mark.parametrize("backends", [1, 2])
def test_lab_with_protocols_has_rules_of_which_nobody_is_warned(tmp_path: Path, backends: int) -> None:
    lab = plan(backends)
    file = tmp_path / "tcphafe.conf"
    file.write_text(front_end(lab, SECRET, STATE, Settings(), protocols=True))
    config = load_front_end(file)
    assert len(config.rule) == 9 + (backends > 1)
    assert config.warnings() == ()


def test_routed_lab_front_end_forwards_by_tunnel_and_names_the_back_ends_addresses() -> None:
    assert front_end(plan(2, routed=True), SECRET, STATE, Settings()) == (
        "# Made by python -m tcpha.lab.\n"
        "raddr = 198.18.0.23\n"
        "vaddr = 198.18.0.36\n"
        "vaddr = fd00:198:18::36\n"
        "vport = 80\n"
        "server = 198.18.1.33 666\n"
        "server = 198.18.1.38 666\n"
        "rule = 198.18.1.38 jpg$\n"
        "rule = 198.18.1.33 .*\n" + LOCAL + "forward = tunnel\n"
    )


def test_routed_lab_back_end_is_told_no_way_of_forwarding() -> None:
    lab = plan(2, routed=True)
    text = back_end(lab, lab.backends[1], SECRET, STATE, Settings())
    assert values(text, "forward") == []
    assert (values(text, "raddr"), values(text, "fe")) == (["198.18.1.38"], ["198.18.0.23 666"])
    assert values(text, "uaddr") == ["198.18.1.254", "fd00:198:18:1::254"]


def test_routed_lab_settings_replace_the_way_of_forwarding() -> None:
    text = front_end(plan(2, routed=True), SECRET, STATE, Settings(fe=("forward = direct",)))
    assert values(text, "forward") == ["direct"]


def test_one_back_end_has_the_catch_all_rule_only() -> None:
    text = front_end(plan(1), SECRET, STATE, Settings())
    assert values(text, "rule") == ["198.18.0.33 .*"]
    assert values(text, "server") == ["198.18.0.33 666"]


def test_settings_replace_every_line_of_their_key_and_no_other() -> None:
    lab = plan(2)
    settings = Settings(both=("rule = 198.18.0.33 a=b",), fe=("log = debug", "iface=lo"), be=("hold_time = 1 s",))
    front = front_end(lab, SECRET, STATE, settings)
    back = back_end(lab, lab.backends[0], SECRET, STATE, settings)
    assert values(front, "rule") == values(back, "rule") == ["198.18.0.33 a=b"]
    assert (values(front, "log"), values(back, "log")) == (["debug"], [])
    assert (values(front, "iface"), values(back, "iface")) == (["lo"], ["eth0"])
    assert (values(front, "hold_time"), values(back, "hold_time")) == ([], ["1 s"])
    assert values(front, "server") == ["198.18.0.33 666", "198.18.0.38 666"]


def test_completed_file_that_sets_nothing_gets_all_lines_behind_its_own() -> None:
    assert completed("# comment\nraddr = 1.2.3.4", SECRET, STATE) == "# comment\nraddr = 1.2.3.4\n" + LOCAL


@pytest.mark.parametrize(
    ("text", "routed", "expected"), [("", True, ["tunnel"]), ("", False, []), ("forward = x\n", True, ["x"])]
)
def test_completed_file_forwards_as_the_lab_does_unless_it_says(text: str, routed: bool, expected: list[str]) -> None:
    further = forwarding_lines(plan(1, routed=routed))
    assert values(completed(text, SECRET, STATE, further), "forward") == expected


@pytest.mark.parametrize("line", ["secret = /mine", "  secret=/mine", "\tsecret\t= /mine"])
def test_completed_file_that_sets_a_key_keeps_it(line: str) -> None:
    assert completed(f"{line}\n", SECRET, STATE) == f"{line}\niface = eth0\nstate = /lab/fe/state\n"


@pytest.mark.parametrize(
    "line", ["# secret = /mine", "  #secret = /mine", "secret", "rule = 1.2.3.4 secret=", "secretx = 1"]
)
def test_completed_file_that_only_mentions_a_key_gets_it(line: str) -> None:
    assert completed(f"{line}\n", SECRET, STATE) == f"{line}\n" + LOCAL


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("raddr = 198.18.0.33", "198.18.0.39"),
        ("  raddr=fd00:198:18::33 # this one", "fd00:198:18::39"),
        ("raddr = anything", "198.18.0.39"),
    ],
)
def test_readdressed_file_keeps_its_line_numbers(line: str, address: str) -> None:
    place = plan(3).backends[2]
    assert readdressed(f"a = 1\n\n{line}\nb = 2", place) == f"a = 1\n\nraddr = {address}\nb = 2\n"


def test_readdressed_file_without_address_gets_one() -> None:
    assert readdressed("# raddr = 1.2.3.4\n", plan(1).backends[0]) == "# raddr = 1.2.3.4\nraddr = 198.18.0.33\n"


def test_secret_is_a_number_and_64_hexadecimal_digits() -> None:
    assert secret_text(bytes(range(32))) == f"1 {bytes(range(32)).hex()}\n"


@pytest.mark.parametrize("octets", [0, 31, 33])
def test_secret_of_another_length_is_refused(octets: int) -> None:
    with pytest.raises(ValueError, match="32 octets"):
        secret_text(bytes(octets))


def values(text: str, key: str) -> list[str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return [value.strip() for name, value in pairs if name.strip() == key]
