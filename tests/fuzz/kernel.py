"""Target: what the kernel says over netlink, read by the walker of messages and by all that stand on it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from tcpha.errors import EdgeError
from tcpha.net.netlink import (
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    Neighbours,
    decode_attributes,
    decode_messages,
    encode_attribute,
    encode_message,
    error_of,
)
from tcpha.net.sockdiag import SocketDiagnostics

INDEX = 3
HEADER_OCTETS = 16


class _Kernel:
    """Answers every question with the same messages."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = list(messages)

    def request(self, _kind: int, _flags: int, _body: bytes) -> list[Message]:
        for message in self._messages:
            if message.kind in (NLMSG_ERROR, NLMSG_DONE) and (code := error_of(message)):
                raise OSError(code, "refused")
        return self._messages


def netlink(octets: bytes) -> None:
    """One read of a netlink socket."""
    messages = list(decode_messages(octets))
    assert sum(HEADER_OCTETS + len(message.body) for message in messages) <= len(octets)
    for message in messages:
        error_of(message)
        attributes = decode_attributes(message.body, 0)
        assert sum(map(len, attributes.values())) <= len(message.body)
        written = b"".join(encode_attribute(kind, value) for kind, value in attributes.items())
        assert decode_attributes(written, 0) == attributes
        (again,) = decode_messages(encode_message(message))
        assert again == message
    _neighbours(messages)
    _sockets(messages)


def _neighbours(messages: list[Message]) -> None:
    table = Neighbours.__new__(Neighbours)
    table._index, table.errors = INDEX, 0
    usable: dict[bytes, bytes] = {}
    for message in messages:
        table._take(message, usable)
    assert len(usable) <= len(messages)
    assert all(len(mac) == 6 for mac in usable.values())


def _sockets(messages: list[Message]) -> None:
    diagnostics = SocketDiagnostics.__new__(SocketDiagnostics)
    diagnostics._netlink = _Kernel(messages)  # type: ignore[assignment]
    try:
        found = diagnostics.find(ip_address("198.18.0.36"), 80, ip_address("192.0.2.10"), 40000)
        if found is not None:
            assert len(found.cookie) == 8
            diagnostics.destroy(found)
    except EdgeError:
        return
