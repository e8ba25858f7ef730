from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw, split_bottom_up

from tcpha.errors import WireError
from tcpha.proto import dissect
from tcpha.proto.cookie import Agreement
from tcpha.proto.dissect import NO_MESSAGE, HandoffMessage, summary
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import ConnectionKey, key_addresses, key_ports
from tcpha.proto.messages import (
    Adopted,
    Capabilities,
    Closed,
    Flows,
    FlowsQuery,
    Handoff,
    Identity,
    Message,
    Moved,
    NodeState,
    Reason,
    Refused,
    ServerState,
    Status,
)
from tcpha.proto.seqnum import SeqNum
from tests.unit.proto.conftest import (
    ENVELOPE,
    KEY_IPV4,
    KEY_IPV6,
    KEYRING,
    contents,
    envelopes,
    identity,
    messages,
    seal,
)
from tests.unit.proto.vectors import MALFORMED, with_fields

CODEC = HandoffCodec(KEYRING)
IPV4, IPV6 = identity(), identity(key=KEY_IPV6)
HANDOFF = Handoff(
    IPV4, Agreement(1460, 7, sack=True), 7, 502, 9, 1, 2, confirm=False, acknowledged=None, octets=bytes(123)
)  # fmt: skip


# --- the layers show what the codec wrote


def shown_flow(layer: Any) -> Identity:
    client, vip = ip_address(layer.client_address), ip_address(layer.virtual_address)
    ports = struct.pack("!HH", layer.client_port, layer.vip_port)
    return Identity(ConnectionKey(client.packed + vip.packed + ports), SeqNum(layer.irs), SeqNum(layer.iss))


def shown(message: Any) -> dict[str, Any]:
    """The particulars of a message that is no HANDOFF, as its TLV layers show them."""
    fields: dict[str, Any] = {"flows": [], "absent": [], "servers": []}
    for tlv in message.tlvs:
        match tlv:
            case dissect.Flow():
                fields["flows"].append(shown_flow(tlv))
            case dissect.Absent():
                fields["absent"].append(shown_flow(tlv).key)
            case dissect.Server():
                fields["servers"].append((ip_address(tlv.address).packed, tlv.port, tlv.state))
            case dissect.Capabilities():
                scale = None if tlv.window_scale == 15 else tlv.window_scale
                fields["capabilities"] = Capabilities(scale, bool(tlv.flags.sack), bool(tlv.flags.timestamps), tlv.mss)
            case dissect.State():
                fields |= {"state": tlv.state, "held": tlv.flows}
            case _:
                fields |= {
                    name: value for name, value in tlv.fields.items() if name not in ("type", "length", "pad", "unused")
                }
    return fields


def expected(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"flows": [], "absent": [], "servers": []}
    match message:
        case Handoff():
            fields |= {} if message.acknowledged is None else {"acknowledged": message.acknowledged}
        case Adopted(_, rcv_nxt):
            fields |= {"rcv_nxt": rcv_nxt}
        case Refused(_, reason):
            fields |= {"reason": reason}
        case Moved(_, owner):
            fields |= {"owner": owner}
        case Closed(identities):
            fields["flows"] = list(identities)
        case FlowsQuery(keys):
            fields["flows"] = [Identity(key, SeqNum(0), SeqNum(0)) for key in keys]
        case Flows(held, absent):
            fields |= {"flows": list(held), "absent": list(absent)}
        case Status():
            fields |= {"nonce": message.nonce, "epoch": message.epoch, "state": message.state, "held": message.flows}
            fields |= {"digest": message.digest, "servers": [(s.address, s.port, s.state) for s in message.servers]}
            fields |= {} if message.capabilities is None else {"capabilities": message.capabilities}
    return fields


TYPES: dict[type[Message], int] = {
    Handoff: 1, Adopted: 2, Refused: 3, Moved: 4, Closed: 5, Status: 6, FlowsQuery: 7, Flows: 8,
}  # fmt: skip


@given(envelopes, messages)
def test_any_message_of_the_codec_layers_show_its_values(envelope: Envelope, message: Message) -> None:
    datagram = CODEC.encode(envelope, message)
    layer = HandoffMessage(datagram)
    assert (layer.tag, layer.magic, layer.version, layer.key) == (datagram[:16], 0x5448, 1, 1)
    assert layer.type == TYPES[type(message)]
    assert (layer.sender, layer.epoch, layer.sequence) == (envelope.sender, envelope.epoch, envelope.sequence)
    assert shown(layer) == expected(message)
    assert len(layer.octets) == len(datagram) - layer.words * 4
    named = message.identity if isinstance(message, Handoff | Adopted | Refused | Moved) else identity(0, 0, NO_FLOW)
    assert shown_flow(layer) == named
    assert bool(layer.flags.ipv6) == (len(named.key) == 36)
    if isinstance(message, Handoff):
        show_handoff(layer, message)
    else:
        assert layer.octets == b""
        assert int(layer.flags) in (0, 1)
        assert not any(layer.fields[name] for name in HANDOFF_ONLY)


NO_FLOW = ConnectionKey(bytes(12))
HANDOFF_ONLY = ("client_scale", "promised_scale", "mss", "window", "period", "tsval_sent", "tsval_client")


def show_handoff(layer: Any, message: Handoff) -> None:
    flags, agreement = layer.flags, message.agreement
    assert bool(flags.timestamps) == (message.tsval_sent is not None)
    assert bool(flags.sack) == agreement.sack
    assert bool(flags.window_scale) == (agreement.window_scale is not None)
    assert bool(flags.confirm) == message.confirm
    assert not flags.reserved
    assert (layer.client_scale, layer.promised_scale) == (
        agreement.window_scale or 0,
        message.promised_window_scale or 0,
    )
    assert (layer.mss, layer.window, layer.period) == (agreement.mss, message.window, message.period)
    assert (layer.tsval_sent, layer.tsval_client) == (message.tsval_sent or 0, message.tsval_client)
    assert layer.octets == message.octets


# --- and the codec reads what the layers write


@given(envelopes, messages)
def test_any_message_built_from_the_layers_codec_reads_the_same(envelope: Envelope, message: Message) -> None:
    datagram = CODEC.encode(envelope, message)
    fields = {name: value for name, value in HandoffMessage(datagram).fields.items() if name not in ("words", "tag")}
    built = bytes(HandoffMessage(**fields))
    assert CODEC.decode(seal(built[16:])) == (envelope, message)
    assert built[16:] == datagram[16:]


def test_message_written_with_scapy_codec_reads_its_values() -> None:
    layer = HandoffMessage(
        type="CLOSED", key=1, sender=38, epoch=7, sequence=8,
        tlvs=[
            dissect.Flow(irs=1, iss=2, client_port=40000, vip_port=80,
                         client_address="198.18.0.10", virtual_address="198.18.0.36"),
            dissect.Tlv(type=77, value=b"later"),
            dissect.Flow(length=44, irs=3, iss=4, client_port=40000, vip_port=80,
                         client_address="2001:db8::a", virtual_address="2001:db8::24"),
        ],
    )  # fmt: skip
    message = Closed((identity(1, 2, KEY_IPV4), identity(3, 4, KEY_IPV6)))
    assert CODEC.decode(seal(bytes(layer)[16:])) == (Envelope(38, 7, 8), message)


# --- where scapy finds them


@pytest.mark.parametrize("ports", [(666, 5000), (5000, 666), (666, 666)])
@pytest.mark.parametrize("ip", [IP(), IPv6()], ids=["IPv4", "IPv6"])
def test_datagram_from_or_to_port_666_is_dissected(ports: tuple[int, int], ip: Any) -> None:
    datagram = CODEC.encode(ENVELOPE, HANDOFF)
    packet = type(ip)(bytes(ip / UDP(sport=ports[0], dport=ports[1]) / datagram))
    assert bytes(packet[HandoffMessage]) == datagram
    assert summary(datagram) in packet.summary()


def test_datagram_at_another_port_is_not_dissected_until_registered() -> None:
    packet = bytes(IP() / UDP(sport=5000, dport=6667) / CODEC.encode(ENVELOPE, HANDOFF))
    assert HandoffMessage not in IP(packet)
    dissect.register(6667)
    try:
        assert HandoffMessage in IP(packet)
    finally:
        split_bottom_up(UDP, HandoffMessage, sport=6667)
        split_bottom_up(UDP, HandoffMessage, dport=6667)
        dissect.register()
    assert HandoffMessage not in IP(packet)


@pytest.mark.parametrize("octets", [b"", b"hello", bytes(100), b"x" * 16 + b"TH" + bytes(49)])
def test_other_octets_at_port_666_stay_raw(octets: bytes) -> None:
    packet = IP(bytes(IP() / UDP(sport=5000, dport=666) / octets))
    assert HandoffMessage not in packet
    assert octets == b"" or packet[Raw].load == octets


def test_message_without_ports_is_sent_from_and_to_666() -> None:
    packet = IP(bytes(IP() / UDP() / HandoffMessage()))
    assert (packet[UDP].sport, packet[UDP].dport) == (666, 666)


# --- summary


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (HANDOFF, "HANDOFF 198.18.0.10:40000 > 198.18.0.36:80 irs=11223344 iss=55667788 123 octets"),
        (
            Handoff(IPV6, Agreement(1, None, sack=False), None, 0, 0, None, 0, confirm=True),
            "HANDOFF [2001:db8::a]:40000 > [2001:db8::24]:80 irs=11223344 iss=55667788 0 octets confirm",
        ),
        (Adopted(IPV4, SeqNum(0x11223344 + 79)), "ADOPTED 198.18.0.10:40000 > 198.18.0.36:80 rcv_nxt=irs+79"),
        (
            Adopted(identity(irs=0xFFFFFFFF), SeqNum(4)),
            "ADOPTED 198.18.0.10:40000 > 198.18.0.36:80 rcv_nxt=irs+5",
        ),
        (Refused(IPV4, Reason.NO_LISTENER), "REFUSED 198.18.0.10:40000 > 198.18.0.36:80 no listener"),
        (Moved(IPV4, 38), "MOVED 198.18.0.10:40000 > 198.18.0.36:80 owner=38"),
        (Closed(()), "CLOSED"),
        (Closed((IPV4,)), "CLOSED 198.18.0.10:40000 > 198.18.0.36:80"),
        (Closed((IPV6, IPV4, IPV4)), "CLOSED [2001:db8::a]:40000 > [2001:db8::24]:80 and 2 more"),
        (FlowsQuery(()), "FLOWS? all"),
        (FlowsQuery((KEY_IPV4,)), "FLOWS? 198.18.0.10:40000 > 198.18.0.36:80"),
        (Flows((IPV4, IPV6), (KEY_IPV4,)), "FLOWS held=2 absent=1"),
        (Status(1, 2, NodeState.UP, 3, bytes(16)), "STATUS up flows=3"),
    ],
)
def test_message_summed_up_is_one_line(message: Message, line: str) -> None:
    assert summary(CODEC.encode(ENVELOPE, message)) == line


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_named_as_elsewhere(reason: Reason) -> None:
    assert summary(CODEC.encode(ENVELOPE, Refused(IPV4, reason))).endswith(f" {reason.text}")


@pytest.mark.parametrize("state", NodeState)
def test_every_node_state_is_named(state: NodeState) -> None:
    line = summary(CODEC.encode(ENVELOPE, Status(1, 2, state, 0, bytes(16))))
    assert line == f"STATUS {state.name.lower()} flows=0"


def test_every_server_state_is_named() -> None:
    states = dissect.Server.fields_desc[2].i2s
    assert states == {state.value: state.text for state in ServerState}


@given(envelopes, messages)
def test_any_message_summary_names_its_type_and_flow(envelope: Envelope, message: Message) -> None:
    line = summary(CODEC.encode(envelope, message))
    kind = type(message).__name__.upper().replace("FLOWSQUERY", "FLOWS?")
    assert line.split()[0] == kind
    if isinstance(message, Handoff | Adopted | Refused | Moved):
        client, vip = (str(ip_address(octets)) for octets in key_addresses(message.identity.key))
        assert f"{client}" in line
        assert f"{vip}" in line
        assert all(f":{port}" in line for port in key_ports(message.identity.key))


@pytest.mark.parametrize("octets", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", bytes(68), bytes(1500)])
def test_octets_that_are_no_message_are_called_so(octets: bytes) -> None:
    assert summary(octets) == NO_MESSAGE == "not a handoff message"


@pytest.mark.parametrize(("name", "fields"), [(name, fields) for name, fields, _ in MALFORMED])
def test_message_with_malformed_fields_is_none(name: str, fields: Sequence[tuple[int, bytes]]) -> None:
    assert summary(with_fields(name, *fields)) == NO_MESSAGE


@pytest.mark.parametrize(
    ("offset", "octets"),
    [
        (18, b"\x02"),  # version
        (19, b"\x00"),  # type
        (19, b"\x09"),
        (20, b"\x10"),  # header length
        (20, b"\xff"),
        (21, b"\x2f"),  # IPv6, but the header is too short for it
        (22, b"\xf7"),  # window scales
        (22, b"\x7f"),
        (70, b"\x00\x05"),  # length of the TLV
    ],
)
def test_message_with_malformed_header_is_none(offset: int, octets: bytes) -> None:
    datagram = CODEC.encode(ENVELOPE, replace(HANDOFF, acknowledged=SeqNum(5), octets=b""))
    assert summary(datagram) != NO_MESSAGE
    assert summary(datagram[:offset] + octets + datagram[offset + len(octets) :]) == NO_MESSAGE


def test_window_scales_are_not_looked_at_where_windows_are_not_scaled() -> None:
    agreement = Agreement(1460, None, sack=True)
    datagram = CODEC.encode(ENVELOPE, replace(HANDOFF, agreement=agreement, promised_window_scale=None))
    datagram = seal(datagram[16:22] + b"\xff" + datagram[23:])
    assert summary(datagram) != NO_MESSAGE
    assert isinstance(CODEC.decode(datagram)[1], Handoff)


@given(st.binary(max_size=200))
def test_any_octets_summary_never_raises(octets: bytes) -> None:
    assert summary(octets) == NO_MESSAGE


@given(contents())
def test_any_contents_summary_agrees_with_the_codec_on_what_a_message_is(covered: bytes) -> None:
    datagram = seal(covered)
    try:
        CODEC.decode(datagram)
    except WireError:
        is_message = False
    else:
        is_message = True
    assert (summary(datagram) != NO_MESSAGE) is is_message


@given(contents())
def test_any_contents_in_a_packet_dissection_never_raises(covered: bytes) -> None:
    packet = IP(bytes(IP() / UDP(sport=666, dport=666) / seal(covered)))
    assert isinstance(packet.summary(), str)
    assert isinstance(packet.show(dump=True), str)
