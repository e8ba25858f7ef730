"""On which ports connections are octets to all rules, whatever protocol they look like."""

from __future__ import annotations

import pytest

from tests.unit.rule_sets import EXPONENTIAL, rule_set


@pytest.mark.parametrize(
    "lines",
    [
        ["a octets=^"],
        ["a port=6379 octets=^"],
        ["a port=6379 octets=^SSH-", "b port=6379 octets=^X client=192.0.2.0/24", "c port=6379 octets=^", "c .*"],
        ["a port=6379 octets=^", "b .*"],
        ["a port=6379 octets=.*", "b sni=x"],
        ["a,b balance=hash:client port=6379 octets=^x"],
        ["a port=80 target=jpg$", "b port=6379|80 octets=^", "c .*"],
        ["a host=x port=443", "b octets=^x"],
    ],
)
def test_rules_of_a_port_look_at_octets_port_and_client_only_it_is_plain(lines: list[str]) -> None:
    assert rule_set(*lines).takes_octets(6379)


@pytest.mark.parametrize(
    "lines",
    [
        ["a .*"],
        ["a port=6379"],
        ["a client=0.0.0.0/0"],
        ["a,b balance=hash:client port=6379"],
        ["a port=80 octets=^"],
        ["a port=6379 octets=^SSH-", "b .*"],
        ["a port=6379 octets=^SSH-", "b port=6379"],
        ["a port=6379 octets=^SSH-", "b client=192.0.2.0/24", "c octets=^"],
        ["a octets=^SSH-", "b port=.*"],
        ["a port=6379 octets=^ client=192.0.2.0/24", "b .*"],
        ["a port=6379 octets=^ host=x"],
        ["a sni=x", "b port=6379 octets=^"],
        ["a,b balance=hash:cookie.id port=6379 octets=^"],
        ["a port=6379", "b octets=^"],
        [f"a port={EXPONENTIAL} octets=^x", "b .*"],
    ],
)
def test_any_rule_of_a_port_looks_at_more_or_none_at_octets_it_is_not(lines: list[str]) -> None:
    assert not rule_set(*lines).takes_octets(6379)
