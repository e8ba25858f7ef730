"""What an inspector would have seen, made up for rules to look at."""

from __future__ import annotations

from ipaddress import ip_address

from tcpha.fields import Connection
from tcpha.proto.inspect import FirstOctets, Protocol, Request
from tcpha.proto.inspect.tls import ClientHello


def request(target: bytes = b"/", method: bytes = b"GET", host: bytes = b"", **headers: str) -> Request:
    """A request; an underscore in a header's name stands for ``-``."""
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    octets = method + b" " + target + b" HTTP/1.1\r\n\r\n"
    return Request(Protocol.HTTP1, method, target, host, fields, len(octets), octets)


def hello(sni: bytes | None = None, *alpn: bytes) -> ClientHello:
    """A TLS handshake's first message, as far as rules look at it."""
    octets = b"\x16\x03\x01"
    names = b"".join(bytes((len(name),)) + name for name in alpn)
    return ClientHello(sni, names if alpn else None, len(octets), octets)


def first(octets: bytes) -> FirstOctets:
    """Octets of a protocol nobody knows."""
    return FirstOctets(octets)


def connection(client: str = "198.51.100.7", port: int = 80) -> Connection:
    """A connection from a client to a port."""
    return Connection(ip_address(client).packed, port)
