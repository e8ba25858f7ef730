"""Frames for the programs: made with scapy, which shares no code with the codec; what they become, read as octets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from msgspec import structs
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tcpha.proto.cookie import Agreement
from tcpha.proto.handoff import Envelope, HandoffCodec
from tcpha.proto.ip import connection_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.messages import Handoff, Identity
from tcpha.proto.options import encode_timestamps
from tcpha.proto.seqnum import SeqNum, seq_add
from tcpha.proto.tcp import ACK, PSH, encode_segment

CLIENT = {4: "198.18.0.10", 6: "2001:db8::10"}
VIP = {4: "198.18.0.36", 6: "2001:db8::36"}
FRONT_END = {4: "198.18.1.1", 6: "2001:db8:1::1"}
BACK_END = {4: "198.18.1.2", 6: "2001:db8:1::2"}
PORT, VIP_PORT, CLIENT_PORT = 666, 80, 40000
SENDER, EPOCH, TABLE, PERIOD = 23, 0xA1B2C3D4, 3, 53125000
MARK, RETRY_MARK = 0x7C0A, 0x7C0B
ETHER_OCTETS = 14

KEYRING = Keyring((Key(1, bytes(range(32))), Key(7, bytes(range(32, 64)))))
CODEC = HandoffCodec(KEYRING)
SECOND_CODEC = HandoffCodec(Keyring((KEYRING.keys[1],)))
REQUEST = b"GET /a.jpg HTTP/1.1\r\nHost: www.example\r\n\r\n"


def handoff(
    family: int = 4, *, client_port: int = CLIENT_PORT, irs: int = 0x11223344, iss: int = 0xBA514C36
) -> Handoff:
    """An ordinary HANDOFF; tests state what differs, with `dataclasses.replace`."""
    key = connection_key(ip_address(CLIENT[family]), client_port, ip_address(VIP[family]), VIP_PORT)
    return Handoff(
        Identity(key, SeqNum(irs), SeqNum(iss)), Agreement(1440, 7, True), 9, 502, PERIOD, 0x267DBFB3, 1000000, False,
        None, REQUEST,
    )  # fmt: skip


def of_the_host(family: int, port: int) -> Handoff:
    """A HANDOFF of a connection that the host has with its own virtual address."""
    address = ip_address(VIP[family])
    message = handoff(family)
    key = connection_key(address, port, address, VIP_PORT)
    return structs.replace(message, identity=structs.replace(message.identity, key=key))


@dataclass(frozen=True)
class Datagram:
    """One HANDOFF on its way; every field can differ from the template."""

    message: Handoff = field(default_factory=handoff)
    family: int = 4
    sequence: int = 1
    epoch: int = EPOCH
    sender: int = SENDER
    codec: HandoffCodec = CODEC
    source_port: int = PORT
    port: int = PORT

    def but(self, **changes: object) -> Datagram:
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def octets(self) -> bytes:
        return self.codec.encode(Envelope(self.sender, self.epoch, self.sequence), self.message)

    def frame(self, octets: bytes | None = None) -> bytes:
        """The datagram, or these octets in its place, between front end and back end."""
        return frame(self.octets if octets is None else octets, self.family, self.source_port, self.port)


def frame(octets: bytes, family: int = 4, source_port: int = PORT, port: int = PORT) -> bytes:
    return bytes(ether(family) / UDP(sport=source_port, dport=port) / octets)


def ether(family: int) -> Ether:
    network = IP(src=FRONT_END[4], dst=BACK_END[4], id=4711, tos=0x10, flags="DF") if family == 4 else IPv6(
        src=FRONT_END[6], dst=BACK_END[6], fl=0x12345, tc=0x10
    )  # fmt: skip
    # To the address of the loopback device, at which a program is rehearsed: else it is not for this host.
    return Ether(src="02:00:00:00:00:01", dst="00:00:00:00:00:00") / network


def segment_of(message: Handoff) -> bytes:
    """The TCP part of what a HANDOFF must become, by our own encoder: the front end's numbers, no echo."""
    options = b"" if message.tsval_sent is None else encode_timestamps(message.tsval_client, 0)
    identity = message.identity
    packet = encode_segment(
        identity.key,
        seq_add(identity.irs, 1),
        seq_add(identity.iss, 1),
        ACK | PSH if message.octets else ACK,
        message.window,
        options,
        message.octets,
    )
    return packet[ip_octets(packet) :]


def ip_octets(packet: bytes) -> int:
    return 20 if packet[0] >> 4 == 4 else 40


def tcp_of(octets: bytes) -> bytes:
    """The TCP part of a frame."""
    packet = octets[ETHER_OCTETS:]
    return packet[ip_octets(packet) :]
