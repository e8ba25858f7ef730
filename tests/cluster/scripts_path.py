"""Scripts of the path: what is lost and acknowledged selectively, windows, damaged packets, and the layer below TCP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scapy.layers.inet import IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

from tests.cluster.scripts import ACK, ANSWERED, ASK, CONNECTED, ONE_REPLY, SYN, syn
from tests.cluster.wire_script import BOTH, HEARD, LINUX, LISTEN, Listens, Script, Sends

SMALL = syn((("MSS", 536), *LINUX[1:]))
SMALL_AND_SCALED = (("MSS", 536), *LINUX[1:-1], ("WScale", 3))
GET_MORE = b"GET /100k HTTP/1.1\r\nHost: lab\r\n\r\n"
TWO_SEGMENTS = 131
"""A window of 1048 octets in units of 8: room for two segments to an MSS of 536 with timestamps."""
NARROW = Sends("A", window=TWO_SEGMENTS)
UNSCALED = Sends("A", window=2896)
DAMAGED = {"chksum": 0x1234}
FOUR_NOPS: dict[str, Any] = {"options": [IPOption_NOP()] * 4}
ROUTE: dict[str, Any] = {"options": [IPOption_RR(routers=["0.0.0.0"])]}

_LOST = (
    Script("answer not acknowledged", *CONNECTED, ASK, Listens(replies=4), ACK, LISTEN, families=BOTH),
    Script("answer acknowledged in part", *CONNECTED, ASK, LISTEN, Sends("A", ack=101), ONE_REPLY, ACK, LISTEN),
    Script(
        "first segment of the answer lost",
        *(SMALL, LISTEN, ACK, ASK, LISTEN),
        *(Sends("A", ack=1, sack=((HEARD - 1000, HEARD),)), ONE_REPLY, ACK, LISTEN),
        families=BOTH,
    ),
    Script(
        "middle of the answer lost",
        *(SMALL, LISTEN, ACK, ASK, LISTEN),
        *(Sends("A", ack=HEARD - 1000, sack=((HEARD - 464, HEARD),)), ONE_REPLY, ACK, LISTEN),
    ),
)

_WINDOWS = (
    Script(
        "answer through a narrow window",
        *(syn(SMALL_AND_SCALED, window=8 * TWO_SEGMENTS), LISTEN, NARROW, replace(NARROW, payload=GET_MORE), LISTEN),
        *(NARROW, LISTEN) * 4,
        families=BOTH,
    ),
    Script(
        "answer through a narrow window that is not scaled",
        *(syn(LINUX[:-2], window=2896), LISTEN, replace(UNSCALED, payload=GET_MORE), LISTEN),
        *(UNSCALED, LISTEN) * 3,
    ),
)

_DAMAGED = (
    Script("SYN with a wrong checksum", syn(tcp=DAMAGED), LISTEN, SYN, LISTEN),
    Script("request with a wrong checksum", *CONNECTED, replace(ASK, tcp=DAMAGED), LISTEN, ASK, LISTEN, families=BOTH),
    Script("data with a wrong checksum after the answer", *ANSWERED, replace(ASK, tcp=DAMAGED), LISTEN, ASK, LISTEN),
)

_BELOW = (
    Script("SYN with IP options", syn(ip=FOUR_NOPS), LISTEN),
    Script("SYN that records its route", syn(ip=ROUTE), LISTEN),
    Script("data with IP options after the answer", *ANSWERED, replace(ASK, ip=FOUR_NOPS), LISTEN),
    Script("SYN with an extension header", syn(extensions=(IPv6ExtHdrDestOpt(),)), LISTEN, families=("ipv6",)),
    Script(
        "data with an extension header after the answer",
        *(*ANSWERED, replace(ASK, extensions=(IPv6ExtHdrDestOpt(),)), LISTEN),
        families=("ipv6",),
    ),
    Script("request in IP fragments", *CONNECTED, replace(ASK, fragment_octets=40), LISTEN),
    Script("data in IP fragments after the answer", *ANSWERED, replace(ASK, fragment_octets=40), LISTEN),
    Script(
        "service class and hop limit",
        *(syn(ip={"tos": 0x88, "ttl": 3}), LISTEN, replace(ASK, ip={"tos": 0x88, "ttl": 3}), LISTEN),
    ),
    Script("ACK of no connection of a service class", Sends("A", seq=1000, ack=2000, ip={"tos": 0x88}), ONE_REPLY),
    Script("SYN marked ECT", syn(ip={"tos": 2}), LISTEN),
    Script("request that may be fragmented", *CONNECTED, replace(ASK, ip={"flags": 0}), LISTEN),
    Script("request from one hop away", *CONNECTED, replace(ASK, ip={"ttl": 1}), LISTEN),
    Script("request of a flow label", SYN, LISTEN, replace(ASK, ip={"fl": 0x12345}), LISTEN, families=("ipv6",)),
)

SCRIPTS = (*_LOST, *_WINDOWS, *_DAMAGED, *_BELOW)
