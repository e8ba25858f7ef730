"""The values of configuration keys: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.original_files import FE_NEXT, ORIGINAL_BE, ORIGINAL_FE, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("inspect_time = 10", 10.0),
        ("inspect_time = 7s", 7.0),
        ("inspect_time = 250ms", 0.25),
        ("inspect_time = 0.5", 0.5),
        ("inspect_time = 1.5s", 1.5),
        ("max_flows = 16384", 16384),
        ("max_flows = 16k", 16384),
        ("max_flows = 2M", 2 << 20),
        ("mark = 0x7c0b", 0x7C0B),
        ("mark = 31755", 31755),
        ("window_scale = none", None),
        ("window_scale = 0", 0),
        ("window_scale = 14", 14),
        *[(f"sack = {word}", True) for word in ("yes", "on", "true", "Yes")],
        *[(f"sack = {word}", False) for word in ("no", "off", "false", "OFF")],
        ("log = debug", "debug"),
        ("id = 65535", 65535),
        ("iface = eth0", "eth0"),
        ("ack_delay = 0", 0.0),
        ("handoff_repeats = 0", 0),
        ("forward = direct", "direct"),
        ("forward = tunnel", "tunnel"),
        ("mtu = 1280", 1280),
    ],
)
def test_value_is_read(files: Files, line: str, value: object) -> None:
    found = getattr(files.fe(ORIGINAL_FE + line), line.split()[0])
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("inspect_time = 10m", "'10m' is no duration: write 10, 10s or 250ms"),
        ("inspect_time = -1", "'-1' is no duration"),
        ("inspect_time = nan", "'nan' is no duration"),
        ("inspect_time = 1e3", "'1e3' is no duration"),
        ("inspect_time = 301", "'301' is more than 300 s, the most allowed"),
        ("inspect_time = 1ms", "'1ms' is less than 0.05 s, the least allowed"),
        ("max_flows = 0", "'0' is less than 1, the least allowed"),
        ("max_flows = 65m", "'65m' is more than 67108864, the most allowed"),
        ("max_flows = 1g", "'1g' is no size"),
        ("max_flows = 1.5k", "'1.5k' is no size"),
        ("mss = 87", "'87' is less than 88"),
        ("mss = 8961", "'8961' is more than 8960"),
        ("mss = 1_460", "'1_460' is no whole number"),
        ("mss = ١٤٦٠", "is no whole number"),
        ("mss = " + "9" * 5000, "is no whole number"),
        ("window_scale = 15", "'15' is more than 14"),
        ("window_scale = None", "'None' is no whole number"),
        ("window = 65536", "'65536' is more than 65535"),
        ("sack = 1", "'1' is neither yes nor no"),
        ("log = loud", "'loud' is not 'debug', 'info', 'warning' or 'error'"),
        ("forward = nat", "'nat' is not 'direct' or 'tunnel'"),
        ("mtu = 575", "'575' is less than 576"),
        ("mtu = 65536", "'65536' is more than 65535"),
        ("mtu = none", "'none' is no whole number"),
        ("secret = secret", "'secret' is no absolute path"),
        ("state = ../run", "'../run' is no absolute path"),
        ("iface = eth0/1", "'eth0/1' is no name of a network interface"),
        ("iface = abcdefghijklmnop", "is no name of a network interface"),
        ("id = 0", "'0' is less than 1"),
        ("id = 65536", "'65536' is more than 65535"),
        ("port = 0", "'0' is less than 1"),
        ("port = 65536", "'65536' is more than 65535"),
        ("vport = 0", "'0' is less than 1"),
        ("vport = 65536", "'65536' is more than 65535"),
        ("vport = http", "'http' is no whole number"),
        ("mark = 0", "'0' is less than 1"),
        ("mark = 0x1ffffffff", "is more than 4294967295"),
        ("queue = 65535", "'65535' is more than 65534"),
        ("server = 192.168.1.40", "no port after 192.168.1.40: write 192.168.1.40 666"),
        ("server = 192.168.1.40 666 x", "'192.168.1.40 666 x' is not ADDRESS PORT"),
        ("server = 192.168.1.40 0", "port '0' is not in 1..65535"),
        ("server = 192.168.1.40 65536", "port '65536' is not in 1..65535"),
        ("server = 192.168.1.400 666", "'192.168.1.400' is no IPv4 or IPv6 address"),
        ("vaddr = www.example.com", "'www.example.com' is no IPv4 or IPv6 address"),
        ("vaddr = 192.168.001.1", "is no IPv4 or IPv6 address"),
        ("vaddr = 0.0.0.0", "0.0.0.0 is not the address of one host"),
        ("vaddr = 224.0.0.1", "224.0.0.1 is not the address of one host"),
        ("vaddr = 255.255.255.255", "255.255.255.255 is not the address of one host"),
        ("vaddr = ff02::1", "ff02::1 is not the address of one host"),
        ("vaddr = ::ffff:192.0.2.1", "is an IPv4 address: write 192.0.2.1"),
        ("vaddr = fe80::1", "fe80::1 is valid on one link only"),
        ("vaddr = 2001:db8::1%eth0", "is valid on one link only"),
        ("vaddr = 127.0.0.1", "127.0.0.1 is a loopback address"),
        ("server = 192.168.1.40 666 weight=0", "weight '0' is not in 1..256"),
        ("server = 192.168.1.40 666 weight=257", "weight '257' is not in 1..256"),
        ("server = 192.168.1.40 666 weight = 3", "'192.168.1.40 666 weight = 3': no blanks around the `=` of weight=N"),
        ("server = 192.168.1.40 666 weight=", "'' is no whole number"),
        ("server = 192.168.1.40 666 weight=-1", "'-1' is no whole number"),
        ("server = 192.168.1.40 666 wieght=2", "'wieght=2' is not weight=N, the one option of a server"),
        ("server = 192.168.1.40 666 weight=2 weight=2", "is not ADDRESS PORT"),
        ("server = 192.168.1.40 weight=2", "no port after 192.168.1.40: write 192.168.1.40 666"),
        ("server = weight=2", "'' is not ADDRESS PORT"),
        ("rule = 192.168.1.33", "no pattern: a rule is ADDRESS PATTERN or ADDRESS FIELD=REGEX"),
        ("rule = jpg$", "'jpg$' is no IPv4 or IPv6 address"),
    ],
)
def test_value_out_of_kind_or_bounds_is_refused(files: Files, line: str, reason: str) -> None:
    number, found = files.fault(files.fe, ORIGINAL_FE + line)
    assert number == FE_NEXT
    assert found.startswith(line.split()[0] + ": ")
    assert reason in found
    assert len(found) < 200


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rule = 192.168.1.33 a(", "rule: bad pattern: missing ) (column 23)"),
        ("  rule=192.168.1.33  [", "rule: bad pattern: unterminated character set (column 23)"),
    ],
)
def test_bad_pattern_names_the_column_in_the_line(files: Files, line: str, reason: str) -> None:
    assert files.fault(files.fe, ORIGINAL_FE + line) == (FE_NEXT, reason)


@pytest.mark.parametrize(("text", "weight"), [("", 1), (" weight=1", 1), ("  weight=256", 256), ("\tweight=7 # x", 7)])
def test_weight_of_a_server_is_read(files: Files, text: str, weight: int) -> None:
    server = files.fe(ORIGINAL_FE.replace("192.168.1.33 666", f"192.168.1.33 666{text}")).server[0]
    assert (str(server.addr), server.port, server.weight) == ("192.168.1.33", 666, weight)


def test_front_end_has_no_weight(files: Files) -> None:
    text = ORIGINAL_BE.replace("fe = 192.168.1.23 666", "fe = 192.168.1.23 666 weight=2")
    assert files.fault(files.be, text) == (5, "fe: '192.168.1.23 666 weight=2' is not ADDRESS PORT")
