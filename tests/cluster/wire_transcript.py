"""What a scripted client heard, made comparable: a reply is named fields, a transcript lists of them, and two differ.

Left out because a host is free in them: initial sequence numbers, the values of timestamps, the identification of IPv4,
the octets of a Date. Numbers are relative (see `wire_script`), windows are in octets, TSecr is told as the number of
the client's segment that it echoes, TSval as its direction since the client listened before. Checksums must be right.

Left out because it is a matter of moments (`settled`): how often in-order octets are acknowledged and in which of the
segments that are under way (RFC 9293, 3.8.6.3), so acknowledgement, window and timestamps of segments with octets count
as they stand at the end of a listening; whether an acknowledgement that says something more (octets came twice, or
behind a gap) leaves before or behind octets that the server writes at the same time; where a host has cut its bursts,
which shows in PSH of segments that are full; and how much of what arrived the server has read, so a window but that of
a SYN-ACK is compared roughly. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6

MASK = 0xFFFFFFFF
NEAR = 1 << 21
"""Relative numbers beyond this belong to other connections; no script goes farther."""
STANDS_MS = 50
"""A clock that has moved by less between two listenings is said to stand; QUIET_S is more."""
_DATE = re.compile(rb"(?<=\r\nDate: )[^\r]+")
MOMENTARY_WINDOW_OCTETS = 4096
"""Windows that differ by less are alike, unless one is 0."""
_AT_THE_END = ("ack", "window", "tsecr", "tsval")
END = "at the end"
"""Stands for the flags of what holds at the end of a listening."""

Reply = Mapping[str, str]
"""Fields by name; `flags` is the first, or what else it is."""
Transcript = Sequence[Sequence[Reply]]
"""What was heard in each listening of a script."""


@dataclass(slots=True)
class Numbering:
    """What makes the numbers of one connection relative."""

    irs: int
    iss: int
    mss: int = 0
    """The client's, if it told one."""
    server_scale: int = 0
    tsvals: list[int] = field(default_factory=list)
    """Of the client's segments, in the order in which they were sent."""
    tsval_heard: int | None = None
    """The last one heard."""
    tsval_before: int | None = None
    """The last one heard before the client began to listen."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One thing in which a transcript is not like the other."""

    listening: int
    """Counted from 1."""
    what: str
    """A reply's flags and the name of a field, or `missing`, or `additional`."""
    plain: str
    other: str

    def __str__(self) -> str:
        if self.what in ("missing", "additional"):
            return f"{self.listening} {self.what}: {self.plain or self.other}"
        return f"{self.listening} {self.what}: {self.plain or 'none'} -> {self.other or 'none'}"


def distance(number: int, base: int) -> int:
    """How far `number` lies behind `base`, modulo 2**32: -2**31 to 2**31 - 1."""
    return ((number - base + 0x80000000) & MASK) - 0x80000000


def shown(reply: Reply) -> str:
    """One line, without what goes without saying."""
    return " ".join(
        [reply["flags"], *(f"{name}={value}" for name, value in reply.items() if name != "flags" and value)]
    )


# --- from a packet to fields


def describe(octets: bytes, numbering: Numbering) -> dict[str, str]:
    """The fields of one reply, an IP packet."""
    packet = (IP if octets[0] >> 4 == 4 else IPv6)(octets)
    fields = _describe_segment(packet[TCP], numbering) if TCP in packet else {"flags": _other_kind(packet)}
    if packet.version == 4:
        fields |= {"ttl": str(packet.ttl), "tos": str(packet.tos), "fragment": str(packet.flags)}
    else:
        fields |= {"ttl": str(packet.hlim), "tos": str(packet.tc), "flow label": "some" if packet.fl else "0"}
    return fields | {"sums": "" if _sums_are_right(packet, octets) else "wrong"}


def _describe_segment(tcp: Any, numbering: Numbering) -> dict[str, str]:
    scale = 0 if tcp.flags.S else numbering.server_scale
    is_full = len(tcp.payload) + 4 * tcp.dataofs - 20 == numbering.mss
    return {
        "flags": str(tcp.flags).replace("P", "" if is_full else "P") or "none",
        "seq": _relative(tcp.seq, numbering.iss),
        "ack": _relative(tcp.ack, numbering.irs) if tcp.flags.A else str(tcp.ack or ""),
        "window": str(tcp.window << scale),
        "options": " ".join(str(name).lower() for name, _ in tcp.options),
        **dict(_describe_option(option, numbering) for option in tcp.options if option[1] not in (None, b"")),
        "tsval": _direction(tcp, numbering) if abs(distance(tcp.seq, numbering.iss)) < NEAR else "",
        "payload": _digest(bytes(tcp.payload)),
        "urgent": str(tcp.urgptr or ""),
        "reserved": str(tcp.reserved or ""),
    }


def _relative(number: int, base: int) -> str:
    found = distance(number, base)
    return str(found) if abs(found) < NEAR else "0 absolute" if number == 0 else "elsewhere"


def _describe_option(option: tuple[Any, Any], numbering: Numbering) -> tuple[str, str]:
    """A name and the value of an option."""
    name, value = option
    if name == "Timestamp":
        echo = value[1]
        return "tsecr", str(numbering.tsvals.index(echo)) if echo in numbering.tsvals else f"{echo} absolute"
    if name == "SAck":
        edges = [_relative(edge, numbering.irs) for edge in value]
        return "sack", " ".join(f"{left}-{right}" for left, right in zip(edges[::2], edges[1::2], strict=True))
    return str(name).lower(), str(value)


def _direction(tcp: Any, numbering: Numbering) -> str:
    tsval = dict(tcp.options).get("Timestamp", (None, None))[0]
    if tsval is None or numbering.tsval_heard is None:
        return ""
    if distance(tsval, numbering.tsval_heard) < 0:
        return "earlier"
    if numbering.tsval_before is None:
        return ""
    return "later" if distance(tsval, numbering.tsval_before) >= STANDS_MS else "stands"


def _digest(payload: bytes) -> str:
    if not payload:
        return ""
    comparable = _DATE.sub(b"", payload)
    return f"{len(payload)} octets {comparable[:12]!r} {hashlib.sha256(comparable).hexdigest()[:8]}"


def _other_kind(packet: Any) -> str:
    inner = packet.getlayer(ICMP) or packet.payload
    return f"{inner.name} type {getattr(inner, 'type', '?')} code {getattr(inner, 'code', '?')}"


def _sums_are_right(packet: Any, octets: bytes) -> bool:
    again = packet.copy()
    for layer in (IP, TCP):
        if layer in again:
            del again[layer].chksum
    return bytes(again) == octets


# --- what does not depend on moments


def settled(heard: Sequence[Reply], acknowledged: int) -> list[Reply]:
    """The replies of one listening without what is a matter of moments; what holds at its end comes last.

    `acknowledged`: how far the server had acknowledged before it, relative.
    """
    says_more: list[Reply] = []
    others: list[Reply] = []
    end: dict[str, str] = {}
    for reply in heard:
        if not _carries_octets(reply) and reply["flags"] != "A":
            others.append(reply)  # SYN, RST, ICMP: compared as they are
            continue
        tsval = end.get("tsval", reply["tsval"])
        end = {"flags": END, **{name: reply.get(name, "") for name in _AT_THE_END}}
        end["tsval"] = "earlier" if "earlier" in (tsval, reply["tsval"]) else tsval
        if _carries_octets(reply):
            others.append(_without(_AT_THE_END, reply))
        elif reply.get("sack") or _number(reply["ack"]) <= acknowledged:
            says_more.append(_without(("window", "tsval"), reply))
        acknowledged = max(acknowledged, _number(reply["ack"]))
    says_more = [reply for reply in says_more if reply.get("sack") or _number(reply["ack"]) >= acknowledged]
    if any(map(_carries_octets, others)):
        says_more = [_without(("seq",), reply) for reply in says_more]
    return [*says_more, *others, *([end] if end else [])]


def acknowledged_by(heard: Sequence[Reply]) -> int:
    """How far the replies acknowledge, relative; the SYN in any case."""
    return max((_number(reply.get("ack", "")) for reply in heard if "S" not in reply["flags"]), default=1)


def _carries_octets(reply: Reply) -> bool:
    return bool(reply.get("payload")) or reply["flags"] in ("FA", "FPA")


def _without(names: Sequence[str], reply: Reply) -> Reply:
    return {name: value for name, value in reply.items() if name not in names}


def _number(ack: str) -> int:
    return int(ack) if ack.lstrip("-").isdigit() else 0


# --- two transcripts


def compare(plain: Transcript, other: Transcript) -> list[Difference]:
    """Every difference, in order. Both are of one script: they have as many listenings."""
    pairs = enumerate(zip(plain, other, strict=True), 1)
    return [found for number, (left, right) in pairs for found in _compare_listening(number, left, right)]


def _compare_listening(number: int, plain: Sequence[Reply], other: Sequence[Reply]) -> Iterator[Difference]:
    matcher = SequenceMatcher(None, [_likeness(each) for each in plain], [_likeness(each) for each in other], False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        alike = [each["flags"] for each in plain[i:i_end]] == [each["flags"] for each in other[j:j_end]]
        paired = i_end - i if alike else 0
        for left, right in zip(plain[i : i + paired], other[j : j + paired], strict=True):
            yield from _compare_fields(number, left, right)
        for reply in plain[i + paired : i_end]:
            yield Difference(number, "missing", shown(reply), "")
        for reply in other[j + paired : j_end]:
            yield Difference(number, "additional", "", shown(reply))


def _likeness(reply: Reply) -> tuple[str | None, ...]:
    """Replies that are alike in this are compared field by field."""
    return tuple(reply.get(name) for name in ("flags", "seq", "payload"))


def _compare_fields(number: int, plain: Reply, other: Reply) -> Iterator[Difference]:
    for name in {**plain, **other}:
        left, right = plain.get(name, ""), other.get(name, "")
        if left != right and not (name == "window" and plain["flags"] == END and _are_near(int(left), int(right))):
            yield Difference(number, f"{plain['flags']} {name}", left, right)


def _are_near(window: int, other: int) -> bool:
    return bool(window) == bool(other) and abs(window - other) < MOMENTARY_WINDOW_OCTETS
