"""Target: the scapy layers of the handoff messages, beside the codec that reads the same octets."""

from __future__ import annotations

from ipaddress import ip_address

from tcpha.errors import WireError
from tcpha.proto.dissect import NO_MESSAGE, HandoffMessage, summary
from tcpha.proto.ip import key_addresses, key_ports
from tcpha.proto.messages import Adopted, Handoff, Moved, Refused
from tests.fuzz.messages import CODEC, seal


def dissect(octets: bytes) -> None:
    """The scapy layers take a datagram for a message exactly if the codec does, and show the same flow."""
    found = seal(octets)
    line = summary(found)
    try:
        _, said = CODEC.decode(found)
    except WireError:
        assert line == NO_MESSAGE, line
        return
    assert line != NO_MESSAGE
    layer = HandoffMessage(found)
    assert bytes(layer.octets) == (said.octets if isinstance(said, Handoff) else found[layer.words * 4 :])
    if isinstance(said, Handoff | Adopted | Refused | Moved):
        key = said.identity.key
        client, virtual = key_addresses(key)
        assert (ip_address(layer.client_address).packed, ip_address(layer.virtual_address).packed) == (client, virtual)
        assert (layer.client_port, layer.vip_port) == key_ports(key)
        assert (layer.irs, layer.iss) == (said.identity.irs, said.identity.iss)
