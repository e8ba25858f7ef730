"""One of several servers: in turn, by load, by hash."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpha.balance import Address, Endpoint, Least, Pool, Rendezvous, RoundRobin, unloaded

ADDRESSES = [IPv4Address(f"192.0.2.{number}") for number in range(1, 9)]
A, B, C, D = ADDRESSES[:4]
KEYS = [b"key %d" % number for number in range(4000)]
WEIGHTS = st.lists(st.integers(1, 256), min_size=1, max_size=6)


def servers(*weights: int) -> list[Endpoint]:
    return [Endpoint(addr, 666, weight) for addr, weight in zip(ADDRESSES, weights, strict=False)]


def picked(
    pool: Pool, key: bytes | None = None, excluding: set[Address] | frozenset[Address] = frozenset()
) -> Address | None:
    server = pool.pick(key, excluding, unloaded)
    return None if server is None else server.addr


def letters(pool: Pool, times: int) -> str:
    """Who is picked, one after the other: a for the first server."""
    return "".join("abcdefgh"[ADDRESSES.index(IPv4Address(str(picked(pool))))] for _ in range(times))


# --- the server


def test_weight_is_part_of_the_text_but_not_of_the_identity() -> None:
    assert str(Endpoint(A, 666)) == "192.0.2.1 666"
    assert str(Endpoint(A, 666, 3)) == "192.0.2.1 666 weight=3"
    assert Endpoint(A, 666, 3) == Endpoint(A, 666)
    assert len({Endpoint(A, 666, 3), Endpoint(A, 666)}) == 1
    assert len({Endpoint(A, 666), Endpoint(A, 667)}) == 2


@pytest.mark.parametrize("kind", [RoundRobin, Least, Rendezvous])
def test_all_servers_excluded_nobody_is_picked(kind: type[RoundRobin | Least | Rendezvous]) -> None:
    assert picked(kind(servers(1, 2)), b"key", {A, B}) is None
    assert picked(kind(servers(1, 2)), None, {A, B}) is None


# --- in turn


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ((1,), "aaa"),
        ((1, 1, 1), "abcabc"),
        ((5, 1, 1), "aabacaaaabacaa"),
        ((3, 2, 1), "abacbaabacba"),
        ((1, 3), "babbbabb"),
        ((4, 2), "abaaba"),
    ],
)
def test_servers_take_turns_smoothly_by_weight(weights: tuple[int, ...], order: str) -> None:
    assert letters(RoundRobin(servers(*weights)), len(order)) == order


@settings(deadline=None, max_examples=50)
@given(weights=WEIGHTS)
def test_any_weights_every_round_gives_each_server_its_weight(weights: list[int]) -> None:
    pool = RoundRobin(servers(*weights))
    for _ in range(2):
        counted = Counter(picked(pool) for _ in range(sum(weights)))
        assert [counted[addr] for addr in ADDRESSES[: len(weights)]] == weights


@settings(deadline=None, max_examples=50)
@given(weights=WEIGHTS, turns=st.integers(1, 60))
def test_any_beginning_no_server_is_far_from_its_share(weights: list[int], turns: int) -> None:
    pool = RoundRobin(servers(*weights))
    counted = Counter(picked(pool) for _ in range(turns))
    for addr, weight in zip(ADDRESSES, weights, strict=False):
        assert abs(counted[addr] - Fraction(turns * weight, sum(weights))) < len(weights)


def test_server_is_passed_over_and_comes_back_it_gets_its_turn_and_no_burst() -> None:
    pool = RoundRobin(servers(1, 1, 1))
    assert picked(pool) == A
    assert [picked(pool, excluding={B}) for _ in range(6)] == [C, C, A, C, A, C]
    assert letters(pool, 12) == "bacbacbacbac"


@settings(deadline=None, max_examples=100)
@given(
    weights=st.lists(st.integers(1, 256), min_size=2, max_size=6),
    exclusions=st.lists(st.sets(st.integers(0, 5)), max_size=80),
    times=st.integers(1, 20),
)
def test_any_exclusions_what_is_remembered_stays_bounded(
    weights: list[int], exclusions: list[set[int]], times: int
) -> None:
    pool = RoundRobin(servers(*weights))
    for excluded in exclusions * times:
        picked(pool, excluding={ADDRESSES[index] for index in excluded})
        assert sum(pool._credits) == 0
        assert max(map(abs, pool._credits)) <= len(weights) * sum(weights)


# --- least


def least(weights: tuple[int, ...], loads: tuple[int, ...]) -> Address | None:
    carried = dict(zip(ADDRESSES, loads, strict=False))
    server = Least(servers(*weights)).pick(None, (), lambda addr: carried[IPv4Address(str(addr))])
    return None if server is None else server.addr


@pytest.mark.parametrize(
    ("weights", "loads", "expected"),
    [
        ((1, 1), (3, 2), B),
        ((1, 1), (2, 2), A),
        ((2, 1), (3, 2), A),
        ((2, 1), (4, 2), A),
        ((2, 1), (5, 2), A),
        ((2, 1), (6, 2), B),
        ((1, 256), (0, 254), B),
        ((1, 256), (0, 255), B),
        ((1, 256), (0, 256), A),
        ((3, 3, 3), (10**12, 10**12 + 1, 10**12 - 1), C),
    ],
)
def test_smallest_load_for_its_weight_is_picked(
    weights: tuple[int, ...], loads: tuple[int, ...], expected: Address
) -> None:
    assert least(weights, loads) == expected


@given(weights=st.tuples(*[st.integers(1, 256)] * 4), loads=st.tuples(*[st.integers(0, 1 << 26)] * 4))
def test_any_loads_nobody_has_less_for_its_weight_than_the_one_picked(
    weights: tuple[int, ...], loads: tuple[int, ...]
) -> None:
    relative = {addr: Fraction(load + 1, weight) for addr, load, weight in zip(ADDRESSES, loads, weights, strict=False)}
    assert relative[IPv4Address(str(least(weights, loads)))] == min(relative.values())


def test_servers_alike_take_turns_by_weight() -> None:
    assert letters(Least(servers(1, 1, 1)), 6) == "abcabc"
    loads = {A: 3, B: 1, C: 1}
    pool = Least(servers(2, 1, 1))
    counted = Counter(
        server.addr for _ in range(30) if (server := pool.pick(None, (), lambda addr: loads[IPv4Address(str(addr))]))
    )
    assert counted == {A: 15, B: 8, C: 7}


def test_server_with_the_least_load_is_excluded_the_next_is_picked() -> None:
    loads = {A: 0, B: 5, C: 2}
    server = Least(servers(1, 1, 1)).pick(None, {A}, lambda addr: loads[IPv4Address(str(addr))])
    assert server is not None
    assert server.addr == C


# --- by hash


def homes(pool: Rendezvous, excluding: frozenset[Address] = frozenset()) -> dict[bytes, Address | None]:
    return {key: picked(pool, key, excluding) for key in KEYS}


def test_key_has_the_same_server_in_every_process_and_version() -> None:
    """Another answer here would tear every client from its server when a front end is renewed."""
    equal, weighted = Rendezvous(servers(1, 1, 1, 1)), Rendezvous(servers(1, 2, 3, 4))
    keys = [b"", b"a", b"198.51.100.7", bytes(4), bytes(16), b"\xc6\x33\x64\x07"]
    assert [picked(equal, key) for key in keys] == [D, B, D, A, D, C]
    assert [picked(weighted, key) for key in keys] == [D, B, D, C, D, C]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3, 10)])
@pytest.mark.parametrize("gone", ADDRESSES[:4])
def test_server_is_excluded_or_removed_only_its_own_keys_move(weights: tuple[int, ...], gone: Address) -> None:
    all_of_them = servers(*weights)
    before = homes(Rendezvous(all_of_them))
    excluded = homes(Rendezvous(all_of_them), frozenset({gone}))
    removed = homes(Rendezvous([server for server in all_of_them if server.addr != gone]))
    assert excluded == removed
    moved = [key for key in KEYS if before[key] != removed[key]]
    assert moved == [key for key in KEYS if before[key] == gone]
    assert moved
    assert len({removed[key] for key in moved}) == 3, "what it had is shared among all that are left"


@pytest.mark.parametrize(("weight", "later"), [(1, 2), (3, 10), (1, 256)])
def test_weight_grows_keys_move_to_that_server_only(weight: int, later: int) -> None:
    before, after = homes(Rendezvous(servers(weight, 2, 2))), homes(Rendezvous(servers(later, 2, 2)))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert moved
    assert {after[key] for key in moved} == {A}


@settings(deadline=None, max_examples=50)
@given(order=st.permutations(range(4)), weights=st.tuples(*[st.integers(1, 256)] * 4), key=st.binary(max_size=20))
def test_any_order_of_the_servers_gives_a_key_the_same_one(
    order: list[int], weights: tuple[int, ...], key: bytes
) -> None:
    all_of_them = servers(*weights)
    assert picked(Rendezvous([all_of_them[index] for index in order]), key) == picked(Rendezvous(all_of_them), key)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3, 10), (256, 1, 1, 1), (7, 7)])
def test_keys_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    """Within five standard deviations of a binomial distribution; the keys are always the same."""
    counted = Counter(homes(Rendezvous(servers(*weights))).values())
    for addr, weight in zip(ADDRESSES, weights, strict=False):
        share = weight / sum(weights)
        assert abs(counted[addr] - share * len(KEYS)) < 5 * (len(KEYS) * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("weights", [(1, 1), (2, 2, 2)])
def test_equal_weights_are_told_the_same_with_and_without_the_logarithm(weights: tuple[int, ...]) -> None:
    pool = Rendezvous(servers(*weights))
    quick = homes(pool)
    pool._equal = False
    assert homes(pool) == quick


@pytest.mark.parametrize("octets", [bytes(8), b"\xff" * 8])
def test_hash_of_all_zeros_or_all_ones_has_a_score(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rendezvous, "_hash", lambda *_: octets)
    pool = Rendezvous(servers(1, 2))
    assert 0 < pool._score(0, b"") < pool._score(1, b"")


def test_key_is_absent_servers_take_turns() -> None:
    assert letters(Rendezvous(servers(1, 1, 1)), 6) == "abcabc"
    assert letters(Rendezvous(servers(2, 1)), 6) == "abaaba"


def test_address_families_are_no_matter() -> None:
    mixed = [Endpoint(ip_address("192.0.2.1"), 1), Endpoint(ip_address("2001:db8::1"), 1)]
    assert {picked(Rendezvous(mixed), key) for key in KEYS[:50]} == {server.addr for server in mixed}
