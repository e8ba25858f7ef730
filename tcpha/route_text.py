"""What rules make of a connection, put into words for a person.

Pure: knows rules and what was seen of a connection, no file, no option and no output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_address

from tcpha.balance import Address
from tcpha.conditions import Tested, Verdict
from tcpha.fields import UNKNOWN_PROTOCOL, Connection, Field, Kind, Seen, reader_of
from tcpha.proto.inspect import Cause, Inspected, Protocol
from tcpha.proto.inspect.first import answer
from tcpha.proto.inspect.tls import Alert
from tcpha.rule_text import Method, Rule
from tcpha.rules import Choice, NoChoice, Patience, RuleSet

_SHOWN = (Kind.METHOD, Kind.TARGET, Kind.HOST, Kind.SNI, Kind.ALPN)
_SHOWN_OCTETS = 60
_ESCAPED = {ord("\\"): "\\\\", ord("\r"): "\\r", ord("\n"): "\\n", ord("\t"): "\\t"}


def route_lines(
    rules: RuleSet,
    seen: Inspected,
    connection: Connection,
    down: Collection[Address],
    choice: Choice | NoChoice,
    patience: Patience,
    *,
    waits: bool,
) -> Iterator[str]:
    """Yield what was seen, what came of every rule up to the one that decides, and the choice, a line each.

    `patience`: what was left of it after the choice. `waits`: a front end would not choose yet.
    """
    yield _seen_line(seen, connection)
    if waits:
        yield "Undecided: a front end waits for more octets. If no more come:"
    for index, rule in enumerate(rules.rules):
        where = f", line {rule.line}" if rule.line else ""
        yield f"rule {index + 1}{where}: {rule}"
        tested = rules.explain(index, seen, connection, patience)
        yield from (f"    {_tested_words(each)}" for each in tested)
        if all(each.verdict is Verdict.MET for each in tested):
            yield from (f"    passed over: {address}" for address in rule.servers if address in down)
            yield _choice_line(rule, index, seen, connection, down, choice)
            if isinstance(choice, NoChoice):
                yield answered_line(seen.protocol, Cause.UNAVAILABLE, seen)
            return
    yield f"nothing chosen: {NoChoice.UNROUTED.value}"
    yield answered_line(seen.protocol, Cause.UNROUTED, seen)


def _seen_line(seen: Seen, connection: Connection) -> str:
    fields = [(kind, getattr(seen, kind)) for kind in _SHOWN]
    told = [f"{kind} {shown_octets(octets)}" for kind, octets in fields if octets is not None]
    if not told:
        told = [f"octets {shown_octets(seen.octets)}" if seen.protocol == UNKNOWN_PROTOCOL else "nothing told"]
    return f"{seen.protocol} from {ip_address(connection.client)} to port {connection.port}: {', '.join(told)}"


def shown_octets(octets: bytes) -> str:
    r"""Return octets in quotes, and not longer than a line bears; what is not printable as in a pattern: ``\x00``."""
    text = "".join(_ESCAPED.get(octet) or _printable(octet) for octet in octets[:_SHOWN_OCTETS])
    return f"'{text}'" if len(octets) <= _SHOWN_OCTETS else f"'{text}...' ({len(octets)} octets)"


def _printable(octet: int) -> str:
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}"


def answered_line(protocol: Protocol, cause: Cause, asked: Inspected | None = None, code: int | None = None) -> str:
    """Return what a client gets from a front end that chooses no server; parameters as of `first.answer`."""
    octets = answer(protocol, cause, asked, code)
    match protocol:
        case Protocol.HTTP1:
            return f"the client gets: {octets.decode().splitlines()[0]}"
        case Protocol.TLS if octets:
            alert = Alert(octets[-1])
            return f"the client gets: a TLS alert, {alert.name.lower()} ({alert.value})"
        case Protocol.HTTP2:
            return f"the client gets: {'503 and ' if asked is not None else ''}GOAWAY, and its connection is closed"
        case _:
            return "the client gets: nothing, its connection is closed"


def _tested_words(tested: Tested) -> str:
    field, pattern = tested.condition.field, tested.condition.pattern
    if tested.octets is None:
        return f"no: there is no {field}"
    answer = "yes" if tested.verdict is Verdict.MET else "no"
    return f"{answer}: {field}={pattern} {tested.verdict.value} {_value(field, tested.octets)}"


def _value(field: Field, octets: bytes) -> str:
    match field.kind:
        case Kind.CLIENT:
            return str(ip_address(octets))
        case Kind.PORT:
            return octets.decode()
        case _:
            return shown_octets(octets)


def _choice_line(
    rule: Rule, index: int, seen: Seen, connection: Connection, down: Collection[Address], choice: Choice | NoChoice
) -> str:
    if isinstance(choice, NoChoice):
        return f"nothing chosen: rule {index + 1} matches, and {choice.value}"
    left = [address for address in rule.servers if address not in down]
    return f"chosen: {choice.server.addr}, {_why(rule, left, seen, connection)}"


def _why(rule: Rule, left: Collection[Address], seen: Seen, connection: Connection) -> str:
    if len(rule.servers) == 1:
        return "the only server of its rule"
    if len(left) == 1:
        return f"the only one left of {len(rule.servers)}"
    key = rule.balance.key
    octets = None if key is None else reader_of(key)(seen, connection)
    match rule.balance.method:
        case Method.LEAST:
            return "the first of those with the fewest connections: here nobody has any"
        case Method.HASH if key is not None and octets is not None:
            return f"by the hash of {key} {_value(key, octets)}"
        case Method.HASH:
            return f"the first in turn: there is no {key} to hash"
        case _:
            return "the first in turn"
