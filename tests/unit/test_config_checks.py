"""Values of a configuration that clash with one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.original_files import ORIGINAL_BE, ORIGINAL_FE, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("vaddr = 192.168.1.36", "vaddr = 192.168.1.23", 3, "192.168.1.23 is also raddr: it must belong to no node"),
        ("vaddr = 192.168.1.36", "vaddr = 192.168.1.38", 3, "192.168.1.38 is also server"),
        ("raddr = 192.168.1.23", "raddr = 192.168.1.38", 2, "192.168.1.38 is also a server"),
        ("raddr = 192.168.1.23", "raddr = 2001:db8::1", 4, "192.168.1.33 is IPv4, but raddr 2001:db8::1 is IPv6"),
        (
            "raddr = 192.168.1.23",
            "raddr = 10.1.1.33",
            4,
            "192.168.1.33 and raddr 10.1.1.33 have the same default id 289",
        ),
        ("raddr = 192.168.1.23", "raddr = 10.1.0.0", 2, "the low 16 bits of 10.1.0.0 are 0"),
        ("rule = 192.168.1.38", "rule = 192.168.1.39", 6, "rule: 192.168.1.39 is in no server line (column 1)"),
        ("", "server = 192.168.1.38 667", 8, "server: 192.168.1.38 is given twice"),
        ("", "server = 10.1.1.38 666", 8, "10.1.1.38 and server 192.168.1.38 have the same default id 294"),
        ("", "vaddr = 192.168.1.36", 8, "vaddr: 192.168.1.36 is given twice"),
        ("", "vport = 81\nvport = 81", 9, "vport: 81 is given twice"),
        ("", "id = 289", 8, "id: 289 is the default id of server 192.168.1.33"),
        ("", "status_time = 1s", 8, "dead_time (1 s) must be longer than status_time (1 s)"),
        ("", "status_time = 500ms\ndead_time = 0.5", 9, "dead_time (0.5 s) must be longer than status_time (0.5 s)"),
        ("", "ack_delay = 0.2\ninspect_time = 200ms", 9, "inspect_time (0.2 s) must be longer than ack_delay (0.2 s)"),
        (
            "",
            "vaddr = 2001:db8::36\nforward = tunnel\nmtu = 1299",
            10,
            "mtu: 1299 is less than 1300, which IPv6 in a tunnel over IPv4 needs",
        ),
        ("", "handoff_wait = 50ms", 8, "handoff_wait (0.05 s) must be longer than handoff_repeat (0.05 s)"),
    ],
)
def test_front_end_values_that_clash_are_refused(files: Files, old: str, new: str, line: int, reason: str) -> None:
    text = ORIGINAL_FE.replace(old, new) if old else ORIGINAL_FE + new
    number, found = files.fault(files.fe, text)
    assert number == line
    assert reason in found


@pytest.mark.parametrize(
    "lines",
    [
        "mtu = 576",
        "forward = tunnel\nmtu = 576",
        "vaddr = 2001:db8::36\nmtu = 576",
        "vaddr = 2001:db8::36\nforward = tunnel\nmtu = 1300",
    ],
)
def test_front_end_mtu_that_the_tunnel_leaves_enough_of_loads(files: Files, lines: str) -> None:
    assert files.fe(ORIGINAL_FE + lines).mtu in (576, 1300)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("uaddr = 192.168.1.39", "uaddr = 192.168.1.33", 3, "192.168.1.33 is also server: it must be used by nobody"),
        ("uaddr = 192.168.1.39", "uaddr = 192.168.1.36", 3, "192.168.1.36 is also vaddr"),
        ("uaddr = 192.168.1.39", "uaddr = 192.168.1.23", 3, "192.168.1.23 is also fe"),
        ("uaddr = 192.168.1.39", "uaddr = 2001:db8::9", 3, "2001:db8::9 is IPv6, but no vaddr is"),
        ("", "uaddr = 192.168.1.39", 10, "uaddr: 192.168.1.39 is given twice"),
        ("fe = 192.168.1.23", "fe = 2001:db8::1", 5, "fe: 2001:db8::1 is IPv6, but raddr 192.168.1.33 is IPv4"),
        ("fe = 192.168.1.23", "fe = 192.168.1.33", 5, "192.168.1.33 is also a server"),
        ("fe = 192.168.1.23", "fe = 192.168.1.38", 5, "192.168.1.38 is also a server"),
        ("fe = 192.168.1.23", "fe = 192.168.1.36", 4, "vaddr: 192.168.1.36 is also fe"),
        ("fe = 192.168.1.23", "fe = 10.1.1.33", 5, "10.1.1.33 and raddr 192.168.1.33 have the same default id 289"),
        ("", "fe = 192.168.1.23 667", 10, "fe: 192.168.1.23 is given twice"),
        ("", "fe = 192.168.2.23", 10, "fe: no port after 192.168.2.23: write 192.168.2.23 666"),
        ("", "mark = 0x7c0b", 10, "mark and kernel_mark must differ"),
        ("raddr = 192.168.1.33", "raddr = 192.168.1.23", 5, "fe: 192.168.1.23 is also a server"),
    ],
)
def test_back_end_values_that_clash_are_refused(files: Files, old: str, new: str, line: int, reason: str) -> None:
    text = ORIGINAL_BE.replace(old, new, 1) if old else ORIGINAL_BE + new
    number, found = files.fault(files.be, text)
    assert number == line
    assert reason in found


def test_own_id_settles_what_default_ids_of_others_would_clash_on(files: Files) -> None:
    assert files.fe(ORIGINAL_FE + "id = 7\nserver = 10.1.1.38 666\n").id == 7
    assert files.fe(ORIGINAL_FE.replace("raddr = 192.168.1.23", "raddr = 10.1.0.0") + "id = 7\n").id == 7


@pytest.mark.parametrize(
    ("change", "port"),
    [
        (("server = 192.168.1.33 666", "server = 192.168.1.33 700"), 700),
        (("server = 192.168.1.33 666", "port = 701\nserver = 192.168.1.33 700"), 701),
        (("raddr = 192.168.1.33", "raddr = 192.168.1.34"), 666),
    ],
)
def test_back_ends_port_is_that_of_its_own_server_line(files: Files, change: tuple[str, str], port: int) -> None:
    assert files.be(ORIGINAL_BE.replace(*change)).port == port
