"""The command `python -m tcpha route`: which rule and which server would be chosen, and why. Nothing is sent.

What a client would send is made up from options, or read from a file, and goes through the same inspectors and rules as
in a front end. Exit status: 0 a server is chosen, 1 none is, 2 a fault of usage or of the configuration.
"""

from __future__ import annotations

import argparse
import re
import ssl
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from hpack import Encoder

from tcpha.balance import Address
from tcpha.config import FrontEndConfig, NodeConfig, load_either
from tcpha.errors import ConfigError
from tcpha.fields import Connection
from tcpha.invocation import command
from tcpha.proto.inspect import NEED_MORE, Cause, FirstOctets, Inspected, Refusal
from tcpha.proto.inspect.first import inspect, is_cut_off, suspected
from tcpha.proto.inspect.http2 import opening
from tcpha.route_text import answered_line, route_lines
from tcpha.rules import Choice, RuleSet

_LIMIT_OCTETS = 1 << 20
_VERSION = re.compile(r"HTTP/\d(?:\.\d)?")
_HTTP2 = ("HTTP/2", "HTTP/2.0")
_HTTP3 = ("HTTP/3", "HTTP/3.0")
_NOTE_ON_HTTP2 = "taken as HTTP/2 without TLS; if this was TLS, use --sni and --alpn h2: TLS stays end to end"
_CLIENTS = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849) for a client that nobody named."""

_DESCRIPTION = """\
Says which rule and which server would be chosen for what a client sends, and why: every rule up to the one that
decides, and which of its fields match. Takes the file of a front end or of a back end. Nothing is sent, and no rights
are needed.
"""
_EXAMPLES = """\
examples:
  {command} -c etc/tcphafe.conf 'GET /a.jpg'
  {command} -c etc/tcphafe.conf '/a.jpg' --host www.example.com --header 'Cookie: id=7'
  {command} -c etc/tcphafe.conf 'GET /a.html HTTP/1.1' --client 198.51.100.9
for these the sample files have no rule: nothing is chosen, exit status 1
  {command} -c etc/tcphafe.conf --sni www.example.com --alpn h2
  printf 'SSH-2.0-x\\r\\n' | {command} -c etc/tcphafe.conf --file -
  {command} -c etc/tcphabe.conf 'GET /' --down 192.168.1.33

Exit status: 0 a server is chosen, 1 none is, 2 a fault of usage or of the configuration.
"""


class UsageError(Exception):
    """Options that do not fit together, or that the configuration does not know."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say which options the command takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES.format(command=command("tcpha route"))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("/etc/tcpha/tcphafe.conf"),
        metavar="FILE",
        help="default: %(default)s",
    )
    sent = parser.add_argument_group("what the client sends: a request, a TLS handshake, or any octets")
    sent.add_argument(
        "request",
        nargs="?",
        metavar="REQUEST",
        help="METHOD TARGET, or TARGET alone (GET); also with a version behind, as in a log",
    )
    sent.add_argument("--host", help="the request's host (default: the first virtual address)")
    sent.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="one more of its headers")
    sent.add_argument("--sni", metavar="NAME", help="the server's name in the TLS handshake")
    sent.add_argument("--alpn", metavar="NAME[,NAME...]", help="the protocols that the TLS handshake offers")
    sent.add_argument("--file", metavar="FILE", help="a file with the first octets as they are; - is standard input")
    where = parser.add_argument_group("where it comes from and goes to")
    where.add_argument("--client", metavar="ADDRESS", help="the client's address (default: one for documentation)")
    where.add_argument("--port", type=int, metavar="N", help="the port it asks (default: the first vport)")
    where.add_argument("--down", action="append", default=[], metavar="ADDRESS", help="a server that cannot be used")


def run(options: argparse.Namespace) -> int:
    """Print the choice and why; return the exit status."""
    try:
        config = load_either(options.config)
        octets = _octets(options, config)
        connection = _connection(options, config)
        down = [_server_address(text, config) for text in options.down]
    except (ConfigError, UsageError) as error:
        print(f"route: {error}", file=sys.stderr)
        return 2
    for warning in config.warnings():
        print(f"{options.config}: warning: {warning}", file=sys.stderr)
    match_time_s, limit_octets = _limits(config)
    rules = RuleSet(config.rule, config.server, match_time_s)
    plain = rules.takes_octets(connection.port)
    patience = rules.patience()
    seen = inspect(octets, limit_octets, raw=rules.needs_octets, plain=plain)
    if not isinstance(seen, Inspected):
        as_they_are = FirstOctets(octets[:limit_octets])
        if rules.claims_octets(as_they_are, connection, patience, final=False):
            seen = as_they_are
        elif rules.claims_octets(as_they_are, connection, patience, final=seen is NEED_MORE or is_cut_off(seen)):
            if seen is NEED_MORE:
                print(f"Undecided: this looks like {suspected(octets, limit_octets)}. If no more octets come:")
            seen = as_they_are
    if isinstance(seen, Refusal):
        print(f"nothing chosen: {seen.protocol}, {seen.cause.value}: {seen.reason}")
        print(answered_line(seen.protocol, seen.cause, None, seen.code))
        return 1
    if not isinstance(seen, Inspected):
        print("nothing chosen: the octets end before anything can be told; a front end waits for more")
        print(f"if they do not come: {answered_line(suspected(octets, limit_octets), Cause.TIMED_OUT)}")
        return 1
    waits = len(octets) < limit_octets and rules.is_undecided(seen, connection, patience)
    choice = rules.choose(seen, connection, down, patience=patience)
    for line in route_lines(rules, seen, connection, down, choice, patience, waits=waits):
        print(line)
    return 0 if isinstance(choice, Choice) else 1


def _limits(config: NodeConfig) -> tuple[float, int]:
    """A front end's `match_time` (seconds) and `inspect_octets`; the defaults where a back end's file has none."""
    if isinstance(config, FrontEndConfig):
        return config.match_time, config.inspect_octets
    fields = FrontEndConfig.model_fields
    return fields["match_time"].default, fields["inspect_octets"].default


# --- what the client sends


def _octets(options: argparse.Namespace, config: NodeConfig) -> bytes:
    is_tls = options.sni is not None or options.alpn is not None
    given = {"a REQUEST": options.request is not None, "--sni or --alpn": is_tls, "--file": options.file is not None}
    kinds = [kind for kind, is_given in given.items() if is_given]
    if not kinds:
        raise UsageError("what does the client send? Give a REQUEST, or --sni and --alpn, or --file; see -h")
    if kinds[:2] == ["a REQUEST", "--sni or --alpn"]:
        raise UsageError("a REQUEST and --sni or --alpn: of a TLS client a front end sees no request; give one of them")
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(kinds)} are not sent at once: give one of them")
    if options.request is None and (options.host is not None or options.header):
        raise UsageError("--host and --header are parts of a REQUEST")
    if options.request is not None:
        host = _text_of_host(config.vaddr[0]) if options.host is None else options.host
        return _request(options.request, host, options.header, has_host=options.host is not None)
    if is_tls:
        return _client_hello(options.sni, [] if options.alpn is None else options.alpn.split(","))
    return _file(options.file)


def _text_of_host(address: Address) -> str:
    return str(address) if address.version == 4 else f"[{address}]"


def _request(line: str, host: str, headers: Sequence[str], *, has_host: bool) -> bytes:
    words = line.split()
    version = words.pop() if len(words) > 1 and _VERSION.fullmatch(words[-1]) else "HTTP/1.1"
    if len(words) not in (1, 2):
        raise UsageError(f"'{line}' is neither METHOD TARGET nor TARGET")
    if version in _HTTP3:
        raise UsageError(
            f"{version} is no TCP; of the same client's HTTP/2 over TLS a front end sees --sni and --alpn h2"
        )
    names = [header.partition(":")[0].strip().lower() for header in headers]
    if any(":" not in header for header in headers):
        raise UsageError("a header is 'NAME: VALUE'")
    hosts = [f"Host: {host}"] if has_host or "host" not in names else []
    method, target = words if len(words) == 2 else ("GET", words[0])
    lines = [f"{method} {target} {version}", *hosts, *headers]
    if any(end in text for text in lines for end in "\r\n"):
        raise UsageError("there is no line end in a request's parts; use --file")
    if version in _HTTP2:
        return _http2_request(method, target, host if hosts else "", headers)
    return "".join(f"{text}\r\n" for text in (*lines, "")).encode("utf-8", "surrogateescape")


def _http2_request(method: str, target: str, host: str, headers: Sequence[str]) -> bytes:
    """Return how a client with prior knowledge begins (RFC 9113, 3.3 and 8.3.1)."""
    print(f"note: {_NOTE_ON_HTTP2}", file=sys.stderr)
    path = target if method != "CONNECT" else ""
    pseudo = [(":method", method), (":scheme", "http" if path else ""), (":authority", host), (":path", path)]
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (header.partition(":") for header in headers)]
    fields = [field for field in (*pseudo, *pairs) if field[1]]
    octets = [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")) for name, value in fields
    ]
    block = Encoder().encode(octets)
    return opening(block)


def _client_hello(name: str | None, protocols: Sequence[str]) -> bytes:
    """Let a TLS client begin, without a peer: what it would send first is a real ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        if protocols:
            context.set_alpn_protocols(list(protocols))
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    except (ValueError, ssl.SSLError) as error:
        raise UsageError(f"no TLS client would send this name or these protocols: {error}") from None
    return outgoing.read()


def _file(name: str) -> bytes:
    try:
        if name == "-":
            octets = sys.stdin.buffer.read(_LIMIT_OCTETS)
        else:
            with Path(name).open("rb") as file:
                octets = file.read(_LIMIT_OCTETS)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not octets:
        raise UsageError(f"{name} is empty")
    return octets


# --- where it comes from and goes to


def _connection(options: argparse.Namespace, config: NodeConfig) -> Connection:
    port = config.vport[0] if options.port is None else options.port
    if port not in config.vport:
        raise UsageError(f"port {port} is no vport of this configuration")
    client = _address(options.client or _CLIENTS[config.vaddr[0].version])
    if client.version not in {address.version for address in config.vaddr}:
        raise UsageError(f"{client} is IPv{client.version}, but no vaddr is")
    return Connection(client.packed, port)


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise UsageError(f"'{text}' is no IPv4 or IPv6 address") from None


def _server_address(text: str, config: NodeConfig) -> Address:
    address = _address(text)
    if address not in {server.addr for server in config.server}:
        raise UsageError(f"{address} is in no server line")
    return address
