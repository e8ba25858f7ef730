"""Configurations: the ancestor's own files, defaults, keys, warnings, digest, and any text as a file."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tcpha.config import BackEndConfig, Endpoint, FrontEndConfig, NodeConfig, load_either
from tcpha.errors import ConfigError
from tcpha.rules import parse_rule
from tests.unit.original_files import BE_NEXT, FE_NEXT, ORIGINAL_BE, ORIGINAL_FE, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# --- the ancestor's files


def test_original_front_end_file_loads_unchanged(files: Files) -> None:
    config = files.fe(ORIGINAL_FE)
    assert config.raddr == IPv4Address("192.168.1.23")
    assert config.vaddr == (IPv4Address("192.168.1.36"),)
    assert config.vport == (80,)
    assert config.server == (
        Endpoint(IPv4Address("192.168.1.33"), 666),
        Endpoint(IPv4Address("192.168.1.38"), 666),
    )
    assert [(str(rule.servers[0]), rule.pattern, rule.line) for rule in config.rule] == [
        ("192.168.1.38", "jpg$", 6),
        ("192.168.1.33", ".*", 7),
    ]
    assert (config.id, config.port, config.queue) == (0x0117, 666, 660)
    assert config.warnings() == ()


def test_original_back_end_file_loads_unchanged(files: Files) -> None:
    config = files.be(ORIGINAL_BE)
    assert config.raddr == IPv4Address("192.168.1.33")
    assert config.uaddr == (IPv4Address("192.168.1.39"),)
    assert config.fe == (Endpoint(IPv4Address("192.168.1.23"), 666),)
    assert (config.id, config.port, config.queue) == (0x0121, 666, 664)
    assert config.warnings() == ()


def test_common_defaults_are_those_of_the_interface(files: Files) -> None:
    config = files.fe(ORIGINAL_FE)
    expected: dict[str, Any] = {
        "iface": None,
        "secret": Path("/etc/tcpha/secret"),
        "mss": 1460,
        "window_scale": 7,
        "sack": True,
        "timestamps": True,
        "status_time": 0.25,
        "dead_time": 1.0,
        "max_flows": 262144,
        "max_finished": 262144,
        "finished_time": 60.0,
        "idle_time": 300.0,
        "mark": 0x7C0A,
        "queue_length": 16384,
        "state": Path("/run/tcpha"),
        "log": "info",
        "forward": "direct",
        "mtu": None,
        "window": 65535,
        "inspect_octets": 16384,
        "inspect_time": 10.0,
        "ack_delay": 0.01,
        "match_time": 0.005,
        "handoff_repeat": 0.05,
        "handoff_repeats": 3,
        "handoff_wait": 0.45,
        "max_reading": 16384,
        "max_queries": 1024,
        "query_rate": 1000,
    }
    assert {key: getattr(config, key) for key in expected} == expected


def test_back_end_defaults_are_those_of_the_interface(files: Files) -> None:
    config = files.be(ORIGINAL_BE.replace("uaddr = 192.168.1.39\n", ""))
    assert config.uaddr == ()
    assert (config.hold_time, config.hold_packets, config.replay_time) == (0.05, 4096, 0.18)
    assert (config.stale_time, config.probe_time) == (0.25, 1.0)


def test_ipv6_and_several_values_load(files: Files) -> None:
    config = files.fe(
        "raddr = 2001:db8::1\nvaddr = 2001:db8::100\nvaddr = 192.168.1.36\nvport = 80\nvport = 8080\n"
        "server = 2001:db8::2 666\nserver = 2001:DB8:0::3 667\nrule = 2001:db8::3 .*\n"
    )
    assert config.vaddr == (IPv6Address("2001:db8::100"), IPv4Address("192.168.1.36"))
    assert config.vport == (80, 8080)
    assert config.id == 1
    assert config.server[1] == Endpoint(IPv6Address("2001:db8::3"), 667)


# --- keys


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("vadr = 192.168.1.40", "unknown key 'vadr': did you mean vaddr?"),
        ("RADDR = 192.168.1.23", "unknown key 'RADDR': did you mean raddr?"),
        ("widow_scale = 7", "unknown key 'widow_scale': did you mean window_scale?"),
        ("qqqqqq = 7", "unknown key 'qqqqqq'"),
        ("hold_time = 1", "hold_time is a key of the back end's file only"),
        ("model_config = 1", "unknown key 'model_config'"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(files: Files, line: str, reason: str) -> None:
    assert files.fault(files.fe, ORIGINAL_FE + line) == (FE_NEXT, reason)


def test_key_of_the_other_role_is_refused(files: Files) -> None:
    number, reason = files.fault(files.be, ORIGINAL_BE + "window = 65535")
    assert (number, reason) == (BE_NEXT, "window is a key of the front end's file only")


def test_single_key_given_twice_names_both_lines(files: Files) -> None:
    text = ORIGINAL_FE + "mss = 1400\n\nmss = 1400\n"
    assert files.fault(files.fe, text) == (FE_NEXT + 2, f"mss is given twice, first in line {FE_NEXT}")
    assert files.fault(files.fe, ORIGINAL_FE + "raddr = 192.168.1.24")[1] == "raddr is given twice, first in line 2"


@pytest.mark.parametrize("key", ["raddr", "vaddr", "fe", "server", "rule"])
def test_missing_required_key_is_named(files: Files, key: str) -> None:
    text = "".join(line for line in ORIGINAL_BE.splitlines(keepends=True) if not line.startswith(key))
    assert files.fault(files.be, text) == (None, f"{key}: missing: the file must have this key")


def test_empty_file_is_refused(files: Files) -> None:
    assert files.fault(files.fe, "") == (None, "raddr: missing: the file must have this key")


def test_first_of_several_faulty_lines_is_named(files: Files) -> None:
    assert files.fault(files.fe, "mss = 1\nsack = x\nraddr = y\n") == (1, "mss: '1' is less than 88, the least allowed")
    assert files.fault(files.fe, "raddr = y\nmss = 1\n")[0] == 1


# --- rules


def test_rule_with_several_servers_and_fields_loads_on_both_roles(files: Files) -> None:
    change = ("rule = 192.168.1.38 jpg$", "rule = 192.168.1.38,192.168.1.33 balance=least host=^a path=#  # b=c")
    for load, text in ((files.fe, ORIGINAL_FE), (files.be, ORIGINAL_BE)):
        line, reason = files.fault(load, text.replace(*change))
        assert line == text.splitlines().index(change[0]) + 1
        assert reason.startswith("rule: '#' is no FIELD=REGEX")
        rule = load(text.replace(change[0], change[1].partition("  #")[0])).rule[0]
        assert rule.servers == (IPv4Address("192.168.1.38"), IPv4Address("192.168.1.33"))
        assert (str(rule.balance), rule.when) == ("least", "host=^a path=#")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("192.168.1.33,192.168.1.40 x", "rule: 192.168.1.40 is in no server line (column 14)"),
        ("192.168.1.33,192.168.1.33 x", "rule: 192.168.1.33 is given twice in one rule (column 21)"),
        ("192.168.1.33, 192.168.1.38 x", "rule: an address is missing beside a comma"),
        ("192.168.1.33 host=a b", "rule: 'b' is no FIELD=REGEX: every word after the first field is one"),
        ("192.168.1.33 balance=leats b", "rule: 'balance=leats': balance is rr, least or hash:FIELD"),
        ("192.168.1.33 host=(", "rule: bad pattern: missing ) (column 27)"),
    ],
)
def test_fault_in_a_rule_is_told_with_its_line(files: Files, value: str, reason: str) -> None:
    number, told = files.fault(files.fe, f"{ORIGINAL_FE}rule = {value}\n")
    assert number == FE_NEXT
    assert told.startswith(reason)


# --- warnings


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ((".*", "^/"), "no rule matches every request"),
        (("jpg$", "."), "rule '.*' (line 9) can never win: rule '.' (line 8)"),
        (("jpg$", "sni=a path=b"), "rule 'sni=a path=b' (line 8) can never win: sni and path are never seen together"),
        (("jpg$", "port=81"), "rule 'port=81' (line 8) can never win: its port is no vport"),
        (("jpg$", "sni=a"), "no rule matches every TLS connection"),
        (("jpg$", "Host=a"), "rule 'Host=a' (line 8): `Host=` is part of the pattern"),
        (("rule = 192.168.1.38 jpg$\n", ""), "server 192.168.1.38 is named by no rule"),
        (("raddr = 192.168.1.33", "raddr = 192.168.1.34"), "raddr 192.168.1.34 is in no server line"),
        (("uaddr = 192.168.1.39\n", ""), "no uaddr is IPv4"),
        (("uaddr", "vaddr = 2001:db8::1\nuaddr"), "no uaddr is IPv6"),
        (("uaddr", "stale_time = 270ms\nuaddr"), "stale_time and replay_time together, 0.45 s, are not below 0.45 s"),
    ],
)
def test_back_end_file_that_is_probably_not_meant_warns(files: Files, change: tuple[str, str], warning: str) -> None:
    (found,) = files.be(ORIGINAL_BE.replace(*change)).warnings()
    assert found.startswith(warning)


@pytest.mark.parametrize(
    ("rule", "more", "silent"),
    [
        ("port=81", "vport = 81\nvport = 80\n", True),
        ("client=0.0.0.0/0", "", False),
        ("client=0.0.0.0/0", "vaddr = 2001:db8::1\n", True),
    ],
)
def test_ports_and_families_that_are_served_are_known_to_the_warnings(
    files: Files, rule: str, more: str, silent: bool
) -> None:
    """A rule for all of IPv4 before the last rule leaves that one nothing, unless IPv6 is served, too."""
    warnings = files.fe(ORIGINAL_FE.replace("jpg$", rule) + more).warnings()
    assert (warnings == ()) == silent


def test_front_end_that_waits_too_short_warns(files: Files) -> None:
    (found,) = files.fe(ORIGINAL_FE + "handoff_wait = 430ms").warnings()
    assert found.startswith("handoff_wait 0.43 s is not above 0.43 s")


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        ("handoff_repeat = 24ms", False),
        ("handoff_repeat = 25ms", True),
        ("handoff_repeat = 24ms\nhandoff_repeats = 0", True),
    ],
)
def test_front_end_that_repeats_before_it_can_be_answered_warns(files: Files, line: str, silent: bool) -> None:
    found = files.fe(ORIGINAL_FE + line).warnings()
    assert [each.partition(",")[0] for each in found] == ([] if silent else ["handoff_repeat 0.024 s is below 0.025 s"])


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        ("hold_time = 19ms", False),
        ("hold_time = 20ms", True),
        ("hold_time = 0", True),
        ("hold_time = 19ms\naccelerate = off", True),
    ],
)
def test_back_end_that_holds_too_short_for_its_kernel_warns(files: Files, line: str, silent: bool) -> None:
    found = files.be(ORIGINAL_BE + line).warnings()
    assert [each.partition(":")[0] for each in found] == ([] if silent else ["hold_time 0.019 s is below 0.02 s"])


# --- models


def test_model_is_frozen_and_can_be_built_without_a_file() -> None:
    config = FrontEndConfig(
        raddr=IPv4Address("192.168.1.23"),
        vaddr=(IPv4Address("192.168.1.36"),),
        server=(Endpoint(IPv4Address("192.168.1.33"), 666),),
        rule=(parse_rule("192.168.1.33 .*"),),
        window_scale=None,
        sack=False,
        ack_delay=0,
    )
    assert (config.id, config.window_scale, config.sack) == (279, None, False)
    with pytest.raises(ValidationError, match="frozen"):
        config.mss = 1400


@pytest.mark.parametrize(
    "wrong",
    [{"vaddr": ()}, {"vport": ()}, {"server": ()}, {"rule": ()}, {"mss": 1}, {"raddr": IPv4Address(0)}, {"nothing": 1}],
)
def test_model_built_without_a_file_is_validated_all_the_same(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {
        "raddr": "192.168.1.23",
        "vaddr": ["192.168.1.36"],
        "server": ["192.168.1.33 666"],
        "rule": ["192.168.1.33 .*"],
    }
    assert FrontEndConfig.model_validate(right).port == 666
    with pytest.raises(ValidationError):
        FrontEndConfig.model_validate(right | wrong)


# --- digest

MORE = "vaddr = 192.168.1.37\nvport = 80\nvport = 443\n"


def test_digest_is_the_same_on_front_end_and_back_end(files: Files) -> None:
    digest = files.fe(ORIGINAL_FE + MORE).digest()
    assert len(digest) == 16
    assert files.be(ORIGINAL_BE + MORE).digest() == digest


def test_digest_stays_what_it_is_between_versions(files: Files) -> None:
    assert files.fe(ORIGINAL_FE).digest().hex() == "0989fa8685341b1087d4c5bd254b5473"


@pytest.mark.parametrize(
    "line",
    [
        "dead_time = 2",
        "id = 7",
        "port = 700",
        "iface = eth0",
        "max_flows = 7",
        "window = 4096",
        "queue = 7",
        "vport = 80",
    ],
)
def test_digest_leaves_out_what_each_node_decides_for_itself(files: Files, line: str) -> None:
    assert files.fe(ORIGINAL_FE + line).digest() == files.fe(ORIGINAL_FE).digest()


@pytest.mark.parametrize(
    "change",
    [
        ("192.168.1.38 666", "192.168.1.38 667"),
        ("192.168.1.38 666", "192.168.1.38 666 weight=2"),
        ("jpg$", "path=jpg$"),
        ("jpg$", "header.jpg=$"),
        ("jpg$", "balance=least jpg$"),
        ("jpg$", "balance=hash:client jpg$"),
        ("jpg$", "jpe?g$"),
        ("rule = 192.168.1.38 jpg$", "rule = 192.168.1.33 jpg$"),
        ("rule = 192.168.1.38 jpg$", "rule = 192.168.1.38,192.168.1.33 jpg$"),
        ("rule = 192.168.1.38 jpg$\n", ""),
        ("rule = 192.168.1.38 jpg$\nrule = 192.168.1.33 .*", "rule = 192.168.1.33 .*\nrule = 192.168.1.38 jpg$"),
        ("vaddr = 192.168.1.36", "vaddr = 192.168.1.35"),
        ("vport = 443", "vport = 444"),
        ("vport = 443", "mss = 1459\nvport = 443"),
        ("vport = 443", "window_scale = none\nvport = 443"),
        ("vport = 443", "sack = no\nvport = 443"),
        ("vport = 443", "timestamps = no\nvport = 443"),
    ],
)
def test_digest_tells_apart_what_nodes_must_agree_on(files: Files, change: tuple[str, str]) -> None:
    text = ORIGINAL_FE + MORE
    assert text.replace(*change) != text
    assert files.fe(text.replace(*change)).digest() != files.fe(text).digest()


VALUES_OF_RULES = [
    *(
        "a",
        "b",
        "path=a",
        "path=b",
        "host=a",
        "cookie.a=a",
        "header.a=a",
        "header.b=a",
        "path=a host=a",
        "path=a host=b",
    ),
    *("path=b host=a", "client=::1", "client=::/1", "port=1", "target=a port=1", "a port=1"),
]
BALANCES = ["", "balance=least ", "balance=hash:client ", "balance=hash:cookie.a ", "balance=hash:header.a "]
OF_RULES = [f"{balance}{value}" for balance in BALANCES for value in VALUES_OF_RULES]


def test_digests_of_rules_that_differ_differ(files: Files) -> None:
    digests = {value: files.fe(ORIGINAL_FE.replace("jpg$", value)).digest() for value in OF_RULES}
    assert len(set(digests.values())) == len(OF_RULES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jpg$", "target=jpg$"),
        ("jpg$", "balance=rr jpg$"),
        ("path=a host=b", "host=b  path=a"),
        ("client=::/1,10.0.0.1", "client=10.0.0.1/32,0::0/1"),
        ("header.A=a", "header.a=a"),
    ],
)
def test_digest_is_the_same_for_two_spellings_of_a_rule(files: Files, one: str, other: str) -> None:
    assert len({files.fe(ORIGINAL_FE.replace("jpg$", text)).digest() for text in (one, other)}) == 1


def test_digest_leaves_out_a_weight_that_is_the_default(files: Files) -> None:
    assert files.fe(ORIGINAL_FE.replace("38 666", "38 666 weight=1")).digest() == files.fe(ORIGINAL_FE).digest()


FREE_ORDER = [*ORIGINAL_FE.splitlines()[1:5], *MORE.splitlines()]
RULES = ORIGINAL_FE.splitlines()[5:]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.permutations(FREE_ORDER))
def test_digest_is_free_of_the_order_of_all_but_rules(files: Files, lines: list[str]) -> None:
    assert files.fe("\n".join([*RULES, *lines])).digest() == files.fe(ORIGINAL_FE + MORE).digest()


# --- a file of either role


def test_file_of_either_role_is_known_by_its_front_ends(files: Files) -> None:
    files.path.write_text(ORIGINAL_FE)
    assert type(load_either(files.path)) is FrontEndConfig
    files.path.write_text(ORIGINAL_BE)
    assert type(load_either(files.path)) is BackEndConfig
    files.path.write_text(ORIGINAL_FE + "fee = 1")
    with pytest.raises(ConfigError, match="unknown key 'fee'"):
        load_either(files.path)


# --- any text

ADDRESSES = [f"192.168.1.{last}" for last in (23, 33, 36, 38, 39)] + ["2001:db8::1", "10.1.1.33", "fe80::1"]
WORDS = [
    "",
    "666",
    "0",
    "65536",
    ".*",
    "x",
    "a(b",
    "(a|aa)+$",
    "é",
    "# x",
    "10ms",
    "0.3",
    "64k",
    "0x7",
    "none",
    "yes",
    "/x",
    "666 weight=2",
    "666 weight=257",
    "host=a",
    "balance=hash:client path=/x",
    "octets=^a sni=b",
]
VALUES = st.one_of(
    st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(WORDS)).map(" ".join),
    st.sampled_from(WORDS),
    st.integers(-1, 1 << 20).map(str),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
)


def lines_of(model: type[NodeConfig]) -> st.SearchStrategy[str]:
    """Lines with a key that the model has, in every kind of value."""
    return st.tuples(st.sampled_from(sorted(model.model_fields)), VALUES).map(" = ".join)


def outcome(load: Callable[[str | bytes], NodeConfig], text: str | bytes) -> None:
    """A config that answers its questions, or a ConfigError; anything else fails the test."""
    try:
        config = load(text)
    except ConfigError:
        return
    assert len(config.digest()) == 16
    assert all(config.warnings())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_octets_as_file_are_a_config_or_a_config_error(files: Files, text: bytes) -> None:
    outcome(files.fe, text)
    outcome(files.be, text)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(lines=st.lists(lines_of(FrontEndConfig), max_size=3), kept=st.sets(st.integers(1, 6), min_size=4))
def test_any_lines_of_front_end_keys_are_a_config_or_a_config_error(
    files: Files, lines: list[str], kept: set[int]
) -> None:
    original = ORIGINAL_FE.splitlines()
    outcome(files.fe, "\n".join([*(original[number] for number in sorted(kept)), *lines]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(lines=st.lists(lines_of(BackEndConfig), max_size=3), kept=st.sets(st.integers(1, 8), min_size=6))
def test_any_lines_of_back_end_keys_are_a_config_or_a_config_error(
    files: Files, lines: list[str], kept: set[int]
) -> None:
    original = ORIGINAL_BE.splitlines()
    outcome(files.be, "\n".join([*(original[number] for number in sorted(kept)), *lines]))
