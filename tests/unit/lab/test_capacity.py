"""The bottleneck model: cases calculated by hand, bounds, and what grows with what."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.lab import capacity, traffic
from tcpha.lab.capacity import Cost, Costs, Site, fitted
from tcpha.lab.traffic import Load

US = 1e-6
COSTS = Costs(
    front_end=Cost(100 * US, 20 * US, 0.5e-9),
    agent=Cost(200 * US, 50 * US, 1e-9),
    proxy=Cost(50 * US, 10 * US, 4e-9),
    server=Cost(50 * US, 25 * US, 1e-9),
    client=Cost(50 * US, 25 * US, 1e-9),
)
WIDE = Site(link_bits_per_s=1e15)
EMPTY = Load(0.0)

_cost = st.builds(Cost, st.floats(1e-6, 1e-2), st.floats(1e-7, 1e-3), st.floats(0, 1e-7))
costs_given = st.builds(Costs, _cost, _cost, _cost, _cost, _cost)
loads = st.builds(Load, st.floats(0, 1e9), st.floats(1, 1e4))
sites = st.builds(Site, st.floats(1e6, 1e12), st.integers(1, 64), st.integers(1, 64))
counts = st.integers(1, 1000)


# Costs


def test_cost_is_fitted_through_both_measured_points() -> None:
    cost = fitted(close_us=100, keepalive_us=30, s_per_gb=1.0)
    assert cost.of_request_s(Load(1e3)) == pytest.approx(100 * US)
    assert cost.of_request_s(Load(1e7)) == pytest.approx(1e7 * 1e-9)
    assert cost.further_s + 1e3 * cost.octet_s == pytest.approx(30 * US)


def test_large_body_measured_cheaper_than_a_small_one_costs_of_octets_are_none() -> None:
    cost = fitted(close_us=100, keepalive_us=0, s_per_gb=1e-6)
    assert (cost.first_s, cost.further_s, cost.octet_s) == pytest.approx((100 * US, 0, 0))


def test_further_requests_share_the_cost_of_the_first() -> None:
    cost = Cost(100 * US, 20 * US, 1e-9)
    assert cost.of_request_s(Load(1000, 4)) == pytest.approx((100 + 3 * 20) / 4 * US + 1 * US)


# Nodes and wires


def test_one_back_end_its_core_saturates_with_agent_and_server() -> None:
    found = capacity.handoff(COSTS, EMPTY, WIDE, 1)
    assert found.bottleneck.name == "back ends' cores"
    assert found.requests_per_s == pytest.approx(1 / (250 * US))
    assert found.cpu_s == pytest.approx(350 * US)


def test_front_end_feeds_as_many_back_ends_as_their_costs_say() -> None:
    assert capacity.fed(COSTS, EMPTY, WIDE) == pytest.approx(2.5)
    rates = [capacity.handoff(COSTS, EMPTY, WIDE, number).requests_per_s for number in (1, 2, 3, 4)]
    assert rates == pytest.approx([4000, 8000, 10_000, 10_000])
    assert capacity.handoff(COSTS, EMPTY, WIDE, 3).bottleneck.name == "FE's core"


def test_back_ends_of_two_cores_are_bound_by_the_thread_of_the_agent() -> None:
    found = capacity.handoff(COSTS, EMPTY, replace(WIDE, backend_cores=2), 1)
    assert found.bottleneck.name == "agents' threads"
    assert found.requests_per_s == pytest.approx(5000)


def test_proxy_saturates_and_further_threads_help_until_servers_do() -> None:
    one, four = (capacity.proxied(COSTS, EMPTY, replace(WIDE, proxy_threads=n), 2) for n in (1, 4))
    assert one.bottleneck.name == "proxy's core"
    assert one.requests_per_s == pytest.approx(20_000)
    assert four.bottleneck.name == "back ends' cores"
    assert four.requests_per_s == pytest.approx(40_000)
    assert one.cpu_s == pytest.approx(100 * US)


def test_large_answers_on_slow_links_the_proxys_link_is_one_and_the_back_ends_are_many() -> None:
    load, slow = Load(1e8), Site(link_bits_per_s=1e8)
    ours, theirs = capacity.handoff(COSTS, load, slow, 4), capacity.proxied(COSTS, load, slow, 4)
    assert ours.bottleneck.name == "back ends' links"
    assert theirs.bottleneck.name == "proxy's link"
    assert ours.requests_per_s / theirs.requests_per_s == pytest.approx(4, rel=0.05)
    # 100 Mbit/s are 12.5 MB/s; heads of packets take 6 %, ACKs in the same direction 3 % at the proxy.
    assert 11.5e6 < ours.requests_per_s / 4 * 1e8 < 12.5e6
    assert 11e6 < theirs.requests_per_s * 1e8 < 12.5e6


def test_nothing_costs_anything_the_links_are_left() -> None:
    free = Cost(0.0, 0.0, 0.0)
    found = capacity.handoff(Costs(free, free, free, free, free), EMPTY, Site(1e9), 3)
    assert found.bottleneck.name in ("FE's link", "back ends' links")
    assert math.isfinite(found.requests_per_s)


@given(costs_given, loads, sites, counts)
def test_further_back_ends_never_lower_the_rate_and_never_raise_it_beyond_their_share(
    costs: Costs, load: Load, site: Site, count: int
) -> None:
    for kind in (capacity.handoff, capacity.proxied):
        fewer, more = kind(costs, load, site, count), kind(costs, load, site, count + 1)
        assert fewer.requests_per_s <= more.requests_per_s * (1 + 1e-9)
        assert more.requests_per_s <= fewer.requests_per_s * (count + 1) / count * (1 + 1e-9)
        assert fewer.cpu_s == more.cpu_s


@given(costs_given, loads, sites)
def test_rate_stands_still_where_the_front_end_feeds_no_more(costs: Costs, load: Load, site: Site) -> None:
    most = max(1, math.ceil(capacity.fed(costs, load, site)))
    at_the_limit, beyond = (capacity.handoff(costs, load, site, number) for number in (most, 2 * most))
    assert beyond.requests_per_s == pytest.approx(at_the_limit.requests_per_s)
    assert beyond.bottleneck.name.startswith("FE's")


@given(costs_given, loads, sites, counts, st.floats(1.01, 1000))
def test_larger_answers_are_never_faster_or_cheaper(
    costs: Costs, load: Load, site: Site, count: int, factor: float
) -> None:
    larger = replace(load, object_octets=load.object_octets * factor)
    for kind in (capacity.handoff, capacity.proxied):
        assert kind(costs, larger, site, count).requests_per_s <= kind(costs, load, site, count).requests_per_s
        assert kind(costs, larger, site, count).cpu_s >= kind(costs, load, site, count).cpu_s


# Shared processors


def test_shared_cores_are_divided_by_the_sum_of_all_costs() -> None:
    found = capacity.on_shared_cores(COSTS, EMPTY, 2, 4)
    assert found.cpu_s == pytest.approx(400 * US)
    assert found.bottleneck.name == "the shared cores"
    assert found.requests_per_s == pytest.approx(5000)
    theirs = capacity.proxied_on_shared_cores(COSTS, EMPTY, 2, 4)
    assert theirs.requests_per_s == pytest.approx(2 / (150 * US))


def test_many_shared_cores_one_thread_is_the_limit() -> None:
    first, last = (capacity.on_shared_cores(COSTS, EMPTY, 64, number) for number in (1, 64))
    assert first.bottleneck.name == "agents' cores"
    assert first.requests_per_s == pytest.approx(5000)
    assert last.bottleneck.name == "FE's core"
    assert last.requests_per_s == pytest.approx(10_000)


@given(costs_given, loads, st.floats(0.1, 64), counts)
def test_shared_cores_are_never_more_than_fully_used(costs: Costs, load: Load, cores: float, count: int) -> None:
    for kind in (capacity.on_shared_cores, capacity.proxied_on_shared_cores):
        found = kind(costs, load, cores, count)
        assert found.requests_per_s * found.cpu_s <= cores * (1 + 1e-9)


# Break-even


def test_break_even_is_where_both_cost_the_same() -> None:
    octets = capacity.break_even_octets(COSTS)
    assert octets == pytest.approx(250 * US / 2.5e-9)
    ours, theirs = (kind(COSTS, Load(octets or 0), WIDE, 1) for kind in (capacity.handoff, capacity.proxied))
    assert ours.cpu_s == pytest.approx(theirs.cpu_s)


def test_break_even_is_always_or_never_where_the_lines_do_not_cross() -> None:
    dear, cheap = Cost(500 * US, 0.0, 4e-9), Cost(50 * US, 0.0, 0.5e-9)
    assert capacity.break_even_octets(replace(COSTS, proxy=dear)) == 0
    assert capacity.break_even_octets(replace(COSTS, proxy=cheap)) is None


# Wires


def test_front_end_carries_no_answer_but_every_packet_of_the_client_twice() -> None:
    small, large = (traffic.front_end(Load(octets)) for octets in (0.0, 1e6))
    segments = math.ceil((1e6 + traffic.ANSWER_HEAD_OCTETS) / traffic.SEGMENT_OCTETS)
    acknowledgements = 90 * (math.ceil(segments / 2) - 1)
    assert large.received - small.received == pytest.approx(acknowledgements)
    assert large.sent - small.sent == pytest.approx(acknowledgements)


def test_empty_answer_on_a_new_connection_is_these_octets() -> None:
    # SYN 98; ACK, FIN, ACK of the FIN, ACK of the answer 90 each; the request 490; SYN-ACK 98; answer 340.
    assert traffic.server(EMPTY) == traffic.Octets(98 + 4 * 90 + 490, 98 + 2 * 90 + 340)
    assert traffic.proxy(EMPTY) == traffic.Octets(948 + 618, 948 + 618)
    # HANDOFF 534 instead of SYN, ACK and request; ADOPTED and CLOSED 134 each.
    assert traffic.front_end(EMPTY) == traffic.Octets(948 + 268, 98 + 534 + 270)
    assert traffic.back_end(EMPTY) == traffic.Octets(534 + 270, 618 - 98 + 268)


@given(loads)
def test_kept_connections_need_no_more_octets_than_new_ones(load: Load) -> None:
    once = replace(load, requests_per_connection=1.0)
    for link in (traffic.front_end, traffic.back_end, traffic.proxy, traffic.server):
        kept, new = link(load), link(once)
        assert kept.received <= new.received * (1 + 1e-9)
        assert kept.sent <= new.sent * (1 + 1e-9)
        assert min(kept.received, kept.sent) > 0
