from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tcpha.errors import StartError
from tcpha.lab.addressing import BACK_ENDS_MAX, check_name, namespace_of, plan, split_namespace


def test_plan_default_is_the_example_of_the_original() -> None:
    lab = plan(2)
    assert [(place.node, str(place.ipv4), str(place.ipv6)) for place in lab.places] == [
        ("client", "198.18.0.10", "fd00:198:18::10"),
        ("fe", "198.18.0.23", "fd00:198:18::23"),
        ("be1", "198.18.0.33", "fd00:198:18::33"),
        ("be2", "198.18.0.38", "fd00:198:18::38"),
    ]
    assert (str(lab.vip4), str(lab.vip6)) == ("198.18.0.36", "fd00:198:18::36")
    assert (str(lab.uaddr4), str(lab.uaddr6)) == ("198.18.0.254", "fd00:198:18::254")


def test_plan_further_back_ends_follow_from_39() -> None:
    assert [str(place.ipv4) for place in plan(5).backends] == [f"198.18.0.{host}" for host in (33, 38, 39, 40, 41)]
    assert str(plan(4).backends[3].ipv6) == "fd00:198:18::40"


@pytest.mark.parametrize("backends", [1, 2, 3, BACK_ENDS_MAX])
def test_plan_any_size_gives_each_address_once_within_the_subnet(backends: int) -> None:
    lab = plan(backends)
    assert len(lab.backends) == backends
    ipv4 = [*(place.ipv4 for place in lab.places), lab.vip4, lab.uaddr4]
    ipv6 = [*(place.ipv6 for place in lab.places), lab.vip6, lab.uaddr6]
    assert len({*ipv4, *ipv6}) == 2 * (backends + 4)
    assert all(address in ip_network("198.18.0.0/24") for address in ipv4)
    assert all(address in ip_network("fd00:198:18::/64") for address in ipv6)
    for place in lab.places:
        assert ip_address(f"fd00:198:18::{str(place.ipv4).rpartition('.')[2]}") == place.ipv6


@pytest.mark.parametrize("backends", [-1, 0, BACK_ENDS_MAX + 1])
def test_plan_impossible_size_is_refused(backends: int) -> None:
    with pytest.raises(StartError, match=f"not {backends}$"):
        plan(backends)


@pytest.mark.parametrize("name", ["tcpha", "a", "7", "a-b_C", "x" * 32])
def test_name_that_is_valid_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "a/b", "..", "a.b", "a b", "a\n", "é", "x" * 33])
def test_name_that_is_not_valid_is_refused(name: str) -> None:
    with pytest.raises(StartError, match="is no name for a lab"):
        check_name(name)


@pytest.mark.parametrize("lab", ["tcpha", "a-b", "x-fe", "x-switch"])
@pytest.mark.parametrize("node", ["client", "fe", "be1", "be217", "switch"])
def test_namespace_of_a_node_is_split_into_lab_and_node(lab: str, node: str) -> None:
    assert split_namespace(namespace_of(lab, node)) == (lab, node)


@pytest.mark.parametrize("namespace", ["tcpha", "-fe", "tcpha-", "tcpha-be", "tcpha-be0", "tcpha-be1000", "tcpha-fe "])
def test_namespace_of_nobody_is_not_split(namespace: str) -> None:
    assert split_namespace(namespace) is None
