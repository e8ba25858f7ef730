"""Targets: what people and other programs write for a node to read. A file is octets without a file system."""

from __future__ import annotations

import contextlib
import json
import re

from tcpha.config import load_back_end, load_front_end
from tcpha.errors import ConfigError, StartError
from tcpha.net.firewall import Rule as FirewallRule
from tcpha.net.firewall import _comment_of, _script
from tcpha.net.footprint import _read_record
from tcpha.proto.inspect import FirstOctets, Inspected, first
from tcpha.proto.keyring import parse_keyring
from tcpha.rules import Choice, Connection, Endpoint, NoChoice, Rule, RuleError, RuleSet, parse_rule
from tests.fuzz.files import OctetsFile

MATCH_TIME_S = 0.02
MOST_RULES = 4
LIMIT_OCTETS = 300
CONNECTION = Connection(bytes((192, 0, 2, 10)), 80)


def config(octets: bytes) -> None:
    """A configuration file: a model of either role, or one sentence that names a line."""
    file = OctetsFile.holding(octets)
    for load in (load_front_end, load_back_end):
        try:
            read = load(file)
        except ConfigError as error:
            assert error.line is None or 1 <= error.line <= octets.count(b"\n") + 1
            assert "\n" not in str(error)
            continue
        assert len(read.digest()) == 16


def rules(octets: bytes) -> None:
    """Rules, an empty line, and a client's first octets: one choice, however the octets are cut."""
    text, _, spoken = octets.partition(b"\n\n")
    found = [rule for line in text.split(b"\n")[:MOST_RULES] if (rule := _rule(line)) is not None]
    seen = first.inspect(spoken or b"x", LIMIT_OCTETS, raw=True)
    if not isinstance(seen, Inspected):
        return
    servers = [Endpoint(address, 666) for address in dict.fromkeys(each for rule in found for each in rule.servers)]
    rule_set = RuleSet(found, servers, MATCH_TIME_S)
    decided = _decided(rule_set, seen)
    others = rule_set.choose(seen, CONNECTION, {server.addr for server in servers})
    assert others in (NoChoice.UNAVAILABLE, NoChoice.UNROUTED)
    cuts = range(1, len(spoken)) if seen.protocol == "octets" else ()
    begun = [FirstOctets(spoken[:end]) for end in cuts]
    early = {_decided(rule_set, each) for each in begun if not rule_set.is_undecided(each, CONNECTION)}
    if not rule_set.timeouts:
        assert early <= {decided}, "the cut decides"


def _rule(line: bytes) -> Rule | None:
    """One rule; what is written of it is read as the same."""
    text = line.decode("utf-8", "surrogateescape")
    try:
        rule = parse_rule(text)
    except RuleError as error:
        assert 1 <= error.column <= len(text) + 1
        return None
    assert parse_rule(str(rule)) == rule
    return rule


def _decided(rule_set: RuleSet, seen: Inspected) -> int | NoChoice:
    """Which rule decides (whose turn it is among its servers, changes), or why none does."""
    choice = rule_set.choose(seen, CONNECTION)
    return choice.rule_index if isinstance(choice, Choice) else choice


def secret(octets: bytes) -> None:
    """The file with the secret: keys, or a complaint in which no key material shows."""
    text = octets.decode("ascii", "replace")
    try:
        keyring = parse_keyring(text)
    except ValueError as error:
        for word in re.findall(r"[0-9A-Fa-f]{16,}", text):
            assert word not in str(error)
        return
    assert 1 <= len(keyring.keys) <= 2
    assert all(len(key.octets) == 32 and 0 <= key.number <= 255 for key in keyring.keys)
    assert all(key.octets.hex() not in repr(keyring) for key in keyring.keys)


def footprint(octets: bytes) -> None:
    """What an earlier start left: a record or a complaint; and a host's rules, of which only our own are taken out."""
    with contextlib.suppress(StartError):
        _read_record(OctetsFile.holding(octets))
    saved = octets.decode("utf-8", "replace")
    script = _script("tcpha fe", (), saved)
    for line in script.splitlines():
        if line.startswith("-D "):
            taken = "-A" + line.removeprefix("-D")
            assert taken in saved
            assert _comment_of(taken) == "tcpha fe"
    mine = FirewallRule(4, "raw", "PREROUTING", "-p tcp", "-j NFQUEUE")
    assert mine.match in _script("tcpha fe", (mine,), saved)
    json.dumps(script)
