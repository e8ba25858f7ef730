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


def test_plan_routed_leaves_the_front_ends_segment_as_it_is_and_moves_the_others() -> None:
    lab = plan(3, routed=True)
    assert [(place.node, str(place.ipv4), str(place.ipv6)) for place in lab.places] == [
        ("client", "198.18.2.10", "fd00:198:18:2::10"),
        ("fe", "198.18.0.23", "fd00:198:18::23"),
        ("be1", "198.18.1.33", "fd00:198:18:1::33"),
        ("be2", "198.18.1.38", "fd00:198:18:1::38"),
        ("be3", "198.18.1.39", "fd00:198:18:1::39"),
    ]
    assert (str(lab.vip4), str(lab.vip6)) == ("198.18.0.36", "fd00:198:18::36")
    assert (str(lab.uaddr4), str(lab.uaddr6)) == ("198.18.1.254", "fd00:198:18:1::254")
    assert [(place.iface, str(place.ipv4), str(place.ipv6)) for place in lab.router] == [
        ("fe0", "198.18.0.1", "fd00:198:18::1"),
        ("be0", "198.18.1.1", "fd00:198:18:1::1"),
        ("client0", "198.18.2.1", "fd00:198:18:2::1"),
    ]


def test_plan_routed_has_a_segment_for_each_role() -> None:
    lab = plan(2, routed=True)
    nodes = {segment.bridge: [place.node for place in segment.places] for segment in lab.segments}
    assert nodes == {"br-fe": ["fe"], "br-be": ["be1", "be2"], "br-client": ["client"]}
    assert tuple(segment.gateway for segment in lab.segments) == lab.router
    assert lab.is_routed


def test_plan_flat_has_one_segment_for_all_and_no_router() -> None:
    lab = plan(2)
    assert [(segment.bridge, segment.places, segment.gateway) for segment in lab.segments] == [
        ("br0", lab.places, None)
    ]
    assert (lab.router, lab.is_routed) == ((), False)


def test_plan_routed_with_smaller_mtus_has_them_where_the_router_sends() -> None:
    lab = plan(2, routed=True, client_mtu_octets=1280, backend_mtu_octets=1400)
    assert {segment.bridge: segment.mtu_octets for segment in lab.segments} == {
        "br-fe": 1500,
        "br-be": 1400,
        "br-client": 1280,
    }


@pytest.mark.parametrize("octets", [0, 1279, 1501])
def test_plan_impossible_mtu_is_refused(octets: int) -> None:
    with pytest.raises(StartError, match=f"^the MTU towards the client is 1280 to 1500, not {octets}$"):
        plan(2, routed=True, client_mtu_octets=octets)
    with pytest.raises(StartError, match=f"^the MTU towards the back ends is 1280 to 1500, not {octets}$"):
        plan(2, routed=True, backend_mtu_octets=octets)


def test_plan_smaller_mtu_without_a_router_is_refused() -> None:
    with pytest.raises(StartError, match="an MTU of 1400 towards the client needs a router"):
        plan(2, client_mtu_octets=1400)
    with pytest.raises(StartError, match="an MTU of 1400 towards the back ends needs a router"):
        plan(2, backend_mtu_octets=1400)


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
@pytest.mark.parametrize("node", ["client", "fe", "be1", "be217", "router", "switch"])
def test_namespace_of_a_node_is_split_into_lab_and_node(lab: str, node: str) -> None:
    assert split_namespace(namespace_of(lab, node)) == (lab, node)


@pytest.mark.parametrize(
    "namespace", ["tcpha", "-fe", "tcpha-", "tcpha-be", "tcpha-be0", "tcpha-be1000", "tcpha-fe ", "router"]
)
def test_namespace_of_nobody_is_not_split(namespace: str) -> None:
    assert split_namespace(namespace) is None
