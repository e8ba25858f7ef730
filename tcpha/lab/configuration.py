"""The configuration files and the secret of a lab's front end and back ends. Pure.

Must not know how the two programs read them: a file is lines of `key = value`, in which keys may repeat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from tcpha.lab import nginx, redis
from tcpha.lab.addressing import IFACE, Place, Plan
from tcpha.lab.certificate import DOMAIN

HANDOFF_PORT = 666
SERVER_PORT = nginx.PORT
PROTOCOL_PORTS = (SERVER_PORT, nginx.TLS_PORT, nginx.HTTP2_PORT, redis.PORT)
"""The virtual ports of a lab whose back ends speak more than HTTP/1."""
SECRET_OCTETS = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """Lines `key = value` for the generated files. A key that is set here replaces all lines the lab has of it."""

    both: tuple[str, ...] = ()
    """For the front end and the back ends: `("rule = 198.18.0.33 .*",)` replaces the lab's rules."""
    fe: tuple[str, ...] = ()
    be: tuple[str, ...] = ()


def front_end(plan: Plan, secret: Path, state: Path, settings: Settings, *, protocols: bool = False) -> str:
    """Text of tcphafe.conf as the lab makes it; `protocols`: the back ends speak more than HTTP/1."""
    lines = [
        f"raddr = {plan.fe.ipv4}",
        *_shared_lines(plan, protocols),
        *_local_lines(secret, state),
        *forwarding_lines(plan),
    ]
    return _text(lines, (*settings.both, *settings.fe))


def back_end(
    plan: Plan, place: Place, secret: Path, state: Path, settings: Settings, *, protocols: bool = False
) -> str:
    """Text of tcphabe.conf of one back end as the lab makes it; `protocols` as in `front_end`."""
    lines = [
        f"raddr = {place.ipv4}",
        f"uaddr = {plan.uaddr4}",
        f"uaddr = {plan.uaddr6}",
        f"fe = {plan.fe.ipv4} {HANDOFF_PORT}",
        *_shared_lines(plan, protocols),
        *_local_lines(secret, state),
    ]
    return _text(lines, (*settings.both, *settings.be))


def forwarding_lines(plan: Plan) -> list[str]:
    """What only the front end of a routed lab is told: a back end is no neighbour of its."""
    return ["forward = tunnel"] if plan.is_routed else []


def completed(text: str, secret: Path, state: Path, further: Iterable[str] = ()) -> str:
    """A user's file with the lab's `secret`, `state` and `iface` and `further` lines after it.

    Each comes only if the file does not set its key. Line numbers stay as they are.
    """
    keys = {_key(line) for line in text.splitlines()}
    missing = [line for line in (*_local_lines(secret, state), *further) if _key(line) not in keys]
    return "".join(f"{line}\n" for line in (*text.splitlines(), *missing))


def readdressed(text: str, place: Place) -> str:
    """A user's file with its `raddr` replaced by the node's address of the same family; the IPv4 one if it has none."""
    lines = text.splitlines()
    raddrs = [number for number, line in enumerate(lines) if _key(line) == "raddr"]
    for number in raddrs:
        wants_ipv6 = _is_ipv6(lines[number].partition("=")[2].partition("#")[0].strip())
        lines[number] = f"raddr = {place.ipv6 if wants_ipv6 else place.ipv4}"
    if not raddrs:
        lines.append(f"raddr = {place.ipv4}")
    return "".join(f"{line}\n" for line in lines)


def secret_text(key: bytes) -> str:
    """Text of a secret file that holds one key, numbered 1.

    Raises:
        ValueError: the key is not `SECRET_OCTETS` octets long.
    """
    if len(key) != SECRET_OCTETS:
        raise ValueError(f"a key is {SECRET_OCTETS} octets, not {len(key)}")
    return f"1 {key.hex()}\n"


def _shared_lines(plan: Plan, protocols: bool) -> list[str]:
    """What front end and back ends must agree on; the rules are the example of TCPHA-0.3."""
    first, *others = plan.backends
    rules = [f"rule = {other.ipv4} jpg$" for other in others[:1]]
    return [
        f"vaddr = {plan.vip4}",
        f"vaddr = {plan.vip6}",
        *(f"vport = {port}" for port in (PROTOCOL_PORTS if protocols else (SERVER_PORT,))),
        *(f"server = {place.ipv4} {HANDOFF_PORT}" for place in plan.backends),
        *rules,
        *(_protocol_rules(plan) if protocols else ()),
        f"rule = {first.ipv4} .*",
    ]


def _protocol_rules(plan: Plan) -> list[str]:
    """Rules for a host, an upgrade, names and protocols in TLS, and for Redis: inline commands and the usual arrays.

    What is not HTTP is routed by port first of all: a server that expects something else would answer it in clear text,
    or not at all.
    """
    first, second = plan.backends[0].ipv4, plan.backends[1 % len(plan.backends)].ipv4
    domain = DOMAIN.replace(".", r"\.")
    return [
        rf"rule = {second} host=^img\.{domain}$",
        f"rule = {second} header.upgrade=(?i)^websocket$",
        rf"rule = {second} port={nginx.TLS_PORT} sni=^img\.{domain}$",
        rf"rule = {first} port={nginx.TLS_PORT} sni=^www\.{domain}$",
        f"rule = {second} port={nginx.TLS_PORT} alpn=^h2(,|$)",
        f"rule = {first} port={nginx.TLS_PORT}",
        f"rule = {second} port={redis.PORT} octets=^[A-Za-z]",
        f"rule = {first} port={redis.PORT}",
    ]


def _local_lines(secret: Path, state: Path) -> list[str]:
    return [f"iface = {IFACE}", f"secret = {secret}", f"state = {state}"]


def _text(lines: Iterable[str], settings: tuple[str, ...]) -> str:
    replaced = {_key(line) for line in settings}
    kept = [line for line in lines if _key(line) not in replaced]
    return "".join(f"{line}\n" for line in ("# Made by python -m tcpha.lab.", *kept, *settings))


def _key(line: str) -> str | None:
    key, equals, _ = line.partition("=")
    return key.strip() if equals and not key.lstrip().startswith("#") else None


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address)
    except ValueError:
        return False
