"""ICMP errors that come through a tunnel: those of this back end's connections are the host's, no others are anybody's.

What came by itself is the host's own business if the agent does not want it. Out of a tunnel it must not be: a front
end's packets would be sent on in its name.
"""

from __future__ import annotations

from typing import cast

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tcpha.be.service import BackEnd
from tcpha.net.raw import RawSender
from tcpha.net.tunnel import TunnelSocket
from tests.packet.be_playbook import CLIENTS, ISS, PORT, ROUTERS, VIPS, Playbook, both_families

OTHER = {4: "198.18.0.99", 6: "2001:db8:c::99"}


class Sent:
    """Stands in for the raw socket."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.packets.append(packet)


class Arrived:
    """Stands in for a tunnel's socket."""

    def __init__(self, *packets: bytes) -> None:
        self._packets = [*packets]

    def read(self) -> list[bytes]:
        return self._packets


def out_of_tunnel(book: Playbook, *packets: bytes) -> list[bytes]:
    """What the host gets when these come out of the tunnel."""
    made, sent = BackEnd.__new__(BackEnd), Sent()
    made._agent, made._raw, made._tunnelled, made._perform = book.agent, cast(RawSender, sent), 0, {}
    made._on_tunnel(cast(TunnelSocket, Arrived(*packets)))
    assert made._tunnelled == len(packets)
    return sent.packets


def error(family: int, receiver: str, quoted_source: str, port: int = PORT) -> bytes:
    """An error for one host about a packet of another, or of the same."""
    quoted = TCP(sport=80, dport=port, seq=ISS + 1 & 0xFFFFFFFF, flags="A")
    if family == 4:
        inner = bytes(IP(src=quoted_source, dst=CLIENTS[4]) / quoted)
        return bytes(IP(src=ROUTERS[4], dst=receiver) / ICMP(type=3, code=4, nexthopmtu=1400) / inner)
    inner = bytes(IPv6(src=quoted_source, dst=CLIENTS[6]) / quoted)
    return bytes(IPv6(src=ROUTERS[6], dst=receiver) / ICMPv6PacketTooBig(mtu=1400) / inner)


@both_families
def test_adopted_error_out_of_the_tunnel_about_its_packet_is_the_hosts(family: int) -> None:
    book = Playbook(family).until_adopted()
    (given,) = out_of_tunnel(book, error(family, VIPS[family], VIPS[family]))
    assert (IP if family == 4 else IPv6)(given).dst == VIPS[family]
    assert book.agent.counters.icmp_errors == 1


@both_families
@pytest.mark.parametrize(
    "what", ["another host's", "another host's, quoting ours", "for us, quoting another's", "ping"]
)
def test_adopted_error_out_of_the_tunnel_for_another_host_is_nobodys(family: int, what: str) -> None:
    book = Playbook(family).until_adopted()
    vip, other = VIPS[family], OTHER[family]
    packet = {
        "another host's": error(family, other, other),
        "another host's, quoting ours": error(family, other, vip),
        "for us, quoting another's": error(family, vip, other),
        "ping": bytes(IP(src=ROUTERS[4], dst=OTHER[4]) / ICMP()),
    }[what]
    assert out_of_tunnel(book, packet) == []
    assert book.agent.counters.icmp_errors == 0


@both_families
def test_nothing_error_out_of_the_tunnel_about_no_connection_is_nobodys(family: int) -> None:
    book = Playbook(family)
    ours = error(family, VIPS[family], VIPS[family])
    assert out_of_tunnel(book, ours) == []
    made = BackEnd.__new__(BackEnd)
    made._agent = book.agent
    assert made._arrive(ours, book.now)[1] == ours, "the host's, if it came by itself"
