"""Sets of rules over three servers, written with their letters: ``a,b balance=least jpg$``."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from tcpha.balance import Address
from tcpha.fields import Connection, Seen
from tcpha.rules import Endpoint, NoChoice, RuleSet, parse_rule
from tests.unit.seen import connection

A = IPv4Address("192.168.1.33")
B = IPv4Address("192.168.1.38")
C = IPv6Address("2001:db8::7")
SERVERS = (Endpoint(A, 666), Endpoint(B, 667), Endpoint(C, 668))
NAMES: dict[str, Address] = {"a": A, "b": B, "c": C}
EXPONENTIAL = r"(a|aa)+$"
ENDLESS = b"/" + b"a" * 100 + b"c"
HERE = connection()
UNDECIDED = "undecided"


def rule_set(*lines: str, match_time_s: float = 0.05, servers: Collection[Endpoint] = SERVERS) -> RuleSet:
    """Rules whose addresses are the letters a, b and c."""
    texts = []
    for line in lines:
        letters, _, rest = line.partition(" ")
        texts.append(f"{','.join(str(NAMES[letter]) for letter in letters.split(','))} {rest}")
    return RuleSet([parse_rule(text, number) for number, text in enumerate(texts, start=1)], [*servers], match_time_s)


def chosen(
    rules: RuleSet,
    seen: Seen,
    where: Connection | None = HERE,
    excluding: Collection[Address] = (),
    final: bool = True,
) -> object:
    """The letter of the server and the number of the rule, or why there is none.

    `final` is false while more octets may come.
    """
    if not final and rules.is_undecided(seen, where):
        return UNDECIDED
    choice = rules.choose(seen, where, excluding)
    if isinstance(choice, NoChoice):
        return choice
    letter = next(letter for letter, addr in NAMES.items() if addr == choice.server.addr)
    return f"{letter}{choice.rule_index + 1}"
