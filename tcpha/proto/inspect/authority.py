"""Host and port as HTTP spells them, which both versions check alike (RFC 9110, 7.2; RFC 3986, 3.2)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

_AUTHORITY: Final = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]++)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})++)(?::(?P<port>[0-9]{0,5}+))?"
)


def is_authority(octets: bytes, *, port_required: bool = False) -> bool:
    """``uri-host [ ":" port ]`` of RFC 9110, 7.2, without user information (RFC 9110, 4.2.4) and never empty."""
    match = _AUTHORITY.fullmatch(octets)
    if match is None:
        return False
    ipv6, port = match.groups()
    if ipv6 is not None:
        try:
            IPv6Address(ipv6.decode("ascii"))
        except AddressValueError:
            return False
    return 1 <= int(port) <= 65535 if port else not port_required
