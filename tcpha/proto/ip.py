"""IPv4 (RFC 791) and IPv6 (RFC 8200) headers, as far as a TCP segment needs them.

`ConnectionKey` is how this package names a connection's four-tuple: source address, destination address, source port,
destination port exactly as they stand side by side in a packet without IP options, so that a key is one slice:

    IPv4   12 octets   4 source, 4 destination, 2 source port, 2 destination port
    IPv6   36 octets   16 source, 16 destination, 2 source port, 2 destination port
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from tcpha.proto.checksum import finish

IpAddress = IPv4Address | IPv6Address
ConnectionKey = NewType("ConnectionKey", bytes)

PROTOCOL_ICMP = 1
PROTOCOL_IPV4 = 4
PROTOCOL_TCP = 6
PROTOCOL_IPV6 = 41
PROTOCOL_ICMPV6 = 58
IPV4_HEADER_OCTETS = 20
IPV6_HEADER_OCTETS = 40
KEY_OCTETS_IPV4 = 12
KEY_OCTETS_IPV6 = 36
HOP_LIMIT = 64
DONT_FRAGMENT = 0x4000
FIRST_WORD_IPV4 = 0x4500
"""Version 4, five words of header, default service class."""
FIRST_WORDS_IPV6 = 0x60000000
"""Version 6, default service class, flow label 0."""

_IPV4 = struct.Struct("!HHHHBBH8s")
_IPV6 = struct.Struct("!IHBB32s")
_PORTS = struct.Struct("!HH")


def connection_key(source: IpAddress, source_port: int, destination: IpAddress, destination_port: int) -> ConnectionKey:
    """Build a key from values. Raises: ValueError if the families differ or a port is not 0..65535."""
    if source.version != destination.version:
        raise ValueError("addresses of two families")
    if not (0 <= source_port <= 0xFFFF and 0 <= destination_port <= 0xFFFF):
        raise ValueError("port out of range")
    return ConnectionKey(source.packed + destination.packed + _PORTS.pack(source_port, destination_port))


def reverse_key(key: ConnectionKey) -> ConnectionKey:
    """Return the key of the other direction."""
    half = (len(key) - 4) >> 1
    return ConnectionKey(key[half : 2 * half] + key[:half] + key[-2:] + key[-4:-2])


def key_addresses(key: ConnectionKey) -> tuple[bytes, bytes]:
    """Return source and destination address, packed (4 or 16 octets each)."""
    half = (len(key) - 4) >> 1
    return key[:half], key[half : 2 * half]


def key_ports(key: ConnectionKey) -> tuple[int, int]:
    """Return source and destination port."""
    source, destination = _PORTS.unpack_from(key, len(key) - 4)
    return source, destination


def key_text(key: ConnectionKey) -> str:
    """Return ``SOURCE:PORT > DESTINATION:PORT`` for logs; IPv6 addresses in brackets."""
    source, destination = key_addresses(key)
    ports = key_ports(key)
    if len(source) == 4:
        return f"{IPv4Address(source)}:{ports[0]} > {IPv4Address(destination)}:{ports[1]}"
    return f"[{IPv6Address(source)}]:{ports[0]} > [{IPv6Address(destination)}]:{ports[1]}"


def encode_ip_header(key: ConnectionKey, payload_octets: int) -> bytes:
    """Return the IP header that carries `payload_octets` of TCP along `key` (20 or 40 octets, don't fragment)."""
    return _encode_header(key[:-4], PROTOCOL_TCP, payload_octets, DONT_FRAGMENT)


def encode_header(
    source: bytes, destination: bytes, protocol: int, payload_octets: int, *, whole: bool = True
) -> bytes:
    """Return an IP header between packed addresses of one family; `whole`: routers must not fragment (IPv4)."""
    return _encode_header(source + destination, protocol, payload_octets, DONT_FRAGMENT if whole else 0)


def _encode_header(addresses: bytes, protocol: int, payload_octets: int, fragment: int) -> bytes:
    if len(addresses) == 8:
        length = IPV4_HEADER_OCTETS + payload_octets
        words = FIRST_WORD_IPV4 + length + fragment + (HOP_LIMIT << 8 | protocol)
        checksum = finish(words + int.from_bytes(addresses, "big"))
        return _IPV4.pack(FIRST_WORD_IPV4, length, 0, fragment, HOP_LIMIT, protocol, checksum, addresses)
    return _IPV6.pack(FIRST_WORDS_IPV6, payload_octets, protocol, HOP_LIMIT, addresses)
