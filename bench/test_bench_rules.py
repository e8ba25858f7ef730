"""What a choice costs: rules that are tried before one matches, and the ways to pick one of several servers.

`python -m pytest bench/test_bench_rules.py`; on a busy machine compare the column Min of several runs. The reference is
`one_pattern`, what TCPHA-0.3's example asks of a request.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tcpha.balance import Endpoint
from tcpha.fields import Connection, Seen
from tcpha.proto.inspect import FirstOctets, Request
from tcpha.proto.inspect.http1 import inspect
from tcpha.rules import Choice, RuleSet, parse_rule

SERVERS = [Endpoint(ip_address(f"198.18.0.{number}"), 666) for number in range(31, 39)]
ALL = ",".join(str(server.addr) for server in SERVERS)
FIRST = str(SERVERS[0].addr)
CONNECTION = Connection(ip_address("198.51.100.7").packed, 80)
HEAD = (
    b"GET /static/app.js?v=3 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
    b"Cookie: theme=dark; session=0123456789abcdef0123456789abcdef\r\n\r\n"
)
LAST = f"{FIRST} .*"
RULES = {
    "one_pattern": [f"{FIRST} jpg$", LAST],
    "20_patterns": [*(f"{FIRST} ^/dir{number}/" for number in range(20)), LAST],
    "20_patterns_with_the_clock": [*(f"{FIRST} ^/(?:dir{number}|d{number})/" for number in range(20)), LAST],
    "20_hosts": [*(f"{FIRST} host=^h{number}\\.example\\.org$" for number in range(20)), LAST],
    "20_hosts_and_paths": [*(f"{FIRST} host=^www\\. path=^/dir{number}/" for number in range(20)), LAST],
    "20_networks": [*(f"{FIRST} client=10.{number}.0.0/16" for number in range(20)), LAST],
}
BALANCES = ["rr", "least", "hash:client", "hash:cookie.session"]


def requested() -> Request:
    found = inspect(HEAD)
    assert isinstance(found, Request)
    return found


def choose(benchmark: BenchmarkFixture, lines: list[str], seen: Seen, servers: list[Endpoint]) -> None:
    rules = RuleSet([parse_rule(line) for line in lines], servers, 0.005)
    loads = {server.addr: number % 3 for number, server in enumerate(servers)}
    choice = benchmark(lambda: rules.choose(seen, CONNECTION, (), load=loads.__getitem__))
    assert isinstance(choice, Choice)


@pytest.mark.parametrize("lines", RULES.values(), ids=RULES)
def test_rules(benchmark: BenchmarkFixture, lines: list[str]) -> None:
    choose(benchmark, lines, requested(), SERVERS)


@pytest.mark.parametrize("balance", BALANCES)
def test_one_of_eight_servers(benchmark: BenchmarkFixture, balance: str) -> None:
    choose(benchmark, [f"{ALL} balance={balance} .*"], requested(), SERVERS)


def test_one_of_eight_servers_by_hash_and_weight(benchmark: BenchmarkFixture) -> None:
    weighted = [Endpoint(server.addr, server.port, number + 1) for number, server in enumerate(SERVERS)]
    choose(benchmark, [f"{ALL} balance=hash:client .*"], requested(), weighted)


def test_octets_that_more_may_follow(benchmark: BenchmarkFixture) -> None:
    lines = [*(f"{FIRST} octets=^PROTO{number}-" for number in range(20)), f"{FIRST} octets=.*"]
    rules = RuleSet([parse_rule(line) for line in lines], SERVERS, 0.005)
    seen = FirstOctets(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert not benchmark(rules.is_undecided, seen, CONNECTION)
