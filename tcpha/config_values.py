"""Text of a configuration value -> value, as types for pydantic models.

Knows no file and no key. Every type also takes a value that is already of its kind, so a model can be built without a
file. Whatever does not fit raises ValueError with a reason for a person, which pydantic collects.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, InstanceOf

from tcpha.balance import WEIGHT_LIMIT, Address, Endpoint
from tcpha.config_file import Entry
from tcpha.patterns import RuleError
from tcpha.rule_text import Rule, parse_rule

_WHOLE: Final = re.compile(r"[0-9]{1,15}")
_HEXADECIMAL: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_SIZE: Final = re.compile(r"([0-9]{1,12})([kKmM]?)")
_SIZE_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|ms|)")
_SWITCH: Final = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_INTERFACE: Final = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}")


def shown(text: object) -> str:
    """Return `text` quoted, unprintable characters escaped and not longer than a message bears."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= 62 else f"{quoted[:58]}...'"


def parse_address(text: str) -> Address:
    """Read an IPv4 or IPv6 address of one host. Raises: ValueError."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no IPv4 or IPv6 address") from None
    return _of_one_host(address)


def _of_one_host(address: Address) -> Address:
    if address.is_unspecified or address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise ValueError(f"{address} is not the address of one host")
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            # The two spellings of one IPv4 address would be two nodes.
            raise ValueError(f"{address} is an IPv4 address: write {address.ipv4_mapped}")
        if address.is_link_local or address.scope_id is not None:
            raise ValueError(f"{address} is valid on one link only: give a global or unique local address")
    return address


def parse_endpoint(text: str) -> Endpoint:
    """Read ``ADDRESS PORT``. Raises: ValueError."""
    parts = text.split()
    if len(parts) == 1:
        address = parse_address(parts[0])
        raise ValueError(f"no port after {address}: write {address} 666, the `port` of that node's handoff channel")
    if len(parts) != 2:
        raise ValueError(f"{shown(text)} is not ADDRESS PORT")
    return Endpoint(parse_address(parts[0]), _parse_within("port", parts[1], 65535))


def parse_server(text: str) -> Endpoint:
    """Read ``ADDRESS PORT [weight=N]``. Raises: ValueError."""
    if re.search(r"weight(?:\s+=|=\s)", text):
        raise ValueError(f"{shown(text)}: no blanks around the `=` of weight=N")
    *parts, last = text.split() or [""]
    name, equals, number = last.partition("=")
    if not equals:
        return parse_endpoint(text)
    if name != "weight":
        raise ValueError(f"{shown(last)} is not weight=N, the one option of a server")
    endpoint = parse_endpoint(" ".join(parts))
    return Endpoint(endpoint.addr, endpoint.port, _parse_within("weight", number, WEIGHT_LIMIT))


def _parse_within(name: str, text: str, most: int) -> int:
    number = _whole(text)
    if not isinstance(number, int) or not 1 <= number <= most:
        raise ValueError(f"{name} {shown(text)} is not in 1..{most}")
    return number


def parse_duration_s(text: str) -> float:
    """Read ``10``, ``10s``, ``0.25`` or ``250ms``; seconds where no unit is given. Raises: ValueError."""
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise ValueError(f"{shown(text)} is no duration: write 10, 10s or 250ms")
    return float(parts[1]) / 1000 if parts[2] == "ms" else float(parts[1])


def parse_size(text: str) -> int:
    """Read ``16384``, ``16k`` (1024) or ``1m`` (1048576). Raises: ValueError."""
    parts = _SIZE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{shown(text)} is no size: write 16384, 16k or 1m")
    return int(parts[1]) * _SIZE_UNITS[parts[2].lower()]


def _address(value: object) -> object:
    if isinstance(value, str):
        return parse_address(value)
    return _of_one_host(value) if isinstance(value, IPv4Address | IPv6Address) else value


def _endpoint(value: object) -> object:
    return parse_endpoint(value) if isinstance(value, str) else value


def _server(value: object) -> object:
    return parse_server(value) if isinstance(value, str) else value


def _duration(value: object) -> object:
    return parse_duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _whole(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _WHOLE.fullmatch(value):
        raise ValueError(f"{shown(value)} is no whole number")
    return int(value)


def _mark(value: object) -> object:
    return int(value, 16) if isinstance(value, str) and _HEXADECIMAL.fullmatch(value) else _whole(value)


def _whole_or_none(value: object) -> object:
    return None if value == "none" else _whole(value)


def _switch(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lower() not in _SWITCH:
        raise ValueError(f"{shown(value)} is neither yes nor no")
    return _SWITCH[value.lower()]


def _path(value: object) -> object:
    path = Path(value) if isinstance(value, str) else value
    if isinstance(path, Path) and not path.is_absolute():
        # A service has no working directory that anyone would think of.
        raise ValueError(f"{shown(path)} is no absolute path")
    return path


def _interface(value: object) -> object:
    if isinstance(value, str) and not _INTERFACE.fullmatch(value):
        raise ValueError(f"{shown(value)} is no name of a network interface")
    return value


def _rule(value: object) -> object:
    if isinstance(value, Entry):
        try:
            return parse_rule(value.value, value.line)
        except RuleError as error:
            # Where the editor's cursor has to go: the column in the line, not in the value.
            raise ValueError(f"{error.reason} (column {value.column - 1 + error.column})") from None
    if isinstance(value, str):
        try:
            return parse_rule(value)
        except RuleError as error:
            raise ValueError(str(error)) from None
    return value


HostAddress = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]
"""An address of one host: no multicast, wildcard, IPv4-mapped or link-local IPv6 address."""
PeerAddress = Annotated[InstanceOf[Endpoint], BeforeValidator(_endpoint)]
"""``ADDRESS PORT``."""
ServerAddress = Annotated[InstanceOf[Endpoint], BeforeValidator(_server)]
"""``ADDRESS PORT [weight=N]``."""
OrderedRule = Annotated[InstanceOf[Rule], BeforeValidator(_rule)]
"""A rule in the grammar of `tcpha.rule_text`."""
PortNumber = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=65535)]
"""A TCP or UDP port."""
Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, decimal."""
Mark = Annotated[int, BeforeValidator(_mark)]
"""A whole number, decimal or ``0x`` and hexadecimal."""
Size = Annotated[int, BeforeValidator(_size)]
"""A number of octets, packets or entries; ``k`` is 1024, ``m`` 1048576."""
Duration = Annotated[float, BeforeValidator(_duration), Field(allow_inf_nan=False)]
"""Seconds."""
Switch = Annotated[bool, BeforeValidator(_switch)]
"""``yes``, ``on``, ``true`` or ``no``, ``off``, ``false``, in any case."""
WindowScale = Annotated[Annotated[int, Field(ge=0, le=14)] | None, BeforeValidator(_whole_or_none)]
"""RFC 7323, 2.3: 0..14, or ``none``: the option is not offered."""
AbsolutePath = Annotated[Path, BeforeValidator(_path)]
"""A path that begins with ``/``."""
InterfaceName = Annotated[str, BeforeValidator(_interface)]
"""A network interface, as ``ip link`` names it."""
